"""Augmentation: geometry moves image and label together, intensity touches the image alone, seeds give bytes."""

import hashlib
import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from augmentation import (
    CORNERS,
    FLIPS,
    Options,
    augment,
    augment_pair,
    augmented_pairs,
    brightness,
    crop,
    crop_corner,
    elastic_field,
    flip,
    gaussian_noise,
    symmetric_pad,
    turn_field,
    uniform_noise,
    warp,
)
from utils import UserError

SHAPES = st.tuples(st.integers(8, 70), st.integers(8, 70))


def two_cells(shape):
    """A label of both classes: a membrane down the middle, or across it."""
    label = np.full(shape, 255, np.uint8)
    label[:, shape[1] // 2 - 1:shape[1] // 2 + 2] = 0
    label[shape[0] // 3] = 0
    return label


def test_flips_by_hand():
    image = np.array([[1, 2], [3, 4]])
    assert flip(image, "none").tolist() == [[1, 2], [3, 4]]
    assert flip(image, "vertical").tolist() == [[3, 4], [1, 2]]
    assert flip(image, "horizontal").tolist() == [[2, 1], [4, 3]]
    assert flip(image, "both").tolist() == [[4, 3], [2, 1]]
    with pytest.raises(ValueError, match="sideways"):
        flip(image, "sideways")


def test_brightness_and_noise_are_clipped_not_wrapped(rng):
    image = np.array([[0, 5, 128, 250, 255]], np.uint8)
    assert brightness(image, 10).tolist() == [[10, 15, 138, 255, 255]]
    assert brightness(image, -10).tolist() == [[0, 0, 118, 240, 245]]
    ends = np.repeat(np.array([[0], [255]], np.uint8), 4000, axis=1)
    for noisy in (gaussian_noise(ends, 10, rng), uniform_noise(ends, 10, rng)):
        assert noisy[0].max() < 128 < noisy[1].min()
        assert noisy.dtype == np.uint8


@pytest.mark.parametrize("sd", [10, 50, 100])
def test_gaussian_noise_has_the_standard_deviation_asked_for(sd, rng):
    image = np.full((400, 400), 30_000, np.uint16)  # 16 bit: nothing is clipped
    difference = gaussian_noise(image, sd, rng).astype(float) - image
    assert difference.std() == pytest.approx(sd, rel=0.02)
    assert abs(difference.mean()) < sd / 50


@pytest.mark.parametrize("intensity", [10, 50, 100])
def test_uniform_noise_stays_within_its_intensity(intensity, rng):
    difference = uniform_noise(np.full((300, 300), 30_000, np.uint16), intensity, rng).astype(float) - 30_000
    assert abs(difference).max() == intensity
    assert difference.std() == pytest.approx(intensity / 3**0.5, rel=0.02)


@pytest.mark.parametrize(("alpha", "sigma"), [(3, 16), (5, 24), (2, 8)])
def test_elastic_field_has_its_displacement_in_every_place(alpha, sigma):
    fields = np.stack([elastic_field((96, 64), alpha, sigma, np.random.default_rng(seed)) for seed in range(300)])
    assert fields.shape == (300, 2, 96, 64)
    spread = fields.std(axis=0)
    assert spread.mean() == pytest.approx(alpha, rel=0.05)
    assert spread.min() > 0.75 * alpha  # at the edges as in the middle
    step = np.diff(fields, axis=2).std()
    # slope of noise smoothed by a Gaussian of this sigma: alpha / (sqrt 2 sigma) a pixel
    assert step == pytest.approx(alpha / (2**0.5 * sigma), rel=0.1)


def test_default_elastic_deformation_is_visible():
    options = Options()
    field = elastic_field((512, 512), np.mean(options.elastic_alpha), np.mean(options.elastic_sigma),
                          np.random.default_rng(0))
    assert 3 < np.sqrt((field**2).mean()) < 6  # pixels; a membrane is 4 to 8 wide


def test_warp_by_whole_pixels_by_hand():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    field = np.zeros((2, 3, 4), np.float32)
    field[1] = 1  # look one pixel to the right
    assert warp(image, field).tolist() == [[1, 2, 3, 2], [5, 6, 7, 6], [9, 10, 11, 10]]
    assert warp(image, field, order=0).tolist() == warp(image, field).tolist()
    colour = np.stack([image, image + 20, image + 40], axis=-1)
    assert np.array_equal(warp(colour, field)[..., 1], warp(image, field) + 20)


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(st.integers(1, 30), st.integers(1, 30)), reach=st.floats(0, 90), seed=st.integers(0, 2**32))
def test_pixels_are_those_of_map_coordinates(shape, reach, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 5, shape, np.uint8)
    # thirds of a pixel: never half way between two, where either is nearest
    field = (np.rint(rng.uniform(-reach, reach, (2, *shape)) * 3) / 3).astype(np.float32)
    where = field + np.indices(shape)
    assert np.array_equal(warp(label, field, order=0), map_coordinates(label, where, order=0, mode="mirror"))
    image = rng.integers(0, 256, shape, np.uint8)
    if min(shape) > 1:
        difference = warp(image, field).astype(int) - map_coordinates(image, where, order=1, mode="mirror")
        assert np.abs(difference).max() <= 1


def test_turns_and_zooms_by_hand():
    image = np.arange(9, dtype=np.uint8).reshape(3, 3) * 10
    assert warp(image, turn_field((3, 3), 0, 1)).tolist() == image.tolist()
    assert warp(image, turn_field((3, 3), 90, 1)).tolist() in (np.rot90(image).tolist(), np.rot90(image, 3).tolist())
    assert warp(image, turn_field((3, 3), 180, 1)).tolist() == image[::-1, ::-1].tolist()
    half = turn_field((5, 5), 0, 2)  # twice as large: a pixel is looked up at half its distance from the middle
    assert half[0, :, 0].tolist() == [1, 0.5, 0, -0.5, -1]


def test_crops_and_pads_by_hand(rng):
    image = np.arange(12).reshape(3, 4)
    corners = {where: crop_corner((3, 4), (2, 2), where) for where in CORNERS}
    assert corners == {"left-bottom": (1, 0), "left-top": (0, 0), "right-bottom": (1, 2), "right-top": (0, 2)}
    assert crop(image, (1, 2), (2, 2)).tolist() == [[6, 7], [10, 11]]
    assert symmetric_pad(np.array([[1, 2]]), (2, 4), (1, 0)).tolist() == [[1, 2, 2, 1], [1, 2, 2, 1]]
    drawn = {crop_corner((3, 4), (2, 2), "random", rng) for _ in range(200)}
    assert drawn == {(y, x) for y in (0, 1) for x in (0, 1, 2)}
    with pytest.raises(ValueError, match="does not fit"):
        crop_corner((3, 4), (5, 2), "left-top")
    with pytest.raises(ValueError, match="beyond"):
        symmetric_pad(image, (3, 4), (1, 0))


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32))
def test_every_geometric_operation_keeps_the_label_set_and_moves_both_alike(shape, seed):
    label = two_cells(shape)
    rng = np.random.default_rng(seed)
    field = elastic_field(shape, 4, 12, rng)
    size = (shape[0] // 2 + 1, shape[1] // 2 + 1)
    corner = crop_corner(shape, size, "random", rng)
    for how in FLIPS:
        assert set(np.unique(flip(label, how))) == {0, 255}
    nearest, linear = warp(label, field, order=0), warp(label, field)
    assert set(np.unique(nearest)) <= {0, 255}
    # as if it were an image: the two differ only where linear interpolation runs between 0 and 255
    assert np.array_equal(nearest[(linear == 0) | (linear == 255)], linear[(linear == 0) | (linear == 255)])
    padded = symmetric_pad(crop(label, corner, size), shape, corner)
    assert padded.shape == shape
    assert set(np.unique(padded)) <= {0, 255}
    assert np.array_equal(crop(padded, corner, size), crop(label, corner, size))


@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32))
def test_a_pair_stays_aligned_and_its_label_two_valued(shape, seed):
    """The label goes in as the image as well: wherever no operation of intensity reaches, both must come out alike."""
    label = two_cells(shape)
    quiet = Options(turn_probability=0.5, elastic_probability=1, crop_probability=0.5, brightness=0,
                    noise_probability=0)
    image, moved, done = augment_pair(label, label, np.random.default_rng(seed), quiet)
    assert image.shape == moved.shape == shape
    assert set(np.unique(moved)) <= {0, 255}
    assert {"flip", "elastic"} <= {step["operation"] for step in done}
    # away from the edges, where linear interpolation mixes the two values, image and label are the same
    pure = (image == 0) | (image == 255)
    assert np.array_equal(image[pure], moved[pure])


