"""An image too large for memory many times over: predicted, redrawn and numbered by bands of rows, kept in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from unet.scores.isbi import components
from unet.segment.basins import basins
from utils import atomic_path

OVERLAP = 256  # rows around a band that are looked at with it: more than a cell, which then lies whole in one of them
AT_ONCE = 8_000_000  # pixels of a band without its overlap, roughly: what is drawn and numbered takes 60 bytes a pixel


class Bands:
    """An image's rows (H, W[, C]) in files of `step` rows each; gives and takes rows as an array does.

    What takes an array whole (`np.asarray`) gets it, in memory.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: type, step: int):
        self.folder, self.shape, self.dtype, self.step = folder, tuple(shape), np.dtype(dtype), step
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def spans(self) -> Iterator[tuple[int, int]]:
        """First row of each band, and that after its last."""
        for first in range(0, len(self), self.step):
            yield first, min(first + self.step, len(self))

    def get(self, first: int) -> np.ndarray | None:
        """The band that begins at a row; None where it is not there, or a power cut came before it was on the disk."""
        try:
            return np.load(self._path(first), allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):
            return None

    def put(self, first: int, rows: np.ndarray) -> None:
        """Keep the band that begins at a row; all or nothing."""
        with atomic_path(self._path(first)) as temporary:
            np.save(temporary, rows.astype(self.dtype, copy=False), allow_pickle=False)

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(len(self))
        parts = [self.get(start)[max(first - start, 0):last - start]
                 for start in range(first // self.step * self.step, last, self.step)]
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self.dtype)

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        result = np.empty(self.shape, dtype or self.dtype)
        for first, last in self.spans():
            result[first:last] = self.get(first)
        return result

    def channels_first(self) -> Planes:
        """The same rows as (C, H, W)."""
        return Planes(self)

    def max(self) -> float:
        """The greatest value of all."""
        return max(self.get(first).max() for first, _ in self.spans())

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:08}.npy"


class Planes:
    """Bands (H, W, C) as (C, H, W): what goes over it gets the planes, each with rows as an array has them."""

    def __init__(self, bands: Bands):
        self.bands, self.shape = bands, (bands.shape[-1], *bands.shape[:-1])
        self.ndim, self.dtype = bands.ndim, bands.dtype

    def __iter__(self) -> Iterator[Plane]:
        return (Plane(self.bands, channel) for channel in range(self.shape[0]))

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        return np.moveaxis(self.bands[part[1]], -1, 0)[part[0]]


class Plane:
    """A channel of `Bands`, (H, W)."""

    def __init__(self, bands: Bands, channel: int):
        self.bands, self.channel = bands, channel

    def __len__(self) -> int:
        return len(self.bands)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.bands[rows][..., self.channel]


