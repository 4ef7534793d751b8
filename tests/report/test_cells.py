"""Runs on cells: the gap that was planted is found, close by and in words; thresholds and walls are the run's."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from unet.inputs.voxel import Voxel
from unet.report.by_task import pictures_of, words_of
from unet.report.cells import ZOOM, _places_beside
from unet.report.paint import MERGED
from unet.report.pictures import SKY, grid
from unet.tasks.cells import Cells


def shown(figure, title):
    """The array of the first panel with this beginning of a title."""
    return next(np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.get_title().startswith(title))


def test_the_gap_is_where_two_cells_merge(cells_run):
    pictures, one = pictures_of(cells_run.task), cells_run.holdout_predictions[0]
    wrong, row = pictures.wrong(one, cells_run.learnt), int(np.argmin(one.sample.label.mean(axis=1)))
    assert wrong[row - 3:row + 4, 10:20].any()
    assert abs(np.nonzero(wrong)[0].mean() - row) < 4
    assert pictures.mistakes(one, cells_run.learnt).title == "merges: 1, splits: 0"


def test_errors_are_shown_close_by(cells_run):
    figure = pictures_of(cells_run.task).errors(cells_run)
    assert shown(figure, "1: a merge").shape[:2] == (ZOOM, ZOOM)
    assert f"at the threshold {cells_run.learnt['threshold']:g}" in " ".join(figure.get_supxlabel().split())
    row = pictures_of(cells_run.task).row(cells_run.holdout_predictions[0], cells_run.learnt)
    close = np.asarray(figure.axes[2 * len(row) - 1].images[0].get_array())
    red = np.array([int(MERGED[at:at + 2], 16) for at in (1, 3, 5)]) / 255
    assert np.isclose(close, red).all(axis=-1).sum() > 30


def test_numbers_stand_beside_their_circle_inside_the_image_and_apart():
    spots = [(218, 240), (230, 214), (3, 3), (380, 200)]
    places = _places_beside(spots, (384, 384))
    for spot, place in zip(spots, places, strict=True):
        assert np.hypot(*np.subtract(spot, place)) == pytest.approx(0.09 * 384)
        assert all(0 < at < 384 for at in place)
        assert all(np.hypot(*np.subtract(other, place)) > 20 for other in [*spots, *places] if other != place)
    assert len(_places_beside([(1, 1)], (2, 2))) == 1  # nowhere is inside


def test_the_worst_tile_is_the_one_with_the_gap(cells_run):
    pictures, one = pictures_of(cells_run.task), cells_run.holdout_predictions[0]
    windows = sorted(pictures.windows(cells_run, one), key=lambda part: part[0])
    score, words, window = windows[0]
    assert pictures.wrong(one, cells_run.learnt)[window].any()
    assert score < windows[-1][0] == 1
    assert words == f"y {window[0].start}, x {window[1].start}, V_rand {score:.3f}"


def test_curves_are_of_probability_and_walls(cells_run):
    figure = pictures_of(cells_run.task).scores(cells_run)
    parts = [part for part in ("probability", "walls") if cells_run.scores[part]]
    for axis, name in zip(figure.axes, ("V_rand", "V_info", "membrane_dice"), strict=True):
        curves = [line for line in axis.lines if len(line.get_ydata()) == 10]
        for line, part in zip(curves, parts, strict=True):
            assert line.get_ydata().tolist() == [point[name] for point in cells_run.scores[part]["curve"]]
        assert axis.get_ylim()[0] > 0.3, "an axis that begins at 0 shows no differences"


def test_before_and_after_are_the_networks_and_what_was_drawn(cells_run):
    figure = pictures_of(cells_run.task).objects(cells_run)
    titles = [axis.get_title() for axis in figure.axes]
    assert f"cells: probability > {cells_run.learnt['plain_threshold']:g}" in titles
    assert ("walls drawn" in titles) == cells_run.task.redraws(cells_run.learnt)
    probability = shown(figure, "probability of cell")
    full = cells_run.holdout_predictions[0].probability
    corners = np.lib.stride_tricks.sliding_window_view(full, probability.shape).reshape(-1, *probability.shape)
    assert any(np.array_equal(probability, part) for part in corners)
    if "walls drawn" in titles:
        crests, caption = shown(figure, "crests"), " ".join(figure.get_supxlabel().split())
        assert ("light blue: no membrane" in caption) == np.isclose(crests, to_rgb(SKY)).all(axis=-1).any()


def test_a_run_without_walls_says_so(cells_run):
    learnt = Cells().without_walls(cells_run.learnt)
    run = replace(cells_run, config={**cells_run.config, "learnt": {**learnt, "why": "the membranes are thick"}})
    figure = pictures_of(run.task).objects(run)
    assert "No walls are drawn in this run: the membranes are thick." in " ".join(figure.get_supxlabel().split())
    assert "walls drawn" not in [axis.get_title() for axis in figure.axes]
    assert "watershed" not in words_of(run.task).paragraph(run)


def test_choices_are_drawn_as_they_were_made(cells_run):
    learnt, pictures = cells_run.learnt, pictures_of(cells_run.task)
    axis = pictures.choices(cells_run).axes[0]
    lines = {line.get_label(): line for line in axis.lines}
    assert list(lines["the network's probability"].get_ydata()) == learnt["plain_curve"]
    if cells_run.task.redraws(learnt):
        assert list(lines["with walls drawn"].get_ydata()) == learnt["curve"]
    assert axis.lines[1].get_xdata()[0] == learnt["plain_threshold"]
    assert " ".join(axis.get_title().split()) == (
        "Chosen on training slices 2-4: the threshold nearest 0.8 (with walls: 0.5) of those whose V_rand, averaged "
        "with both neighbours, is within 0.008 of the best")
    thick = replace(cells_run, config={**cells_run.config, "learnt": {**learnt, "walls": None, "why": "too thick"}})
    assert pictures.choices(thick).axes[0].get_title().endswith(
        "the threshold with the best V_rand,\naveraged with both neighbours")
    stopped = replace(cells_run, config={**cells_run.config, "learnt": {}})
    assert "stopped" in pictures.choices(stopped).texts[0].get_text()


def test_scores_are_of_the_network_and_of_the_walls(cells_run):
    text = words_of(cells_run.task).scores(cells_run)
    assert text.startswith("```text\nthe network's probability:")
    for part, title in (("probability", "the network's probability:"), ("walls", "with walls drawn:")):
        assert (title in text) == bool(cells_run.scores[part])
        if cells_run.scores[part]:
            at = cells_run.scores[part]["chosen"]
            assert f"{at['V_rand']:.4f} and {at['V_info']:.4f} at {at['threshold']:g}, chosen without" in \
                words_of(cells_run.task).results(cells_run)
    assert "slice 5" in text


@pytest.mark.parametrize("stopped", [True, False])
def test_cells_are_explained(cells_run, stopped):
    run = replace(cells_run, config={**cells_run.config, "learnt": {}}) if stopped else cells_run
    text = words_of(run.task).paragraph(run)
    assert ("stopped before thresholds" in " ".join(text.lower().split())) == stopped
    threshold = (f"over {cells_run.learnt['threshold']:g}, after border thinning; this threshold was chosen on "
                 "training slices 2-4")
    assert (threshold in text) != stopped


def test_bars_of_scale_are_in_micrometres_where_the_size_of_a_pixel_is_known(cells_run):
    pictures, one = pictures_of(cells_run.task), cells_run.holdout_predictions[0]
    for voxel, side in ((None, None), (Voxel(0.005, 0.005), 0.005), (Voxel(0.005, 0.02), None)):
        line = pictures.row(replace(one, sample=replace(one.sample, voxel=voxel)), cells_run.learnt)
        assert {panel.pixel for panel in line} == {side}
    axes = grid([[panel for panel in line if panel.pixel is None]], "")[1]
    texts = [text.get_text() for bar in axes[0, 0].artists for text in bar.findobj(Text)]
    assert "20 px" in texts
    axes = grid([[replace(line[0], pixel=0.005)]], "")[1]
    assert "0.1 µm" in [text.get_text() for bar in axes[0, 0].artists for text in bar.findobj(Text)]