def test_two_draws_would_be_noticed():
    """The check above can fail: deformed by two fields, image and label differ where they are pure."""
    label = two_cells((64, 64))
    image, moved = (warp(label, elastic_field((64, 64), 4, 16, np.random.default_rng(seed)), order)
                    for seed, order in ((1, 1), (2, 0)))
    pure = (image == 0) | (image == 255)
    assert not np.array_equal(image[pure], moved[pure])


def test_noise_and_brightness_leave_the_label_alone():
    image, label = np.full((64, 64), 128, np.uint8), two_cells((64, 64))
    loud = Options(turn_probability=0, elastic_probability=0, crop_probability=0, noise_probability=1,
                   gaussian_sd=(100, 100), uniform_intensity=(100, 100))
    for seed in range(6):
        changed, moved, done = augment_pair(image, label, np.random.default_rng(seed), loud)
        assert np.array_equal(moved, flip(label, done[0]["how"]))
        assert changed.std() > 20


def test_same_pairs_for_one_and_four_workers(rng):
    images = rng.integers(0, 255, (3, 48, 40), np.uint8)
    labels = np.stack([two_cells((48, 40))] * 3)
    tasks = [(source, copy) for copy in (1, 2, 3) for source in range(3)]
    alone, many = (list(augmented_pairs(images, labels, tasks, 7, workers, Options())) for workers in (1, 4))
    assert len(alone) == len(many) == 9
    for (image, label, done), (image4, label4, done4) in zip(alone, many, strict=True):
        assert np.array_equal(image, image4)
        assert np.array_equal(label, label4)
        assert done == done4


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_augment_writes_originals_first_and_never_copies_the_holdout(tiny_folder, tmp_path):
    manifest = augment(tiny_folder, tmp_path / "work", copies=2, holdout="4-5", workers=1)
    folder = tmp_path / "work" / "augmented"
    images, labels = tifffile.imread(folder / "images.tif"), tifffile.imread(folder / "labels.tif")
    volume = tifffile.imread(tiny_folder / "train-volume.tif")
    assert images.shape == labels.shape == (6 + 4 * 2, *volume.shape[1:])
    assert np.array_equal(images[:6], volume)
    assert set(np.unique(labels)) == {0, 255}
    on_disk = json.loads((folder / "manifest.json").read_text())
    assert {key: on_disk[key] for key in manifest} == json.loads(json.dumps(manifest))
    assert manifest["split"] == {"train": [0, 1, 2, 3], "holdout": [4, 5]}
    copies = on_disk["samples"][6:]
    assert sorted(sample["source"] for sample in copies) == [0, 0, 1, 1, 2, 2, 3, 3]
    # the manifest's seed makes the sample again, byte for byte
    sample = copies[3]
    again, _, done = augment_pair(volume[sample["source"]], labels[sample["source"]],
                                  np.random.default_rng(sample["seed"]), Options())
    assert np.array_equal(again, images[sample["page"]])
    assert done == sample["operations"]


def test_same_seed_same_files_another_seed_others(tiny_folder, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        augment(tiny_folder, tmp_path / name, copies=1, seed=seed, workers=1)
    a, b, c = (digests(tmp_path / name / "augmented") for name in "abc")
    assert a == b
    assert a["images.tif"] != c["images.tif"]


def test_wrong_input_leaves_the_old_folder(tiny_folder, tmp_path):
    work = tmp_path / "work"
    augment(tiny_folder, work, copies=1, workers=1)
    before = digests(work / "augmented")
    with pytest.raises(UserError, match="0 or more"):
        augment(tiny_folder, work, copies=-1)
    with pytest.raises(UserError, match="numbered 0 to 5"):
        augment(tiny_folder, work, holdout="25-29")
    (tiny_folder / "train-labels.tif").write_bytes(b"not a tiff")
    with pytest.raises(UserError, match="not a TIFF"):
        augment(tiny_folder, work, copies=1)
    assert digests(work / "augmented") == before
    assert [path.name for path in work.iterdir()] == ["augmented"]
