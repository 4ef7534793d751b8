"""More than two kinds of pixels: labels 0 .. K-1 and their weights. numpy alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from unet.scores.classes import class_scores, confusion, format_classes  # noqa: F401  predict.py and train.py look here
from utils import UserError

MOST = 256  # labels are kept as uint8


def check_labels(stack: np.ndarray, classes: int, path: str | Path, notes: list[str] | None = None) -> np.ndarray:
    """The labels (N, H, W) as uint8, checked to be of 0 .. classes - 1; a class without a pixel is told in `notes`.

    Raises UserError for other values, and where all pixels are of one class.
    """
    values = np.unique(stack)
    shown = ", ".join(f"{value:g}" for value in values[:6].tolist()) + (", ..." if len(values) > 6 else "")
    if not np.isin(values, np.arange(classes)).all():
        raise UserError(f"{path}: labels are {shown}, expected whole numbers from 0 to {classes - 1} for --classes "
                        f"{classes}; number the classes from 0, in Fiji with Process > Math > Macro...")
    if len(values) == 1:
        raise UserError(f"{path}: every pixel is of class {shown}; draw the others, or copy the right file")
    missing = sorted(set(range(classes)) - set(values.astype(int).tolist()))
    if missing and notes is not None:
        notes.append(f"{path}: no pixel is of class {', '.join(map(str, missing))}; it cannot be learnt")
    return stack.astype(np.uint8)


def check_asked(asked: int | None, settings: dict) -> None:
    """Raise UserError where --classes asks for other classes than step 1 was told of, as `settings` keep it."""
    known = settings.get("classes", 1)
    if asked not in (None, known):
        raise UserError(f"--classes {asked}, but the labels were taken as {known}; run 'python augmentation.py "
                        f"--classes {asked}' and 'python preprocessing.py' again")


def class_shares(labels: Iterable[np.ndarray], classes: int) -> list[float]:
    """Share of all pixels that each class has, of label images (H, W) of 0 .. classes - 1."""
    counts = sum(np.bincount(label.ravel(), minlength=classes) for label in labels)
    return (counts / counts.sum()).tolist()


def class_weights(label: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Weights float32 (H, W) with which all classes count the same; the mean weight is 1 where `shares` hold.

    Ronneberger et al. 2015, w_c of equation 2: the inverse of a class's frequency; of absent classes 0.
    """
    present = [share for share in shares if share > 0]
    table = [1 / (len(present) * share) if share > 0 else 0.0 for share in shares]
    return np.array(table, np.float32)[label]
