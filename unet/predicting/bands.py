"""Images many times larger than memory: predicted, redrawn and numbered by bands of rows, which are kept in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from unet.scores.isbi import components
from unet.segment.basins import basins
from utils import atomic_path

OVERLAP = 256  # rows above and below a band to process with it: more than a cell, so that some band has it whole
BAND_PIXELS = 8_000_000  # of a band without its overlap, roughly; drawing and numbering take 60 bytes a pixel


class Bands:
    """The rows of an image (H, W[, C]) in files of `step` rows each, which are read as an array's rows are.

    `np.asarray` loads the whole image into memory.
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
        """Iterate over the bands: first row, and the row after the last."""
        for first in range(0, len(self), self.step):
            yield first, min(first + self.step, len(self))

    def get(self, first: int) -> np.ndarray | None:
        """Load the band that begins at a row; None if it is missing, or incomplete because of a power cut."""
        try:
            return np.load(self._path(first), allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):
            return None

    def put(self, first: int, rows: np.ndarray) -> None:
        """Save the band that begins at a row, all or nothing."""
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
        """Return a view of the same rows as (C, H, W)."""
        return Planes(self)

    def max(self) -> float:
        """Return the greatest value of all."""
        return max(self.get(first).max() for first, _ in self.spans())

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:08}.npy"


class Planes:
    """Bands (H, W, C) as (C, H, W): iterate over its planes, whose rows are read as an array's are."""

    def __init__(self, bands: Bands):
        self.bands, self.shape = bands, (bands.shape[-1], *bands.shape[:-1])
        self.ndim, self.dtype = bands.ndim, bands.dtype

    def __iter__(self) -> Iterator[Plane]:
        return (Plane(self.bands, channel) for channel in range(self.shape[0]))

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        return np.moveaxis(self.bands[part[1]], -1, 0)[part[0]]


class Plane:
    """One channel (H, W) of `Bands`."""

    def __init__(self, bands: Bands, channel: int):
        self.bands, self.channel = bands, channel

    def __len__(self) -> int:
        return len(self.bands)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.bands[rows][..., self.channel]


def band_height(width: int) -> int:
    """Return how many rows of an image of this width to draw and to number at once."""
    return max(BAND_PIXELS // width, OVERLAP)


def map_bands(image: Bands, call: Callable[[np.ndarray], np.ndarray], folder: Path, height: int,
              overlap: int = OVERLAP) -> Bands:
    """Apply `call` to an image (H, W), to each band together with `overlap` rows above and below; keep the dtype."""
    result = Bands(folder, image.shape, image.dtype, height)
    for first, last in result.spans():
        top = max(first - overlap, 0)
        result.put(first, call(image[top:last + overlap])[first - top:last - top])
    return result


def number_by_bands(redrawn: Bands, inside: Callable[[np.ndarray], np.ndarray], folder: Path, height: int,
                    overlap: int = OVERLAP) -> Bands:
    """Number the cells of a probability (H, W), int32 (H, W), 1, 2, ...; 0 = border, which is thinned.

    `inside` tells where rows show cells, bool (h, W). As in `number_cells` of the whole image, the pieces of cells
    flood the border between them, in each band together with `overlap` rows around it.
    """
    pieces = pieces_by_bands(redrawn, inside, folder / "cells", height)
    return map_bands(pieces, partial(basins, 0), folder, height, overlap)


def pieces_by_bands(redrawn: Bands, inside: Callable[[np.ndarray], np.ndarray], folder: Path, height: int) -> Bands:
    """Number the 4-connected pieces of each kind of pixel, int32 (H, W), 1, 2, ...; 0 = none.

    `inside` returns the kind of each pixel of rows (h, W[, C]), bool or int (h, W), 0 = none. A piece has one number in
    all bands: pieces that touch across two bands are joined, as connected components of the graph of all that touch.
    """
    pieces, count, pairs = Bands(folder / "pieces", redrawn.shape[:2], np.int32, height), 0, []
    kinds_above = numbers_above = None  # the last row of the band above
    for first, last in pieces.spans():
        kinds = inside(redrawn[first:last])
        band = components(kinds) if kinds.dtype == bool else label(kinds, background=0, connectivity=1)
        band[band > 0] += count
        count = max(count, int(band.max()))
        if numbers_above is not None:
            touching = (numbers_above > 0) & (kinds_above == kinds[0])
            pairs.append(np.stack([numbers_above[touching], band[0][touching]]))
        kinds_above, numbers_above = kinds[-1], band[-1]
        pieces.put(first, band)
    above, below = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), int)
    graph = coo_array((np.ones(len(above)), (above, below)), (count + 1, count + 1))
    numbers = connected_components(graph, directed=False)[1].astype(np.int32)  # 0 touches nothing and stays 0
    result = Bands(folder, redrawn.shape[:2], np.int32, height)
    for first, last in result.spans():
        result.put(first, numbers[pieces[first:last]])
    return result


def segment_by_bands(redrawn: Bands, inside: Callable[[np.ndarray], np.ndarray],
                     segment: Callable[[np.ndarray], np.ndarray], folder: Path, height: int, overlap: int = OVERLAP
                     ) -> Bands:
    """Apply `segment` to a probability (H, W) whose objects lie inside of pieces; int32 (H, W), 1, 2, ...; 0 = none.

    `segment` must treat each 4-connected piece of `inside`, bool (h, W), on its own, as a watershed within a mask does.
    The result is that of the whole image, up to the order of the numbers. A piece is segmented in the band in which it
    begins, with as many rows below as it needs, at first `overlap` of them.
    """
    result, count = Bands(folder, redrawn.shape, np.int32, height), 0
    pending = np.zeros((0, redrawn.shape[1]), np.int32)  # the part of earlier objects that lies below their band
    for first, last in result.spans():
        top, below = max(first - 1, 0), overlap
        while True:
            window = redrawn[top:last + below]
            pieces = components(inside(window))
            begins_here = np.zeros(pieces.max() + 1, bool)
            begins_here[pieces[first - top:last - top]] = True
            begins_here[pieces[:first - top]] = False
            begins_here[0] = False
            if top + len(window) == len(redrawn) or not begins_here[pieces[-1]].any():
                break
            below *= 2
        objects = segment(np.where(begins_here[pieces], window, 0))[first - top:]
        objects[objects > 0] += count
        count = max(count, int(objects.max()))
        rows = np.zeros((max(len(objects), len(pending)), redrawn.shape[1]), np.int32)
        rows[:len(pending)] = pending
        rows[:len(objects)][objects > 0] = objects[objects > 0]  # an object in another one's hole is its own object
        result.put(first, rows[:last - first])
        filled_rows = np.flatnonzero(rows.any(axis=1))
        pending = rows[last - first:filled_rows[-1] + 1 if filled_rows.size else 0]
    return result


NUMBERING = {  # by a task's `objects_are`; arguments: redrawn probability, inside, segment, folder, band height
    "thinned": lambda redrawn, inside, segment, folder, height: number_by_bands(redrawn, inside, folder, height),
    "kinds": lambda redrawn, inside, segment, folder, height: pieces_by_bands(redrawn, inside, folder, height),
    "pieces": segment_by_bands}
