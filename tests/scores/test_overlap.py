"""The overlap table, IoU and the largest overlap against counting by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from unet.scores.overlap import intersection_over_union, largest_overlap, overlap_table

LABELS = np.array([[1, 1, 1, 0, 2, 2], [1, 1, 3, 3, 0, 0]])
TRUTH = np.array([[1, 1, 0, 0, 2, 2], [1, 2, 0, 0, 2, 2]], np.uint8)


def test_table_counts_each_pair():
    assert_array_equal(overlap_table(LABELS, TRUTH).toarray(), [[1, 0, 2], [1, 3, 1], [0, 0, 2], [2, 0, 0]])
    assert overlap_table(LABELS, TRUTH).dtype == np.int64


def test_table_of_high_numbers_stays_small():
    table = overlap_table(np.full((2, 3), 70_000, np.uint32), np.full((2, 3), 60_000, np.uint16))
    assert (table.shape, table.nnz, table[70_000, 60_000]) == ((70_001, 60_001), 1, 6)


def test_iou_of_pairs_that_touch():
    # 1 and 1: 3 of 5 + 3 - 3; 1 and 2: 1 of 5 + 5 - 1; 2 and 2: 2 of 2 + 5 - 2; 3 touches none
    iou = intersection_over_union(LABELS, TRUTH)
    assert_allclose(iou.toarray(), [[3 / 5, 1 / 9], [0, 2 / 5], [0, 0]])
    assert iou.nnz == 3


def test_largest_overlap_is_the_first_of_equals_and_none_of_border_alone():
    assert_array_equal(largest_overlap(LABELS, TRUTH), [2, 1, 2, 0])
    assert_array_equal(largest_overlap(np.array([1, 1]), np.array([2, 1])), [0, 1])
    assert_array_equal(largest_overlap(LABELS, TRUTH * 0), [0, 0, 0, 0])


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"the prediction is \(2, 6\), the truth is \(2, 5\)"):
        overlap_table(LABELS, TRUTH[:, 1:])
    with pytest.raises(ValueError, match="whole numbers, not float64 and uint8"):
        overlap_table(LABELS / 2, TRUTH)
    with pytest.raises(ValueError, match="negative"):
        overlap_table(-LABELS, TRUTH)
