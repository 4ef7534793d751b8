"""Near distances: those of scipy, up to where they are asked for."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_cdt, distance_transform_edt

from unet.segment.distance import nearest, squared_distance, steps_from


def images(rng):
    """Few and many points, lines, all and nothing."""
    yield from (rng.random((60, 90)) < share for share in (0.1, 0.01, 0.002))
    yield rng.random((1, 50)) < 0.1
    yield rng.random((50, 1)) < 0.1
    yield np.zeros((9, 7), bool)
    yield np.ones((9, 7), bool)


@pytest.mark.parametrize("most", [2, 13, 181, 300])
def test_distances_and_the_nearest_are_those_of_scipy(rng, most):
    for image in images(rng):
        distance = distance_transform_edt(~image) if image.any() else np.full(image.shape, np.inf)
        expected = np.minimum(np.rint(distance**2), most**2)
        np.testing.assert_array_equal(squared_distance(image, most), expected)
        some = rng.random(image.shape) < 0.7
        squared, place = nearest(image, np.flatnonzero(some), most)
        np.testing.assert_array_equal(squared, expected[some])
        near = squared < most**2
        assert image.ravel()[place[near]].all()
        away = np.argwhere(some) - np.stack(np.unravel_index(place, image.shape), axis=1)
        np.testing.assert_array_equal((away**2).sum(axis=1)[near], expected[some][near])


def test_of_several_as_near_it_is_the_left_one_and_of_these_the_upper_one():
    image = np.zeros((3, 3), bool)
    image[[0, 2, 0, 2], [0, 0, 2, 2]] = True
    squared, place = nearest(image, np.arange(9), 5)
    np.testing.assert_array_equal(squared, [0, 1, 0, 1, 2, 1, 0, 1, 0])
    np.testing.assert_array_equal(place, [0, 0, 2, 0, 0, 2, 6, 6, 8])


def test_steps_are_those_of_scipy_near_and_far(rng):
    for image in (*images(rng), *(rng.random((150, 200)) < share for share in (0.01, 0.002, 0.0002))):
        if image.any():
            np.testing.assert_array_equal(steps_from(image), distance_transform_cdt(~image, "taxicab"))
