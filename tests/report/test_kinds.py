"""Notebook and report on other runs than stacks of cells: nuclei images from a tiny training, classes made by hand."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_nuclei, write_nuclei
from helpers import every_cell_passed
from unet.tasks.crops import WindowOptions

from augmentation import augment
from preprocessing import preprocess
from unet.report import kinds, methods_classes, methods_nuclei, show_classes, show_nuclei
from unet.report.lastrun import StackRun, last_run
from unet.tasks.classes import class_scores
from utils import UserError

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"fluorescence": [(64, 64), (50, 96), (130, 70)], "histology": [(64, 80)] * 2, "bright-field": [(70, 72)] * 2}
TRAIN = ("--epochs", "1", "--steps", "25", "--batch", "4", "--filters", "8", "--depth", "2", "--preset", "keras",
         "--lr", "3e-3")


@pytest.fixture(scope="module")
def nuclei_work(tmp_path_factory):
    """Folder of a finished run on nuclei with its report, made as a user makes them: bowl/, results/, prediction/."""
    folder = tmp_path_factory.mktemp("nuclei")
    for kind, shapes in SIZES.items():
        for number, shape in enumerate(shapes):
            write_nuclei(folder / "bowl", f"{kind[:4]}{number}", *draw_nuclei(shape, kind, number))
    write_nuclei(folder / "bowl", "test0", draw_nuclei((45, 77), seed=9)[0])
    augment(folder / "bowl", folder / "results", copies=1, workers=1, options=WindowOptions(side=64))
    preprocess(folder / "results")
    for name, *arguments in (("train.py", *TRAIN), ("report.py", "--notebook", "executed.ipynb")):
        done = subprocess.run([sys.executable, str(ROOT / name), *arguments], cwd=folder, capture_output=True,
                              text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        (folder / f"{name}.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def nuclei_run(nuclei_work):
    """That run, read."""
    return last_run(nuclei_work / "results", out=nuclei_work / "prediction")


def figures(module, run):
    """All that a kind's module draws of a run, by name."""
    return {name: getattr(module, name)(run) for name in vars(module)
            if name in ("show_images", "show_tiles", "show_weights", "show_scores", "show_errors", "show_worst",
                        "show_instances", "show_prediction")}


def test_every_kind_draws_and_tells_the_same_things(nuclei_run):
    assert kinds.pictures_of(nuclei_run) is show_nuclei
    assert kinds.words_of(nuclei_run) is methods_nuclei
    for modules, names in ((kinds.PICTURES, {"example", *figures(show_nuclei, nuclei_run)}),
                           (kinds.WORDS, {"settings", "scores", "paragraph"})):
        for module in modules.values():
            assert names <= set(vars(module)), module.__name__


def test_every_cell_passes_on_nuclei(nuclei_work):
    every_cell_passed(nuclei_work / "executed.ipynb")


def test_the_report_of_nuclei_has_the_scores_and_whom_to_cite(nuclei_work):
    html = (nuclei_work / "results" / "report.html").read_text()
    for words in ("3 fluorescence, 2 histology, 2 bright-field", "AP at .50", "mean AP", "windows of 64 pixels",
                  "Image by image", "10.1038/s41592-019-0612-7", "For the methods section"):
        assert words in html, words
    assert html.count("<img") >= 14
    assert "python report.py --work results --out prediction" in (nuclei_work / "train.py.txt").read_text()


def test_pictures_of_nuclei_show_something_everywhere(nuclei_run):
    for name, figure in figures(show_nuclei, nuclei_run).items():
        assert figure.axes, name
        assert all(axis.has_data() for axis in figure.axes), name
    image, label = show_nuclei.example(nuclei_run)
    assert (image.shape, label.shape) == ((64, 64), (64, 64, 3))
    assert np.mean((image > 127) == label.any(axis=2)) > 0.95


def test_what_a_run_on_nuclei_did_not_come_to_is_said(nuclei_run, nuclei_work, tmp_path):
    for run in (replace(nuclei_run, out=tmp_path), replace(nuclei_run, scores=None, out=tmp_path)):
        for name, figure in figures(show_nuclei, run).items():
            if name in ("show_errors", "show_worst", "show_instances", "show_prediction"):
                assert len(figure.texts[0].get_text()) > 60, name
    assert "no scores" in methods_nuclei.scores(replace(nuclei_run, scores=None))
    unjudged = replace(nuclei_run, scores=None, config={**nuclei_run.config, "split": {"train": [0], "holdout": []}})
    text = methods_nuclei.paragraph(unjudged)
    assert "no image was held out" in text
    assert text.count("s41592") == 1  # asked for on a condition
    small = np.zeros((3, 3))
    assert nuclei_run.predicted("test0", small.shape) is None  # of another size
    (tmp_path / "bowl").mkdir()
    with pytest.raises(UserError, match="with DATA"):
        last_run(nuclei_work / "results", tmp_path / "bowl")


