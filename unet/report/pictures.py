"""Pictures: panels with a caption, a scale in pixels and colours that colour-blind readers tell apart."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, NullLocator
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from skimage.segmentation import find_boundaries

from utils import atomic_path

# Okabe and Ito's colours, which readers with any colour vision tell apart
ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
MISSED = VERMILION  # membrane that was not found; where it opens a wall, two cells merge
INVENTED = BLUE  # membrane where none is; where it crosses a cell, the cell is split
DPI = 100

# ------------------------------------------------------------------------------------------- what pictures share


def panels(rows: int, columns: int, caption: str, size: float = 2.4) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns square panels, `size` inches each, and its axes (rows, columns); caption below."""
    width = max(columns * size, 5)
    text = textwrap.fill(caption, int(width * 12))  # characters of this size to an inch
    figure = Figure(figsize=(width, rows * size + 0.2 * text.count("\n") + 0.4), dpi=DPI, layout="constrained")
    figure.supxlabel(text, x=0.01, ha="left", fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False)


def show(axis: Axes, image: np.ndarray, title: str = "", **look) -> AxesImage:
    """Draw uint8 grey levels or colours (H, W[, 3]), or float (H, W[, 3]) 0..1, with a bar as scale in pixels."""
    top = 255 if image.dtype == np.uint8 else 1
    drawn = axis.imshow(image, **{"cmap": "gray", "vmin": 0, "vmax": top} | look)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=9)
    scale_bar(axis, image.shape[1])
    return drawn


def scale_bar(axis: Axes, width: int) -> None:
    """Draw a bar of a round number of pixels, up to a quarter of an image's width, into its lower left corner."""
    length = max(side for side in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if side <= max(width / 4, 1))
    bar = AnchoredSizeBar(axis.transData, length, f"{length} px", "lower left", pad=0.25, borderpad=0.3, sep=2,
                          color="white", label_top=True, size_vertical=width / 100, fontproperties={"size": 7})
    bar.patch.set(facecolor="black", edgecolor="none", alpha=0.75)  # seen on white labels and dark images
    axis.add_artist(bar)


