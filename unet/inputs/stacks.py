"""TIFF stacks: read whole, written page by page; their names, their padding, lists of slice numbers."""

from __future__ import annotations

import difflib
import json
import math
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from unet.inputs.lazy import ROWS
from unet.inputs.tiffs import TiffPages, collect_logs
from unet.inputs.voxel import Voxel, tiff_tags
from utils import UserError, atomic_path

# the files of an ISBI folder
VOLUME, LABELS, TEST = "train-volume.tif", "train-labels.tif", "test-volume.tif"
GET_DATA = ("'python datasets.py isbi' downloads the ISBI stacks into data/, 'python datasets.py demo' makes a demo "
            "stack, --data names another folder")

OURS = "keras-unet"  # the Software tag of files written here; Fiji and napari leave it out when they save
OME = (".ome.tif", ".ome.tiff")  # how names of OME-TIFFs end
IMAGEJ_BYTES = 2**32 - 2**25  # of pixels, the most that a TIFF with 32-bit offsets holds, with room for its header
LEAST_PADDING = 0.01  # share of a slice: smaller black or white areas at its border are tissue


def read_stack(path: str | Path, way_out: str = "") -> np.ndarray:
    """Read a TIFF as (N, H, W) or (N, H, W, C), its own dtype; a single page gives N = 1.

    Raises UserError if the file is missing, not a TIFF, cut short or empty; `way_out` ends the first message.
    """
    return np.asarray(TiffPages(path, way_out))


def nearly_named(path: Path) -> str:
    """Return the name of a file similar to that of a missing stack, as train-labels.tiff; '' if there is none."""
    names = {file.name.lower(): file.name for file in path.parent.iterdir()
             if file.name not in (VOLUME, LABELS, TEST)}
    return "".join(names[name] for name in difflib.get_close_matches(path.name, names, 1, 0.75))


def way_to(path: Path) -> str:
    """Return the way out for a stack that is missing: how the user can provide it."""
    if similar := nearly_named(path):
        return f"rename {similar}, or save it as TIFF from Fiji: File > Save As > Tiff"
    if path.name == LABELS and path.with_name(VOLUME).exists():
        return f"draw the labels of {VOLUME} as docs/own-data.md says: 0 = membrane, 255 = cell"
    if path.name == TEST:
        return f"it is the stack that is segmented into prediction.tif: put yours there, or a copy of {VOLUME}"
    names = {file.name for file in path.parent.iterdir() if not file.name.startswith(".")} - {"README.md", "demo"}
    if path.name == VOLUME and names and not names & {LABELS, TEST}:
        return (f"{path.parent} has {min(names)}, but neither the three stacks nor folders named images and "
                "labels; docs/own-data.md explains how data are laid out")
    return GET_DATA


def _format_of(path: Path, dtype: np.dtype, axes: str) -> str:
    """Return the format of a stack: 'ome' by its name or if ImageJ's format lacks its type, otherwise 'imagej'."""
    needs_ome = dtype == np.uint32 or (axes == "TYXS" and dtype != np.uint8)
    return "ome" if needs_ome or str(path).lower().endswith(OME) else "imagej"


