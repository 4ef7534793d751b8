"""COCO's JSON of annotated objects, as many web tools for labelling write it, to numbered label images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from skimage.draw import polygon

from utils import UserError

SIDE = 2**15  # of an image at most, pixels: a mistyped size must not fill the memory


def read_coco(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield for each image its name, without folder and ending, and uint16 (H, W): a number an object, 0 = none.

    Where objects overlap the smaller one is seen. Polygons and plain run lengths are read; crowds are left out.
    Raises UserError for anything else.
    """
    try:
        content = json.loads(path.read_text())
        images = {image["id"]: (Path(image["file_name"]).stem, (int(image["height"]), int(image["width"])))
                  for image in content["images"]}
        annotations: dict[int, list] = {number: [] for number in images}
        for one in content["annotations"]:
            if not one.get("iscrowd"):
                annotations[one["image_id"]].append(one["segmentation"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{path} cannot be read as COCO's JSON ({str(error)[:80]}); expected images, annotations and "
                        "their segmentations") from None
    for number, (name, shape) in sorted(images.items(), key=lambda item: item[1][0]):
        if not all(0 < side <= SIDE for side in shape):
            raise UserError(f"{path}: image {name} is {shape[0]}x{shape[1]} pixels, expected 1 to {SIDE} a side")
        try:
            places = [_filled(one, shape) for one in annotations[number]]
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise UserError(f"{path}: an object of image {name} cannot be read ({str(error)[:80]}); export polygons"
                            ) from None
        label = np.zeros(shape, np.uint16)
        for count, place in enumerate(sorted(places, key=np.count_nonzero, reverse=True), 1):
            label[place] = count
        yield name, label


def _filled(segmentation: list | dict, shape: tuple[int, int]) -> np.ndarray:
    """The pixels of an object, bool (H, W)."""
    inside = np.zeros(shape, bool)
    if isinstance(segmentation, list):
        for points in segmentation:
            x, y = np.array(points, float).reshape(-1, 2).T - 0.5  # counted from the corner of the first pixel
            inside[polygon(y, x, shape)] = True
        return inside
    if isinstance(segmentation["counts"], str):
        raise ValueError("its run lengths are compressed")
    counts = np.array(segmentation["counts"], int)  # of 0 and 1 in turn, column by column
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(shape[::-1]).T
