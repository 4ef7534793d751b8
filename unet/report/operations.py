"""Pictures of augmentation: each operation by itself, in the ranges of a run, and the run's augmented pages.

Images are uint8 (H, W) or (H, W, 3), as the network sees them; labels are as they are shown. Each `show_...` returns a
figure. A label is below its image, and the same random numbers were used for both.
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
from unet.report.base import Pictures, weight_panel
from unet.report.colours import squeeze_grey
from unet.report.pictures import GREEN, ORANGE, PURPLE, SKY, YELLOW, Panel, frame, grid
from unet.tasks.task import Options

if TYPE_CHECKING:
    from unet.report.run import Run

NETWORK_GREY = "grey level, as the network sees it"
STRONGER = "\nstronger than in this run"
TIMES = 8  # how many times stronger the noise is
SPACING = 32  # between the lines of the grid that shows elastic deformation, pixels


def _pairs(columns: Sequence[tuple[str, np.ndarray, np.ndarray]], caption: str, size: float = 2.4
           ) -> tuple[Figure, np.ndarray]:
    """Draw a column for each (title, image, label), the image above; return the figure and its axes (2, columns)."""
    return grid([[Panel(image, title, NETWORK_GREY), Panel(label)] for title, image, label in columns], caption, size,
                ("image", "label"))


def show_flips(image: np.ndarray, label: np.ndarray) -> Figure:
    """Draw the image and its label, unchanged and flipped in three ways."""
    return _pairs([("original" if how == "none" else f"flip: {how}", flip(image, how), flip(label, how))
                   for how in FLIPS],
                  "Flips: image and label are mirrored together. Cells have no up or down, so each flip is as good a "
                  "sample as the original. All four are equally likely.")[0]


def show_noise(image: np.ndarray, options: Options, rng: np.random.Generator) -> Figure:
    """Draw Gaussian noise (first row) and uniform noise (second row): the run's least and most, and stronger."""
    rows = []
    for name, add, ends in (("sd", gaussian_noise, options.gaussian_sd),
                            ("+-", uniform_noise, options.uniform_intensity)):
        strengths = [(strength, "") for strength in ends] + [(TIMES * ends[1], STRONGER)]
        rows.append([Panel(image, "original", NETWORK_GREY), *(
            Panel(add(image, strength, rng), f"{name} {strength:g}{note}") for strength, note in strengths)])
    return grid(rows, "Noise changes only the image; the label stays. Above: Gaussian noise with its standard "
                "deviation (sd); below: uniform noise with its largest change (+-), both in grey levels. One copy in "
                f"{1 / options.noise_probability:g} gets one of the two, with a strength between those of the second "
                "and the third picture.", 2.6)[0]


def show_brightness(image: np.ndarray, options: Options) -> Figure:
    """Draw the image as dark and as bright as the run makes it, and brighter."""
    most = options.brightness
    shifts = [(0, ""), (-most, ""), (most, ""), (3 * most, STRONGER)]
    titles = [(f"{shift:+g} grey levels" if shift else "original") + note for shift, note in shifts]
    return grid([[Panel(brightness(image, shift), title, NETWORK_GREY)
                  for (shift, _), title in zip(shifts, titles, strict=True)]],
                f"Brightness: the same number of grey levels, {-most:g} to {most:+g}, is added to every pixel; values "
                "stop at black and white. The label stays.", 2.6)[0]


def show_elastic(image: np.ndarray, label: np.ndarray, options: Options, rng: np.random.Generator) -> Figure:
    """Draw three elastic deformations of image and label, with a grid of lines that were straight before."""
    (gentle, strong), (fine, smooth) = options.elastic_alpha, options.elastic_sigma
    columns, fields = [("original", image, label)], [np.zeros((2, *image.shape[:2]), np.float32)]
    for alpha, sigma, note in ((gentle, smooth, ""), (strong, fine, ""), (2 * strong, fine, STRONGER)):
        field = elastic_field(image.shape[:2], alpha, sigma, rng)
        columns.append((f"alpha {alpha:g} px, sigma {sigma:g} px{note}", warp(image, field),
                        warp(label, field, order=0)))
        fields.append(field)
    figure, axes = _pairs(columns, "Elastic deformation, as if the image were rubber: alpha says how far pixels move, "
                          "sigma how smoothly. Copies get strengths between those of the second and the third picture. "
                          "The blue grid was straight before; it bends in the same way in image and label, which were "
                          "deformed by the same field.", 2.6)
    for column, field in zip(axes.T, fields, strict=True):
        for axis in column:
            for place in field + np.indices(image.shape[:2]):  # the place that each pixel comes from: y, then x
                axis.contour(place, np.arange(SPACING / 2, max(image.shape), SPACING), colors=SKY, linewidths=1)
    return figure


