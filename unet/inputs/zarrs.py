"""Zarr and OME-Zarr images, read a page or some rows at a time; missing chunks and damaged files are refused."""

from __future__ import annotations

import itertools
import lzma
import math
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet.inputs.lazy import PageRows, Pages, is_read_by_rows
from unet.inputs.ome_zarr import zarr_package
from unet.inputs.voxel import Voxel, in_micrometres
from utils import UserError

if TYPE_CHECKING:
    import zarr

ZARR_MARKS = (".zarray", "zarr.json", ".zgroup", ".zattrs")  # every folder of a Zarr has one of them
SLAB = 2**28  # pages of so many bytes at most are read at once and kept, if they lie in the same chunks
ZARR_ERRORS = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, OSError, EOFError,
               MemoryError, AssertionError, SystemError, zlib.error, lzma.LZMAError)


def is_zarr(path: Path) -> bool:
    """Tell whether a path is a Zarr, by its name or by the files in its folder."""
    return path.suffix.lower() == ".zarr" or any((path / name).is_file() for name in ZARR_MARKS)


class ZarrPages(Pages):
    """The pages of an array (H, W) or (N, H, W), or of an OME image of one time and channel, at full resolution.

    Three channels are taken as colours and become the last axis of a page. A page of 64 MiB or more is
    `PageRows`. Pickled as its name and layout, and opened again in each process.
    """

    def __init__(self, path: Path, way_out: str = ""):
        if not path.exists():
            raise UserError(f"{path} not found{'; ' + way_out if way_out else ''}")
        if not path.is_dir():
            raise UserError(f"{path} is a file, expected the folder of a Zarr; unpack it, if it was zipped")
        zarr_package()
        self.path = path
        self._array, self._slab, self._lock = None, (0, np.empty(0)), threading.Lock()
        with self._user_errors():
            self._examine()
        self.files = [path / self._inside / name for name in ZARR_MARKS if (path / self._inside / name).is_file()]
        self.names = [f"slice {number}" for number in range(len(self))]

    def _examine(self) -> None:
        """Find shape, dtype, axes and pixel size; raise UserError unless it is one stack of grey or colour pages."""
        self._inside, axes, scale = self._image(zarr_package().open(str(self.path), mode="r"))
        array = self._open()
        chunk = getattr(array, "shards", None) or array.chunks
        if not all(isinstance(side, int) and side >= 0 for side in (*array.shape, *chunk)):  # Zarr does not check them
            raise ValueError(f"it announces {array.shape} pixels in chunks of {chunk}")
        if 0 in array.shape or array.ndim < 2:
            raise UserError(f"{self.path} holds no pages of pixels (its array is {array.shape}); save it again")
        colours_last = array.ndim in (3, 4) and array.shape[-1] in (3, 4) and array.shape[-3] > 4
        names = "".join(axis["name"] for axis in axes) or ("zyxc" if colours_last else "tczyx")[-array.ndim:]
        sizes = dict(zip(names, array.shape, strict=True))
        is_colour = sizes.get("c", 1) == 3 or (names.endswith("c") and sizes["c"] == 4)
        surplus = [axis for axis in sizes if axis not in ("zyxc" if is_colour else "zyx") and sizes[axis] > 1]
        if surplus or not names.endswith(("yx", "yxc")) or set(names) - set("tczyx"):
            raise UserError(f"{self.path} has the axes {', '.join(names)} and {array.shape} pixels, expected z, y, x "
                            "and at most one time and one channel; save only the channel that shows the membranes")
        self._axes, self._z = names, names.find("z")
        self._c = names.index("c") if is_colour else -1
        self.shape = (sizes.get("z", 1), sizes["y"], sizes["x"], *([sizes["c"]] if is_colour else []))
        self.dtype = np.dtype(array.dtype).newbyteorder("=")
        lengths = {axis["name"]: in_micrometres(length, axis.get("unit"))
                   for axis, length in zip(axes, scale, strict=False)}
        if lengths.get("y") and lengths.get("x"):
            self.voxel = Voxel(lengths["y"], lengths["x"], lengths.get("z"))
        page_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        # the last chunk must exist: a list of names of a damaged length would fill the memory
        self._require_chunks(array, [slice(side - 1, side) for side in array.shape])
        self._depth = max(1, min(chunk[self._z] if self._z >= 0 else 1, SLAB // page_bytes))  # pages read at once

    def _image(self, root: zarr.Array | zarr.Group) -> tuple[str, list[dict], list[float]]:
        """Return the path of the image's array inside the folder, its axes, and the length of a pixel along each."""
        if hasattr(root, "shape"):
            return "", [], []
        attributes = dict(root.attrs)
        multiscales = attributes.get("ome", attributes).get("multiscales")
        if not multiscales:
            inside = [path for path in sorted(self.path.iterdir()) if path.is_dir() and is_zarr(path)]
            way_out = f"; name what is in it, for instance {inside[0]}" if inside else ""
            raise UserError(f"{self.path} is a Zarr group without an image of its own (multiscales){way_out}")
        level = multiscales[0]["datasets"][0]
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscales[0].get("axes", [])]
        scale = [1.0] * len(axes)
        for transform in (*level.get("coordinateTransformations", ()),
                          *multiscales[0].get("coordinateTransformations", ())):
            if transform["type"] == "scale":
                scale = [length * factor for length, factor in zip(scale, transform["scale"], strict=True)]
        return level["path"], axes, scale

    def _open(self) -> zarr.Array:
        if self._array is None:
            self._array = zarr_package().open_array(str(self.path / self._inside), mode="r")
        return self._array

    def _read(self, number: int) -> np.ndarray | PageRows:
        shape = self.shape[1:]
        if is_read_by_rows(shape, self.dtype):
            return PageRows(shape, self.dtype,
                            lambda first, last: self.block(slice(number, number + 1), slice(first, last))[0])
        first = number // self._depth * self._depth
        with self._lock:
            start, slab = self._slab
            if start != first or not len(slab):
                slab = self.block(slice(first, min(first + self._depth, len(self))), slice(0, shape[0]))
                self._slab = first, slab
            return slab[number - first]

    def block(self, pages: slice, rows: slice, columns: slice | None = None) -> np.ndarray:
        """Read rows and columns (default: all) of some pages, (n, h, w[, C]), own dtype; slices have both ends."""
        parts = {"z": pages, "y": rows, "x": columns or slice(0, self.shape[2])}
        if self._c >= 0:
            parts["c"] = slice(0, self.shape[3])
        place = [parts.get(axis, slice(0, 1)) for axis in self._axes]
        with self._user_errors():
            array = self._open()
            self._require_chunks(array, place)
            block = np.asarray(array[tuple(place)])
            block = np.moveaxis(block, self._c, -1) if self._c >= 0 else block
            return block.reshape(-1, *block.shape[1 - len(self.shape):]).astype(self.dtype, copy=False)

    def _require_chunks(self, array: zarr.Array, place: Sequence[slice]) -> None:
        """Raise UserError if a chunk is missing: Zarr would read it as zeros, but it may have been lost."""
        size = getattr(array, "shards", None) or array.chunks
        spans = [range(part.start // side, -(-part.stop // side)) for part, side in zip(place, size, strict=True)]
        key = array.metadata.encode_chunk_key if hasattr(array, "metadata") else array._chunk_key
        for coordinates in itertools.product(*spans):
            name = key(coordinates)
            if not (self.path / self._inside / name).is_file():
                raise UserError(f"{self.path / self._inside}: the chunk {name} is missing; copy it again, or if empty "
                                "chunks were left out when it was saved, save it with them (write_empty_chunks=True)")

    @contextmanager
    def _user_errors(self) -> Iterator[None]:
        """Raise UserError for what the library raises."""
        try:
            yield
        except (*ZARR_ERRORS, getattr(zarr_package().errors, "MetadataError", ValueError)) as error:  # of Zarr 2 only
            cause = (str(error).splitlines() or [""])[0][:90] or type(error).__name__
            raise UserError(f"{self.path} cannot be read as Zarr ({cause}); it is damaged, not a Zarr, or its "
                            "compression is not supported: copy it again, or save it from another program") from None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_array": None, "_slab": (0, np.empty(0)), "_lock": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _lock=threading.Lock())
