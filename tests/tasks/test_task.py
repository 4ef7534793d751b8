"""What every task has to hold: the same questions in the same order, found again by its name, no draw undone."""

import ast
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_stacks
from numpy.testing import assert_array_equal

from augmentation import augment_pair, crop, elastic_field, flip, symmetric_pad, turn_field, warp
from unet.inputs.layouts import layout_of
from unet.inputs.samples import Sample
from unet.tasks import TASKS, choose_task, task_of
from unet.tasks.cells import Cells
from unet.tasks.classes import Classes
from unet.tasks.images import ImageFiles
from unet.tasks.nuclei import Nuclei
from unet.tasks.of_images import ColourImages
from unet.tasks.task import Options, Outputs, Prediction, Task, checked_objects, separates
from utils import UserError

EVERY = (Cells(), Classes(3), Nuclei(), Nuclei(window_side=64), Nuclei(resize=32))


def methods(kind):
    """Names of a class's own methods in the order of its source, private ones left out."""
    [tree] = ast.parse(inspect.getsource(kind)).body
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def test_tasks_answer_the_same_questions_in_the_same_order():
    asked = methods(Task)
    for task in (Cells, Cells.__mro__[1], Classes, Nuclei, ImageFiles, ColourImages):
        answered = [name for name in methods(task) if name in asked]
        assert answered == sorted(answered, key=asked.index), task
        extra = set(methods(task)) - set(asked) - set(Task.__annotations__)
        assert extra <= {"side", "stacks"}, task  # of windows; of slices, for chunks of them


@pytest.mark.parametrize("task", EVERY, ids=str)
def test_a_task_comes_back_from_json(task):
    assert task_of(json.loads(json.dumps({"task": task.settings()}))) == task
    assert TASKS[task.name] is type(task)
    assert task.default_weights in task.weights


def test_the_layout_and_what_was_asked_for_choose_the_task(tiny_folder, nuclei_folder):
    stacks, folders = layout_of(tiny_folder), layout_of(nuclei_folder)
    assert choose_task(stacks, classes=None, window_side=None, resize=None) == Cells()
    assert choose_task(stacks, classes=3) == Classes(3)
    assert choose_task(folders) == Nuclei()
    assert choose_task(folders, resize=32) == Nuclei(resize=32)
    for layout, settings, reason in (
            (stacks, {"window_side": 64}, f"--window is not for {tiny_folder}, a folder of TIFF stacks; leave it out"),
            (stacks, {"classes": 3, "resize": 9}, f"--resize is not for {tiny_folder}, a folder of TIFF stacks; leave "
                                                  "it out"),
            (folders, {"classes": 3}, f"--classes is not for {nuclei_folder}, a folder of images with masks; leave it "
                                      "out")):
        with pytest.raises(UserError) as error:
            choose_task(layout, **settings)
        assert str(error.value) == reason


# --------------------------------------------------------------------------- what the network sees of what is drawn


GREY = np.random.default_rng(0).normal(110, 35, (64, 64, 1)).clip(0, 255).astype(np.uint8).repeat(3, axis=2)
IMAGES = {
    "cells": (Cells(), draw_stacks(slices=1)[0][0]),
    "cells, 16 bit": (Cells(), draw_stacks(slices=1)[0][0].astype(np.uint16) * 150 + 5000),
    "cells, float": (Cells(), (draw_stacks(slices=1)[0][0] / 1000).astype(np.float32)),
    "nuclei": (Nuclei(), GREY),
    "nuclei, squeezed": (Nuclei(resize=64), GREY),
}


def drawn(name, seed, **options):
    """What the network sees of an image, of its augmented copy, the last thing that was drawn, and the copy's step."""
    task, image = IMAGES[name]
    still = {"turn_probability": 0, "elastic_probability": 0, "crop_probability": 0, "brightness": 0,
             "noise_probability": 0}
    levels, rng = task.levels(image), np.random.default_rng(seed)
    copy, _, record = augment_pair(image, image[..., 0] if image.ndim == 3 else image, rng,
                                   Options(**{**still, **options}), grey_level=task.grey_level(levels))
    before, after = (task.normalise(array, levels) for array in (flip(image, record[0]["how"]), copy))
    step = 1.5 / task.grey_level(levels) if image.dtype == np.uint8 else 1.5  # the image's own levels are coarser
    return before.astype(float), after.astype(float), record, step


@pytest.mark.parametrize("name", IMAGES)
def test_brightness_moves_what_the_network_sees_by_what_was_drawn(name):
    largest = 0.0
    for seed in range(8):
        before, after, record, step = drawn(name, seed, brightness=15)
        shift, inside = record[-1]["shift"], (before > 40) & (before < 215)
        assert np.abs(after - before - shift)[inside].max() <= step
        largest = max(largest, abs(shift))
    assert largest > 10


