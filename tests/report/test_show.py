"""Pictures show what they say: one draw for image and label, sizes of the real network, something on every axis."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv
from matplotlib.text import Text

from model import PRESETS, Network, build_unet
from unet.report import show_cells, show_data
from unet.report.colours import brightened, class_colours, drawn_classes, matched_colours, random_colours
from unet.report.pictures import colour_bar, panels, save, show
from unet.report.show_network import draw_network, feature_maps

SHOWN_WITH_LABEL = {
    "flips": lambda image, label: show_data.show_flips(image, label),
    "elastic": lambda image, label: show_data.show_elastic(image, label, np.random.default_rng(0)),
    "crops": lambda image, label: show_data.show_crops(image, label),
    "pads": lambda image, label: show_data.show_pads(image, label),
}


def drawn(figure):
    """The arrays of a figure's panels, in order; colour bars left out."""
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


@pytest.mark.parametrize("name", SHOWN_WITH_LABEL)
def test_image_and_label_are_moved_by_one_draw(name):
    # an image of two levels, so wide apart that interpolation never crosses the middle but at their border
    label = np.kron(np.random.default_rng(1).integers(0, 2, (8, 8)), np.ones((16, 16), int)).astype(np.uint8) * 255
    panels_ = drawn(SHOWN_WITH_LABEL[name](label, label))
    images, labels = panels_[:len(panels_) // 2], panels_[len(panels_) // 2:]
    assert len(images) == len(labels) >= 4
    for image, moved in zip(images, labels, strict=True):
        assert np.mean((image > 127) == (moved > 0)) > 0.99
    assert any(not np.array_equal(images[0], image) for image in images[1:])


@pytest.mark.parametrize("name", SHOWN_WITH_LABEL)
def test_labels_in_colours_are_moved_like_the_image(name, rng):
    label = np.kron(rng.integers(0, 2, (8, 8)), np.ones((16, 16), int)).astype(np.uint8) * 255
    gray = drawn(SHOWN_WITH_LABEL[name](label, label))
    colour = drawn(SHOWN_WITH_LABEL[name](np.dstack([label] * 3), np.dstack([label] * 3)))
    for one, other in zip(gray, colour, strict=True):
        np.testing.assert_array_equal(np.dstack([one] * 3), other)


def test_noise_has_the_showcase_values():
    gray = np.full((128, 128), 128, np.uint8)
    first, second = np.array_split(drawn(show_data.show_noise(gray, np.random.default_rng(0))), 2)
    assert first[1].std() == pytest.approx(10, rel=0.05)
    assert first[2].std() == pytest.approx(50, rel=0.1)  # clipped at black and white
    for strength, image in zip((10, 50, 100), second[1:], strict=True):
        assert abs(image.astype(int) - 128).max() == strength
    assert [image[0, 0] for image in drawn(show_data.show_brightness(gray))] == [128, 138, 148, 158]


@pytest.mark.parametrize(("side", "core", "margin"), [(64, 48, 8), (64, 192, 32), (50, 16, 4)])
def test_tiles_and_weights_draw_any_size(side, core, margin, tiny_stacks, tmp_path):
    image, label = (stack[0, :side, :side] for stack in tiny_stacks)
    save(show_data.show_tiles(image, label, core, margin), tmp_path / "tiles.jpg")
    save(show_data.show_weights(label, 0.7), tmp_path / "weights.png")
    assert (tmp_path / "tiles.jpg").stat().st_size > 5000
    assert drawn(show_data.show_tiles(image, label, core, margin))[1].shape == (core + 2 * margin,) * 2


def test_a_scale_bar_lies_on_every_panel(tiny_stacks):
    figure, axes = panels(1, 2, "a caption")
    for axis in axes[0]:
        show(axis, tiny_stacks[0][0])
        assert "10 px" in [text.get_text() for bar in axis.artists for text in bar.findobj(Text)]
    assert "a caption" in figure.get_supxlabel()


def test_feature_maps_are_those_of_the_paper():
    network = replace(PRESETS["paper"].network, filters=2)  # the sizes are the paper's, figure 1
    maps = feature_maps(build_unet(network), 572)
    assert (maps[0].side, maps[-1].side) == (572, 388)
    bottom = [one.side for one in maps if one.level == 4]
    assert bottom == [30, 28]
    joins = [one for one in maps if len(one.sources) == 2]
    assert [(one.side, one.level) for one in joins] == [(56, 3), (104, 2), (200, 1), (392, 0)]


@pytest.mark.parametrize("network", [Network(2, 2, dropout=(0, 0, 0)), Network(2, 2, dropout=(0, 0, 0), half=True),
                                     Network(2, 2, dropout=(0, 0, 0), up="upsample")])
def test_a_network_is_drawn_with_its_sizes(network):
    figure = draw_network(network, tile=64)
    written = {text.get_text() for text in figure.axes[0].texts}
    assert {"64²", "32²", "16²", "2", "4", "8"} <= written
    assert ("8²" in written) == network.half


@pytest.fixture
def judged_run(tiny_stacks):
    """A run as the pictures need it: two of six slices held out, with a gap in one wall of the first."""
    images, labels = tiny_stacks
    judged = (labels[4:] > 0).astype(np.float32)
    row = np.flatnonzero((labels[4] == 0).mean(axis=1) > 0.9)[0]
    judged[0, row:row + 4, 8:12] = 1
    curve = [{"threshold": t / 10, "V_rand": 0.9, "V_info": 0.9, "membrane_dice": 0.8} for t in range(10)]
    return SimpleNamespace(images=images, labels=labels, holdout=[4, 5], judged=judged, threshold=0.5, test=images[:3],
                           prediction=judged[[0, 1, 1]], scores={"curve": curve})


def test_the_worst_tile_is_the_one_with_the_gap(judged_run, tmp_path):
    worst = show_cells.worst_tiles(judged_run)
    assert worst[0][:2] == (pytest.approx(min(score for score, *_ in worst)), 0)
    assert worst[0][0] < 1 == worst[-1][0]
    for name in ("images", "errors", "worst", "instances", "prediction", "scores"):
        figure = getattr(show_cells, f"show_{name}")(judged_run)
        assert all(axis.has_data() for axis in figure.axes), name
    show_cells.animate_prediction(judged_run, tmp_path / "prediction.gif")
    assert (tmp_path / "prediction.gif").read_bytes()[:3] == b"GIF"


def test_what_is_not_there_is_said(judged_run):
    judged_run.judged = judged_run.scores = judged_run.prediction = None
    for name in ("errors", "worst", "instances", "prediction", "scores"):
        figure = getattr(show_cells, f"show_{name}")(judged_run)
        assert len(figure.texts) == 1, name
        assert len(figure.texts[0].get_text()) > 60
        assert figure.axes, "a notebook leaves out figures without axes"


def test_cells_take_the_colour_of_the_true_cell_they_cover():
    truth = np.array([[1, 1, 1, 0, 2, 2]])
    colours = random_colours(truth)
    np.testing.assert_array_equal(colours[0], 0)
    found = matched_colours(np.array([[1, 1, 0, 2, 2, 2]]), truth, colours)
    np.testing.assert_array_equal(found[0], colours[[1, 1, 0, 2, 2, 2]])
    nobody = matched_colours(np.array([[1, 1, 1, 2, 0, 0]]), truth, colours)[0]  # 2 lies where no true cell is
    np.testing.assert_array_equal(nobody[3], [0.85] * 3)
    assert random_colours(np.zeros((3, 3), int)).tolist() == [[0, 0, 0]]


def test_neighbours_have_other_hues():
    cells = np.kron(np.arange(1, 26).reshape(5, 5), np.ones((4, 4), int))
    cells[3::4], cells[:, 3::4] = 0, 0
    hues = rgb_to_hsv(random_colours(cells)[1:])[:, 0].reshape(5, 5)
    assert (abs(np.diff(hues, axis=0)) > 0.02).all()
    assert (abs(np.diff(hues, axis=1)) > 0.02).all()


def test_touching_cells_do_not_look_alike_in_a_crowd():
    rings = np.arange(1, 10).reshape(3, 3)  # the middle one touches four, whatever the others have
    for seed in range(50):
        colours = random_colours(np.kron(rings, np.ones((9, 9), int)), seed)
        assert min(abs(colours[5] - colours[number]).max() for number in (2, 4, 6, 8)) > 0.1


def test_neighbours_do_not_even_look_alike():
    pairs = [random_colours(np.array([[1, 1, 2, 2]]), seed)[1:] for seed in range(200)]
    assert min(abs(one - other).max() for one, other in pairs) > 0.1


def test_faint_images_are_brightened_and_stay_gray_or_coloured():
    gray = np.repeat(np.arange(10, 30, dtype=np.uint8).reshape(4, 5, 1), 3, axis=2)
    assert (brightened(gray).min(), brightened(gray).max(), brightened(gray).shape) == (0, 255, (4, 5))
    colour = gray.copy()
    colour[0, 0] = (10, 30, 50)
    assert brightened(colour).shape == (4, 5, 3)
    assert brightened(np.zeros((2, 2, 3), np.uint8)).tolist() == [[0, 0], [0, 0]]


def test_each_class_has_a_colour_of_its_own():
    for classes in (2, 3, 8, 9, 20):
        colours = class_colours(classes)
        assert colours.shape == (classes, 3)
        assert len(np.unique(colours.round(3), axis=0)) == classes
        assert (colours.min(), colours.max()) >= (0, 0)
        assert colours.max() <= 1
    np.testing.assert_array_equal(drawn_classes(np.array([[0, 1]]), 2)[0], [[0, 0, 0], [230, 159, 0]])


def test_colours_have_no_colour_bar():
    figure, axes = panels(1, 2, "")
    colour_bar(figure, show(axes[0, 0], np.zeros((8, 8, 3), np.uint8)), axes, "colours")
    assert len(figure.axes) == 2
    colour_bar(figure, show(axes[0, 1], np.zeros((8, 8), np.uint8)), axes, "grey level")
    assert len(figure.axes) == 3
