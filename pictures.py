"""Pictures of results, each with a caption, pixels along its sides and colours that colour-blind readers tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from skimage.segmentation import find_boundaries

from utils import atomic_path

MISSED = "#d55e00"  # vermilion: membrane that was not found; where it opens a wall, two cells merge
INVENTED = "#0072b2"  # blue: membrane where none is; where it crosses a cell, the cell is split


def error_overlay(image: np.ndarray, label: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """Float (H, W, 3) in 0..1: the gray image, missed membrane in vermilion and invented membrane in blue.

    `image` uint8 (H, W), `label` (H, W) 0 = membrane, `probability` of cell (H, W); cell is where it is > threshold.
    """
    overlay = np.repeat(image[..., np.newaxis] / 255.0, 3, axis=2) * 0.6 + 0.3
    cell, truth = probability > threshold, label > 0
    overlay[cell & ~truth] = to_rgb(MISSED)
    overlay[~cell & truth] = to_rgb(INVENTED)
    return overlay


def save_holdout(path: Path, images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, threshold: float,
                 slices: list[int], most: int = 5) -> None:
    """Draw a row for each held-out slice, at most `most`: image, truth, probability, errors. All arrays (N, H, W)."""
    shown = list(zip(slices, images, labels, probabilities, strict=True))[:most]
    figure = Figure(figsize=(16, 4 * len(shown) + 0.6), layout="constrained")
    axes = figure.subplots(len(shown), 4, squeeze=False)
    for row, (number, image, label, probability) in zip(axes, shown, strict=True):
        row[0].imshow(image, cmap="gray", vmin=0, vmax=255)
        row[1].imshow(label, cmap="gray", vmin=0, vmax=255)
        drawn = row[2].imshow(probability, cmap="gray", vmin=0, vmax=1)
        row[3].imshow(error_overlay(image, label, probability, threshold))
        figure.colorbar(drawn, ax=row[2], shrink=0.8)
        for axis, title in zip(row, (f"held-out slice {number}, pixels", "truth: black = membrane", "probability of "
                               "cell", f"at {threshold:g}: missed red, invented blue"), strict=True):
            axis.set_title(title)
    figure.suptitle("The held-out slices judged the network and never trained it. Missed membrane (vermilion) merges "
                    "cells where it opens a wall, invented membrane (blue) splits them.")
    _save(figure, path)


def save_nuclei(path: Path, rows: list[tuple]) -> None:
    """Draw a row for each image: pixels, probability, outlines of its nuclei.

    A row is (name, image uint8 (H, W, 3), probability (H, W), nuclei (H, W), true nuclei (H, W) or None). Faint images
    are shown brighter than they are.
    """
    figure = Figure(figsize=(13, 4.2 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    known = any(truth is not None for *_, truth in rows)
    for row, (name, image, probability, labels, truth) in zip(axes, rows, strict=True):
        name = name if len(name) <= 20 else f"{name[:16]}..."  # a hash for a name would run into the next title
        low, high = np.percentile(image, (0.5, 99.8))
        image = np.clip((image - low) / max(high - low, 1), 0, 1)
        row[0].imshow(image)
        drawn = row[1].imshow(probability, cmap="gray", vmin=0, vmax=1)
        figure.colorbar(drawn, ax=row[1], shrink=0.8)
        outlined = image * 0.75
        if truth is not None:
            outlined[find_boundaries(truth, mode="inner")] = to_rgb(INVENTED)
        outlined[find_boundaries(labels, mode="inner")] = to_rgb(MISSED)
        row[2].imshow(outlined)
        for axis, title in zip(row, (f"{name}, pixels", "probability of nucleus", f"{len(np.unique(labels)) - 1} "
                               "nuclei"), strict=True):
            axis.set_title(title)
    figure.suptitle("Outlines: what the network found, vermilion" + ", over what was drawn by hand, blue" * known)
    _save(figure, path)


def save_classes(path: Path, images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, classes: int,
                 slices: list[int], most: int = 5) -> None:
    """Draw a row for each held-out slice, at most `most`: image, true classes, predicted ones. All arrays (N, H, W)."""
    shown = list(zip(slices, images, labels, predicted, strict=True))[:most]
    figure = Figure(figsize=(12.5, 4 * len(shown) + 0.6), layout="constrained")
    axes = figure.subplots(len(shown), 3, squeeze=False)
    for row, (number, image, label, given) in zip(axes, shown, strict=True):
        row[0].imshow(image, cmap="gray", vmin=0, vmax=255)
        for axis, numbers in ((row[1], label), (row[2], given)):
            drawn = axis.imshow(numbers, cmap="viridis", vmin=0, vmax=classes - 1, interpolation="nearest")
        figure.colorbar(drawn, ax=row[2], shrink=0.8, ticks=range(classes) if classes <= 20 else None)
        for axis, title in zip(row, (f"held-out slice {number}, pixels", "true classes", "the most probable class"),
                               strict=True):
            axis.set_title(title)
    figure.suptitle("The held-out slices judged the network and never trained it.")
    _save(figure, path)


def save_curve(path: Path, history: list[dict]) -> None:
    """Draw loss and learning rate over the steps of a run; `history` is a list of rows as in history.csv."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    steps = [row["step"] for row in history]
    axis.plot(steps, [row["loss"] for row in history], color="#0072b2", marker=".", label="training loss")
    if "val_loss" in history[0]:
        axis.plot(steps, [row["val_loss"] for row in history], color="#d55e00", marker=".",
                  label="loss on the validation block, unweighted")
    axis.set(xlabel="step", ylabel="cross-entropy", yscale="log",
             title="Learning curve: the loss falls and levels off as the learning rate goes to zero")
    rate = axis.twinx()
    rate.plot(steps, [row["learning_rate"] for row in history], color="#999999", linestyle=":", label="learning rate")
    rate.set_ylabel("learning rate")
    axis.legend(handles=[*axis.get_lines(), *rate.get_lines()], loc="upper right")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80)
