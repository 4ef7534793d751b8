"""What pictures and words of stacks share, whatever their labels mean: tiles to look at, data and slices in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet.citations import cited
from unet.inputs.stacks import VOLUME, format_slices
from unet.report.base import Pictures, Window
from unet.report.colours import linked_colours
from unet.report.words import Words
from unet.scores.doubt import windows
from unet.tasks.task import Judged

if TYPE_CHECKING:
    from unet.report.run import Run

ISBI_VOLUME = "bcc7ffcecedefe29ba5343c6eddbc8b7b55e5613cb5315dc99e8dff40d7da8c2"  # SHA-256 of its train-volume.tif


class SlicePictures(Pictures):
    """Pictures of slices."""

    def tiles_of(self, one: Judged) -> list[Window]:
        """Windows that cover a slice."""
        return windows(one.sample.image.shape[:2])

    def palettes(self, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Colours that a cell keeps from slice to slice; of images of several sizes each has its own."""
        return linked_colours(samples) if len({objects.shape for objects in samples}) == 1 else \
            super().palettes(samples)

    def row_of(self, rows: list[dict], run: Run, one: Judged) -> dict | None:
        """The slice's own among the scores of each; None where it was not scored."""
        number = run.layout.names.index(one.sample.name)
        return next((row for row in rows if row["slice"] == number), None)


class SliceWords(Words):
    """Words about slices."""

    normalised = "brought to one mean and standard deviation"

    def counted(self, run: Run, numbers: list[int]) -> str:
        return f"slices {format_slices(numbers)} (numbered from 0)" if numbers else "none"

    def is_isbi(self, run: Run) -> bool:
        """Whether the images are those of the challenge."""
        return ISBI_VOLUME in (was for path, was in run.manifest["inputs"].items() if Path(path).name == VOLUME)

    def data(self, run: Run) -> str:
        slices, (height, width) = len(run.layout), run.manifest["shape"][1:3]
        size = f"{slices} labelled slices of {height} x {width} pixels"
        if self.is_isbi(run):
            return (f"the ISBI 2012 stack, {size}: serial section transmission electron microscopy of the Drosophila "
                    f"first instar larva ventral nerve cord ({cited('ISBI stack')}; {cited('ISBI scores')})")
        if run.is_demo:
            return f"a synthetic demo stack, {size}; it is made by a program and shows no real tissue"
        return f"our own stack, {size} (SHA-256 of images and labels: {self.data_hash(run)[:16]})"
