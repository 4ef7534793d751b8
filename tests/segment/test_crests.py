"""Membranes along the crest of their probability."""

import numpy as np
import pytest

from unet.scores.isbi import isbi_scores
from unet.segment.crests import along_crests, membrane_width


def lopsided_wall():
    """A slice of two cells: the true membrane in columns 18..22, predicted with a slow fading to its right."""
    label = np.full((40, 60), 255, np.uint8)
    label[:, 18:23] = 0
    across = np.ones(60, np.float32)
    across[18:23] = 0.3, 0.1, 0.02, 0.1, 0.3
    across[23:37] = np.linspace(0.4, 0.9, 14)
    return label, np.repeat(across[None], 40, axis=0)


def test_width_of_walls_worked_by_hand():
    label = np.full((40, 60), 255, np.uint8)
    label[:, 18:23] = 0  # 200 pixels of membrane, thinned to a line of 40 or, where two floods leave two, 80
    assert membrane_width([label]) in (5.0, 2.5)
    label[:, 22] = 255
    assert membrane_width([label, label]) in (4.0, 2.0)


def test_ground_between_scattered_objects_is_no_membrane():
    label = np.zeros((60, 60), np.uint8)
    for y in (5, 35):
        for x in (5, 35):
            label[y:y + 15, x:x + 15] = 255
    assert membrane_width([label]) == 0
    assert membrane_width([np.full((20, 20), 255, np.uint8)]) == 0  # one cell, no membrane
    assert membrane_width([np.zeros((20, 20), np.uint8)]) == 0


def test_walls_lie_on_the_crest_and_have_the_asked_width():
    _, probability = lopsided_wall()
    walls = along_crests(probability, 5)
    np.testing.assert_array_equal(np.flatnonzero(walls[10] < 1), range(18, 23))
    assert len(np.unique(walls[:, 18:23])) == 1  # one wall, one probability
    assert walls[10, 20] == pytest.approx(probability[10, 20], abs=0.1)
    assert (np.delete(walls, range(18, 23), axis=1) == 1).all()
    assert walls.dtype == np.float32


def test_lopsided_membrane_scores_better_as_a_wall():
    label, probability = lopsided_wall()
    plain, walls = (isbi_scores(p[None], label[None], (0.8,))["best"]["V_info"]["V_info"]
                    for p in (probability, along_crests(probability, 5)))
    assert walls == pytest.approx(1)
    assert plain < 0.9


def test_a_short_gap_closes_and_a_doubtful_membrane_stays_doubtful():
    probability = np.ones((40, 60), np.float32)
    probability[:, 19:22] = 0.1
    probability[18:22, 19:22] = 0.85  # a tenth of the wall: its mean is 0.175
    np.testing.assert_allclose(along_crests(probability, 3)[:, 20], 0.175, atol=1e-6)
    probability[:, 19:22] = 0.7
    np.testing.assert_allclose(along_crests(probability, 3)[:, 20], 0.7, atol=1e-6)


def test_two_walls_keep_their_own_probabilities():
    probability = np.ones((40, 60), np.float32)
    probability[:, 20], probability[:, 40] = 0.1, 0.6
    walls = along_crests(probability, 3)
    np.testing.assert_allclose(walls[20, [19, 20, 21]], 0.1, atol=1e-6)
    np.testing.assert_allclose(walls[20, [39, 40, 41]], 0.6, atol=1e-6)


def test_without_a_crest_nothing_is_redrawn():
    unsure = np.full((8, 8), 0.5, np.float32)
    np.testing.assert_array_equal(along_crests(unsure, 5), unsure)
    cell = np.full((8, 8), 0.99, np.float32)
    cell[2, 2] = 0.5
    np.testing.assert_array_equal(along_crests(cell, 5), cell)
