"""The ground floor: overlap tiles, writing that never leaves halves, reading TIFF stacks, errors in one line."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

# the files of an ISBI folder
VOLUME, LABELS, TEST = "train-volume.tif", "train-labels.tif", "test-volume.tif"

BROKEN_TIFF = re.compile(r"invalid page offset|invalid offset|corrupted|failed to reshape")
DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class UserError(Exception):
    """Something the user can mend: shown as one line, exit status 2."""


class NotLearning(UserError):
    """The training run ended without learning: shown as one line, exit status 3."""


def run(main: Callable[[], None]) -> None:
    """Call a script's `main` and leave with 0 done, 2 wrong input, 3 nothing learnt, 130 interrupted."""
    try:
        main()
    except NotLearning as error:
        _leave(3, error)
    except UserError as error:
        _leave(2, error)
    except KeyboardInterrupt as stop:
        _leave(130, stop if stop.args else "stopped; what was finished before is on disk, nothing is half-written")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        if error.errno in DISK_ERRORS:
            _leave(2, f"{place}the disk is full or its quota reached; free some space, or choose another folder "
                      "with --work or --out. Existing outputs are as they were")
        if isinstance(error, PermissionError) or error.errno in (errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            _leave(2, f"{place}cannot be written or read ({error.strerror}); choose another folder with --work "
                      "or --out, or mend its permissions")
        raise


def _leave(status: int, message: object) -> None:
    print(f"\n{Path(sys.argv[0]).name}: {message}" if status == 130 else f"{Path(sys.argv[0]).name}: {message}",
          file=sys.stderr)
    sys.exit(status)


# ---------------------------------------------------------------------------------------------- overlap tiles


@dataclass(frozen=True)
class OverlapTile:
    """Cut an image into tiles that overlap, and stitch their cores back together.

    The cores lie edge to edge on a regular grid that starts at the image's upper left corner; each tile is its core
    plus `margin` pixels of context on every side. Where a tile reaches beyond the image, the image is mirrored there
    (edge pixel not repeated). The overlap-tile strategy of Ronneberger et al. 2015, figure 2.

    Laws: `stitch(cut(image))` is `image` to the bit for every shape; and with a margin of at least the network's
    receptive-field radius, the stitched prediction is the prediction of the whole mirrored image. For a network that
    pools, `core` and `margin` must be multiples of its total stride, so that all tiles pool on one grid.

    Parameters
    ----------
    shape : (height, width) of the image, pixels
    core : side of the square that a tile answers for, pixels
    margin : context around the core, pixels
    """

    shape: tuple[int, int]
    core: int
    margin: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.core < 1 or self.margin < 0:
            raise ValueError(f"no tiles of core {self.core}, margin {self.margin} on an image of {self.shape}")

    @property
    def tile(self) -> int:
        """Side of a whole tile, core and both margins, in pixels."""
        return self.core + 2 * self.margin

    @property
    def grid(self) -> tuple[int, int]:
        """Number of tiles down and across."""
        return math.ceil(self.shape[0] / self.core), math.ceil(self.shape[1] / self.core)

    def __len__(self) -> int:
        return self.grid[0] * self.grid[1]

    def corners(self) -> list[tuple[int, int]]:
        """Upper left corner (y, x) of each core, row by row, in pixels."""
        rows, columns = self.grid
        return [(row * self.core, column * self.core) for row in range(rows) for column in range(columns)]

    def cut(self, image: np.ndarray, which: Iterable[int] | None = None) -> np.ndarray:
        """Tiles (n, tile, tile[, C]) of an image (H, W[, C]), its dtype; `which` picks tiles by their number."""
        if image.shape[:2] != tuple(self.shape):
            raise ValueError(f"these tiles are for images of {self.shape}, not {image.shape[:2]}")
        rows, columns = self.grid
        mirrored_y = _mirror(np.arange(-self.margin, rows * self.core + self.margin), self.shape[0])
        mirrored_x = _mirror(np.arange(-self.margin, columns * self.core + self.margin), self.shape[1])
        corners = self.corners()
        chosen = range(len(self)) if which is None else list(which)
        tiles = np.empty((len(chosen), self.tile, self.tile, *image.shape[2:]), image.dtype)
        for tile, number in zip(tiles, chosen, strict=True):
            y, x = corners[number]
            tile[:] = image[np.ix_(mirrored_y[y:y + self.tile], mirrored_x[x:x + self.tile])]
        return tiles

    def stitch(self, tiles: np.ndarray) -> np.ndarray:
        """Image (H, W[, C]) of tiles (n, side, side[, C]), `side` from core (a valid network's) to the whole tile."""
        tiles = np.asarray(tiles)
        side = tiles.shape[1]
        if len(tiles) != len(self) or tiles.shape[2] != side or not self.core <= side or (side - self.core) % 2:
            raise ValueError(f"expected {len(self)} tiles with cores of {self.core}, got {tiles.shape}")
        image = np.empty((*self.shape, *tiles.shape[3:]), tiles.dtype)
        for tile, corner in zip(tiles, self.corners(), strict=True):
            self.place(image, tile, corner)
        return image

    def place(self, image: np.ndarray, tile: np.ndarray, corner: tuple[int, int]) -> None:
        """Write one tile's core into `image` at its corner (y, x), cut off where the image ends."""
        y, x = corner
        skip = (tile.shape[0] - self.core) // 2
        height, width = min(self.core, self.shape[0] - y), min(self.core, self.shape[1] - x)
        image[y:y + height, x:x + width] = tile[skip:skip + height, skip:skip + width]


def _mirror(index: np.ndarray, size: int) -> np.ndarray:
    """Fold any index into 0 .. size-1 by mirroring at the first and last pixel (as np.pad's 'reflect')."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)


# ------------------------------------------------------------------------------------------- writing, all or none


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its ending, that takes its place only when all went well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place, with all that was written, when all went well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    finally:
        if old.exists() and not path.exists():  # the second rename failed: the old folder stays valid
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: str | Path, content: object) -> None:
    """Write `content` as indented JSON, all or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: str | Path, way_out: str) -> dict:
    """Read a JSON file of an earlier step; raises UserError, ending with `way_out`, where it is missing or broken."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path} not found; {way_out}") from None
    except ValueError as error:
        raise UserError(f"{path} is not what this project writes ({error}); {way_out}") from None


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------ TIFF stacks


def read_stack(path: str | Path, way_out: str = "") -> np.ndarray:
    """Read a TIFF as (N, H, W) or (N, H, W, C), its own dtype; a single page gives N = 1.

    Raises UserError where the file is missing, not a TIFF, cut short or empty; `way_out` ends the first of these.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} not found{'; ' + way_out if way_out else ''}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); copy it again")
    try:
        stack, axes = _read_series(path)
    except (tifffile.TiffFileError, ValueError, LookupError, RuntimeError, EOFError, ArithmeticError, TypeError,
            MemoryError, struct.error, zlib.error) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0][:90]
        raise UserError(f"{path} cannot be read as a TIFF stack ({cause}); it is cut short or not a TIFF: copy it "
                        "again, or save it from Fiji with File > Save As > Tiff") from None
    if stack.size == 0:
        raise UserError(f"{path} holds no pixels; save it again from Fiji with File > Save As > Tiff")
    has_channels = axes.endswith(("S", "C"))
    if stack.ndim == 2 + has_channels:
        stack = stack[np.newaxis]
    if stack.ndim != 3 + has_channels:
        raise UserError(f"{path} has {stack.ndim} dimensions ({axes}, {stack.shape}), expected one stack of slices; in "
                        "Fiji split it with Image > Color > Split Channels or Image > Stacks > Tools")
    return stack


