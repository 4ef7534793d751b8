"""Pages that are read when they are asked for: what all formats have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from unet.inputs.voxel import Voxel
from utils import UserError

ROWS = 1024  # of a page that are looked at at once: it may be larger than memory
MAPPED = 2**26  # bytes of a page from which on it is not read whole: its rows are used one after the other
EIGHT_BIT = "in Fiji: Image > Type > 8-bit, then File > Save As > Tiff"


class Pages(Sequence[np.ndarray]):
    """A stack whose pages (H, W[, C]) are read one at a time; `np.asarray` reads it whole.

    It is pickled as the name of its file, not as pixels. Reading a page raises UserError where it is damaged.
    """

    path: Path  # that the user named, for messages
    files: list[Path]  # that are read
    names: list[str]  # of the pages
    shape: tuple[int, ...]  # (N, H, W[, C])
    dtype: np.dtype
    voxel: Voxel | None = None  # size of a pixel; None where it is not known

    @abstractmethod
    def _read(self, number: int) -> np.ndarray | PageRows:
        """Page `number`, 0 .. N-1."""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, number: int) -> np.ndarray:
        count = len(self)
        if not -count <= number < count:
            raise IndexError(f"page {number} of {count}")
        return self._read(int(number) % count)

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        try:
            whole = np.empty(self.shape, dtype or self.dtype)
        except (MemoryError, ValueError):
            raise UserError(f"{self.path} has {self.shape} pixels, more than this machine's memory takes") from None
        for number in range(len(self)):
            whole[number] = self._read(number)
        return whole


class PageRows:
    """A page (H, W[, C]) too large for memory many times over: rows are read when asked for, the last ones kept.

    Of NumPy's ways it has what cutting tiles and looking at some pixels needs; `np.asarray` reads it whole.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[int, int], np.ndarray]):
        self.shape, self.dtype, self.ndim, self.size = tuple(shape), np.dtype(dtype), len(shape), math.prod(shape)
        self._read, self._last = read, (0, np.empty((0, *shape[1:]), dtype))  # first row that is kept, and all of them

    def __len__(self) -> int:
        return self.shape[0]

    def _rows(self, first: int, last: int) -> np.ndarray:
        start, rows = self._last
        if not start <= first <= last <= start + len(rows):
            start, rows = self._last = first, self._read(first, last)
        return rows[first - start:last - start]

    def take(self, indices: np.ndarray, axis: int) -> np.ndarray:
        """Rows by their numbers; they lie close together, so all between them are read."""
        if axis != 0:
            raise ValueError("columns can be taken of rows in memory alone")
        first = int(indices.min())
        return self._rows(first, int(indices.max()) + 1).take(indices - first, axis=0)

    def __getitem__(self, place: slice | tuple[slice, slice]) -> np.ndarray:
        """Rows, or rows and columns, by slices with steps forward."""
        which, columns = place if isinstance(place, tuple) else (place, slice(None))
        first, last, step = which.indices(len(self))
        size = max(ROWS // step, 1) * step  # rows at once
        parts = [self._rows(start, min(start + size, last))[::step, columns].copy()
                 for start in range(first, last, size)]
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self.dtype)[:, columns]

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


