"""Simulated tissue: which cell a pixel belongs to, how far it is from a wall, and how smooth the noise is."""

import numpy as np
import pytest

from unet.inputs.tissue import partition, smooth_noise


def test_partition_of_two_equal_discs_is_the_line_between_them():
    positions, radii = np.float32([[10, 10], [10, 31]]), np.float32([5, 5])
    owner, distance = partition(positions, radii, np.array([0, 1]), np.zeros((2, 21, 42), np.float32))
    np.testing.assert_array_equal(owner, np.arange(42)[None].repeat(21, 0) > 20)
    assert distance[10, 14:18] == pytest.approx([6.5, 5.5, 4.5, 3.5], abs=1e-4)  # the wall is at column 20.5


def test_discs_of_one_cell_have_no_wall_between_them():
    positions, radii = np.float32([[10, 10], [10, 31]]), np.float32([5, 5])
    owner, distance = partition(positions, radii, np.array([7, 7]), np.zeros((2, 21, 42), np.float32))
    assert (owner == 7).all()
    assert distance.min() > 100


def test_smooth_noise_is_smooth_at_its_scale():
    field = smooth_noise((256, 256), 8.0, np.random.default_rng(0))
    assert field.shape == (256, 256) and field.dtype == np.float32
    assert abs(field.std() - 1) < 0.25
    rms_slope = np.sqrt(np.mean(np.diff(field, axis=0) ** 2))
    assert rms_slope == pytest.approx(1 / (8 * np.sqrt(2)), rel=0.25)  # of a Gaussian field of that scale