@pytest.mark.parametrize("name", IMAGES)
def test_noise_reaches_the_network_as_it_was_drawn(name):
    seen = set()
    for seed in range(8):
        before, after, record, _ = drawn(name, seed, noise_probability=1, gaussian_sd=(6, 6),
                                         uniform_intensity=(10, 10))
        difference = (after - before)[(before > 40) & (before < 215)]
        if record[-1]["operation"] == "gaussian noise":
            assert record[-1]["sd"] == 6
            assert difference.std() == pytest.approx(6, rel=0.12)
        else:
            assert record[-1]["intensity"] == 10
            assert difference.std() == pytest.approx(10 / 3**0.5, rel=0.12)
        seen.add(record[-1]["operation"])
    assert seen == {"gaussian noise", "uniform noise"}


@pytest.mark.parametrize("name", IMAGES)
def test_geometry_moves_what_the_network_sees_as_it_moves_the_image(name):
    shape = IMAGES[name][1].shape[:2]
    before, after, _, _ = drawn(name, 1)  # flips alone
    assert_array_equal(after, before)
    before, after, record, _ = drawn(name, 2, crop_probability=1)
    place, size = record[1]["corner"], record[1]["size"]
    assert_array_equal(after, symmetric_pad(crop(before, place, size), shape, place))
    before, after, record, step = drawn(name, 3, turn_probability=1)
    expected = warp(before.astype(np.float32), turn_field(shape, record[1]["angle"], record[1]["zoom"]))
    assert np.quantile(np.abs(after - expected), 0.9) <= step  # but for pixels beside clipped ones
    before, after, record, step = drawn(name, 4, elastic_probability=1)
    rng = np.random.default_rng(4)  # what augment_pair drew from it before the field
    rng.choice(4), rng.random(), rng.random()
    alpha, sigma = rng.uniform(2, 5), rng.uniform(24, 48)
    assert (round(alpha, 3), round(sigma, 3)) == (record[1]["alpha"], record[1]["sigma"])
    expected = warp(before.astype(np.float32), elastic_field(shape, alpha, sigma, rng))
    assert np.quantile(np.abs(after - expected), 0.9) <= step  # but for pixels beside clipped ones
    assert np.abs(after - before).mean() > 2


# -------------------------------------------------------------------------------------------- did it learn


def test_a_right_network_for_a_rare_class_has_learnt_and_a_constant_one_has_not():
    target = np.zeros((200, 200), np.uint8)
    target[7, 3:13] = 1  # .025 % of the pixels
    right = np.where(target, 0.9, 0.01).astype(np.float32)
    assert right.std() < 0.02  # which once was called not learning
    assert separates([right], [target], 1)
    assert not separates([np.full(target.shape, 0.3, np.float32)], [target], 1)
    assert not separates([np.random.default_rng(0).random(target.shape) * 0.1], [target], 1)
    several = np.stack([1 - right, np.zeros_like(right), right], axis=-1)
    assert separates([several], [target * 2], 3)
    assert not separates([np.full((200, 200, 3), 1 / 3)], [target * 2], 3)


def test_nothing_can_be_said_where_the_target_is_of_one_class():
    blank = np.zeros((9, 9), np.uint8)
    assert separates([np.zeros((9, 9))], [blank], 1)
    assert separates([np.zeros((9, 9)), np.eye(9)], [blank, np.eye(9, dtype=np.uint8)], 1)


def test_more_objects_than_16_bits_number_are_refused():
    objects = np.arange(65536).reshape(256, 256)
    judged = Prediction(Sample("slice 3", objects), objects, objects, objects)
    assert checked_objects(judged, Path("cells.tif")).dtype == np.uint16
    with pytest.raises(UserError, match=r"cells\.tif: slice 3 has 65536 objects, and at most 65535 can be"):
        checked_objects(Prediction(Sample("slice 3", objects), objects, objects, objects + 1), Path("cells.tif"))


@pytest.mark.parametrize(("task", "out", "expected"), [
    (Cells(), None, Outputs(Path("prediction.tif"), Path("cells.tif"))),
    (Cells(), Path("a/prediction.tif"), Outputs(Path("a/prediction.tif"), Path("a/cells.tif"))),
    (Cells(), Path("b/x.tif"), Outputs(Path("b/x.tif"), Path("b/x-cells.tif"))),
    (Classes(3), None, Outputs(Path("prediction.tif"))),
    (Nuclei(), None, Outputs(Path("prediction"), Path("prediction"))),
    (Nuclei(), Path("b"), Outputs(Path("b"), Path("b")))])
def test_outputs_have_usual_names(task, out, expected):
    assert task.outputs(out) == expected
