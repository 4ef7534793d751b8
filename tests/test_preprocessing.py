"""Preprocessing: weight maps against the paper's formula, tiles that keep the hold-out apart, stale inputs."""

import json

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, draw_stacks, write_nuclei, write_stacks
from numpy.testing import assert_array_equal
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import label as components

from augmentation import Settings, augment
from preprocessing import (
    TILE_PRESETS,
    Tiling,
    TrainingArrays,
    balance_weights,
    border_weights,
    class_shares,
    fresh_geometry,
    preprocess,
    task_tiling,
)
from unet.inputs.stacks import LABELS
from unet.tasks.cells import Cells
from unet.tasks.classes import Classes
from unet.tasks.nuclei import Nuclei
from utils import UserError

# ------------------------------------------------------------------------------------------------ weight maps


def test_balance_weights_by_hand():
    target = np.array([[1, 1, 1, 0]], np.uint8)
    weights = balance_weights(target, [0.25, 0.75])
    assert weights.tolist() == [[pytest.approx(2 / 3)] * 3 + [2.0]]
    assert weights.mean() == pytest.approx(1)


def test_all_classes_count_the_same_and_an_absent_one_not_at_all():
    target = np.array([[0, 0, 1, 1], [2, 2, 1, 1]], np.uint8)
    shares = class_shares([target], 4)
    assert shares == [0.25, 0.5, 0.25, 0.0]
    weights = balance_weights(target, shares)
    assert [weights[target == k].sum() for k in range(3)] == pytest.approx([8 / 3] * 3)
    assert balance_weights(np.array([[3]]), shares).tolist() == [[0.0]]


def test_border_weights_by_hand():
    label = np.zeros((9, 30), np.uint8)
    label[:, :10] = label[:, 14:20] = 255  # a gap of 4 pixels, then 10 without a second cell near
    weights = border_weights(label)
    # column 10 is 1 pixel from the left cell and 4 from the right one
    assert weights[4, 10] == pytest.approx(10 * np.exp(-((1 + 4) ** 2) / 50))
    assert weights[4, 11] == weights[4, 12] == pytest.approx(10 * np.exp(-((2 + 3) ** 2) / 50))
    # column 25: 6 from the middle cell and 16 from the left one
    assert weights[4, 25] == pytest.approx(10 * np.exp(-((6 + 16) ** 2) / 50), abs=1e-6)
    assert (weights[label > 0] == 0).all()


def test_border_weights_follow_the_formula_with_all_distances(tiny_stacks):
    label = tiny_stacks[1][0]
    cells, count = components(label)
    assert count > 2
    distances = np.sort([distance_transform_edt(cells != number) for number in range(1, count + 1)], axis=0)
    expected = np.where(cells > 0, 0, 10 * np.exp(-((distances[0] + distances[1]) ** 2) / 50))
    assert np.abs(border_weights(label) - expected).max() < 1e-4
    assert_array_equal(border_weights(cells), border_weights(label))  # instances are taken as they are


def test_touching_nuclei_get_a_wall_of_weights():
    label = np.zeros((20, 20), np.uint16)
    label[5:15, 3:10] = 1
    label[5:15, 10:17] = 2
    levels = {"inverted": False, "low": [0] * 3, "high": [255] * 3}
    arrays = TrainingArrays(Nuclei(), "border", [0.7, 0.3]).arrays(np.zeros((20, 20, 3), np.uint8), label, levels)
    assert arrays["labels"][10, 3:17].tolist() == [1] * 6 + [0, 0] + [1] * 6
    between, background = arrays["weights"][10, 9], arrays["weights"][10, 0]
    assert between == pytest.approx(0.5 / 0.7 + 10 * np.exp(-((1 + 2) ** 2) / 50))
    assert background == pytest.approx(0.5 / 0.7 + 10 * np.exp(-((3 + 11) ** 2) / 50))


# ----------------------------------------------------------------------------------------------------- tiles


@pytest.fixture(scope="module")
def augmented(tmp_path_factory):
    """The work folder after step 1: 6 slices of 64 x 64, two of them held out, two copies of each of the others."""
    folder = tmp_path_factory.mktemp("augmented")
    write_stacks(folder / "data", *draw_stacks(), draw_stacks(seed=1)[0])
    augment(folder / "data", folder, Settings(copies=2, holdout="4,5", workers=1))
    return folder


