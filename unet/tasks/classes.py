"""Several classes: labels are 0 .. K-1, the network outputs the probability of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import ndimage

from unet.inputs.layouts import Layout
from unet.scores.classes import class_scores, format_classes
from unet.tasks.stacks import SliceTask
from unet.tasks.task import Prediction
from utils import UserError

MOST_CLASSES = 256  # labels are kept as uint8


@dataclass(frozen=True)
class Classes(SliceTask):
    """The task of telling kinds of pixels apart, which labels number."""

    classes: int = 2

    name: ClassVar = "classes"
    meaning: ClassVar = "classes"
    weights: ClassVar = ("none", "balance")
    objects_are: ClassVar = "kinds"

    @property
    def output(self) -> str:
        """What the network outputs, in words."""
        return f"probability of {self.classes} classes, a channel each"

    def check(self, layout: Layout) -> list[str]:
        """Check that labels are whole numbers below `classes`, and not all of one class."""
        path = layout.labels_path
        values = np.unique(np.concatenate([np.unique(sample.label) for sample in layout]))
        value_text = ", ".join(f"{value:g}" for value in values[:6].tolist()) + (", ..." if len(values) > 6 else "")
        if self.classes > MOST_CLASSES:
            raise UserError(f"--classes {self.classes}: expected {MOST_CLASSES} at most")
        if not np.isin(values, np.arange(self.classes)).all():
            raise UserError(f"{path}: labels are {value_text}, expected whole numbers from 0 to {self.classes - 1} for "
                            f"--classes {self.classes}; number the classes from 0, in Fiji with Process > Math > "
                            "Macro...")
        if len(values) == 1:
            raise UserError(f"{path}: every pixel is of class {value_text}; draw the others, or copy the right file")
        missing = sorted(set(range(self.classes)) - set(values.astype(int).tolist()))
        return [f"{path}: no pixel is of class {', '.join(map(str, missing))}; it cannot be learnt"] if missing else []

    def label(self, label: np.ndarray) -> np.ndarray:
        """Return a label as uint8 (H, W), 0 .. classes - 1."""
        return label.astype(np.uint8)

    def target(self, label: np.ndarray) -> np.ndarray:
        return label

    def segment(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        """Number the connected pixels of each class; class 0 is background."""
        classes, numbers = self.inside(probability, learnt), np.zeros(probability.shape[:2], np.int32)
        for number in range(1, probability.shape[-1]):
            pieces, _ = ndimage.label(classes == number)
            numbers += np.where(pieces, pieces + numbers.max(), 0)
        return numbers

    def inside(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        return probability.argmax(axis=-1)

    def score(self, predictions: Iterable[Prediction], numbers: Sequence[int], learnt: dict) -> dict:
        pairs = [(np.moveaxis(one.probability, -1, 0), self.label(one.sample.label)) for one in predictions]
        return class_scores(*zip(*pairs, strict=True), numbers)

    def table(self, scores: dict) -> str:
        return format_classes(scores)

    def summary(self, scores: dict) -> dict[str, dict[str, float]]:
        return {"mean over the classes": {"IoU": scores["mean"]["iou"], "Dice": scores["mean"]["dice"],
                                          "accuracy": scores["accuracy"]}}
