"""The scripts as a user runs them, from a directory that isn't the project's: each task from its data to its scores."""

import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from conftest import call, draw_nuclei, write_bowl, write_png, write_stacks

import augmentation
from augmentation import Settings, augment
from preprocessing import fresh_geometry
from unet.inputs.layouts import layout_of
from unet.inputs.stacks import LABELS
from unet.scores.doubt import read_doubts

TRAIN = ("--batch", 4, "--filters", 8, "--depth", 2, "--precision", "float32")


def last_line(result):
    return result.stderr.strip().splitlines()[-1]


# ------------------------------------------------------------------------------------------------------- cells


def test_three_scripts_make_a_prediction(tiny_run, tmp_path):
    said = {name: (tiny_run / f"{name}.txt").read_text() for name in ("augmentation", "preprocessing", "train")}
    assert said["augmentation"] == ("2 copies of each slice: 16 pairs including the originals, 0.5 MB on disk\n"
                                    "results/augmented: 5 slices to train on; held out: slice 5\n")
    assert "135 tiles to train on, 64x64 pixels with labels of 64x64" in said["preprocessing"]
    assert "hold-out, the network's probability, at the threshold chosen before" in said["train"]
    assert "prediction.tif: probability of cell, mean of 8 flips\n" in said["train"]
    with tifffile.TiffFile(tiny_run / "prediction.tif") as tiff:
        assert tiff.is_imagej
        prediction = tiff.asarray()
    assert (prediction.shape, prediction.dtype) == ((2, 128, 128), np.float32)
    assert 0 <= prediction.min() < prediction.mean() - 0.02
    assert prediction.max() <= 1
    cells = tifffile.imread(tiny_run / "cells.tif")
    assert (cells.shape, cells.dtype) == ((2, 128, 128), np.uint16)
    assert all(np.array_equal(np.unique(one), np.arange(one.max() + 1)) for one in cells)
    assert {path.name for path in (tiny_run / "results").iterdir()} == {
        "augmented", "patches", "checkpoint.npz", "model.keras", "config.json", "history.csv", "metrics.json",
        "holdout.tif", "holdout.png", "curve.png", "finished.json",
        "next.csv"}
    assert all(one.disagreement > 0 for one in read_doubts(tiny_run / "results" / "next.csv"))
    # data/ is as it was
    assert fresh_geometry(tiny_run / "results")["count"] == 135
    finished = json.loads((tiny_run / "results" / "finished.json").read_text())
    assert finished["predicted"]["input"] == layout_of(tiny_run / "demo").hash_to_predict()


def test_the_final_step_alone_gives_the_same(tiny_run, tmp_path):
    again = call(tmp_path, "predict.py", tiny_run / "demo" / "test-volume.tif", "--model",
                 tiny_run / "results" / "model.keras", "--out", "again.tif")
    assert again.returncode == 0, again.stderr
    np.testing.assert_allclose(tifffile.imread(tmp_path / "again.tif"), tifffile.imread(tiny_run / "prediction.tif"),
                               atol=2e-2)  # bfloat16
    scored = call(tmp_path, "metrics.py", tiny_run / "results" / "holdout.tif", tiny_run / "demo" / LABELS, "--slices",
                  "5")
    assert scored.returncode == 0, scored.stderr
    scores = json.loads((tiny_run / "results" / "metrics.json").read_text())["probability"]
    assert f"{scores['best']['V_rand']['V_rand']:.4f}" in scored.stdout


# ------------------------------------------------------------------------------------------------------- nuclei


@pytest.fixture(scope="module")
def nuclei_run(tmp_path_factory):
    """Folder of a finished run on nuclei images: bowl/, results/, prediction/, and what train.py printed."""
    folder = tmp_path_factory.mktemp("nuclei")
    write_bowl(folder / "bowl")
    for command in (("augmentation.py", "--data", "bowl", "--copies", 3, "--workers", 1, "--window", 64),
                    ("preprocessing.py",), ("train.py", "--epochs", 2, "--steps", 30, *TRAIN)):
        done = call(folder, *command)
        assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder, stdout=done.stdout)


def test_the_same_scripts_on_nuclei(nuclei_run, tmp_path):
    work, out = nuclei_run.folder / "results", nuclei_run.folder / "prediction"
    assert "AP@0.50" in nuclei_run.stdout
    held_out = json.loads((work / "config.json").read_text())["split"]["holdout"]
    names = ["test0", *(layout_of(nuclei_run.folder / "bowl").names[number] for number in held_out)]
    assert {path.name for path in out.iterdir()} == {f"{name}{end}" for name in names
                                                     for end in (".tif", "-labels.tif")}
    write_png(tmp_path / "plain" / "x.png", draw_nuclei((45, 77), seed=9)[0])
    again = call(tmp_path, "predict.py", "plain", "--out", "again", "--model", work / "model.keras", "--precision",
                 "float32", "--engine", "tensorflow")
    assert again.returncode == 0, again.stderr
    np.testing.assert_allclose(tifffile.imread(tmp_path / "again" / "x.tif"), tifffile.imread(out / "test0.tif"),
                               atol=1e-6)
    scored = call(tmp_path, "metrics.py", out, nuclei_run.folder / "bowl", "--json", "scores.json")
    assert scored.returncode == 0, scored.stderr
    assert (json.loads((tmp_path / "scores.json").read_text())["all"]["ap"]
            == json.loads((work / "metrics.json").read_text())["all"]["ap"])


