"""Which walls are membranes, learnt from labelled slices."""

import json

import numpy as np
import pytest
from scipy.special import logit

from unet.segment import walls
from unet.segment.crests import along_crests, find_walls
from unet.segment.walls import features, judge_walls, learn_walls, within_one_cell


def strip(lines, shape=(20, 90)):
    """Probability of cell with lines of membrane at some columns, {column: probability}."""
    probability = np.ones(shape, np.float32)
    for column, value in lines.items():
        probability[:, column] = value
    return probability


def test_walls_and_their_sides_by_hand():
    found = find_walls(strip({30: 0.2, 50: 0.6}))
    assert sorted(np.round(found.mean, 6)) == [0.2, 0.6]
    first = found.sides[np.argmin(found.mean)]
    assert set(np.unique(found.cells[:, :30])) == {found.cells[0, 0]}
    assert sorted(first) == sorted([found.cells[0, 0], found.cells[0, 40]])
    assert find_walls(np.full((9, 9), 0.5, np.float32)) is None


def test_features_by_hand():
    found = find_walls(strip({30: 0.2}, (20, 90)))
    (mean, odds, *quantiles, length, smaller, larger, share, slender, width), = features(found)
    assert mean == pytest.approx(0.2)
    assert odds == pytest.approx(logit(0.2), rel=1e-5)
    np.testing.assert_allclose(quantiles, 0.2, rtol=1e-6)
    np.testing.assert_allclose(np.exp([length, smaller, larger]), [20, 601, 1181], rtol=1e-6)
    assert share == 1  # the only wall of both cells
    assert width == pytest.approx(np.log(30))  # the picture's edge is no membrane: 30 pixels to the wall
    assert slender == pytest.approx(np.log(20 / 30))


def test_one_cell_on_both_sides_by_hand():
    label = np.full((20, 90), 255, np.uint8)
    label[:, 50:53] = 0
    found = find_walls(strip({30: 0.2, 51: 0.6, 70: 0.1}))
    same, known = within_one_cell(found, label)
    by_mean = dict(zip(np.round(found.mean, 1).tolist(), same.tolist(), strict=True))
    assert by_mean == {0.2: True, 0.6: False, 0.1: True}
    assert known.all()
    label[:, 71:] = 0
    same, known = within_one_cell(find_walls(strip({30: 0.2, 70: 0.1})), label)
    assert known.sum() == 1  # beyond the other there is no cell


def slices_with_short_false_walls(rng, count=40):
    """Doubtful walls of one probability: those across the narrow strip are true, those across the wide one false."""
    probabilities, labels = [], []
    for _ in range(count):
        probability, label = np.ones((60, 120), np.float32), np.full((60, 120), 255, np.uint8)
        probability[20], label[19:22] = 0.05, 0  # a sure membrane along the slice
        for row, true in ((slice(0, 20), True), (slice(21, 60), False)):
            for column in rng.choice(np.arange(20, 100, 20), 2, replace=False):
                probability[row, column] = rng.uniform(0.4, 0.6)
                if true:
                    label[row, column - 1:column + 2] = 0
        probabilities.append(probability)
        labels.append(label)
    return probabilities, labels


def test_what_the_probability_cannot_tell_is_learnt_from_the_shape(rng):
    probabilities, labels = slices_with_short_false_walls(rng)
    learnt = json.loads(json.dumps(learn_walls(probabilities, labels)))
    (probability,), (label,) = slices_with_short_false_walls(rng, 1)
    found = find_walls(probability)
    same, known = within_one_cell(found, label)
    judged = judge_walls(found, learnt)
    assert known.all()
    assert same.any()
    assert not same.all()
    assert judged[same].min() > 0.5 > judged[~same].max()
    redrawn = along_crests(probability, 3, lambda one: judge_walls(one, learnt))
    assert np.array_equal(np.unique(redrawn[redrawn < 1]), np.unique(judged.astype(np.float32)))


def test_a_wall_unlike_any_that_was_seen_is_judged_as_the_nearest_that_was(rng):
    learnt = learn_walls(*slices_with_short_false_walls(rng))
    found = find_walls(strip({300: 0.2}, (900, 900)))
    assert features(found)[0][9] > learnt["most"][9]  # its length
    inside = np.clip(features(found), learnt["least"], learnt["most"])
    at_the_edge = (inside - learnt["mean"]) / np.array(learnt["sd"])
    np.testing.assert_allclose(walls._terms(features(found), learnt)[:, 1:16], at_the_edge)


def test_too_few_walls_teach_nothing(rng):
    assert learn_walls(*slices_with_short_false_walls(rng, 10)) is None
    assert learn_walls([np.full((9, 9), 0.5, np.float32)], [np.zeros((9, 9), np.uint8)]) is None
