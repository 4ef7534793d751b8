"""Cells: which labels are taken, which slices nobody drew on, what is learnt and scored with and without walls."""

import json

import numpy as np
import pytest
from conftest import draw_stacks, write_stacks
from numpy.testing import assert_array_equal

from unet.inputs.layouts import layout_of
from unet.inputs.samples import Sample
from unet.segment.walls import draw_walls, number_cells
from unet.tasks.cells import Cells
from unet.tasks.task import Prediction
from unet.training.plan import Settings, plan
from utils import UserError

CELLS = Cells()


def discs(slices=4, size=64):
    """Labels of a few separate objects (255) on background, uint8 (slices, size, size)."""
    y, x = np.indices((size, size))
    disc = sum((y - cy) ** 2 + (x - cx) ** 2 <= 36 for cy, cx in ((14, 14), (46, 20), (30, 50)))
    return np.repeat(np.where(disc, 255, 0)[None], slices, axis=0).astype(np.uint8)


def layout_with(folder, labels):
    images = np.where(labels > 0, 150, 70) + np.random.default_rng(0).integers(-15, 16, labels.shape)
    return layout_of(write_stacks(folder, images.astype(np.uint8), labels, images.astype(np.uint8)))


# ------------------------------------------------------------------------------------------------- the labels


