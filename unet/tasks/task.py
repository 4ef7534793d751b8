"""What a task has to answer: what its labels mean, what the network sees and should say, what follows from that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from unet.inputs.layouts import Layout
from unet.inputs.samples import Sample, Samples
from unet.inputs.writers import beside
from utils import UserError

Range = tuple[float, float]  # least and most, drawn uniformly
LARGE = 5000**2  # pixels from which on an image is worked on by bands, and may have more objects than 16 bit count
LEARNT = 0.05  # difference in probability from which on a network tells pixels apart
Page = tuple[np.ndarray, np.ndarray, dict]  # image, label, and what the manifest keeps of where it was cut


@dataclass(frozen=True)
class Options:
    """What is drawn for each augmented copy; grey levels are those of the normalised image that the network sees."""

    turn_probability: float = 0.7
    angle: Range = (-180.0, 180.0)  # rotation, degrees
    zoom: Range = (0.8, 1.25)  # magnification; other microscopes have other pixels
    elastic_probability: float = 0.8
    elastic_alpha: Range = (2.0, 5.0)  # root mean square displacement along each axis, pixels
    elastic_sigma: Range = (24.0, 48.0)  # smoothness of the deformation, pixels
    crop_probability: float = 0.1
    crop_share: Range = (0.6, 0.9)  # side of the crop, share of the image's
    brightness: float = 15.0  # at most this shift up or down, grey levels
    noise_probability: float = 0.25  # Gaussian or uniform, either as likely
    gaussian_sd: Range = (1.0, 6.0)  # standard deviation, grey levels
    uniform_intensity: Range = (2.0, 10.0)  # largest change, grey levels


@dataclass(frozen=True)
class Outputs:
    """Where a prediction goes: `out` is a file or a folder, as the task writes; the others are None where unwanted."""

    out: Path
    objects: Path | None = None  # a number for each object
    redrawn: Path | None = None  # the probability with walls drawn

    def in_words(self, probability: str, objects: str) -> str:
        """What lies where, in a line for each place."""
        if self.objects == self.out:
            return f"{self.out}: {probability}; {objects}"
        return f"{self.out}: {probability}" + (f"\n{self.objects}: {objects}" if self.objects else "")


@dataclass(frozen=True)
class Judged:
    """A sample and what was predicted of it.

    probability : float32 (H, W[, classes]), the network's
    redrawn : the same with walls drawn, or that very array
    objects : int32 (H, W), a number for each object, 0 = none
    spread : float32 (H, W), how far flips disagree; None where it is not known
    Of a very large image they are no arrays, but give rows as arrays do, and `np.asarray` reads them whole.
    """

    sample: Sample
    probability: np.ndarray
    redrawn: np.ndarray
    objects: np.ndarray
    spread: np.ndarray | None = None


@dataclass(frozen=True)
class Task(ABC):
    """The base of cells, classes and nuclei; its fields are the settings that step 1 is told once."""

    name: ClassVar[str]
    meaning: ClassVar[str]  # what its labels say: cells, classes or nuclei
    layouts: ClassVar[tuple[str, ...]]
    output: ClassVar[str]  # what the network puts out, in words
    weights: ClassVar[tuple[str, ...]] = ("none", "balance", "border")
    normalisation: ClassVar[dict] = {"mean": 128.0, "sd": 40.0}  # of all that the network sees, grey levels
    options: ClassVar[Options] = Options()
    default_copies: ClassVar[int] = 30  # of each sample to train on, at most where nobody says how many
    default_weights: ClassVar[str] = "none"
    default_out: ClassVar[Path] = Path("prediction.tif")
    numbers_objects: ClassVar[bool] = False  # into a file of their own, unasked
    windowed: ClassVar[bool] = False  # pages are windows of larger images, not whole
    by_rows: ClassVar[bool] = True  # whether rows of an image can be normalised as the whole is
    objects_are: ClassVar[str]  # how `inside` leads to objects: 'thinned' borders between, 'kinds', or 'pieces' apart
    channels: ClassVar[int] = 1  # of what the network sees
    varied: ClassVar[float] = 0.4  # the most of a recipe's `intensity` that is drawn; nuclei lose by more
    affinities: ClassVar[bool] = False  # whether pixels that hang together in a label are one cell, as affinities ask
    classes: int = field(default=1, init=False)  # of what it puts out

    def settings(self) -> dict:
        """What `task_of` makes the same task of."""
        own = {name: value for name, value in asdict(self).items() if self.__dataclass_fields__[name].init}
        return {"name": self.name, **own}

    # ------------------------------------------------------------------------------------------- step 1

    @abstractmethod
    def check(self, layout: Layout) -> list[str]:
        """Notes on the labels, a sentence each; raises UserError where this task cannot learn from them."""

    @abstractmethod
    def label(self, label: np.ndarray) -> np.ndarray:
        """A label (H, W) as this task keeps it."""

    @abstractmethod
    def split(self, layout: Layout, holdout: str | None, seed: int) -> list[int]:
        """Numbers of the samples that judge and never train, sorted; `holdout` is the user's list, or None."""

    @abstractmethod
    def folds(self, layout: Layout, count: int, seed: int) -> list[list[int]]:
        """Numbers of the samples that judge in each fold of a cross-validation, sorted; each sample judges in one."""

    def check_judges(self, layout: Layout, numbers: Sequence[int], way_out: str) -> None:
        """Raise UserError, which ends with the way out, where these samples alone would leave nothing to score."""
        return None  # most tasks score any sample

    @abstractmethod
    def page_shape(self, samples: Sequence[Sample]) -> tuple[int, ...]:
        """Shape (H, W[, C]) of every page that step 1 writes."""

    @abstractmethod
    def pages(self, sample: Sample) -> Iterator[Page]:
        """The parts of a sample that are written unchanged; they cover it."""

    @abstractmethod
    def window(self, sample: Sample, rng: np.random.Generator) -> Page:
        """The part that one augmented copy is made of, with the context that turning it needs, as large or larger."""

    def page_count(self, shape: tuple[int, int]) -> int:
        """How many parts `pages` gives of a sample (H, W)."""
        return 1

    def copies(self, sizes: Sequence[tuple[int, int]], groups: Sequence[str], copies: float) -> list[int]:
        """How many augmented copies each of the samples that train gives, `copies` on average, at even distances.

        Of each its (height, width) in pixels and its group.
        """
        count, total = len(sizes), round(copies * len(sizes))
        return [(number + 1) * total // count - number * total // count for number in range(count)]

    # ------------------------------------------------------------------------------------------- step 2

    @abstractmethod
    def levels(self, image: np.ndarray) -> dict:
        """What `normalise` has to know of a whole image (H, W[, C]), for JSON; copies keep that of their original."""

    @abstractmethod
    def grey_level(self, levels: dict) -> float:
        """How much of the image's own range makes one grey level after `normalise`."""

    @abstractmethod
    def normalise(self, image: np.ndarray, levels: dict) -> np.ndarray:
        """What the network sees of an image or a part of it: uint8 (H, W[, C])."""

    @abstractmethod
    def portable(self) -> tuple[list[tuple[str, dict]], str]:
        """`normalise` for other programs: steps by bioimage.io's names, and a sentence on where they differ."""

    @abstractmethod
    def target(self, label: np.ndarray) -> np.ndarray:
        """What the network should say, uint8 (H, W) of 0 .. classes - 1; of one class 1 where it is."""

    def regions(self, label: np.ndarray) -> np.ndarray:
        """What a border weight map separates: label map (H, W), 0 outside of all."""
        return label

    # --------------------------------------------------------------------------------------- afterwards

    def looked_back(self, layout: Layout, train: Sequence[int], most: int) -> list[int]:
        """Which samples that trained are predicted, too, before the held-out ones: the last, at most five."""
        return list(train[-5:])

    def learn(self, outputs: Sequence[np.ndarray], labels: Sequence[np.ndarray], walls: bool) -> dict:
        """What is learnt from probabilities and labels of samples that trained; for config.json."""
        return {}

    def together(self, learnts: Sequence[dict]) -> dict:
        """What several models learnt, as `learn` gives it with the samples that it was learnt "on", as one."""
        return {"on": sorted({number for learnt in learnts for number in learnt["on"]})}

    def redraws(self, learnt: dict) -> bool:
        """Whether `redraw` changes anything."""
        return False

    def redraw(self, probability: np.ndarray, learnt: dict, beside: Sequence[np.ndarray] = ()) -> np.ndarray:
        """The probability with what was learnt drawn into it; the same array where there is nothing to draw.

        `beside` are the probabilities of the images before and after it, as far as there are any of its size.
        """
        return probability

    def unlearnt(self, learnt: dict) -> dict:
        """`learnt` without what `redraw` draws."""
        return learnt

    def in_words(self, learnt: dict) -> str:
        """What the numbered objects are, for the console."""
        return "a number for each object, 0 = none"

    @abstractmethod
    def segment(self, redrawn: np.ndarray, learnt: dict) -> np.ndarray:
        """Numbered objects, int32 (H, W), 0 = none, of a probability that `redraw` gave."""

    @abstractmethod
    def inside(self, redrawn: np.ndarray, learnt: dict) -> np.ndarray:
        """Where `segment` looks for objects, bool (H, W), or of which kind each pixel is, int (H, W), 0 = none."""

    def decides(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        """Where labels would decide something, bool (H, W): doubt about what to label next is counted there."""
        return np.ones(probability.shape[:2], bool)

    @abstractmethod
    def score(self, judged: Iterable[Judged], numbers: Sequence[int], learnt: dict) -> dict:
        """All scores of held-out samples, ready for JSON; `numbers` are theirs in the layout."""

    @abstractmethod
    def table(self, scores: dict) -> str:
        """The table to print of what `score` returned; its last line is the summary."""

    @abstractmethod
    def summary(self, scores: dict) -> dict[str, dict[str, float]]:
        """A few numbers of what `score` returned, by their name and that of what is scored, to be compared."""

    @abstractmethod
    def inputs(self, path: Path) -> Samples:
        """What a user names to be predicted; raises UserError where it is nothing that this task takes."""

    def outputs(self, out: Path | None, objects: Path | None = None, redrawn: Path | None = None) -> Outputs:
        """The files asked for; by default `default_out`, and objects beside it."""
        out = out or self.default_out
        cells = out.with_name("cells.tif") if out.name == self.default_out.name else beside(out, "cells")
        return Outputs(out, objects or (cells if self.numbers_objects else None), redrawn)

    @abstractmethod
    def files(self, outputs: Outputs, names: Sequence[str]) -> list[Path]:
        """All files that predictions of samples of these names go into."""

    @abstractmethod
    def check_outputs(self, outputs: Outputs, samples: Samples) -> None:
        """Raise UserError where something cannot be written or is an input, ahead of the work."""

    @abstractmethod
    def writer(self, outputs: Outputs, samples: Samples) -> AbstractContextManager[Callable[[Judged], None]]:
        """Open the outputs for predictions of `samples` in their order; nothing half-written is left."""

    @abstractmethod
    def read(self, outputs: Outputs, samples: Samples, number: int) -> np.ndarray | None:
        """The probability (H, W[, classes]) of `samples[number]` as `writer` wrote it; None where it isn't there."""

    def holdout_outputs(self, work: Path, outputs: Outputs) -> Outputs:
        """Where the held-out samples' predictions go."""
        return Outputs(work / "holdout.tif")

    def remove_stale(self, outputs: Outputs, names: Sequence[str]) -> int:
        """Remove what an earlier run predicted of samples that train now; returns of how many."""
        return 0


def channels_first(probability: np.ndarray) -> np.ndarray:
    """A probability (H, W, classes), or `Bands` of one, as (classes, H, W); (H, W) stays as it is."""
    if probability.ndim == 2:
        return probability
    if isinstance(probability, np.ndarray):
        return np.moveaxis(probability, -1, 0)
    return probability.channels_first()


def is_large(shape: tuple[int, ...]) -> bool:
    """Whether an image (H, W[, C]) is worked on by bands."""
    return shape[0] * shape[1] >= LARGE


def number_type(shape: tuple[int, ...]) -> type:
    """The type of the numbers of an image's objects: uint16, which ImageJ has, or of very large ones uint32."""
    return np.uint32 if is_large(shape) else np.uint16


def numbered(judged: Judged, path: Path) -> np.ndarray:
    """The objects of a sample (H, W), to be written as `number_type`; raises UserError where there are too many.

    Those of a very large one stay in their files: what writes their rows gives them the type.
    """
    count, dtype = judged.objects.max(), number_type(judged.objects.shape)
    if count > np.iinfo(dtype).max:
        raise UserError(f"{path}: {judged.sample.name} has {count} objects, and {np.iinfo(dtype).max} at most can be "
                        "numbered; cut it into pieces")
    return np.asarray(judged.objects, dtype) if isinstance(judged.objects, np.ndarray) else judged.objects


def separates(outputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], classes: int) -> bool:
    """Whether outputs (H, W[, K]) are greater where the target (H, W) says so, by `LEARNT` on average, for any class.

    A network that did not learn says the same everywhere; one that found a class of few pixels says much there. True
    where the targets are all of one class: then nothing can be said.
    """
    gaps = []
    for number in range(classes) if classes > 1 else [1]:
        sums, counts = np.zeros(2), np.zeros(2)  # elsewhere, and where the target says so
        for output, target in zip(outputs, targets, strict=True):
            here = (target == number).ravel()
            sums += np.bincount(here, (output[..., number] if classes > 1 else output).ravel(), 2)
            counts += np.bincount(here, minlength=2)
        if counts.all():
            gaps.append(sums[1] / counts[1] - sums[0] / counts[0])
    return not gaps or max(gaps) > LEARNT