def is_read_by_rows(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether a page (H, W[, C]) is so large that it is better not read whole."""
    return math.prod(shape) * dtype.itemsize >= MAPPED


def raw_page(path: Path, stored: np.dtype, start: int, shape: tuple[int, ...], by_rows: bool = True
             ) -> np.ndarray | PageRows:
    """A page (H, W[, C]) that lies in a file as it is, from byte `start` on, in the machine's byte order.

    With `by_rows` a large one is `PageRows`. It is read, not mapped: a map of a file that is cut short meanwhile
    ends the process. Raises UserError then.
    """
    width = math.prod(shape[1:])

    def read(first: int, last: int) -> np.ndarray:
        pixels = np.fromfile(path, stored, (last - first) * width, offset=start + first * width * stored.itemsize)
        if pixels.size < (last - first) * width:
            raise UserError(f"{path} was cut short while it was being read; copy it again")
        return pixels.reshape(last - first, *shape[1:]).astype(stored.newbyteorder("="), copy=False)

    if by_rows and is_read_by_rows(shape, stored):
        return PageRows(shape, stored.newbyteorder("="), read)
    return read(0, shape[0])


class Each(Sequence[np.ndarray]):
    """What a function makes of each page of a stack, (H, W) of this type, when it is asked for."""

    def __init__(self, pages: Sequence[np.ndarray], make: Callable[[np.ndarray], np.ndarray], dtype: type):
        self.pages, self.make, self.dtype = pages, make, np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (N, H, W)."""
        return (len(self.pages), *self.pages[0].shape[:2])

    def __len__(self) -> int:
        return len(self.pages)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.make(self.pages[number])


def tally(stack: Sequence[np.ndarray], most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The values of a stack, sorted, and how often each is there; with `most` only until there are more of them."""
    values, counts = np.unique(stack[0], return_counts=True)
    for number in range(1, len(stack)):
        if most and len(values) > most:
            break
        more, times = np.unique(stack[number], return_counts=True)
        values, places = np.unique(np.concatenate([values, more]), return_inverse=True)
        counts = np.bincount(places.ravel(), np.concatenate([counts, times])).astype(int)
    return values.astype(np.uint8) if values.dtype == bool else values, counts  # 0 and 1, to be counted with


def mean_and_sd(stack: Sequence[np.ndarray]) -> tuple[float, float]:
    """Of all pixels of a stack."""
    sums = np.array([(page.size, page.sum(dtype=float), np.square(page, dtype=float).sum()) for page in stack]).sum(0)
    mean = sums[1] / sums[0]
    return float(mean), float(max(sums[2] / sums[0] - mean**2, 0) ** 0.5)


def require_file(path: Path, way_out: str = "") -> None:
    """Raise UserError where there is no such file, or nothing in it."""
    if not path.is_file():
        raise UserError(f"{path} not found{'; ' + way_out if way_out else ''}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); copy it again")


def one_channel(pages: Pages) -> Pages:
    """The pages, which must be (N, H, W); raises UserError, naming their file, for colours."""
    if pages.ndim == 4:
        raise UserError(f"{pages.path} has {pages.shape[3]} channels, expected gray slices of one; {EIGHT_BIT}")
    return pages


def grey_type(dtype: np.dtype, path: Path) -> np.dtype:
    """The type that pixels of a file are worked with in; raises UserError where they are no grey levels."""
    if dtype.kind not in "buif":
        raise UserError(f"{path} has pixels of the type {dtype}, expected grey levels; {EIGHT_BIT}")
    return np.dtype(np.uint8 if dtype.kind == "b" else dtype if dtype in (np.uint8, np.uint16) else np.float32)


def grey_levels(pixels: np.ndarray, path: Path, where: str = "") -> np.ndarray:
    """Pixels of a file: uint8 and uint16 as they are, bool as 0 and 255, all else as float32.

    Raises UserError where they are no grey levels, or no numbers (NaN or infinite).
    """
    dtype = grey_type(pixels.dtype, path)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype != dtype:
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            pixels = pixels.astype(dtype)
    if dtype.kind == "f" and not all(np.isfinite(pixels[first:first + ROWS]).all()
                                     for first in range(0, len(pixels), ROWS)):
        raise UserError(f"{path} has pixels that are not numbers (NaN or infinite){where}; {EIGHT_BIT}")
    return pixels


class Gray(Pages):
    """Gray pages (H, W): uint8 and uint16 as they are, bool as 0 and 255, all else as float32.

    Raises UserError for colours, and where a page with pixels that are not numbers is read.
    """

    def __init__(self, pages: Pages):
        self.pages = one_channel(pages)
        self.path, self.files, self.names, self.voxel = pages.path, pages.files, pages.names, pages.voxel
        self.shape = pages.shape
        self.dtype = grey_type(pages.dtype, pages.path)

    def _read(self, number: int) -> np.ndarray | PageRows:
        page = self.pages[number]
        if isinstance(page, PageRows):
            return PageRows(page.shape, self.dtype, lambda first, last: self.gray(page[first:last], number))
        return self.gray(page, number)

    def block(self, number: int, rows: slice, columns: slice) -> np.ndarray:
        """Some rows and columns of page `number`, of a format whose pages have them: slices with both ends."""
        return self.gray(self.pages.block(slice(number, number + 1), rows, columns)[0], number)

    def gray(self, page: np.ndarray, number: int) -> np.ndarray:
        """Rows of page `number` as they are given."""
        return grey_levels(page, self.path, f" in {self.names[number]}")
