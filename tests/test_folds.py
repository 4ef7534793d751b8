"""Cross-validation: each sample judges once, what stops goes on, and the mean of all models is predict.py's."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from conftest import ROOT, call, draw_slices, draw_stacks, write_bowl, write_stacks, write_two_folders

from train import Keeper
from unet import folds
from unet.folds import blocks_of, fold_table, summary
from unet.inputs.layouts import layout_of
from unet.tasks.cells import Cells
from unet.tasks.classes import Classes
from unet.tasks.nuclei import Nuclei
from unet.tasks.of_images import CellImages
from unet.training.folder import remove_run
from utils import UserError

TRAIN = ("--preset", "keras", "--epochs", 2, "--steps", 25, "--batch", 4, "--filters", 8, "--depth", 2, "--lr", "1e-2",
         "--precision", "float32")


# --------------------------------------------------------------------------------------------------- the blocks


@pytest.mark.parametrize(("count", "sizes"), [(2, [3, 3]), (4, [2, 2, 1, 1]), (6, [1] * 6)])
def test_slices_judge_in_blocks_of_neighbours(tiny_folder, count, sizes):
    for task in (Cells(), Classes()):
        blocks = blocks_of(task, layout_of(tiny_folder), count, 0)
        assert [number for block in blocks for number in block] == list(range(6))
        assert [len(block) for block in blocks] == sizes


@pytest.mark.parametrize("count", [2, 3, 8])
def test_images_of_each_modality_are_dealt_out(nuclei_folder, count):
    layout = layout_of(nuclei_folder)  # 4 fluorescence, 2 histology, 2 bright-field
    blocks = blocks_of(Nuclei(), layout, count, 0)
    assert sorted(number for block in blocks for number in block) == list(range(8))
    for group, there in (("fluorescence", 4), ("histology", 2), ("bright-field", 2)):
        counts = [sum(layout.groups[number] == group for number in block) for block in blocks]
        assert max(counts) - min(counts) <= 1 and sum(counts) == there
    assert blocks == blocks_of(Nuclei(), layout, count, 0) != blocks_of(Nuclei(), layout, count, 1)


def test_folds_that_have_none_to_score_are_refused(tiny_folder, tmp_path):
    with pytest.raises(UserError, match=r"--folds 7: .*tiny has 6 labelled slices, and each fold needs one to score"):
        blocks_of(Cells(), layout_of(tiny_folder), 7, 0)
    images, labels = draw_stacks()
    labels[2:4] = 0
    write_stacks(tmp_path / "part", images, labels, images)
    with pytest.raises(UserError, match="no object on slices 2-3 to score the network on; choose another number of "):
        blocks_of(Cells(), layout_of(tmp_path / "part"), 3, 0)
    assert len(blocks_of(Cells(), layout_of(tmp_path / "part"), 2, 0)) == 2
    pairs = draw_slices([(64, 64)] * 3)
    pairs["cell1"][1][:] = 0
    write_two_folders(tmp_path / "pairs", pairs)
    with pytest.raises(UserError, match="no object on image cell1 to score the network on; choose another number"):
        blocks_of(CellImages(), layout_of(tmp_path / "pairs"), 3, 0)


# --------------------------------------------------------------------------------------------------- the scores


def test_mean_and_deviation_are_over_folds():
    folds = [{"raw": {"a": 0.5, "b": 1.0}, "walls": {"a": 0.5}}, {"raw": {"a": 0.7, "b": 1.0}}]
    scores = summary(folds)
    assert scores["raw"] == {"folds": [folds[0]["raw"], folds[1]["raw"]],
                             "mean": {"a": pytest.approx(0.6), "b": 1.0},
                             "sd": {"a": pytest.approx(0.1 * 2**0.5), "b": 0.0}}  # n - 1
    assert scores["walls"] == {"folds": [{"a": 0.5}, None], "mean": {"a": 0.5}, "sd": {"a": None}}
    lines = [line.split() for line in fold_table(scores, ["fold 1", "fold 2"]).splitlines()]
    assert lines[2:4] == [["fold", "1", "0.5000", "1.0000"], ["fold", "2", "0.7000", "1.0000"]]
    assert lines[4:6] == [["mean", "of", "2", "folds", "0.6000", "1.0000"], ["standard", "deviation", "0.1414",
                                                                            "0.0000"]]
    assert lines[9:12] == [["fold", "1", "0.5000"], ["fold", "2", "none"], ["mean", "of", "1", "folds", "0.5000"]]


# ---------------------------------------------------------------------------------------------------- the command


def prepare_here(context):
    """Do steps 1 and 2 of a fold in this process: that they have processes of their own is one slow test's."""
    context.setattr(folds, "call_prepare", folds.prepare)
    context.setattr("augmentation.default_workers", lambda: 1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which steps 1 and 2 have run on six slices, the last of them held out; its data lie elsewhere."""
    folder = tmp_path_factory.mktemp("prepared")
    data = write_stacks(tmp_path_factory.mktemp("data"), *draw_stacks(), draw_stacks(2, seed=1)[0])
    for command in (("augmentation.py", "--data", data, "--copies", 2, "--workers", 1, "--seed", 3),
                    ("preprocessing.py", "--tile", 32, "--margin", 8, "--weights", "balance", "--seed", 5)):
        done = call(folder, *command)
        assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder, data=data)


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    """A copy with two folds that nothing disturbed, and what was printed."""
    folder = shutil.copytree(prepared.folder, tmp_path_factory.mktemp("finished") / "run")
    with pytest.MonkeyPatch.context() as context:
        prepare_here(context)
        done = call(folder, "train.py", "--folds", 2, *TRAIN)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder, data=prepared.data, stdout=done.stdout)


@pytest.fixture
def here(prepared, tmp_path):
    """A copy in which no fold has begun."""
    return shutil.copytree(prepared.folder, tmp_path / "run")


def read(path):
    return json.loads(path.read_text())


def test_every_slice_judges_once_a_network_that_it_did_not_train(finished):
    work = finished.folder / "results"
    plan = read(work / "folds.json")
    assert plan["blocks"] == [[0, 1, 2], [3, 4, 5]]
    for number, block in enumerate(plan["blocks"], 1):
        fold = work / f"fold-{number}"
        manifest = read(fold / "augmented" / "manifest.json")
        assert manifest["split"] == {"train": [one for one in range(6) if one not in block], "holdout": block}
        assert not {page["source"] for page in manifest["samples"] if page["operations"]} & set(block)
        assert sum(source["copies"] for source in manifest["sources"]) >= 10  # as many in all as step 1 made
        assert manifest["seed"] == 3
        geometry = read(fold / "patches" / "geometry.json")
        assert [geometry[name] for name in ("tile", "margin", "weights", "seed")] == [32, 8, "balance", 5]
        metrics = read(fold / "metrics.json")["probability"]["chosen"]
        assert [row["slice"] for row in metrics["per_slice"]] == block
        assert plan["scores"]["the network's probability"]["folds"][number - 1]["V_rand"] == metrics["V_rand"]
        assert not (fold / "prediction.tif").exists()
    assert "== fold 2 of 2, scored on slices 3-5 of 6" in finished.stdout
    assert "fold 1, slices 0-2 " in finished.stdout and "mean of 2 folds " in finished.stdout
    assert "prediction.tif: probability of cell, mean of 2 models, no flips; " in finished.stdout


def test_the_prediction_is_that_of_predict_with_all_models(finished, tmp_path):
    folder = finished.folder
    again = call(tmp_path, "predict.py", finished.data / "test-volume.tif", "--model",
                 str(folder / "results" / "fold-*" / "model.keras"), "--out", "p.tif", "--precision", "float32",
                 "--engine", "tensorflow")
    assert again.returncode == 0, again.stderr
    np.testing.assert_allclose(tifffile.imread(tmp_path / "p.tif"), tifffile.imread(folder / "prediction.tif"),
                               atol=1e-6)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p-cells.tif"), tifffile.imread(folder / "cells.tif"))


def test_a_second_call_does_nothing_and_what_is_gone_is_made_again(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    plan = folder / "results" / "folds.json"
    plan.write_text(plan.read_text().replace(str(finished.folder), str(folder)))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = call(folder, "train.py", "--folds", 2, "--resume")
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert again.stdout.startswith("results/fold-1 is trained and scored\n")
    assert again.stdout.endswith(finished.stdout[finished.stdout.index("\n2 folds;"):])
    (folder / "cells.tif").unlink()
    assert call(folder, "train.py", "--folds", 2, "--resume").returncode == 0
    assert (folder / "cells.tif").read_bytes() == (finished.folder / "cells.tif").read_bytes()
    for options, said in (("--folds 3 --resume", "was started with --folds 2"),
                          ("--folds 2 --seed 4 --resume", "another --seed"), ("--folds 9", "6 labelled slices"),
                          ("--folds 1", "1 is not a whole number of 2 or more")):
        refused = call(folder, "train.py", *options.split())
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    assert (folder / "results" / "fold-2" / "model.keras").is_file()  # nothing was begun anew
    removed = remove_run(folder / "results")
    assert len(removed) > 30
    assert list(folder.iterdir()) == []


def test_steps_of_a_fold_end_with_the_process_that_started_them(here):
    ended = subprocess.run([sys.executable, "-m", "unet.folds", "results", "1"], cwd=here, stdin=subprocess.DEVNULL,
                           env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=600)
    assert ended.returncode == 1
    assert not (here / "results" / "fold-1" / "augmented").exists()


@pytest.mark.slow
def test_a_stopped_cross_validation_goes_on_inside_its_fold(finished, here, monkeypatch):
    begin = Keeper.on_epoch_begin

    def stop(self, epoch, logs=None):
        if (self.work.name, epoch) == ("fold-2", 1):
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    with monkeypatch.context() as context:
        context.setattr(Keeper, "on_epoch_begin", stop)
        stopped = call(here, "train.py", "--folds", 2, *TRAIN)
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1] == ("train.py: stopped; 'python train.py --work results --folds 2 --resume' "
                                               "does what is left")
    went_on = call(here, "train.py", "--folds", 2, "--resume")
    assert went_on.returncode == 0, went_on.stderr
    assert went_on.stdout.startswith("results/fold-1 is trained and scored\n")
    assert "epoch 1/2" not in went_on.stdout and "epoch 2/2" in went_on.stdout
    one, other = (read(folder / "results" / "folds.json")["scores"] for folder in (here, finished.folder))
    for title in other:
        assert one[title]["mean"] == pytest.approx(other[title]["mean"], abs=1e-3)
    np.testing.assert_allclose(tifffile.imread(here / "prediction.tif"),
                               tifffile.imread(finished.folder / "prediction.tif"), atol=1e-3)


@pytest.mark.slow
def test_fewer_folds_leave_none_of_more_behind(finished, here, monkeypatch):
    (here / "results" / "fold-9").mkdir()
    (here / "results" / "fold-9" / "notes.txt").write_text("of the user")
    for number in (1, 2, 3):
        shutil.copytree(finished.folder / "results" / "fold-1", here / "results" / f"fold-{number}")
    prepare_here(monkeypatch)
    monkeypatch.setattr(Keeper, "on_epoch_begin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert call(here, "train.py", "--folds", 2, *TRAIN).returncode == 130
    assert {path.name for path in (here / "results").glob("fold-*")} == {"fold-1", "fold-9"}


@pytest.mark.slow
def test_folds_of_images(tmp_path, monkeypatch):
    prepare_here(monkeypatch)
    write_bowl(tmp_path / "data")
    for command in (("augmentation.py", "--copies", 2, "--workers", 1, "--window", 64), ("preprocessing.py",),
                    ("train.py", "--folds", 2, "--epochs", 2, "--steps", 30, "--batch", 4, "--filters", 8, "--depth", 2,
                     "--precision", "float32")):
        done = call(tmp_path, *command)
        assert done.returncode == 0, done.stderr
    names = read(tmp_path / "results" / "folds.json")["names"]
    for number, block in enumerate(names, 1):
        folder = tmp_path / "results" / f"fold-{number}" / "prediction"
        assert {path.name for path in folder.iterdir()} == {f"{name}{end}" for name in block
                                                            for end in (".tif", "-labels.tif")}
    assert {path.name for path in (tmp_path / "prediction").iterdir()} == {"test0.tif", "test0-labels.tif"}
    assert "mean AP" in done.stdout and "probability of nucleus, mean of 2 models" in done.stdout
    remove_run(tmp_path / "results")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
