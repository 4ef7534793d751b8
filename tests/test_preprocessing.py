"""Preprocessing: normalisation, weight maps against the paper's formula, tiles that keep the hold-out apart."""

import hashlib
import json

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, write_nuclei
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import label as components

from augmentation import augment
from preprocessing import (
    NORMALISATION,
    Tiling,
    balance_weights,
    border_weights,
    fresh_geometry,
    normalise,
    preprocess,
    weight_map,
)
from unet.segment.crests import membrane_width
from utils import OverlapTile, UserError


def test_normalise_brings_any_contrast_to_the_same_picture(rng):
    image = rng.normal(120, 20, (80, 90)).clip(0, 255).astype(np.uint8)
    normal = normalise(image)
    assert normal.dtype == np.uint8
    assert normal.mean() == pytest.approx(NORMALISATION["mean"], abs=0.5)
    assert normal.std() == pytest.approx(NORMALISATION["sd"], rel=0.02)
    darker = (image * 0.5 + 10).astype(np.float32)
    assert abs(normalise(darker).astype(int) - normal).max() <= 1
    assert (normalise(np.full((4, 5), 7, np.uint8)) == NORMALISATION["mean"]).all()


def test_balance_weights_by_hand():
    label = np.array([[255, 255, 255, 0]], np.uint8)
    weights = balance_weights(label, share=0.75)
    assert weights.tolist() == [[pytest.approx(2 / 3)] * 3 + [2.0]]
    assert weights.mean() == pytest.approx(1)


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
    assert np.array_equal(border_weights(cells), border_weights(label))  # instances are taken as they are
    both = weight_map(label, "border", 0.7)
    assert np.allclose(both, balance_weights(label, 0.7) + border_weights(label))


@pytest.fixture
def augmented(tiny_folder, tmp_path):
    augment(tiny_folder, tmp_path / "work", copies=2, holdout="4,5", workers=1)
    return tmp_path / "work"


def load(work):
    return {path.stem: np.load(path) for path in (work / "patches").glob("*.npy")}


def test_tiles_are_the_slices(augmented, tiny_stacks):
    geometry = preprocess(augmented, Tiling(48, 8))
    arrays = load(augmented)
    images, labels = tiny_stacks
    per_slice = len(OverlapTile(images.shape[1:], 32, 8))
    assert geometry["counts"] == {"train": 4 * 3 * 4, "holdout": 2 * per_slice}  # 64 pixels: tiles at 0 and at 16
    assert arrays["train-images"].shape == (geometry["counts"]["train"], 48, 48)
    # every held-out tile, label beside image, is where the geometry object says it is
    expected_images = np.concatenate([OverlapTile(i.shape, 32, 8).cut(normalise(i)) for i in images[4:]])
    expected_labels = np.concatenate([OverlapTile(i.shape, 32, 8).cut(i) for i in labels[4:]]) > 0
    got = {(image.tobytes(), label.tobytes())
           for image, label in zip(arrays["holdout-images"], arrays["holdout-labels"], strict=True)}
    assert got == {(image.tobytes(), label.astype(np.uint8).tobytes())
                   for image, label in zip(expected_images, expected_labels, strict=True)}
    assert "train-weights" not in arrays
    assert geometry["membrane"] == membrane_width(labels[:4]) > 0  # of training slices, as they came
    # a training tile is a piece of its slice, label beside image, nowhere mirrored
    pieces = {normalise(image)[y:y + 48, x:x + 48].tobytes(): (label[y:y + 48, x:x + 48] > 0).astype(np.uint8).tobytes()
              for image, label in zip(images[:4], labels[:4], strict=True) for y in (0, 16) for x in (0, 16)}
    found = [pieces[image.tobytes()] == label.tobytes()
             for image, label in zip(arrays["train-images"], arrays["train-labels"], strict=True)
             if image.tobytes() in pieces]
    assert len(found) == 4 * 4  # those of the four originals
    assert all(found)


