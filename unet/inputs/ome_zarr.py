"""OME-Zarr images, written by rows, with their pyramid; version 0.4, which Fiji, napari and ilastik all read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from unet.inputs.lazy import ROWS
from unet.inputs.stacks import OURS
from unet.inputs.voxel import Voxel
from utils import UserError, atomic_folder

if TYPE_CHECKING:
    import zarr

CHUNK = 512  # side of a chunk, pixels; a multiple of every network's stride
FORMAT = "0.4"


@dataclass(frozen=True)
class Stack:
    """The shape, type and names of the pages that are to be written.

    shape : (N, H, W), or with channels (N, C, H, W)
    names : of the pages
    """

    shape: tuple[int, ...]
    dtype: type
    voxel: Voxel | None = None
    names: Sequence[str] = ()
    channel_names: Sequence[str] = ()

    @property
    def numbers(self) -> bool:
        """Whether pixels are numbers of objects, which cannot be averaged."""
        return np.dtype(self.dtype).kind == "u"


def zarr_package() -> ModuleType:
    """Return the package that reads and writes Zarr; raise UserError if it is not installed."""
    try:
        import zarr
    except ImportError:
        raise UserError("Zarr needs the package zarr, which is not installed: pip install -r requirements-zarr.txt"
                        ) from None
    return zarr


@contextmanager
def zarr_writer(path: Path, stack: Stack) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield `write(page)`, which appends a page (H, W) or (C, H, W); the folder appears at `path` when all are written.

    Raises ValueError if the block ends before all N pages were written.
    """
    with atomic_folder(path) as folder:
        image, count = Image.create(folder, stack), 0

        def write(page: np.ndarray) -> None:
            nonlocal count
            image.put_page(count, page)
            count += 1

        yield write
        if count != stack.shape[0]:
            raise ValueError(f"{path}: {stack.shape[0]} pages were announced, {count} were written")


class Image:
    """An OME-Zarr image that is being written: its levels, each half as wide and high as the one before."""

    def __init__(self, levels: list[zarr.Array], numbers: bool):
        self.levels, self.numbers = levels, numbers

    @classmethod
    def create(cls, folder: Path, stack: Stack) -> Image:
        """Write the metadata of an image without pixels."""
        count, *channels, height, width = stack.shape
        sizes = [(height, width)]
        while max(sizes[-1]) > CHUNK:
            sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
        for level, size in enumerate(sizes):
            _create_array(folder / str(level), (*channels, count, *size), stack.dtype)
        (folder / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
        (folder / ".zattrs").write_text(json.dumps(_attributes(stack, len(sizes)), indent=1))
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Image:
        """Open an image that `create` made, for writing; any process may do so, each writes its own chunks."""
        zarr, levels = zarr_package(), json.loads((folder / ".zattrs").read_text())["multiscales"][0]["datasets"]
        # by default Zarr 3 leaves out chunks of zeros, as if they had been lost
        with zarr.config.set({"array.write_empty_chunks": True}) if hasattr(zarr, "config") else nullcontext():
            arrays = [zarr.open_array(str(folder / level["path"]), mode="r+") for level in levels]
        return cls(arrays, arrays[0].dtype.kind == "u")

    def put_page(self, number: int, page: np.ndarray, begin: int = 0) -> None:
        """Write page `number`, given at full resolution, to level `begin` and all coarser ones; it may be `Bands`."""
        for first in range(0, page.shape[-2], ROWS):  # ROWS is a multiple of every level's pixel size
            rows = np.asarray(page[first:first + ROWS] if page.ndim == 2 else page[:, first:first + ROWS])
            for level, array in enumerate(self.levels):
                if level >= begin:
                    array[..., number, first:first + rows.shape[-2], :] = rows
                rows, first = halve(rows, self.numbers), first // 2


def halve(rows: np.ndarray, numbers: bool) -> np.ndarray:
    """Return an image (..., h, w) at half its size, rounded up: means of 2 x 2 pixels; of numbers, the first pixel."""
    if numbers:
        return rows[..., ::2, ::2]
    odd = [(0, 0)] * (rows.ndim - 2) + [(0, side % 2) for side in rows.shape[-2:]]
    even = np.pad(rows, odd, "edge")
    return (even[..., ::2, ::2] + even[..., 1::2, ::2] + even[..., ::2, 1::2] + even[..., 1::2, 1::2]) / 4


def _create_array(folder: Path, shape: tuple[int, ...], dtype: type) -> None:
    """Write the metadata of an array (..., N, H, W) in Zarr's format 2; each chunk is a part of one page."""
    chunks = [1] * (len(shape) - 2) + [min(CHUNK, side) for side in shape[-2:]]
    about = {"zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": np.dtype(dtype).newbyteorder("<").str,
             "compressor": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1, "blocksize": 0},
             "fill_value": 0, "order": "C", "filters": None, "dimension_separator": "/"}
    folder.mkdir()
    (folder / ".zarray").write_text(json.dumps(about, indent=1))


def _attributes(stack: Stack, levels: int) -> dict:
    """Return OME's metadata: axes, pixel sizes, names of channels."""
    channels = [{"name": "c", "type": "channel"}] if len(stack.shape) == 4 else []
    lengths = {axis: getattr(stack.voxel, axis, None) for axis in "zyx"}
    axes = [{"name": axis, "type": "space", **({"unit": "micrometer"} if length else {})}
            for axis, length in lengths.items()]
    scales = [[1.0] * len(channels) + [(length or 1.0) * (1 if axis == "z" else 2**level)
                                       for axis, length in lengths.items()] for level in range(levels)]
    datasets = [{"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
                for level, scale in enumerate(scales)]
    multiscales = [{"version": FORMAT, "name": ", ".join(stack.channel_names), "axes": channels + axes,
                    "datasets": datasets, "type": "nearest" if stack.numbers else "mean"}]
    window = {"start": 0, "end": 1, "min": 0, "max": 1}
    display = ({"image-label": {"version": FORMAT}} if stack.numbers else
               {"omero": {"channels": [{"label": name, "color": "FFFFFF", "active": True, "window": window}
                                       for name in stack.channel_names]}})
    return {"multiscales": multiscales, **display, "_creator": {"name": OURS}}
