"""Average precision of nuclei against arithmetic by hand, and the folders that the command line compares."""

import json
import shutil

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from unet.scores.precision import (
    THRESHOLDS,
    average_precision,
    format_nuclei,
    intersection_over_union,
    nuclei_scores,
    score_nuclei,
)
from utils import UserError


def row(*runs):
    """Instance map (1, W) of runs (number, length)."""
    return np.repeat([number for number, _ in runs], [length for _, length in runs])[np.newaxis].astype(np.int32)


TRUTH = row((1, 10), (0, 5), (2, 10), (0, 5))


def test_the_same_nuclei_under_other_numbers_are_perfect():
    scores = average_precision(row((7, 10), (0, 5), (70_000, 10), (0, 5)), TRUTH)
    assert set(scores["ap"].values()) == {1.0}
    assert (scores["mean"], scores["predicted"], scores["true"]) == (1.0, 2, 2)
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_one_nucleus_found_well_one_badly():
    # IoU 8/10 and 6/11 (six shared, one beside): pairs of t < .8, and of t = .50 alone; .80 itself is not exceeded
    scores = average_precision(row((1, 8), (0, 7), (2, 6), (0, 4), (0, 5)), TRUTH)
    assert_array_equal(list(scores["tp"].values()), [2, 2, 1, 1, 1, 1, 0, 0, 0, 0])
    assert scores["ap"][0.55] == 1.0  # 6/10
    assert scores["ap"][0.6] == 1 / 3  # one pair, one false, one missed; .6 itself is not exceeded
    assert scores["mean"] == pytest.approx((2 + 4 / 3) / 10)


def test_two_nuclei_merged_are_one_false_and_two_missed():
    # each shares 10 of the merged 25: IoU 10/25
    scores = average_precision(row((1, 25), (0, 5)), TRUTH)
    assert scores["mean"] == 0.0
    assert (scores["predicted"], scores["true"]) == (1, 2)
    # with a small neighbour the large one survives: IoU 10/13, pairs of t up to .75; TP 1, FP 0, FN 1
    scores = average_precision(row((1, 13), (0, 2)), row((1, 10), (0, 1), (2, 2), (0, 2)))
    assert scores["ap"] == {t: 0.5 if t <= 0.75 else 0.0 for t in THRESHOLDS}
    assert scores["mean"] == pytest.approx(0.3)


def test_a_nucleus_split_in_two():
    # halves have IoU 5/10, not more than .5: two false, one missed
    assert average_precision(row((1, 5), (2, 5)), row((1, 10)))["mean"] == 0.0
    # 7 and 3 of 10: the larger part is a pair below .7; TP 1, FP 1, FN 0
    scores = average_precision(row((1, 7), (2, 3)), row((1, 10)))
    assert scores["ap"] == {t: 0.5 if t < 0.7 else 0.0 for t in THRESHOLDS}
    assert scores["mean"] == pytest.approx(0.2)


@pytest.mark.parametrize("share", [10, 11, 12, 13, 14, 15, 16, 17, 18, 19])
def test_an_iou_of_exactly_a_threshold_does_not_pass_it(share):
    scores = average_precision(row((1, share), (0, 20 - share)), row((1, 20)))
    threshold = share / 20
    assert threshold in THRESHOLDS
    assert [t for t, pairs in scores["tp"].items() if pairs] == [t for t in THRESHOLDS if t < threshold]


def test_empty_maps():
    empty = np.zeros((3, 4), np.int32)
    nucleus = np.ones((3, 4), np.int32)
    assert average_precision(empty, nucleus)["mean"] == 0.0
    assert average_precision(nucleus, empty)["mean"] == 0.0
    both = average_precision(empty, empty)
    assert set(both["ap"].values()) == {1.0}
    assert (both["mean"], both["predicted"], both["true"]) == (1.0, 0, 0)


def test_pairs_that_touch_and_their_iou(rng):
    predicted, truth = (rng.integers(0, 5, (20, 20)) for _ in range(2))
    expected = [(np.sum((predicted == i) & (truth == j)) / np.sum((predicted == i) | (truth == j)))
                for i in range(1, 5) for j in range(1, 5)]
    np.testing.assert_allclose(sorted(intersection_over_union(predicted, truth)), sorted(expected))


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="the truth is"):
        average_precision(TRUTH, TRUTH[:, 1:])
    with pytest.raises(ValueError, match="whole numbers"):
        average_precision(TRUTH.astype(np.float32), TRUTH)
    with pytest.raises(ValueError, match="b: the prediction"):
        nuclei_scores([(TRUTH, TRUTH), (TRUTH, TRUTH[:, 1:])], ["a", "b"])
    with pytest.raises(ValueError, match="no image"):
        nuclei_scores([], [])


