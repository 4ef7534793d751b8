"""Merging cells: values by hand, a plain second way to the same, and a piece that must not join two cells."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

from unet.segment.merging import merge_values
from unet.segment.walls import draw_walls, number_cells


def walls_between(*walls):
    """Walls (one cell, other cell, length in pixels), as `merge_values` reads them."""
    return SimpleNamespace(cells=np.arange(max(max(wall[:2]) for wall in walls) + 1),
                           sides=np.array([wall[:2] for wall in walls]),
                           wall_of=np.repeat(np.arange(len(walls)), [wall[2] for wall in walls]))


def test_the_wall_around_two_merged_cells_has_the_mean_of_its_pixels():
    # 3 joins 1 at .9; what is left are 40 pixels between 1 and 2: (10 * .8 + 30 * .1) / 40
    values = merge_values(walls_between((1, 3, 10), (3, 2, 10), (1, 2, 30)), np.array([0.9, 0.8, 0.1]))
    assert values == pytest.approx([0.9, 0.275, 0.275])


def test_cells_in_a_row_keep_their_walls():
    assert merge_values(walls_between((1, 2, 5), (2, 3, 7)), np.array([0.2, 0.6])).tolist() == [0.2, 0.6]


def test_a_crest_within_a_cell_keeps_its_value():
    assert merge_values(walls_between((1, 1, 5), (1, 2, 7)), np.array([0.2, 0.6])).tolist() == [0.2, 0.6]


def merge_plainly(walls, values, threshold):
    """Merge the pair of the greatest mean until none is above the threshold; return the group of each cell."""
    group, length = np.arange(len(walls.cells)), np.bincount(walls.wall_of)
    while True:
        means = {}
        for pair in combinations(np.unique(group).tolist(), 2):
            between = [set(group[sides].tolist()) == set(pair) for sides in walls.sides]
            if any(between):
                means[pair] = np.average(values[between], weights=length[between])
        best = max(means, key=means.get, default=None)
        if best is None or means[best] <= threshold:
            return group
        group[group == best[1]] = best[0]


@pytest.mark.parametrize("seed", range(5))
def test_above_a_threshold_cells_are_joined_as_merging_one_by_one_joins_them(seed):
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in combinations(range(1, 13), 2) if rng.random() < 0.35]
    walls, values = walls_between(*((*pair, rng.integers(1, 30)) for pair in pairs)), rng.random(len(pairs))
    merged, outcomes = merge_values(walls, values), set()
    for threshold in (0.3, 0.5, 0.7):
        group = merge_plainly(walls, values, threshold)
        joined = group[walls.sides[:, 0]] == group[walls.sides[:, 1]]
        np.testing.assert_array_equal(merged > threshold, joined)
        outcomes |= set(joined.tolist())
    assert outcomes == {True, False}


def test_a_piece_that_seems_to_belong_to_both_cells_does_not_join_them():
    probability = np.ones((60, 90), np.float32)
    probability[:, 45] = 0.05  # a sure membrane, with a pocket in it whose walls are doubtful
    probability[25:36, 40:51] = 0.6
    probability[26:35, 41:50] = 1
    drawn = draw_walls(probability, {"width": 1, "judge": None})
    assert np.unique(drawn[30]).size == 3  # cell, the first doubtful wall, the membrane with the other
    assert number_cells(probability, 0.5).max() == 1
    assert number_cells(drawn, 0.5).max() == 2
