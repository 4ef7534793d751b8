"""Slices: padding does not count, each keeps its own grey levels from its own depth, the last judge."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from conftest import draw_stacks, write_stacks
from numpy.testing import assert_array_equal

from augmentation import Settings, augment
from preprocessing import Tiling, preprocess
from unet.inputs.layouts import StackSamples, layout_of
from unet.inputs.samples import Sample
from unet.inputs.stacks import TEST, VOLUME
from unet.tasks.cells import Cells
from unet.tasks.classes import Classes
from unet.tasks.stacks import padding
from unet.tasks.task import Outputs, Prediction
from utils import UserError

CELLS = Cells()


def seen(image):
    """What the network sees of a whole slice."""
    return CELLS.normalise(image, CELLS.levels(image))


# ------------------------------------------------------------------------------------------ the normalisation


def test_any_contrast_becomes_the_same_picture(rng):
    image = rng.normal(120, 20, (80, 90)).clip(1, 254).astype(np.uint8)
    normal = seen(image)
    assert (normal.dtype, normal.mean(), normal.std()) == (np.uint8, pytest.approx(128, abs=0.5),
                                                           pytest.approx(40, rel=0.02))
    darker = (image * 0.5 + 10).astype(np.float32)
    assert np.abs(seen(darker).astype(int) - normal)[(normal > 30) & (normal < 226)].max() <= 1
    assert (seen(np.full((4, 5), 7, np.uint8)) == 128).all()
    assert (seen(np.full((4, 5), 0.1, np.float32)) == 128).all()


@pytest.mark.parametrize("fill", [0, 255])
def test_padding_does_not_count(fill, rng):
    """31 % of black once moved tissue from 128±40 to 152±21."""
    tissue = rng.normal(120, 30, (100, 100)).clip(1, 254).astype(np.uint8)
    padded = np.pad(tissue, ((0, 0), (20, 25)), constant_values=fill)
    assert padding(padded).mean() == pytest.approx(45 / 145)
    assert CELLS.levels(padded) == CELLS.levels(tissue)
    assert_array_equal(seen(padded)[:, 20:-25], seen(tissue))
    assert (seen(padded)[:, :20] == fill).all()


def test_dark_tissue_is_no_padding(rng):
    image = rng.integers(80, 120, (50, 50), np.uint8)
    image[20:30, 20:30] = 0  # inside: no border
    image[0, :20] = 0  # at the border, .8 % of the slice
    assert not padding(image).any()
    image[0, :] = 0  # 2 %
    assert padding(image).sum() == 50


def test_a_picture_of_two_values_is_no_padding():
    image = np.zeros((50, 50), np.uint8)
    image[10:20, 10:20] = 200
    assert set(np.unique(seen(image))) == {120, 255}  # 8±39.2 becomes 128±40


def test_a_slice_keeps_its_grey_levels_whatever_the_others_have(tmp_path):
    """Of 16 bits: one slice 20 times brighter once left 12 grey levels to the others."""
    images, labels = draw_stacks()
    deep = np.random.default_rng(0).normal(images.astype(float) * 10, 400).clip(1).astype(np.uint16)
    deep[2] *= 20
    write_stacks(tmp_path / "data", deep, labels, deep)
    augment(tmp_path / "data", tmp_path, Settings(copies=1, holdout="5", workers=1))
    pages = tifffile.imread(tmp_path / "augmented" / "images.tif")
    assert pages.dtype == np.uint16
    assert_array_equal(pages[:6], deep)  # no second quantisation
    preprocess(tmp_path, Tiling(64, 0))
    tiles = np.load(tmp_path / "patches" / "train-images.npy")
    assert min(len(np.unique(tile)) for tile in tiles) > 150
    assert_array_equal(seen(deep[2]), seen(deep[2] // 20))


def test_a_hot_pixel_moves_nothing(rng):
    image = rng.normal(3000, 300, (64, 64)).astype(np.uint16)
    hot = image.copy()
    hot[5, 5] = 65535
    assert np.abs(seen(hot).astype(int) - seen(image))[image == hot].max() <= 1


# ------------------------------------------------------------------------------------------------ split and files


@pytest.mark.parametrize(("count", "expected"), [(30, [25, 26, 27, 28, 29]), (12, [10, 11]), (2, [1]), (1, [])])
def test_the_last_slices_judge(tmp_path, count, expected):
    images, labels = draw_stacks(slices=count, size=16)
    layout = layout_of(write_stacks(tmp_path, images, labels, images))
    assert CELLS.split(layout, None, 0) == Classes(3).split(layout, None, 0) == expected
    assert CELLS.split(layout, "none", 0) == []
    with pytest.raises(UserError, match="holds out all"):
        CELLS.split(layout, f"0-{count - 1}", 0)


class Listed(list):
    """Samples of pixels whose size is not known."""

    voxel, names = None, ()


def one_of(shape, classes=1, seed=0):
    """A prediction with other numbers in each of its maps."""
    rng = np.random.default_rng(seed)
    probability = rng.random(shape + (classes,) * (classes > 1)).astype(np.float32)
    sample, objects = Sample("slice", np.zeros(shape, np.uint8)), rng.integers(0, 99, shape)
    return Prediction(sample, probability, probability / 2, objects)


@pytest.mark.parametrize("classes", [1, 3])
def test_predictions_become_imagej_stacks(tmp_path, classes):
    task = Classes(classes) if classes > 1 else CELLS
    outputs = Outputs(*(tmp_path / name for name in ("a.tif", "b.tif", "c.tif")))
    samples = Listed([Sample("slice", np.zeros((5, 7), np.uint8))] * 2)
    pages = [one_of((5, 7), classes, seed) for seed in range(2)]
    with task.writer(outputs, samples) as write:
        for page in pages:
            write(page)
            assert not outputs.out.exists()  # not in its place before it is whole
    for path, name in zip(task.files(outputs, []), ("probability", "objects", "redrawn"), strict=True):
        with tifffile.TiffFile(path) as tiff:
            assert tiff.is_imagej
            stack = tiff.asarray()
        expected = np.stack([getattr(page, name) for page in pages])
        assert stack.dtype == (np.uint16 if name == "objects" else np.float32)
        assert_array_equal(stack, np.moveaxis(expected, -1, 1) if expected.ndim == 4 else expected)


def test_a_stack_that_breaks_off_leaves_the_old_one(tmp_path):
    outputs = CELLS.outputs(tmp_path / "prediction.tif")
    for path in CELLS.files(outputs, []):
        path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), CELLS.writer(outputs, Listed([Sample("", np.zeros((5, 7)))] * 2)) as write:
        write(one_of((5, 7)))
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"prediction.tif": b"old",
                                                                            "cells.tif": b"old"}


def test_what_cannot_be_predicted_or_written_is_said_before(tmp_path, tiny_folder):
    with pytest.raises(UserError, match="has no PNG, JPEG or TIFF image"):
        CELLS.inputs(tmp_path)
    with pytest.raises(UserError, match=r"x\.tif not found; name the stack to segment"):
        CELLS.inputs(tmp_path / "x.tif")
    samples, outputs = CELLS.inputs(tiny_folder / TEST), CELLS.outputs(tmp_path / "prediction.tif")
    assert (len(samples), samples[1].name, samples[1].label) == (6, "slice 1", None)
    CELLS.check_outputs(outputs, samples)
    for wrong, reason in (
            (replace(outputs, out=tmp_path), "is a folder around an input and would be replaced"),
            (replace(outputs, objects=tiny_folder), "is a folder around an input and would be replaced"),
            (replace(outputs, out=tmp_path / "a.png"), r"a\.png: predictions are not written as \.png"),
            (replace(outputs, objects=outputs.out), "prediction.tif is named for two outputs"),
            (replace(outputs, out=tiny_folder / TEST), "test-volume.tif is an input and would be replaced")):
        with pytest.raises(UserError, match=reason):
            CELLS.check_outputs(wrong, samples)
    with pytest.raises(UserError, match=r"train-volume\.tif is an input"):  # nor what the network learnt from
        CELLS.check_outputs(replace(outputs, out=tiny_folder / VOLUME), layout_of(tiny_folder).to_predict())


def test_a_test_stack_is_known_by_its_bytes(tiny_folder):
    layout = layout_of(tiny_folder)
    before = layout.hash_to_predict()
    assert json.loads(json.dumps(layout.hashes())) == layout.hashes()
    (tiny_folder / TEST).write_bytes((tiny_folder / VOLUME).read_bytes())
    assert layout.hash_to_predict() != before
    assert isinstance(layout.to_predict(), StackSamples)
