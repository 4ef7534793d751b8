"""What all files use: overlap tiles, writing files whole or not at all, errors in one line."""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import numpy as np

DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
NUMPY_DISK_ERROR = re.compile(r"\d+ requested and \d+ written")  # np.save's, which has no errno
PLACE_ERRORS = (errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


class UserError(Exception):
    """An error that the user can fix: shown as one line, exit status 2."""


class NotLearning(UserError):
    """The training run ended without learning: shown as one line, exit status 3."""


def run(main: Callable[[], None]) -> None:
    """Call a script's `main` and exit: 0 success, 2 wrong input, 3 nothing learnt, 130 interrupted, 143 terminated.

    SIGTERM, with which a cluster ends a job, has the same effect as Ctrl-C.
    """
    interrupt_status = 130

    def terminate(*_: object) -> None:
        nonlocal interrupt_status
        interrupt_status = 143
        raise KeyboardInterrupt

    before, interrupt = signal.signal(signal.SIGTERM, terminate), signal.getsignal(signal.SIGINT)
    try:
        if interrupt == signal.SIG_DFL:  # see unet/system/signals.py
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        try:
            print(flush=True)
        except BrokenPipeError:  # whoever reads what is printed has read enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it ends
            sys.exit(1)
        raise  # it was another pipe
    except NotLearning as error:
        _exit(3, error)
    except UserError as error:
        _exit(2, error)
    except KeyboardInterrupt as stop:
        _exit(interrupt_status,
              stop if stop.args else "stopped; what was finished before is on disk, nothing is half-written")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        if error.errno in DISK_ERRORS or NUMPY_DISK_ERROR.fullmatch(str(error)):
            _exit(2, f"{place}the disk is full or its quota is reached; free some space, or choose another folder "
                     "with --work, --out or --data. Existing outputs are unchanged")
        if isinstance(error, PermissionError) or error.errno in PLACE_ERRORS:
            _exit(2, f"{place}cannot be written or read ({error.strerror}); choose another folder with --work, "
                     "--out or --data, or change its permissions")
        raise
    except MemoryError as error:
        _exit(2, f"memory ran out ({error}); use smaller images or tiles, a smaller --batch or fewer --workers")
    finally:
        if interrupt == signal.SIG_DFL:  # for a second Ctrl-C, while the interpreter exits
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, before)


