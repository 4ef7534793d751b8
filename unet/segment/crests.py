"""Membranes as walls of even width along the crests of their probability, each with one value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum_filter, minimum_filter
from skimage.segmentation import watershed

from unet.scores.isbi import components, thin

SURE = 0.9  # probability of cell from which on a pixel seeds the watershed
SMOOTH = 1.5  # standard deviation of the Gaussian that steadies the line, pixels
THIN = 0.3  # a membrane's width is at most this share of the cells' diameter, else it is no line


def membrane_width(labels: Iterable[np.ndarray]) -> float:
    """Mean width in pixels of the membranes (0) between the cells of labels (H, W); 0.0 where they are no thin lines.

    The area of the membranes by the number of pixels of the lines that `metrics.thin` leaves of them. Thin is what is
    narrow against the cells, weighted by their area: the ground between scattered objects is not.
    """
    area = line = cells = squares = 0.0
    for label in labels:
        cell = label > 0
        area += np.count_nonzero(~cell)
        line += np.count_nonzero(~thin(cell))
        sizes = np.bincount(components(cell).ravel())[1:].astype(float)
        cells, squares = cells + sizes.sum(), squares + sizes @ sizes
    width = area / line if line else 0.0
    return width if cells and width <= THIN * (squares / cells) ** 0.5 else 0.0


@dataclass(frozen=True)
class Walls:
    """The predicted membranes of a slice, each between two cells of its finest segmentation; see `find_walls`."""

    cells: np.ndarray  # int32 (H, W): a number for each cell, 0 = crest
    of: np.ndarray  # int64 (P,): the wall of each of the crest's pixels, in the order of np.nonzero(cells == 0)
    sides: np.ndarray  # int64 (n, 2): the cells on both sides of each wall
    probability: np.ndarray  # float32 (P,): of cell, at each of the crest's pixels, SURE at most

    @property
    def mean(self) -> np.ndarray:
        """Mean probability of cell along each wall, float64 (n,)."""
        return np.bincount(self.of, self.probability) / np.bincount(self.of)


def find_walls(probability: np.ndarray) -> Walls | None:
    """Cut a slice, probability of cell float32 (H, W), along the crests of its membranes; None where there is none.

    A watershed (Beucher and Lantuejoul 1979) floods the probability of membrane from every component of sure cell;
    where two meet is the crest, and the crest between two cells is a wall.
    """
    seeds = components(probability > SURE)
    heights = -np.minimum(gaussian_filter(probability, SMOOTH), SURE)
    cells = watershed(heights, seeds, connectivity=1, watershed_line=True)
    crest = cells == 0
    if not seeds.any() or not crest.any():
        return None
    number = cells.max() + 1
    least, greatest = minimum_filter(np.where(crest, number, cells), 3)[crest], maximum_filter(cells, 3)[crest]
    pairs, of = np.unique(least.astype(np.int64) * (number + 1) + greatest, return_inverse=True)
    sides = np.stack([pairs // (number + 1), pairs % (number + 1)], axis=1)
    return Walls(cells, of.ravel(), sides, np.minimum(probability[crest], SURE))


def along_crests(probability: np.ndarray, width: float,
                 judged: Callable[[Walls], np.ndarray] = lambda walls: walls.mean) -> np.ndarray:
    """Probability of cell, float32 (H, W), redrawn: walls `width` pixels wide along the crests of predicted membrane.

    All of a wall, to half of `width` from its crest, gets one value, from `judged`: by default the mean probability
    along it. A short gap in a sure membrane closes; a membrane that is doubtful all along merges its cells at a
    threshold below its value. All else is cell, 1.

    The even width matters, too: the challenge's scores shrink a wide border from both sides alike, so that a cell on
    the side where its membrane fades slowly lost pixels.
    """
    walls = find_walls(probability)
    if walls is None:  # nothing is sure, or there is one cell
        return probability
    crest = walls.cells == 0
    along = np.ones(probability.shape, np.float32)
    along[crest] = judged(walls)[walls.of]
    distance, (y, x) = distance_transform_edt(~crest, return_indices=True)
    return np.where(distance <= (width - 1) / 2, along[y, x], np.float32(1))
