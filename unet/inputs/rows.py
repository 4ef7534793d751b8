"""Files of rows of equal size, pages of a TIFF stack or tiles of an .npy array, read and written in any order."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from unet.inputs.stacks import announce_stack


@dataclass(frozen=True)
class Rows:
    """A file whose rows any process can read and write; it is not mapped, so only one row is in memory at a time.

    start : position of the first row, bytes
    shape, dtype : of a row; dtype is the type's name, in the machine's byte order
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The size of a row, bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def write(self, places: Iterable[int], rows: Iterable[np.ndarray], crc: int = 0) -> int:
        """Write rows at their places; return the CRC-32 of their bytes, continued from `crc`."""
        with open(self.path, "r+b") as file:
            for place, row in zip(places, rows, strict=True):
                if row.shape != self.shape:
                    raise ValueError(f"a row of {row.shape} for {self.path}, which has {self.shape}")
                content = np.ascontiguousarray(row, self.dtype).data.cast("B")
                file.seek(self.start + place * self.size)
                file.write(content)
                crc = zlib.crc32(content, crc)
        return crc

    def crc(self, places: Iterable[int]) -> int:
        """Return the CRC-32 of these rows, the one that `write` returned if they did not change since."""
        crc = 0
        with open(self.path, "rb") as file:
            for place in places:
                file.seek(self.start + place * self.size)
                crc = zlib.crc32(file.read(self.size), crc)
        return crc

    def __getitem__(self, place: int) -> np.ndarray:
        return np.fromfile(self.path, self.dtype, math.prod(self.shape), offset=self.start + place * self.size
                           ).reshape(self.shape)


def new_stack(path: Path, shape: Sequence[int], dtype: np.dtype) -> Rows:
    """Make an ImageJ stack of `shape` (N, H, W[, 3]), as `stack_writer` does, without its pages."""
    start = announce_stack(path, tuple(shape), dtype, "TYXS" if len(shape) == 4 else "ZYX")
    return Rows(path, start, tuple(shape[1:]), np.dtype(dtype).name)


def new_stacks(stacks: Mapping[str, tuple[Sequence[int], np.dtype]], folder: Path) -> dict[str, Rows]:
    """Make a stack in a folder for each name, with its shape and type."""
    return {name: new_stack(folder / f"{name}.tif", *stack) for name, stack in stacks.items()}


def stack_rows(path: Path, shape: Sequence[int]) -> Rows:
    """Return the pages of a stack (N, H, W[, 3]) that `new_stack` or `stack_writer` made."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        return Rows(path, page.dataoffsets[0], tuple(shape[1:]), page.dtype.name)


def new_array(path: Path, shape: tuple[int, ...], dtype: type) -> Rows:
    """Make an .npy file of `shape`, without its rows."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # a full disk must be an error now, not at some later row
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, array.offset + array.nbytes)
    return Rows(path, array.offset, shape[1:], array.dtype.name)
