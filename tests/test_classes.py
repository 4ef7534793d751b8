"""More than one class: labels checked, weights and scores by hand, and three classes through the whole pipeline."""

import json

import numpy as np
import pytest
import tifffile

from classes import check_labels, class_scores, class_shares, class_weights, confusion, format_classes
from datasets import read_labels
from utils import UserError

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


def test_weights_make_all_classes_count_the_same():
    shares = class_shares(TRUTH[None], 4)
    assert shares == [0.25, 0.5, 0.25, 0.0]
    weights = class_weights(TRUTH, shares)
    assert [weights[k == TRUTH].sum() for k in range(3)] == pytest.approx([8 / 3] * 3)
    assert weights.mean() == pytest.approx(1)


def test_labels_are_checked_against_the_classes(tmp_path):
    notes = []
    assert check_labels(TRUTH, 4, "labels.tif", notes).dtype == np.uint8
    assert notes == ["labels.tif: no pixel is of class 3; it cannot be learnt"]
    with pytest.raises(UserError, match="from 0 to 1 for --classes 2"):
        check_labels(TRUTH, 2, "labels.tif")
    with pytest.raises(UserError, match="whole numbers"):
        check_labels(TRUTH / 2, 3, "labels.tif")
    with pytest.raises(UserError, match="every pixel is of class 0"):
        check_labels(TRUTH * 0, 3, "labels.tif")
    tifffile.imwrite(tmp_path / "labels.tif", TRUTH[None].astype(np.uint8), photometric="minisblack",
                     metadata={"axes": "ZYX"})
    with pytest.raises(UserError, match="--classes 3"):
        read_labels(tmp_path / "labels.tif")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.tif", classes=3), TRUTH[None])
