"""Texts about runs on images of any size."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from unet.inputs.findings import span
from unet.inputs.folders import MODALITIES
from unet.report.cells import CellWords
from unet.report.classes import ClassWords

if TYPE_CHECKING:
    from unet.report.run import Run


class ImageWords:
    """Describe images of different sizes, counted by modality; comes before the class of the task's texts."""

    labels: ClassVar[str] = "labels"  # what labels are called
    origin: ClassVar[str] = ""  # where the images may come from

    def describe_samples(self, run: Run, numbers: list[int]) -> str:
        counts = Counter(run.layout.groups[number] for number in numbers)
        return ", ".join(f"{counts[one]} {one}" for one in MODALITIES if counts[one]) or "none"

    def data(self, run: Run) -> str:
        shapes = sorted(tuple(source["shape"]) for source in run.manifest["sources"])
        sizes = span([f"{height} x {width}" for height, width in shapes])
        counts = self.describe_samples(run, range(len(run.layout)))
        return (f"{len(run.layout)} images of {sizes} pixels ({counts}; SHA-256 of images and {self.labels}: "
                f"{self.data_hash(run)[:16]}){self.origin}")


class CellImageWords(ImageWords, CellWords):
    """Texts about a run on cells in separate images."""


class ClassImageWords(ImageWords, ClassWords):
    """Texts about a run on classes in separate images."""