def test_a_set_is_the_mean_over_images_and_over_each_kind():
    half = row((1, 7), (2, 3)), row((1, 10))  # mean .2, as above
    scores = nuclei_scores([(TRUTH, TRUTH), half, half], ["a", "b", "c"], ["dark", "dark", "stained"])
    assert scores["all"]["mean"] == pytest.approx(1.4 / 3)
    assert scores["kinds"]["dark"]["mean"] == pytest.approx(0.6)
    assert scores["kinds"]["stained"]["ap"]["0.65"] == 0.5
    assert (scores["all"]["images"], scores["all"]["true"], scores["all"]["predicted"]) == (3, 4, 6)
    assert json.loads(json.dumps(scores)) == scores
    lines = format_nuclei(scores).splitlines()
    assert lines[2].split() == ["b", "1", "2", "0.5000", "0.0000", "0.0000", "0.2000"]
    assert lines[-2].startswith("all, 3 images")
    assert max(map(len, lines)) <= 100


# --------------------------------------------------------------------------------------------------- files


@pytest.fixture
def folders(tmp_path):
    """Predictions of one image of two, and the truth as masks, a file a nucleus."""
    predicted, truth = tmp_path / "predicted", tmp_path / "truth"
    predicted.mkdir()
    labels = np.zeros((20, 30), np.uint16)
    labels[2:12, 3:13], labels[2:12, 15:25] = 1, 2
    image = np.full((20, 30, 3), 10, np.uint8)
    image[labels > 0] = 200
    for name in ("one", "two"):
        for inside in ("images", "masks"):
            (truth / name / inside).mkdir(parents=True)
        (truth / name / "images" / f"{name}.png").write_bytes(imagecodecs.png_encode(image))
        for number in (1, 2):
            mask = np.where(labels == number, 255, 0).astype(np.uint8)
            (truth / name / "masks" / f"{number}.png").write_bytes(imagecodecs.png_encode(mask))
    labels[2:9, 15:25] = 0  # 3 rows of 10 are left of the second nucleus
    tifffile.imwrite(predicted / "one-labels.tif", labels)
    return predicted, truth


def test_a_folder_of_predictions_against_masks(folders, script, tmp_path):
    result = script("metrics.py", *folders, "--json", "scores.json")
    assert result.returncode == 0, result.stderr
    assert "1 image has no prediction and does not count: two" in result.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["all"]["mean"] == pytest.approx(1 / 3)  # one pair, one false, one missed
    assert list(scores["kinds"]) == ["fluorescence"]
    assert scores["missing"] == ["two"]


def test_predicted_images_without_masks_are_named_and_not_scored(folders, script):
    predicted, truth = folders
    for name in ("one", "two"):
        tifffile.imwrite(predicted / f"{name}-labels.tif", np.ones((20, 30), np.uint16))
    shutil.rmtree(truth / "two" / "masks")
    result = script("metrics.py", predicted, truth)
    assert result.returncode == 0, result.stderr
    assert "1 image has no masks and does not count: two" in result.stdout
    scores = score_nuclei(predicted, truth)
    assert ([row["image"] for row in scores["per_image"]], scores["without"]) == (["one"], ["two"])
    (predicted / "one-labels.tif").unlink()
    with pytest.raises(UserError, match="has no masks for what was predicted"):
        score_nuclei(predicted, truth)


def test_a_folder_of_predictions_against_labels_and_two_stacks(folders, tmp_path):
    predicted, _ = folders
    assert score_nuclei(predicted, predicted)["all"]["mean"] == 1.0
    stack = np.stack([TRUTH, TRUTH]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack)
    stack[1] = 0
    tifffile.imwrite(tmp_path / "b.tif", stack)
    scores = score_nuclei(tmp_path / "a.tif", tmp_path / "b.tif")
    assert [image["mean"] for image in scores["per_image"]] == [1.0, 0.0]


def test_what_cannot_be_compared_is_one_clear_line(folders, script, tmp_path):
    predicted, truth = folders
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((4, 4), np.float32))
    for one, other, said in ((predicted, tmp_path / "none", "not found"),
                             (predicted, tmp_path / "float.tif", "a folder"),
                             (truth, predicted, "holds no <name>-labels.tif"),
                             (tmp_path / "float.tif", tmp_path / "float.tif", "a number for each nucleus")):
        with pytest.raises(UserError, match=said):
            score_nuclei(one, other)
    tifffile.imwrite(predicted / "three-labels.tif", np.ones((4, 4), np.uint16))
    with pytest.raises(UserError, match="no truth for 1 of 2 predictions, three"):
        score_nuclei(predicted, truth)
    (predicted / "three-labels.tif").unlink()
    tifffile.imwrite(predicted / "one-labels.tif", np.ones((4, 4), np.uint16))
    result = script("metrics.py", predicted, truth)
    assert result.returncode == 2
    assert "one: the prediction is (4, 4), the truth is (20, 30)" in result.stderr
    assert script("metrics.py", predicted, truth, "--slices", "1").returncode == 2
