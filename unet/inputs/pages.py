"""Open files and folders of any format as pages that are read one at a time."""

from __future__ import annotations

import glob
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError

import imagecodecs
import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin

from unet.inputs.lazy import PageRows, Pages, raw_page, require_file
from unet.inputs.stacks import TEST
from unet.inputs.tiffs import TiffPages, voxel_of
from unet.inputs.zarrs import ZarrPages, is_zarr
from utils import UserError

PNG, JPEG, TIFF = (".png",), (".jpg", ".jpeg"), (".tif", ".tiff")
SAMPLE_FILES = 200  # files, whose sizes can be read within a second
AS_PNG = "open it in Fiji and save it with File > Save As > PNG"
DECODING_ERRORS = (ValueError, RuntimeError, MemoryError, OSError, SyntaxError, LookupError, struct.error)


def open_pages(path: str | Path, way_out: str = "") -> Pages:
    """Open a TIFF, PNG, JPEG or .npy file, a Zarr, or a folder or a pattern (`*`) of images of one size as pages.

    Reads only what tells their shape. Raises UserError, which ends with `way_out` if there is no such file.
    """
    path = Path(path)
    if is_zarr(path):
        return ZarrPages(path, way_out)
    if path.is_dir():
        if (path / TEST).is_file():
            raise UserError(f"{path} is a folder of stacks; name one of them, for instance {path / TEST}")
        return FilePages(path, [file for file in path.iterdir() if not file.name.startswith(".")])
    if not path.exists() and glob.has_magic(str(path)):
        return FilePages(path, [Path(name) for name in glob.glob(str(path), recursive=True)])
    if path.suffix.lower() == ".npy":
        return NpyPages(path, way_out)
    if path.suffix.lower() in PNG + JPEG:
        require_file(path, way_out)
        return FilePages(path, [path])
    return TiffPages(path, way_out, by_rows=True)


class FilePages(Pages):
    """Files that are one page each, in the order of the numbers in their names; all of the same size and type."""

    def __init__(self, path: Path, files: list[Path]):
        self.path = path
        self.files = sorted((file for file in files if file.suffix.lower() in PNG + JPEG + TIFF), key=natural)
        if not self.files:
            example = f", for instance {path / 'images'}" if (path / "images").is_dir() else ""
            raise UserError(f"{path} has no PNG, JPEG or TIFF image; name a folder of images, or one file{example}")
        self.names = [name_of(file) for file in self.files]
        first, size = self._read(0), size_of(self.files[0])
        for file in self.files[1:]:
            height, width = size_of(file)
            if (height, width) != size:
                raise UserError(f"{file} is {height}x{width} pixels but {self.files[0].name} is {size[0]}x{size[1]}; "
                                "images of one stack have the same size")
        self.shape, self.dtype, self.voxel = (len(self.files), *first.shape), first.dtype, voxel_of(self.files[0])

    def _read(self, number: int) -> np.ndarray:
        page = read_pixels(self.files[number])
        page = page[..., 0] if page.shape[2] == 1 else page
        if number and (page.shape, page.dtype) != (self.shape[1:], self.dtype):
            raise UserError(f"{self.files[number]} is {page.shape} {page.dtype} but {self.files[0].name} is "
                            f"{self.shape[1:]} {self.dtype}; images of one stack have the same size and type")
        return page


class NpyPages(Pages):
    """The pages of an array that `np.save` wrote: (H, W), (N, H, W), (H, W, 3) or (N, H, W, C)."""

    def __init__(self, path: Path, way_out: str = ""):
        self.path, self.files = path, [path]
        require_file(path, way_out)
        array = self._open()
        if array.ndim not in (2, 3, 4):
            raise UserError(f"{path} has {array.ndim} dimensions {array.shape}, expected (H, W), (N, H, W) or "
                            "(N, H, W, C)")
        self._single = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4) and array.shape[0] > 4)
        self.shape = (1, *array.shape) if self._single else array.shape
        if 0 in self.shape:
            raise UserError(f"{path} holds no pixels {array.shape}; save it again")
        self.dtype, self._stored = array.dtype.newbyteorder("="), array.dtype
        self._start = array.offset if array.flags.c_contiguous else None
        self.names = [f"slice {number}" for number in range(len(self))]

    def _open(self) -> np.ndarray:
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (*DECODING_ERRORS, EOFError, TypeError, ArithmeticError, TokenError) as error:
            cause = (str(error).splitlines() or [type(error).__name__])[0][:90]
            raise UserError(f"{self.path} cannot be read as a NumPy array ({cause}); save it again with np.save, as an "
                            "array of numbers") from None

    def _read(self, number: int) -> np.ndarray | PageRows:
        if self._start is None:  # the array was saved in column order
            array = self._open()
            return np.array(array if self._single else array[number], self.dtype)
        start = self._start + number * math.prod(self.shape[1:]) * self._stored.itemsize
        return raw_page(self.path, self._stored, start, self.shape[1:])


