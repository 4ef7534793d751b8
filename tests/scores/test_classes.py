"""Scores of classes by hand."""

import json

import numpy as np
import pytest

from unet.scores.classes import class_scores, confusion, format_classes

TRUTH = np.array([[0, 0, 1, 1], [2, 2, 1, 1]])
GIVEN = np.array([[0, 1, 1, 1], [2, 2, 2, 1]])


def test_confusion_by_hand():
    np.testing.assert_array_equal(confusion(GIVEN, TRUTH, 3), [[1, 1, 0], [0, 3, 1], [0, 0, 2]])
    with pytest.raises(ValueError, match="the truth is"):
        confusion(GIVEN[:1], TRUTH, 3)


def test_scores_of_each_class_by_hand():
    # class 0: 1 right of 2, none given wrongly; 1: 3 right, 1 missed, 1 invented; 2: 2 right, 1 invented
    probabilities = np.eye(4)[GIVEN].transpose(2, 0, 1)[None]
    scores = class_scores(probabilities, TRUTH[None], [7])
    assert [row["iou"] for row in scores["classes"]] == [1 / 2, 3 / 5, 2 / 3, None]
    assert [row["dice"] for row in scores["classes"]] == [2 / 3, 6 / 8, 4 / 5, None]
    assert [row["pixels"] for row in scores["classes"]] == [2, 4, 2, 0]
    assert scores["mean"]["iou"] == pytest.approx((1 / 2 + 3 / 5 + 2 / 3) / 3)
    assert scores["accuracy"] == 6 / 8
    assert scores["per_slice"][0]["slice"] == 7
    assert json.loads(json.dumps(scores)) == scores
    table = format_classes(scores)
    assert "absent" in table
    assert table.splitlines()[2].split() == ["class", "1", "4", "0.6000", "0.7500"]
