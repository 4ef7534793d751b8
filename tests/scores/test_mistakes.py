"""Merges, splits, missed and invented objects by hand, on slices and label maps small enough to count."""

import numpy as np
import pytest

from unet.scores.mistakes import membrane_mistakes, object_mistakes, substantial_overlaps


@pytest.fixture
def two_cells():
    """Return labels (32, 32): two cells with a wall five pixels thick between them."""
    label = np.full((32, 32), 255, np.uint8)
    label[:, 14:19] = 0
    return label


def as_probability(label):
    return (label > 0).astype(np.float32)


def test_truth_has_no_mistakes(two_cells):
    mistakes = membrane_mistakes(two_cells, as_probability(two_cells), 0.5)
    assert not (mistakes.merging | mistakes.splitting | mistakes.harmless).any()
    assert (mistakes.merges, mistakes.splits) == (0, 0)


def test_a_gap_in_a_wall_merges(two_cells):
    predicted = as_probability(two_cells)
    predicted[10:13] = 1  # three rows without the wall: 15 pixels
    mistakes = membrane_mistakes(two_cells, predicted, 0.5)
    assert (mistakes.merges, mistakes.splits) == (1, 0)
    expected = np.zeros((32, 32), bool)
    expected[10:13, 14:19] = True
    np.testing.assert_array_equal(mistakes.merging, expected)
    assert not (mistakes.splitting | mistakes.harmless).any()


def test_a_stroke_through_a_cell_splits(two_cells):
    predicted = as_probability(two_cells)
    predicted[15:17, :14] = 0  # the left cell falls into two: 28 pixels
    mistakes = membrane_mistakes(two_cells, predicted, 0.5)
    assert (mistakes.merges, mistakes.splits) == (0, 1)
    assert mistakes.splitting.sum() == 28
    assert mistakes.splitting[15:17, :14].all()


def test_a_wall_two_pixels_aside_is_harmless(two_cells):
    mistakes = membrane_mistakes(two_cells, as_probability(np.roll(two_cells, 2, axis=1)), 0.5)
    assert (mistakes.merges, mistakes.splits) == (0, 0)
    assert not (mistakes.merging | mistakes.splitting).any()
    assert mistakes.harmless.sum() == 32 * (2 + 2)  # invented on one side, missed on the other


def test_a_gap_counts_where_the_wall_is_aside_as_well(two_cells):
    predicted = as_probability(np.roll(two_cells, 1, axis=1))
    predicted[10:13] = 1
    mistakes = membrane_mistakes(two_cells, predicted, 0.5)
    assert mistakes.merges == 1
    assert mistakes.merging[10:13, 14:19].all()
    assert not mistakes.merging[20:].any()  # far from the gap the same pixels are harmless
    assert mistakes.harmless[20:].any()


def test_substantial_overlaps_share_a_quarter_and_ten_pixels():
    shared = np.array([[10, 9, 24, 25]])
    np.testing.assert_array_equal(substantial_overlaps(shared, np.array([200]), np.array([10, 9, 100, 100])),
                                  [[True, False, False, True]])


# ------------------------------------------------------------------------------------------ separate objects


def boxes(*places, shape=(20, 60)):
    """Return a label map int32 with a box (top, left, bottom, right) for each number 1, 2, ..."""
    labels = np.zeros(shape, np.int32)
    for number, (top, left, bottom, right) in enumerate(places, 1):
        labels[top:bottom, left:right] = number
    return labels


# one right, one missed, two merged, one split, one invented
TRUTH = boxes((0, 0, 8, 8), (0, 12, 8, 20), (0, 24, 8, 30), (0, 30, 8, 36), (0, 40, 8, 54))
PREDICTED = boxes((0, 0, 8, 7), (0, 24, 8, 36), (0, 40, 8, 47), (0, 48, 8, 54), (12, 0, 20, 8))


def test_each_nucleus_has_one_fate():
    mistakes = object_mistakes(PREDICTED, TRUTH)
    assert (mistakes.right, mistakes.missed, mistakes.merged, mistakes.split, mistakes.invented) == (
        [1], [2], [3, 4], [5], [5])
    assert mistakes.wrong_pixels(PREDICTED, TRUTH).sum() == 8 * 8 + 2 * 8 * 6 + 8 * 14 + 8 * 8
    assert mistakes.describe() == "1 right, 1 missed, 2 merged\n1 split, 1 invented"


def test_the_small_neighbour_in_a_right_nucleus_is_merged():
    truth = boxes((0, 0, 10, 20), (0, 20, 10, 24))
    mistakes = object_mistakes(boxes((0, 0, 10, 24)), truth)
    assert (mistakes.right, mistakes.merged) == ([1], [2])


def test_the_small_piece_of_a_right_nucleus_is_a_split_not_an_invention():
    mistakes = object_mistakes(boxes((0, 0, 10, 20), (0, 21, 10, 24)), boxes((0, 0, 10, 24)))
    assert (mistakes.right, mistakes.split, mistakes.invented) == ([], [1], [])


def test_a_nucleus_drawn_much_too_large_is_missed_and_invented():
    mistakes = object_mistakes(boxes((0, 0, 20, 40)), boxes((0, 0, 10, 10)))
    assert (mistakes.missed, mistakes.invented) == ([1], [1])


def test_touching_in_a_few_pixels_is_nothing():
    truth = boxes((0, 0, 10, 10), (0, 10, 10, 20))
    mistakes = object_mistakes(boxes((0, 0, 10, 12), (0, 12, 10, 20)), truth)
    assert (mistakes.right, mistakes.merged, mistakes.split) == ([1, 2], [], [])


def test_numbers_that_no_pixel_has_are_neither_missed_nor_invented():
    mistakes = object_mistakes(boxes((0, 0, 5, 5)) * 7, boxes((0, 0, 5, 5), (10, 10, 15, 15)) * 3)
    assert (mistakes.right, mistakes.missed, mistakes.invented) == ([3], [6], [])


@pytest.mark.parametrize(("predicted", "truth", "words"), [
    (boxes(), boxes(), "0 right, 0 missed, 0 merged\n0 split, 0 invented"),
    (boxes(), boxes((0, 0, 5, 5)), "0 right, 1 missed, 0 merged\n0 split, 0 invented"),
    (boxes((0, 0, 5, 5)), boxes(), "0 right, 0 missed, 0 merged\n0 split, 1 invented")])
def test_maps_without_nuclei(predicted, truth, words):
    assert object_mistakes(predicted, truth).describe() == words
