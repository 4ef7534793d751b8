"""Augmentation: geometry moves image and label together, intensity touches the image alone, seeds give bytes."""

import hashlib
import json

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, write_nuclei
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.ndimage import map_coordinates

from augmentation import (
    CORNERS,
    FLIPS,
    Settings,
    augment,
    augment_pair,
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
from unet.inputs.stacks import LABELS, VOLUME
from unet.tasks import task_of
from unet.tasks.task import Options
from utils import UserError

SHAPES = st.tuples(st.integers(8, 70), st.integers(8, 70))
STILL = Options(turn_probability=0, elastic_probability=0, crop_probability=0, brightness=0, noise_probability=0)


def two_cells(shape):
    """A label of both classes: a membrane down the middle, and one across it."""
    label = np.full(shape, 255, np.uint8)
    label[:, shape[1] // 2 - 1:shape[1] // 2 + 2] = 0
    label[shape[0] // 3] = 0
    return label


# -------------------------------------------------------------------------------------------- each operation


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


@pytest.mark.parametrize("sd", [10, 100])
def test_gaussian_noise_has_the_standard_deviation_asked_for(sd, rng):
    image = np.full((400, 400), 30_000, np.uint16)  # 16 bit: nothing is clipped
    difference = gaussian_noise(image, sd, rng).astype(float) - image
    assert difference.std() == pytest.approx(sd, rel=0.02)
    assert abs(difference.mean()) < sd / 50


@pytest.mark.parametrize("intensity", [10, 100])
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
    assert_array_equal(warp(image, field, order=0), warp(image, field))
    colour = np.stack([image, image + 20, image + 40], axis=-1)
    assert_array_equal(warp(colour, field)[..., 1], warp(image, field) + 20)


def test_a_field_smaller_than_the_image_puts_out_the_part_at_its_corner():
    image = np.arange(20, dtype=np.uint16).reshape(4, 5) * 1000
    corner = np.array([2, 1], np.float32)[:, None, None]
    assert_array_equal(warp(image, np.zeros((2, 2, 3), np.float32) + corner), image[2:4, 1:4])


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(st.integers(1, 30), st.integers(1, 30)), reach=st.floats(0, 90), seed=st.integers(0, 2**32),
       dtype=st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_pixels_are_those_of_map_coordinates(shape, reach, seed, dtype):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 5, shape, np.uint8)
    # thirds of a pixel: never half way between two, where either is nearest
    field = (np.rint(rng.uniform(-reach, reach, (2, *shape)) * 3) / 3).astype(np.float32)
    where = field + np.indices(shape)
    assert_array_equal(warp(label, field, order=0), map_coordinates(label, where, order=0, mode="mirror"))
    image = rng.integers(0, 256, shape).astype(dtype)
    if min(shape) > 1:
        moved = warp(image, field)
        assert moved.dtype == dtype
        difference = moved.astype(float) - map_coordinates(image.astype(float), where, order=1, mode="mirror")
        assert np.abs(difference).max() <= (0.01 if dtype == np.float32 else 0.51)


def test_turns_and_zooms_by_hand():
    image = np.arange(9, dtype=np.uint8).reshape(3, 3) * 10
    assert_array_equal(warp(image, turn_field((3, 3), 0, 1)), image)
    assert_array_equal(warp(image, turn_field((3, 3), 90, 1)), np.rot90(image, 3))
    # twice as large about the middle: the output's edge looks half way between the middle and the edge
    assert warp(image, turn_field((3, 3), 0, 2))[1].tolist() == [35, 40, 45]


def test_crops_and_padding_by_hand(rng):
    image = np.arange(12).reshape(3, 4)
    corners = {where: crop_corner((3, 4), (2, 2), where) for where in CORNERS}
    assert corners == {"left-bottom": (1, 0), "left-top": (0, 0), "right-bottom": (1, 2), "right-top": (0, 2)}
    assert crop(image, (1, 2), (2, 2)).tolist() == [[6, 7], [10, 11]]
    assert symmetric_pad(np.array([[1, 2]]), (2, 4), (1, 0)).tolist() == [[1, 2, 2, 1], [1, 2, 2, 1]]
    places = {crop_corner((3, 4), (2, 2), "random", rng) for _ in range(200)}
    assert places == {(y, x) for y in (0, 1) for x in (0, 1, 2)}
    with pytest.raises(ValueError, match="does not fit"):
        crop_corner((3, 4), (5, 2), "left-top")
    with pytest.raises(ValueError, match="beyond"):
        symmetric_pad(image, (3, 4), (1, 0))


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32))
def test_every_geometric_operation_keeps_the_label_set(shape, seed):
    label = two_cells(shape)
    rng = np.random.default_rng(seed)
    field = elastic_field(shape, 4, 12, rng)
    size = (shape[0] // 2 + 1, shape[1] // 2 + 1)
    corner = crop_corner(shape, size, "random", rng)
    for how in FLIPS:
        assert set(np.unique(flip(label, how))) == {0, 255}
    assert set(np.unique(warp(label, field, order=0))) <= {0, 255}
    padded = symmetric_pad(crop(label, corner, size), shape, corner)
    assert padded.shape == shape
    assert set(np.unique(padded)) <= {0, 255}
    assert_array_equal(crop(padded, corner, size), crop(label, corner, size))


# -------------------------------------------------------------------------------------------- one draw, both arrays


@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32), crop_probability=st.sampled_from([0.0, 1.0]))
def test_image_and_label_move_by_one_draw(shape, seed, crop_probability):
    """The label goes in as the image as well: wherever linear interpolation mixes nothing, both come out alike."""
    label = two_cells(shape)
    options = Options(turn_probability=1, elastic_probability=1, crop_probability=crop_probability, brightness=0,
                      noise_probability=0)
    image, moved, record = augment_pair(label, label, np.random.default_rng(seed), options)
    assert image.shape == moved.shape == shape
    assert set(np.unique(moved)) <= {0, 255}
    assert [step["operation"] for step in record] == ["flip", "turn and zoom", "elastic",
                                                      *["crop and pad"] * int(crop_probability), "brightness"]
    pure = (image == 0) | (image == 255)
    assert_array_equal(image[pure], moved[pure])


