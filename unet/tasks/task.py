"""The interface of a task: what its labels mean, what the network sees and should output, and how that is used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

import numpy as np

from unet.inputs.layouts import Layout
from unet.inputs.samples import Sample, Samples
from unet.inputs.writers import path_beside
from utils import UserError

TILE, MARGIN = 256, 32  # of the tiles that training takes from a page by default, pixels
Range = tuple[float, float]  # least and most, drawn uniformly
LARGE_IMAGE = 5000**2  # pixels from which on an image is processed in bands of rows, with objects in 32 bits
LEARNT = 0.05  # mean difference in probability from which on a network tells pixels apart
Page = tuple[np.ndarray, np.ndarray, dict]  # image, label, and for the manifest the place where it was cut


@dataclass(frozen=True)
class Options:
    """What is drawn at random for each augmented copy; grey levels are those of the normalised image."""

    turn_probability: float = 0.7
    angle: Range = (-180.0, 180.0)  # rotation, degrees
    zoom: Range = (0.8, 1.25)  # magnification, as pixel sizes differ between microscopes
    elastic_probability: float = 0.8
    elastic_alpha: Range = (2.0, 5.0)  # root mean square displacement along each axis, pixels
    elastic_sigma: Range = (24.0, 48.0)  # smoothness of the deformation, pixels
    crop_probability: float = 0.1
    crop_share: Range = (0.6, 0.9)  # side of the crop, as a share of the image's
    brightness: float = 15.0  # largest shift up or down, grey levels
    noise_probability: float = 0.25  # Gaussian or uniform, equally likely
    gaussian_sd: Range = (1.0, 6.0)  # standard deviation, grey levels
    uniform_intensity: Range = (2.0, 10.0)  # largest change, grey levels


@dataclass(frozen=True)
class Outputs:
    """Where a prediction goes: `out` is a file or a folder, as the task writes; the others are None if not wanted."""

    out: Path
    objects: Path | None = None  # a number for each object
    redrawn: Path | None = None  # the probability with walls drawn

    def as_json(self) -> dict[str, str | None]:
        """Return the absolute paths, ready for JSON."""
        return {one.name: path and str(path.resolve()) for one in fields(self) for path in [getattr(self, one.name)]}

    def describe(self, probability: str, objects: str) -> str:
        """Return a line for each place, with what lies there."""
        if self.objects == self.out:
            return f"{self.out}: {probability}; {objects}"
        lines = [f"{self.out}: {probability}", *([f"{self.objects}: {objects}"] if self.objects else []),
                 *([f"{self.redrawn}: the same with walls drawn"] if self.redrawn else [])]
        return "\n".join(lines)


@dataclass(frozen=True)
class Prediction:
    """A sample and its prediction.

    probability : float32 (H, W[, classes]), the network's output
    redrawn : the same with walls drawn, or that very array
    objects : int32 (H, W), a number for each object, 0 = none
    spread : float32 (H, W), how far the predictions of flips disagree; None if it is not known
    For a very large image they are not arrays, but give rows as arrays do; `np.asarray` reads them whole.
    """

    sample: Sample
    probability: np.ndarray
    redrawn: np.ndarray
    objects: np.ndarray
    spread: np.ndarray | None = None


@dataclass(frozen=True)
class Task(ABC):
    """The base class of cells, classes and nuclei; its fields are the settings that step 1 gets once."""

    name: ClassVar[str]
    meaning: ClassVar[str]  # what its labels show: cells, classes or nuclei
    layouts: ClassVar[tuple[str, ...]]
    output: ClassVar[str]  # what the network outputs, in words
    weights: ClassVar[tuple[str, ...]] = ("none", "balance", "border")
    normalisation: ClassVar[dict] = {"mean": 128.0, "sd": 40.0}  # of the images that the network sees, grey levels
    options: ClassVar[Options] = Options()
    default_copies: ClassVar[int] = 30  # of each training sample, at most, if the user gives no number
    default_weights: ClassVar[str] = "none"
    default_out: ClassVar[Path] = Path("prediction.tif")
    numbers_objects: ClassVar[bool] = False  # into a file of their own, without an option
    windowed: ClassVar[bool] = False  # pages are windows of larger images, not whole
    by_rows: ClassVar[bool] = True  # whether rows of an image can be normalised as the whole is
    objects_are: ClassVar[str]  # how objects follow from `inside`: 'thinned' (borders), 'kinds', or 'pieces' (separate)
    channels: ClassVar[int] = 1  # of the images that the network sees
    max_intensity: ClassVar[float] = 0.4  # upper limit of a recipe's `intensity`; more makes nuclei worse
    affinities: ClassVar[bool] = False  # whether connected pixels of a label are one cell, as affinities need it
    classes: int = field(default=1, init=False)  # of the network's output

    def settings(self) -> dict:
        """Return the settings from which `task_of` makes the same task."""
        return {"name": self.name, **{one.name: getattr(self, one.name) for one in fields(self) if one.init}}

    # ------------------------------------------------------------------------------------------- step 1

    @abstractmethod
    def check(self, layout: Layout) -> list[str]:
        """Return notes on the labels, a sentence each; raises UserError if this task cannot learn from them."""

    @abstractmethod
    def label(self, label: np.ndarray) -> np.ndarray:
        """Return a label (H, W) as this task stores it."""

    @abstractmethod
    def split(self, layout: Layout, holdout: str | None, seed: int) -> list[int]:
        """Return the sorted numbers of the held-out samples, which never train; `holdout`: the user's list, or None."""

    @abstractmethod
    def folds(self, layout: Layout, count: int, seed: int) -> list[list[int]]:
        """Return the sorted numbers of the held-out samples in each fold of a cross-validation; each is in one fold."""

    def check_holdout(self, layout: Layout, numbers: Sequence[int], way_out: str) -> None:
        """Raise UserError, which ends with `way_out`, if holding out these samples would leave nothing to score."""
        return None  # most tasks score any sample

    @abstractmethod
    def page_shape(self, samples: Sequence[Sample]) -> tuple[int, ...]:
        """Return the shape (H, W[, C]) of every page that step 1 writes."""

    @abstractmethod
    def pages(self, sample: Sample) -> Iterator[Page]:
        """Iterate over the parts of a sample that are written unchanged; together they cover it."""

    @abstractmethod
    def window(self, sample: Sample, rng: np.random.Generator) -> Page:
        """Return the part for one augmented copy, of a page's size or, with the context that turning needs, larger."""

    def page_count(self, shape: tuple[int, int]) -> int:
        """Return how many parts `pages` gives for a sample (H, W)."""
        return 1

    def copies(self, sizes: Sequence[tuple[int, int]], groups: Sequence[str], copies: float) -> list[int]:
        """Return the number of augmented copies of each training sample, `copies` on average, evenly spread.

        `sizes` and `groups` are the (height, width) in pixels and the group of each sample.
        """
        count, total = len(sizes), round(copies * len(sizes))
        return [(number + 1) * total // count - number * total // count for number in range(count)]

    # ------------------------------------------------------------------------------------------- step 2

    @abstractmethod
    def levels(self, image: np.ndarray) -> dict:
        """Return what `normalise` needs from a whole image (H, W[, C]), for JSON; copies use that of their original."""

    @abstractmethod
    def grey_level(self, levels: dict) -> float:
        """Return how many of the image's own grey levels make one grey level after `normalise`."""

    @abstractmethod
    def normalise(self, image: np.ndarray, levels: dict) -> np.ndarray:
        """Return what the network sees of an image or a part of it: uint8 (H, W[, C])."""

    @abstractmethod
    def portable(self) -> tuple[list[tuple[str, dict]], str]:
        """Return `normalise` for other programs: steps by their bioimage.io names, and a sentence on their limits."""

    @abstractmethod
    def target(self, label: np.ndarray) -> np.ndarray:
        """Return what the network should output, uint8 (H, W) of 0 .. classes - 1; for one class 1 where it is."""

    def regions(self, label: np.ndarray) -> np.ndarray:
        """Return the label map (H, W) whose regions a border weight map separates, 0 outside of all."""
        return label

    def default_tile(self, page: Sequence[int]) -> tuple[int, int]:
        """Return side and margin, pixels, of the tiles that are cut from a page (H, W) if the user names none."""
        return TILE, MARGIN

    def check_tile(self, side: int, page: Sequence[int]) -> None:
        """Raise UserError if a tile of this side does not fit a page (H, W)."""
        return None  # a tile may be larger than a slice, which is then mirrored

    # --------------------------------------------------------------------------------------- afterwards

    def lookback_samples(self, layout: Layout, train: Sequence[int], most: int) -> list[int]:
        """Return the training samples that are predicted, too, before the held-out ones: the last five.

        Tasks that learn from them take the last `most`.
        """
        return list(train[-5:])

    def learn(self, outputs: Sequence[np.ndarray], labels: Sequence[np.ndarray], walls: bool) -> dict:
        """Return what is learnt from probabilities and labels of training samples, for config.json."""
        return {}

    def combine_learnt(self, learnts: Sequence[dict]) -> dict:
        """Merge what several models learnt, as `learn` gives it, with the numbers of the samples under "on"."""
        return {"on": sorted({number for learnt in learnts for number in learnt["on"]})}

    def redraws(self, learnt: dict) -> bool:
        """Tell whether `redraw` changes anything."""
        return False

    def redraw(self, probability: np.ndarray, learnt: dict, neighbours: Sequence[np.ndarray] = ()) -> np.ndarray:
        """Return the probability with what was learnt drawn into it; the same array if there is nothing to draw.

        `neighbours` are the probabilities of the images before and after it, if there are any of its size.
        """
        return probability

    def without_walls(self, learnt: dict) -> dict:
        """Return `learnt` without what `redraw` draws."""
        return learnt

    def describe(self, learnt: dict) -> str:
        """Describe the numbered objects, for the console."""
        return "a number for each object, 0 = none"

    @abstractmethod
    def segment(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        """Return numbered objects, int32 (H, W), 0 = none, for a probability that `redraw` returned."""

    @abstractmethod
    def inside(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        """Return where `segment` looks for objects, bool (H, W), or each pixel's kind, int (H, W), 0 = none."""

    def decisive_pixels(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        """Return where a label would decide something, bool (H, W): uncertainty for `next.csv` is averaged there."""
        return np.ones(probability.shape[:2], bool)

    @abstractmethod
    def score(self, predictions: Iterable[Prediction], numbers: Sequence[int], learnt: dict) -> dict:
        """Return all scores of held-out samples, ready for JSON; `numbers` are theirs in the layout."""

    @abstractmethod
    def table(self, scores: dict) -> str:
        """Return a table of what `score` returned, to be printed; its last line is the summary."""

    @abstractmethod
    def summary(self, scores: dict) -> dict[str, dict[str, float]]:
        """Return a few numbers from what `score` returned, to be compared: by what is scored, and by name."""

    @abstractmethod
    def inputs(self, path: Path) -> Samples:
        """Open the images to be predicted, which the user names; raises UserError if this task cannot take them."""

    def outputs(self, out: Path | None, objects: Path | None = None, redrawn: Path | None = None) -> Outputs:
        """Return the files that the user asked for; by default `default_out`, and beside it any objects."""
        out = out or self.default_out
        cells = out.with_name("cells.tif") if out.name == self.default_out.name else path_beside(out, "cells")
        return Outputs(out, objects or (cells if self.numbers_objects else None), redrawn)

    @abstractmethod
    def files(self, outputs: Outputs, names: Sequence[str]) -> list[Path]:
        """List all files into which the predictions of samples of these names go."""

    @abstractmethod
    def check_outputs(self, outputs: Outputs, samples: Samples) -> None:
        """Raise UserError if something cannot be written or is an input, ahead of the work."""

    @abstractmethod
    def writer(self, outputs: Outputs, samples: Samples) -> AbstractContextManager[Callable[[Prediction], None]]:
        """Open the outputs for predictions of `samples` in their order; nothing half-written is left."""

    @abstractmethod
    def read(self, outputs: Outputs, samples: Samples, number: int) -> np.ndarray | None:
        """Return the probability (H, W[, classes]) of `samples[number]` as `writer` wrote it; None if it is missing."""

    def holdout_outputs(self, work: Path, outputs: Outputs) -> Outputs:
        """Return where the held-out samples' predictions go."""
        return Outputs(work / "holdout.tif")

    def remove_stale(self, outputs: Outputs, names: Sequence[str]) -> int:
        """Remove an earlier run's predictions of samples that train now; return the number of these samples."""
        return 0


def channels_first(probability: np.ndarray) -> np.ndarray:
    """Return a probability (H, W, classes), or `Bands` of one, as (classes, H, W); (H, W) stays as it is."""
    if probability.ndim == 2:
        return probability
    if isinstance(probability, np.ndarray):
        return np.moveaxis(probability, -1, 0)
    return probability.channels_first()


def is_large(shape: tuple[int, ...]) -> bool:
    """Tell whether an image (H, W[, C]) is processed in bands of rows."""
    return shape[0] * shape[1] >= LARGE_IMAGE


def number_type(shape: tuple[int, ...]) -> type:
    """Return the dtype for the numbers of an image's objects: uint16, which ImageJ knows, or uint32 if it is large."""
    return np.uint32 if is_large(shape) else np.uint16


def checked_objects(prediction: Prediction, path: Path) -> np.ndarray:
    """Return a sample's objects (H, W), to be written as `number_type`; raises UserError if there are too many.

    Those of a very large sample stay in their files; they get the dtype when their rows are written.
    """
    count, dtype = prediction.objects.max(), number_type(prediction.objects.shape)
    if count > np.iinfo(dtype).max:
        raise UserError(f"{path}: {prediction.sample.name} has {count} objects, and at most {np.iinfo(dtype).max} can "
                        "be numbered; cut it into pieces")
    return np.asarray(prediction.objects, dtype) if isinstance(prediction.objects, np.ndarray) else prediction.objects


def separates(outputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], classes: int) -> bool:
    """Tell whether any class's output (H, W[, K]) is greater where the target (H, W) is it, by `LEARNT` on average.

    A network that did not learn has the same output everywhere; one that found a class of few pixels has a greater one
    there. True if the targets are all of one class: then nothing can be said.
    """
    gaps = []
    for number in range(classes) if classes > 1 else [1]:
        sums, counts = np.zeros(2), np.zeros(2)  # over pixels of other classes, and of this one
        for output, target in zip(outputs, targets, strict=True):
            is_class = (target == number).ravel()
            sums += np.bincount(is_class, (output[..., number] if classes > 1 else output).ravel(), 2)
            counts += np.bincount(is_class, minlength=2)
        if counts.all():
            gaps.append(sums[1] / counts[1] - sums[0] / counts[0])
    return not gaps or max(gaps) > LEARNT
