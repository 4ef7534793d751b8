"""A run's folder: known by its marks, and removed file by file; what others put there stays."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from conftest import write_nuclei, write_png

from unet.inputs.stacks import write_stack
from unet.training.folder import check_work, outputs, predicted_files, remove_run, run_folder
from utils import UserError

CONTENT = {"augmented": ("images.tif", "labels.tif"), "patches": ("train-images.npy", "train-labels.npy"),
           "tensorboard/train": ("events.out.tfevents.1.host",),
           ".": ("model.keras", "checkpoint.npz", "history.csv", "metrics.json", "holdout.tif", "holdout.png",
                 "curve.png", "next.csv", "report.html")}


def make_run(folder, out=None, task="cells", data="data"):
    """All the files of a run, and the stack that it predicted, or the images "a" and "b" of which a has masks."""
    work = folder / "results"
    for inside, names in CONTENT.items():
        (work / inside).mkdir(parents=True, exist_ok=True)
        for name in names:
            (work / inside / name).write_bytes(b"made by a run")
    out = out or folder / "prediction.tif"
    objects = out.with_name("cells.tif") if task == "cells" else out
    jsons = {"augmented/manifest.json": {"inputs": {}, "split": {}, "samples": [], "sources": [{"name": "a"}]},
             "patches/geometry.json": {"tile": 256, "core": 192, "manifest": ""},
             "config.json": {"network": {}, "recipe": {}, "task": {"name": task}, "data": str(data)},
             "finished.json": {"model": "", "predicted": {"out": str(out), "objects": str(objects), "redrawn": None}}}
    for name, content in jsons.items():
        (work / name).write_text(json.dumps(content))
    names = ("prediction.tif", "cells.tif") if task == "cells" else [f"{name}{end}" for name in "ab"
                                                                     for end in (".tif", "-labels.tif")]
    for name in names:
        write_stack((out.parent if task == "cells" else out) / name, np.zeros((1, 4, 4), np.uint16))
    return work


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_that_a_run_made_goes(tmp_path):
    work = make_run(tmp_path)
    count = len(contents(tmp_path))
    assert outputs(work) == [tmp_path / "prediction.tif", tmp_path / "cells.tif"]
    assert len(remove_run(work)) == count
    assert list(tmp_path.iterdir()) == []


def test_all_that_the_scripts_leave_is_known(tiny_run, tmp_path):
    """A real run, moved: no file that a step writes is missing in the lists."""
    shutil.copytree(tiny_run, tmp_path, dirs_exist_ok=True)
    finished = tmp_path / "results" / "finished.json"
    finished.write_text(finished.read_text().replace(str(tiny_run), str(tmp_path)))
    remove_run(tmp_path / "results")
    left = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert left == {"demo", "augmentation.txt", "preprocessing.txt", "train.txt"}  # the data and what was printed


def test_what_others_put_there_stays(tmp_path):
    work = make_run(tmp_path)
    theirs = dict.fromkeys(("results/notes.txt", "results/augmented/mine.tif", "results/patches/test-images.npy",
                            "results/tensorboard/train/plan.txt", "labels.tif", "results/model.h5"), b"drawn by hand")
    for name, content in theirs.items():
        (tmp_path / name).write_bytes(content)
    remove_run(work)
    assert contents(tmp_path) == theirs


def test_a_folder_without_a_mark_is_nobodys_to_clean(tmp_path):
    work = make_run(tmp_path)
    for name in ("augmented/manifest.json", "patches/geometry.json", "config.json"):
        (work / name).write_text('["of another program"]')
    before = contents(tmp_path)
    assert remove_run(work) == []
    assert contents(tmp_path) == before
    assert remove_run(tmp_path / "nowhere") == []


def test_a_prediction_corrected_by_hand_stays(tmp_path):
    work = make_run(tmp_path)
    tifffile.imwrite(tmp_path / "cells.tif", np.ones((1, 4, 4), np.uint16))
    remove_run(work)
    assert set(contents(tmp_path)) == {"cells.tif"}


def test_a_folder_of_predictions_keeps_what_is_not_the_runs(tmp_path):
    write_nuclei(tmp_path / "bowl", "b", np.zeros((4, 4), np.uint8))
    work = make_run(tmp_path, tmp_path / "prediction", "nuclei", tmp_path / "bowl")
    write_stack(tmp_path / "prediction" / "other-labels.tif", np.zeros((1, 4, 4), np.uint16))  # of another command
    write_png(tmp_path / "prediction" / "a.png", np.zeros((4, 4), np.uint8))
    tifffile.imwrite(tmp_path / "prediction" / "b.tif", np.zeros((4, 4), np.uint8))  # of another program
    assert [path.name for path in predicted_files(work)] == ["a.tif", "a-labels.tif", "b-labels.tif"]
    remove_run(work)
    assert set(contents(tmp_path / "prediction")) == {"other-labels.tif", "a.png", "b.tif"}
    assert not work.exists()


def test_a_run_that_was_stopped_goes_too(tmp_path):
    work = make_run(tmp_path)
    for name in ("finished.json", "config.json", "model.keras"):
        (work / name).unlink()
    remove_run(work)
    assert set(contents(tmp_path)) == {"prediction.tif", "cells.tif"}  # of an earlier run: not this one's to remove
    assert outputs(work) == []


# ---------------------------------------------------------------------------------------------- before a run


def test_a_new_folder_an_empty_one_and_one_of_a_run_will_do(tmp_path):
    check_work(tmp_path / "new")
    check_work(tmp_path)
    work = make_run(tmp_path)
    check_work(work)
    (work / "config.json").unlink()  # stopped
    check_work(work)
    (tmp_path / "trial" / "demo").mkdir(parents=True)
    (tmp_path / "trial" / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    check_work(tmp_path / "trial")
    assert contents(tmp_path) == before  # it only looks


@pytest.mark.parametrize("name", ["augmented/flowers.png", "patches/quilt.txt", "config.json", "model.keras"])
def test_what_a_run_would_replace_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(UserError, match=rf"has {name.split('/')[0]} already, which no run .* with --work, or move"):
        check_work(tmp_path)
    assert (tmp_path / name).read_bytes() == b"{}"


def test_what_killed_runs_left_half_written_goes_and_nothing_else(tmp_path):
    work = make_run(tmp_path)
    before = contents(tmp_path)
    ours = (".model.123.keras", ".checkpoint.9.npz", ".history.77.csv", ".augmented.a1b2c3d4/images.tif",
            ".patches.x_y_z_12.old/geometry.json")
    others = (".DS_Store", ".model.keras", ".notes.12.txt", ".model.mine.keras", ".augmented.mine/x",
              "trial/.model.1.keras")
    for name in (*ours, *others):
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(b"half")
    with run_folder(work):
        assert {".run.lock", ".step.lock"} < {path.name for path in work.iterdir()}
    assert set(contents(tmp_path)) - set(before) == {f"results/{name}" for name in others}
