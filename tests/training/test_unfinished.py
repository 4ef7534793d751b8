"""A step that was stopped goes on, to the same bytes; with other inputs or options it begins anew."""

import json
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import tifffile
from conftest import ROOT, draw_stacks, write_stacks
from numpy.testing import assert_array_equal

import augmentation
import preprocessing
from augmentation import Settings, augment
from preprocessing import Tiling, preprocess
from unet.inputs.rows import new_array, new_stack, stack_rows
from unet.inputs.stacks import LABELS
from unet.training.copies import Job, jobs_of
from unet.training.folder import remove_run, run_folder
from unet.training.unfinished import ABOUT, JOURNAL, unfinished
from utils import UserError


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file()}


# ----------------------------------------------------------------------------------------------- files of rows


def test_rows_come_back_from_any_order_with_their_checksum(tmp_path, rng):
    stack = rng.integers(0, 65536, (4, 5, 7), np.uint16)
    rows = new_stack(tmp_path / "a.tif", stack.shape, stack.dtype)
    crc = rows.write([2, 0], stack[[2, 0]])
    assert crc == rows.write([0], stack[:1], rows.write([2], stack[2:3])) == rows.crc([2, 0]) != rows.crc([0, 2])
    rows.write([3, 1], stack[[3, 1]])
    assert_array_equal(tifffile.imread(tmp_path / "a.tif"), stack)
    assert_array_equal(stack_rows(tmp_path / "a.tif", stack.shape)[3], stack[3])
    with pytest.raises(ValueError, match=r"a row of \(7, 5\)"):
        rows.write([0], [stack[0].T])
    tiles = new_array(tmp_path / "b.npy", stack.shape, np.float32)
    tiles.write(range(4), stack)
    assert_array_equal(np.load(tmp_path / "b.npy"), stack.astype(np.float32))
    one = new_stack(tmp_path / "c.tif", (1, 5, 7, 3), np.uint8)  # of which tifffile drops the first axis
    one.write([0], np.ones((1, 5, 7, 3), np.uint8))
    assert stack_rows(tmp_path / "c.tif", (1, 5, 7, 3))[0].sum() == 105


def test_jobs_are_in_the_order_of_samples_and_pages_in_that_of_copies():
    assert jobs_of([(1, 2), (3, 0), (1, 1)]) == [
        Job(0, 0, 0), Job(0, 1, 5), Job(0, 2, 7), Job(1, 0, 1), Job(2, 0, 4), Job(2, 1, 6)]


# ------------------------------------------------------------------------------------------------- the folder


def write_some(output, jobs, about="x", stop=None):
    """Write rows of their own number for `jobs` of four, then stop or finish; gives which were left before."""
    with unfinished(output, "rows", {"of": about}, 0, lambda folder: {
            "a": new_array(folder / "a.npy", (4, 3), np.uint8)}) as part:
        left = part.unfinished_jobs(4)
        for job in jobs:
            part.add(job, [job], {"a": part.rows["a"].write([job], [np.full(3, job)])}, f"of {job}")
        if stop:
            raise stop
        assert list(part.contents([3, 0])) == ["of 3", "of 0"]
    return left


def test_what_is_finished_is_kept_and_the_rest_is_done(tmp_path, capsys):
    output = tmp_path / "patches"
    with pytest.raises(KeyboardInterrupt, match="2 rows are finished, and the same command goes on from there"):
        write_some(output, [2, 0], stop=KeyboardInterrupt())
    assert not output.exists()
    assert write_some(output, [1, 3]) == [1, 3]
    assert "note: 2 rows were finished when this was stopped; going on from there" in capsys.readouterr().out
    assert np.load(output / "a.npy")[:, 0].tolist() == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["patches"]
    assert write_some(output, [0, 1, 2, 3]) == [0, 1, 2, 3]  # a finished one is made anew


@pytest.mark.parametrize("damage", ["other", "torn", "lost", "version"])
def test_what_does_not_belong_or_is_damaged_is_done_again(tmp_path, damage, monkeypatch):
    output, room = tmp_path / "patches", tmp_path / ".patches.part"
    with pytest.raises(OSError, match="disk"):
        write_some(output, [2, 0], stop=OSError("disk"))
    if damage == "torn":  # a line whose second half never came
        (room / JOURNAL).write_bytes((room / JOURNAL).read_bytes()[:-9])
    elif damage == "lost":  # a row that never came to the disk
        np.load(room / "patches" / "a.npy", mmap_mode="r+")[2] = 77
    elif damage == "version":
        monkeypatch.setattr("unet.training.unfinished.version", lambda: "another")
    expected = {"other": [0, 1, 2, 3], "version": [0, 1, 2, 3], "torn": [0, 1, 3], "lost": [1, 2, 3]}[damage]
    assert write_some(output, expected, about="y" if damage == "other" else "x") == expected
    assert np.load(output / "a.npy")[:, 0].tolist() == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["patches"]


