"""Pictures of what goes into the network: images and labels, each augmentation by itself, tiles, weight maps.

Each function takes uint8 arrays, an image (H, W), or (H, W, 3) in colours, and its label: (H, W) with 0 = membrane, or
(H, W, 3) where nuclei or classes have a colour each. It returns a figure. Where both are shown, the label lies below
the image and was moved by the same draw.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from augmentation import (
    CORNERS,
    FLIPS,
    brightness,
    crop,
    crop_corner,
    elastic_field,
    flip,
    gaussian_noise,
    symmetric_pad,
    uniform_noise,
    warp,
)
from preprocessing import BORDER_SIGMA, BORDER_W0, balance_weights, border_weights, normalise
from unet.report.pictures import BLUE, ORANGE, PURPLE, SKY, VERMILION, YELLOW, colour_bar, panels, show
from utils import OverlapTile

ELASTIC = ((2.0, 48.0), (5.0, 36.0), (8.0, 24.0))  # (alpha, sigma), pixels: gentle, strong, beyond what training draws
LABEL = {2: "label: black = membrane", 3: "label, in colours"}  # by the axes of its array


def show_pairs(columns: list[tuple[str, np.ndarray, np.ndarray]], caption: str) -> tuple[Figure, np.ndarray]:
    """A column for each (title, image, label): the image above, its label below; also gives the axes (2, columns)."""
    figure, axes = panels(2, len(columns), caption)
    drawn = []
    for (above, below), (title, image, label) in zip(axes.T, columns, strict=True):
        drawn.append(show(above, image, title))
        show(below, label)
    axes[1, 0].set_ylabel(LABEL[label.ndim], fontsize=8)
    axes[0, 0].set_ylabel("image", fontsize=8)
    colour_bar(figure, min(drawn, key=lambda one: one.get_array().ndim), axes[0], "grey level")  # of a gray one
    return figure, axes


def middle(array: np.ndarray, side: int = 256) -> np.ndarray:
    """The middle of (H, W), at most `side` pixels wide: small enough to see single cells."""
    corner = tuple(max((full - side) // 2, 0) for full in array.shape[:2])
    return crop(array, corner, (side, side))


def show_flips(image: np.ndarray, label: np.ndarray) -> Figure:
    """The image and its label as they are and flipped in three ways."""
    return show_pairs([("as it is" if how == "none" else f"flip: {how}", flip(image, how), flip(label, how))
                       for how in FLIPS],
                      "Flips: image and label are mirrored together. Cells have no up or down, so each flip is as good "
                      "a sample as the original.")[0]


def show_noise(image: np.ndarray, rng: np.random.Generator) -> Figure:
    """Gaussian noise (first row) and uniform noise (second row) of 10, 50 and 100 grey levels."""
    figure, axes = panels(2, 4, "Noise changes the image alone; the label stays. Above Gaussian noise by its standard "
                                "deviation, below uniform noise by its largest change. Training draws the gentle end: "
                                "at 100 grey levels all that is fine drowns.")
    for row, (name, add) in zip(axes, (("Gaussian, sd", gaussian_noise), ("uniform, +-", uniform_noise)), strict=True):
        grey = show(row[0], image, "as it is")
        for axis, strength in zip(row[1:], (10, 50, 100), strict=True):
            show(axis, add(image, strength, rng), f"{name} {strength}")
    colour_bar(figure, grey, axes, "grey level")
    return figure


def show_brightness(image: np.ndarray) -> Figure:
    """The image made 10, 20 and 30 grey levels brighter."""
    figure, axes = panels(1, 4, "Brightness: every pixel moves by the same number of grey levels and stops at white. "
                                "The label stays.")
    for axis, shift in zip(axes[0], (0, 10, 20, 30), strict=True):
        grey = show(axis, brightness(image, shift), f"+{shift}, mean {brightness(image, shift).mean():.0f}"
                    if shift else f"as it is, mean {image.mean():.0f}")
    colour_bar(figure, grey, axes, "grey level")
    return figure


def show_elastic(image: np.ndarray, label: np.ndarray, rng: np.random.Generator, spacing: int = 32) -> Figure:
    """Three elastic deformations, one field each for image, label and a grid with lines `spacing` pixels apart."""
    shape = image.shape[:2]
    columns, fields = [("as it is", image, label)], [np.zeros((2, *shape), np.float32)]
    for alpha, sigma in ELASTIC:
        field = elastic_field(shape, alpha, sigma, rng)
        columns.append((f"alpha {alpha:g} px, sigma {sigma:g} px", warp(image, field), warp(label, field, order=0)))
        fields.append(field)
    figure, axes = show_pairs(columns, "Elastic deformation, as if the image were rubber: alpha says how far, sigma "
                              "how smoothly. The red grid was straight before; it bends alike in image and label, "
                              "which were moved by one and the same field. The last is stronger than what training "
                              "draws.")
    for column, field in zip(axes.T, fields, strict=True):
        for axis in column:
            for place in field + np.indices(shape):  # where each pixel was taken from: y, then x
                axis.contour(place, np.arange(spacing / 2, max(shape), spacing), colors=VERMILION, linewidths=1)
    return figure


def show_crops(image: np.ndarray, label: np.ndarray, share: float = 0.6) -> Figure:
    """The four crops at the corners, `share` of the image's side, and where in the image they were cut."""
    size = tuple(max(1, round(side * share)) for side in image.shape[:2])
    corners = [crop_corner(image.shape[:2], size, where) for where in CORNERS]
    figure, axes = show_pairs([("as it is", image, label), *(
        (where, crop(image, corner, size), crop(label, corner, size))
        for where, corner in zip(CORNERS, corners, strict=True))],
        "Crops: the frames in the first column show where each was cut. Image and label are cut at the same place.")
    for number, (corner, colour) in enumerate(zip(corners, (ORANGE, SKY, VERMILION, PURPLE), strict=True), 1):
        for row in axes:
            inset = 3 * number  # or the frames would hide each other where they share a side
            frame(row[0], (corner[0] + inset, corner[1] + inset), tuple(side - 2 * inset for side in size), colour)
            for side in row[number].spines.values():
                side.set(color=colour, linewidth=3)
    return figure


