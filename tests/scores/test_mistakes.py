"""Merges and splits, told apart from borders beside the true ones, on slices small enough to count."""

import numpy as np
import pytest

from unet.scores.mistakes import find_mistakes, overlaps, paint, places


@pytest.fixture
def two_cells():
    """Labels (32, 32): two cells with a wall five pixels thick between them."""
    label = np.full((32, 32), 255, np.uint8)
    label[:, 14:19] = 0
    return label


def as_probability(label):
    return (label > 0).astype(np.float32)


def test_truth_has_no_mistakes(two_cells):
    found = find_mistakes(two_cells, as_probability(two_cells), 0.5)
    assert not (found.merging | found.splitting | found.harmless).any()
    assert (found.merges, found.splits) == (0, 0)


def test_a_gap_in_a_wall_merges(two_cells):
    predicted = as_probability(two_cells)
    predicted[10:13] = 1  # three rows without the wall: 15 pixels
    found = find_mistakes(two_cells, predicted, 0.5)
    assert (found.merges, found.splits) == (1, 0)
    expected = np.zeros((32, 32), bool)
    expected[10:13, 14:19] = True
    np.testing.assert_array_equal(found.merging, expected)
    assert not (found.splitting | found.harmless).any()


def test_a_stroke_through_a_cell_splits(two_cells):
    predicted = as_probability(two_cells)
    predicted[15:17, :14] = 0  # the left cell falls into two: 28 pixels
    found = find_mistakes(two_cells, predicted, 0.5)
    assert (found.merges, found.splits) == (0, 1)
    assert found.splitting.sum() == 28
    assert found.splitting[15:17, :14].all()


def test_a_wall_two_pixels_aside_is_harmless(two_cells):
    found = find_mistakes(two_cells, as_probability(np.roll(two_cells, 2, axis=1)), 0.5)
    assert (found.merges, found.splits) == (0, 0)
    assert not (found.merging | found.splitting).any()
    assert found.harmless.sum() == 32 * (2 + 2)  # invented on one side, missed on the other


def test_a_gap_counts_where_the_wall_is_aside_as_well(two_cells):
    predicted = as_probability(np.roll(two_cells, 1, axis=1))
    predicted[10:13] = 1
    found = find_mistakes(two_cells, predicted, 0.5)
    assert found.merges == 1
    assert found.merging[10:13, 14:19].all()
    assert not found.merging[20:].any()  # far from the gap the same pixels are harmless
    assert found.harmless[20:].any()


def test_small_overlaps_are_not_in_earnest():
    one, other = np.ones((10, 10), int), np.ones((10, 10), int)
    other[:, 9] = 2  # ten pixels, all of cell 2
    assert overlaps(one, other) == [1]
    other[0, 9] = 1  # nine are too few
    assert overlaps(one, other) == []


def test_places_are_one_for_pixels_that_lie_together():
    where = np.zeros((60, 60), bool)
    where[10, 10] = where[10, 14] = where[50, 50] = True
    np.testing.assert_allclose(places(where), [[10, 12], [50, 50]], atol=0.5)
    assert places(np.zeros((9, 9), bool)).shape == (0, 2)


def test_paint_keeps_right_pixels_gray(two_cells):
    predicted = as_probability(two_cells)
    predicted[10:13] = 1
    painted = paint(two_cells, find_mistakes(two_cells, predicted, 0.5))
    gray = (painted == painted[..., :1]).all(axis=2)
    assert gray[20:].all()
    assert not gray[10:13, 14:19].any()
