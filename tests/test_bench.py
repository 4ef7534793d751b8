"""The measurements run: what they print is a figure of what they say."""

import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, draw_stacks
from memory import peak
from transfer import BATTERY, best, disturb, magnify, thicken


@pytest.mark.slow
def test_peak_memory_is_that_of_all_processes(tmp_path):
    """100 MB in a process, and 100 more in its child at the same time, against a process that holds none."""
    hold = "import time; held = bytearray(100_000_000); held[::4096] = bytes(len(held[::4096])) ; {}; time.sleep(0.5)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold.format('0')!r}])"
    plain, _ = peak([sys.executable, "-c", "import time; time.sleep(0.3)"], tmp_path)
    both, seconds = peak([sys.executable, "-c", hold.format(child)], tmp_path)
    assert 190e6 < both - plain < 260e6
    assert seconds > 0.5
    with pytest.raises(subprocess.CalledProcessError) as failed:
        peak([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path)
    assert "no such thing" in failed.value.output


@pytest.mark.slow
def test_the_memory_bench_prints_all_figures():
    sizes = ("--side", "64", "--page", "128", "--slices", "8")
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "bench.py"), "memory", *sizes],
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "augmentation.py, 8 x 64 x 64 uint16: 0." in done.stdout
    assert "preprocessing.py, 8 x 64 x 64 uint8: 0." in done.stdout
    assert "64 slices against 8:" in done.stdout
    assert "one page: 0." in done.stdout


@pytest.mark.slow
def test_the_feed_bench_prints_both_rates():
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "bench.py"), "feed", "--tile", "64", "--steps", "3"],
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "the feed makes " in done.stdout and "the network takes " in done.stdout
    assert "5 required:" in done.stdout and "tiles/s" in done.stdout.splitlines()[-1]
    core, handed, ceiling = (float(found) for found in re.search(
        r"makes (\d+) tiles with one thread.*costs nothing: (\d+) tiles/s.*number of cores: (\d+) tiles/s",
        done.stdout).groups())
    assert core > 140 and 2000 < ceiling <= handed  # 16 cores at 140 tiles are 2,240


def test_a_disturbance_changes_what_it_says():
    images, labels = draw_stacks(3, 96)
    same = disturb("as they are", images, labels)
    assert np.array_equal(same, images)
    for name in set(BATTERY) - {"as they are"}:
        changed = disturb(name, images, labels)
        assert changed.shape != images.shape or np.abs(changed.astype(int) - images).max() > 5, name
        assert np.array_equal(changed, disturb(name, images, labels)), name
    assert magnify(images.astype(float), 1.4).shape == (3, 134, 134)
    stack = np.zeros((3, 2, 2)) + np.array([0, 10, 40])[:, None, None]
    assert thicken(stack)[:, 0, 0].tolist() == [5, 25, 25]
    membrane, stained = labels == 0, disturb("inside of cells stained", images, labels)
    assert np.array_equal(stained[membrane], images[membrane])
    assert stained[~membrane].mean() < images[~membrane].mean() - 3


def test_magnified_maps_are_scored_against_the_labels_as_they_are():
    _, labels = draw_stacks(2, 96)
    cells = (labels > 0).astype(np.float32)
    assert best(list(cells), labels) == (1, 1)
    assert min(best(list(magnify(cells, 1.4)), labels)) > 0.98
    assert best([np.ones((134, 134), np.float32)] * 2, labels)[0] < 0.7