def read_pixels(path: Path, by_rows: bool = False) -> np.ndarray | PageRows:
    """Read a PNG, JPEG or TIFF file as (H, W, 1) or (H, W, 3), own dtype; palettes as colours, no transparency.

    With `by_rows` a TIFF may be `PageRows`; the caller has to pass these through `without_transparency`.
    Raises UserError if the file is empty, damaged, or not a single image.
    """
    suffix = path.suffix.lower()
    if suffix in TIFF:
        stack = TiffPages(path, by_rows=by_rows)
        if len(stack) != 1:
            raise UserError(f"{path} has {len(stack)} pages, expected one image; in Fiji: Image > Stacks > Stack to "
                            "Images, then save each")
        pixels = stack[0]
        if isinstance(pixels, PageRows):
            return pixels
    else:
        if not path.is_file() or not path.stat().st_size:
            raise UserError(f"{path} is {'empty (0 bytes)' if path.exists() else 'not there'}; copy it again")
        name, decode = ("JPEG", imagecodecs.jpeg_decode) if suffix in JPEG else ("PNG", imagecodecs.png_decode)
        content = path.read_bytes()
        try:
            pixels = decode(content)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise UserError(f"{path} cannot be read as a {name} image ({str(error)[:60]}), it is cut short or not a "
                            f"{name}; copy it again, or {AS_PNG}") from None
        if name == "JPEG" and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):  # no end after the pixels' start
            raise UserError(f"{path} is cut short: the last part of the image is missing; copy it again")
        if name == "JPEG" and pixels.shape[2:] == (4,):  # JPEG has no transparency
            raise UserError(f"{path} has four channels (CMYK), expected a grey or RGB image; {AS_PNG}")
    if pixels.size == 0:
        raise UserError(f"{path} holds no pixels; copy it again, or {AS_PNG}")
    return without_transparency(pixels, path)


def without_transparency(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Return pixels (H, W[, C]) of a file as (H, W, 1) or (H, W, 3); raise UserError for more than four channels."""
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if pixels.shape[2] not in (1, 2, 3, 4):
        raise UserError(f"{path} has {pixels.shape[2]} channels, expected a grey or colour image; {AS_PNG}")
    return pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]


def size_of(path: Path) -> tuple[int, int]:
    """Return height and width of an image file, from its header."""
    suffix = path.suffix.lower()
    if suffix in TIFF:
        return TiffPages(path).shape[1:3]
    try:
        with (JpegImagePlugin.JpegImageFile if suffix in JPEG else PngImagePlugin.PngImageFile)(path) as image:
            return image.height, image.width
    except DECODING_ERRORS:
        return read_pixels(path).shape[:2]  # reports what is wrong with the file


def area_of(files: Sequence[Path]) -> int:
    """Return how many pixels all image files have together; estimate it from `SAMPLE_FILES`, if there are more."""
    sample = files[::max(1, len(files) // SAMPLE_FILES)]
    return sum(math.prod(size_of(path)) for path in sample) * len(files) // max(1, len(sample))


def name_of(path: Path) -> str:
    """Return the name of an image file without its ending, which has two parts if it is an OME-TIFF's."""
    return path.stem.removesuffix(".ome")


def natural(path: Path) -> list:
    """Return a key that sorts a9 before a10; texts and numbers alternate, so that only like parts are compared."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", str(path))]
