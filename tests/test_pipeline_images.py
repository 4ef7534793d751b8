"""The three steps and the final one on images/ and labels/ of any sizes, grey and coloured, for each task."""

import json

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, draw_slices, write_two_folders

SIZES = [(64, 64), (90, 70), (64, 96), (64, 64)]


def cells():
    pairs = draw_slices(SIZES)
    for name in ("cell1", "cell2"):  # coloured: membranes are brown
        image, label = pairs[name]
        pairs[name] = np.stack([image, image // 2, image // 3], axis=-1), label
    return pairs


def classes():
    rng, pairs = np.random.default_rng(0), {}
    colours = np.array([[40, 40, 40], [200, 60, 60], [60, 60, 200]])
    for number, (height, width) in enumerate(SIZES):
        label = np.kron(rng.integers(0, 3, (6, 6)), np.ones((16, 16), int)).astype(np.uint8)[:height, :width]
        pairs[f"tile{number}"] = (colours[label] + rng.integers(0, 20, (*label.shape, 3))).astype(np.uint8), label
    return pairs


def nuclei():
    return {f"nuclei{number}": draw_nuclei(size, seed=number) for number, size in enumerate(SIZES)}


BOTH = ("new.tif", "new-labels.tif")


@pytest.mark.parametrize(("make", "options", "expected"), [
    (cells, (), ("cells of images", BOTH, lambda scores: scores["probability"]["best"])),
    pytest.param(classes, ("--classes", 3), ("classes of images", BOTH[:1],
                                             lambda scores: scores["mean"]["iou"] > 0.5), marks=pytest.mark.slow),
    pytest.param(nuclei, (), ("nuclei", BOTH, lambda scores: scores["all"]["mean"] > 0), marks=pytest.mark.slow)])
def test_images_and_labels_go_through_all_steps(command, tmp_path, make, options, expected):
    pairs, (task, written, score) = make(), expected
    last = list(pairs)[-1]
    news = {"new": pairs.pop(last)[0]}
    data, said = write_two_folders(tmp_path / "data", pairs, news), ""
    for name, *words in (("augmentation.py", "--data", data, "--window", 64, "--copies", 4, "--workers", 1, *options),
                         ("preprocessing.py",),
                         ("train.py", "--preset", "fast", "--epochs", 2, "--steps", 30, "--batch", 4, "--filters", 8,
                          "--depth", 2, "--lr", "1e-2", "--precision", "float32")):
        done = command(name, *words)
        assert done.returncode == 0, done.stderr
        said = said or done.stdout
    assert f"note: labels are taken as {task.split()[0]}; if they are something else, use --task" in said
    manifest = json.loads((tmp_path / "results" / "augmented" / "manifest.json").read_text())
    assert (manifest["layout"], manifest["task"]["name"]) == ("two folders", task)
    held_out = manifest["sources"][manifest["split"]["holdout"][0]]["name"]
    folder = tmp_path / "prediction"
    assert {path.name for path in folder.iterdir()} == {*written, *(name.replace("new", held_out) for name in written)}
    shape = news["new"].shape[:2]
    prediction = tifffile.imread(folder / "new.tif")
    assert (prediction.shape, prediction.dtype) == ((3, *shape) if options else shape, np.float32)
    assert np.ptp(prediction) > 0.2
    assert score(json.loads((tmp_path / "results" / "metrics.json").read_text()))
    again = command("predict.py", data, "--out", "again", "--precision", "float32", "--engine",
                    "tensorflow")
    assert again.returncode == 0, again.stderr
    np.testing.assert_allclose(tifffile.imread(tmp_path / "again" / "new.tif"), prediction, atol=1e-6)
    refused = command("predict.py", data, "--cells", "cells.tif")
    assert (refused.returncode, "--cells and --walls are for stacks" in refused.stderr) == (2, True)