def load(work):
    return {path.stem: np.load(path) for path in (work / "patches").glob("*.npy")}


def normal(image, task=Cells()):  # noqa: B008
    return task.normalise(image, task.levels(image))


def test_tiles_are_pieces_of_the_slices_that_train(augmented):
    geometry = preprocess(augmented, Tiling(48, 8))
    arrays, (images, labels) = load(augmented), draw_stacks()
    assert set(arrays) == {"train-images", "train-labels", "train-sources"}
    assert geometry["count"] == 4 * 3 * 4  # 64 pixels: tiles at 0 and at 16
    assert arrays["train-images"].shape == arrays["train-labels"].shape == (48, 48, 48)
    assert sorted(arrays["train-sources"]) == sorted([0, 1, 2, 3] * 12)
    assert geometry["shares"] == pytest.approx([(labels[:4] == 0).mean(), (labels[:4] > 0).mean()])
    # label beside image, nowhere mirrored, in the row of its slice
    pieces = {normal(image)[y:y + 48, x:x + 48].tobytes(): ((label[y:y + 48, x:x + 48] > 0).tobytes(), number)
              for number, (image, label) in enumerate(zip(images, labels, strict=True))
              for y in (0, 16) for x in (0, 16)}
    tiles = list(zip(arrays["train-images"], arrays["train-labels"], arrays["train-sources"], strict=True))
    originals = [(pieces[image.tobytes()], (label.astype(bool).tobytes(), source))
                 for image, label, source in tiles if image.tobytes() in pieces]
    assert len(originals) == 4 * 4  # none of a held-out slice
    assert all(there == here for there, here in originals)


def test_a_copy_is_normalised_with_the_levels_of_its_original(augmented):
    """With its own, a brightness that was drawn would be undone."""
    preprocess(augmented, Tiling(64, 0))
    manifest = json.loads((augmented / "augmented" / "manifest.json").read_text())
    pages = tifffile.imread(augmented / "augmented" / "images.tif")
    tiles = {tile.tobytes() for tile in load(augmented)["train-images"]}
    expected = {Cells().normalise(pages[page["page"]], manifest["sources"][page["source"]]["levels"]).tobytes()
                for page in manifest["samples"] if page["source"] < 4}
    assert tiles == expected


def test_valid_networks_get_the_core_as_label_and_weights(augmented):
    geometry = preprocess(augmented, Tiling(64, 16, valid=True), weights="border")
    arrays = load(augmented)
    assert arrays["train-labels"].shape[1:] == arrays["train-weights"].shape[1:] == (32, 32)
    assert geometry["label"] == 32
    assert arrays["train-weights"].dtype == np.float32
    least = 0.5 / np.array(geometry["shares"])[arrays["train-labels"]]
    assert (arrays["train-weights"] >= least * 0.999).all()
    assert arrays["train-weights"].max() > least.max() + 1


def test_weights_of_a_very_rare_class_are_finite(tmp_path):
    """A share of 3e-6: half precision overflows above 65504."""
    labels = np.full((3, 512, 512), 255, np.uint8)
    labels[:, 8, 9] = 0
    labels[2, 8, 10] = 0
    images = np.random.default_rng(0).integers(0, 256, labels.shape, np.uint8)
    write_stacks(tmp_path / "data", images, labels, images[:1])
    augment(tmp_path / "data", tmp_path, Settings(copies=0, holdout="2", workers=1))
    geometry = preprocess(tmp_path, Tiling(512, 0), weights="balance")
    assert geometry["shares"][0] == pytest.approx(1 / 512**2)
    weights = load(tmp_path)["train-weights"]
    assert weights.dtype == np.float32
    assert sorted(np.unique(weights)) == pytest.approx([0.5 * 512**2 / (512**2 - 1), 0.5 * 512**2])


def test_same_seed_same_tiles(augmented):
    first = preprocess(augmented, Tiling(48, 8)), load(augmented)
    second = preprocess(augmented, Tiling(48, 8)), load(augmented)
    other = preprocess(augmented, Tiling(48, 8), seed=1), load(augmented)
    assert first[0] == second[0] == {**other[0], "seed": 0}
    for name, array in first[1].items():
        assert_array_equal(array, second[1][name])
    assert not np.array_equal(first[1]["train-sources"], other[1]["train-sources"])


