"""One number for a cell through the whole stack: neighbouring slices are linked where two cells cover each other."""

from __future__ import annotations

import numpy as np
from skimage.segmentation import relabel_sequential

from unet.scores.overlap import overlap_table

SHARE = 0.2  # of either cell that the other has to cover; from .3 on more cells of demo stacks are torn apart


class Linker:
    """Give the cells of slice after slice numbers that run through the stack; remembers one slice, so memory is even.

    A cell carries on the number of the one before it where the two cover each other: both by more than `share`, and
    each the other's largest. So a cell that splits hands its number to one part at most, of cells that merge at most
    one hands on its own, and the others begin anew: no two cells of a slice have one number.
    """

    def __init__(self, share: float = SHARE):
        self.share = share
        self.greatest = 0  # number given so far
        self._before: np.ndarray | None = None

    def __call__(self, objects: np.ndarray) -> np.ndarray:
        """Number the cells of the next slice, integer (H, W), 0 = border: int32 (H, W) of numbers for the stack.

        Raises ValueError where its size is not that of the slice before.
        """
        dense = relabel_sequential(objects)[0]
        numbers = np.zeros(dense.max() + 1, np.int32)
        if self._before is not None:
            cells, before = partners(dense, self._before, self.share)
            numbers[cells] = before
        new = np.flatnonzero(numbers[1:] == 0) + 1
        numbers[new] = self.greatest + 1 + np.arange(len(new))
        self.greatest += len(new)
        self._before = numbers[dense]
        return self._before


def partners(labels: np.ndarray, before: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers in two integer maps (H, W) of cells that are the same: (n,) of `labels` and (n,) of `before`.

    Each covers more than `share` of the other, 0 to 1, and is what covers most of it. 0 is border and no cell's.
    """
    packed, _, known = relabel_sequential(before)  # numbers of a long stack are large, those here are few
    table = overlap_table(labels, packed)
    sizes, sizes_before = table.sum(axis=1), table.sum(axis=0)
    shared = table[1:, 1:].tocoo()
    cells, others, pixels = shared.row + 1, shared.col + 1, shared.data
    most, most_before = np.zeros(len(sizes), np.int64), np.zeros(len(sizes_before), np.int64)
    np.maximum.at(most, cells, pixels)
    np.maximum.at(most_before, others, pixels)
    same = (pixels == most[cells]) & (pixels == most_before[others])
    same &= (pixels > share * sizes[cells]) & (pixels > share * sizes_before[others])
    cells, others = cells[same], others[same]
    first = np.unique(others, return_index=True)[1]  # of equally large ones the first
    cells, others = cells[first], others[first]
    first = np.unique(cells, return_index=True)[1]
    cells, others = cells[first], others[first]
    return cells, known[others]