def test_squeezed_images_are_shown_as_such(tmp_path, nuclei_work, nuclei_run):
    augment(nuclei_work / "bowl", tmp_path, workers=1, resize=32)
    preprocess(tmp_path)
    manifest, geometry = (json.loads((tmp_path / name).read_text())
                          for name in ("augmented/manifest.json", "patches/geometry.json"))
    (tmp_path / "config.json").write_text(json.dumps({**nuclei_run.config, "split": manifest["split"]}))
    shutil.copy(nuclei_work / "results" / "history.csv", tmp_path)
    run = last_run(tmp_path, out=nuclei_work / "prediction")
    assert geometry["resize"] == 32
    assert "squeezed to 32 x 32" in show_nuclei.show_tiles(run).get_supxlabel()
    assert "squeezed to 32 x 32" in methods_nuclei.settings(run)
    assert "squeezed to 32 x 32" in methods_nuclei.paragraph(run)
    assert "on both sides" not in show_nuclei.show_weights(run).get_supxlabel()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_leaves_the_outputs_name_to_the_report():
    def printed(*words):
        return subprocess.run(["make", "report", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True,
                              timeout=60).stdout

    assert "--out" not in printed()  # it knows the run's kind
    assert '--out "mine"' in printed("OUT=mine")


# --------------------------------------------------------------------------------------------------- classes


@pytest.fixture
def classes_run(rng, tmp_path):
    """A run on three classes as far as pictures and words need it; slice 3 was held out, a corner of it is wrong."""
    labels = np.kron(rng.integers(0, 3, (4, 4, 4)), np.ones((16, 16), int)).astype(np.uint8)
    images = labels * 100
    judged = np.eye(3, dtype=np.float32)[labels[3:]].transpose(0, 3, 1, 2).copy()
    judged[0, :, :16, :16] = judged[0, :, :16, :16][[1, 2, 0]]
    recipe = {"epochs": 2, "steps": 5, "batch": 4, "optimizer": "adam", "lr": 1e-3, "seed": 0, "precision": "float32",
              "flips": 1, "zooms": [1.0]}
    return StackRun(
        work=tmp_path, out=tmp_path / "prediction.tif",
        manifest={"inputs": {}, "data": "mine", "copies": 2, "seed": 0, "options": {}},
        geometry={"classes": 3, "core": 32, "margin": 8, "tile": 48, "weights": "balance", "counts": {"train": 9},
                  "class_shares": [0.3, 0.3, 0.4]},
        config={"split": {"train": [0, 1, 2], "holdout": [3]}, "recipe": recipe, "parameters": 1000,
                "network": {"filters": 8, "depth": 2},
                "versions": {"python": "3", "keras": "3", "tensorflow": "2"}},
        history=[{"step": 10, "loss": 0.1}], scores=class_scores(judged, labels[3:], [3]), images=images,
        labels=labels, judged=judged, test=images[:2], prediction=judged[[0, 0]])


def test_pictures_and_words_of_classes(classes_run):
    assert kinds.pictures_of(classes_run) is show_classes
    assert kinds.words_of(classes_run) is methods_classes
    for name, figure in figures(show_classes, classes_run).items():
        assert all(axis.has_data() for axis in figure.axes) or name == "show_instances", name
    assert "6.2% of the pixels are wrong" in [axis.get_title() for axis in
                                              show_classes.show_errors(classes_run).axes]
    assert "slice 3, y 0, x 0\n25.0% wrong" in show_classes.show_worst(classes_run).axes[0].get_title()
    assert "| classes | 3 |" in methods_classes.settings(classes_run)
    assert "93.75% of the pixels" in methods_classes.scores(classes_run)
    text = methods_classes.paragraph(classes_run)
    assert "3 classes" in text
    assert "cross-entropy with balanced classes" in text
    assert "Arganda" not in text


def test_what_a_run_on_classes_did_not_come_to_is_said(classes_run):
    run = replace(classes_run, judged=None, scores=None, prediction=None)
    for name in ("scores", "errors", "worst", "prediction"):
        assert len(getattr(show_classes, f"show_{name}")(run).texts[0].get_text()) > 60, name
    assert "no scores" in methods_classes.scores(run)
