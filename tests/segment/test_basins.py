"""The uphill watershed: by hand, its laws on noise, and beside scikit-image's flood."""

import numpy as np
from scipy.ndimage import gaussian_filter, label
from skimage.segmentation import watershed

from unet.segment.basins import basins


def parted(cells):
    """Whether no pixel of one cell lies beside one of another."""
    pairs = ((cells[1:], cells[:-1]), (cells[:, 1:], cells[:, :-1]))
    return not any(((one != other) & (one > 0) & (other > 0)).any() for one, other in pairs)


def row(*values):
    return np.array([values], np.float32)


def test_the_line_is_the_lowest_pixel_between_two_cells():
    seeds = row(1, 0, 0, 0, 0, 2).astype(int)
    np.testing.assert_array_equal(basins(row(1, 0.8, 0.5, 0.2, 0.6, 1), seeds), [[1, 1, 1, 0, 2, 2]])
    np.testing.assert_array_equal(basins(row(1, 0.1, 0.5, 0.2, 0.6, 1), seeds), [[1, 0, 2, 2, 2, 2]])  # over the pass


def test_on_even_ground_cells_grow_alike():
    np.testing.assert_array_equal(basins(0, row(1, 0, 0, 0, 2).astype(int)), [[1, 1, 0, 2, 2]])
    np.testing.assert_array_equal(basins(0, row(1, 0, 0, 0, 0, 2).astype(int)), [[1, 1, 0, 2, 2, 2]])  # the left one


def test_a_top_goes_to_the_cell_over_the_highest_pass_around_it():
    height = row(1, 0.1, 0.5, 0.4, 0.6, 0.3, 1)
    np.testing.assert_array_equal(basins(height, row(1, 0, 0, 0, 0, 0, 2).astype(int)), [[1, 0, 2, 2, 2, 2, 2]])


def test_what_two_cells_have_an_equal_claim_to_is_shared_out():
    height = row(1, 0.1, 0.4, 0.5, 0.4, 0.1, 1)
    np.testing.assert_array_equal(basins(height, row(1, 0, 0, 0, 0, 0, 2).astype(int)), [[1, 1, 1, 0, 2, 2, 2]])


def test_nothing_grows_out_of_where_it_may():
    within = row(1, 1, 0, 1, 1) > 0
    np.testing.assert_array_equal(basins(0, row(1, 0, 0, 0, 0).astype(int), within), [[1, 1, 0, 0, 0]])
    assert not basins(0, np.zeros((3, 4), int)).any()


def test_laws_on_noise(rng):
    for sigma in (0, 1, 3):
        height = gaussian_filter(rng.random((90, 70)).astype(np.float32), sigma)
        seeds, within = label(rng.random((90, 70)) < 0.02)[0], rng.random((90, 70)) < 0.9
        for cells in (basins(height, seeds), basins(np.round(height, 1), seeds, within)):
            assert parted(cells)
            assert ((cells == seeds) | (seeds == 0)).all()  # seeds stay as they are
            assert set(np.unique(cells)) - {0} == set(range(1, seeds.max() + 1))
        np.testing.assert_array_equal(cells[~within], seeds[~within])


def test_it_is_the_flood_but_for_pixels_of_its_line(rng):
    height = gaussian_filter(rng.random((200, 200)).astype(np.float32), 5)
    height = (height - height.min()) / np.ptp(height)
    seeds = label(height > 0.6)[0]
    flood = watershed(-height, seeds, connectivity=1, watershed_line=True)
    cells = basins(height, seeds)
    assert np.mean(cells == flood) > 0.98
    assert abs(np.count_nonzero(cells == 0) - np.count_nonzero(flood == 0)) < 0.03 * np.count_nonzero(flood == 0)
