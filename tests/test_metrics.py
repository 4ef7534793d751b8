"""The command that scores files: stacks of cells, as probability or by number, and folders of nuclei."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from conftest import write_nuclei, write_two_folders
from helpers import noisy_stack

from metrics import are_cells, score_nuclei, score_stacks
from unet.inputs.ome_zarr import Stack
from unet.inputs.writers import page_writer
from unet.scores.isbi import best_threshold, components, instance_scores, isbi_scores
from utils import UserError


@pytest.fixture
def files(tmp_path):
    """Stacks of five slices, and of the last two of them as grey values; the true cells by number."""
    probabilities, labels = noisy_stack(5)
    tifffile.imwrite(tmp_path / "prediction.tif", probabilities)
    tifffile.imwrite(tmp_path / "two.tif", (probabilities[3:] * 255).astype(np.uint8))
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    tifffile.imwrite(tmp_path / "cells.tif", np.stack([components(label > 0) for label in labels]).astype(np.uint16))
    return tmp_path


# -------------------------------------------------------------------------------------------- stacks of cells


def test_a_prediction_of_all_slices_chooses_the_threshold_on_the_other_slices(files):
    probabilities, labels = noisy_stack(5)
    scores = score_stacks(files / "prediction.tif", files / "labels.tif", "3-4")
    assert scores["chosen"].pop("how") == "the t best on the prediction's other 3 slices"
    threshold = best_threshold(probabilities[:3], labels[:3])
    expected = isbi_scores(probabilities[3:], labels[3:], threshold=threshold, slices=[3, 4])
    expected["chosen"].pop("how")
    assert scores == expected


def test_a_prediction_of_the_named_slices_alone_is_paired_with_them_in_order(files):
    probabilities, labels = noisy_stack(5)
    scores = score_stacks(files / "two.tif", files / "labels.tif", "3-4")
    grey = (probabilities[3:] * 255).astype(np.uint8) / np.float32(255)
    assert scores == isbi_scores(grey, labels[3:], threshold="others", slices=[3, 4])
    with pytest.raises(UserError, match="has 2 slices"):
        score_stacks(files / "two.tif", files / "labels.tif", "2-4")


def test_numbers_of_cells_that_never_touch_need_no_option(files):
    cells, labels = tifffile.imread(files / "cells.tif"), noisy_stack(5)[1]
    scores = score_stacks(files / "cells.tif", files / "labels.tif", "3-4")
    assert scores == instance_scores(cells[3:], labels[3:], [3, 4])
    assert scores["mean"]["V_rand"] == 1
    tifffile.imwrite(files / "touching.tif", np.maximum(cells, 1))  # the border is of cell 1 now
    with pytest.raises(UserError, match="has values up to 4 of 65535; if they number cells, score"):
        score_stacks(files / "touching.tif", files / "labels.tif")
    assert score_stacks(files / "touching.tif", files / "labels.tif", instances=True)["mean"]["V_rand"] == 1
    with pytest.raises(UserError, match="float32, expected whole numbers"):
        score_stacks(files / "prediction.tif", files / "labels.tif", instances=True)


@pytest.mark.parametrize(("row", "cells"), [
    ([1, 1, 0, 2, 2], True), ([9, 0, 9, 0, 3], True), ([1, 1, 0, 1, 1], False), ([255, 128, 0, 128, 255], False),
    ([0, 0, 0, 0, 0], False)])
def test_what_is_plainly_numbers_of_cells(row, cells):
    stack = np.array([[row]], np.uint8)
    assert are_cells(stack) == are_cells(stack.transpose(0, 2, 1)) == cells


def test_swapped_files_are_one_clear_line(files):
    with pytest.raises(UserError, match=r"prediction\.tif has fractions.*; name the labels second"):
        score_stacks(files / "labels.tif", files / "prediction.tif")


@pytest.mark.parametrize("name", ["p", "p.zarr"])
def test_a_folder_or_a_zarr_is_a_stack_too(files, command, name):
    if name == "p.zarr":
        pytest.importorskip("zarr", reason="zarr is not installed; requirements-zarr.txt has it")
    probabilities, _ = noisy_stack(5)
    names = [f"slice {number}" for number in range(5)]
    with page_writer(files / name, Stack(probabilities.shape, np.float32, names=names)) as write:
        for page in probabilities:
            write(page)
    results = [command("metrics.py", one, "labels.tif", "--slices", "3-4") for one in (name, "prediction.tif")]
    assert results[0].returncode == 0 and results[0].stdout == results[1].stdout


def test_the_command_prints_a_table_and_writes_json(files, script):
    done = script("metrics.py", "prediction.tif", "labels.tif", "--slices", "3-4", "--json", "scores.json")
    assert (done.returncode, done.stderr) == (0, "")
    best = json.loads((files / "scores.json").read_text())["best"]["V_rand"]
    assert f"best V_rand{best['threshold']:>13g}{best['V_rand']:>8.4f}" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("slice")]) == 2
    by_number = script("metrics.py", "cells.tif", "labels.tif")
    assert by_number.stdout.splitlines()[-2].split() == ["mean", "1.0000", "1.0000", "0.0000", "0.0000"]
    failed = script("metrics.py", "two.tif", "labels.tif")
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1 and "--slices" in failed.stderr


# --------------------------------------------------------------------------------------------------- nuclei


@pytest.fixture
def folders(tmp_path):
    """Predictions of one image of two, and the truth as masks, a file a nucleus."""
    predicted, truth = tmp_path / "predicted", tmp_path / "truth"
    predicted.mkdir()
    labels = np.zeros((20, 30), np.uint16)
    labels[2:12, 3:13], labels[2:12, 15:25] = 1, 2
    image = np.where(labels[..., None] > 0, 200, 10).astype(np.uint8).repeat(3, axis=2)
    for name in ("one", "two"):
        write_nuclei(truth, name, image, labels)
    labels[2:9, 15:25] = 0  # 3 rows of 10 are left of the second nucleus
    tifffile.imwrite(predicted / "one-labels.tif", labels)
    return predicted, truth


def test_a_folder_of_predictions_against_masks(folders, script, tmp_path):
    result = script("metrics.py", *folders, "--json", "scores.json")
    assert result.returncode == 0, result.stderr
    assert "1 image has no prediction and does not count: two" in result.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["all"]["mean"] == pytest.approx(1 / 3)  # one pair, one false, one missed
    assert list(scores["modalities"]) == ["fluorescence"]
    assert scores["missing"] == ["two"]


@pytest.mark.parametrize("label", [np.array([[7, 7, 0, 0, 9, 9]] * 4), np.array([[255, 255, 0, 0, 255, 255]] * 4)])
def test_predicted_objects_against_labels_in_two_folders(tmp_path, label):
    """Numbers are the objects; of a label of one number, and so of cells, its pieces are."""
    image = np.where(label, 200, 20).astype(np.uint8)
    data = write_two_folders(tmp_path / "data", {"a": (image, label.astype(np.uint8))}, {"new": image})
    (tmp_path / "prediction").mkdir()
    for name in ("a", "new"):
        tifffile.imwrite(tmp_path / "prediction" / f"{name}-labels.tif", np.array([[1, 1, 0, 0, 0, 0]] * 4, np.uint16))
    scores = score_nuclei(tmp_path / "prediction", data)
    assert (scores["all"]["mean"], scores["without"]) == (0.5, ["new"])


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
    with pytest.raises(UserError, match="has no masks for any predicted image"):
        score_nuclei(predicted, truth)


def test_a_folder_of_predictions_against_labels_and_two_stacks(folders, tmp_path):
    predicted, _ = folders
    assert score_nuclei(predicted, predicted)["all"]["mean"] == 1.0
    stack = np.tile(np.repeat([1, 0, 2, 0], [10, 5, 10, 5]), (2, 1, 1)).astype(np.uint16)
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
    with pytest.raises(UserError, match=r"one: the prediction is \(4, 4\), the truth is \(20, 30\)"):
        score_nuclei(predicted, truth)
    refused = script("metrics.py", predicted, truth, "--slices", "1")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


# -------------------------------------------------------------------------------------- numbers through a stack


def test_linked_cells_are_scored_in_three_dimensions(tmp_path, command):
    """Two cells through two slices; the second slice's numbers are swapped in the wrong one."""
    truth = np.zeros((2, 4, 9), np.uint16)
    truth[:, :, :4], truth[:, :, 5:] = 3, 8
    right, wrong = np.where(truth == 3, 1, truth), truth.copy()
    wrong[1][truth[1] == 3], wrong[1][truth[1] == 8] = 8, 3
    for name, stack in (("truth", truth), ("right", right.astype(np.uint16)), ("wrong", wrong)):
        tifffile.imwrite(tmp_path / f"{name}.tif", stack, photometric="minisblack")
    assert score_stacks(tmp_path / "right.tif", tmp_path / "truth.tif", linked=True)["linked"] == {
        "adapted_rand_error": 0, "precision": 1, "recall": 1}
    scores = score_stacks(tmp_path / "wrong.tif", tmp_path / "truth.tif", linked=True)
    assert scores["mean"]["adapted_rand_error"] == 0  # each slice for itself is right
    assert scores["linked"]["adapted_rand_error"] == pytest.approx(0.5)
    done = command("metrics.py", "wrong.tif", "truth.tif", "--linked")
    assert done.stdout.splitlines()[-1].startswith("through the stack, in 3-D: adapted Rand error 0.5000, ")
    assert "linked" not in score_stacks(tmp_path / "wrong.tif", tmp_path / "truth.tif")


def test_what_has_no_numbers_cannot_be_linked(files):
    with pytest.raises(UserError, match=r"labels\.tif does not number its cells; --linked needs the same number"):
        score_stacks(files / "cells.tif", files / "labels.tif", linked=True)
    with pytest.raises(UserError, match="leave out --instances and --linked for probabilities"):
        score_stacks(files / "prediction.tif", files / "labels.tif", linked=True)
