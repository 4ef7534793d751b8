"""More than two kinds of pixels: labels 0 .. K-1, their weights, and how well each class is found. numpy alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

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


# -------------------------------------------------------------------------------------------------- scores


def confusion(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each true class (row) that were given each class (column): int64 (classes, classes).

    Raises ValueError where shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"the prediction is {predicted.shape}, the truth is {truth.shape}")
    pairs = truth.astype(np.int64).ravel() * classes + predicted.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_scores(probabilities: np.ndarray, labels: np.ndarray, slices: Sequence[int] | None = None) -> dict:
    """IoU and Dice of each class, ready for JSON, from probabilities (N, K, H, W) and labels 0 .. K-1 (N, H, W).

    A pixel is of the class with the greatest probability. IoU = TP / (TP + FP + FN), Dice = 2 TP / (2 TP + FP + FN),
    pixels of all slices pooled; None for a class that neither prediction nor truth has. "mean" is that of the other
    classes, "accuracy" the share of pixels that are right, "per_slice" the same of each slice.
    """
    classes = probabilities.shape[1]
    numbers = range(len(labels)) if slices is None else slices
    tables = [confusion(one.argmax(axis=0), label, classes)
              for one, label in zip(probabilities, labels, strict=True)]
    return {**_scores_of(sum(tables)), "per_slice": [{"slice": int(number), **_scores_of(table)}
                                                     for number, table in zip(numbers, tables, strict=True)]}


def _scores_of(table: np.ndarray) -> dict:
    right, true, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    rows = []
    for number, (hit, wanted, given) in enumerate(zip(right.tolist(), true.tolist(), predicted.tolist(), strict=True)):
        either = wanted + given - hit
        rows.append({"class": number, "pixels": wanted, "iou": hit / either if either else None,
                     "dice": 2 * hit / (wanted + given) if either else None})
    mean = {name: float(np.mean([row[name] for row in rows if row[name] is not None])) for name in ("iou", "dice")}
    return {"classes": rows, "mean": mean, "accuracy": float(right.sum() / table.sum())}


def format_classes(scores: dict) -> str:
    """The table to print of what `class_scores` returned."""
    lines = [f"{'':<12}{'pixels':>12}{'IoU':>9}{'Dice':>9}"]
    for row in scores["classes"]:
        values = "".join(f"{'absent':>9}" if row[name] is None else f"{row[name]:>9.4f}" for name in ("iou", "dice"))
        lines.append(f"{'class ' + str(row['class']):<12}{row['pixels']:>12}{values}")
    total = sum(row["pixels"] for row in scores["classes"])
    lines.append(f"{'mean':<12}{total:>12}{scores['mean']['iou']:>9.4f}{scores['mean']['dice']:>9.4f}")
    lines += ["", *(f"{'slice ' + str(row['slice']):<12}{'':>12}{row['mean']['iou']:>9.4f}{row['mean']['dice']:>9.4f}"
                    for row in scores["per_slice"])]
    return "\n".join([*lines, f"accuracy {scores['accuracy']:.4f}; mean: over the classes; of a slice over its own"])
