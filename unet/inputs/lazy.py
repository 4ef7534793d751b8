"""Pages that are read only when they are indexed: what all formats have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from unet.inputs.voxel import Voxel
from utils import UserError

ROWS = 1024  # of a page that are processed at once: it may be larger than memory
LARGE_PAGE = 2**26  # a page of so many bytes or more is read by rows instead of whole
EIGHT_BIT = "in Fiji: Image > Type > 8-bit, then File > Save As > Tiff"


class Pages(Sequence[np.ndarray]):
    """A stack whose pages (H, W[, C]) are read one at a time; `np.asarray` reads it whole.

    It is pickled as the name of its file, without pixels. Reading a damaged page raises UserError.
    """

    path: Path  # as the user named it, for messages
    files: list[Path]  # that are read
    names: list[str]  # of the pages
    shape: tuple[int, ...]  # (N, H, W[, C])
    dtype: np.dtype
    voxel: Voxel | None = None  # size of a pixel; None if it is not known

    @abstractmethod
    def _read(self, number: int) -> np.ndarray | PageRows:
        """Read page `number`, 0 .. N-1."""

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
            raise UserError(f"{self.path} has {self.shape} pixels, more than fit into this machine's memory") from None
        for number in range(len(self)):
            whole[number] = self._read(number)
        return whole


class PageRows:
    """A page (H, W[, C]) that may be much larger than memory: it reads rows on demand and keeps the last ones.

    It has the few methods of an array that cutting tiles and sampling pixels need; `np.asarray` reads it whole.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[int, int], np.ndarray]):
        self.shape, self.dtype, self.ndim, self.size = tuple(shape), np.dtype(dtype), len(shape), math.prod(shape)
        self._read, self._last = read, (0, np.empty((0, *shape[1:]), dtype))  # number of the first kept row; the rows

    def __len__(self) -> int:
        return self.shape[0]

    def _rows(self, first: int, last: int) -> np.ndarray:
        """Return rows `first` to `last` - 1, from the last ones if these have them."""
        start, rows = self._last
        if not start <= first <= last <= start + len(rows):
            start, rows = self._last = first, self._read(first, last)
        return rows[first - start:last - start]

    def take(self, indices: np.ndarray, axis: int) -> np.ndarray:
        """Return rows by number; they lie close together, so all rows between them are read."""
        if axis != 0:
            raise ValueError("only rows can be taken of a page that is not in memory")
        first = int(indices.min())
        return self._rows(first, int(indices.max()) + 1).take(indices - first, axis=0)

    def __getitem__(self, place: slice | tuple[slice, slice]) -> np.ndarray:
        """Return rows, or rows and columns, by slices with positive steps."""
        rows, columns = place if isinstance(place, tuple) else (place, slice(None))
        first, last, step = rows.indices(len(self))
        size = max(ROWS // step, 1) * step  # rows at once
        parts = [self._rows(start, min(start + size, last))[::step, columns].copy()
                 for start in range(first, last, size)]
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self.dtype)[:, columns]

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


def is_read_by_rows(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Tell whether a page (H, W[, C]) is too large to be read whole."""
    return math.prod(shape) * dtype.itemsize >= LARGE_PAGE


def raw_page(path: Path, stored: np.dtype, start: int, shape: tuple[int, ...], by_rows: bool = True
             ) -> np.ndarray | PageRows:
    """Read a page (H, W[, C]) that lies uncompressed in a file, from byte `start` on, in the machine's byte order.

    With `by_rows` a large one is `PageRows`. It is read instead of mapped: if the file is cut short meanwhile, a map
    would end the process, and this raises UserError.
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


class ConvertedPages(Sequence[np.ndarray]):
    """A stack's pages after a function that returns (H, W) of this type; it is applied when a page is indexed."""

    def __init__(self, pages: Sequence[np.ndarray], convert: Callable[[np.ndarray], np.ndarray], dtype: type):
        self.pages, self.convert, self.dtype = pages, convert, np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.pages), *self.pages[0].shape[:2])

    def __len__(self) -> int:
        return len(self.pages)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.convert(self.pages[number])


