"""Nuclei, a number for each: windows of images of any size, at the resolution of the microscope.

Images are not resized, so that small nuclei lose nothing; squeezing whole images is an option.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import ClassVar

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter
from skimage.transform import resize

from unet.inputs.folders import DISPLAY_PERCENTILES, MODALITIES, modality_of
from unet.inputs.layouts import Layout
from unet.inputs.samples import Sample
from unet.scores.precision import format_nuclei, nuclei_scores, pixel_scores
from unet.segment.instances import NUCLEUS, separate_nuclei
from unet.tasks.images import ImageFiles
from unet.tasks.task import Options, Prediction, Task
from utils import UserError

NUCLEI_PERCENTILES = (1.0, 99.8)  # of an image's pixels: they become 0 and 255
LEAST_SPAN = 16  # grey levels between the two, so that an empty image's noise is not stretched to the full range
FAINT = 0.1  # probability from which on a pixel may be nucleus
RAW = {"inverted": False, "low": [0, 0, 0], "high": [255, 255, 255]}  # levels that leave every pixel as it is


@dataclass(frozen=True)
class Nuclei(ImageFiles, Task):
    """The task of segmenting objects that may touch, in images of one to three colours."""

    window_side: int = 256  # of the windows, pixels
    resize: int | None = None  # squeeze whole images to this side instead, pixels

    name: ClassVar = "nuclei"
    meaning: ClassVar = "nuclei"
    layouts: ClassVar = ("folders", "two folders")
    output: ClassVar = "probability of nucleus"
    numbers_objects: ClassVar = True
    objects_are: ClassVar = "pieces"
    options: ClassVar = Options(zoom=(0.7, 1.4), elastic_probability=0.5, elastic_alpha=(1.0, 4.0),
                                elastic_sigma=(20.0, 48.0), crop_probability=0.0)

    @property
    def side(self) -> int:
        """Side of a page, pixels."""
        return self.resize or self.window_side

    @property
    def normalisation(self) -> dict:
        """Mean and deviation of all pixels in a data set after `normalise`; for squeezed images 0..255 becomes 0..1."""
        return {"mean": 0.0, "sd": 255.0} if self.resize else {"mean": 32.0, "sd": 48.0}

    @property
    def default_copies(self) -> int:
        """The most copies of a training image; none for squeezed images, whose recipe has no augmentation."""
        return 0 if self.resize else Task.default_copies

    @property
    def default_weights(self) -> str:
        """More weight for gaps between touching nuclei, unless squeezing has closed them."""
        return "none" if self.resize else "border"

    # ------------------------------------------------------------------------------------------- step 1

    def check(self, layout: Layout) -> list[str]:
        """Check that separate objects have different numbers; any other masks will do."""
        if layout.objects_share_number:
            raise UserError(f"{layout.labels_path}: no label has more than one number, so that all objects of an image "
                            "would be one; number them, in Fiji: Analyze > Analyze Particles..., Show: Count Masks, or "
                            "learn them as cells with 'python augmentation.py --task cells'")
        return []

    def label(self, label: np.ndarray) -> np.ndarray:
        """Return a label as uint16 (H, W), a number for each nucleus, 0 = background."""
        return label.astype(np.uint16)

    def _corners(self, shape: tuple[int, int]) -> list[tuple[int, int]]:
        return [(0, 0)] if self.resize else super()._corners(shape)

    def _whole(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Return image and label, squeezed to (resize, resize) if the user asked for it."""
        image, label = super()._whole(sample)
        if not self.resize:
            return image, label
        small = resize(label, (self.resize, self.resize), order=0, preserve_range=True, anti_aliasing=False)
        return squeeze(image, self.resize), small.astype(np.uint16)

    # ------------------------------------------------------------------------------------------- step 2

    def levels(self, image: np.ndarray) -> dict:
        """Return the levels of a whole image (H, W, 3) that become 0 and 255: {'inverted', 'low': [3], 'high': [3]}.

        Each channel is stretched separately, which removes the colour of stain and lamp. Bright images are inverted
        first, so that nuclei are always bright: pixels are subtracted from 255 or, if an image has more than 8 bits,
        from its 'white', 0. Squeezed images are not inverted.
        """
        if image.dtype != np.uint8:
            return self._deep_levels(image)
        if self.resize:
            return RAW
        inverted = modality_of(image) != MODALITIES[0]
        low, high = [], []
        for channel in range(3):
            counts = np.bincount(image[..., channel].ravel(), minlength=256)
            shares = np.cumsum(counts[::-1] if inverted else counts) / image[..., channel].size
            first, last = (int(np.searchsorted(shares, percentile / 100)) for percentile in NUCLEI_PERCENTILES)
            low.append(first)
            high.append(last)
        # a channel that is nearly empty keeps its noise small
        least = max(LEAST_SPAN, max(last - first for first, last in zip(low, high, strict=True)) // 4)
        high = [max(last, first + least) for first, last in zip(low, high, strict=True)]
        return {"inverted": inverted, "low": low, "high": high}

    def _deep_levels(self, image: np.ndarray) -> dict:
        """Return `levels` for an image uint16 or float32, from its pixels only: the range of its dtype says nothing."""
        if self.resize:
            low, high = np.percentile(image, DISPLAY_PERCENTILES).tolist()
            return {"inverted": False, "white": 0, "low": [low] * 3, "high": [max(high, low + 1e-6)] * 3}
        inverted = modality_of(image) != MODALITIES[0]
        grey = -image.astype(np.float32) if inverted else image
        ends = np.percentile(grey, NUCLEI_PERCENTILES, axis=(0, 1), method="inverted_cdf").astype(float)
        least = np.ptp(ends, axis=0).max() / 4 or float(np.ptp(grey)) / LEAST_SPAN or 1.0
        return {"inverted": inverted, "white": 0, "low": ends[0].tolist(),
                "high": np.maximum(ends[1], ends[0] + least).tolist()}

    def grey_level(self, levels: dict) -> float:
        return float(np.mean(np.subtract(levels["high"], levels["low"]))) / 255

    def normalise(self, image: np.ndarray, levels: dict) -> np.ndarray:
        """Stretch each channel between the image's levels, nuclei bright; squeezed 8-bit images stay as they are."""
        image = squeeze(image, self.resize) if self.resize and image.shape[:2] != (self.side,) * 2 else image
        out, deep = np.empty(image.shape, np.uint8), image.dtype != np.uint8
        for channel, (low, high) in enumerate(zip(levels["low"], levels["high"], strict=True)):
            grey = image[..., channel].astype(np.float32) if deep else np.arange(256, dtype=np.float32)
            grey = levels.get("white", 255) - grey if levels["inverted"] else grey
            levels_8_bit = np.clip(np.rint((grey - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
            out[..., channel] = levels_8_bit if deep else levels_8_bit[image[..., channel]]  # a table is faster
        return out

    def portable(self) -> tuple[list[tuple[str, dict]], str]:
        if self.resize:
            return [], f"Images have to be squeezed to {self.resize} x {self.resize} pixels before."
        low, high = NUCLEI_PERCENTILES
        return ([("scale_range", {"min_percentile": low, "max_percentile": high}),
                 ("scale_linear", {"gain": 255.0, "offset": 0.5}), ("clip", {"min": 0.0, "max": 255.5}),
                 ("ensure_dtype", {"dtype": "uint8"})],
                "Bright nuclei on dark background; invert other images first. Don't use it on empty images.")

    def target(self, label: np.ndarray) -> np.ndarray:
        """Return 1 where nuclei are, with gaps between touching ones unless images are squeezed."""
        return (label > 0 if self.resize else separate_touching(label)).astype(np.uint8)

    def regions(self, label: np.ndarray) -> np.ndarray:
        return np.where(self.target(label), label, 0)

    # --------------------------------------------------------------------------------------- afterwards

    @property
    def by_rows(self) -> bool:
        """Whether rows can be normalised on their own: not if whole images are squeezed."""
        return self.resize is None

    def segment(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        return separate_nuclei(probability)

    def inside(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        return probability > NUCLEUS

    def decisive_pixels(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        """Return what may be nucleus; with all pixels, images with few nuclei would count as certain."""
        return probability > FAINT

    def score(self, predictions: Iterable[Prediction], numbers: Sequence[int], learnt: dict) -> dict:
        """Return average precision for objects, and accuracy and IoU for pixels at a probability of .5."""
        modalities, pixels = [], []

        def names(images: Iterable[Prediction]) -> Iterator[str]:
            for one in images:
                modalities.append(one.sample.group)
                pixels.append(pixel_scores(one.probability, one.sample.label))
                yield one.sample.name

        first, second = tee(predictions)  # consumed in step: only one image at a time is in memory
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

    def summary(self, scores: dict) -> dict[str, dict[str, float]]:
        at = scores["all"]
        return {"objects": {"AP@0.50": at["ap"]["0.50"], "AP@0.75": at["ap"]["0.75"], "mean AP": at["mean"]},
                "pixels at probability .5": {"accuracy": at["accuracy"], "IoU": at["iou"]}}


def separate_touching(labels: np.ndarray) -> np.ndarray:
    """Return where nuclei are and touch no other: instances (H, W) -> bool (H, W).

    A pixel with another nucleus in its 3x3 neighbourhood becomes background: a gap two pixels wide between touching
    nuclei.
    """
    most = np.iinfo(labels.dtype).max
    alone = maximum_filter(labels, 3) == labels
    alone &= minimum_filter(np.where(labels, labels, most), 3) == labels
    return alone & (labels > 0)


def squeeze(image: np.ndarray, side: int) -> np.ndarray:
    """Resize (H, W, 3) linearly to (side, side, 3), with the same dtype but not the same aspect ratio."""
    small = resize(image, (side, side), order=1, preserve_range=True)
    if image.dtype.kind == "f":
        return small.astype(image.dtype)
    return np.clip(np.rint(small), 0, np.iinfo(image.dtype).max).astype(image.dtype)