def test_labels_are_0_and_255_or_0_and_1(tmp_path):
    labels = draw_stacks()[1]
    assert CELLS.check(layout_with(tmp_path / "a", labels)) == []
    [note] = CELLS.check(layout_with(tmp_path / "b", labels // 255))
    assert note.endswith("labels are 0 and 1; taken as 0 = membrane, 1 = cell")
    assert_array_equal(CELLS.label(labels[0] // 255), labels[0])
    assert_array_equal(CELLS.target(labels[0]), labels[0] // 255)
    [note] = CELLS.check(layout_with(tmp_path / "bits", labels > 0))
    assert "labels are 0 and 1" in note
    [note] = CELLS.check(layout_with(tmp_path / "c", 255 - labels))
    assert "look inverted" in note


@pytest.mark.parametrize(("change", "reason"), [
    (lambda labels: labels * 0, "every pixel is 0, expected membrane"),
    (lambda labels: labels * 0 + 255, "every pixel is 255, expected membrane"),
    (lambda labels: labels // 2, r"labels have 2 values \(0, 127\), expected the two"),
    (lambda labels: np.maximum(labels, 9), r"labels have 2 values \(9, 255\)"),
    (lambda labels: labels // 255 + (np.arange(6) % 2)[:, None, None].astype(np.uint8),
     r"3 values \(0, 1, 2\).*--classes 3"),
    (lambda labels: np.arange(labels.size, dtype=np.uint16).reshape(labels.shape), r"values \(0, 1, 2, 3, 4, 5, \.\.")])
def test_other_labels_are_refused(tmp_path, change, reason):
    with pytest.raises(UserError, match=reason) as error:
        CELLS.check(layout_with(tmp_path, change(draw_stacks()[1])))
    assert str(error.value).startswith(f"{tmp_path / 'train-labels.tif'}: ")


@pytest.mark.parametrize(("value", "what"), [(0, "membrane"), (255, "cell")])
def test_slices_of_membranes_on_which_nobody_drew_are_refused(tmp_path, value, what):
    labels = draw_stacks()[1]
    labels[[1, 4]] = value
    with pytest.raises(UserError, match=rf"nothing was drawn on slices 1, 4, where the label is {what} everywhere"):
        CELLS.check(layout_with(tmp_path, labels))


def test_of_separate_objects_a_slice_may_have_none(tmp_path):
    labels = discs()
    labels[2] = 0
    [note] = [note for note in CELLS.check(layout_with(tmp_path / "a", labels)) if "object" in note]
    assert "no object on slice 2, so no score if held out" in note
    labels[2] = 255
    with pytest.raises(UserError, match="on slice 2, where the label is cell everywhere"):
        CELLS.check(layout_with(tmp_path / "b", labels))


def test_held_out_slices_without_any_object_are_refused(tmp_path):
    labels = discs(slices=7)
    labels[[2, 6]] = 0
    layout = layout_with(tmp_path, labels)
    with pytest.raises(UserError, match="no object on slice 6 to score the network on; hold out others"):
        plan(layout, CELLS, Settings())
    assert plan(layout, CELLS, Settings(holdout="5-6"))["split"]["holdout"] == [5, 6]
    assert CELLS.lookback_samples(layout, [0, 1, 2, 3, 4], 3) == [1, 3, 4]


# -------------------------------------------------------------------------------------------------- afterwards


@pytest.fixture(scope="module")
def lookback_samples():
    """Probability float32 and labels (4, 64, 64): membranes with a weak spot, found as walls."""
    labels = draw_stacks(slices=4)[1]
    probability = np.where(labels > 0, 0.97, 0.2).astype(np.float32)
    probability[:, :, 30:34] = np.maximum(probability[:, :, 30:34], 0.7)  # a gap in each membrane across
    return probability, labels


def test_walls_are_learnt_drawn_and_left_out(lookback_samples):
    outputs, labels = lookback_samples
    learnt = json.loads(json.dumps({**CELLS.learn(outputs, labels, True), "on": [0, 1, 2, 3]}))
    assert CELLS.redraws(learnt)
    assert CELLS.describe(learnt) == "a number for each cell, 0 = border; walls learnt on slices 0-3"
    probability = outputs[0]
    redrawn = CELLS.redraw(probability, learnt)
    assert_array_equal(redrawn, draw_walls(probability, learnt["walls"]))
    assert (redrawn != probability).any()
    assert_array_equal(CELLS.segment(redrawn, learnt), number_cells(redrawn, learnt["threshold"]))
    plain = CELLS.without_walls(learnt)
    assert not CELLS.redraws(plain)
    assert CELLS.redraw(probability, plain) is probability
    assert plain["threshold"] == learnt["plain_threshold"]
    assert CELLS.describe(plain).startswith("a number for each cell, 0 = border; no walls drawn")


def test_a_recipe_without_walls_draws_none(lookback_samples):
    learnt = CELLS.learn(*lookback_samples, False)
    assert not CELLS.redraws(learnt)
    assert learnt["threshold"] == pytest.approx(learnt["plain_threshold"], abs=0.2)


def test_without_anything_learnt_the_threshold_is_a_half():
    probability = np.full((8, 8), 0.6, np.float32)
    probability[:, 4] = 0.4
    assert_array_equal(CELLS.segment(CELLS.redraw(probability, {}), {}), [[1] * 4 + [0] + [2] * 3] * 8)


def judged(outputs, labels, learnt):
    for number, (probability, label) in enumerate(zip(outputs, labels, strict=True)):
        redrawn = CELLS.redraw(probability, learnt)
        yield Prediction(Sample(f"slice {number}", label, label), probability, redrawn, CELLS.segment(redrawn, learnt))


def test_scores_are_given_for_the_probability_and_for_walls(lookback_samples):
    outputs, labels = lookback_samples
    learnt = {**CELLS.learn(outputs, labels, True), "on": [0]}
    scores = json.loads(json.dumps(CELLS.score(judged(outputs, labels, learnt), [5, 6, 7, 8], learnt)))
    assert set(scores) == {"probability", "walls"}
    assert [row["slice"] for row in scores["walls"]["chosen"]["per_slice"]] == [5, 6, 7, 8]
    assert scores["probability"]["chosen"]["threshold"] == learnt["plain_threshold"]
    assert scores["walls"]["chosen"]["threshold"] == learnt["threshold"]
    table = CELLS.table(scores)
    assert table.splitlines()[-1].startswith("hold-out, with walls drawn, at the threshold chosen before")
    plain = CELLS.without_walls(learnt)
    scores = CELLS.score(judged(outputs, labels, plain), [5, 6, 7, 8], plain)
    assert scores["walls"] is None
    assert "walls" not in CELLS.table(scores)


def test_held_out_slices_without_an_object_are_not_scored(lookback_samples):
    outputs, labels = lookback_samples[0], lookback_samples[1].copy()
    labels[1] = 0
    learnt = {"plain_threshold": 0.5}
    rows = CELLS.score(judged(outputs, labels, learnt), [5, 6, 7, 8], learnt)["probability"]["chosen"]["per_slice"]
    assert [row["slice"] for row in rows] == [5, 7, 8]
