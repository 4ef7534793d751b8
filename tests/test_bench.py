"""The measurements run: what they print is a figure of what they say."""

import subprocess
import sys

import pytest
from conftest import ROOT
from memory import peak


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
def test_the_memory_bench_prints_both_figures():
    sizes = ("--side", "128", "--page", "256")
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "bench.py"), "memory", *sizes],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "64 slices against 8:" in done.stdout
    assert "one page: 0." in done.stdout