def show_pads(image: np.ndarray, label: np.ndarray, share: float = 0.6) -> Figure:
    """The four symmetric pads: crops at the corners, filled up with their mirror image; a yellow frame around each."""
    size = tuple(max(1, round(side * share)) for side in image.shape[:2])
    columns, corners = [], [crop_corner(image.shape[:2], size, where) for where in CORNERS]
    for where, corner in zip(CORNERS, corners, strict=True):
        columns.append((where, *(symmetric_pad(crop(array, corner, size), image.shape[:2], corner)
                                 for array in (image, label))))
    figure, axes = show_pairs(columns, "Symmetric pads bring a crop back to full size: the yellow frame is the "
                              "original area, all outside is its mirror image. Lines cross the frame without a jump.")
    for column, corner in zip(axes.T, corners, strict=True):
        for axis in column:
            frame(axis, corner, size, YELLOW)
    return figure


def show_tiles(image: np.ndarray, label: np.ndarray, core: int, margin: int) -> Figure:
    """Overlap tiles over a slice that is mirrored all around, and one of them as the network gets it, its label too."""
    tiles = OverlapTile(image.shape, core, margin)
    rows, columns = tiles.grid
    # a single tile as large as the whole grid is the slice with its mirrored surroundings
    around = OverlapTile(image.shape, core * max(rows, columns), margin).cut(image)[0]
    around = around[:rows * core + 2 * margin, :columns * core + 2 * margin]
    figure, axes = panels(1, 3, f"Overlap tiles: each answers for its core of {core} pixels (blue) and sees a margin "
                          f"of {margin} pixels around it (orange), mirrored where the slice (white frame) ends. The "
                          "cores lie edge to edge, so their predictions are stitched without a gap.", size=3.4)
    grey = show(axes[0, 0], around, f"{rows} x {columns} tiles")
    frame(axes[0, 0], (margin, margin), image.shape, "white", linewidth=1.5)
    for y, x in tiles.corners():
        frame(axes[0, 0], (y + margin, x + margin), (core, core), BLUE, linewidth=1)
    chosen = len(tiles) - 1 if len(tiles) < 9 else columns + 1  # with the mirror image, or in the inside
    corner = tiles.corners()[chosen]
    _two_colours(axes[0, 0], corner, core, margin)
    for axis, array, title in ((axes[0, 1], normalise(image), "this tile: grey levels normalised"),
                               (axes[0, 2], label, f"its {LABEL[label.ndim]}")):
        show(axis, tiles.cut(array, [chosen])[0], title)
        _two_colours(axis, (0, 0), core, margin)
    colour_bar(figure, grey, axes, "grey level")
    return figure


def show_weights(label: np.ndarray, share: float) -> Figure:
    """The two parts of the weight map: classes in balance, and narrow gaps; `share` is the cells' of all pixels."""
    figure, axes = panels(1, 3, f"Weights of the loss (--weights): balance makes membrane and cell count the same in "
                          f"all, border adds up to {BORDER_W0:g} where two cells lie close (sigma {BORDER_SIGMA:g} "
                          "pixels). The narrowest walls should be brightest.", size=3.4)
    show(axes[0, 0], label, "label: black = membrane")
    for axis, weights, title in ((axes[0, 1], balance_weights(label, share), "balance"),
                                 (axes[0, 2], border_weights(label), "border, added to it")):
        drawn = show(axis, weights, title, cmap="cividis", vmax=weights.max())
        colour_bar(figure, drawn, [axis], "weight")
    return figure


def frame(axis: Axes, corner: tuple[int, int], size: tuple[int, int], colour: str, linewidth: float = 2) -> None:
    """A frame around `size` (height, width) pixels at `corner` (y, x)."""
    inset = linewidth / 2  # of about a pixel's width: at the image's edge the whole line is seen
    axis.add_patch(Rectangle((corner[1] - 0.5 + inset, corner[0] - 0.5 + inset), size[1] - 2 * inset,
                             size[0] - 2 * inset, fill=False, edgecolor=colour, linewidth=linewidth))


def _two_colours(axis: Axes, corner: tuple[int, int], core: int, margin: int) -> None:
    """Tint a tile whose upper left pixel is at `corner` (y, x): its core blue, its margin orange."""
    tile = core + 2 * margin
    strips = ((0, 0, margin, tile), (margin + core, 0, margin, tile), (margin, 0, core, margin),
              (margin, margin + core, core, margin))
    for (y, x, height, width), colour in [*((strip, ORANGE) for strip in strips), ((margin, margin, core, core), BLUE)]:
        axis.add_patch(Rectangle((corner[1] + x - 0.5, corner[0] + y - 0.5), width, height, color=colour, alpha=0.25,
                                 linewidth=0))
    frame(axis, corner, (tile, tile), ORANGE)
    frame(axis, (corner[0] + margin, corner[1] + margin), (core, core), BLUE)
