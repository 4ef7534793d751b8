"""Walls along crests, by hand: where they lie, what is redrawn, and what stays."""

from dataclasses import replace

import numpy as np
import pytest
from phantoms import strip

from unet.scores.isbi import isbi_scores
from unet.segment.crests import find_walls, redraw
from unet.segment.walls import draw_walls


def along_means(probability, width):
    """Redraw a probability with the mean along each wall."""
    return draw_walls(np.asarray(probability, np.float32), {"width": width, "judge": None})


def test_walls_and_their_sides_by_hand():
    cut = find_walls(strip({30: 0.2, 50: 0.6}), 1)
    assert sorted(np.round(cut.mean, 6)) == [0.2, 0.6]
    first = cut.sides[np.argmin(cut.mean)]
    assert set(np.unique(cut.cells[:, :30])) == {cut.cells[0, 0]}
    assert sorted(first) == sorted([cut.cells[0, 0], cut.cells[0, 40]])
    assert find_walls(np.full((9, 9), 0.5, np.float32), 1) is None


def lopsided_wall():
    """Return a slice of two cells: the true membrane in columns 18..22, predicted as fading slowly to its right."""
    label = np.full((40, 60), 255, np.uint8)
    label[:, 18:23] = 0
    across = np.ones(60, np.float32)
    across[18:23] = 0.3, 0.1, 0.02, 0.1, 0.3
    across[23:37] = np.linspace(0.4, 0.9, 14)
    return label, np.repeat(across[None], 40, axis=0)


def test_a_wall_lies_on_the_crest_alike_to_both_sides():
    _, probability = lopsided_wall()
    redrawn = along_means(probability, 5)
    np.testing.assert_array_equal(np.flatnonzero(redrawn[10] < 1), range(18, 24))  # 18 to 25 were likelier membrane
    assert len(np.unique(redrawn[:, 18:24])) == 1  # one wall, one probability
    assert redrawn[10, 20] == pytest.approx(probability[10, 20], abs=0.1)
    assert redrawn.dtype == np.float32


def test_lopsided_membrane_scores_better_as_a_wall():
    label, probability = lopsided_wall()
    raw, redrawn = (isbi_scores(p[None], label[None], (0.8,))["best"]["V_info"]["V_info"]
                    for p in (probability, along_means(probability, 5)))
    assert redrawn == pytest.approx(1)
    assert raw < 0.9


def test_a_short_gap_closes_and_a_doubtful_membrane_stays_doubtful():
    probability = np.ones((40, 60), np.float32)
    probability[:, 19:22] = 0.1
    probability[18:22, 19:22] = 0.85  # a tenth of the wall: its mean is 0.175
    np.testing.assert_allclose(along_means(probability, 3)[:, 19:22], 0.175, atol=1e-6)
    probability[:, 19:22] = 0.7
    np.testing.assert_allclose(along_means(probability, 3)[:, 19:22], 0.7, atol=1e-6)  # as wide as walls usually are


def test_two_walls_keep_their_own_probabilities_and_widths():
    probability = np.ones((40, 60), np.float32)
    probability[:, 20], probability[:, 37:44] = 0.1, 0.4
    redrawn = along_means(probability, 3)
    np.testing.assert_allclose(redrawn[20, [19, 20, 21]], [1, 0.1, 1], atol=1e-6)
    np.testing.assert_allclose(redrawn[20, 36:45], [1, *[0.4] * 7, 1], atol=1e-6)


def test_a_gap_of_two_pixels_where_another_wall_meets_a_sure_one_closes():
    cut = find_walls(strip({30: 0.1}), 1)
    where_others_meet = np.isin(np.arange(20), (9, 10)).astype(int)
    redrawn = redraw(strip({30: 0.1}), replace(cut, wall_of=where_others_meet), np.array([0.1, 1.0]), 1)
    np.testing.assert_allclose(redrawn[:, 30], 0.1)


def test_what_is_thick_is_no_crest():
    probability = np.ones((60, 90), np.float32)
    probability[:, 20:24], probability[:, 40:61] = 0.1, 0.2  # 4 and 21 pixels wide
    cut = find_walls(probability, 4)
    assert cut.thick[:, 40:61].all()
    assert not cut.thick[:, :40].any()
    assert len(cut.sides) == 1
    np.testing.assert_array_equal(along_means(probability, 4)[:, 40:61], probability[:, 40:61])


def test_without_a_crest_nothing_is_redrawn():
    unsure = np.full((8, 8), 0.5, np.float32)
    np.testing.assert_array_equal(along_means(unsure, 5), unsure)
    cell = np.full((8, 8), 0.99, np.float32)
    cell[2, 2] = 0.5
    np.testing.assert_array_equal(along_means(cell, 5), cell)
