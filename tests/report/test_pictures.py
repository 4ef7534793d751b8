"""Panels, their scales, bars and captions."""

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from unet.report.pictures import Panel, colour_bar, draw_curve, grid, message, middle, panels, save, scale_bar, show

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)
COLOURS = np.zeros((8, 8, 3), np.uint8)


def test_a_scale_bar_lies_on_every_panel():
    figure, axes = panels(1, 2, "a caption")
    for axis, (side, length) in zip(axes[0], ((64, "10 px"), (1000, "200 px")), strict=True):
        show(axis, np.zeros((8, side), np.uint8))
        assert length in [text.get_text() for bar in axis.artists for text in bar.findobj(Text)]
    assert figure.get_supxlabel() == "a caption"


def test_rows_have_a_bar_below_each_column_that_has_values():
    rows = [[Panel(GREY, "one", "grey"), Panel(COLOURS, "two", "grey"), Panel(GREY / 255, "three", "probability"),
             Panel(GREY, "four", "grey")]] * 2
    figure, axes = grid(rows, "")
    assert axes.shape == (2, 4)
    assert [axis.get_title() for axis in axes[1]] == ["one", "two", "three", "four"]
    assert [axis.get_xlabel() for axis in figure.axes[8:]] == ["grey", "probability"]  # once each, none for colours


def test_names_make_columns_of_rows():
    figure, axes = grid([[Panel(GREY, "first", "grey"), Panel(COLOURS)], [Panel(GREY, "second", "grey"),
                                                                          Panel(COLOURS)]], "", 2, ("above", "below"))
    assert [axis.get_title() for axis in axes[0]] == ["first", "second"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["above", "below"]
    assert [axis.get_ylabel() for axis in figure.axes[4:]] == ["grey"]


def test_long_names_stay_along_their_panel():
    figure, axes = grid([[Panel(GREY)], [Panel(GREY)]], "", 2.6, ("truth: black = membrane, white = cell",))
    figure.draw_without_rendering()
    assert axes[0, 0].yaxis.label.get_window_extent().height <= axes[0, 0].get_window_extent().height


def test_a_weight_map_has_a_bar_of_its_own_range():
    figure, _ = grid([[Panel(GREY / 64, "", "weight", {"vmax": 1}), Panel(GREY / 8, "", "weight", {"vmax": 8})]], "")
    assert [axis.get_xlim()[1] for axis in figure.axes[2:]] == [1, 8]


def test_colours_have_no_colour_bar():
    figure, axes = panels(1, 2, "")
    colour_bar(figure, show(axes[0, 0], COLOURS), axes, "colours")
    assert len(figure.axes) == 2
    colour_bar(figure, show(axes[0, 1], GREY), axes, "grey level")
    assert len(figure.axes) == 3


def test_the_middle_by_hand():
    np.testing.assert_array_equal(middle(GREY, 2), [[27, 28], [35, 36]])
    assert middle(COLOURS, 99).shape == (8, 8, 3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_pictures_are_saved_as_their_name_says(name, tmp_path):
    save(message("nothing to see"), tmp_path / name, dpi=50)
    assert Image.open(tmp_path / name).size == (400, 40)


def test_the_curve_has_what_the_history_has():
    rows = [{"step": 10 * n, "loss": 1 / n, "learning_rate": 0.1} for n in (1, 2)]
    loss, rate = draw_curve(rows).axes
    assert loss.lines[0].get_ydata().tolist() == [1, 0.5]
    assert rate.lines[0].get_ydata().tolist() == [0.1, 0.1]
    loss, _ = draw_curve([{**row, "val_loss": 3} for row in rows]).axes
    assert loss.lines[1].get_ydata().tolist() == [3, 3]


@pytest.mark.parametrize(("width", "pixel", "length", "words"), [
    (512, None, 100, "100 px"), (3, None, 1, "1 px"), (10000, None, 2000, "2000 px"),
    (512, 0.004, 125, "0.5 µm"), (512, 1.0, 100, "100 µm"), (40, 0.0101, 0.1 / 0.0101, "0.1 µm")])
def test_the_scale_is_round_and_about_a_quarter_at_most(width, pixel, length, words):
    assert scale_bar(width, pixel) == (pytest.approx(length), words)
    assert length <= max(width / 4, 1)