def test_two_draws_would_be_noticed():
    """The check above can fail: deformed by two fields, image and label differ where they are pure."""
    label = two_cells((64, 64))
    image, moved = (warp(label, elastic_field((64, 64), 4, 16, np.random.default_rng(seed)), order)
                    for seed, order in ((1, 1), (2, 0)))
    pure = (image == 0) | (image == 255)
    assert not np.array_equal(image[pure], moved[pure])


def test_the_middle_of_a_pair_with_context_is_the_pair_itself():
    """What lies around the part that is kept comes in by the turn; the part lies where it lay."""
    large = np.random.default_rng(0).integers(0, 256, (60, 70), np.uint8)
    kept = large[20:40, 20:50]
    for seed in range(8):  # all flips
        image, label, record = augment_pair(large, large, np.random.default_rng(seed), STILL, (20, 30))
        assert_array_equal(image, flip(kept, record[0]["how"]))
        assert_array_equal(label, image)
    turned = Options(turn_probability=1, angle=(90, 90), zoom=(1, 1), elastic_probability=0, crop_probability=0,
                     brightness=0, noise_probability=0)
    rng = np.random.default_rng(3)
    image, _, record = augment_pair(large, large, rng, turned, (20, 30))
    full = flip(large, record[0]["how"])  # of 60 x 70 pixels a quarter turn about the middle brings 30 x 20 to 20 x 30
    assert_array_equal(image, np.rot90(full[15:45, 25:45], 3))


def test_noise_and_brightness_leave_the_label_alone():
    image, label = np.full((64, 64), 128, np.uint8), two_cells((64, 64))
    loud = Options(turn_probability=0, elastic_probability=0, crop_probability=0, noise_probability=1,
                   gaussian_sd=(100, 100), uniform_intensity=(100, 100))
    for seed in range(6):
        changed, moved, record = augment_pair(image, label, np.random.default_rng(seed), loud)
        assert_array_equal(moved, flip(label, record[0]["how"]))
        assert changed.std() > 20


# ---------------------------------------------------------------------------------------------------- the step


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_originals_come_first_and_the_holdout_is_never_copied(tiny_folder, tmp_path):
    manifest = augment(tiny_folder, tmp_path / "work", Settings(copies=2, holdout="4-5", workers=1))
    folder = tmp_path / "work" / "augmented"
    images, labels = tifffile.imread(folder / "images.tif"), tifffile.imread(folder / "labels.tif")
    volume = tifffile.imread(tiny_folder / VOLUME)
    assert images.shape == labels.shape == (6 + 4 * 2, *volume.shape[1:])
    assert_array_equal(images[:6], volume)
    assert_array_equal(labels[:6], tifffile.imread(tiny_folder / LABELS))
    assert set(np.unique(labels)) == {0, 255}
    on_disk = json.loads((folder / "manifest.json").read_text())
    assert {key: on_disk[key] for key in manifest} == json.loads(json.dumps(manifest))
    assert manifest["split"] == {"train": [0, 1, 2, 3], "holdout": [4, 5]}
    assert (manifest["layout"], manifest["task"]) == ("stacks", {"name": "cells"})
    assert [page["page"] for page in on_disk["samples"]] == list(range(14))
    copies = on_disk["samples"][6:]
    assert sorted(page["source"] for page in copies) == [0, 0, 1, 1, 2, 2, 3, 3]
    # the manifest's seed makes the page again, byte for byte
    page, task = copies[3], task_of(on_disk)
    source = on_disk["sources"][page["source"]]
    again, _, record = augment_pair(volume[page["source"]], labels[page["source"]], np.random.default_rng(page["seed"]),
                                    task.options, grey_level=task.grey_level(source["levels"]))
    assert_array_equal(again, images[page["page"]])
    assert record == page["operations"]


