"""The table of objects: numbers worked by hand, in pixels and in physical units, written image by image."""

import csv

import numpy as np
import pytest

from unet.segment.table import measure, measure_by_rows, table_writer


@pytest.fixture
def drawn():
    """Two rectangles, 4x10 of grey 50 and 6x6 of grey 200, on black."""
    objects, image = np.zeros((2, 20, 30), np.uint16)
    objects[2:6, 5:15], image[2:6, 5:15] = 3, 50
    objects[10:16, 20:26], image[10:16, 20:26] = 7, 200
    return objects, image


def test_rectangles_by_hand(drawn):
    table = measure(*drawn)
    assert table["label"].tolist() == [3, 7]
    assert table["area_px"].tolist() == [40, 36]
    assert [table[f"box_{side}_px"][0] for side in ("top", "left", "bottom", "right")] == [2, 5, 6, 15]
    assert (table["centroid_y_px"][0], table["centroid_x_px"][0]) == (3.5, 9.5)
    assert table["perimeter_px"].tolist() == [2 * (3 + 9), 2 * (5 + 5)]
    assert table["major_axis_px"][0] == pytest.approx(4 * ((10**2 - 1) / 12) ** 0.5, rel=0.02)
    assert table["minor_axis_px"][0] == pytest.approx(4 * ((4**2 - 1) / 12) ** 0.5, rel=0.02)
    assert table["mean_grey"].tolist() == [50, 200]


def test_physical_units_beside_pixels(drawn):
    plain, table = measure(*drawn), measure(*drawn, (0.5, 0.5), "µm")
    assert {name: column.tolist() for name, column in table.items() if name in plain} == {
        name: column.tolist() for name, column in plain.items()}
    assert table["area_µm2"].tolist() == [10, 9]
    assert (table["centroid_y_µm"][0], table["centroid_x_µm"][0]) == (1.75, 4.75)
    assert table["perimeter_µm"].tolist() == [12, 10]
    assert table["major_axis_µm"] == pytest.approx(plain["major_axis_px"] / 2)


def test_pixels_that_are_no_squares(drawn):
    table = measure(*drawn, (2.0, 1.0), "nm")
    assert table["area_nm2"].tolist() == [80, 72]
    assert table["centroid_y_nm"][0] == 7
    assert np.isnan(table["perimeter_nm"]).all()  # what is not known is no number
    assert table["major_axis_nm"][1] == pytest.approx(2 * table["minor_axis_nm"][1], rel=0.05)  # of 12x6 nm


def test_the_mean_of_colours_is_grey(drawn):
    objects, image = drawn
    colours = np.stack([image, image * 0, image * 0], axis=-1)
    assert measure(objects, colours)["mean_grey"] == pytest.approx([50 / 3, 200 / 3])


def test_rows_of_all_images_are_in_their_place_after_the_last(drawn, tmp_path):
    path = tmp_path / "cells.csv"
    with table_writer(path, (2.0, 1.0), "nm") as write:
        write(0, "slice 0", *drawn)
        write(1, "slice 1", np.zeros((5, 5), np.int32), np.zeros((5, 5)))  # nothing found there
        write(2, "slice 2", *drawn)
        assert not path.exists()
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    assert [(row["slice"], row["name"], row["label"], row["area_px"]) for row in rows] == [
        ("0", "slice 0", "3", "40"), ("0", "slice 0", "7", "36"), ("2", "slice 2", "3", "40"),
        ("2", "slice 2", "7", "36")]
    assert rows[0]["perimeter_nm"] == ""
    with pytest.raises(KeyboardInterrupt), table_writer(path) as write:
        write(0, "other", *drawn)
        raise KeyboardInterrupt
    assert list(csv.DictReader(path.open(encoding="utf-8"))) == rows


@pytest.mark.parametrize("pixel_size", [None, (0.5, 0.4)])
@pytest.mark.parametrize("height", [1, 7, 20, 59])
def test_objects_of_large_images_are_measured_some_rows_at_a_time(rng, height, pixel_size):
    points = rng.integers(0, (60, 40), (30, 2))  # cells of a Voronoi diagram, with numbers in no order
    y, x = np.indices((60, 40))
    objects = rng.permutation(90)[np.argmin([np.hypot(y - v, x - u) for v, u in points], axis=0)]
    image = rng.integers(0, 256, (60, 40, 3), np.uint8)
    whole, parts = measure(objects, image, pixel_size, "um"), measure_by_rows(objects, image, pixel_size, "um", height)
    assert list(parts) == list(whole)
    for name, column in whole.items():
        np.testing.assert_allclose(parts[name], column, rtol=1e-6, err_msg=name)


def test_a_large_image_without_objects_has_no_rows(rng):
    table = measure_by_rows(np.zeros((40, 9), np.int32), np.zeros((40, 9), np.uint8), height=8)
    assert {len(column) for column in table.values()} == {0}