def height_of(width: int) -> int:
    """Rows of a band to draw and to number at once, of an image so wide."""
    return max(AT_ONCE // width, OVERLAP)


def redraw_by_bands(probability: Bands, redraw: Callable[[np.ndarray], np.ndarray], folder: Path, height: int,
                    overlap: int = OVERLAP) -> Bands:
    """`redraw` a probability (H, W), each band together with `overlap` rows above and below it."""
    result = Bands(folder, probability.shape, np.float32, height)
    for first, last in result.spans():
        above = max(first - overlap, 0)
        result.put(first, redraw(probability[above:last + overlap])[first - above:last - above])
    return result


def number_by_bands(redrawn: Bands, inside: Callable[[np.ndarray], np.ndarray], folder: Path, height: int,
                    overlap: int = OVERLAP) -> Bands:
    """Number the cells of a probability (H, W), int32 (H, W), 1, 2, ...; 0 = border, which is thinned.

    `inside` says of rows, bool (h, W), where cell is. As `number_cells` of the whole: its pieces flood the border
    between them, each band together with `overlap` rows around it.
    """
    cells, result = pieces_by_bands(redrawn, inside, folder / "cells", height), Bands(
        folder, redrawn.shape, np.int32, height)
    for first, last in result.spans():
        top = max(first - overlap, 0)
        result.put(first, basins(0, cells[top:last + overlap])[first - top:last - top])
    return result


def pieces_by_bands(redrawn: Bands, inside: Callable[[np.ndarray], np.ndarray], folder: Path, height: int) -> Bands:
    """Number the 4-connected pieces of one kind, int32 (H, W), 1, 2, ...; 0 = none.

    `inside` says of rows (h, W[, C]) of which kind each pixel is, bool or int (h, W), 0 = none. A piece gets one number
    over all bands: union-find, as connected components of the graph of all that touch across two bands.
    """
    pieces, count, pairs, above = Bands(folder / "pieces", redrawn.shape[:2], np.int32, height), 0, [], None
    for first, last in pieces.spans():
        kinds = inside(redrawn[first:last])
        band = components(kinds) if kinds.dtype == bool else label(kinds, background=0, connectivity=1)
        band[band > 0] += count
        count = max(count, int(band.max()))
        if above is not None:
            both = (above[1] > 0) & (above[0] == kinds[0])
            pairs.append(np.stack([above[1][both], band[0][both]]))
        above = kinds[-1], band[-1]
        pieces.put(first, band)
    one, other = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), int)
    joined = coo_array((np.ones(len(one)), (one, other)), (count + 1, count + 1))
    numbers = connected_components(joined, directed=False)[1].astype(np.int32)  # of 0, which touches nothing, it is 0
    result = Bands(folder, redrawn.shape[:2], np.int32, height)
    for first, last in result.spans():
        result.put(first, numbers[pieces[first:last]])
    return result


def segment_by_bands(redrawn: Bands, inside: Callable[[np.ndarray], np.ndarray],
                     segment: Callable[[np.ndarray], np.ndarray], folder: Path, height: int, overlap: int = OVERLAP
                     ) -> Bands:
    """`segment` a probability (H, W) that is nothing outside of pieces; int32 (H, W), 1, 2, ...; 0 = none.

    For what happens in each 4-connected piece of `inside`, bool (h, W), alone, as a watershed within a mask does: the
    result is that of the whole, up to the order of the numbers. A piece is worked on in the band that it begins in,
    with as many rows below as it takes, `overlap` of them at first.
    """
    result, count = Bands(folder, redrawn.shape, np.int32, height), 0
    hanging = np.zeros((0, redrawn.shape[1]), np.int32)  # what pieces of bands before have in the rows to come
    for first, last in result.spans():
        top, below = max(first - 1, 0), overlap
        while True:
            window = redrawn[top:last + below]
            pieces = components(inside(window))
            mine = np.zeros(pieces.max() + 1, bool)
            mine[pieces[first - top:last - top]] = True
            mine[pieces[:first - top]] = False  # it goes on from the band before
            mine[0] = False
            if top + len(window) == len(redrawn) or not mine[pieces[-1]].any():
                break
            below *= 2
        objects = segment(np.where(mine[pieces], window, 0))[first - top:]
        objects[objects > 0] += count
        count = max(count, int(objects.max()))
        rows = np.zeros((max(len(objects), len(hanging)), redrawn.shape[1]), np.int32)
        rows[:len(hanging)] = hanging
        rows[:len(objects)][objects > 0] = objects[objects > 0]  # one that lies in another's hole is itself
        result.put(first, rows[:last - first])
        used = np.flatnonzero(rows.any(axis=1))
        hanging = rows[last - first:used[-1] + 1 if used.size else 0]
    return result


NUMBERING = {  # by what a task's `objects_are` says: of redrawn rows, what is inside, how to segment, where to, height
    "thinned": lambda redrawn, inside, segment, folder, height: number_by_bands(redrawn, inside, folder, height),
    "kinds": lambda redrawn, inside, segment, folder, height: pieces_by_bands(redrawn, inside, folder, height),
    "pieces": segment_by_bands}
