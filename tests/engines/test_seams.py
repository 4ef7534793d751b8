"""Seams: where they are in all flips, and that a jump there is found."""

import numpy as np
import pytest

from unet.engines.predictor import Limits, Predictor
from unet.engines.seams import Seams, seam_positions
from unet.network import Network
from unet.tasks.cells import Cells

SAME = Network(4, 2, dropout=(0, 0, 0))


def predictor(flips=1, core=40):
    return Predictor(None, SAME, Cells(), flips, limits=Limits(core))


def test_seams_are_where_cores_meet():
    assert [found.tolist() for found in seam_positions(predictor(), (100, 70))] == [[36, 72], [36]]  # cores of 36 x 36
    assert [found.tolist() for found in seam_positions(predictor(8), (100, 70))] == [[28, 36, 64, 72], [36]]
    assert [found.tolist() for found in seam_positions(predictor(8), (40, 40))] == [[], []]


@pytest.mark.parametrize("classes", [(), (3,)])
def test_noise_has_no_seams_and_a_jump_is_one(rng, classes, monkeypatch):
    monkeypatch.setattr("unet.engines.seams.BAND", 17)  # the result does not depend on it
    noise = rng.random((100, 70, *classes), np.float32)
    smooth, jump = Seams(predictor()), Seams(predictor())
    smooth.add(noise)
    assert 0.9 < smooth.ratio < 1.1
    noise[36:72] += 1
    jump.add(noise)
    pairs = np.abs(np.diff(noise, axis=0)), np.abs(np.diff(noise, axis=1))
    across = np.concatenate([pairs[0][[35, 71]].ravel(), pairs[1][:, [35]].ravel()])
    elsewhere = np.concatenate([np.delete(pairs[0], [35, 71], 0).ravel(), np.delete(pairs[1], 35, 1).ravel()])
    assert jump.ratio == pytest.approx(across.mean() / elsewhere.mean(), rel=1e-5)
    assert jump.ratio > 1.5 and "more than 1.05, they may be visible" in jump.describe()


def test_one_tile_has_no_seam(rng):
    seams = Seams(predictor())
    seams.add(rng.random((30, 40), np.float32))
    assert seams.ratio is None
    assert seams.describe() == "seams: none, or nothing to compare them with"
