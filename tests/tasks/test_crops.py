"""Windows of nuclei images: they cover all, image and labels move alike, rare kinds are seen often; their tiles."""

import hashlib
import json

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, write_nuclei
from unet.tasks.crops import (
    WindowOptions,
    augment_window,
    copies_of_each,
    enlarged,
    squeeze,
    squeezed,
    warp_window,
    window_corners,
    windows,
)
from unet.tasks.transforms import elastic_field, turn_field, warp

import augmentation
from augmentation import augment
from preprocessing import NUCLEI_NORMALISATION, PRESETS, Tiling, fresh_geometry, preprocess, separated, weight_map
from unet.inputs.folders import RAW, Nuclei, find_sources, levels_of, read_source, stretch
from utils import UserError

QUIET = WindowOptions(side=48, turn_probability=1, elastic_probability=1, brightness=0, noise_probability=0)


def some_nuclei(shape=(64, 64), kind="fluorescence", seed=0):
    image, labels = draw_nuclei(shape, kind, seed)
    return Nuclei(f"{kind}{seed}", image, labels, kind, levels_of(image, kind))


def test_windows_cover_every_pixel_at_native_resolution():
    for shape in ((64, 64), (65, 130), (20, 90), (7, 5)):
        one = some_nuclei(shape)
        whole = enlarged(one.image, 64)
        covered = np.zeros(whole.shape[:2], int)
        for image, labels, record in windows([one], 64):
            y, x = record["corner"]
            assert image.shape == (64, 64, 3)
            assert labels.dtype == np.uint16
            assert np.array_equal(image, whole[y:y + 64, x:x + 64])
            covered[y:y + 64, x:x + 64] += 1
        assert covered.min() >= 1
        assert covered.sum() == 64 * 64 * len(window_corners(shape, 64))
        assert len(window_corners((64, 64), 64)) == 1


def test_small_images_are_padded_with_their_mirror_image():
    image = np.array([[1, 2]])
    assert enlarged(image, 4).tolist() == [[1, 1, 2, 2]] * 4
    assert enlarged(np.ones((9, 3), np.uint8), 4).shape == (9, 4)
    assert enlarged(np.ones((9, 3, 3), np.uint8), 4).shape == (9, 4, 3)


def test_only_a_part_is_warped_yet_the_pixels_are_those_of_the_whole(rng):
    image, labels = draw_nuclei((150, 190))
    for corner in ((0, 0), (102, 142), (51, 60), (0, 142)):
        field = turn_field((48, 48), 30, 0.8) + elastic_field((48, 48), 3, 20, rng)
        shifted = field + np.array(corner, np.float32)[:, None, None]
        moved, moved_labels = warp_window(image, labels, field, corner)
        assert np.abs(moved.astype(int) - warp(image, shifted)).max() <= 1
        assert np.mean(moved_labels != warp(labels, shifted, order=0)) < 0.01  # a rounding's share


def test_image_and_labels_move_by_one_draw():
    """The labels go in as the image: wherever no interpolation reaches, both come out alike."""
    for seed in range(20):
        _, labels = draw_nuclei((70, 52), seed=seed)
        as_image = np.repeat((labels[..., None] > 0) * np.uint8(200), 3, axis=2)
        one = Nuclei("a", as_image, labels, "fluorescence", RAW)
        image, moved, done = augment_window(one, labels, np.random.default_rng(seed), QUIET)
        assert image.shape == (48, 48, 3)
        assert (moved.shape, moved.dtype) == ((48, 48), np.uint16)
        assert set(np.unique(moved)) <= set(np.unique(labels))
        pure = (image[..., 0] == 0) | (image[..., 0] == 200)
        assert pure.mean() > 0.5
        assert np.array_equal(image[pure][:, 0] > 0, moved[pure] > 0)
        assert [step["operation"] for step in done[:4]] == ["flip", "crop", "turn and zoom", "elastic"]


def test_noise_is_a_share_of_the_images_own_range():
    loud = WindowOptions(side=64, turn_probability=0, elastic_probability=0, brightness=0, noise_probability=1,
                         gaussian_sd=(0.1, 0.1), uniform_intensity=(0.1, 0.1))
    spreads = []
    for span in (100, 200):
        image = np.full((64, 64, 3), 128, np.uint8)
        one = Nuclei("a", image, np.zeros((64, 64), np.uint16), "histology",
                     {"inverted": True, "low": [10] * 3, "high": [10 + span] * 3})
        spreads.append(augment_window(one, one.labels, np.random.default_rng(4), loud)[0].std())
    assert spreads[1] == pytest.approx(2 * spreads[0], rel=0.1)


