"""TIFF stacks, read a page at a time: striped, tiled, compressed, ImageJ's, OME's; damaged files are refused."""

from __future__ import annotations

import logging
import math
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import tifffile

from unet.inputs.lazy import PageRows, Pages, is_read_by_rows, raw_page, require_file
from unet.inputs.voxel import Voxel, voxel_of_tiff
from utils import UserError

BROKEN_TIFF = re.compile(r"invalid page offset|invalid offset|corrupted|failed to reshape")
TIFF_ERRORS = (tifffile.TiffFileError, ValueError, LookupError, RuntimeError, EOFError, ArithmeticError, TypeError,
               AttributeError, AssertionError, MemoryError, struct.error, zlib.error)
JPEGS = (6, 7, 34892, 33007)  # compressions whose strips share tables


class TiffPages(Pages):
    """The pages of a TIFF or BigTIFF file; pickled as its name and layout, and opened again in each process.

    With `by_rows` a page of 64 MiB or more is `PageRows`, unless it is compressed as a single strip.
    """

    def __init__(self, path: str | Path, way_out: str = "", by_rows: bool = False):
        self.path, self._by_rows = Path(path), by_rows
        require_file(self.path, way_out)
        self._handle, self._lock = None, threading.Lock()
        with self._user_errors():
            self._examine()
        self.names = [f"slice {number}" for number in range(len(self))]
        self.files = [self.path]

    def _examine(self) -> None:
        """Find shape, dtype and the position of the pages; raise an error if the file does not have all their bytes."""
        with tifffile.TiffFile(self.path) as tiff:
            first, *others = tiff.series
            if any(series.shape != first.shape for series in others):
                raise UserError(f"{self.path} holds images of different sizes, expected one stack of slices; in Fiji: "
                                "Image > Stacks > Images to Stack, then File > Save As > Tiff")
            size = self.path.stat().st_size
            # no compression is so strong, and arrays of a damaged size would fill the memory
            if sum(series.nbytes for series in tiff.series) > 2000 * size + 10**6:
                raise ValueError(f"it announces {first.shape} pixels in {size} bytes")
            # pages that a program appended one by one are series of their own: together they are the stack
            shape, axes = ((len(tiff.series), *first.shape), "Q" + first.axes) if others else (first.shape, first.axes)
            self._set_shape(shape, axes)
            self.dtype, self.voxel = first.dtype.newbyteorder("="), voxel_of_tiff(tiff)
            self._stored = first.dtype.newbyteorder(tiff.byteorder)
            self._series_count, self._slice_per_page = len(tiff.series), len(first.pages) == self.shape[0]
            self._start = None if others else first.dataoffset  # None unless all pixels are contiguous, uncompressed
            ends = [self._start + first.nbytes] if self._start is not None else [
                offset + count for series in tiff.series for page in series.pages if page is not None
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=0) > size:
                raise ValueError(f"its pixels end at byte {max(ends)} of {size}")

    def _set_shape(self, shape: tuple[int, ...], axes: str) -> None:
        """Set the shape (N, H, W[, C]) from tifffile's shape and axes; raise UserError unless it is one stack."""
        self._planar = axes.endswith("SYX")  # all red of a colour image comes before all green
        if self._planar:
            shape, axes = (*shape[:-3], *shape[-2:], shape[-3]), axes[:-3] + "YXS"
        # two to four channels are those of a colour image; more are slices that a program called channels
        planes = [length for axis, length in zip(axes[:-1], shape, strict=False) if axis in "CS" and 2 <= length <= 4]
        if planes:
            raise UserError(f"{self.path} has {planes[0]} channels ({axes}, {shape}), expected grey slices; in Fiji: "
                            "Image > Color > Split Channels, or if they are slices say so in Image > Properties, "
                            "or in Python with imwrite(..., photometric='minisblack')")
        if 0 in shape:
            raise UserError(f"{self.path} holds no pixels; save it again from Fiji with File > Save As > Tiff")
        has_channels = axes.endswith(("S", "C"))
        if len(shape) == 2 + has_channels:
            shape = (1, *shape)
        if len(shape) != 3 + has_channels:
            raise UserError(f"{self.path} has {len(shape)} dimensions ({axes}, {shape}), expected one stack of slices; "
                            "in Fiji split it with Image > Color > Split Channels or Image > Stacks > Tools")
        self.shape = tuple(shape)

    def _read(self, number: int) -> np.ndarray | PageRows:
        with self._lock, self._user_errors(number):
            if self._start is not None:
                start = self._start + number * math.prod(self.shape[1:]) * self._stored.itemsize
                return self._raw_planes(start) if self._planar else raw_page(
                    self.path, self._stored, start, self.shape[1:], self._by_rows)
            if self._handle is None:
                self._handle = tifffile.TiffFile(self.path)
            series = self._handle.series
            if self._series_count > 1 or self._slice_per_page:
                parts = series[number].pages if self._series_count > 1 else series[0].pages[number:number + 1]
                read = (row_reader(parts[0], self.dtype) if self._by_rows and len(parts) == 1
                        and is_read_by_rows(self.shape[1:], self.dtype) else None)
                if read:
                    return PageRows(self.shape[1:], self.dtype, partial(self._read_rows, read, number))
                page = series[number].asarray() if self._series_count > 1 else parts[0].asarray()
            else:  # one TIFF page holds several slices: they are read together
                page = series[0].asarray().reshape(len(self), -1)[number]
            if self._planar:
                page = np.moveaxis(page.reshape(self.shape[-1], *self.shape[1:-1]), 0, -1)
            return page.reshape(self.shape[1:])

    def _raw_planes(self, start: int) -> np.ndarray | PageRows:
        """Read a page whose colours lie uncompressed one after the other, from byte `start` on."""
        *size, channels = self.shape[1:]
        planes = [raw_page(self.path, self._stored, start + channel * math.prod(size) * self._stored.itemsize, size,
                           self._by_rows) for channel in range(channels)]
        if isinstance(planes[0], PageRows):
            return PageRows(self.shape[1:], self.dtype,
                            lambda first, last: np.stack([plane[first:last] for plane in planes], axis=-1))
        return np.stack(planes, axis=-1)

    def _read_rows(self, read: Callable[[int, int], np.ndarray], number: int, first: int, last: int) -> np.ndarray:
        with self._lock, self._user_errors(number):
            return read(first, last).reshape(last - first, *self.shape[2:])

    @contextmanager
    def _user_errors(self, number: int | None = None) -> Iterator[None]:
        """Raise UserError for what tifffile raises, or logs as an error; `number` is the page that is read."""
        try:
            with collect_logs() as messages, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pixels can be read in spite of unusual metadata
                yield
            # tifffile reads what remains of a file that was cut short, and only logs that pages are missing
            for line in filter(BROKEN_TIFF.search, messages):
                raise ValueError(line.partition("> ")[2])
        except TIFF_ERRORS as error:
            cause = (str(error).splitlines() or [type(error).__name__])[0][:90]
            where = "" if number is None else f" at slice {number}"
            raise UserError(f"{self.path} cannot be read as a TIFF stack{where} ({cause}); it is cut short or not a "
                            "TIFF: copy it again, or save it from Fiji with File > Save As > Tiff") from None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_handle": None, "_lock": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def row_reader(page: tifffile.TiffPage | tifffile.TiffFrame, dtype: np.dtype
               ) -> Callable[[int, int], np.ndarray] | None:
    """Return a function that reads rows `first` to `last` - 1 of a page, (rows, W, C); None if it is decoded whole.

    The function decodes the strips or tiles that have these rows. It keeps the last two rows of strips or tiles, as
    the next rows usually begin there. It raises tifffile's errors.
    """
    layout = page.keyframe
    size = layout.tilelength if layout.is_tiled else layout.rowsperstrip
    across = math.ceil(layout.imagewidth / layout.tilewidth) if layout.is_tiled else 1
    strips = math.ceil(layout.imagelength / size)
    planes = layout.samplesperpixel if layout.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1
    if strips == 1 or planes * strips * across != len(page.dataoffsets) or layout.jpegheader is not None:
        return None  # jpegheader: a slide scanner's format
    places = np.arange(len(page.dataoffsets)).reshape(planes, strips, across)
    file, tables = page.parent.filehandle, {"jpegtables": page.jpegtables} if layout.compression in JPEGS else {}

    @lru_cache(2)
    def read_strip(number: int) -> np.ndarray:
        rows = np.empty((min(size, layout.imagelength - number * size), layout.imagewidth, layout.samplesperpixel),
                        dtype)
        for index in places[:, number].ravel().tolist():
            file.seek(page.dataoffsets[index])
            count = page.databytecounts[index]
            content = file.read(count)
            if len(content) < count:
                raise ValueError("it was cut short while it was being read")
            segment, (plane, _, _, column, _), shape = layout.decode(content or None, index, **tables)
            part = rows[:, column:column + shape[2], plane:plane + shape[3]]
            part[:] = layout.nodata if segment is None else segment[0, :part.shape[0], :part.shape[1]]
        return rows

    def read(first: int, last: int) -> np.ndarray:
        rows = np.empty((last - first, layout.imagewidth, layout.samplesperpixel), dtype)
        for number in range(first // size, math.ceil(last / size)):
            start = number * size
            rows[max(start - first, 0):start + size - first] = read_strip(number)[max(first - start, 0):last - start]
        return rows

    return read


@contextmanager
def collect_logs() -> Iterator[list[str]]:
    """Collect the warnings and errors that tifffile logs, instead of showing them."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def voxel_of(path: Path) -> Voxel | None:
    """Return the pixel size that a TIFF states; None for other formats, whose resolution is for printing only.

    None also for a damaged file: reading its pixels reports what is wrong.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        with collect_logs(), tifffile.TiffFile(path) as tiff:
            return voxel_of_tiff(tiff)
    except (*TIFF_ERRORS, OSError):
        return None


def common_voxel(paths: Iterable[Path]) -> Voxel | None:
    """Return the pixel size that all image files state; None if one states none, or they differ."""
    sizes = {voxel_of(path) for path in paths}
    return sizes.pop() if len(sizes) == 1 else None
