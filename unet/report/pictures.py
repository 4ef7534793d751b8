"""Figures of panels with a caption, a scale bar and colours that colour-blind readers can tell apart."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from utils import atomic_path

# Okabe and Ito's colours, which readers with any colour vision can tell apart; paint.py says what they mean on images
ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
DPI = 100


@dataclass(frozen=True)
class Panel:
    """One image of a figure.

    array : uint8 or float 0..1, grey levels (H, W) or colours (H, W, 3)
    meaning : what its values mean, the text of a colour bar; images in colour get no colour bar
    style : arguments of `imshow` that differ from the defaults of `show`
    pixel : side of a pixel, µm, for the scale bar; None = the scale bar is in pixels
    """

    array: np.ndarray
    title: str = ""
    meaning: str = ""
    style: dict = field(default_factory=dict)
    pixel: float | None = None


def panels(rows: int, columns: int, caption: str, size: float = 2.4, room: float = 0.0) -> tuple[Figure, np.ndarray]:
    """Make a figure of rows x columns square panels with a caption below; return it and its axes (rows, columns).

    A panel is `size` inches wide; `room` inches are added to the figure's height, for titles and colour bars.
    """
    width = max(columns * size, 5)
    text = textwrap.fill(caption, int(width * 12))  # 12 characters of this size fit into an inch
    height = rows * size + room + (0.2 * text.count("\n") + 0.4 if text else 0)
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.supxlabel(text, x=0.01, ha="left", fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False)


def grid(rows: Sequence[Sequence[Panel]], caption: str, size: float = 3.0, names: Sequence[str] = ()
         ) -> tuple[Figure, np.ndarray]:
    """Draw rows of panels, and each colour bar once, below its column; return the figure and its axes (rows, columns).

    With `names` the rows become columns: the panels of a row are drawn one above the other, with the names at the left.
    """
    shape = (len(rows[0]), len(rows)) if names else (len(rows), len(rows[0]))
    title_lines = [max(panel.title.count("\n") + bool(panel.title) for panel in line)
                   for line in (zip(*rows, strict=True) if names else rows)]
    has_bars = not names and any(panel.meaning and panel.array.ndim == 2 for row in rows for panel in row)
    figure, axes = panels(*shape, caption, size, 0.14 * sum(title_lines) + 0.5 * has_bars)
    for row_axes, row in zip(axes.T if names else axes, rows, strict=True):
        for axis, panel in zip(row_axes, row, strict=True):
            show(axis, panel.array, panel.title, panel.pixel, **panel.style)
    for axis, name in zip(axes[:, 0], names, strict=False):
        axis.set_ylabel(textwrap.fill(name, int(size * 11)), fontsize=9)  # not longer than the panel
    meanings = set()  # that have a colour bar
    for number, column in enumerate(zip(*rows, strict=True)):
        which = next((place for place, panel in enumerate(column) if panel.meaning and panel.array.ndim == 2
                      and (panel.style or panel.meaning not in meanings)), None)
        if which is not None:
            meanings.add(column[which].meaning)
            line = axes[number] if names else axes[:, number]
            colour_bar(figure, line[which].images[0], line if names else line[-1:], column[which].meaning,
                       "right" if names else "bottom")
    return figure, axes


def show(axis: Axes, image: np.ndarray, title: str = "", pixel: float | None = None, **style) -> AxesImage:
    """Draw grey levels or colours (H, W[, 3]), uint8 or float 0..1, with a scale bar.

    The bar is in µm if `pixel` is the side of a pixel in µm, otherwise in pixels.
    """
    top = 255 if image.dtype == np.uint8 else 1
    artist = axis.imshow(image, **{"cmap": "gray", "vmin": 0, "vmax": top} | style)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=9)
    axis.set_anchor("N")  # align with panels that have a colour bar below
    length, words = scale_bar(image.shape[1], pixel)
    bar = AnchoredSizeBar(axis.transData, length, words, "lower left", pad=0.25, borderpad=0.3, sep=2,
                          color="white", label_top=True, size_vertical=image.shape[1] / 100,
                          fontproperties={"size": 7})
    bar.patch.set(facecolor="black", edgecolor="none", alpha=0.75)  # readable on white labels and dark images
    axis.add_artist(bar)
    return artist


def scale_bar(width: int, pixel: float | None = None) -> tuple[float, str]:
    """Return a scale bar's length in pixels, at most about a quarter of the image's `width` pixels, and its text."""
    most = max(width / 4, 1) * (pixel or 1)
    power = 10.0 ** math.floor(math.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    return length / (pixel or 1), f"{length:g} {'µm' if pixel else 'px'}"


def frame(axis: Axes, corner: tuple[int, int], size: tuple[int, int], colour: str, linewidth: float = 2, **style
          ) -> None:
    """Draw a frame around `size` (height, width) pixels at `corner` (y, x)."""
    inset = linewidth / 2  # about a pixel: at the image's edge the whole line stays visible
    axis.add_patch(Rectangle((corner[1] - 0.5 + inset, corner[0] - 0.5 + inset), size[1] - 2 * inset,
                             size[0] - 2 * inset, fill=False, edgecolor=colour, linewidth=linewidth, **style))


def middle(array: np.ndarray, side: int = 256) -> np.ndarray:
    """Return the middle of (H, W[, C]), at most `side` pixels wide and high: small enough to see single cells."""
    y, x = (max((full - side) // 2, 0) for full in array.shape[:2])
    return array[y:y + side, x:x + side]


def colour_bar(figure: Figure, artist: AxesImage, axes: Sequence[Axes], label: str, where: str = "right") -> None:
    """Add the colour bar of an image at the 'right' or 'bottom' of the axes; do nothing for an image in colour."""
    if artist.get_array().ndim == 3:
        return
    bar = figure.colorbar(artist, ax=list(np.ravel(axes)), location=where, shrink=0.8, aspect=25, pad=0.01,
                          panchor=False)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def fade(image: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W[, 3]) as float (H, W, 3) 0..1, grey, light and of low contrast: colours on it stand out."""
    image = image if image.ndim == 2 else image.mean(axis=2)
    return np.repeat(image[..., np.newaxis] / 255.0, 3, axis=2) * 0.6 + 0.3


def message(text: str) -> Figure:
    """Return a figure that only says why there is nothing to see."""
    figure = Figure(figsize=(8, 0.8), dpi=DPI)
    figure.add_axes((0, 0, 1, 1)).axis("off")  # a notebook does not show a figure without axes
    figure.text(0.01, 0.5, textwrap.fill(text, 96), va="center", fontsize=10)
    return figure


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a figure as .png or .jpg, depending on the suffix; an interrupted write leaves no file."""
    options = {"pil_kwargs": {"quality": 75, "optimize": True}} if path.suffix == ".jpg" else {}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, **options)


def draw_curve(history: list[dict]) -> Figure:
    """Draw loss and learning rate over the steps of a run; `history` is a list of rows as in history.csv."""
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    steps = [row["step"] for row in history]
    axis.plot(steps, [row["loss"] for row in history], color=BLUE, marker=".", label="training loss")
    if "val_loss" in history[0]:
        axis.plot(steps, [row["val_loss"] for row in history], color=ORANGE, marker="s", markersize=4,
                  label="loss on the validation block, which is not trained on")
    axis.set(xlabel="step", ylabel="cross-entropy", yscale="log", title="Learning curve")
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
