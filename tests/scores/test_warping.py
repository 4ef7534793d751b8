"""The warping error: simple points by their definition, warps that keep the topology, hand-sized borders."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from scipy import ndimage

from unet.scores.warping import flip_simple_points, simple_points, warping_error

quick = settings(max_examples=60, deadline=None)
pairs_of_images = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def test_simple_points_are_what_their_definition_says():
    ring = [(1, 2), (0, 2), (0, 1), (0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]  # from the right, then up
    for code, simple in enumerate(simple_points()):
        cells = np.zeros((3, 3), bool)
        cells[tuple(np.transpose(ring))] = [code >> bit & 1 for bit in range(8)]
        membrane = ~cells
        membrane[1, 1] = False
        parts = ndimage.label(cells)[0]
        touching = {parts[y, x] for y, x in ring[::2]} - {0}
        assert simple == (len(touching) == 1 and ndimage.label(membrane, np.ones((3, 3)))[1] == 1)


@quick
@given(pairs_of_images)
def test_warp_keeps_the_topology_and_ends_when_no_simple_point_is_left(pair):
    truth, prediction = pair
    warped = flip_simple_points(truth, prediction)
    assert not ((warped != truth) & (warped != prediction)).any()
    counts = [(ndimage.label(x)[1], ndimage.label(np.pad(~x, 1, constant_values=True), np.ones((3, 3)))[1])
              for x in (truth, warped)]
    assert counts[0] == counts[1]
    assert_array_equal(flip_simple_points(warped, prediction), warped)
    assert (warping_error(prediction, truth) == 0) == np.array_equal(warped, prediction)


def test_warping_error_of_a_shifted_border_is_nothing_and_of_a_gap_its_size():
    truth = np.ones((12, 20), bool)
    truth[:, 8:11] = False
    assert warping_error(np.roll(truth, 3, axis=1), truth) == 0
    gap = truth.copy()
    gap[5:7, 8:11] = True
    # each row of the gap gives way until one membrane pixel is left, which keeps the two cells apart
    assert warping_error(gap, truth) == 2 / 240


def test_warping_error_of_a_lost_and_of_an_invented_cell_is_one_pixel():
    with_cell, without = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    with_cell[3:6, 3:6] = True
    assert warping_error(without, with_cell) == 1 / 81  # it shrinks to a point, and stays
    assert warping_error(with_cell, without) == 9 / 81  # no simple point to start from
