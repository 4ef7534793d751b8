"""What a segmentation does wrong: objects merged, split, missed and invented, apart from borders a little off.

Few pixels decide where membranes part cells: a gap of three pixels in a wall merges two cells, a stroke across a cell
splits it, and V_rand and V_info fall; a border that is one pixel too wide all along costs them little.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage

from unet.scores.isbi import components, segments
from unet.scores.overlap import intersection_over_union, overlap_table

LEAST_SHARE = 0.25  # of the smaller of two objects: those that share less lie beside each other, a border a little off
LEAST_PIXELS = 10  # and so do those that share fewer
REACH = 4  # pixels to either side of a wall's middle that belong to a gap in it


def in_earnest(shared: np.ndarray, sizes: np.ndarray, true_sizes: np.ndarray) -> np.ndarray:
    """Which objects overlap by more than a border that is a little off: bool (predicted, true).

    `shared` pixels (predicted, true), `sizes` (predicted,) and `true_sizes` (true,) in pixels, all integers.
    """
    smaller = np.minimum(sizes[:, np.newaxis], true_sizes)
    return (shared >= LEAST_SHARE * smaller) & (shared >= LEAST_PIXELS)


def _numbers(which: np.ndarray) -> list[int]:
    """The numbers 1, 2, ... of the objects where bool (objects,) is True."""
    return (np.flatnonzero(which) + 1).tolist()


# ------------------------------------------------------------------------------- membranes: pixels that matter


@dataclass(frozen=True)
class MembraneMistakes:
    """Wrong pixels of a slice, each bool (H, W), and how many cells they concern."""

    merging: np.ndarray  # membrane missed where cells run together
    splitting: np.ndarray  # membrane invented where a cell falls apart
    harmless: np.ndarray  # every other wrong pixel
    merges: int  # predicted cells that cover several true ones
    splits: int  # true cells that several predicted ones share


def membrane_mistakes(label: np.ndarray, probability: np.ndarray, threshold: float) -> MembraneMistakes:
    """Sort the wrong pixels of a slice by what they do.

    `label` (H, W) 0 = membrane, `probability` of cell (H, W); cell is where it is > threshold. Cells are the segments
    that V_rand compares; a cell's size is that of its pixels that are cell in both.
    """
    predicted, true = probability > threshold, label > 0
    truth, cells = components(true), segments(predicted)
    shared = overlap_table(cells, truth)[1:, 1:].toarray()
    earnest = in_earnest(shared, shared.sum(axis=1), shared.sum(axis=0))
    merged, split = _numbers(earnest.sum(axis=1) > 1), _numbers(earnest.sum(axis=0) > 1)
    merging = _breaches(truth, cells, merged, predicted & ~true)
    splitting = _breaches(np.where(predicted, cells, 0), truth, split, true & ~predicted)
    return MembraneMistakes(merging, splitting, (predicted != true) & ~merging & ~splitting, len(merged), len(split))


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


# --------------------------------------------------------------------------- separate objects: what became of each


@dataclass(frozen=True)
class ObjectMistakes:
    """Numbers of objects, rising: of true ones, each in one list, and of predicted ones that are of nothing."""

    right: list[int]
    missed: list[int]
    merged: list[int]
    split: list[int]
    invented: list[int]

    def in_words(self) -> str:
        """What happened how often, in two lines to be written above a picture."""
        counts = [f"{len(getattr(self, one.name))} {one.name}" for one in fields(self)]
        return f"{', '.join(counts[:3])}\n{', '.join(counts[3:])}"

    def where(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The pixels of objects that are not right, bool (H, W), of the two label maps (H, W)."""
        return np.isin(truth, self.missed + self.merged + self.split) | np.isin(predicted, self.invented)


def object_mistakes(predicted: np.ndarray, truth: np.ndarray) -> ObjectMistakes:
    """Sort the objects of two label maps (H, W), 0 = background; a number that no pixel has is no object.

    Right is what average precision counts at .50: a predicted and a true object whose intersection over union is
    greater. A true object is merged where no predicted one is a pair with it and one that overlaps it in earnest
    overlaps others, too; split where several overlap it and not all of these are pairs with others; else missed, or
    predicted too badly to count.
    """
    table = overlap_table(predicted, truth)
    pairs = intersection_over_union(predicted, truth).toarray() > 0.5
    sizes, true_sizes = table.sum(axis=1)[1:], table.sum(axis=0)[1:]
    earnest = in_earnest(table[1:, 1:].toarray(), sizes, true_sizes)
    paired, right = pairs.any(axis=1), pairs.any(axis=0)  # predicted, true
    several = earnest.sum(axis=1) > 1
    merged = ~right & earnest[several].any(axis=0)
    split = ~merged & (earnest.sum(axis=0) > 1) & earnest[~paired].any(axis=0)
    missed = ~right & ~merged & ~split & (true_sizes > 0)
    merging, part = (several & earnest[:, merged].any(axis=1)), earnest[:, split].any(axis=1)
    invented = ~paired & ~merging & ~part & (sizes > 0)
    return ObjectMistakes(*map(_numbers, (right & ~split, missed, merged, split, invented)))
