"""Which walls are membranes: what is known of each by hand, what slices beside it say, and what is learnt of it."""

import numpy as np
import pytest
from phantoms import strip
from scipy.special import logit

from unet.segment import judge as judging
from unet.segment.crests import find_walls
from unet.segment.judge import (
    example,
    features,
    fit_judge,
    fit_judges,
    judge,
    neighbour_votes,
    neighbouring,
    show_same_tissue,
    within_one_cell,
)


def test_features_by_hand():
    cut = find_walls(strip({30: 0.2}), 1)
    (mean, odds, *quantiles, length, smaller, larger, share, slender, width), = features(cut)
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
    cut = find_walls(strip({30: 0.2, 51: 0.6, 70: 0.1}), 1)
    same, known = within_one_cell(cut, label)
    by_mean = dict(zip(np.round(cut.mean, 1).tolist(), same.tolist(), strict=True))
    assert by_mean == {0.2: True, 0.6: False, 0.1: True}
    assert known.all()
    label[:, 71:] = 0
    same, known = within_one_cell(find_walls(strip({30: 0.2, 70: 0.1}), 1), label)
    assert known.sum() == 1  # beyond the other there is no cell


def test_a_wall_unlike_any_seen_is_judged_as_the_nearest_seen(rng):
    values, same = rng.normal(0, 1, (200, 15)), rng.random(200) < 0.5
    learnt = fit_judge([(values, same)])
    cut = find_walls(strip({300: 0.2}, (900, 900)), 1)
    assert features(cut)[0][9] > learnt["most"][9]  # its length
    inside = np.clip(features(cut), learnt["least"], learnt["most"])
    at_the_edge = (inside - learnt["mean"]) / np.array(learnt["sd"])
    np.testing.assert_allclose(judging._terms(features(cut), learnt)[:, 1:16], at_the_edge)


def test_neighbours_are_those_before_and_after():
    assert [neighbouring("abc", number) for number in range(3)] == [["b"], ["a", "c"], ["b"]]
    assert neighbouring("a", 0) == []


def test_slices_are_alike_where_their_membranes_lie_in_the_same_places(rng):
    one, other = (np.repeat(np.repeat(rng.random((20, 20)), 8, axis=0), 8, axis=1).astype(np.float32) for _ in range(2))
    assert show_same_tissue(one, one)
    assert show_same_tissue(one, 0.3 * one + 0.7 * other)
    assert not show_same_tissue(one, other)
    assert not show_same_tissue(one, np.ones_like(one))  # nothing to compare
    assert not show_same_tissue(one, one[:-1])  # of another size
    assert not show_same_tissue(one[:4, :4], one[:4, :4])


def test_what_neighbours_say_of_a_wall_by_hand():
    one = strip({30: 0.2, 60: 0.5})
    cut = find_walls(one, 1)
    first, second = np.argsort(cut.mean)
    closed, opened, none = strip({30: 0.1, 60: 0.1}), strip({30: 0.1}), strip({30: 0.1})
    none[:, 31:] = 0.6  # no cell is sure there
    said = neighbour_votes(cut, one, [closed, opened])
    assert said[[first, second]].tolist() == [0, 0.5]
    assert neighbour_votes(cut, one, [opened])[[first, second]].tolist() == [0, 1]
    assert neighbour_votes(cut, one, []) is None
    assert neighbour_votes(cut, one, [none])[[first, second]].tolist() == [0.5, 0.5]
    assert neighbour_votes(cut, one, [strip({10: 0.1, 80: 0.1})]) is None  # not alike
    np.testing.assert_array_equal(features(cut, said)[:, :15], features(cut))
    np.testing.assert_array_equal(features(cut, said)[:, 15], said)


def test_slices_without_neighbours_teach_the_judge_of_slices_alone(rng):
    cut = find_walls(strip({30: 0.2}), 1)
    label = np.full((20, 90), 255, np.uint8)
    _, beside, same = example(cut, label, None)
    assert np.isnan(beside).all()
    assert same.tolist() == [True]
    lonely = [(rng.normal(0, 1, (200, 15)), np.full(200, np.nan), rng.random(200) < 0.5)]
    with_others = [(rng.normal(0, 1, (200, 15)), rng.random(200), rng.random(200) < 0.5)]
    assert len(fit_judges(lonely)["judge"]["mean"]) == 15
    assert fit_judges(lonely)["with_neighbours"] is None
    assert len(fit_judges(lonely + with_others)["with_neighbours"]["mean"]) == 16
    assert fit_judges([]) == {"judge": None, "with_neighbours": None}


def test_several_judges_say_their_mean(rng):
    one = strip({30: 0.2, 60: 0.5})
    cut, beside = find_walls(one, 1), np.array([0.0, 1.0])
    several = [fit_judge([(rng.normal(0, 1, (200, 16)), rng.random(200) < 0.5)]) for _ in range(2)]
    np.testing.assert_allclose(judge(cut, several, beside), (judge(cut, several[0], beside)
                                                              + judge(cut, several[1], beside)) / 2)
