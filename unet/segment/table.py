"""A table of objects, a row each, for a spreadsheet: where it lies, how large it is, of what shape, how bright."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from skimage.measure import regionprops_table

from utils import atomic_path

# columns in their order, each with the unit that follows its name and scikit-image's name for it
PIXELS = {"area_px": "area", "perimeter_px": "perimeter", "centroid_y_px": "centroid-0", "centroid_x_px": "centroid-1",
          "box_top_px": "bbox-0", "box_left_px": "bbox-1", "box_bottom_px": "bbox-2", "box_right_px": "bbox-3",
          "major_axis_px": "axis_major_length", "minor_axis_px": "axis_minor_length"}
MEASURED = ("label", "area", "perimeter", "centroid", "bbox", "axis_major_length", "axis_minor_length")
PHYSICAL = ("area", "perimeter", "centroid_y", "centroid_x", "major_axis", "minor_axis")


def measure(objects: np.ndarray, image: np.ndarray, pixel_size: tuple[float, float] | None = None, unit: str = "px"
            ) -> dict[str, np.ndarray]:
    """Measure each object of one image: a column an entry, by its name, in the order of rising labels.

    `objects` is integer (H, W), 0 = none; `image` (H, W) or (H, W, C), whose channels' mean is the grey level.
    Lengths are in pixels and, where `pixel_size` (y, x) is known in `unit`, in that, too. Boxes go from top and left
    to just before bottom and right. The perimeter in `unit` is empty where pixels are no squares: it is not known then.
    """
    grey = image if image.ndim == 2 else image.mean(axis=-1, dtype=np.float32)
    measured = regionprops_table(objects, grey, properties=(*MEASURED, "intensity_mean"))
    columns = {"label": measured["label"], **{name: measured[theirs] for name, theirs in PIXELS.items()},
               "mean_grey": measured["intensity_mean"]}
    if pixel_size:
        y, x = pixel_size
        scaled = regionprops_table(objects, spacing=pixel_size,
                                   properties=("area", "centroid", "axis_major_length", "axis_minor_length"))
        perimeter = measured["perimeter"] * (y if np.isclose(y, x, rtol=1e-3) else np.nan)
        values = (scaled["area"], perimeter, scaled["centroid-0"], scaled["centroid-1"],
                  scaled["axis_major_length"], scaled["axis_minor_length"])
        columns |= {f"{name}_{unit}{'2' if name == 'area' else ''}": value
                    for name, value in zip(PHYSICAL, values, strict=True)}
    return columns


@contextmanager
def table_writer(path: Path, pixel_size: tuple[float, float] | None = None, unit: str = "px"
                 ) -> Iterator[Callable[[int, str, np.ndarray, np.ndarray], None]]:
    """Yield `write(number, name, objects, image)`, which adds the rows of one image to a CSV file; all or nothing.

    Columns are the image's number from 0 and its name, then those of `measure`. Only the image at hand is in memory.
    """
    blank = np.zeros((1, 1), np.uint8)
    names = list(measure(blank, blank, pixel_size, unit))
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["slice", "name", *names])

        def write(number: int, name: str, objects: np.ndarray, image: np.ndarray) -> None:
            columns = measure(objects, image, pixel_size, unit)
            for row in zip(*columns.values(), strict=True):
                lines.writerow([number, name, *(_text(value) for value in row)])

        yield write


def _text(value: np.number) -> str:
    """A whole number as it is, another to six digits, one that is not known as nothing."""
    if np.issubdtype(type(value), np.integer):
        return str(value)
    return "" if np.isnan(value) else f"{value:.6g}"