def colour_bar(figure: Figure, drawn: AxesImage, axes: list[Axes] | np.ndarray, label: str, where: str = "right"
               ) -> None:
    """Add the colour bar of `drawn` beside the axes, or at their 'bottom': what intensities mean; colours have none."""
    if drawn.get_array().ndim == 3:
        return
    bar = figure.colorbar(drawn, ax=list(np.ravel(axes)), location=where, shrink=0.8, aspect=25, pad=0.01)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def message(text: str) -> Figure:
    """A picture that says in words why there is nothing to see."""
    figure = Figure(figsize=(8, 0.8), dpi=DPI)
    figure.add_axes((0, 0, 1, 1)).axis("off")  # a notebook shows no figure without axes
    figure.text(0.01, 0.5, textwrap.fill(text, 96), va="center", fontsize=10)
    return figure


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a figure as .png or .jpg, as the ending says; all or nothing."""
    look = {"pil_kwargs": {"quality": 85, "optimize": True}} if path.suffix == ".jpg" else {}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, **look)


# -------------------------------------------------------------------------------------- what every run writes


def error_overlay(image: np.ndarray, label: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """Float (H, W, 3) in 0..1: the gray image, missed membrane in vermilion and invented membrane in blue.

    `image` uint8 (H, W), `label` (H, W) 0 = membrane, `probability` of cell (H, W); cell is where it is > threshold.
    """
    overlay = faded(image)
    cell, truth = probability > threshold, label > 0
    overlay[cell & ~truth] = to_rgb(MISSED)
    overlay[~cell & truth] = to_rgb(INVENTED)
    return overlay


def faded(image: np.ndarray) -> np.ndarray:
    """Float (H, W, 3) in 0..1 of uint8 (H, W): light and flat, so that colours on it stand out."""
    return np.repeat(image[..., np.newaxis] / 255.0, 3, axis=2) * 0.6 + 0.3


def save_holdout(path: Path, images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, threshold: float,
                 slices: list[int], most: int = 5) -> None:
    """Draw a row for each held-out slice, at most `most`: image, truth, probability, errors. All arrays (N, H, W)."""
    shown = list(zip(slices, images, labels, probabilities, strict=True))[:most]
    figure, axes = panels(len(shown), 4, "The held-out slices judged the network and never trained it. Missed "
                          "membrane (vermilion) merges cells where it opens a wall, invented membrane (blue) splits "
                          "them.", size=3.4)
    for row, (number, image, label, probability) in zip(axes, shown, strict=True):
        grey = show(row[0], image, f"held-out slice {number}")
        show(row[1], label, "truth: black = membrane")
        drawn = show(row[2], probability, "predicted probability of cell")
        show(row[3], error_overlay(image, label, probability, threshold), f"errors at threshold {threshold:g}")
    colour_bar(figure, grey, axes[-1, 0], "grey level", "bottom")
    colour_bar(figure, drawn, axes[-1, 2], "probability of cell", "bottom")
    save(figure, path, dpi=80)


def save_nuclei(path: Path, rows: list[tuple]) -> None:
    """Draw a row for each image: pixels, probability, outlines of its nuclei.

    A row is (name, image uint8 (H, W, 3), probability (H, W), nuclei (H, W), true nuclei (H, W) or None). Faint images
    are shown brighter than they are.
    """
    known = any(truth is not None for *_, truth in rows)
    figure, axes = panels(len(rows), 3, "Outlines: what the network found, vermilion" + ", over what was drawn by "
                          "hand, blue" * known + ". Faint images are shown brighter than they are.", size=3.8)
    for row, (name, image, probability, labels, truth) in zip(axes, rows, strict=True):
        name = name if len(name) <= 20 else f"{name[:16]}..."  # a hash for a name would run into the next title
        low, high = np.percentile(image, (0.5, 99.8))
        image = np.clip((image - low) / max(high - low, 1), 0, 1)
        show(row[0], image, name)
        drawn = show(row[1], probability, "probability of nucleus")
        outlined = image * 0.75
        if truth is not None:
            outlined[find_boundaries(truth, mode="inner")] = to_rgb(BLUE)
        outlined[find_boundaries(labels, mode="inner")] = to_rgb(VERMILION)
        show(row[2], outlined, f"{len(np.unique(labels[labels > 0]))} nuclei")
    colour_bar(figure, drawn, axes[-1, 1], "probability of nucleus", "bottom")
    save(figure, path, dpi=80)


def save_classes(path: Path, images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, classes: int,
                 slices: list[int], most: int = 5) -> None:
    """Draw a row for each held-out slice, at most `most`: image, true classes, predicted ones. All arrays (N, H, W)."""
    shown = list(zip(slices, images, labels, predicted, strict=True))[:most]
    figure, axes = panels(len(shown), 3, "The held-out slices judged the network and never trained it.", size=3.8)
    for row, (number, image, label, given) in zip(axes, shown, strict=True):
        grey = show(row[0], image, f"held-out slice {number}")
        for axis, numbers, title in ((row[1], label, "true classes"), (row[2], given, "the most probable class")):
            drawn = show(axis, numbers, title, cmap="viridis", vmin=0, vmax=classes - 1, interpolation="nearest")
    colour_bar(figure, grey, axes[-1, 0], "grey level", "bottom")
    colour_bar(figure, drawn, axes[-1, 2], "class", "bottom")
    save(figure, path, dpi=80)


def draw_curve(history: list[dict]) -> Figure:
    """Loss and learning rate over the steps of a run; `history` is a list of rows as in history.csv."""
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    steps = [row["step"] for row in history]
    axis.plot(steps, [row["loss"] for row in history], color=BLUE, marker=".", label="training loss")
    if "val_loss" in history[0]:
        axis.plot(steps, [row["val_loss"] for row in history], color=VERMILION, marker=".",
                  label="loss on the validation block, unweighted")
    axis.set(xlabel="step", ylabel="cross-entropy", yscale="log",
             title="Learning curve: the loss falls and levels off as the learning rate goes to zero")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")
    rate = axis.twinx()
    rate.plot(steps, [row["learning_rate"] for row in history], color="#777777", linestyle=":", label="learning rate")
    rate.set_ylabel("learning rate")
    axis.legend(handles=[*axis.get_lines(), *rate.get_lines()], loc="upper right")
    return figure


def save_curve(path: Path, history: list[dict]) -> None:
    """Write the learning curve; see `draw_curve`."""
    save(draw_curve(history), path, dpi=80)
