"""More than one class: labels checked, weights by hand, and three classes through the whole pipeline."""

import json

import numpy as np
import pytest
import tifffile

from datasets import read_labels
from unet.inputs.stacks import LABELS, TEST, VOLUME
from unet.tasks.classes import check_labels, class_shares, class_weights
from utils import UserError

TRUTH = np.array([[0, 0, 1, 1], [2, 2, 1, 1]])


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


# ------------------------------------------------------------------------------------------- the whole pipeline


@pytest.fixture
def three_classes(tmp_path):
    """A folder of 6 slices of 64 x 64: background, discs (1) and squares (2), of different brightness."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 64, 64), np.uint8)
    y, x = np.mgrid[:64, :64]
    for label in labels:
        for _ in range(4):
            at = rng.integers(8, 56, 2)
            label[(y - at[0]) ** 2 + (x - at[1]) ** 2 < 60] = 1
            at = rng.integers(8, 56, 2)
            label[at[0] - 6:at[0] + 6, at[1] - 6:at[1] + 6] = 2
    images = np.clip(np.array([60, 130, 200])[labels] + rng.normal(0, 10, labels.shape), 0, 255).astype(np.uint8)
    for name, stack in ((VOLUME, images), (LABELS, labels), (TEST, images[:2])):
        tifffile.imwrite(folder / name, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    return folder


def test_three_classes_through_the_whole_pipeline(three_classes, script, tmp_path):
    refused = script("augmentation.py", "--data", three_classes, "--copies", 1)
    assert refused.returncode == 2
    assert "--classes 3" in refused.stderr
    done = script("augmentation.py", "--data", three_classes, "--copies", 2, "--workers", 1, "--classes", 3)
    assert done.returncode == 0, done.stderr
    assert set(np.unique(tifffile.imread(tmp_path / "results" / "augmented" / "labels.tif"))) == {0, 1, 2}
    tiled = script("preprocessing.py", "--tile", 32, "--margin", 8, "--weights", "balance")  # told once is enough
    assert tiled.returncode == 0, tiled.stderr
    tiles = np.load(tmp_path / "results" / "patches" / "train-labels.npy")
    weights = np.load(tmp_path / "results" / "patches" / "train-weights.npy")
    assert set(np.unique(tiles)) == {0, 1, 2}
    assert len({weights[tiles == k][0] for k in range(3)}) == 3
    wrong = script("train.py", "--classes", 4)
    assert wrong.returncode == 2
    assert "augmentation.py --classes 4" in wrong.stderr
    trained = script("train.py", "--classes", 3, "--epochs", 2, "--steps", 20, "--batch", 4, "--filters", 8, "--depth",
                     1, "--preset", "keras", "--lr", "1e-2")
    assert trained.returncode == 0, trained.stderr
    assert "class 2" in trained.stdout
    scores = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert scores["mean"]["iou"] > 0.5
    with tifffile.TiffFile(tmp_path / "prediction.tif") as tiff:
        assert tiff.is_imagej
        assert tiff.series[0].axes == "ZCYX"
        prediction = tiff.asarray()
    assert (prediction.shape, prediction.dtype) == ((2, 3, 64, 64), np.float32)
    np.testing.assert_allclose(prediction.sum(axis=1), 1, atol=1e-3)
    labels = tifffile.imread(three_classes / LABELS)[:2]
    assert np.mean(prediction.argmax(axis=1) == labels) > 0.8
    again = script("predict.py", three_classes / TEST, "--out", "again.tif")
    assert again.returncode == 0, again.stderr
    np.testing.assert_allclose(tifffile.imread(tmp_path / "again.tif"), prediction, atol=2e-2)
    refused = script("predict.py", three_classes / TEST, "--instances", "cells.tif")
    assert refused.returncode == 2
    assert "3 classes" in refused.stderr
    assert (tmp_path / "results" / "holdout.png").is_file()


def test_border_weights_are_for_one_class(three_classes, script):
    assert script("augmentation.py", "--data", three_classes, "--copies", 0, "--classes", 3).returncode == 0
    refused = script("preprocessing.py", "--tile", 32, "--margin", 8, "--weights", "border")
    assert refused.returncode == 2
    assert "balance or none" in refused.stderr
