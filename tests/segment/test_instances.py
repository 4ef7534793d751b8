"""Nuclei from probabilities: drawn discs come apart or stay whole; run-length lines by hand and there and back."""

import numpy as np
import pytest
from helpers import of_run_lengths
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from unet.segment.instances import run_lengths, separate_nuclei

Y, X = np.mgrid[:64, :64]


def disc(y, x, radius):
    return (Y - y) ** 2 + (X - x) ** 2 <= radius**2


def test_two_touching_discs_come_apart_along_their_border():
    left, right = disc(32, 20, 10), disc(32, 41, 10)
    probability = np.where(left | right, 0.92, 0.05).astype(np.float32)
    probability[22:43, 30:32] = np.where(probability[22:43, 30:32] > 0.5, 0.7, 0.05)  # no core, three quarters of .92
    labels = separate_nuclei(probability)
    assert labels.dtype == np.int32
    assert labels.max() == 2
    assert_array_equal(labels > 0, probability > 0.5)
    assert np.unique(labels[:, :30]).tolist() != np.unique(labels[:, 32:]).tolist()
    assert len(np.unique(labels[:, :30])) == len(np.unique(labels[:, 32:])) == 2


def test_one_noisy_disc_stays_one(rng):
    probability = np.where(disc(32, 32, 14), 0.85, 0.1) + rng.normal(0, 0.05, (64, 64))
    labels = separate_nuclei(np.clip(probability, 0, 1).astype(np.float32))
    assert labels.max() == 1
    assert np.count_nonzero(labels) == pytest.approx(np.count_nonzero(disc(32, 32, 14)), rel=0.01)


def test_an_oblong_nucleus_stays_one():
    oblong = ((Y - 32) / 7) ** 2 + ((X - 32) / 18) ** 2 < 1
    assert separate_nuclei(np.where(oblong, 0.9, 0).astype(np.float32)).max() == 1


def test_holes_are_filled_and_specks_dropped():
    probability = np.where(disc(32, 32, 14) & ~disc(32, 32, 3), 0.9, 0.0).astype(np.float32)
    probability[2:5, 2:7] = 0.9  # 15 pixels
    labels = separate_nuclei(probability)
    assert_array_equal(labels, disc(32, 32, 14).astype(np.int32))
    assert separate_nuclei(probability, smallest=15).max() == 2


def test_an_object_in_doubt_is_dropped():
    probability = np.where(disc(20, 20, 8), 0.79, 0.0).astype(np.float32)
    probability[disc(44, 44, 8)] = 0.81
    assert_array_equal(separate_nuclei(probability) > 0, disc(44, 44, 8))


def test_a_nucleus_ends_at_three_quarters_of_its_own_mean():
    probability = np.zeros((64, 64), np.float32)
    for x, inside, outside in ((16, 0.99, 0.65), (48, 0.86, 0.62)):  # three quarters of the means: .69 and .61
        probability[disc(32, x, 9)], probability[disc(32, x, 8)] = outside, inside
    assert_array_equal(separate_nuclei(probability) > 0, disc(32, 16, 8) | disc(32, 48, 9))


def test_no_nucleus_and_nothing_but_nucleus():
    assert separate_nuclei(np.zeros((5, 7), np.float32)).max() == 0
    assert_array_equal(separate_nuclei(np.ones((5, 7), np.float32)), np.ones((5, 7)))
    with pytest.raises(ValueError, match="height, width"):
        separate_nuclei(np.zeros((2, 5, 7), np.float32))


# ------------------------------------------------------------------------------------------ run-length lines


def test_run_lengths_by_hand():
    # pixels are numbered down the columns: 1 4 7 10 / 2 5 8 11 / 3 6 9 12
    labels = np.array([[2, 2, 0, 5],
                       [2, 0, 0, 5],
                       [0, 0, 5, 5]])
    assert list(run_lengths(labels)) == ["1 2 4 1", "9 4"]  # pixel 9 ends a column, 10 to 12 are the next
    assert_array_equal(of_run_lengths(["1 2 4 1", "9 4"], (3, 4)), [[1, 1, 0, 2], [1, 0, 0, 2], [0, 0, 2, 2]])


def test_no_nucleus_has_no_line():
    assert list(run_lengths(np.zeros((3, 4), np.int32))) == []


@settings(max_examples=60, deadline=None)
@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)))
def test_run_lengths_there_and_back(labels):
    back = of_run_lengths(run_lengths(labels), labels.shape)
    _, numbered = np.unique(np.append(labels, 0), return_inverse=True)  # gaps in the numbers close
    assert_array_equal(back, numbered.ravel()[:-1].reshape(labels.shape))
