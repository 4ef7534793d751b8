"""Linking: one number through the stack, splits and merges kept apart, measured where the true cells are known."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from unet.inputs.demo import demo_stack
from unet.scores.isbi import adapted_rand_error, components
from unet.segment.linking import Linker


def row(*numbers):
    """A slice of one row, uint16 (1, n)."""
    return np.array([numbers], np.uint16)


def test_a_cell_that_stays_keeps_its_number_and_a_new_one_gets_another():
    link = Linker()
    assert_array_equal(link(row(0, 5, 5, 5, 0, 2, 2)), row(0, 2, 2, 2, 0, 1, 1))
    assert_array_equal(link(row(0, 1, 1, 1, 0, 0, 0)), row(0, 2, 2, 2, 0, 0, 0))
    assert_array_equal(link(row(0, 0, 8, 8, 0, 9, 9)), row(0, 0, 2, 2, 0, 3, 3))  # the first 1 ended: 9 is another
    assert link.greatest == 3


def test_a_split_hands_the_number_to_the_larger_part_and_a_merge_on_from_it():
    link = Linker()
    link(row(1, 1, 1, 1, 1, 0))
    assert_array_equal(link(row(1, 1, 1, 0, 2, 0)), row(1, 1, 1, 0, 2, 0))
    assert_array_equal(link(row(7, 7, 7, 7, 7, 0)), row(1, 1, 1, 1, 1, 0))


def test_no_number_is_twice_in_a_slice_however_cells_split():
    """Equal halves: each covers half of the cell before; one of them at most is that cell."""
    link = Linker()
    link(row(4, 4, 4, 4, 4))
    halves = link(row(1, 1, 0, 2, 2))
    assert_array_equal(halves, row(1, 1, 0, 2, 2))


def test_a_sliver_of_overlap_is_no_link():
    link = Linker(share=0.2)
    link(row(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0))
    assert link(row(0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3))[0, 12] == 2


def test_an_empty_slice_ends_all_cells_and_slices_without_border_are_no_exception():
    link = Linker()
    assert_array_equal(link(row(1, 1, 2)), row(1, 1, 2))
    assert_array_equal(link(row(0, 0, 0)), row(0, 0, 0))
    assert_array_equal(link(row(3, 3, 3)), row(3, 3, 3))
    assert_array_equal(link(row(1, 1, 1)), row(3, 3, 3))


def test_slices_of_two_sizes_are_refused():
    link = Linker()
    link(row(1, 1))
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        link(row(1, 1, 1))


def test_true_segments_of_the_demo_stack_become_its_cells():
    """Numbers that begin anew in each slice, of a stack on which nothing was chosen: 8 slices, 256 px, seed 5."""
    _, labels, cells = demo_stack(8, 256, seed=5)
    link, slices = Linker(), [components(label > 0) for label in labels]
    linked = np.stack([link(one) for one in slices])
    error, precision, _ = adapted_rand_error(linked, cells)
    assert error < 0.01
    assert precision > 0.99  # no cells run together
    for one, other in zip(slices, linked, strict=True):  # each slice is divided as before
        assert len(np.unique(other)) == len(np.unique(one)) == len(np.unique(one.astype(np.int64) * 10**6 + other))
    starts = np.cumsum([0, *(one.max() for one in slices[:-1])])
    unlinked = np.stack([np.where(one, one + start, 0) for one, start in zip(slices, starts, strict=True)])
    assert adapted_rand_error(unlinked, cells)[0] > 0.5
