"""Pictures: panels with a caption, a scale in pixels and colours that colour-blind readers tell apart."""

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

# Okabe and Ito's colours, which readers with any colour vision tell apart; what they mean over images is in paint.py
ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
DPI = 100


@dataclass(frozen=True)
class Panel:
    """One picture among others.

    array : uint8 or float 0..1, (H, W) or colours (H, W, 3)
    means : what its values mean, for a colour bar; colours have none
    look : what `imshow` is to do otherwise
    pixel : side of a pixel, µm, for the bar that shows the scale; without it that counts pixels
    """

    array: np.ndarray
    title: str = ""
    means: str = ""
    look: dict = field(default_factory=dict)
    pixel: float | None = None


def panels(rows: int, columns: int, caption: str, size: float = 2.4, room: float = 0.0) -> tuple[Figure, np.ndarray]:
    """Make a figure of rows x columns square panels, `size` inches each, and its axes (rows, columns); caption below.

    `room` inches are added to its height, for titles and colour bars.
    """
    width = max(columns * size, 5)
    text = textwrap.fill(caption, int(width * 12))  # characters of this size to an inch
    height = rows * size + room + (0.2 * text.count("\n") + 0.4 if text else 0)
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.supxlabel(text, x=0.01, ha="left", fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False)


def grid(rows: Sequence[Sequence[Panel]], caption: str, size: float = 3.0, names: Sequence[str] = ()
         ) -> tuple[Figure, np.ndarray]:
    """Draw rows of panels, colour bars below their columns, each once; gives the figure and its axes (rows, columns).

    With `names` the rows become columns, each thing one above the other, and the names stand at the left.
    """
    shape = (len(rows[0]), len(rows)) if names else (len(rows), len(rows[0]))
    titles = [max(panel.title.count("\n") + bool(panel.title) for panel in line)
              for line in (zip(*rows, strict=True) if names else rows)]
    bars = not names and any(panel.means and panel.array.ndim == 2 for line in rows for panel in line)
    figure, axes = panels(*shape, caption, size, 0.14 * sum(titles) + 0.5 * bars)
    for things, line in zip(axes.T if names else axes, rows, strict=True):
        for axis, panel in zip(things, line, strict=True):
            show(axis, panel.array, panel.title, panel.pixel, **panel.look)
    for axis, name in zip(axes[:, 0], names, strict=False):
        axis.set_ylabel(textwrap.fill(name, int(size * 11)), fontsize=9)  # along the panel, not over it
    explained = set()
    for number, alike in enumerate(zip(*rows, strict=True)):
        which = next((place for place, panel in enumerate(alike)
                      if panel.means and panel.array.ndim == 2 and (panel.look or panel.means not in explained)), None)
        if which is not None:
            explained.add(alike[which].means)
            line = axes[number] if names else axes[:, number]
            colour_bar(figure, line[which].images[0], line if names else line[-1:], alike[which].means,
                       "right" if names else "bottom")
    return figure, axes


def show(axis: Axes, image: np.ndarray, title: str = "", pixel: float | None = None, **look) -> AxesImage:
    """Draw uint8 grey levels or colours (H, W[, 3]), or float (H, W[, 3]) 0..1, with a bar as scale.

    It is in µm where `pixel` is the side of a pixel in µm, else in pixels.
    """
    top = 255 if image.dtype == np.uint8 else 1
    artist = axis.imshow(image, **{"cmap": "gray", "vmin": 0, "vmax": top} | look)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=9)
    axis.set_anchor("N")  # in a line with panels that have a colour bar below
    length, words = scale_bar(image.shape[1], pixel)
    bar = AnchoredSizeBar(axis.transData, length, words, "lower left", pad=0.25, borderpad=0.3, sep=2,
                          color="white", label_top=True, size_vertical=image.shape[1] / 100,
                          fontproperties={"size": 7})
    bar.patch.set(facecolor="black", edgecolor="none", alpha=0.75)  # readable on white labels and dark images
    axis.add_artist(bar)
    return artist


def scale_bar(width: int, pixel: float | None = None) -> tuple[float, str]:
    """Length in pixels and the words of a scale for an image `width` pixels wide, about a quarter of it at most."""
    most = max(width / 4, 1) * (pixel or 1)
    power = 10.0 ** math.floor(math.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    return length / (pixel or 1), f"{length:g} {'µm' if pixel else 'px'}"


def frame(axis: Axes, corner: tuple[int, int], size: tuple[int, int], colour: str, linewidth: float = 2, **look
          ) -> None:
    """Draw a frame around `size` (height, width) pixels at `corner` (y, x)."""
    inset = linewidth / 2  # of about a pixel's width: at the image's edge the whole line is visible
    axis.add_patch(Rectangle((corner[1] - 0.5 + inset, corner[0] - 0.5 + inset), size[1] - 2 * inset,
                             size[0] - 2 * inset, fill=False, edgecolor=colour, linewidth=linewidth, **look))


def middle(array: np.ndarray, side: int = 256) -> np.ndarray:
    """The middle of (H, W[, C]), at most `side` pixels wide: small enough to see single cells."""
    y, x = (max((full - side) // 2, 0) for full in array.shape[:2])
    return array[y:y + side, x:x + side]


def colour_bar(figure: Figure, artist: AxesImage, axes: Sequence[Axes], label: str, where: str = "right") -> None:
    """Add the colour bar of an image beside the axes, or at their 'bottom': what values mean; colours have none."""
    if artist.get_array().ndim == 3:
        return
    bar = figure.colorbar(artist, ax=list(np.ravel(axes)), location=where, shrink=0.8, aspect=25, pad=0.01,
                          panchor=False)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def faded(image: np.ndarray) -> np.ndarray:
    """Float (H, W, 3) in 0..1 of uint8 (H, W[, 3]): light and flat and gray, so that colours on it stand out."""
    image = image if image.ndim == 2 else image.mean(axis=2)
    return np.repeat(image[..., np.newaxis] / 255.0, 3, axis=2) * 0.6 + 0.3


def message(text: str) -> Figure:
    """A picture that says in words why there is nothing to see."""
    figure = Figure(figsize=(8, 0.8), dpi=DPI)
    figure.add_axes((0, 0, 1, 1)).axis("off")  # a notebook shows no figure without axes
    figure.text(0.01, 0.5, textwrap.fill(text, 96), va="center", fontsize=10)
    return figure


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a figure as .png or .jpg, as the ending says; all or nothing."""
    look = {"pil_kwargs": {"quality": 75, "optimize": True}} if path.suffix == ".jpg" else {}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, **look)


def draw_curve(history: list[dict]) -> Figure:
    """Loss and learning rate over the steps of a run; `history` is a list of rows as in history.csv."""
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    steps = [row["step"] for row in history]
    axis.plot(steps, [row["loss"] for row in history], color=BLUE, marker=".", label="training loss")
    if "val_loss" in history[0]:
        axis.plot(steps, [row["val_loss"] for row in history], color=ORANGE, marker="s", markersize=4,
                  label="loss on the validation block, of slices that train nothing")
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
