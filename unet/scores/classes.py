"""Scores of predictions of several classes of pixels: IoU and Dice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unet.scores.overlap import overlap_table


def confusion(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Count the pixels of each true class (row) that were predicted as each class (column): int64 (classes, classes).

    Raises ValueError if shapes differ, or a number is no class.
    """
    table = overlap_table(predicted, truth).T
    if max(table.shape) > classes:
        raise ValueError(f"classes go up to {max(table.shape) - 1}, expected {classes - 1} at most")
    table.resize(classes, classes)
    return table.toarray()


def class_scores(probabilities: Sequence[np.ndarray], labels: Sequence[np.ndarray],
                 slices: Sequence[int] | None = None) -> dict:
    """Compute IoU and Dice of each class from probabilities (K, H, W) and labels 0 .. K-1 (H, W) of slices.

    A pixel belongs to the class with the greatest probability. IoU = TP / (TP + FP + FN), Dice = 2 TP / (2 TP + FP +
    FN), pixels of all slices pooled; None for a class that neither prediction nor truth has. Returns, ready for JSON,
    "classes", the scores of each class; "mean" over the classes that have scores; "accuracy", the share of pixels that
    are right; "per_slice", the same for each slice. `slices` are the slices' numbers.
    """
    classes = len(probabilities[0])
    numbers = range(len(labels)) if slices is None else slices
    tables = [confusion(probability.argmax(axis=0), label, classes)
              for probability, label in zip(probabilities, labels, strict=True)]
    return {**_scores_of(sum(tables)), "per_slice": [{"slice": int(number), **_scores_of(table)}
                                                     for number, table in zip(numbers, tables, strict=True)]}


def _scores_of(table: np.ndarray) -> dict:
    """Compute the scores of what `confusion` returned; see `class_scores`."""
    right, true, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    rows = []
    for number, (tp, positives, guesses) in enumerate(zip(right.tolist(), true.tolist(), predicted.tolist(),
                                                          strict=True)):
        union = positives + guesses - tp
        rows.append({"class": number, "pixels": positives, "iou": tp / union if union else None,
                     "dice": 2 * tp / (positives + guesses) if union else None})
    mean = {name: float(np.mean([row[name] for row in rows if row[name] is not None])) for name in ("iou", "dice")}
    return {"classes": rows, "mean": mean, "accuracy": float(right.sum() / table.sum())}


def format_classes(scores: dict) -> str:
    """Format what `class_scores` returned as a table to print."""
    lines = [f"{'':<12}{'pixels':>12}{'IoU':>9}{'Dice':>9}"]
    for row in scores["classes"]:
        values = "".join(f"{'absent':>9}" if row[name] is None else f"{row[name]:>9.4f}" for name in ("iou", "dice"))
        lines.append(f"{'class ' + str(row['class']):<12}{row['pixels']:>12}{values}")
    total = sum(row["pixels"] for row in scores["classes"])
    lines.append(f"{'mean':<12}{total:>12}{scores['mean']['iou']:>9.4f}{scores['mean']['dice']:>9.4f}")
    lines.append("")
    for row in scores["per_slice"]:
        name = row.get("image", f"slice {row['slice']}")[:23]
        lines.append(f"{name:<24}{row['mean']['iou']:>9.4f}{row['mean']['dice']:>9.4f}")
    lines.append(f"accuracy {scores['accuracy']:.4f}; mean: over the classes; for a slice: over those it has")
    return "\n".join(lines)