def test_pages_that_are_read_one_at_a_time_give_the_bytes_of_whole_arrays(tiny_folder, tmp_path):
    """Whether they lie in the file as they are or packed, and in whatever process."""
    volume, drawn = tifffile.imread(tiny_folder / VOLUME).astype(np.uint16) * 201, tifffile.imread(tiny_folder / LABELS)
    made = []
    for number, packing in enumerate((None, "zlib")):
        for name, stack in ((VOLUME, volume), (LABELS, drawn)):
            tifffile.imwrite(tiny_folder / name, stack, photometric="minisblack", compression=packing)
        augment(tiny_folder, tmp_path / "work", Settings(copies=2, workers=1 + number))
        made.append(digests(tmp_path / "work" / "augmented"))
    assert made[0]["images.tif"] == made[1]["images.tif"] and made[0]["labels.tif"] == made[1]["labels.tif"]
    manifest = json.loads((tmp_path / "work" / "augmented" / "manifest.json").read_text())
    images, labels = (tifffile.imread(tmp_path / "work" / "augmented" / f"{name}.tif") for name in ("images", "labels"))
    task = task_of(manifest)
    for page in manifest["samples"][6:]:
        source = page["source"]
        image, label, record = augment_pair(
            volume[source], drawn[source], np.random.default_rng(page["seed"]), task.options,
            grey_level=task.grey_level(manifest["sources"][source]["levels"]))
        assert_array_equal(image, images[page["page"]])
        assert_array_equal(label, labels[page["page"]])
        assert record == page["operations"]


def test_deep_images_keep_their_depth(tiny_folder, tmp_path):
    for dtype in (np.uint16, np.float32):
        volume = tifffile.imread(tiny_folder / VOLUME).astype(dtype) * dtype(200)
        tifffile.imwrite(tiny_folder / VOLUME, volume, photometric="minisblack", metadata={"axes": "ZYX"})
        augment(tiny_folder, tmp_path / "work", Settings(copies=1, workers=1))
        images = tifffile.imread(tmp_path / "work" / "augmented" / "images.tif")
        assert images.dtype == dtype
        assert_array_equal(images[:6], volume)


def test_same_seed_same_bytes_for_any_number_of_workers_another_seed_others(tiny_folder, nuclei_folder, tmp_path):
    for data, more in ((tiny_folder, {}), (nuclei_folder, {"window": 64})):
        files = []
        for workers, seed in ((1, 3), (2, 3), (1, 4)):
            augment(data, tmp_path / "work", Settings(copies=2, seed=seed, workers=workers, **more))
            files.append(digests(tmp_path / "work" / "augmented"))
        assert files[0] == files[1]
        assert files[0]["images.tif"] != files[2]["images.tif"]


def test_wrong_input_leaves_the_old_folder(tiny_folder, tmp_path):
    work = tmp_path / "work"
    augment(tiny_folder, work, Settings(copies=1, workers=1))
    before = digests(work / "augmented")
    with pytest.raises(UserError, match="numbered 0 to 5"):
        augment(tiny_folder, work, Settings(holdout="25-29"))
    (tiny_folder / LABELS).write_bytes(b"not a tiff")
    with pytest.raises(UserError, match="not a TIFF"):
        augment(tiny_folder, work, Settings(copies=1))
    assert digests(work / "augmented") == before
    assert [path.name for path in work.iterdir()] == ["augmented"]


def test_nuclei_are_read_once_and_what_was_noticed_is_said_once(tmp_path, capsys):
    image, labels = draw_nuclei((64, 64))
    for name in ("a", "b"):
        write_nuclei(tmp_path / "bowl", name, image, labels)
    mask = tmp_path / "bowl" / "a" / "masks" / "nucleus1.png"
    for twin in ("x", "y"):  # two more of the first nucleus: of three, two have no pixel left
        mask.with_name(f"{twin}.png").write_bytes(mask.read_bytes())
    augment(tmp_path / "bowl", tmp_path, Settings(copies=1, workers=1, window=64))
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert notes == [f"note: masks overlap in 1 image (a): {(labels == 1).sum()} pixels went to the smaller object",
                     "note: 2 objects are completely covered by others and left out, for instance a"]


def test_the_command_says_what_it_made_and_refuses_in_one_line(command, tiny_folder, nuclei_folder):
    made = command("augmentation.py", "--data", tiny_folder, "--copies", 2, "--workers", 1, "--holdout", "3,5")
    assert made.stdout.splitlines()[-1] == "results/augmented: 4 slices to train on; held out: slices 3, 5"
    for data, arguments, reason in (
            (tiny_folder, ("--window", 64), f"--window is not for {tiny_folder}, a folder of TIFF stacks; leave it"),
            (tiny_folder, ("--resize", 64), f"--resize is not for {tiny_folder}, a folder of TIFF stacks; leave it"),
            (nuclei_folder, ("--classes", 3), f"--classes is not for {nuclei_folder}, a folder of images with masks;"),
            (nuclei_folder, ("--window", 64, "--resize", 64), "not allowed with argument --window"),
            (tiny_folder, ("--copies", -1), "-1 is not a number of 0 or more")):
        refused = command("augmentation.py", "--data", data, *arguments)
        assert refused.returncode == 2
        assert reason in refused.stderr.splitlines()[-1]
