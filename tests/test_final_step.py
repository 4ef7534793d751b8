"""The final step of a run: it looks back, judges and predicts what is left, and only that."""

import json

import numpy as np
import pytest
from conftest import draw_nuclei, draw_stacks, write_nuclei, write_stacks
from finished import SAME, Bright, config_of, final, trained
from numpy.testing import assert_array_equal

import predict
from predict import finish
from unet.engines.predictor import Predictor
from unet.inputs.layouts import layout_of
from unet.inputs.samples import Sample
from unet.inputs.stacks import TEST, VOLUME, read_stack, write_stack
from unet.segment.judge import neighbouring
from unet.segment.walls import draw_walls, number_cells
from unet.tasks.cells import Cells
from unet.tasks.nuclei import Nuclei
from unet.tasks.task import Prediction
from utils import NotLearning, UserError


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def draw_stack(probability, learnt):
    """Draw the walls of slices that follow each other."""
    return [draw_walls(one, learnt["walls"], neighbouring(probability, number))
            for number, one in enumerate(probability)]


def test_the_final_step_looks_back_judges_and_predicts(pictured_run, tmp_path):
    cells_run = pictured_run
    assert final(cells_run) == (True, 3 + 2 + 2)
    images, predictor = read_stack(tmp_path / "data" / TEST), Predictor(Bright(), SAME, Cells())
    learnt = json.loads((cells_run / "config.json").read_text())["learnt"]
    assert learnt["on"] == [1, 2, 3]
    probability = read_stack(tmp_path / "prediction.tif")
    assert_array_equal(probability, np.stack([predictor(image) for image in images]))  # the network's, nothing else
    redrawn = draw_stack(probability, learnt)
    assert any((one != other).any() for one, other in zip(redrawn, probability, strict=True))
    cells = read_stack(tmp_path / "cells.tif")
    assert cells.dtype == np.uint16
    assert_array_equal(cells, [number_cells(one, learnt["threshold"]) for one in redrawn])
    held_out = layout_of(tmp_path / "data")
    assert_array_equal(read_stack(cells_run / "holdout.tif"), [predictor(held_out[number].image) for number in (4, 5)])
    scores = json.loads((cells_run / "metrics.json").read_text())
    assert [row["slice"] for row in scores["probability"]["chosen"]["per_slice"]] == [4, 5]
    assert (cells_run / "holdout.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_does_nothing(cells_run, tmp_path):
    final(cells_run)
    before = contents(tmp_path)
    assert final(cells_run) == (False, 0)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("stop", "left"), [(2, 7), (4, 4), (6, 2)], ids=["looking back", "scoring", "predicting"])
def test_an_interruption_loses_no_stage_that_was_done(cells_run, tmp_path, stop, left):
    with pytest.raises(KeyboardInterrupt):
        final(cells_run, Bright(stop))
    assert not [name for name in contents(tmp_path) if name.startswith(".")]
    assert not (tmp_path / "prediction.tif").exists()
    assert (cells_run / "metrics.json").exists() == (left == 2)
    assert final(cells_run) == (True, left)
    whole = contents(tmp_path)
    for name in ("finished.json", "metrics.json", "prediction.tif"):
        (cells_run / name).unlink(missing_ok=True)
        (tmp_path / name).unlink(missing_ok=True)
    final(cells_run)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize(("name", "calls"), [("prediction.tif", 2), ("cells.tif", 2), ("results/metrics.json", 2),
                                             ("results/holdout.tif", 2), ("results/finished.json", 7)])
def test_what_is_gone_is_made_again(cells_run, tmp_path, name, calls):
    final(cells_run)
    before = contents(tmp_path)
    (tmp_path / name).unlink()
    assert final(cells_run) == (True, calls)
    assert contents(tmp_path) == before


def test_what_changed_is_done_anew(cells_run, tmp_path):
    final(cells_run)
    write_stack(tmp_path / "data" / TEST, draw_stacks(slices=3, seed=2)[0])
    assert final(cells_run) == (True, 3)
    assert len(read_stack(tmp_path / "prediction.tif")) == 3
    assert final(cells_run, out=tmp_path / "other.tif") == (True, 3)
    assert final(cells_run, out=tmp_path / "other.tif", redrawn=tmp_path / "walls.tif") == (True, 3)
    learnt = json.loads((cells_run / "config.json").read_text())["learnt"]
    assert_array_equal(read_stack(tmp_path / "walls.tif"),
                       draw_stack(read_stack(tmp_path / "other.tif"), learnt))
    (cells_run / "model.keras").write_bytes(b"other weights")
    assert final(cells_run) == (True, 3 + 2 + 3)


