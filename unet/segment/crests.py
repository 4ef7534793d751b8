"""Walls along crests: where predicted membranes run between cells, and a slice redrawn with them.

A watershed cuts a slice along the crests of its membranes, where the probability of membrane is greatest. The crest
between two cells is a wall. Only pixels near a crest are redrawn. Background that is too thick for a wall (a lumen, the
outside of a colony) and membranes that end within a cell stay as the network predicted them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from unet.scores.isbi import components
from unet.segment.basins import basins
from unet.segment.distance import nearest, squared_distance

SURE = 0.9  # probability of cell from which on a pixel seeds the watershed
FAIR = 0.8  # a piece of likely cell without such a pixel seeds it, too, if its surest pixel is above this
EVEN = 0.5  # a pixel with at most this probability of cell is more likely membrane
SMOOTH = 1.5  # standard deviation of the Gaussian that smooths the crest, pixels
THICK = 5.0  # background that is thicker is no wall, in widths of a usual wall
NEAR = 2.0  # up to this distance from a wall predicted membrane is taken for its blur, in widths of a usual wall


@dataclass(frozen=True)
class Walls:
    """The n predicted membranes of a slice, each between two cells of its finest segmentation; see `find_walls`."""

    cells: np.ndarray  # int32 (H, W): a number for each cell, 0 = crest or thick
    thick: np.ndarray  # bool (H, W): background that is too thick for a wall
    crest: np.ndarray  # bool (H, W): the middle lines of the walls, P pixels
    wall_of: np.ndarray  # int64 (P,): the wall that each of the crest's pixels belongs to
    sides: np.ndarray  # int64 (n, 2): the cells on both sides of each wall
    probability: np.ndarray  # float32 (P,): probability of cell at each of the crest's pixels, SURE at most
    reach: np.ndarray  # float64 (P,): how far predicted membrane reaches from the crest, pixels; 0 = there is none

    @property
    def mean(self) -> np.ndarray:
        """The mean probability of cell along each wall, float64 (n,)."""
        return np.bincount(self.wall_of, self.probability) / np.bincount(self.wall_of)


def find_walls(probability: np.ndarray, width: float) -> Walls | None:
    """Cut a slice, probability of cell float32 (H, W), along the crests of its membranes; None if there is no crest.

    A watershed (Beucher and Lantuejoul 1979) floods the probability of membrane from the cells; the crest is where two
    floods meet. It leaves out background that is more than `THICK` times as thick as `width`, the usual width of walls
    in pixels.
    """
    half = THICK * width / 2
    depth = squared_distance(probability > EVEN, int(half) + 2)
    core = depth > int(half**2)
    thick = (depth > 0) & (squared_distance(core, int(half) + 2) <= int(half**2)) if core.any() else core
    height = gaussian_filter(probability, SMOOTH)
    cells = basins(np.minimum(height, SURE, out=height), _seeds(probability), ~thick)
    line, number = np.flatnonzero((cells == 0) & ~thick), cells.max() + 1
    around = _around(cells, line, 0)
    greatest = around.max(axis=0)
    is_crest = greatest > 0  # pixels that no flood reached, inside thick background, are none
    if not is_crest.any():
        return None
    line, greatest = line[is_crest], greatest[is_crest]
    least = np.where(around == 0, number, around).min(axis=0)[is_crest]
    crest = np.zeros(cells.shape, bool)
    crest.ravel()[line] = True
    pairs, wall_of = np.unique(least.astype(np.int64) * number + greatest, return_inverse=True)
    sides = np.stack([pairs // number, pairs % number], axis=1)
    return Walls(cells, thick, crest, wall_of.ravel(), sides, np.minimum(probability.ravel()[line], SURE),
                 np.sqrt(depth.ravel()[line], dtype=np.float64))


def _seeds(probability: np.ndarray) -> np.ndarray:
    """Number the components of sure cell, and those of likely cell without a sure pixel, but with a fair one."""
    sure, likely = probability > SURE, components(probability > EVEN)
    seeds, fair = components(sure), np.zeros(likely.max() + 1, bool)
    doubtful = np.flatnonzero((probability > EVEN) & ~sure)
    piece = likely.ravel()[doubtful]
    fair[piece[probability.ravel()[doubtful] > FAIR]] = True
    starts = sure.copy()  # the first pixel of each run of sure ones along a row: every component has some
    starts[:, 1:] &= ~sure[:, :-1]
    fair[likely.ravel()[np.flatnonzero(starts)]] = False
    seeds.ravel()[doubtful] = np.where(fair[piece], piece + seeds.max(), 0)
    return seeds


def _around(values: np.ndarray, pixels: np.ndarray, beyond: float) -> np.ndarray:
    """Return the values (H, W) at `pixels`, n places in the raveled image, and at their eight neighbours; (9, n).

    Neighbours outside the image have the value `beyond`.
    """
    wider = np.full((values.shape[0] + 2, values.shape[1] + 2), beyond, values.dtype)
    wider[1:-1, 1:-1] = values
    width = wider.shape[1]
    corner = pixels + pixels // values.shape[1] * 2  # the first of the nine, in the wider image
    return np.stack([wider.ravel()[corner + (y * width + x)] for y in range(3) for x in range(3)])


def redraw(probability: np.ndarray, walls: Walls, values: np.ndarray, width: float) -> np.ndarray:
    """Redraw a probability of cell, float32 (H, W): each wall as wide as it is predicted, equally on both sides.

    All of a wall gets its value in `values` (n,): a short gap in a sure membrane closes, and a membrane that is
    doubtful all along merges its cells at a threshold below its value. The challenge's scores shrink a wide border
    equally from both sides, so that a cell on the side where its membrane fades slowly would lose pixels: the rest of
    the membrane beside its wall becomes cell, 1. But membrane that leads further away than `NEAR` times `width`, the
    usual width of walls in pixels, stays as it is, and so does thick background. All pixels that are more likely cell
    become 1: if they kept their doubt, a high threshold would cut them off from the cell beside the wall.
    """
    counts = np.bincount(walls.wall_of, walls.reach > 0)
    mean = np.where(counts > 0, np.bincount(walls.wall_of, walls.reach) / np.maximum(counts, 1), (width + 1) / 2)
    crest = np.flatnonzero(walls.crest)
    half = np.where(walls.reach > 0, walls.reach, mean[walls.wall_of])
    along, number = np.ones(probability.shape, np.float32), np.zeros(probability.size, np.int32)
    along.ravel()[crest], number[crest] = values[walls.wall_of], np.arange(len(crest))
    value = _around(along, crest, 1).min(axis=0)  # a sure wall has no gap of a pixel where a doubtful one meets it
    membrane = probability <= EVEN
    # pixels that are nearer to a crest than predicted membrane reaches are membrane
    reaches = half.max(where=walls.reach == 0, initial=0)
    middle = np.zeros(membrane.shape, bool)
    middle.ravel()[crest[half > 0]] = True
    near = squared_distance(middle & ~membrane, int(reaches) + 2) < math.ceil(reaches**2)
    pixels = np.flatnonzero(membrane | near)
    # membrane at a greater distance leads away
    squared, place = nearest(walls.crest, pixels, int(NEAR * width + half.max(initial=0)) + 2)
    crest_pixel, is_membrane = number[place], membrane.ravel()[pixels]
    beyond, thick = np.sqrt(squared, dtype=np.float64) - half[crest_pixel], walls.thick.ravel()[pixels]
    wall = ((beyond < 0) | ((beyond < 0.75) & is_membrane)) & ~thick  # the middle may lie between two pixels
    rest = np.zeros(membrane.shape, bool)
    rest.ravel()[pixels] = is_membrane & ~wall
    pieces = components(rest)
    pieces, leads_away = pieces.ravel()[pixels], np.zeros(pieces.max() + 1, bool)
    leads_away[pieces[thick | (beyond >= NEAR * width)]] = True
    leads_away[0] = False
    result = np.ones(probability.shape, np.float32)
    result.ravel()[pixels] = np.where(wall, value[crest_pixel],
                                      np.where(leads_away[pieces], probability.ravel()[pixels], np.float32(1)))
    return result
