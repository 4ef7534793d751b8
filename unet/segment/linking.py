"""One number for a cell through the whole stack: cells of neighbouring slices are linked if they overlap enough."""

from __future__ import annotations

import numpy as np
from skimage.segmentation import relabel_sequential

from unet.scores.overlap import overlap_table

LEAST_OVERLAP = 0.2  # of each cell that the other has to cover; from .3 on more cells of demo stacks are torn apart


class Linker:
    """Number the cells of one slice after the other, consistently through the stack; keeps only one slice in memory.

    A cell takes the number of a cell in the slice before if each covers more than `share` of the other, and is the cell
    that covers most of it. So when a cell splits, at most one part keeps its number, and when cells merge, at most one
    number is kept; all other cells get new numbers. No two cells of a slice have the same number.
    """

    def __init__(self, share: float = LEAST_OVERLAP):
        self.share = share
        self.greatest = 0  # number so far
        self._previous: np.ndarray | None = None

    def __call__(self, objects: np.ndarray) -> np.ndarray:
        """Number the cells of the next slice, integer (H, W), 0 = border: int32 (H, W), numbers within the stack.

        Raises ValueError if its size differs from that of the slice before.
        """
        dense = relabel_sequential(objects)[0]
        numbers = np.zeros(dense.max() + 1, np.int32)
        if self._previous is not None:
            cells, previous = partners(dense, self._previous, self.share)
            numbers[cells] = previous
        new = np.flatnonzero(numbers[1:] == 0) + 1
        numbers[new] = self.greatest + 1 + np.arange(len(new))
        self.greatest += len(new)
        self._previous = numbers[dense]
        return self._previous


def partners(labels: np.ndarray, previous: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Find the cells that are the same in two integer maps (H, W): numbers (n,) in `labels` and (n,) in `previous`.

    Each covers more than `share` of the other, 0 to 1, and is the cell that covers most of it. 0 is border, not a cell.
    """
    dense, _, original = relabel_sequential(previous)  # numbers of a long stack are large, but few are in one slice
    table = overlap_table(labels, dense)
    sizes, previous_sizes = table.sum(axis=1), table.sum(axis=0)
    shared = table[1:, 1:].tocoo()
    cells, others, pixels = shared.row + 1, shared.col + 1, shared.data
    most, previous_most = np.zeros(len(sizes), np.int64), np.zeros(len(previous_sizes), np.int64)
    np.maximum.at(most, cells, pixels)
    np.maximum.at(previous_most, others, pixels)
    same = (pixels == most[cells]) & (pixels == previous_most[others])
    same &= (pixels > share * sizes[cells]) & (pixels > share * previous_sizes[others])
    cells, others = cells[same], others[same]
    first = np.unique(others, return_index=True)[1]  # of equally large overlaps the first
    cells, others = cells[first], others[first]
    first = np.unique(cells, return_index=True)[1]
    cells, others = cells[first], others[first]
    return cells, original[others]