def test_rare_kinds_are_seen_often():
    nuclei = [some_nuclei(seed=seed) for seed in range(16)]
    nuclei += [some_nuclei(kind="histology", seed=seed) for seed in range(4)]
    nuclei += [some_nuclei((128, 128), "bright-field")]
    train = list(range(1, 21))
    copies = copies_of_each(nuclei, train, 10, 64)
    assert copies[0] == 0  # held out
    assert sum(copies) == pytest.approx(200, rel=0.05)
    sums = sum(copies[:16]), sum(copies[16:20]), copies[20]
    assert sums[1] == pytest.approx(sums[0] * 2 / 15**0.5, rel=0.1)
    assert sums[2] == pytest.approx(sums[0] / 15**0.5, rel=0.1)
    assert copies_of_each(nuclei, train, 0, 64) == [0] * 21
    larger = copies_of_each([some_nuclei((64, 64)), some_nuclei((256, 256))], [0, 1], 20, 64)
    assert larger[1] == 4 * larger[0]  # sixteen windows


def test_squeezed_images_are_whole_and_their_labels_whole_numbers():
    one = some_nuclei((64, 96))
    small = squeezed(one, 32)
    assert small.image.shape == (32, 32, 3)
    assert (small.labels.shape, small.labels.dtype) == ((32, 32), np.uint16)
    assert set(np.unique(small.labels)) == set(np.unique(one.labels))
    assert small.levels == RAW
    assert np.array_equal(squeeze(np.full((50, 30, 3), 77, np.uint8), 16), np.full((16, 16, 3), 77, np.uint8))


# ----------------------------------------------------------------------------------------------- step 1 and 2


def test_augment_writes_windows_first_and_never_copies_the_holdout(nuclei_folder, tmp_path):
    manifest = augment(nuclei_folder, tmp_path, copies=3, workers=1, options=WindowOptions(side=64))
    on_disk = json.loads((tmp_path / "augmented" / "manifest.json").read_text())
    assert {key: on_disk[key] for key in manifest} == json.loads(json.dumps(manifest))
    images, labels = (tifffile.imread(tmp_path / "augmented" / f"{name}.tif") for name in ("images", "labels"))
    assert images.shape == tuple(manifest["shape"]) == (*labels.shape, 3)
    assert labels.dtype == np.uint16
    names = [image["name"] for image in manifest["images"]]
    assert names == ["brig0", "brig1", "fluo0", "fluo1", "fluo2", "fluo3", "hist0", "hist1"]
    held_out = {names[number][:4] for number in manifest["split"]["holdout"]}
    assert held_out == {"brig", "fluo", "hist"}  # one of each kind
    originals = [sample for sample in on_disk["samples"] if not sample["operations"]]
    assert [sample["page"] for sample in originals] == list(range(len(originals)))
    assert {sample["name"] for sample in originals} == set(names)
    copies = on_disk["samples"][len(originals):]
    assert {sample["source"] for sample in copies} == set(manifest["split"]["train"])
    assert len(copies) == sum(image["copies"] for image in manifest["images"])
    image, labels_0 = draw_nuclei((64, 64))
    first = next(sample for sample in originals if sample["name"] == "fluo0")
    assert np.array_equal(images[first["page"]], image)
    assert np.array_equal(labels[first["page"]] > 0, labels_0 > 0)
    # the manifest's seed makes the sample again
    sample = copies[5]
    image, labels_5 = read_back(nuclei_folder, sample["name"])
    one = Nuclei(sample["name"], image, labels_5, "", manifest["images"][sample["source"]]["levels"])
    again = augment_window(one, labels_5, np.random.default_rng(sample["seed"]), WindowOptions(side=64))
    assert np.array_equal(again[0], images[sample["page"]])
    assert again[2] == sample["operations"]


def read_back(folder, name):
    one = read_source(next(source for source in find_sources(folder) if source.name == name))
    return one.image, one.labels


def test_same_seed_same_bytes_for_any_number_of_workers(nuclei_folder, tmp_path):
    for name, workers, seed in (("a", 1, 3), ("b", 2, 3), ("c", 1, 4)):
        augment(nuclei_folder, tmp_path / name, 2, seed=seed, workers=workers, options=WindowOptions(side=64))
    a, b, c = ([hashlib.sha256((tmp_path / name / "augmented" / file).read_bytes()).digest()
                for file in ("images.tif", "labels.tif", "manifest.json")] for name in "abc")
    assert a == b
    assert a[0] != c[0]


