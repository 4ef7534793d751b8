"""Read COCO's JSON of annotated objects, which many labelling tools on the web write, as numbered label images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from skimage.draw import polygon

from utils import UserError

LONGEST_SIDE = 2**15  # of an image, pixels: a mistyped size must not fill the memory


def read_coco(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield for each image its name, without folder and ending, and uint16 (H, W): a number per object, 0 = none.

    Where objects overlap, a pixel goes to the smaller one. Reads polygons and uncompressed run lengths, leaves out
    crowds (annotations of many objects at once), and raises UserError for anything else.
    """
    try:
        content = json.loads(path.read_text())
        images = {image["id"]: (Path(image["file_name"]).stem, (int(image["height"]), int(image["width"])))
                  for image in content["images"]}
        annotations: dict[int, list] = {number: [] for number in images}
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd"):
                annotations[annotation["image_id"]].append(annotation["segmentation"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{path} cannot be read as COCO's JSON ({str(error)[:80]}); expected images, annotations and "
                        "their segmentations") from None
    for number, (name, shape) in sorted(images.items(), key=lambda item: item[1][0]):
        if not all(0 < side <= LONGEST_SIDE for side in shape):
            raise UserError(f"{path}: image {name} is {shape[0]}x{shape[1]} pixels, expected 1 to "
                            f"{LONGEST_SIDE} per side")
        try:
            masks = [_mask_of(segmentation, shape) for segmentation in annotations[number]]
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise UserError(f"{path}: an object of image {name} cannot be read ({str(error)[:80]}); export polygons"
                            ) from None
        label = np.zeros(shape, np.uint16)
        for count, mask in enumerate(sorted(masks, key=np.count_nonzero, reverse=True), 1):
            label[mask] = count
        yield name, label


def _mask_of(segmentation: list | dict, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels of an object, bool (H, W)."""
    if isinstance(segmentation, list):
        mask = np.zeros(shape, bool)
        for points in segmentation:
            x, y = np.array(points, float).reshape(-1, 2).T - 0.5  # COCO counts from the corner of the first pixel
            mask[polygon(y, x, shape)] = True
        return mask
    if isinstance(segmentation["counts"], str):
        raise ValueError("its run lengths are compressed")
    counts = np.array(segmentation["counts"], int)  # lengths of runs of 0 and 1 in turn, column by column
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(shape[::-1]).T
