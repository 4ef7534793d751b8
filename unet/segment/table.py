"""A table for a spreadsheet with a row for each object: its place, size, shape and brightness."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from skimage.measure import regionprops_table

from utils import atomic_path

# columns in their order, their names ending in the unit, with scikit-image's names
BLOCK_PIXELS = 2**25  # of a very large image, whose objects are measured at once
TABLE_START = "slice,name,label"  # how the first line of a table begins
PIXELS = {"area_px": "area", "perimeter_px": "perimeter", "centroid_y_px": "centroid-0", "centroid_x_px": "centroid-1",
          "box_top_px": "bbox-0", "box_left_px": "bbox-1", "box_bottom_px": "bbox-2", "box_right_px": "bbox-3",
          "major_axis_px": "axis_major_length", "minor_axis_px": "axis_minor_length"}
PROPERTIES = ("label", "area", "perimeter", "centroid", "bbox", "axis_major_length", "axis_minor_length")
PHYSICAL = ("area", "perimeter", "centroid_y", "centroid_x", "major_axis", "minor_axis")


def measure(objects: np.ndarray, image: np.ndarray, pixel_size: tuple[float, float] | None = None, unit: str = "px"
            ) -> dict[str, np.ndarray]:
    """Measure each object of one image; returns columns by name, their rows in the order of rising labels.

    `objects` is integer (H, W), 0 = none; `image` is (H, W) or (H, W, C), whose mean over the channels is the grey
    level. Lengths are in pixels and, if `pixel_size` (y, x) is known in `unit`, in that unit, too. Boxes go from top
    and left to just before bottom and right. The perimeter in `unit` is nan if pixels are not square: it is not known.
    """
    grey = image if image.ndim == 2 else image.mean(axis=-1, dtype=np.float32)
    values = regionprops_table(objects, grey, properties=(*PROPERTIES, "intensity_mean"))
    columns = {"label": values["label"], **{name: values[key] for name, key in PIXELS.items()},
               "mean_grey": values["intensity_mean"]}
    if pixel_size:
        y, x = pixel_size
        physical = regionprops_table(objects, spacing=pixel_size,
                                     properties=("area", "centroid", "axis_major_length", "axis_minor_length"))
        perimeter = values["perimeter"] * (y if np.isclose(y, x, rtol=1e-3) else np.nan)
        in_unit = (physical["area"], perimeter, physical["centroid-0"], physical["centroid-1"],
                   physical["axis_major_length"], physical["axis_minor_length"])
        columns |= {f"{name}_{unit}{'2' if name == 'area' else ''}": value
                    for name, value in zip(PHYSICAL, in_unit, strict=True)}
    return columns


def measure_by_rows(objects: np.ndarray, image: np.ndarray, pixel_size: tuple[float, float] | None = None,
                    unit: str = "px", height: int | None = None) -> dict[str, np.ndarray]:
    """Measure as `measure` does; of an image of more than `height` rows, only some rows are in memory at a time.

    Those are the rows of the objects that begin in the same `height` rows (default: as many as have `BLOCK_PIXELS`).
    `objects` and `image` need be no arrays, if their rows can be sliced.
    """
    height = height or max(1, BLOCK_PIXELS // objects.shape[1])
    if len(objects) <= height:
        return measure(np.asarray(objects), np.asarray(image), pixel_size, unit)
    first, last = {}, {}  # rows of each object, in whole blocks
    for start in range(0, len(objects), height):
        for number in np.unique(objects[start:start + height]).tolist():
            first.setdefault(number, start)
            last[number] = min(start + height, len(objects))
    first.pop(0, None)
    blank = np.zeros((1, 1), np.uint8)
    parts = [measure(blank, blank, pixel_size, unit)]  # no rows, if there is no object
    for start in sorted(set(first.values())):
        numbers = [number for number, row in first.items() if row == start]
        end = max(last[number] for number in numbers)
        rows = objects[start:end]
        columns = measure(np.where(np.isin(rows, numbers), rows, 0), image[start:end], pixel_size, unit)
        for name in ("centroid_y_px", "box_top_px", "box_bottom_px"):
            columns[name] = columns[name] + start
        if pixel_size:
            columns[f"centroid_y_{unit}"] = columns[f"centroid_y_{unit}"] + start * pixel_size[0]
        parts.append(columns)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["label"])
    return {name: values[order] for name, values in columns.items()}


@contextmanager
def table_writer(path: Path, pixel_size: tuple[float, float] | None = None, unit: str = "px"
                 ) -> Iterator[Callable[[int, str, np.ndarray, np.ndarray], None]]:
    """Yield `write(number, name, objects, image)`, which adds one image's rows to a CSV file; writes all or nothing.

    The columns are the image's number from 0 and its name, then those of `measure`. Only one image is in memory, or a
    part of it, see `measure_by_rows`.
    """
    blank = np.zeros((1, 1), np.uint8)
    names = list(measure(blank, blank, pixel_size, unit))
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["slice", "name", *names])

        def write(number: int, name: str, objects: np.ndarray, image: np.ndarray) -> None:
            columns = measure_by_rows(objects, image, pixel_size, unit)
            for row in zip(*columns.values(), strict=True):
                rows.writerow([number, name, *(_text(value) for value in row)])

        yield write


def _text(value: np.number) -> str:
    """Format a whole number as it is, any other with six digits, and nan as an empty text."""
    if np.issubdtype(type(value), np.integer):
        return str(value)
    return "" if np.isnan(value) else f"{value:.6g}"