def tally(stack: Sequence[np.ndarray], most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return a stack's values, sorted, and how often each occurs; with `most`, stop as soon as there are more."""
    values, counts = np.unique(stack[0], return_counts=True)
    for number in range(1, len(stack)):
        if most and len(values) > most:
            break
        page_values, page_counts = np.unique(stack[number], return_counts=True)
        values, places = np.unique(np.concatenate([values, page_values]), return_inverse=True)
        counts = np.bincount(places.ravel(), np.concatenate([counts, page_counts])).astype(int)
    return values.astype(np.uint8) if values.dtype == bool else values, counts  # bool knows no arithmetic


def mean_and_sd(stack: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return mean and standard deviation of all pixels of a stack."""
    sums = np.array([(page.size, page.sum(dtype=float), np.square(page, dtype=float).sum()) for page in stack]).sum(0)
    mean = sums[1] / sums[0]
    return float(mean), float(max(sums[2] / sums[0] - mean**2, 0) ** 0.5)


def require_file(path: Path, way_out: str = "") -> None:
    """Raise UserError if there is no such file, or it is empty; `way_out` ends the first message."""
    if not path.is_file():
        raise UserError(f"{path} not found{'; ' + way_out if way_out else ''}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); copy it again")


def one_channel(pages: Pages) -> Pages:
    """Return pages that are (N, H, W); raise UserError for colours."""
    if pages.ndim == 4:
        raise UserError(f"{pages.path} has {pages.shape[3]} channels, expected grey slices of one; {EIGHT_BIT}")
    return pages


def grey_type(dtype: np.dtype, path: Path) -> np.dtype:
    """Return the type that pixels of a file are processed in; raise UserError if they are not grey levels."""
    if dtype.kind not in "buif":
        raise UserError(f"{path} has pixels of the type {dtype}, expected grey levels; {EIGHT_BIT}")
    return np.dtype(np.uint8 if dtype.kind == "b" else dtype if dtype in (np.uint8, np.uint16) else np.float32)


def grey_levels(pixels: np.ndarray, path: Path, where: str = "") -> np.ndarray:
    """Return pixels of a file: uint8 and uint16 as they are, bool as 0 and 255, other types as float32.

    Raises UserError if they are not grey levels, or not numbers (NaN or infinite).
    """
    dtype = grey_type(pixels.dtype, path)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype != dtype:
        with np.errstate(over="ignore"):  # infinite pixels are refused below
            pixels = pixels.astype(dtype)
    if dtype.kind == "f" and not all(np.isfinite(pixels[first:first + ROWS]).all()
                                     for first in range(0, len(pixels), ROWS)):
        raise UserError(f"{path} has pixels that are not numbers (NaN or infinite){where}; {EIGHT_BIT}")
    return pixels


class Gray(Pages):
    """Grey pages (H, W): uint8 and uint16 as they are, bool as 0 and 255, other types as float32.

    Raises UserError for colours; reading a page that has NaN or infinite pixels raises it too.
    """

    def __init__(self, pages: Pages):
        self.pages = one_channel(pages)
        self.path, self.files, self.names, self.voxel = pages.path, pages.files, pages.names, pages.voxel
        self.shape = pages.shape
        self.dtype = grey_type(pages.dtype, pages.path)

    def _read(self, number: int) -> np.ndarray | PageRows:
        page = self.pages[number]
        if isinstance(page, PageRows):
            return PageRows(page.shape, self.dtype, lambda first, last: self._grey_levels(page[first:last], number))
        return self._grey_levels(page, number)

    def block(self, number: int, rows: slice, columns: slice) -> np.ndarray:
        """Read some rows and columns of page `number`, if its format has `block`; slices have both ends."""
        return self._grey_levels(self.pages.block(slice(number, number + 1), rows, columns)[0], number)

    def _grey_levels(self, page: np.ndarray, number: int) -> np.ndarray:
        """Return rows of page `number` as grey levels."""
        return grey_levels(page, self.path, f" in {self.names[number]}")
