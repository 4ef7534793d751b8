"""What mistakes look like, pixel by pixel, and which part of a picture is shown."""

import numpy as np
from matplotlib.colors import to_rgb

from unet.report.paint import (
    HARMLESS,
    INVENTED,
    MERGED,
    MISSED,
    RIGHT,
    SPLIT,
    STRENGTH,
    busiest,
    group_centres,
    paint_membranes,
    paint_objects,
)
from unet.scores.mistakes import MembraneMistakes, ObjectMistakes


def test_membranes_that_merge_and_split_stand_out_and_right_pixels_stay_gray():
    merging, splitting, harmless = np.zeros((3, 9, 9), bool)
    merging[1, 1] = splitting[7, 7] = harmless[1, 7] = True
    painted = paint_membranes(np.full((9, 9), 255, np.uint8), MembraneMistakes(merging, splitting, harmless, 1, 1))
    np.testing.assert_allclose(painted[[1, 2, 7, 6], [1, 1, 7, 7]], [to_rgb(MERGED)] * 2 + [to_rgb(SPLIT)] * 2)
    np.testing.assert_allclose(painted[1, 7], 0.55 * np.array(to_rgb(HARMLESS)) + 0.45 * 0.9)
    assert np.count_nonzero(np.ptp(painted, axis=2)) == 5 + 5 + 1


def test_objects_have_the_colour_of_what_became_of_them():
    truth, predicted = np.zeros((2, 3, 40), np.int32)
    for number in range(1, 5):
        truth[:, 8 * number - 8:8 * number - 4] = number
    predicted[:, 34:38] = 9
    mistakes = ObjectMistakes(right=[1], missed=[2], merged=[3], split=[4], invented=[9])
    painted = paint_objects(np.full((3, 40, 3), 255, np.uint8), predicted, truth, mistakes)
    for column, colour in ((1, RIGHT), (9, MISSED), (17, MERGED), (25, SPLIT), (36, INVENTED)):
        np.testing.assert_allclose(painted[1, column], STRENGTH * np.array(to_rgb(colour)) + (1 - STRENGTH) * 0.9)
    assert painted[1, [34, 37]].tolist() == [[0, 0, 0]] * 2  # the outline of what was predicted
    np.testing.assert_allclose(painted[:, 5], 0.9)


def test_places_are_one_for_pixels_that_lie_together():
    where = np.zeros((60, 60), bool)
    where[10, 10] = where[10, 14] = where[50, 50] = True
    np.testing.assert_allclose(group_centres(where), [[10, 12], [50, 50]], atol=0.5)
    assert group_centres(np.zeros((9, 9), bool)).shape == (0, 2)


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
