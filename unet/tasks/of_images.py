"""Cells and classes in images of any size, gray or coloured: they mean what they mean in slices; windows train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unet.tasks.cells import Cells
from unet.tasks.classes import Classes
from unet.tasks.images import ImageFiles
from unet.tasks.task import Judged, Options


class ColourImages(ImageFiles):
    """Put before a task on slices: colours, which the network sees beside each other, have their grey's levels."""

    layouts: ClassVar = ("two folders",)
    options: ClassVar = Options(crop_probability=0.0)  # windows have surroundings of their own to turn in

    def levels(self, image: np.ndarray) -> dict:
        """Those of the mean of the channels: between them, colours stay what they are."""
        grey = image.mean(axis=2)
        return super().levels((np.rint(grey) if image.dtype == np.uint8 else grey).astype(
            image.dtype if image.dtype == np.uint8 else np.float32))

    def portable(self) -> tuple[list[tuple[str, dict]], str]:
        return super().portable()[0], ("Gray images in three channels become what trained; colours come out paler than "
                                       "in predict.py.")

    def score(self, judged: Iterable[Judged], numbers: Sequence[int], learnt: dict) -> dict:
        """As of slices; the rows have the images' names, too."""
        judged = list(judged)
        return self.named(super().score(judged, numbers, learnt),
                          {number: one.sample.name for number, one in zip(numbers, judged, strict=True)})

    def named(self, scores: dict | list | None, names: dict[int, str]) -> dict | list | None:
        """Scores in which each row that is a slice's has the name of its image."""
        if isinstance(scores, list):
            return [self.named(one, names) for one in scores]
        if not isinstance(scores, dict):
            return scores
        name = {"image": names[scores["slice"]]} if "slice" in scores else {}
        return {**name, **{key: self.named(value, names) for key, value in scores.items()}}


@dataclass(frozen=True)
class CellImages(ColourImages, Cells):
    """What membranes enclose, or objects that do not touch, in images."""

    window_side: int = 256  # of the windows that are cut, pixels

    name: ClassVar = "cells of images"
    noun: ClassVar = "image"


@dataclass(frozen=True)
class ClassImages(ColourImages, Classes):
    """Kinds of pixels by number, in images."""

    window_side: int = 256  # of the windows that are cut, pixels

    name: ClassVar = "classes of images"
