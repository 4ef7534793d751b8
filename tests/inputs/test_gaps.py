"""Gaps: walls that are open for a pixel or two are found where they are, and doors and necks are none."""

import numpy as np
import pytest
import tifffile
from helpers import two_rooms
from skimage.measure import label

from unet.inputs.gaps import find_gaps
from unet.inputs.stacks import LABELS, VOLUME


@pytest.mark.parametrize("gap", [1, 2])
def test_gaps_of_one_or_two_pixels_are_found_where_they_are(gap):
    assert find_gaps(two_rooms(gap=gap)) == [(20, 32)]


@pytest.mark.parametrize("gap", [0, 3, 10])
def test_closed_walls_and_wide_doors_are_no_gaps(gap):
    assert find_gaps(two_rooms(gap=gap)) == []


def test_cells_that_touch_by_a_corner_are_closed():
    """The score counts 4-connected cells."""
    cell = np.zeros((40, 40), bool)
    cell[:20, :20] = cell[20:, 20:] = True
    assert find_gaps(cell) == []


def test_the_image_tells_a_gap_from_a_neck():
    cell = two_rooms(gap=2)
    closed, open_ = np.where(two_rooms(), 150, 70), np.where(cell, 150, 70)
    assert find_gaps(cell, closed) == [(20, 32)]
    assert find_gaps(cell, open_) == []
    assert find_gaps(cell, 255 - closed) == [(20, 32)]  # a stain that glows


@pytest.mark.slow
def test_gaps_cut_into_isbis_labels_are_found(isbi_folder):
    """Vertical cuts of two pixels' width through membranes 3 to 9 pixels thick between two large cells."""
    image = tifffile.imread(isbi_folder / VOLUME)[1]
    cell = tifffile.imread(isbi_folder / LABELS)[1] == 255
    numbers = label(cell, connectivity=1)
    sizes = np.bincount(numbers.ravel())
    places = found = 0
    for y, x in [(y, x) for y in range(20, 490, 24) for x in range(20, 490, 24)]:
        cut = np.s_[y:y + 14, x:x + 2]
        above, below, wall = numbers[y, x], numbers[y + 13, x], (~cell[cut]).all(axis=1)
        one_wall = wall.sum() in range(3, 10) and np.count_nonzero(np.diff(wall)) == 2
        if cell[cut][[0, 13]].all() and above != below and min(sizes[above], sizes[below]) > 400 and one_wall:
            opened = cell.copy()
            opened[cut] = True
            gaps = find_gaps(opened, image)
            places += 1
            found += any(abs(gap_y - y - 7) <= 7 and abs(gap_x - x) <= 4 for gap_y, gap_x in gaps)
    assert places > 20
    assert found / places > 0.75
