"""Common parts of the pictures and texts about cells and about classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet.citations import cite
from unet.inputs.stacks import VOLUME, format_slices
from unet.report.base import Pictures, Window
from unet.report.colours import linked_colours
from unet.report.words import Words
from unet.scores.doubt import doubt_tiles
from unet.tasks.task import Prediction

if TYPE_CHECKING:
    from unet.report.run import Run

ISBI_VOLUME = "bcc7ffcecedefe29ba5343c6eddbc8b7b55e5613cb5315dc99e8dff40d7da8c2"  # SHA-256 of its train-volume.tif


class SlicePictures(Pictures):
    """The base of pictures of cells and classes."""

    def tiles_of(self, prediction: Prediction) -> list[Window]:
        """Return windows that cover a slice."""
        return doubt_tiles(prediction.sample.image.shape[:2])

    def palettes(self, label_maps: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return colours that a cell keeps from slice to slice; if sizes differ, colours for each image by itself."""
        same_size = len({objects.shape for objects in label_maps}) == 1
        return linked_colours(label_maps) if same_size else super().palettes(label_maps)

    def row_of(self, rows: list[dict], run: Run, prediction: Prediction) -> dict | None:
        """Return the row of `rows` with the scores of this slice; None if it was not scored."""
        number = run.layout.names.index(prediction.sample.name)
        return next((row for row in rows if row["slice"] == number), None)


class SliceWords(Words):
    """The base of texts about cells and classes."""

    normalisation = "normalised to the same mean and standard deviation"

    def describe_samples(self, run: Run, numbers: list[int]) -> str:
        return f"slice{'s' * (len(numbers) > 1)} {format_slices(numbers)} (numbered from 0)" if numbers else "none"

    def is_isbi(self, run: Run) -> bool:
        """Tell whether the images are those of the ISBI 2012 challenge."""
        return any(Path(path).name == VOLUME and value == ISBI_VOLUME
                   for path, value in run.manifest["inputs"].items())

    def data(self, run: Run) -> str:
        slices, (height, width) = len(run.layout), run.manifest["shape"][1:3]
        size = f"{slices} labelled slices of {height} x {width} pixels"
        if self.is_isbi(run):
            return (f"the ISBI 2012 stack, {size}: serial section transmission electron microscopy of the Drosophila "
                    f"first instar larva ventral nerve cord ({cite('ISBI stack')}; {cite('ISBI scores')})")
        if run.shows_demo:
            return f"a synthetic demo stack, {size}; it was made by a program and shows no real tissue"
        return f"our own stack, {size} (SHA-256 of images and labels: {self.data_hash(run)[:16]})"