def _read_series(path: Path) -> tuple[np.ndarray, str]:
    with _hear("tifffile") as heard, warnings.catch_warnings(), tifffile.TiffFile(path) as tiff:
        warnings.simplefilter("ignore")  # odd metadata does not stop the pixels from being read
        first, *others = tiff.series
        if any(series.shape != first.shape for series in others):
            raise UserError(f"{path} holds images of different sizes, expected one stack of slices; in Fiji: Image > "
                            "Stacks > Images to Stack, then File > Save As > Tiff")
        # no compression gains so much: a damaged size would fill the memory
        if sum(series.nbytes for series in tiff.series) > 2000 * path.stat().st_size + 10**6:
            raise ValueError(f"it announces {first.shape} pixels in {path.stat().st_size} bytes")
        # pages that a program appended one by one are a series each: together they are the stack
        stack = np.stack([series.asarray() for series in tiff.series]) if others else first.asarray()
    # of a file cut short tifffile reads what is left, and only logs that pages are missing
    for line in filter(BROKEN_TIFF.search, heard):
        raise ValueError(line.partition("> ")[2])
    return stack, first.axes


@contextmanager
def _hear(name: str) -> Iterator[list[str]]:
    """Collect what a library logs, warnings and worse, in place of showing it."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger(name)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextmanager
def stack_writer(path: str | Path, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield `write(page)`, which appends a page to one ImageJ stack of `shape` (N, H, W[, 3]); all or nothing.

    dtype uint8, uint16 or float32. Only the page at hand is in memory. Above 4 GiB the stack is still one that ImageJ
    reads: a header, then all pixels. Leaving without having written all N pages raises ValueError.
    """
    axes = "TYXS" if len(shape) == 4 else "ZYX"
    with atomic_path(path) as temporary:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*truncating ImageJ file")  # the layout described above
            tifffile.imwrite(temporary, shape=shape, dtype=dtype, imagej=True, metadata={"axes": axes},
                             photometric="rgb" if len(shape) == 4 else "minisblack")
        with tifffile.TiffFile(temporary) as tiff:
            start = tiff.pages[0].dataoffsets[0]
        end = start + math.prod(shape) * np.dtype(dtype).itemsize
        with open(temporary, "r+b") as file:
            file.seek(start)

            def write(page: np.ndarray) -> None:
                if page.shape != tuple(shape[1:]):
                    raise ValueError(f"page of {page.shape} in a stack of {shape}")
                file.write(np.ascontiguousarray(page, dtype).data)

            yield write
            if file.tell() != end:
                raise ValueError(f"{path}: {shape[0]} pages were announced, other than were written")


