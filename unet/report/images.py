"""What is said of runs on images of any size, whatever their labels mean."""

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
    """Put before a task's words: images are counted by what they look like, and have sizes of their own."""

    labels: ClassVar[str] = "labels"  # what they are called
    origin: ClassVar[str] = ""  # where the images may come from

    def counted(self, run: Run, numbers: list[int]) -> str:
        counts = Counter(run.layout.groups[number] for number in numbers)
        return ", ".join(f"{counts[one]} {one}" for one in MODALITIES if counts[one]) or "none"

    def data(self, run: Run) -> str:
        shapes = sorted(tuple(source["shape"]) for source in run.manifest["sources"])
        sizes = span([f"{height} x {width}" for height, width in shapes])
        return (f"{len(run.layout)} images of {sizes} pixels ({self.counted(run, range(len(run.layout)))}; SHA-256 of "
                f"images and {self.labels}: {self.data_hash(run)[:16]}){self.origin}")


class CellImageWords(ImageWords, CellWords):
    """What is to be said of a run on cells of images."""


class ClassImageWords(ImageWords, ClassWords):
    """What is to be said of a run on classes of images."""
