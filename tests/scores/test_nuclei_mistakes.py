"""What became of nuclei: by hand, on maps of a few pixels; where mistakes lie and how they are painted."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from unet.scores.nuclei_mistakes import COLOURS, STRENGTH, busiest, find_nuclei_mistakes, paint_nuclei, wrong_pixels


def boxes(*places, shape=(20, 60)):
    """A label map int32 with a box (top, left, bottom, right) for each number 1, 2, ..."""
    labels = np.zeros(shape, np.int32)
    for number, (top, left, bottom, right) in enumerate(places, 1):
        labels[top:bottom, left:right] = number
    return labels


# one found, one missed, two merged, one split, one invented
TRUTH = boxes((0, 0, 8, 8), (0, 12, 8, 20), (0, 24, 8, 30), (0, 30, 8, 36), (0, 40, 8, 54))
PREDICTED = boxes((0, 0, 8, 7), (0, 24, 8, 36), (0, 40, 8, 47), (0, 48, 8, 54), (12, 0, 20, 8))


def test_each_nucleus_has_one_fate():
    mistakes = find_nuclei_mistakes(PREDICTED, TRUTH)
    assert (mistakes.found, mistakes.missed, mistakes.merged, mistakes.split, mistakes.invented) == (
        [1], [2], [3, 4], [5], [5])
    assert mistakes.in_words() == "1 found, 1 missed, 2 merged\n1 split, 1 invented"


def test_the_small_neighbour_in_a_found_nucleus_is_merged():
    truth = boxes((0, 0, 10, 20), (0, 20, 10, 24))
    mistakes = find_nuclei_mistakes(boxes((0, 0, 10, 24)), truth)
    assert (mistakes.found, mistakes.merged) == ([1], [2])


def test_the_small_piece_of_a_found_nucleus_is_a_split_not_an_invention():
    mistakes = find_nuclei_mistakes(boxes((0, 0, 10, 20), (0, 21, 10, 24)), boxes((0, 0, 10, 24)))
    assert (mistakes.found, mistakes.split, mistakes.invented) == ([], [1], [])


def test_a_nucleus_drawn_much_too_large_is_missed_and_invented():
    mistakes = find_nuclei_mistakes(boxes((0, 0, 20, 40)), boxes((0, 0, 10, 10)))
    assert (mistakes.missed, mistakes.invented) == ([1], [1])


def test_touching_in_a_few_pixels_is_nothing():
    truth = boxes((0, 0, 10, 10), (0, 10, 10, 20))
    mistakes = find_nuclei_mistakes(boxes((0, 0, 10, 12), (0, 12, 10, 20)), truth)
    assert (mistakes.found, mistakes.merged, mistakes.split) == ([1, 2], [], [])


@pytest.mark.parametrize(("predicted", "truth", "words"), [
    (boxes(), boxes(), "0 found, 0 missed, 0 merged\n0 split, 0 invented"),
    (boxes(), boxes((0, 0, 5, 5)), "0 found, 1 missed, 0 merged\n0 split, 0 invented"),
    (boxes((0, 0, 5, 5)), boxes(), "0 found, 0 missed, 0 merged\n0 split, 1 invented")])
def test_maps_without_nuclei(predicted, truth, words):
    assert find_nuclei_mistakes(predicted, truth).in_words() == words
    assert paint_nuclei(np.zeros(truth.shape, np.uint8), predicted, truth,
                        find_nuclei_mistakes(predicted, truth)).shape == (*truth.shape, 3)


def test_fates_are_painted_in_their_colours():
    mistakes = find_nuclei_mistakes(PREDICTED, TRUTH)
    painted = paint_nuclei(np.full((*TRUTH.shape, 3), 255, np.uint8), PREDICTED, TRUTH, mistakes)
    for name, place in (("found", (3, 3)), ("missed", (3, 15)), ("merged", (3, 27)), ("split", (3, 43)),
                        ("invented", (15, 3))):
        np.testing.assert_allclose(painted[place], STRENGTH * np.array(to_rgb(COLOURS[name])) + (1 - STRENGTH) * 0.9,
                                   atol=1e-6)
    assert painted[7, 30].tolist() == [0, 0, 0]  # the predicted outline goes around both that merged
    assert painted[3, 30].tolist() != [0, 0, 0]
    assert wrong_pixels(PREDICTED, TRUTH, mistakes).sum() == 8 * 8 + 2 * 8 * 6 + 8 * 14 + 8 * 8


def test_the_busiest_window_by_hand():
    wrong = np.zeros((10, 12), bool)
    assert busiest(wrong, 4) == (slice(3, 7), slice(4, 8))  # nothing: the middle
    assert busiest(wrong, 100) == (slice(0, 10), slice(0, 12))
    wrong[9, 11] = wrong[0, 0] = wrong[0, 1] = True
    rows, columns = busiest(wrong, 4)
    assert wrong[rows, columns].sum() == 2
    wrong[5, 5:7] = True
    wrong[5, 4] = True
    assert wrong[busiest(wrong, 4)].sum() == 3
    assert wrong[busiest(wrong, 1)].shape == (1, 1)
