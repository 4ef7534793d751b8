"""Pictures of augmentation: each operation by itself, in the ranges that a run draws from, and what it really drew.

Images are uint8 (H, W) or (H, W, 3), as the network sees them; labels as they are shown. Each function returns a
figure. Where both are shown, the label lies below the image and was moved by the same draw.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

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
from unet.report.base import Pictures, plain
from unet.report.colours import coloured_classes
from unet.report.pictures import GREEN, ORANGE, PURPLE, SKY, YELLOW, Panel, frame, grid
from unet.tasks.task import Options

if TYPE_CHECKING:
    from unet.report.run import Run

GREY = "grey level, as the network sees it"
STRONGER = "\nstronger than this run draws"
TIMES = 8  # how much stronger


def _pairs(columns: Sequence[tuple[str, np.ndarray, np.ndarray]], caption: str, size: float = 2.4
           ) -> tuple[Figure, np.ndarray]:
    """A column for each (title, image, label): the image above, its label below; also gives the axes (2, columns)."""
    return grid([[Panel(image, title, GREY), Panel(label)] for title, image, label in columns], caption, size,
                ("image", "label"))


def show_flips(image: np.ndarray, label: np.ndarray) -> Figure:
    """The image and its label as they are and flipped in three ways."""
    return _pairs([("as it is" if how == "none" else f"flip: {how}", flip(image, how), flip(label, how))
                   for how in FLIPS],
                  "Flips: image and label are mirrored together. Cells have no up or down, so each flip is as good a "
                  "sample as the original. Each of the four is as likely.")[0]


def show_noise(image: np.ndarray, options: Options, rng: np.random.Generator) -> Figure:
    """Gaussian noise (first row) and uniform noise (second row): the least and the most that is drawn, and stronger."""
    rows = []
    for name, add, ends in (("sd", gaussian_noise, options.gaussian_sd),
                            ("+-", uniform_noise, options.uniform_intensity)):
        strengths = [(strength, "") for strength in ends] + [(TIMES * ends[1], STRONGER)]
        rows.append([Panel(image, "as it is", GREY), *(Panel(add(image, strength, rng), f"{name} {strength:g}{words}")
                                                       for strength, words in strengths)])
    return grid(rows, "Noise changes the image alone; the label stays. Above Gaussian noise by its standard deviation, "
                f"below uniform noise by its largest change, in grey levels. One copy in "
                f"{1 / options.noise_probability:g} gets one of them, of a strength between the second picture and the "
                "third.", 2.6)[0]


def show_brightness(image: np.ndarray, options: Options) -> Figure:
    """The image as dark and as bright as is drawn, and brighter."""
    most = options.brightness
    shifts = [(0, ""), (-most, ""), (most, ""), (3 * most, STRONGER)]
    return grid([[Panel(brightness(image, shift), (f"{shift:+g} grey levels" if shift else "as it is") + words, GREY)
                  for shift, words in shifts]],
                f"Brightness: every pixel moves by the same number of grey levels, {-most:g} to {most:+g}, and stops "
                "at black and white. The label stays.", 2.6)[0]


def show_elastic(image: np.ndarray, label: np.ndarray, options: Options, rng: np.random.Generator, spacing: int = 32
                 ) -> Figure:
    """Three elastic deformations, one field each for image, label and a grid with lines `spacing` pixels apart."""
    (gentle, strong), (fine, smooth) = options.elastic_alpha, options.elastic_sigma
    columns, fields = [("as it is", image, label)], [np.zeros((2, *image.shape[:2]), np.float32)]
    for alpha, sigma, words in ((gentle, smooth, ""), (strong, fine, ""), (2 * strong, fine, STRONGER)):
        field = elastic_field(image.shape[:2], alpha, sigma, rng)
        columns.append((f"alpha {alpha:g} px, sigma {sigma:g} px{words}", warp(image, field),
                        warp(label, field, order=0)))
        fields.append(field)
    figure, axes = _pairs(columns, "Elastic deformation, as if the image were rubber: alpha says how far, sigma "
                          "how smoothly; drawn are those between the second picture and the third. The blue grid was "
                          "straight before; it bends alike in image and label, which were moved by one field.", 2.6)
    for column, field in zip(axes.T, fields, strict=True):
        for axis in column:
            for place in field + np.indices(image.shape[:2]):  # where each pixel was taken from: y, then x
                axis.contour(place, np.arange(spacing / 2, max(image.shape), spacing), colors=SKY, linewidths=1)
    return figure


def _corner_crops(image: np.ndarray, options: Options) -> tuple[tuple[int, int], list[tuple[int, int]], str]:
    """Size and upper left corners of the smallest crops, and what is drawn of them in words."""
    least, most = options.crop_share
    size = tuple(max(1, round(side * least)) for side in image.shape[:2])
    chance = options.crop_probability
    return size, [crop_corner(image.shape[:2], size, where) for where in CORNERS], (
        f"One copy in {1 / chance:g} is cropped, at a corner or anywhere, to {least:g} (shown) to {most:g} of its "
        "side, and filled up." if chance else "This run draws none.")


def show_crops(image: np.ndarray, label: np.ndarray, options: Options) -> Figure:
    """The four crops at the corners, as small as they are drawn, and where in the image they were cut."""
    size, corners, words = _corner_crops(image, options)
    figure, axes = _pairs([("as it is", image, label), *(
        (where, crop(image, corner, size), crop(label, corner, size))
        for where, corner in zip(CORNERS, corners, strict=True))],
        "Crops: the frames in the first column show where each was cut, in image and label at the same place. " + words)
    for number, (corner, colour) in enumerate(zip(corners, (ORANGE, SKY, GREEN, PURPLE), strict=True), 1):
        for row in axes:
            inset = 3 * number  # or the frames would hide each other where they share a side
            frame(row[0], (corner[0] + inset, corner[1] + inset), tuple(side - 2 * inset for side in size), colour)
            for side in row[number].spines.values():
                side.set(color=colour, linewidth=3)
    return figure


def show_pads(image: np.ndarray, label: np.ndarray, options: Options) -> Figure:
    """The four symmetric pads: crops at the corners, filled up with their mirror image; a yellow frame around each."""
    size, corners, _ = _corner_crops(image, options)
    figure, axes = _pairs([(where, *(symmetric_pad(crop(array, corner, size), image.shape[:2], corner)
                                     for array in (image, label)))
                           for where, corner in zip(CORNERS, corners, strict=True)],
                          "Symmetric pads bring a crop back to full size: the yellow frame is the crop, all outside is "
                          "its mirror image. Lines cross the frame without a jump.", 2.6)
    for column, corner in zip(axes.T, corners, strict=True):
        for axis in column:
            frame(axis, corner, size, YELLOW)
    return figure


# -------------------------------------------------------------------------------------- what was really drawn


def in_words(operation: dict) -> str:
    """An operation of the manifest with what was drawn for it, as 'elastic: alpha 3.1, sigma 40.2'."""
    values = {name: value for name, value in operation.items() if name != "operation"}
    return f"{operation['operation']}: " + ", ".join(
        value if isinstance(value, str) else f"{name} {f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in values.items())


def show_pages(run: Run, pictures: Pictures, numbers: Sequence[int]) -> Figure:
    """Pages of augmented/images.tif as the network sees them, and what the manifest says of each."""
    columns = []
    for number in numbers:
        record, (image, label, levels) = run.manifest["samples"][number], run.page(number)
        lines = [f"page {number}, of {record['name'][:20]}", *map(in_words, record["operations"])]
        columns.append(("\n".join(textwrap.fill(line, 40) for line in lines),
                        plain(run.task.normalise(image, levels)), pictures.label(label)))
    return _pairs(columns, f"Pages of {run.work / 'augmented' / 'images.tif'}, {len(run.pages)} in all, and what was "
                  "drawn for each, in the order in which it was done: angles in degrees, lengths in pixels, shift and "
                  "noise in grey levels as the network sees them.", 2.8)[0]


def show_batch(pictures: Pictures, arrays: Sequence[np.ndarray]) -> Figure:
    """A batch as the network gets it: images (n, side, side, C), labels (n, side, side, 1), weights (n, side, side)."""
    images, labels, *weights = arrays
    classes, rows = pictures.task.classes, []
    for number in range(len(images)):
        grey = plain(np.clip(images[number], 0, 255).astype(np.uint8))
        target = labels[number, ..., 0].astype(np.uint8)
        row = [Panel(grey if grey.ndim == 2 or grey.shape[2] == 3 else grey[..., 0], f"tile {number}", GREY),
               Panel(coloured_classes(target, classes) if classes > 1 else target * np.uint8(255))]
        rows.append(row + [Panel(its[number], "", "weight", {"cmap": "cividis", "vmax": max(its.max(), 1e-6)})
                           for its in weights])
    return grid(rows, "Tiles as training got them in one step: turned, mirrored and varied in grey levels anew; below "
                "each what the network should say" + ", below this the weight of each pixel" * bool(weights) + ".", 2.6,
                ("image", "target", "weight")[:len(rows[0])])[0]