def test_holdout_never_reaches_the_training_tiles(augmented):
    preprocess(augmented, Tiling(48, 8))
    arrays = load(augmented)
    assert set(arrays["train-sources"]) == {0, 1, 2, 3}
    assert set(arrays["holdout-sources"]) == {4, 5}
    digests = [{hashlib.sha256(tile.tobytes()).digest() for tile in arrays[f"{part}-images"]}
               for part in ("train", "holdout")]
    assert digests[1]
    assert not digests[0] & digests[1]


def test_valid_networks_get_the_core_as_label_and_weights(augmented):
    geometry = preprocess(augmented, Tiling(64, 16, valid=True), weights="border")
    arrays = load(augmented)
    assert arrays["train-labels"].shape[1:] == arrays["train-weights"].shape[1:] == (32, 32)
    assert geometry["label"] == 32
    share = geometry["cell_share"]
    least = np.where(arrays["train-labels"] > 0, 0.5 / share, 0.5 / (1 - share))
    assert (arrays["train-weights"] >= least * 0.999).all()
    assert arrays["train-weights"].max() > least.max() + 1


def test_same_seed_same_tiles(augmented):
    first = (preprocess(augmented, Tiling(48, 8)), load(augmented))
    second = (preprocess(augmented, Tiling(48, 8)), load(augmented))
    assert first[0] == second[0]
    assert all(np.array_equal(first[1][name], second[1][name]) for name in first[1])


def test_nothing_held_out_leaves_empty_files(tiny_folder, tmp_path):
    augment(tiny_folder, tmp_path, copies=0, holdout="none", workers=1)
    geometry = preprocess(tmp_path, Tiling(64, 0))
    assert geometry["counts"]["holdout"] == 0
    assert load(tmp_path)["holdout-images"].shape == (0, 64, 64)


def test_order_of_the_steps_is_watched(tiny_folder, tmp_path):
    work = tmp_path / "work"
    with pytest.raises(UserError, match=r"augmentation\.py"):
        preprocess(work)
    with pytest.raises(UserError, match=r"augmentation\.py.*preprocessing\.py"):
        fresh_geometry(work)
    augment(tiny_folder, work, copies=1, workers=1)
    preprocess(work, Tiling(48, 8))
    assert fresh_geometry(work)["tile"] == 48
    augment(tiny_folder, work, copies=1, seed=1, workers=1)
    with pytest.raises(UserError, match=r"changed since it was cut.*preprocessing\.py"):
        fresh_geometry(work)
    preprocess(work, Tiling(48, 8))
    labels = tiny_folder / "train-labels.tif"
    labels.write_bytes(labels.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"train-labels\.tif is gone or changed"):
        preprocess(work)


def test_nuclei_without_background_are_refused(tmp_path):
    for name in ("aa", "bb"):
        write_nuclei(tmp_path / "bowl", name, draw_nuclei((64, 64))[0], np.ones((64, 64), int))
    augment(tmp_path / "bowl", tmp_path / "work", copies=0, holdout="bb", workers=1)
    with pytest.raises(UserError, match="have no background at all"):
        preprocess(tmp_path / "work", Tiling(64, 8))


def test_one_slice_is_enough(tiny_folder, tmp_path, tiny_stacks):
    for name, stack in zip(("train-volume.tif", "train-labels.tif"), tiny_stacks, strict=True):
        tifffile.imwrite(tiny_folder / name, stack[0])
    augment(tiny_folder, tmp_path, copies=0, workers=1)
    assert preprocess(tmp_path, Tiling(64, 0))["counts"] == {"train": 1, "holdout": 0}


def test_a_tile_without_room_is_refused(augmented):
    with pytest.raises(UserError, match="no room"):
        preprocess(augmented, Tiling(64, 32))
    assert not (augmented / "patches").exists()


def test_broken_manifest_is_one_clear_line(augmented):
    (augmented / "augmented" / "manifest.json").write_text(json.dumps({"x": 1})[:-1])
    with pytest.raises(UserError, match="not what this project writes"):
        preprocess(augmented)
