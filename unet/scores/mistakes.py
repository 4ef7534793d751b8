"""Where a prediction merges cells or splits them, apart from borders that are only drawn a little beside the true ones.

Few pixels decide: a gap of three pixels in a wall merges two cells, a stroke across a cell splits it, and the scores
V_rand and V_info fall; a border that is one pixel too wide all along costs them little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage

from unet.report.pictures import INVENTED, MISSED, YELLOW, faded
from unet.scores.isbi import components, segments

LEAST_SHARE = 0.25  # of the smaller of two overlapping cells: less is a border drawn beside the true one
LEAST_PIXELS = 10  # and so is less than this
REACH = 4  # pixels to either side of a wall's middle that belong to a gap in it


@dataclass(frozen=True)
class Mistakes:
    """Wrong pixels of a slice, each bool (H, W), and how many cells they concern."""

    merging: np.ndarray  # membrane missed where cells run together
    splitting: np.ndarray  # membrane invented where a cell falls apart
    harmless: np.ndarray  # every other wrong pixel
    merges: int  # predicted cells that cover several true ones
    splits: int  # true cells that several predicted ones share


def find_mistakes(label: np.ndarray, probability: np.ndarray, threshold: float) -> Mistakes:
    """Sort the wrong pixels of a slice by what they do.

    `label` (H, W) 0 = membrane, `probability` of cell (H, W); cell is where it is > threshold. Cells are the segments
    that V_rand compares. Two overlap in earnest where they share a quarter of the smaller one, and ten pixels.
    """
    predicted, true = probability > threshold, label > 0
    truth, found = components(true), segments(predicted)
    merged, split = overlaps(found, truth), overlaps(truth, found)
    merging = _breaches(truth, found, merged, predicted & ~true)
    splitting = _breaches(np.where(predicted, found, 0), truth, split, true & ~predicted)
    return Mistakes(merging, splitting, (predicted != true) & ~merging & ~splitting, len(merged), len(split))


def overlaps(one: np.ndarray, other: np.ndarray) -> list[int]:
    """The cells of `one` (H, W), a label map with 0 = border, that overlap two or more cells of `other` in earnest."""
    shared = shared_pixels(one, other)[1:, 1:]
    smaller = np.minimum(shared.sum(axis=1, keepdims=True), shared.sum(axis=0, keepdims=True))
    earnest = (shared >= LEAST_SHARE * smaller) & (shared >= LEAST_PIXELS)
    return (np.flatnonzero(earnest.sum(axis=1) > 1) + 1).tolist()


def shared_pixels(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How many pixels each number of a label map (H, W) shares with each of another; int64 (numbers, others)."""
    shared = np.zeros((int(one.max()) + 1, int(other.max()) + 1), np.int64)
    np.add.at(shared, (one.ravel(), other.ravel()), 1)
    return shared


def _breaches(parts: np.ndarray, whole: np.ndarray, joined: list[int], wrong: np.ndarray) -> np.ndarray:
    """The `wrong` pixels, bool (H, W), that join cells of `parts` inside a cell of `whole` that is in `joined`.

    They lie at the middle of the wall between two parts, and lead from one to the other.
    """
    breaches = np.zeros(wrong.shape, bool)
    if not joined:
        return breaches
    nearest = parts[tuple(ndimage.distance_transform_edt(parts == 0, return_distances=False, return_indices=True))]
    middle = ndimage.maximum_filter(nearest, 3) != ndimage.minimum_filter(nearest, 3)
    for number in joined:
        here = wrong & (whole == number)
        pieces = components(here & ndimage.binary_dilation(middle & here, iterations=REACH))
        for piece, box in enumerate(ndimage.find_objects(pieces), 1):
            window = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
            inside = pieces[window] == piece
            touched = np.unique(parts[window][ndimage.binary_dilation(inside)])
            if np.count_nonzero(touched) > 1:
                breaches[window] |= inside
    return breaches


def paint(image: np.ndarray, mistakes: Mistakes) -> np.ndarray:
    """Float (H, W, 3) in 0..1: the gray image uint8 (H, W), faded, with the mistakes in three colours."""
    overlay = faded(image)
    # half see-through, and a pixel wider where it matters: a gap of three pixels has to be seen in print
    overlay[mistakes.harmless] = 0.45 * overlay[mistakes.harmless] + 0.55 * np.array(to_rgb(YELLOW))
    for where, colour in ((mistakes.merging, MISSED), (mistakes.splitting, INVENTED)):
        overlay[ndimage.binary_dilation(where)] = to_rgb(colour)
    return overlay


def places(where: np.ndarray, apart: int = 12) -> np.ndarray:
    """Middles (n, 2) as (y, x) of the groups of pixels in bool (H, W); what lies less than `apart` pixels is one."""
    groups, count = ndimage.label(ndimage.binary_dilation(where, iterations=apart // 2))
    return np.array(ndimage.center_of_mass(where, groups, range(1, count + 1))).reshape(-1, 2)
