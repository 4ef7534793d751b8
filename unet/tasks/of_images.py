"""Cells and classes in images of any size, grey or coloured: the same as in slices, but windows train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unet.tasks.cells import Cells
from unet.tasks.classes import Classes
from unet.tasks.images import ImageFiles
from unet.tasks.task import Options, Prediction


class ColourImages(ImageFiles):
    """Mixin for a task on slices: the network sees three channels, normalised together by the levels of their mean."""

    layouts: ClassVar = ("two folders",)
    options: ClassVar = Options(crop_probability=0.0)  # no crops: a window is cut with the context that turning needs

    def levels(self, image: np.ndarray) -> dict:
        """Return the levels of the mean of the channels, which keeps the colours' relations."""
        grey = image.mean(axis=2)
        return super().levels(np.rint(grey).astype(np.uint8) if image.dtype == np.uint8 else grey.astype(np.float32))

    def portable(self) -> tuple[list[tuple[str, dict]], str]:
        return super().portable()[0], ("Grey images in three channels are normalised as in training; colours become "
                                       "paler than in predict.py.")

    def score(self, predictions: Iterable[Prediction], numbers: Sequence[int], learnt: dict) -> dict:
        """Return the scores as for slices, with the images' names in the rows."""
        predictions = list(predictions)
        return _with_names(super().score(predictions, numbers, learnt),
                           {number: one.sample.name for number, one in zip(numbers, predictions, strict=True)})


@dataclass(frozen=True)
class CellImages(ColourImages, Cells):
    """The task of segmenting what membranes enclose, or objects that do not touch, in images."""

    window_side: int = 256  # of the windows, pixels

    name: ClassVar = "cells of images"
    noun: ClassVar = "image"


@dataclass(frozen=True)
class ClassImages(ColourImages, Classes):
    """The task of telling kinds of pixels apart, in images."""

    window_side: int = 256  # of the windows, pixels

    name: ClassVar = "classes of images"


def _with_names(scores: dict | list | None, names: dict[int, str]) -> dict | list | None:
    """Return scores in which each row for a slice has the name of its image, too."""
    if isinstance(scores, list):
        return [_with_names(one, names) for one in scores]
    if not isinstance(scores, dict):
        return scores
    name = {"image": names[scores["slice"]]} if "slice" in scores else {}
    return {**name, **{key: _with_names(value, names) for key, value in scores.items()}}