def test_a_run_trained_anew_to_the_same_weights_is_judged_anew(cells_run):
    """Training writes config.json without what was learnt after it."""
    before = (cells_run / "config.json").read_text()
    final(cells_run)
    (cells_run / "config.json").write_text(before)
    assert final(cells_run) == (True, 7)


def test_images_that_were_replaced_meanwhile_are_named_before_what_follows_from_them(cells_run, tmp_path):
    class Replaces(Bright):
        def __call__(self, tiles):
            write_stack(tmp_path / "data" / VOLUME, draw_stacks(slices=6, seed=2)[0])
            return np.full((*tiles.shape[:3], 1), 0.5, np.float32)

    with pytest.raises(UserError, match=f"{VOLUME} was replaced while it was being read"):
        final(cells_run, Replaces())
    assert not (tmp_path / "prediction.tif").exists()


def test_a_network_that_says_the_same_everywhere_did_not_learn(cells_run, tmp_path):
    with pytest.raises(NotLearning, match="gives the same output everywhere: it did not learn"):
        final(cells_run, Bright(says=0.4))
    assert not (cells_run / "finished.json").exists()
    assert not (tmp_path / "prediction.tif").exists()


def test_nothing_held_out_is_nothing_to_judge(tmp_path):
    write_stacks(tmp_path / "data", *draw_stacks(), draw_stacks(slices=2, seed=1)[0])
    work = trained(tmp_path, config_of(Cells(), {"train": list(range(6)), "holdout": []}))
    assert final(work) == (True, 3 + 2)
    assert not (work / "metrics.json").exists()
    assert not (work / "holdout.tif").exists()


def test_held_out_nuclei_lie_beside_those_without_masks(nuclei_folder, tmp_path, capsys, without_pictures):
    nuclei_folder.rename(tmp_path / "data")
    work = trained(tmp_path, config_of(Nuclei(), {"train": [1, 3, 4, 5, 7], "holdout": [0, 2, 6]}))
    out = tmp_path / "prediction"
    out.mkdir()
    for name in ("brig1.tif", "brig1-labels.tif"):  # of an earlier run, in which it was held out
        write_stack(out / name, np.zeros((1, 4, 4), np.uint16))
    assert final(work) == (True, 5 + 3 + 1)
    assert "prediction: the predictions of 1 image now in training were removed" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {f"{name}{end}" for name in ("test0", "brig0", "fluo0", "hist0")
                                                     for end in (".tif", "-labels.tif")}
    scores = json.loads((work / "metrics.json").read_text())
    assert [row["image"] for row in scores["per_image"]] == ["brig0", "fluo0", "hist0"]
    assert scores["all"]["ap"]["0.50"] > 0.7
    assert final(work) == (False, 0)
    (out / "fluo0-labels.tif").unlink()
    assert final(work) == (True, 3)
    write_nuclei(tmp_path / "data", "test0", draw_nuclei((45, 77), seed=8)[0])
    assert final(work) == (True, 1)


def test_the_picture_shows_each_group_before_a_second_of_any():
    judged = [Prediction(Sample(name, None, None, name[0]), None, None, None)
              for name in ("a0", "a1", "a2", "a3", "b0", "a4", "b1", "c0")]
    examples = []
    assert list(predict._collect_examples(iter(judged), examples, most=4)) == judged
    assert [one.sample.name for one in examples] == ["a0", "a1", "b0", "c0"]


def test_the_end_says_what_came_out_and_that_nothing_is_left(cells_run, tmp_path, capsys):
    def end():
        config = json.loads((cells_run / "config.json").read_text())
        finish(cells_run, Bright(), config, Cells().outputs(tmp_path / "prediction.tif"))
        return capsys.readouterr().out

    first, second = end(), end()
    assert "scores on held-out slices, on which the network was not trained:\nthe network's probability:" in first
    assert f"{tmp_path / 'prediction.tif'}: probability of cell, no flips\n" in first
    assert f"{tmp_path / 'cells.tif'}: a number for each cell, 0 = border; walls learnt on slices 1-3\n" in first
    assert second.startswith("nothing is left to do: the network is trained and scored, and everything is predicted\n")
    assert second.endswith(first)
