"""A run is read as it was left, or refused in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_stacks, write_stacks

from unet.report.run import last_run
from utils import UserError


@pytest.fixture
def copied(cells_run, tmp_path):
    """A copy of the run on cells, to be changed."""
    shutil.copytree(cells_run.work, tmp_path / "results")
    return tmp_path / "results"


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_was_left_is_read(cells_run):
    run = last_run(cells_run.work)
    assert (run.train, run.holdout) == ([0, 1, 2, 3, 4], [5])
    assert run.pages.shape == run.labels.shape == (16, 128, 128)
    np.testing.assert_array_equal(run.page(5)[0], run.layout[5].image)
    assert run.originals(3) == [3]
    assert len(run.holdout_predictions) == 1
    one = run.holdout_predictions[0]
    np.testing.assert_array_equal(one.objects,
                                  run.task.segment(run.task.redraw(one.probability, run.learnt), run.learnt))
    assert len(run.predictions(range(3))) == 3
    assert run.options == run.task.options
    assert not run.shows_demo


def test_a_prediction_of_other_slices_is_none(cells_run):
    run = last_run(cells_run.work, out=cells_run.work / "holdout.tif")
    assert run.predictions([0]) == []


def test_the_prediction_is_found_where_it_was_written(copied, tmp_path):
    assert last_run(copied).outputs.out == copied / "prediction.tif"
    shutil.move(copied / "prediction.tif", tmp_path / "elsewhere.tif")
    assert last_run(copied).outputs.out == Path("prediction.tif")
    (copied / "finished.json").write_text(json.dumps({"predicted": {"out": str(tmp_path / "elsewhere.tif")}}))
    assert last_run(copied).outputs.out == tmp_path / "elsewhere.tif"


def test_a_real_run_says_where_its_prediction_is(tiny_run):
    run = last_run(tiny_run / "results")
    assert run.outputs.out == tiny_run / "prediction.tif"
    assert len(run.predictions(range(2))) == 2
    assert run.shows_demo


def test_the_demos_run_is_found_where_there_is_no_other(copied, tmp_path):
    (tmp_path / "more").mkdir()
    shutil.move(copied, tmp_path / "more" / "demo")
    assert last_run(tmp_path / "more").work == tmp_path / "more" / "demo"


def test_another_augmentation_than_the_model_was_trained_on_is_refused(copied):
    change(copied / "augmented" / "manifest.json", split={"train": [1, 2, 3, 4, 5], "holdout": [0]})
    with pytest.raises(UserError, match="another split"):
        last_run(copied)


def test_other_data_are_refused(copied, tmp_path):
    images, labels = draw_stacks(size=128, seed=3)
    with pytest.raises(UserError, match="other images or labels than this run was made from; name their folder with"):
        last_run(copied, write_stacks(tmp_path / "data", images, labels, images))


def test_moved_data_are_named(copied, cells_run, tmp_path):
    shutil.copytree(cells_run.layout.folder, tmp_path / "moved")
    change(copied / "augmented" / "manifest.json", data=str(tmp_path / "gone"))
    assert last_run(copied, tmp_path / "moved").layout.folder == tmp_path / "moved"


def test_a_run_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"manifest.json not found; run 'make'"):
        last_run(tmp_path)
