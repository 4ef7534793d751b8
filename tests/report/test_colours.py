"""Colours tell neighbours apart, stay with what they stand for, and make faint images visible."""

import numpy as np
from matplotlib.colors import rgb_to_hsv, to_rgb

from unet.report.colours import (
    HUES,
    class_colours,
    colour_classes,
    colour_objects,
    for_display,
    linked_colours,
    matched_colours,
    random_colours,
)
from unet.report.pictures import VERMILION


def test_objects_take_the_colour_of_the_true_one_they_cover():
    truth = np.array([[1, 1, 1, 0, 2, 2]])
    colours = random_colours(truth)
    np.testing.assert_array_equal(colours[0], 0)
    matched = matched_colours(np.array([[1, 1, 0, 2, 2, 2]]), truth, colours)
    np.testing.assert_array_equal(matched[0], colours[[1, 1, 0, 2, 2, 2]])
    nobody = matched_colours(np.array([[1, 1, 1, 2, 0, 0]]), truth, colours)[0]  # 2 lies where no true one is
    np.testing.assert_array_equal(nobody[3], [0.85] * 3)
    assert random_colours(np.zeros((3, 3), int)).tolist() == [[0, 0, 0]]
    assert colour_objects(truth)[0, 3].tolist() == [0, 0, 0]


def test_neighbours_have_other_hues():
    cells = np.kron(np.arange(1, 26).reshape(5, 5), np.ones((4, 4), int))
    cells[3::4], cells[:, 3::4] = 0, 0
    hues = rgb_to_hsv(random_colours(cells)[1:])[:, 0].reshape(5, 5)
    assert (abs(np.diff(hues, axis=0)) > 0.02).all()
    assert (abs(np.diff(hues, axis=1)) > 0.02).all()


def test_touching_objects_do_not_look_alike_in_a_crowd():
    rings = np.arange(1, 10).reshape(3, 3)  # the middle one touches four, whatever the others have
    for seed in range(50):
        colours = random_colours(np.kron(rings, np.ones((9, 9), int)), seed)
        assert min(abs(colours[5] - colours[number]).max() for number in (2, 4, 6, 8)) > 0.1


def test_a_cell_keeps_its_colour_from_slice_to_slice():
    first = np.array([[1, 1, 1, 0, 2, 2, 2, 0, 3, 3]])
    second = np.array([[2, 2, 0, 1, 1, 1, 1, 0, 4, 0]])  # other numbers: 1 goes on as 2, 2 as 1, 3 as 4
    one, other = linked_colours([first, second])
    np.testing.assert_array_equal(other[[2, 1, 4]], one[[1, 2, 3]])
    split = linked_colours([np.array([[1, 1, 1, 1, 1]]), np.array([[1, 1, 0, 2, 1]])])
    np.testing.assert_array_equal(split[1][1], split[0][1])  # the larger part is the cell
    assert abs(split[1][2] - split[0][1]).max() > 0.1


def test_vermilion_marks_mistakes_alone():
    assert not np.isclose(HUES, to_rgb(VERMILION)).all(axis=1).any()


def test_faint_images_are_stretched_and_stay_gray_or_coloured():
    gray = np.repeat(np.arange(10, 30, dtype=np.uint8).reshape(4, 5, 1), 3, axis=2)
    assert (for_display(gray).min(), for_display(gray).max(), for_display(gray).shape) == (0, 255, (4, 5))
    colour = gray.copy()
    colour[0, 0] = (10, 30, 50)
    assert for_display(colour).shape == (4, 5, 3)
    assert for_display(np.zeros((2, 2, 3), np.uint8)).tolist() == [[0, 0], [0, 0]]
    deep = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    np.testing.assert_allclose(for_display(deep).astype(int), for_display(gray), atol=1)


def test_each_class_has_a_colour_of_its_own():
    for classes in (2, 3, 8, 9, 20):
        colours = class_colours(classes)
        assert len(np.unique(colours.round(3), axis=0)) == classes
        assert (colours.min(), colours.max()) >= (0, 0)
        assert colours.max() <= 1
    np.testing.assert_array_equal(colour_classes(np.array([[0, 1]]), 2)[0], [[0, 0, 0], [86, 180, 233]])
