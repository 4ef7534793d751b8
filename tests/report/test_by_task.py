"""Every task has its pictures and its words; what they show is the run's own."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from preprocessing import Tiling, preprocess
from unet.report.base import Pictures
from unet.report.by_task import OF_TASK, pictures_of, words_of
from unet.report.run import last_run
from unet.report.words import Words
from unet.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ("images", "tiles", "weights", "scores", "objects", "choices", "errors", "worst", "instances", "prediction")
OUTCOMES = ("scores", "objects", "errors", "worst", "instances", "prediction")


def caption(figure):
    return " ".join(figure.get_supxlabel().split())


def panels(figure):
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


def varies(axis):
    """Whether an axis has an image of several colours, a curve, or bars."""
    return (any(np.ptp(image.get_array()) > 0 for image in axis.images)
            or any(np.ptp(line.get_ydata()) > 0 for line in axis.lines)
            or any(patch.get_height() > 0 for patch in axis.patches))


def test_every_task_has_its_pictures_and_its_words():
    assert OF_TASK.keys() == TASKS.keys()
    for pictures, words in OF_TASK.values():
        assert issubclass(pictures, Pictures)
        assert issubclass(words, Words)


@pytest.mark.parametrize("base", [Pictures, Words])
def test_a_task_that_leaves_something_out_cannot_draw_or_tell(base):
    assert base.__abstractmethods__
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (base,), {})(TASKS["cells"]())


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("picture", PICTURES)
def test_each_picture_shows_something_on_every_axis(runs, name, picture):
    figure = getattr(pictures_of(runs[name].task), picture)(runs[name])
    assert figure.axes
    if not figure.axes[0].axison:  # words in place of a picture
        assert len(figure.texts) == 1 and len(figure.axes) == 1
        return
    shown = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    assert all(axis.images or axis.lines or axis.patches for axis in shown)
    assert sum(map(varies, shown)) > len(shown) / 2


@pytest.mark.parametrize("name", TASKS)
def test_an_example_is_an_image_and_its_label_on_the_same_pixels(runs, name):
    run = runs[name]
    image, label = pictures_of(run.task).example(run)
    assert image.shape[:2] == label.shape[:2] == tuple(run.manifest["shape"][1:3])
    assert image.dtype == label.dtype == np.uint8


@pytest.mark.parametrize("name", TASKS)
def test_held_out_samples_are_marked(runs, name):
    run = runs[name]
    figure = pictures_of(run.task).images(run, most=len(run.layout))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert sum(title.endswith("held out") for title in titles) == len(run.holdout)
    assert (f"{len(run.train)} for training, {len(run.holdout)} held out for scoring and never trained on (framed)"
            in caption(figure))


@pytest.mark.parametrize("name", TASKS)
def test_tiles_are_those_of_step_2(runs, name):
    run = runs[name]
    figure = pictures_of(run.task).tiles(run)
    tile = panels(figure)[1]
    stored = np.load(run.work / "patches" / "train-images.npy", mmap_mode="r")
    assert any(np.array_equal(tile if tile.ndim == one.ndim else np.dstack([tile] * 3), one) for one in stored)
    assert f"{run.geometry['tile']} pixels each" in caption(figure)


def test_tiles_of_valid_networks_reach_beyond_the_page(cells_run, tmp_path):
    shutil.copytree(cells_run.work, tmp_path / "results")
    preprocess(tmp_path / "results", Tiling(64, 12, valid=True))
    figure = pictures_of(cells_run.task).tiles(last_run(tmp_path / "results"))
    stored = np.load(tmp_path / "results" / "patches" / "train-images.npy", mmap_mode="r")
    assert any(np.array_equal(panels(figure)[1], one) for one in stored)
    frames = [patch.get_xy() for patch in figure.axes[0].patches]
    assert min(x for x, _ in frames) < -10


def test_a_held_out_slice_without_a_cell_is_shown_and_not_scored(cells_run, tmp_path):
    one = cells_run.holdout_predictions[0]
    empty = replace(one, sample=replace(one.sample, name="slice 0"), objects=np.zeros_like(one.objects))
    run = replace(cells_run)
    run.__dict__["holdout_predictions"] = [one, empty]
    assert pictures_of(run.task).score(run, empty) == (1.0, "no cell, not scored")
    for picture in ("errors", "worst", "instances", "objects"):
        assert getattr(pictures_of(run.task), picture)(run).axes


@pytest.mark.parametrize("name", TASKS)
def test_weights_are_drawn_up_to_their_largest(runs, name):
    run = runs[name]
    figure = pictures_of(run.task).weights(run)
    assert f"--weights {run.geometry['weights']}" in caption(figure)
    for axis in figure.axes:
        if axis.get_title() in ("balance", "border"):
            assert axis.images[0].get_clim() == (0, pytest.approx(axis.images[0].get_array().max()))
        if axis.get_title() == "border":
            assert f"up to {axis.images[0].get_array().max():.1f} here" in caption(figure)


@pytest.mark.parametrize("name", TASKS)
def test_what_a_run_did_not_come_to_is_said(runs, name, tmp_path):
    run = replace(runs[name], scores=None, outputs=runs[name].task.outputs(tmp_path / "nowhere"))
    for picture in OUTCOMES:
        figure = getattr(pictures_of(run.task), picture)(run)
        assert len(figure.texts[0].get_text()) > 60, picture
        assert figure.axes, "a notebook leaves out figures without axes"
    assert "no scores" in words_of(run.task).scores(run)
    assert "On the held-out" not in words_of(run.task).paragraph(run)


@pytest.mark.parametrize("name", TASKS)
def test_the_held_out_and_what_nobody_labelled_are_drawn_alike(runs, name):
    run, pictures = runs[name], pictures_of(runs[name].task)
    known = pictures.holdout(run.holdout_predictions, run.learnt)
    assert "never trained" in caption(known)
    unknown = pictures.holdout(run.predictions([0]), run.learnt)
    assert caption(unknown) == "Predicted."
    assert len(panels(unknown)) < len(panels(known))


def test_what_predict_imports_is_light():
    code = ("import sys; import unet.report.by_task, unet.report.pictures; "
            "print([name for name in ('tensorflow', 'keras', 'IPython', 'nbformat', 'nbclient', 'nbconvert') "
            "if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout == "[]\n", done.stdout + done.stderr
