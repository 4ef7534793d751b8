"""The pictures of README and docs."""

import numpy as np
import pytest
from PIL import Image

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
    label = np.full((64, 64), 255, np.uint8)
    label[:, 30:33] = 0
    image = np.where(label > 0, 160.0, 60.0)
    image[20:44, 40:60] = 90  # dark, inside a cell
    dark = figures.dark_insides(image, label)
    assert dark[25:40, 45:55].all()
    assert not dark[:, :33].any()