def test_touching_nuclei_come_apart_by_hand():
    labels = np.array([[1, 1, 2, 2, 0], [1, 1, 0, 2, 0], [0, 0, 0, 0, 3], [0, 4, 4, 0, 0]], np.uint16)
    assert separated(labels).astype(int).tolist() == [[1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0],
                                                      [0, 1, 1, 0, 0]]
    assert not separated(np.zeros((3, 3), np.uint16)).any()
    assert separated(np.full((3, 3), 7, np.uint16)).all()


def test_tiles_are_windows_at_their_images_levels(nuclei_folder, tmp_path):
    manifest = augment(nuclei_folder, tmp_path, copies=1, workers=1, options=WindowOptions(side=64))
    geometry = preprocess(tmp_path)
    assert (geometry["kind"], geometry["channels"], geometry["tile"], geometry["margin"]) == ("nuclei", 3, 64, 0)
    assert (geometry["weights"], geometry["normalisation"]) == ("border", NUCLEI_NORMALISATION)
    assert fresh_geometry(tmp_path) == json.loads(json.dumps(geometry))
    arrays = {path.stem: np.load(path) for path in (tmp_path / "patches").glob("*.npy")}
    assert arrays["train-images"].shape == (geometry["counts"]["train"], 64, 64, 3)
    assert set(arrays["holdout-sources"]) == set(manifest["split"]["holdout"])
    assert set(arrays["train-sources"]) == set(manifest["split"]["train"])
    number = next(n for n in manifest["split"]["train"] if manifest["images"][n]["name"].startswith("brig"))
    one = manifest["images"][number]
    image, labels = read_back(nuclei_folder, one["name"])
    y, x = window_corners(image.shape[:2], 64)[0]
    window, part = stretch(image, one["levels"])[y:y + 64, x:x + 64], labels[y:y + 64, x:x + 64]
    place = next(place for place, tile in enumerate(arrays["train-images"]) if np.array_equal(tile, window))
    target = separated(part)
    assert np.array_equal(arrays["train-labels"][place], target)
    expected = weight_map(np.where(target, part, 0), "border", geometry["cell_share"])
    assert np.array_equal(arrays["train-weights"][place], expected.astype(np.float16))
    assert arrays["train-weights"][place].max() > 8  # between the two that touch


def test_squeezed_images_are_the_recipes_own(nuclei_folder, tmp_path):
    manifest = augment(nuclei_folder, tmp_path, workers=1, resize=32)
    assert manifest["shape"] == [8, 32, 32, 3]  # as they are, without copies
    geometry = preprocess(tmp_path)
    assert (geometry["weights"], geometry["normalisation"]) == ("none", {"mean": 0.0, "sd": 255.0})
    images, labels = (tifffile.imread(tmp_path / "augmented" / f"{name}.tif") for name in ("images", "labels"))
    tiles = np.load(tmp_path / "patches" / "train-images.npy")
    assert {tile.tobytes() for tile in tiles} == {images[n].tobytes() for n in manifest["split"]["train"]}
    targets = np.load(tmp_path / "patches" / "train-labels.npy")
    assert targets.sum() == (labels[manifest["split"]["train"]] > 0).sum()


def test_a_published_networks_tiles_fit_larger_windows(nuclei_folder, tmp_path):
    augment(nuclei_folder, tmp_path, copies=1, workers=1, options=WindowOptions(side=80))
    geometry = preprocess(tmp_path, Tiling(80, 20, valid=True))
    assert np.load(tmp_path / "patches" / "train-labels.npy").shape == (geometry["counts"]["train"], 40, 40)


def test_wrong_input_is_refused(nuclei_folder, tiny_folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--resize squeezes"):
        augment(tiny_folder, tmp_path, resize=32)
    with pytest.raises(UserError, match="0 labelled images' names"):
        augment(nuclei_folder, tmp_path, holdout="25-29")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="--window is for"):
        patch.setattr("sys.argv", ["augmentation.py", "--data", str(tiny_folder), "--window", "64"])
        augmentation.main()
    augment(nuclei_folder, tmp_path, copies=0, workers=1, options=WindowOptions(side=64))
    with pytest.raises(UserError, match=r"do not fit the windows of 64.*augmentation\.py --window 572"):
        preprocess(tmp_path, PRESETS["paper"])
    next((nuclei_folder / "fluo1" / "masks").iterdir()).unlink()
    with pytest.raises(UserError, match=r"fluo1 is gone or changed"):
        preprocess(tmp_path)


def test_images_without_any_nucleus_are_nothing_to_learn_from(tmp_path):
    write_nuclei(tmp_path / "d", "a", np.full((40, 40), 9, np.uint8), np.ones((40, 40), np.uint16))
    augment(tmp_path / "d", tmp_path, copies=0, workers=1, options=WindowOptions(side=32))
    with pytest.raises(UserError, match="no background"):
        preprocess(tmp_path)