@pytest.mark.slow
def test_the_recipe_on_squeezed_images(nuclei_folder, command, tmp_path):
    for words in (("augmentation.py", "--data", nuclei_folder, "--workers", 1, "--resize", 32), ("preprocessing.py",),
                  ("train.py", "--preset", "nuclei", "--epochs", 1, "--steps", 25, "--batch", 4, "--precision",
                   "float32")):
        done = command(*words)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "results" / "config.json").read_text())["parameters"] == 1_941_105
    assert tifffile.imread(tmp_path / "prediction" / "test0.tif").shape == (45, 77)


# ------------------------------------------------------------------------------------------------------- classes


def three_classes(folder):
    """Write 6 slices of 64 x 64: background, discs (1) and squares (2), of different brightness."""
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 64, 64), np.uint8)
    y, x = np.mgrid[:64, :64]
    for label in labels:
        for _ in range(4):
            at = rng.integers(8, 56, 2)
            label[(y - at[0]) ** 2 + (x - at[1]) ** 2 < 60] = 1
            at = rng.integers(8, 56, 2)
            label[at[0] - 6:at[0] + 6, at[1] - 6:at[1] + 6] = 2
    images = np.clip(np.array([60, 130, 200])[labels] + rng.normal(0, 10, labels.shape), 0, 255).astype(np.uint8)
    return write_stacks(folder, images, labels, images[:2])


def test_the_same_scripts_on_three_classes(command, tmp_path):
    data = three_classes(tmp_path / "stacks")
    refused = command("augmentation.py", "--data", data, "--copies", 1)
    assert (refused.returncode, "--classes 3" in refused.stderr) == (2, True)
    for words in (("augmentation.py", "--data", data, "--copies", 2, "--workers", 1, "--classes", 3),
                  ("preprocessing.py", "--tile", 32, "--margin", 8, "--weights", "balance"),  # named once is enough
                  ("train.py", "--preset", "keras", "--epochs", 2, "--steps", 30, "--lr", "1e-2", *TRAIN)):
        done = command(*words)
        assert done.returncode == 0, done.stderr
    assert "class 2" in done.stdout
    assert json.loads((tmp_path / "results" / "metrics.json").read_text())["mean"]["iou"] > 0.5
    with tifffile.TiffFile(tmp_path / "prediction.tif") as tiff:
        assert tiff.series[0].axes == "ZCYX"
        prediction = tiff.asarray()
    assert (prediction.shape, prediction.dtype) == ((2, 3, 64, 64), np.float32)
    np.testing.assert_allclose(prediction.sum(axis=1), 1, atol=1e-3)
    assert np.mean(prediction.argmax(axis=1) == tifffile.imread(data / LABELS)[:2]) > 0.8
    again = command("predict.py", data / "test-volume.tif", "--out", "again.tif", "--cells", "pieces.tif",
                    "--precision", "float32", "--engine", "tensorflow")
    assert again.returncode == 0, again.stderr
    np.testing.assert_allclose(tifffile.imread(tmp_path / "again.tif"), prediction, atol=1e-6)
    assert tifffile.imread(tmp_path / "pieces.tif").max() > 2
    refused = command("predict.py", data / "test-volume.tif", "--walls", "walls.tif")
    assert "results/model.keras draws no walls; leave it out" in last_line(refused)


# ----------------------------------------------------------------------------------------------- what goes wrong


def test_steps_out_of_order_are_one_clear_line(command, tiny_folder):
    for name, advice in (("preprocessing.py", "python augmentation.py"), ("train.py", "python preprocessing.py"),
                         ("augmentation.py", "python datasets.py"), ("predict.py x.tif", "python train.py")):
        result = command(*name.split())
        assert result.returncode == 2
        assert advice in last_line(result)


def test_an_output_that_cannot_be_written_is_refused_before_the_work(command, tiny_folder, tmp_path):
    (tmp_path / "file").write_text("here is no folder")
    result = command("augmentation.py", "--data", tiny_folder, "--work", "file/results", "--copies", 0)
    assert (result.returncode, "--work" in last_line(result)) == (2, True)
    assert command("augmentation.py", "--data", tiny_folder, "--copies", 1, "--workers", 1).returncode == 0
    assert command("preprocessing.py", "--tile", 64, "--margin", 8).returncode == 0
    for out, reason in ((tmp_path, "is a folder"), (tiny_folder / LABELS, "is an input and would be replaced")):
        result = command("train.py", "--out", out)
        assert (result.returncode, reason in last_line(result)) == (2, True)
    assert not (tmp_path / "results" / "model.keras").exists()


@pytest.mark.parametrize("finished", [0, 3])
def test_ctrl_c_while_pairs_are_made_is_one_line_and_leaves_what_is_finished(command, tiny_folder, tmp_path,
                                                                              monkeypatch, finished):
    def stopped(make, jobs, workers):
        yield from map(make, jobs[:finished])
        raise KeyboardInterrupt

    monkeypatch.setattr(augmentation, "in_order", stopped)
    result = command("augmentation.py", "--data", tiny_folder, "--copies", 2)
    assert result.returncode == 130
    assert last_line(result) == "augmentation.py: stopped; " + (
        "3 pairs are finished, and the same command goes on from there" if finished else
        "what was finished before is on disk, nothing is half-written")
    assert (tmp_path / "results").exists() == bool(finished)


def test_many_copies_need_no_more_memory_than_one(tiny_folder, tmp_path):
    peaks = []
    for copies in (1, 100):
        tracemalloc.start()
        augment(tiny_folder, tmp_path, Settings(copies=copies, workers=1))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    pages = 5 * 100 * 64 * 64 * 2  # bytes that were written
    assert peaks[1] - peaks[0] < pages / 8
