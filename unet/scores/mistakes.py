"""Mistakes of a segmentation: merged, split, missed and invented objects, as opposed to borders a little off.

Where membranes separate cells, few pixels decide: a gap of three pixels in a wall merges two cells, a stroke across a
cell splits it, and V_rand and V_info fall. A border that is one pixel too wide all along costs them little.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage

from unet.scores.isbi import components, segments
from unet.scores.overlap import intersection_over_union, overlap_table

LEAST_SHARE = 0.25  # of the smaller object: two objects that share less only have borders that are a little off
LEAST_PIXELS = 10  # likewise two objects that share fewer pixels
REACH = 4  # pixels to either side of a wall's middle that belong to a gap in it


def substantial_overlaps(shared: np.ndarray, sizes: np.ndarray, true_sizes: np.ndarray) -> np.ndarray:
    """Tell which objects overlap by more than a border that is a little off: bool (predicted, true).

    `shared` (predicted, true), `sizes` (predicted,) and `true_sizes` (true,) are integers, in pixels.
    """
    smaller = np.minimum(sizes[:, np.newaxis], true_sizes)
    return (shared >= LEAST_SHARE * smaller) & (shared >= LEAST_PIXELS)


def _numbers(mask: np.ndarray) -> list[int]:
    """Return the numbers, from 1 on, of the objects for which bool (objects,) is True."""
    return (np.flatnonzero(mask) + 1).tolist()


# ------------------------------------------------------------------------------- membranes: which pixels matter


@dataclass(frozen=True)
class MembraneMistakes:
    """The wrong pixels of a slice, each bool (H, W), and how many cells they merge and split."""

    merging: np.ndarray  # missed membrane, through which cells run together
    splitting: np.ndarray  # invented membrane, at which a cell falls apart
    harmless: np.ndarray  # every other wrong pixel
    merges: int  # predicted cells that cover several true ones
    splits: int  # true cells that several predicted ones cover


def membrane_mistakes(label: np.ndarray, probability: np.ndarray, threshold: float) -> MembraneMistakes:
    """Sort the wrong pixels of a slice into those that merge cells, those that split them, and harmless ones.

    `label` (H, W) is 0 for membrane; a pixel is predicted as cell if the `probability` of cell (H, W) is > threshold.
    Cells are the segments that V_rand compares; the size of a cell counts only pixels that are cell in both.
    """
    predicted, true = probability > threshold, label > 0
    truth, cells = components(true), segments(predicted)
    shared = overlap_table(cells, truth)[1:, 1:].toarray()
    overlaps = substantial_overlaps(shared, shared.sum(axis=1), shared.sum(axis=0))
    merged, split = _numbers(overlaps.sum(axis=1) > 1), _numbers(overlaps.sum(axis=0) > 1)
    merging = _breaches(truth, cells, merged, predicted & ~true)
    splitting = _breaches(np.where(predicted, cells, 0), truth, split, true & ~predicted)
    return MembraneMistakes(merging, splitting, (predicted != true) & ~merging & ~splitting, len(merged), len(split))


def _breaches(parts: np.ndarray, whole: np.ndarray, numbers: list[int], wrong: np.ndarray) -> np.ndarray:
    """Return those of the `wrong` pixels, bool (H, W), that connect cells of `parts` inside a cell of `whole`.

    `numbers` are the cells of `whole` to look at. The pixels lie at the middle of the wall between two parts, and lead
    from one part to the other.
    """
    breaches = np.zeros(wrong.shape, bool)
    if not numbers:
        return breaches
    nearest = parts[tuple(ndimage.distance_transform_edt(parts == 0, return_distances=False, return_indices=True))]
    middle = ndimage.maximum_filter(nearest, 3) != ndimage.minimum_filter(nearest, 3)
    for number in numbers:
        wrong_here = wrong & (whole == number)
        pieces = components(wrong_here & ndimage.binary_dilation(middle & wrong_here, iterations=REACH))
        for piece, box in enumerate(ndimage.find_objects(pieces), 1):
            window = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
            inside = pieces[window] == piece
            adjacent = np.unique(parts[window][ndimage.binary_dilation(inside)])
            if np.count_nonzero(adjacent) > 1:
                breaches[window] |= inside
    return breaches


# --------------------------------------------------------------------------- separate objects: what became of each


@dataclass(frozen=True)
class ObjectMistakes:
    """The numbers of objects, rising: `invented` are predicted ones, the others true ones, each in one list."""

    right: list[int]
    missed: list[int]
    merged: list[int]
    split: list[int]
    invented: list[int]

    def describe(self) -> str:
        """Return how many objects are in each list, in two lines to be written above a picture."""
        counts = [f"{len(getattr(self, one.name))} {one.name}" for one in fields(self)]
        return f"{', '.join(counts[:3])}\n{', '.join(counts[3:])}"

    def wrong_pixels(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return the pixels of objects that are not right, bool (H, W), from the two label maps (H, W)."""
        return np.isin(truth, self.missed + self.merged + self.split) | np.isin(predicted, self.invented)


def object_mistakes(predicted: np.ndarray, truth: np.ndarray) -> ObjectMistakes:
    """Sort the objects of two label maps (H, W), 0 = background; a number that no pixel has is no object.

    Two objects are a pair if their intersection over union is greater than .50, as average precision counts them; they
    overlap if they share enough pixels, see `substantial_overlaps`. A true object is merged if it has no pair, and a
    predicted object that overlaps it overlaps others, too; split if several predicted objects overlap it, and at least
    one of them has no pair; right if it has a pair and is not split; otherwise missed, or predicted too badly to count.
    A predicted object is invented if it has no pair, covers no merged object and is no part of a split one.
    """
    table = overlap_table(predicted, truth)
    pairs = intersection_over_union(predicted, truth).toarray() > 0.5
    sizes, true_sizes = table.sum(axis=1)[1:], table.sum(axis=0)[1:]
    overlaps = substantial_overlaps(table[1:, 1:].toarray(), sizes, true_sizes)
    has_pair, true_has_pair = pairs.any(axis=1), pairs.any(axis=0)
    covers_several = overlaps.sum(axis=1) > 1
    merged = ~true_has_pair & overlaps[covers_several].any(axis=0)
    split = ~merged & (overlaps.sum(axis=0) > 1) & overlaps[~has_pair].any(axis=0)
    missed = ~true_has_pair & ~merged & ~split & (true_sizes > 0)
    merging, part = covers_several & overlaps[:, merged].any(axis=1), overlaps[:, split].any(axis=1)
    invented = ~has_pair & ~merging & ~part & (sizes > 0)
    return ObjectMistakes(*map(_numbers, (true_has_pair & ~split, missed, merged, split, invented)))