def write_stack(path: str | Path, stack: np.ndarray) -> None:
    """Write an array (N, H, W[, 3]) as an ImageJ stack, all or nothing; uint8, uint16 or float32."""
    with stack_writer(path, stack.shape, stack.dtype) as write:
        for page in stack:
            write(page)


def require_space(folder: str | Path, needed: int) -> None:
    """Raise UserError where `folder` cannot be written or has less than `needed` bytes free, ahead of the work."""
    folder = Path(folder).resolve()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{folder} is no folder that can be written; choose another with --work or --out")
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; free some "
                        "space, choose another folder with --work, or ask for fewer --copies")


def parse_slices(text: str, count: int) -> list[int]:
    """Slice numbers of a text like '25-29' or '3,7,25-29' in a stack of `count`, sorted; 'none' gives an empty list.

    Raises UserError where the text is no such list or names a slice that the stack does not have.
    """
    if text.strip().lower() == "none":
        return []
    chosen: set[int] = set()
    for part in text.split(","):
        ends = part.strip().split("-")
        if not 1 <= len(ends) <= 2 or not all(end.strip().isdecimal() for end in ends):
            raise UserError(f"'{text}' is no list of slices; write for instance 25-29, or 3,7,25-29, or none")
        first, last = int(ends[0]), int(ends[-1])
        if last >= count:  # before the range is counted out: a mistyped end may be as large as memory
            raise UserError(f"'{text}' names slices that are not there: the stack has {count}, numbered 0 to "
                            f"{count - 1}")
        if first > last:
            raise UserError(f"'{text}' counts backwards from {first} to {last}; write {last}-{first}")
        chosen.update(range(first, last + 1))
    return sorted(chosen)