def _exit(status: int, message: object) -> None:
    line_break = "\n" if status in (130, 143) else ""  # after the terminal's ^C
    print(f"{line_break}{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(status)


# ---------------------------------------------------------------------------------------------- overlap tiles


@dataclass(frozen=True)
class OverlapTile:
    """Tiles that overlap, and their cores, from which an image is stitched back together.

    The cores lie edge to edge on a regular grid that starts at the image's upper left corner; each tile is its core
    plus `margin` pixels of context on every side. Where a tile reaches beyond the image, the image is mirrored (without
    repeating the edge pixel). This is the overlap-tile strategy of Ronneberger et al. 2015, figure 2.

    Laws: for every shape, the cores `core_of(tile_at(image, corner), corner)` at all `corners()` are the image to the
    bit. If the margin is at least the radius of the network's receptive field, the stitched prediction equals that of
    the whole mirrored image. For a network that pools, `core` and `margin` must be multiples of its total stride, so
    that all tiles pool on one grid.

    Parameters
    ----------
    shape : (height, width) of the image, pixels
    core : side of the square of a tile that is stitched, pixels; or its (height, width)
    margin : context around the core, pixels
    """

    shape: tuple[int, int]
    core: int | tuple[int, int]
    margin: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or min(self.cores) < 1 or self.margin < 0:
            raise ValueError(f"no tiles of core {self.core}, margin {self.margin} on an image of {self.shape}")

    @property
    def cores(self) -> tuple[int, int]:
        """Height and width of a core, in pixels."""
        return (self.core, self.core) if isinstance(self.core, int) else self.core

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of a whole tile, core and both margins, in pixels."""
        return self.cores[0] + 2 * self.margin, self.cores[1] + 2 * self.margin

    @property
    def grid(self) -> tuple[int, int]:
        """Number of tiles down and across."""
        return math.ceil(self.shape[0] / self.cores[0]), math.ceil(self.shape[1] / self.cores[1])

    def __len__(self) -> int:
        return self.grid[0] * self.grid[1]

    def corners(self) -> list[tuple[int, int]]:
        """Return the upper left corner (y, x) of each core, row by row, in pixels."""
        rows, columns = self.grid
        height, width = self.cores
        return [(row * height, column * width) for row in range(rows) for column in range(columns)]

    def window(self, corner: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return upper left corner (y, x) and size (height, width), pixels, of the tile around the core at `corner`."""
        return (corner[0] - self.margin, corner[1] - self.margin), self.sides

    def tile_at(self, image: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
        """Cut the tile (h, w[, C]) around the core at `corner` out of an image (H, W[, C])."""
        first, size = self.window(corner)
        return OverlapTile(self.shape, size).cut_at(image, [first])[0]

    def core_of(self, tile: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
        """Crop the tile (h, w[, C]) around the core at `corner` to the core; a prediction may lack the tile's edges."""
        first, size = self.window(corner)
        parts = []
        for start, tile_start, tile_side, side, core, image_side in zip(
                corner, first, size, tile.shape[:2], self.cores, self.shape, strict=True):
            skip = start - tile_start - (tile_side - side) // 2
            parts.append(slice(skip, skip + min(core, image_side - start)))
        return tile[tuple(parts)]

    def cut_at(self, image: np.ndarray, corners: list[tuple[int, int]]) -> np.ndarray:
        """Cut whole tiles (n, height, width[, C]) whose upper left pixels are at `corners` (y, x), anywhere."""
        if image.shape[:2] != tuple(self.shape):
            raise ValueError(f"these tiles are for images of {self.shape}, not {image.shape[:2]}")
        tiles = np.empty((len(corners), *self.sides, *image.shape[2:]), image.dtype)
        for tile, (y, x) in zip(tiles, corners, strict=True):
            rows = mirror(np.arange(y, y + self.sides[0]), self.shape[0])
            columns = mirror(np.arange(x, x + self.sides[1]), self.shape[1])
            tile[:] = image.take(rows, axis=0).take(columns, axis=1)  # 5 to 10 times faster than indexing
        return tiles

    def inside(self) -> list[tuple[int, int]]:
        """Return the upper left corners (y, x) of whole tiles that cover the image evenly and do not reach beyond it.

        Neighbours overlap by both margins or more. An image that is smaller than a tile lies in the tile's middle.
        """
        starts = []
        for size, side, core in zip(self.shape, self.sides, self.cores, strict=True):
            count = math.ceil(max(size - side, 0) / core) + 1
            first, last = (0, size - side) if size > side else ((size - side) // 2,) * 2
            starts.append(np.linspace(first, last, count).round().astype(int).tolist())
        return [(y, x) for y in starts[0] for x in starts[1]]


def apply_symmetry(array: np.ndarray, turn: int) -> np.ndarray:
    """Return one of the square's eight symmetries of an array (H, W[, C]): a view, whose sides may be swapped."""
    return np.rot90(array[:, ::-1] if turn >= 4 else array, turn)


def mirror(index: np.ndarray, size: int) -> np.ndarray:
    """Fold indices or coordinates into 0 .. size-1 by mirroring at the first and last pixel (np.pad's 'reflect')."""
    last = size - 1
    if not last:
        return np.zeros_like(index)
    if index.min() < -last or index.max() > 2 * last:  # farther than one mirror image
        index = (index + last) % (2 * last) - last
    return last - np.abs(last - np.abs(index))


# ------------------------------------------------------------------------------------------- writing, all or none


def temporary_path(path: Path, process: int) -> Path:
    """Return where a process writes the file that will replace `path`."""
    return path.with_name(f".{path.stem}.{process}{path.suffix}")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its ending, that replaces it only if all went well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path, os.getpid())
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that replaces it, with all that was written, only if all went well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.{os.getpid()}.", dir=path.parent))
    temporary.chmod(0o755)  # as mkdir does; mkdtemp's folders are only for the owner
    try:
        yield temporary
        replace_folder(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(path: Path, new: Path) -> None:
    """Replace the folder `path` by the folder `new`; if that fails, restore the old one."""
    old = new.with_name(new.name + ".old")
    try:
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        if old.exists() and not path.exists():  # the second rename failed: the old folder stays valid
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: str | Path, content: object) -> None:
    """Write `content` as indented JSON, all or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: str | Path, way_out: str, keys: tuple[str, ...] = ()) -> dict:
    """Read a JSON file of an earlier step, which must have these keys.

    Raises UserError, ending with `way_out`, if it is missing, broken or of another version.
    """
    try:
        content = json.loads(Path(path).read_text())
        missing = [key for key in keys if key not in content]
        if missing:
            raise ValueError(f"no {', '.join(missing)}")
        return content
    except FileNotFoundError:
        raise UserError(f"{path} not found; {way_out}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not what this project writes ({error}); {way_out}") from None


def file_hash(path: str | Path) -> str:
    """Compute the SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def input_hash(path: str | Path) -> str:
    """Compute the SHA-256 of a file's bytes, or of the names and bytes of a folder's files, except hidden ones."""
    path = Path(path)
    if not path.is_dir():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            digest.update(f"{file.relative_to(path).as_posix()}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()


def require_space(folder: str | Path, needed: int) -> None:
    """Raise UserError before the work starts if `folder` cannot be written or has less than `needed` bytes free."""
    folder = Path(folder).resolve()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{folder} is not a folder that can be written; choose another with --work or --out")
    free = shutil.disk_usage(folder).free
    if free < needed:
        unit, size = ("GB", 1e9) if needed >= 1e9 else ("MB", 1e6)
        raise UserError(f"{folder}: {needed / size:.1f} {unit} are needed and {free / size:.1f} {unit} are free; free "
                        "some space, choose another folder with --work or --out, or ask for fewer --copies")


def count_of(count: int, noun: str) -> str:
    """Return a count in words: '1 image', '1,200 images'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def at_least(least: float, number_type: type = int) -> Callable[[str], float]:
    """Return a type for argparse: a number of this type, `least` or more."""
    def number(text: str) -> float:
        try:
            value = number_type(text)
        except ValueError:
            value = None
        if value is None or not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not {'a whole ' if number_type is int else 'a '}number of "
                                             f"{least:g} or more")
        return value
    return number


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that adds each default value; if there is none, an option's text says what happens without it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_value = action.default not in (None, "") and not isinstance(action.default, bool)
        return super()._get_help_string(action) if has_value else action.help


class Parser(argparse.ArgumentParser):
    """A script's options; an error in them is one line, exit status 2, and suggests an option of a similar name."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"formatter_class": Help, **settings})

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
        near = get_close_matches(unknown[1], self._option_string_actions, 1) if unknown else []
        self.exit(2, f"{self.prog}: {message}; {f'did you mean {near[0]}? ' if near else ''}--help lists all options\n")
