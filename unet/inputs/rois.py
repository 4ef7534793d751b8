"""Convert ImageJ's ROI sets, outlines that Fiji's ROI Manager saves as a RoiSet.zip, to numbered objects and back."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from scipy.ndimage import find_objects
from skimage.draw import polygon
from skimage.measure import find_contours

from utils import UserError, atomic_path

HOLE = "-hole"  # the name of an outline ends so if it is cut out of the object around it
SLICE_IN_NAME = re.compile(r"(\d{4,})-\d{4,}")  # ImageJ's own names of ROIs on a stack begin with the slice, from 1


def roifile_package() -> ModuleType:
    """Return the package that reads and writes ROIs; raise UserError if it is not installed."""
    try:
        import roifile
    except ImportError:
        raise UserError("ROI sets need the package roifile, which is not installed: pip install -r "
                        "requirements-labels.txt") from None
    return roifile


# -------------------------------------------------------------------------------------------- ROIs to numbers


def read_rois(path: Path, shape: Sequence[int]) -> np.ndarray:
    """Read ROIs as numbers uint16 (N, H, W), for a stack of this shape: 1, 2, ... in each slice, 0 = none.

    Where ROIs overlap, a pixel goes to the smaller one. A pixel belongs to an ROI if its centre does, as in ImageJ.
    Raises UserError for lines and points, slices that the stack does not have, and files that are not ROI sets.
    """
    package = roifile_package()
    try:
        rois = package.roiread(path)
        rois = rois if isinstance(rois, list) else [rois]
        slices: list[list[tuple[int, bool, tuple[np.ndarray, np.ndarray]]]] = [[] for _ in range(shape[0])]
        for roi in rois:
            pixels = _pixels_of(package, roi, shape[1:], path)
            slices[_slice_of(roi, shape[0], path)].append((len(pixels[0]), roi.name.endswith(HOLE), pixels))
    except (ValueError, OSError, struct.error, zipfile.BadZipFile, LookupError) as error:
        raise UserError(f"{path} cannot be read as ImageJ's ROIs ({str(error)[:80]}); save them in Fiji with ROI "
                        "Manager > More > Save...") from None
    numbers = np.zeros(shape, np.uint16)
    for page, its_rois in zip(numbers, slices, strict=True):
        count = 0
        for _, is_hole, pixels in sorted(its_rois, key=lambda roi: (-roi[0], not roi[1])):  # a hole, then what fills it
            count += not is_hole
            page[pixels] = 0 if is_hole else count
    return numbers


def _slice_of(roi: object, count: int, path: Path) -> int:
    """Return the slice of an ROI, from 0, by its position or its name; raise UserError unless it is in 0 .. count-1."""
    in_name = SLICE_IN_NAME.match(roi.name)
    number = roi.position or max(roi.z_position, roi.t_position) or (int(in_name[1]) if in_name else int(count == 1))
    if not 1 <= number <= count:
        where = f"belongs to slice {number}, but the images have {count}" if number else "belongs to no slice"
        raise UserError(f"{path}: ROI {roi.name} {where}; name the right images with --like, or set its position in "
                        "Fiji's ROI Manager: More > Properties...")
    return number - 1


def _pixels_of(package: ModuleType, roi: object, shape: Sequence[int], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (y, x) whose centres lie in an ROI; raise UserError for lines and points."""
    outlines = package.ROI_TYPE
    if roi.roitype not in (outlines.POLYGON, outlines.RECT, outlines.OVAL, outlines.FREEHAND, outlines.TRACED):
        raise UserError(f"{path}: ROI {roi.name} is a {roi.roitype.name.lower()}, expected an outline; draw it with "
                        "the freehand, polygon or wand tool, or delete it")
    # ImageJ counts from the corner of the first pixel
    parts = [polygon(y, x, shape) for x, y in (np.asarray(part, float).T - 0.5 for part in roi.coordinates(multi=True))]
    if len(parts) == 1:
        return parts[0]
    inside = np.zeros(shape, bool)
    for part in parts:  # a hole is an outline inside another
        inside[part] ^= True
    return np.nonzero(inside)


# -------------------------------------------------------------------------------------------- numbers to ROIs


def write_rois(path: Path, stack: np.ndarray) -> int:
    """Write the outline of each object of numbers (N, H, W) into a RoiSet.zip, all or nothing; return how many.

    Outlines run along the edges of pixels, so that no pixel is lost. Each piece of an object has an outline of its own,
    and so has each hole, whose name ends with `HOLE`.
    """
    package, names = roifile_package(), set()

    def rois() -> Iterator[object]:
        for number, page in enumerate(stack):
            for name, points in outlines(page):
                roi = package.ImagejRoi.frompoints(points, name=f"{number + 1:04d}-{name}", position=number)
                roi.roitype = package.ROI_TYPE.TRACED
                names.add(roi.name)
                yield roi

    with atomic_path(path) as temporary:
        package.roiwrite(temporary, rois(), mode="w")
    return len(names)


def outlines(page: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a name and the corners, int (n, 2), x and y, of each outline in numbers (H, W)."""
    for number, box in enumerate(find_objects(page.astype(np.int32)), 1):
        if box is None:
            continue
        counts = {"": 0, HOLE: 0}
        for contour in find_contours(np.pad(page[box] == number, 1).astype(float), 0.5):
            corners = _corners(contour) + np.array([box[1].start - 1, box[0].start - 1])
            x, y = corners.T.astype(np.int64)
            hole = HOLE if np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) < 0 else ""
            counts[hole] += 1
            yield f"{number:04d}{f'-{counts[hole]}' * (counts[hole] > 1)}{hole}", corners


def _corners(contour: np.ndarray) -> np.ndarray:
    """Return the pixel corners, int (n, 2), x and y, of a contour (y, x) through the middles of pixel edges."""
    middles = contour[:-1] + 0.5  # the pixel (0, 0) goes from 0 to 1
    following = np.roll(middles, -1, axis=0)
    # successive edges have an end in common: take each coordinate from the middle where it is whole, else both's mean
    ends = np.where(middles % 1 == 0, middles, np.where(following % 1 == 0, following, (middles + following) / 2))
    points = np.rint(ends).astype(np.int64)[:, ::-1]
    steps = np.roll(points, -1, axis=0) - points
    return points[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]  # without those within a straight line
