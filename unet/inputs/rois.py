"""ImageJ's ROI sets: outlines to numbers and back. A RoiSet.zip is what Fiji's ROI Manager saves."""

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

HOLE = "-hole"  # ends the name of an outline that is cut out of the object around it
IN_NAME = re.compile(r"(\d{4,})-\d{4,}")  # ImageJ's own names of ROIs on a stack begin with the slice, from 1


def roifile_package() -> ModuleType:
    """The package that reads and writes ROIs; raises UserError where it is not installed."""
    try:
        import roifile
    except ImportError:
        raise UserError("ROI sets need the package roifile, which is not installed: pip install -r "
                        "requirements-labels.txt") from None
    return roifile


# -------------------------------------------------------------------------------------------- ROIs to numbers


def read_rois(path: Path, shape: Sequence[int]) -> np.ndarray:
    """Numbers uint16 (N, H, W) of a stack of this shape: 1, 2, ... in each slice for its ROIs, 0 = none.

    Where ROIs overlap the smaller one is seen. A pixel belongs to an ROI that its middle lies in, as in ImageJ.
    Raises UserError for lines and points, slices that the stack does not have, and files that are no ROI sets.
    """
    package = roifile_package()
    try:
        rois = package.roiread(path)
        rois = rois if isinstance(rois, list) else [rois]
        shapes: list[list[tuple[int, bool, tuple[np.ndarray, np.ndarray]]]] = [[] for _ in range(shape[0])]
        for roi in rois:
            place = _filled(package, roi, shape[1:], path)
            shapes[_slice_of(roi, shape[0], path)].append((len(place[0]), roi.name.endswith(HOLE), place))
    except (ValueError, OSError, struct.error, zipfile.BadZipFile, LookupError) as error:
        raise UserError(f"{path} cannot be read as ImageJ's ROIs ({str(error)[:80]}); save them in Fiji with ROI "
                        "Manager > More > Save...") from None
    numbers = np.zeros(shape, np.uint16)
    for page, its_rois in zip(numbers, shapes, strict=True):
        count = 0
        for _, hole, place in sorted(its_rois, key=lambda one: (-one[0], not one[1])):  # a hole, then what fills it
            count += not hole
            page[place] = 0 if hole else count
    return numbers


def _slice_of(roi: object, count: int, path: Path) -> int:
    named = IN_NAME.match(roi.name)
    number = roi.position or max(roi.z_position, roi.t_position) or (int(named[1]) if named else int(count == 1))
    if not 1 <= number <= count:
        where = f"belongs to slice {number}, but the images have {count}" if number else "belongs to no slice"
        raise UserError(f"{path}: ROI {roi.name} {where}; name the right images with --like, or set its position in "
                        "Fiji's ROI Manager: More > Properties...")
    return number - 1


def _filled(package: ModuleType, roi: object, shape: Sequence[int], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (y, x) whose middles lie in an ROI."""
    kinds = package.ROI_TYPE
    if roi.roitype not in (kinds.POLYGON, kinds.RECT, kinds.OVAL, kinds.FREEHAND, kinds.TRACED):
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
    """Write the outline of each object of numbers (N, H, W) into a RoiSet.zip; all or nothing; returns how many.

    Outlines run along the edges of pixels, so that nothing is lost. An object's pieces are outlines of their own, and
    so are holes, which their name says.
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
    """A name and the corners int (n, 2), x and y, of each outline in numbers (H, W)."""
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
    """Corners of pixels, int (n, 2), x and y, of a contour that goes through the middles of their edges (y, x)."""
    middles = contour[:-1] + 0.5  # the pixel (0, 0) goes from 0 to 1
    following = np.roll(middles, -1, axis=0)
    # two edges that follow each other have one end in common: whole where either's middle is, else between the two
    ends = np.where(middles % 1 == 0, middles, np.where(following % 1 == 0, following, (middles + following) / 2))
    points = np.rint(ends).astype(np.int64)[:, ::-1]
    steps = np.roll(points, -1, axis=0) - points
    return points[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]  # those in the middle of a straight line go
