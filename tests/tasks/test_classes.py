"""Several classes: labels checked against their number, pieces numbered, scores of each class."""

import json

import numpy as np
import pytest
from conftest import draw_stacks, write_stacks
from numpy.testing import assert_array_equal

from unet.inputs.layouts import layout_of
from unet.inputs.samples import Sample
from unet.tasks.classes import Classes
from unet.tasks.task import Prediction
from utils import UserError

TRUTH = np.array([[0, 0, 1, 1], [2, 2, 1, 1]], np.uint8)
GIVEN = np.array([[0, 1, 1, 1], [2, 2, 2, 1]])


def layout_with(folder, labels):
    return layout_of(write_stacks(folder, *[draw_stacks(slices=len(labels), size=8)[0][:, :2, :4]], labels,
                                  draw_stacks(slices=1)[0]))


def test_labels_are_checked_against_the_classes(tmp_path):
    labels = np.stack([TRUTH, TRUTH])
    assert Classes(3).check(layout_with(tmp_path / "a", labels)) == []
    [note] = Classes(4).check(layout_with(tmp_path / "a", labels))
    assert note.endswith("train-labels.tif: no pixel is of class 3; it cannot be learnt")
    for classes, stack, reason in (
            (2, labels, "labels are 0, 1, 2, expected whole numbers from 0 to 1 for --classes 2"),
            (3, labels / np.float32(2), "labels are 0, 0.5, 1, expected whole numbers"),
            (3, labels * 0, "every pixel is of class 0"),
            (257, labels, "--classes 257: expected 256 at most")):
        with pytest.raises(UserError, match=reason):
            Classes(classes).check(layout_with(tmp_path / "b", stack))
    kept = Classes(3).label(labels[0].astype(np.float32))
    assert kept.dtype == np.uint8
    assert_array_equal(Classes(3).target(kept), TRUTH)


def test_pieces_of_each_class_are_numbered_but_those_of_class_0():
    probability = np.eye(3)[[[0, 1, 1, 0, 1], [0, 0, 0, 0, 1], [2, 2, 0, 2, 1]]]
    assert Classes(3).segment(probability, {}).tolist() == [[0, 1, 1, 0, 2], [0, 0, 0, 0, 2], [3, 3, 0, 4, 2]]


def test_each_class_is_scored():
    judged = Prediction(Sample("slice 7", TRUTH, TRUTH), np.eye(3)[GIVEN], np.eye(3)[GIVEN], GIVEN)
    scores = json.loads(json.dumps(Classes(3).score(iter([judged]), [7], {})))
    # class 0: 1 right of 2, none given wrongly; 1: 3 right, 1 missed, 1 invented; 2: 2 right, 1 invented
    assert [row["iou"] for row in scores["classes"]] == [1 / 2, 3 / 5, 2 / 3]
    assert scores["per_slice"][0]["slice"] == 7
    assert Classes(3).table(scores).splitlines()[2].split()[:2] == ["class", "1"]


def test_there_is_nothing_to_learn_or_to_redraw():
    task, probability = Classes(3), np.eye(3)[GIVEN]
    assert task.learn([probability], [TRUTH], True) == {}
    assert not task.redraws({})
    assert task.redraw(probability, {}) is probability
    assert task.describe({}) == "a number for each object, 0 = none"
    assert task.output == "probability of 3 classes, a channel each"
