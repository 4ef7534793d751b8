"""The three scripts as a user runs them: a small demo stack, from a directory that isn't the project's."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from unet.inputs.demo import make_demo

ROOT = Path(__file__).resolve().parent.parent

TRAIN = ("--epochs", "3", "--steps", "12", "--batch", "2", "--filters", "8", "--depth", "2", "--lr", "3e-3")


def last_line(result):
    return result.stderr.strip().splitlines()[-1]


def test_three_scripts_make_a_prediction(script, tmp_path):
    make_demo(tmp_path / "stacks", slices=6, test_slices=2, size=128)
    data = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "stacks").iterdir()}
    augmented = script("augmentation.py", "--data", "stacks", "--copies", 2, "--workers", 2)
    assert augmented.returncode == 0, augmented.stderr
    assert "5 slices to train on with 2 copies each, 1 held out" in augmented.stdout
    tiled = script("preprocessing.py", "--tile", 64, "--margin", 8)
    assert tiled.returncode == 0, tiled.stderr
    trained = script("train.py", *TRAIN)
    assert trained.returncode == 0, trained.stderr
    assert "V_rand" in trained.stdout
    with tifffile.TiffFile(tmp_path / "prediction.tif") as tiff:
        assert tiff.is_imagej
        prediction = tiff.asarray()
    assert (prediction.shape, prediction.dtype) == ((2, 128, 128), np.float32)
    assert prediction.min() >= 0
    assert prediction.max() <= 1
    assert prediction.std() > 0.02
    scores = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert 0 <= scores["best"]["V_rand"]["V_rand"] <= 1
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {"augmented", "patches", "checkpoint", "model.keras", "config.json", "history.csv", "metrics.json",
                     "holdout.tif", "holdout.png", "curve.png"}

    # the final step alone gives the same, and data/ is as it was
    again = script("predict.py", "stacks/test-volume.tif", "--out", "again.tif", "--instances", "cells.tif")
    assert again.returncode == 0, again.stderr
    cells = tifffile.imread(tmp_path / "cells.tif")
    assert (cells.shape, cells.dtype) == ((2, 128, 128), np.uint16)
    assert all(np.array_equal(np.unique(one), np.arange(one.max() + 1)) for one in cells)
    scored = script("metrics.py", "cells.tif", "stacks/test-labels.tif", "--instances", "--json", "cells.json")
    assert scored.returncode == 0, scored.stderr
    assert 0 < json.loads((tmp_path / "cells.json").read_text())["mean"]["V_rand"] <= 1
    np.testing.assert_allclose(tifffile.imread(tmp_path / "again.tif"), prediction, atol=2e-2)  # bfloat16
    assert data == {path.name: hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "stacks").iterdir()}
    scored = script("metrics.py", "results/holdout.tif", "stacks/train-labels.tif", "--slices", "5")
    assert scored.returncode == 0, scored.stderr
    assert f"{scores['best']['V_rand']['V_rand']:.4f}" in scored.stdout


def test_steps_out_of_order_are_one_clear_line(script, tiny_folder):
    for name, advice in (("preprocessing.py", "python augmentation.py"), ("train.py", "python preprocessing.py"),
                         ("augmentation.py", "python datasets.py")):
        result = script(name)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert advice in last_line(result)
    missing = script("predict.py", tiny_folder / "test-volume.tif")
    assert missing.returncode == 2
    assert "python train.py" in last_line(missing)


def test_an_output_that_is_a_folder_is_refused_before_the_work(script, tiny_folder, tmp_path):
    assert script("augmentation.py", "--data", tiny_folder, "--copies", 1).returncode == 0
    assert script("preprocessing.py", "--tile", 64, "--margin", 8).returncode == 0
    result = script("train.py", "--out", tmp_path)
    assert result.returncode == 2
    assert "is a folder" in last_line(result)
    assert not (tmp_path / "results" / "model.keras").exists()
    assert script("train.py", "--seed", -1).returncode == 2


def hear_interrupts():
    """What a shell starts in the background ignores Ctrl-C, and hands that down: to these tests and their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def deaf_workers(parent):
    """How many worker processes of `parent` have come so far as to leave Ctrl-C to it; Linux tells."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            command = status.with_name("cmdline").read_bytes()
        except OSError:  # ended meanwhile
            continue
        ignored = int(fields["SigIgn"], 16) >> (signal.SIGINT - 1) & 1
        count += int(fields["PPid"]) == parent and b"spawn_main" in command and ignored
    return count


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what a process ignores")
def test_ctrl_c_while_workers_augment_is_one_line(tiny_folder, tmp_path):
    process = subprocess.Popen([sys.executable, str(ROOT / "augmentation.py"), "--data", str(tiny_folder), "--copies",
                                "20000", "--workers", "2"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                               start_new_session=True, preexec_fn=hear_interrupts)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and deaf_workers(process.pid) < 2:
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to the workers as well
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not list((tmp_path / "results").iterdir())


def test_a_thousand_copies_need_no_more_memory_than_one(tiny_folder, tmp_path):
    peaks = []
    for copies in (1, 1000):
        code = ("import resource, sys; sys.argv = ['augmentation.py', *sys.argv[1:]]; import augmentation; "
                "augmentation.main(); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
        result = subprocess.run([sys.executable, "-c", code, "--data", str(tiny_folder), "--work", str(tmp_path / "w"),
                                 "--copies", str(copies), "--workers", "1"], capture_output=True, text=True,
                                env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120)
        peaks.append(int(result.stdout.split()[-1]))  # KiB
    pages = 5 * 1000 * 64 * 64 * 2 / 1024  # what was written: 40 MB
    assert peaks[1] - peaks[0] < pages / 8


def test_a_folder_that_cannot_be_written_is_one_clear_line(script, tiny_folder, tmp_path):
    (tmp_path / "file").write_text("here is no folder")
    result = script("augmentation.py", "--data", tiny_folder, "--work", "file/results", "--copies", 0)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "--work" in last_line(result)