def _corner_crops(image: np.ndarray, options: Options) -> tuple[tuple[int, int], list[tuple[int, int]], str]:
    """Return the size and the upper left corners of the smallest crops, and a text about the run's crops."""
    least, most = options.crop_share
    size = tuple(max(1, round(side * least)) for side in image.shape[:2])
    chance = options.crop_probability
    return size, [crop_corner(image.shape[:2], size, where) for where in CORNERS], (
        f"One copy in {1 / chance:g} is cropped, at a corner or anywhere, to {least:g} (shown) to {most:g} of its "
        "side, and padded to full size." if chance else "This run makes no crops.")


def show_crops(image: np.ndarray, label: np.ndarray, options: Options) -> Figure:
    """Draw the smallest crops at the four corners, and frames where they were cut."""
    size, corners, text = _corner_crops(image, options)
    figure, axes = _pairs([("original", image, label), *(
        (where, crop(image, corner, size), crop(label, corner, size))
        for where, corner in zip(CORNERS, corners, strict=True))],
        "Crops: the frames in the first column show where each was cut, at the same place in image and label; they "
        "are drawn a few pixels smaller, so that none hides another. " + text)
    for number, (corner, colour) in enumerate(zip(corners, (ORANGE, SKY, GREEN, PURPLE), strict=True), 1):
        for row in axes:
            inset = 3 * number  # otherwise frames that share a side would hide each other
            frame(row[0], (corner[0] + inset, corner[1] + inset), tuple(side - 2 * inset for side in size), colour)
            for side in row[number].spines.values():
                side.set(color=colour, linewidth=3)
    return figure


def show_pads(image: np.ndarray, label: np.ndarray, options: Options) -> Figure:
    """Draw the four symmetric pads: crops at the corners (yellow frames), padded with their mirror image."""
    size, corners, _ = _corner_crops(image, options)
    figure, axes = _pairs([(where, *(symmetric_pad(crop(array, corner, size), image.shape[:2], corner)
                                     for array in (image, label)))
                           for where, corner in zip(CORNERS, corners, strict=True)],
                          "Symmetric pads bring a crop back to full size: inside the yellow frame is the crop, outside "
                          "is its mirror image. Lines cross the frame without a jump.", 2.6)
    for column, corner in zip(axes.T, corners, strict=True):
        for axis in column:
            frame(axis, corner, size, YELLOW)
    return figure


# -------------------------------------------------------------------------------------- the run's own samples


def describe_operation(operation: dict) -> str:
    """Return an operation of the manifest with its random values, as 'elastic: alpha 3.1, sigma 40.2'."""
    values = {name: value for name, value in operation.items() if name != "operation"}
    return f"{operation['operation']}: " + ", ".join(
        value if isinstance(value, str) else f"{name} {f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in values.items())


def show_pages(run: Run, pictures: Pictures, numbers: Sequence[int]) -> Figure:
    """Draw pages of augmented/images.tif as the network sees them, with the operations that the manifest names."""
    columns = []
    for number in numbers:
        record, (image, label, levels) = run.manifest["samples"][number], run.page(number)
        lines = [f"page {number}, of {record['name'][:20]}", *map(describe_operation, record["operations"])]
        columns.append(("\n".join(textwrap.fill(line, 36) for line in lines),
                        squeeze_grey(run.task.normalise(image, levels)), pictures.label_picture(label)))
    return _pairs(columns, f"Pages of {run.work / 'augmented' / 'images.tif'}, {len(run.pages)} in all, and the random "
                  "changes of each, in their order: angles in degrees, lengths in pixels, shift and noise in grey "
                  "levels as the network sees them.", 2.8)[0]


def show_batch(pictures: Pictures, arrays: Sequence[np.ndarray]) -> Figure:
    """Draw a batch for the network: images (n, side, side, C), labels (n, side, side, 1), weights (n, side, side)."""
    images, labels, *weights = arrays
    rows = []
    for number in range(len(images)):
        image = squeeze_grey(np.clip(images[number], 0, 255).astype(np.uint8))
        target = labels[number, ..., 0].astype(np.uint8)
        row = [Panel(image, f"tile {number}", NETWORK_GREY), Panel(pictures.target_picture(target))]
        rows.append(row + [weight_panel(part[number], part.max()) for part in weights])
    return grid(rows, "Tiles of one training step, turned, mirrored and varied in grey levels at random; below each "
                "its target" + ", and the weight of each pixel" * bool(weights) + ".", 2.6,
                ("image", "target", "weight")[:len(rows[0])])[0]