def test_windows_of_nuclei_become_tiles(nuclei_folder, tmp_path):
    augment(nuclei_folder, tmp_path, Settings(copies=1, workers=1, window=80))
    geometry = preprocess(tmp_path)
    assert (geometry["tile"], geometry["margin"], geometry["weights"]) == (80, 0, "border")
    assert load(tmp_path)["train-images"].shape == (geometry["count"], 80, 80, 3)
    geometry = preprocess(tmp_path, Tiling(80, 20, valid=True))  # a published network's tiles fit larger windows
    assert load(tmp_path)["train-labels"].shape == (geometry["count"], 40, 40)
    with pytest.raises(UserError, match=r"do not fit the windows of 80.*augmentation\.py --window 572"):
        preprocess(tmp_path, TILE_PRESETS["paper"])
    next((nuclei_folder / "fluo1" / "masks").iterdir()).unlink()
    with pytest.raises(UserError, match=r"fluo1 is gone or changed"):
        preprocess(tmp_path)


def test_one_slice_is_enough(tmp_path):
    images, labels = draw_stacks(slices=1)
    write_stacks(tmp_path / "data", images, labels, images)
    augment(tmp_path / "data", tmp_path, Settings(copies=0, workers=1))
    assert preprocess(tmp_path, Tiling(64, 0))["count"] == 1


@pytest.mark.parametrize(("task", "tile", "margin", "expected"), [
    (Cells(), None, None, Tiling(256, 32)), (Cells(), 128, 0, Tiling(128, 0)),
    (Nuclei(), None, None, Tiling(300, 0)), (Nuclei(), None, 8, Tiling(300, 8))])
def test_tiles_that_nobody_asked_for(task, tile, margin, expected):
    assert task_tiling(task, (300, 300), tile, margin) == expected


# ------------------------------------------------------------------------------------------- what is refused


def test_tiles_and_weights_that_do_not_fit_are_refused_ahead_of_the_work(tmp_path, tiny_folder):
    augment(tiny_folder, tmp_path, Settings(copies=0, workers=1, classes=256))
    with pytest.raises(UserError, match="no room"):
        preprocess(tmp_path, Tiling(64, 32))
    with pytest.raises(UserError, match="--weights border is not for classes; choose none or balance"):
        preprocess(tmp_path, weights="border")
    assert not (tmp_path / "patches").exists()
    assert Classes(256).weights == ("none", "balance")


def test_labels_of_one_value_are_nothing_to_learn_from(tmp_path):
    for name in ("aa", "bb"):
        write_nuclei(tmp_path / "bowl", name, draw_nuclei((64, 64))[0], np.ones((64, 64), int))
    augment(tmp_path / "bowl", tmp_path / "work", Settings(copies=0, holdout="bb", workers=1, window=64))
    with pytest.raises(UserError, match="bowl: the labels to train on have one value everywhere"):
        preprocess(tmp_path / "work", Tiling(64, 8))


def test_order_of_the_steps_is_watched(tiny_folder, tmp_path):
    work = tmp_path / "work"
    with pytest.raises(UserError, match=r"augmentation\.py"):
        preprocess(work)
    with pytest.raises(UserError, match=r"augmentation\.py.*preprocessing\.py"):
        fresh_geometry(work)
    augment(tiny_folder, work, Settings(copies=1, workers=1))
    preprocess(work, Tiling(48, 8))
    assert fresh_geometry(work)["tile"] == 48
    augment(tiny_folder, work, Settings(copies=1, seed=1, workers=1))
    with pytest.raises(UserError, match=r"changed since it was cut.*preprocessing\.py"):
        fresh_geometry(work)
    preprocess(work, Tiling(48, 8))
    labels = tiny_folder / LABELS
    labels.write_bytes(labels.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"train-labels\.tif is gone or changed"):
        preprocess(work)
    (work / "augmented" / "manifest.json").write_text(json.dumps({"x": 1})[:-1])
    with pytest.raises(UserError, match="not what this project writes"):
        preprocess(work)
    (work / "augmented" / "manifest.json").write_text(json.dumps({"inputs": {}}))
    with pytest.raises(UserError, match=r"no task, split, .*; run 'python augmentation\.py' first"):
        preprocess(work)
