"""Average precision of nuclei against arithmetic by hand."""

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from unet.scores.precision import IOU_THRESHOLDS, average_precision, format_nuclei, nuclei_scores, pixel_scores


def row(*runs):
    """Instance map (1, W) of runs (number, length)."""
    return np.repeat([number for number, _ in runs], [length for _, length in runs])[np.newaxis].astype(np.int32)


TRUTH = row((1, 10), (0, 5), (2, 10), (0, 5))


def test_the_same_nuclei_under_other_numbers_are_perfect():
    scores = average_precision(row((7, 10), (0, 5), (70_000, 10), (0, 5)), TRUTH)
    assert set(scores["ap"].values()) == {1.0}
    assert (scores["mean"], scores["predicted"], scores["true"]) == (1.0, 2, 2)
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_one_nucleus_found_well_one_badly():
    # IoU 8/10 and 6/11 (six shared, one beside): pairs of t < .8, and of t = .50 alone; .80 itself is not exceeded
    scores = average_precision(row((1, 8), (0, 7), (2, 6), (0, 4), (0, 5)), TRUTH)
    assert_array_equal(list(scores["tp"].values()), [2, 2, 1, 1, 1, 1, 0, 0, 0, 0])
    assert scores["ap"][0.55] == 1.0  # 6/10
    assert scores["ap"][0.6] == 1 / 3  # one pair, one false, one missed; .6 itself is not exceeded
    assert scores["mean"] == pytest.approx((2 + 4 / 3) / 10)


def test_two_nuclei_merged_are_one_false_and_two_missed():
    # each shares 10 of the merged 25: IoU 10/25
    scores = average_precision(row((1, 25), (0, 5)), TRUTH)
    assert scores["mean"] == 0.0
    assert (scores["predicted"], scores["true"]) == (1, 2)
    # with a small neighbour the large one survives: IoU 10/13, pairs of t up to .75; TP 1, FP 0, FN 1
    scores = average_precision(row((1, 13), (0, 2)), row((1, 10), (0, 1), (2, 2), (0, 2)))
    assert scores["ap"] == {t: 0.5 if t <= 0.75 else 0.0 for t in IOU_THRESHOLDS}
    assert scores["mean"] == pytest.approx(0.3)


def test_a_nucleus_split_in_two():
    # halves have IoU 5/10, not more than .5: two false, one missed
    assert average_precision(row((1, 5), (2, 5)), row((1, 10)))["mean"] == 0.0
    # 7 and 3 of 10: the larger part is a pair below .7; TP 1, FP 1, FN 0
    scores = average_precision(row((1, 7), (2, 3)), row((1, 10)))
    assert scores["ap"] == {t: 0.5 if t < 0.7 else 0.0 for t in IOU_THRESHOLDS}
    assert scores["mean"] == pytest.approx(0.2)


@pytest.mark.parametrize("share", [10, 11, 12, 13, 14, 15, 16, 17, 18, 19])
def test_an_iou_of_exactly_a_threshold_does_not_pass_it(share):
    scores = average_precision(row((1, share), (0, 20 - share)), row((1, 20)))
    threshold = share / 20
    assert threshold in IOU_THRESHOLDS
    assert [t for t, pairs in scores["tp"].items() if pairs] == [t for t in IOU_THRESHOLDS if t < threshold]


def test_empty_maps():
    empty = np.zeros((3, 4), np.int32)
    nucleus = np.ones((3, 4), np.int32)
    assert average_precision(empty, nucleus)["mean"] == 0.0
    assert average_precision(nucleus, empty)["mean"] == 0.0
    both = average_precision(empty, empty)
    assert set(both["ap"].values()) == {1.0}
    assert (both["mean"], both["predicted"], both["true"]) == (1.0, 0, 0)


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="the truth is"):
        average_precision(TRUTH, TRUTH[:, 1:])
    with pytest.raises(ValueError, match="whole numbers"):
        average_precision(TRUTH.astype(np.float32), TRUTH)
    with pytest.raises(ValueError, match="b: the prediction"):
        nuclei_scores([(TRUTH, TRUTH), (TRUTH, TRUTH[:, 1:])], ["a", "b"])
    with pytest.raises(ValueError, match="no image"):
        nuclei_scores([], [])


def test_a_set_is_the_mean_over_images_and_over_each_kind():
    half = row((1, 7), (2, 3)), row((1, 10))  # mean .2, as above
    scores = nuclei_scores([(TRUTH, TRUTH), half, half], ["a", "b", "c"], ["dark", "dark", "stained"])
    assert scores["all"]["mean"] == pytest.approx(1.4 / 3)
    assert scores["modalities"]["dark"]["mean"] == pytest.approx(0.6)
    assert scores["modalities"]["stained"]["ap"]["0.65"] == 0.5
    assert (scores["all"]["images"], scores["all"]["true"], scores["all"]["predicted"]) == (3, 4, 6)
    assert json.loads(json.dumps(scores)) == scores
    lines = format_nuclei(scores).splitlines()
    assert lines[2].split() == ["b", "1", "2", "0.5000", "0.0000", "0.0000", "0.2000"]
    assert lines[-2].startswith("all, 3 images")
    assert max(map(len, lines)) <= 100


def test_pixel_scores_by_hand():
    probability = np.array([[0.9, 0.6, 0.2, 0.4]])
    assert pixel_scores(probability, np.array([[1, 0, 2, 0]])) == {"accuracy": 0.5, "iou": pytest.approx(1 / 3)}
    assert pixel_scores(np.zeros((2, 2)), np.zeros((2, 2), int)) == {"accuracy": 1.0, "iou": 1.0}
