"""The pictures of README and docs."""

import numpy as np
import pytest
from conftest import write_stacks
from PIL import Image

from unet.inputs.stacks import LABELS, VOLUME, read_stack
from unet.report import figures
from unet.report.by_task import pictures_of
from utils import UserError


@pytest.mark.parametrize("name", figures.FIGURES)
def test_each_picture_is_drawn(cells_run, name):
    assert figures.FIGURES[name](cells_run, pictures_of(cells_run.task)).axes


@pytest.mark.parametrize("name", figures.OTHERS)
def test_pictures_of_other_tasks_are_drawn(runs, name):
    task, draw = figures.OTHERS[name]
    figure = draw(runs[task], pictures_of(runs[task].task))
    assert ("CC0" in figure.get_supxlabel()) == (task == "nuclei")


def test_the_animation_is_smooth(cells_run, tmp_path):
    figures.animate(cells_run, tmp_path / "a.gif")
    animation = Image.open(tmp_path / "a.gif")
    assert animation.n_frames == 3
    frame = np.asarray(animation.convert("RGB"))
    image = frame[24:24 + 128, :128]
    assert (image == image[..., :1]).all(), "greys stay grey"
    assert len(np.unique(image)) > 60, "and have no bands"


def test_other_runs_than_the_demos_are_refused(cells_run, monkeypatch):
    monkeypatch.setattr("sys.argv", ["figures", "--work", str(cells_run.work)])
    with pytest.raises(UserError, match="drawn from the demo stack"):
        figures.main()


def test_dark_insides_become_a_class(tmp_path):
    labels = np.full((2, 64, 64), 255, np.uint8)
    labels[:, :, 30:33] = 0
    images = np.where(labels > 0, 160, 60).astype(np.uint8)
    images[:, 20:44, 40:60] = 90  # dark, inside a cell
    write_stacks(tmp_path / "demo", images, labels, images)
    figures.make_classes(tmp_path / "demo", tmp_path / "classes")
    classes = read_stack(tmp_path / "classes" / LABELS)
    assert (classes[labels == 0] == 0).all()
    assert (classes[:, 25:40, 45:55] == 2).all()
    assert (classes[:, :, :30] == 1).all()
    np.testing.assert_array_equal(read_stack(tmp_path / "classes" / VOLUME), images)