def announce_stack(path: Path, shape: tuple[int, ...], dtype: np.dtype, axes: str, flavour: str = "",
                   tags: dict | None = None) -> int:
    """Write a stack's header as `stack_writer` does, and room for its pixels; return where they begin, in bytes."""
    flavour = flavour or _format_of(path, dtype, axes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*truncating ImageJ file")  # ImageJ reads it all the same
        tifffile.imwrite(path, shape=shape, dtype=dtype, imagej=flavour == "imagej", ome=flavour == "ome",
                         software=OURS, bigtiff={"imagej": False, "ome": None}[flavour],
                         photometric="rgb" if axes == "TYXS" else "minisblack",
                         **(tags or tiff_tags(None, flavour, axes)))
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[0].dataoffsets[0]


@contextmanager
def stack_writer(path: str | Path, shape: tuple[int, ...], dtype: np.dtype, channels: bool = False,
                 voxel: Voxel | None = None, channel_names: Sequence[str] = ()
                 ) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield `write(page)`, which appends a page to an ImageJ stack of `shape` (N, H, W[, 3]); all or nothing.

    With `channels`, `shape` is (N, C, H, W), a hyperstack, and a page is (C, H, W). The dtype is uint8, uint16, float32
    or uint32. ImageJ's format lacks uint32 and colours of more than 8 bits: these become OME-TIFFs, whatever their
    name, and so does a file whose name ends with .ome.tif; only they keep `channel_names`. One page is in memory at a
    time. A stack of over 4 GB is an OME-TIFF, too, in a BigTIFF. Fiji, napari and `voxel_of_tiff` read `voxel`. Raises
    ValueError if the block ends before all N pages were written.
    """
    axes = "ZCYX" if channels else "TYXS" if len(shape) == 4 else "ZYX"
    size = math.prod(shape) * np.dtype(dtype).itemsize
    flavour = "ome" if size > IMAGEJ_BYTES else _format_of(path, dtype, axes)
    tags = tiff_tags(voxel, flavour, axes)
    if flavour == "ome" and channel_names:
        tags["metadata"]["Channel"] = {"Name": list(channel_names)}
    with atomic_path(path) as temporary:
        start = announce_stack(temporary, shape, dtype, axes, flavour, tags)
        end = start + size
        with open(temporary, "r+b") as file:
            file.seek(start)

            def write(page: np.ndarray) -> None:
                if page.shape != tuple(shape[1:]):
                    raise ValueError(f"page of {page.shape} in a stack of {shape}")
                for plane in page if channels else (page,):
                    for first in range(0, len(plane), ROWS):
                        file.write(np.ascontiguousarray(plane[first:first + ROWS], dtype).data)

            yield write
            if file.tell() != end:
                raise ValueError(f"{path}: {shape[0]} pages were announced, but more or fewer were written")


def write_stack(path: str | Path, stack: np.ndarray) -> None:
    """Write an array (N, H, W[, 3]) as an ImageJ stack, all or nothing; uint8, uint16 or float32."""
    with stack_writer(path, stack.shape, stack.dtype) as write:
        for page in stack:
            write(page)


def open_stack(path: str | Path, shape: list[int]) -> np.ndarray:
    """Map a stack of `shape` (N, H, W[, 3]) that `stack_writer` wrote, without reading it."""
    return tifffile.memmap(path, mode="r").reshape(shape)  # tifffile drops the first axis of a single page


def is_ours(path: Path) -> bool:
    """Tell whether this project wrote a TIFF and no other program saved it since: that would be somebody's work.

    A folder is ours if all files in it are, or if it is an OME-Zarr image of ours to which nothing was added.
    """
    if path.is_dir():
        files = [file for file in path.iterdir() if file.name != ".DS_Store"]
        if _creator(path) == OURS:
            return all(file.name in (".zattrs", ".zgroup") or file.name.isdecimal() for file in files)
        return all(file.is_file() and is_ours(file) for file in files)
    try:
        with collect_logs(), tifffile.TiffFile(path) as tiff:
            return tiff.pages[0].software == OURS
    except (tifffile.TiffFileError, OSError, LookupError, ValueError, struct.error):
        return False


def _creator(folder: Path) -> str | None:
    """Return the name of the program that wrote an OME-Zarr image; None if it does not say."""
    try:
        return json.loads((folder / ".zattrs").read_text())["_creator"]["name"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def require_ours(path: Path) -> None:
    """Raise UserError if a file or folder would be replaced that this project did not write."""
    if path.exists() and not is_ours(path):
        example = f", for instance {path / 'prediction.tif'}" if path.is_dir() else ""
        raise UserError(f"{path} is there already, and was not written by this project or was changed since by another "
                        f"program; move it away, or name another output{example}")


def padding(image: np.ndarray) -> np.ndarray:
    """Return a slice's padding, bool (H, W): areas of its darkest or brightest value that touch its border.

    Small areas are tissue. Padding does not count for mean and standard deviation: a black third would change both.
    """
    mask = np.zeros(image.shape, bool)
    for value in {image.min(), image.max()}:
        area = image == value
        if LEAST_PADDING * image.size <= np.count_nonzero(area) < image.size:
            pieces, _ = ndimage.label(area)
            border = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
            large = np.bincount(pieces.ravel()) >= LEAST_PADDING * image.size
            mask |= np.isin(pieces, border[(border > 0) & large[border]])
    return mask if not mask.all() else np.zeros(image.shape, bool)


def parse_slices(text: str, count: int) -> list[int]:
    """Parse slice numbers like '25-29' or '3,7,25-29' of a stack of `count`, sorted; 'none' gives an empty list.

    Raises UserError if the text is no such list or names a slice that the stack does not have.
    """
    if text.strip().lower() == "none":
        return []
    numbers: set[int] = set()
    for part in text.split(","):
        ends = part.strip().split("-")
        if not 1 <= len(ends) <= 2 or not all(end.strip().isdecimal() for end in ends):
            raise UserError(f"'{text}' is no list of slices; write for instance 25-29, or 3,7,25-29, or none")
        first, last = int(ends[0]), int(ends[-1])
        if last >= count:  # checked before the range is made: a mistyped end could fill the memory
            raise UserError(f"'{text}' names slices that are not there: the stack has {count}, numbered 0 to "
                            f"{count - 1}")
        if first > last:
            raise UserError(f"'{text}' counts backwards from {first} to {last}; write {last}-{first}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def format_slices(numbers: list[int]) -> str:
    """Format sorted slice numbers as '0-24, 27'; 'none' for an empty list."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts) or "none"
