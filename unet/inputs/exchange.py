"""Import labels from other programs and export them: ROI sets, COCO's JSON, numbered masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_opening, distance_transform_edt
from skimage.morphology import disk

from unet.inputs.coco import read_coco
from unet.inputs.folders import image_files
from unet.inputs.lazy import one_channel
from unet.inputs.rois import read_rois, write_rois
from unet.inputs.stacks import require_ours, write_stack
from unet.inputs.tiffs import TiffPages
from unet.inputs.two_folders import read_label
from utils import UserError

OUTLINE = 3  # usual width of a membrane between cells that were drawn as areas, pixels


def with_outlines(numbers: np.ndarray, width: int) -> np.ndarray:
    """Return labels uint8 (H, W), 0 = membrane and 255 = cell, of numbered cells (H, W), 0 = none.

    The membrane between two cells becomes `width` pixels wide, one more if `width` is even; a wider one stays.
    """
    line = numbers == 0
    line[:-1] |= (numbers[:-1] != numbers[1:]) & (numbers[:-1] > 0) & (numbers[1:] > 0)
    line[:, :-1] |= (numbers[:, :-1] != numbers[:, 1:]) & (numbers[:, :-1] > 0) & (numbers[:, 1:] > 0)
    narrow = line & ~binary_opening(line, disk(width // 2)) if width > 1 else line
    wide_line = distance_transform_edt(~narrow) <= width // 2 if narrow.any() else narrow
    return np.where(line | wide_line, 0, 255).astype(np.uint8)


def numbered_labels(path: Path, like: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the numbers, uint16 (H, W), of each slice or image in another program's labels.

    `path` is a RoiSet.zip or .roi (`like` is the stack that its ROIs were drawn on), COCO's .json, a stack of numbered
    masks or a folder of them.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(f"{path} not found; name a RoiSet.zip, COCO's .json, a stack or a folder of numbered masks")
    if suffix in (".zip", ".roi"):
        if like is None:
            raise UserError(f"{path} does not say how large its images are; name them with --like")
        numbers = read_rois(path, one_channel(TiffPages(like)).shape)
        yield from ((f"{number:04d}", page) for number, page in enumerate(numbers))
    elif suffix == ".json":
        yield from read_coco(path)
    elif path.is_dir():
        yield from ((file.stem, read_label(file)) for file in image_files(path))
    else:
        yield from ((f"{number:04d}", page) for number, page in enumerate(whole_numbers(path)))


def whole_numbers(path: Path) -> np.ndarray:
    """Read a stack of numbers as uint16 (N, H, W); raise UserError for anything else."""
    stack = np.asarray(one_channel(TiffPages(path)))
    if stack.dtype.kind not in "ui" or stack.min() < 0 or stack.max() > np.iinfo(np.uint16).max:
        raise UserError(f"{path} has values from {stack.min().item():g} to {stack.max().item():g}, {stack.dtype}; "
                        "expected a whole number from 1 to 65535 for each object, 0 = none")
    return stack.astype(np.uint16)


def import_labels(path: Path, out: Path, like: Path | None = None, outline: int | None = None) -> tuple[int, int]:
    """Write another program's labels as the stack `out`, if it ends with .tif, otherwise as a folder of TIFF files.

    With `outline`, a width in pixels, write membrane and cell (`with_outlines`); without it, a number for each object.
    Return how many images and objects there are. Raises UserError for wrong input, and if a file would be replaced
    that this project did not write.
    """
    labels, count = {}, 0
    for name, numbers in numbered_labels(path, like):
        if name in labels:
            raise UserError(f"{path} has two images named {name}; rename one")
        count += len(np.unique(numbers[numbers > 0]))
        labels[name] = numbers if outline is None else with_outlines(numbers, outline)
    if not count:
        raise UserError(f"{path} has no object; draw some first")
    if out.suffix.lower() not in (".tif", ".tiff"):
        files = {out / f"{name}.tif": label[np.newaxis] for name, label in labels.items()}
    elif len({label.shape for label in labels.values()}) > 1:
        raise UserError(f"{path}: its images have different sizes, so they cannot be one stack; name a folder with "
                        "--out, for instance labels")
    else:
        files = {out: np.stack(list(labels.values()))}
    for file in files:
        require_ours(file)
    for file, stack in files.items():
        write_stack(file, stack)
    return len(labels), count


def export_rois(path: Path, out: Path) -> int:
    """Write the outlines of a stack of numbers, such as cells.tif, as a RoiSet.zip; return how many there are.

    Raises UserError if `out` exists already: somebody may have corrected it.
    """
    if out.exists():
        raise UserError(f"{out} is there already; move it away, or name another file with --out")
    return write_rois(out, whole_numbers(path))
