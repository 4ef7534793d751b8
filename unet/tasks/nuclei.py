"""Nuclei, a number for each: windows of images of any size, at the resolution that the microscope gave them.

Pixels stay as large as they are: small nuclei lose nothing. Squeezing whole images is there on request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter
from skimage.transform import resize

from unet.inputs.folders import MODALITIES, find_images, modality_of
from unet.inputs.layouts import FolderSamples, Layout, Sample, Samples
from unet.inputs.stacks import is_ours, read_stack, require_ours, write_stack
from unet.scores.precision import SUFFIX, format_nuclei, nuclei_scores, pixel_scores
from unet.segment.instances import separate_nuclei
from unet.tasks.task import Judged, Options, Outputs, Page, Task, numbered
from utils import OverlapTile, UserError, require_space

HOLDOUT_SHARE = 0.1  # of the images of each modality, at least one where there are two
PERCENTILES = (1.0, 99.8)  # of an image's pixels: they become 0 and 255
LEAST_SPAN = 16  # grey levels between the two: an empty image's noise is not blown up to a full range
RAW = {"inverted": False, "low": [0, 0, 0], "high": [255, 255, 255]}  # levels that leave every pixel as it is


@dataclass(frozen=True)
class Nuclei(Task):
    """Objects that may touch, in images of one to three colours."""

    window_side: int = 256  # of the windows that are cut, pixels
    resize: int | None = None  # squeeze whole images to this side instead, pixels

    name: ClassVar = "nuclei"
    layouts: ClassVar = ("folders",)
    output: ClassVar = "probability of nucleus"
    default_out: ClassVar = Path("prediction")
    windowed: ClassVar = True
    channels: ClassVar = 3
    options: ClassVar = Options(zoom=(0.7, 1.4), elastic_probability=0.5, elastic_alpha=(1.0, 4.0),
                                elastic_sigma=(20.0, 48.0), crop_probability=0.0)

    @property
    def side(self) -> int:
        """Side of a page, pixels."""
        return self.resize or self.window_side

    @property
    def normalisation(self) -> dict:
        """Mean and deviation of all pixels of a data set after `normalise`; squeezed images: 0..255 becomes 0..1."""
        return {"mean": 0.0, "sd": 255.0} if self.resize else {"mean": 32.0, "sd": 48.0}

    @property
    def default_copies(self) -> int:
        """None of squeezed images: they are those of a recipe that augments nothing."""
        return 0 if self.resize else Task.default_copies

    @property
    def default_weights(self) -> str:
        """Gaps between touching nuclei weigh more, unless squeezing closed them."""
        return "none" if self.resize else "border"

    # ------------------------------------------------------------------------------------------- step 1

    def check(self, layout: Layout) -> list[str]:
        """Any masks will do; whether there are enough shows when their share is measured."""
        return []

    def label(self, label: np.ndarray) -> np.ndarray:
        """uint16 (H, W), a number for each nucleus, 0 = background."""
        return label.astype(np.uint16)

    def split(self, layout: Layout, holdout: str | None, seed: int) -> list[int]:
        """A seeded tenth of each modality, or the images that `holdout` names: beginnings that fit one alone will do.

        The bowl does not tell which images are of one experiment, so like images may stand on both sides.
        """
        if holdout is None:
            return _tenth_of_each(layout.groups, seed)
        chosen: set[int] = set()
        for word in [] if holdout.strip().lower() == "none" else map(str.strip, holdout.split(",")):
            fits = [number for number, name in enumerate(layout.names) if word and name.startswith(word)]
            exact = [number for number in fits if layout.names[number] == word]
            if len(exact or fits) != 1:
                raise UserError(f"--holdout: '{word}' is the beginning of {len(fits)} labelled images' names, expected "
                                f"one; write names like {layout.names[0]}, with commas between them, or none")
            chosen.update(exact or fits)
        if len(chosen) == len(layout):
            raise UserError(f"--holdout holds out all {len(layout)} labelled images; leave some to train on")
        return sorted(chosen)

    def page_shape(self, samples: Sequence[Sample]) -> tuple[int, ...]:
        return self.side, self.side, 3

    def _corners(self, shape: tuple[int, int]) -> list[tuple[int, int]]:
        return [(0, 0)] if self.resize else OverlapTile(shape, self.side).inside()

    def pages(self, sample: Sample) -> Iterator[Page]:
        """Windows that cover the image evenly; beyond a small one its mirror image."""
        image, label = self._squeezed(sample)
        cut = OverlapTile(image.shape[:2], self.side)
        for corner in self._corners(image.shape[:2]):
            yield cut.cut_at(image, [corner])[0], cut.cut_at(label, [corner])[0], {"corner": list(corner)}

    def window(self, sample: Sample, rng: np.random.Generator) -> Page:
        """A window anywhere in the image; around it, mirrored beyond the image, what turning it may look at."""
        image, label = self._squeezed(sample)
        rooms = [size - self.side for size in image.shape[:2]]
        corner = [int(rng.integers(room + 1)) if room > 0 else room // 2 for room in rooms]  # a small one in the middle
        turned = self.side * (2**0.5 / self.options.zoom[0] - 1) / 2 + 3 * self.options.elastic_alpha[1]
        cut = OverlapTile(image.shape[:2], self.side, int(np.ceil(turned)))
        around = [(corner[0] - cut.margin, corner[1] - cut.margin)]
        return cut.cut_at(image, around)[0], cut.cut_at(label, around)[0], {"corner": corner}

    def copies(self, samples: Sequence[Sample], train: Sequence[int], copies: int) -> list[int]:
        """Rare modalities more often, by the square root of their number of images, yet not endlessly.

        Within a modality an image by the square root of the number of its windows.
        """
        shares = [0.0] * len(samples)
        roots = {number: len(self._corners(samples[number].image.shape[:2])) ** 0.5 for number in train}
        images = Counter(samples[number].group for number in train)
        windows = Counter()
        for number, root in roots.items():
            windows[samples[number].group] += root
        total = copies * len(train) / sum(count**0.5 for count in images.values())
        for number, root in roots.items():
            group = samples[number].group
            shares[number] = total * images[group] ** 0.5 * root / windows[group]
        return [max(1, round(share)) if share else 0 for share in shares]

    def _squeezed(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        label = self.label(sample.label)
        if not self.resize:
            return sample.image, label
        small = resize(label, (self.resize, self.resize), order=0, preserve_range=True, anti_aliasing=False)
        return squeeze(sample.image, self.resize), small.astype(np.uint16)

    # ------------------------------------------------------------------------------------------- step 2

    def levels(self, image: np.ndarray) -> dict:
        """Grey levels of a whole image uint8 (H, W, 3) that become 0 and 255: {'inverted', 'low': [3], 'high': [3]}.

        Each channel for itself, which takes a stain's and a lamp's colour out. Bright images are inverted first, so
        that nuclei are bright in all.
        """
        if self.resize:
            return RAW
        inverted = modality_of(image) != MODALITIES[0]
        low, high = [], []
        for channel in range(3):
            counts = np.bincount(image[..., channel].ravel(), minlength=256)
            shares = np.cumsum(counts[::-1] if inverted else counts) / image[..., channel].size
            first, last = (int(np.searchsorted(shares, percentile / 100)) for percentile in PERCENTILES)
            low.append(first)
            high.append(last)
        # a channel that is nearly empty keeps its noise small
        least = max(LEAST_SPAN, max(last - first for first, last in zip(low, high, strict=True)) // 4)
        high = [max(last, first + least) for first, last in zip(low, high, strict=True)]
        return {"inverted": inverted, "low": low, "high": high}

    def grey_level(self, levels: dict) -> float:
        return float(np.mean(np.subtract(levels["high"], levels["low"]))) / 255

    def normalise(self, image: np.ndarray, levels: dict) -> np.ndarray:
        """Stretch each channel between the levels of the whole image; nuclei bright; squeezed ones as they are."""
        image = squeeze(image, self.resize) if self.resize and image.shape[:2] != (self.side,) * 2 else image
        grey = np.arange(256, dtype=np.float32)
        grey = grey[::-1] if levels["inverted"] else grey
        out = np.empty_like(image)
        for channel, (low, high) in enumerate(zip(levels["low"], levels["high"], strict=True)):
            table = np.clip(np.rint((grey - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
            out[..., channel] = table[image[..., channel]]
        return out

    def target(self, label: np.ndarray) -> np.ndarray:
        """Nuclei apart from each other, unless they were squeezed."""
        return (label > 0 if self.resize else separated(label)).astype(np.uint8)

    def regions(self, label: np.ndarray) -> np.ndarray:
        return np.where(self.target(label), label, 0)

    # --------------------------------------------------------------------------------------- afterwards

    def segment(self, redrawn: np.ndarray, learnt: dict) -> np.ndarray:
        return separate_nuclei(redrawn)

    def score(self, judged: Iterable[Judged], numbers: Sequence[int], learnt: dict) -> dict:
        """Average precision of the objects, with accuracy and IoU of the pixels at a probability of .5."""
        modalities, pixels = [], []

        def names(images: Iterable[Judged]) -> Iterator[str]:
            for one in images:
                modalities.append(one.sample.group)
                pixels.append(pixel_scores(one.probability, one.sample.label))
                yield one.sample.name

        first, second = tee(judged)  # walked abreast: one image at a time is in memory
        scores = nuclei_scores(((one.objects, one.sample.label) for one in second), names(first), modalities)
        for row, values in zip(scores["per_image"], pixels, strict=True):
            row.update(values)
        for name in ("accuracy", "iou"):
            scores["all"][name] = float(np.mean([row[name] for row in scores["per_image"]]))
        return scores

    def table(self, scores: dict) -> str:
        at = scores["all"]
        return (f"{format_nuclei(scores)}\npixels at probability .5: accuracy {at['accuracy']:.3f}, IoU "
                f"{at['iou']:.3f}, means over images")

    def inputs(self, path: Path) -> Samples:
        return FolderSamples(find_images(path))

    def outputs(self, out: Path | None, objects: Path | None = None, redrawn: Path | None = None) -> Outputs:
        """One folder for probabilities and numbered nuclei."""
        if objects or redrawn:
            raise UserError("--cells and --walls are for stacks of cells; of nuclei <name>-labels.tif is written "
                            "anyway, leave them out")
        out = out or self.default_out
        return Outputs(out, out)

    def files(self, outputs: Outputs, names: Sequence[str]) -> list[Path]:
        return [outputs.out / f"{name}{end}" for name in names for end in (".tif", SUFFIX)]

    def check_outputs(self, outputs: Outputs, samples: Samples) -> None:
        samples.check_apart(self.files(outputs, samples.names))
        if outputs.out.exists() and not outputs.out.is_dir():
            raise UserError(f"{outputs.out} is a file; predicted nuclei go into a folder, name one with --out, for "
                            f"instance {outputs.out.with_name('prediction')}")
        for path in self.files(outputs, samples.names):
            require_ours(path)
        require_space(outputs.out, 10_000_000)

    @contextmanager
    def writer(self, outputs: Outputs, samples: Samples) -> Iterator[Callable[[Judged], None]]:
        """<name>.tif, float32, and <name>-labels.tif, uint16; ImageJ, at the image's own size."""
        def write(judged: Judged) -> None:
            arrays = judged.probability, numbered(judged, outputs.out)
            for path, array in zip(self.files(outputs, [judged.sample.name]), arrays, strict=True):
                require_ours(path)  # of a held-out image it was not asked before
                write_stack(path, array[np.newaxis])

        yield write

    def read(self, outputs: Outputs, samples: Sequence[Sample], number: int) -> np.ndarray | None:
        path, size = outputs.out / f"{samples[number].name}.tif", samples[number].image.shape[:2]
        page = read_stack(path)[0] if path.is_file() else None
        return page if page is not None and page.shape == size else None

    def holdout_outputs(self, work: Path, outputs: Outputs) -> Outputs:
        """Beside the images without masks: all that was never trained on."""
        return outputs

    def remove_stale(self, outputs: Outputs, names: Sequence[str]) -> int:
        """Those that train now would be scored as if they had been held out."""
        count = 0
        for name in names:
            ours = [path for path in self.files(outputs, [name]) if is_ours(path)]  # others may be anybody's
            for path in ours:
                path.unlink()
            count += bool(ours)
        return count


def _tenth_of_each(groups: Sequence[str], seed: int) -> list[int]:
    """Numbers of a seeded tenth of each group, sorted."""
    chosen: set[int] = set()
    for place, modality in enumerate(MODALITIES):
        members = [number for number, group in enumerate(groups) if group == modality]
        count = max(round(HOLDOUT_SHARE * len(members)), int(len(members) > 1))
        order = np.random.default_rng((seed, place)).permutation(len(members))
        chosen.update(members[at] for at in order[:count])
    return sorted(chosen)


def separated(labels: np.ndarray) -> np.ndarray:
    """Where nuclei are and touch no other: bool (H, W) of instances (H, W).

    A pixel with another nucleus in its 3x3 neighbourhood is background: where nuclei touch, a gap two pixels wide.
    """
    most = np.iinfo(labels.dtype).max
    alone = maximum_filter(labels, 3) == labels
    alone &= minimum_filter(np.where(labels, labels, most), 3) == labels
    return alone & (labels > 0)


def squeeze(image: np.ndarray, side: int) -> np.ndarray:
    """Resize uint8 (H, W, 3) to (side, side, 3), linearly; aspect ratio not kept."""
    small = resize(image, (side, side), order=1, preserve_range=True)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)
