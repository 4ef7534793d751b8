"""Finished runs of each task without a training: the steps make them, and predictions are written without a network."""

import csv
import json

import numpy as np
import pytest
from conftest import draw_nuclei, draw_slices, draw_stacks, write_nuclei, write_stacks, write_two_folders
from scipy import ndimage

from augmentation import Settings, augment
from preprocessing import Tiling, preprocess
from unet.inputs.layouts import Subset, layout_of
from unet.report.run import last_run
from unet.tasks import task_of
from unet.tasks.task import Prediction

RECIPE = {"epochs": 10, "steps": 5, "batch": 4, "optimizer": "muon", "lr": 0.02, "warmup": 0.1, "average": 0.2,
          "intensity": 0.4, "pretrained": "none", "flips": 8, "zooms": [1.0], "walls": True, "look_back": 3, "seed": 7,
          "patience": None, "precision": "float32"}
NETWORK = {"filters": 8, "depth": 2, "padding": "same", "activation": "relu", "dropout": [0, 0, 0.2], "half": False,
           "dropout_between": False, "up": "transpose", "encoder": "", "classes": 1}


def finish(work, data, predict, tiling=None, **settings):
    """Make a run on `data` in `work`, whose predictions are `predict(label or image)`; read and return the run."""
    manifest = augment(data, work, Settings(workers=1, **settings))
    preprocess(work, tiling)
    layout, task, split = layout_of(data), task_of(manifest), manifest["split"]
    outputs = task.outputs(work / task.default_out)

    def write_predictions(samples, learnt, files):
        judged = []
        with task.writer(files, samples) as write:
            for sample in samples:
                probability = predict(task.label(sample.label) if sample.label is not None else sample.image)
                redrawn = task.redraw(probability, learnt)
                judged.append(Prediction(sample, probability, redrawn, task.segment(redrawn, learnt)))
                write(judged[-1])
        return judged

    back = task.lookback_samples(layout, split["train"], RECIPE["look_back"])
    labels = [task.label(layout[number].label) for number in back]
    learnt = {**task.learn([predict(label) for label in labels], labels, True), "on": back}
    holdout = write_predictions(Subset(layout, split["holdout"]), learnt, task.holdout_outputs(work, outputs))
    write_predictions(layout.to_predict(), learnt, outputs)
    config = {"task": manifest["task"], "network": {**NETWORK, "classes": task.classes}, "channels": task.channels,
              "normalisation": task.normalisation, "recipe": RECIPE, "split": split, "parameters": 12345,
              "versions": {"python": "3", "tensorflow": "2", "keras": "3", "numpy": "2"}, "preset": "fast",
              "device": "no GPU found, 2 CPU cores, float32", "data": manifest["data"], "seconds": 9.0,
              "learnt": learnt}
    for name, content in (("config.json", config), ("metrics.json", task.score(holdout, split["holdout"], learnt))):
        (work / name).write_text(json.dumps(content))
    with open(work / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", "learning_rate", "loss"])
        writer.writeheader()
        writer.writerows({"epoch": n, "step": 5 * n, "learning_rate": 0.01, "loss": 1 / n} for n in range(1, 11))
    return last_run(work)


@pytest.fixture(scope="session")
def cells_run(tmp_path_factory):
    """Return a run on six slices of 128 pixels, the last held out; predictions have a gap of ten pixels in a wall."""
    folder = tmp_path_factory.mktemp("cells")
    images, labels = draw_stacks(size=128)

    def predict(array):
        probability = ndimage.gaussian_filter((array > 0).astype(np.float32) if set(np.unique(array)) <= {0, 255} else
                                              (array > 110).astype(np.float32), 1)
        row = int(np.argmin(probability.mean(axis=1)))
        probability[row - 4:row + 5, 10:20] = 1
        return np.clip(probability, 0, 1)

    data = write_stacks(folder / "data", images, labels, draw_stacks(3, 128, seed=1)[0])
    return finish(folder / "results", data, predict, Tiling(64, 8), copies=2)


@pytest.fixture(scope="session")
def classes_run(tmp_path_factory):
    """Return a run on three classes, squares of 16 pixels; the upper left square of each prediction is wrong."""
    folder, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 3, (4, 4, 4)), np.ones((16, 16), int)).astype(np.uint8)

    def predict(array):
        classes = array // 100 if array.max() > 2 else array
        probability = np.eye(3, dtype=np.float32)[classes]
        probability[:16, :16] = probability[:16, :16, [1, 2, 0]]
        return probability

    data = write_stacks(folder / "data", labels * 100, labels, labels[:2] * 100)
    return finish(folder / "results", data, predict, Tiling(48, 8), classes=3, copies=1)


@pytest.fixture(scope="session")
def nuclei_run(tmp_path_factory):
    """Return a run on seven images of three modalities, and one without masks; nuclei at the left edge are missed."""
    folder = tmp_path_factory.mktemp("nuclei")
    sizes = {"fluorescence": [(64, 64), (50, 96), (130, 70)], "histology": [(64, 80)] * 2,
             "bright-field": [(70, 72)] * 2}
    for modality, shapes in sizes.items():
        for number, shape in enumerate(shapes):
            write_nuclei(folder / "bowl", f"{modality[:4]}{number}", *draw_nuclei(shape, modality, number))
    write_nuclei(folder / "bowl", "test0", draw_nuclei((45, 77), seed=9)[0])

    def predict(array):
        probability = (array > 0 if array.ndim == 2 else array[..., 0] > 50).astype(np.float32)
        probability[:, :12] = 0
        return probability

    return finish(folder / "results", folder / "bowl", predict, copies=1, window=64)


@pytest.fixture(scope="session")
def cell_images_run(tmp_path_factory):
    """Return a run on five grey images of cells, of three sizes, and one without a label; predictions are blurred."""
    folder = tmp_path_factory.mktemp("cell-images")
    pairs = draw_slices([(128, 128), (96, 128), (100, 90), (128, 128), (128, 128)])

    def predict(array):
        cell = array[..., 0] > 110 if array.ndim == 3 else array > 0
        return np.clip(ndimage.gaussian_filter(cell.astype(np.float32), 1), 0, 1)

    data = write_two_folders(folder / "data", pairs, {"new": pairs["cell1"][0]})
    return finish(folder / "results", data, predict, copies=2, window=64)


@pytest.fixture(scope="session")
def class_images_run(tmp_path_factory):
    """Return a run on four coloured images of three classes, and one without a label; one square is wrong in each."""
    folder, rng = tmp_path_factory.mktemp("class-images"), np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 3, (5, 4, 4)), np.ones((16, 16), int)).astype(np.uint8)
    colours = np.array([[30, 30, 30], [200, 90, 90], [90, 90, 200]], np.uint8)

    def predict(array):
        classes = (array[..., 0] > 150) + 2 * (array[..., 2] > 150) if array.ndim == 3 else array
        probability = np.eye(3, dtype=np.float32)[classes]
        probability[:16, :16] = probability[:16, :16, [1, 2, 0]]
        return probability

    pairs = {f"tile{number}": (colours[label], label) for number, label in enumerate(labels[:4])}
    data = write_two_folders(folder / "data", pairs, {"new": colours[labels[4]]})
    return finish(folder / "results", data, predict, classes=3, copies=1, window=64)


@pytest.fixture
def runs(cells_run, classes_run, nuclei_run, cell_images_run, class_images_run):
    """Return a run of each task, by the task's name."""
    return {"cells": cells_run, "classes": classes_run, "nuclei": nuclei_run, "cells of images": cell_images_run,
            "classes of images": class_images_run}