def test_nothing_is_kept_where_nothing_is_finished_and_nothing_of_others_goes(tmp_path):
    output, room = tmp_path / "patches", tmp_path / ".patches.part"
    with pytest.raises(KeyboardInterrupt) as stop:
        write_some(output, [], stop=KeyboardInterrupt())
    assert not stop.value.args
    assert list(tmp_path.iterdir()) == []
    (room / "patches").mkdir(parents=True)  # stopped before it had written what it is about
    write_some(output, range(4))
    (room / "patches").mkdir(parents=True)
    (room / "patches" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"\.patches\.part is there already, and no stopped step left it"):
        write_some(output, range(4))
    assert content(room) == {"patches/mine.txt": b"mine"}


# -------------------------------------------------------------------------------------------------- the steps


def stop_after(count, function):
    """The function, interrupted at its call after `count`."""
    calls = iter(range(count))

    def call(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return function(*arguments)
    return call


@pytest.fixture
def steps(tmp_path):
    """A folder of data, and the two steps that go with it, on one process."""
    data = write_stacks(tmp_path / "data", *draw_stacks(), draw_stacks(seed=1)[0])
    return data, (partial(augment, data, settings=Settings(copies=2, workers=1)),
                  partial(preprocess, tiling=Tiling(48, 8), weights="border"))


def test_both_steps_go_on_to_the_same_bytes(steps, tmp_path, monkeypatch, capsys):
    _, (first, second) = steps
    for step in (first, second):
        step(work=tmp_path / "whole")
    for module, name, step in ((augmentation, "augment_pair", first), (preprocessing, "_write_tiles", second)):
        for count in (5, 2, 1):
            with monkeypatch.context() as patch:
                patch.setattr(module, name, stop_after(count, getattr(module, name)))
                with pytest.raises(KeyboardInterrupt, match="are finished, and the same command goes on from there"):
                    step(work=tmp_path / "stopped")
        with run_folder(tmp_path / "stopped"):  # sweeps what killed runs left, but not this
            step(work=tmp_path / "stopped")
        assert "when this was stopped; going on from there" in capsys.readouterr().out
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_other_data_or_options_begin_anew(steps, tmp_path, monkeypatch, capsys):
    data, (first, _) = steps
    monkeypatch.setattr(augmentation, "augment_pair", stop_after(3, augmentation.augment_pair))
    with pytest.raises(KeyboardInterrupt):
        first(work=tmp_path)
    monkeypatch.undo()
    about = json.loads((tmp_path / ".augmented.part" / ABOUT).read_text())["about"]
    assert about["manifest"]["seed"] == 0
    labels = tifffile.imread(data / LABELS)
    labels[0, 0, 0] = 0
    tifffile.imwrite(data / LABELS, labels, photometric="minisblack")
    first(work=tmp_path)
    assert "going on" not in capsys.readouterr().out
    assert tifffile.imread(tmp_path / "augmented" / "labels.tif")[0, 0, 0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data", "augmented"}


def test_a_stopped_step_is_cleaned_up_file_by_file(steps, tmp_path, monkeypatch):
    _, (first, _) = steps
    monkeypatch.setattr(augmentation, "augment_pair", stop_after(3, augmentation.augment_pair))
    with pytest.raises(KeyboardInterrupt):
        first(work=tmp_path / "results")
    (tmp_path / "results" / ".augmented.part" / "mine.txt").write_text("mine")
    assert len(remove_run(tmp_path / "results")) == 4
    assert content(tmp_path / "results") == {".augmented.part/mine.txt": b"mine"}


STEPS = ("augmentation.py --data ../data --copies 12 --workers 2",
         "preprocessing.py --tile 48 --margin 8 --weights border")


def run_step(folder, step, seconds=None):
    """Run a step in a folder, killed after so many seconds; gives how long it took."""
    script, *options = step.split()
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, str(ROOT / script), *options], cwd=folder, text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=seconds)
        assert process.returncode == 0, errors
    except subprocess.TimeoutExpired:
        process.kill()  # the step alone, as the system does that wants memory: its workers end by themselves
        process.communicate()
    return time.monotonic() - began


@pytest.mark.slow
def test_killed_at_any_moment_both_steps_end_with_the_same_bytes(tmp_path):
    write_stacks(tmp_path / "data", *draw_stacks(8, 256), draw_stacks(seed=1)[0])
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    for step in STEPS:
        whole = run_step(tmp_path / "whole", step)
        for share in np.linspace(0.3, 0.95, 8):  # before come imports
            run_step(tmp_path / "killed", step, share * whole)
        run_step(tmp_path / "killed", step)
    assert content(tmp_path / "killed" / "results") == content(tmp_path / "whole" / "results")
    assert {path.name for path in (tmp_path / "killed" / "results").iterdir()} == {"augmented", "patches"}
