"""How the scripts and their worker processes end: SIGTERM, Ctrl-C at any moment, a parent that is killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from unet.system.signals import delay_signals, end_at_once

ROOT = Path(__file__).resolve().parent.parent.parent
WORKERS = """
import os, sys, time
from unet.system.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import unet.system.workers
import utils

def work(seconds):
    os.write(1, b"at work\\n")  # in one piece: where Python doesn't buffer, print writes the line's end by itself
    time.sleep(seconds)

def main():
    print("ready", flush=True)
    for _ in unet.system.workers.in_order(work, [0.2] * 100, 2):
        pass

if __name__ == "__main__":
    utils.run(main)
"""
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX systems")


@pytest.fixture
def working(tmp_path):
    """A script whose work two processes do, started in a session of its own; ended after the test."""
    (tmp_path / "working.py").write_text(WORKERS)
    process = subprocess.Popen([sys.executable, "working.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.PIPE, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it may be ignored
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout.readline() == "ready\n"
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its workers, too: they hold its pipes
    process.communicate()


def workers(process):
    return [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


MOMENTS = {
    "before any process": lambda _: None,
    "as the first process starts": lambda process: wait_for(lambda: workers(process)),
    "as the second one starts": lambda process: wait_for(lambda: len(workers(process)) == 2),
    "at work": lambda process: process.stdout.readline() == "at work\n" or pytest.fail("nobody works")}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_is_one_line_whenever_it_comes(working, moment):
    MOMENTS[moment](working)
    os.killpg(working.pid, signal.SIGINT)  # a terminal sends it to all
    ends_with(working, 130)


@pytest.mark.parametrize("moment", ["before any process", "at work"])
def test_sigterm_is_one_line_with_its_own_status(working, moment):
    MOMENTS[moment](working)
    working.terminate()
    ends_with(working, 143)


def ends_with(working, status):
    _, errors = working.communicate(timeout=300)
    assert working.returncode == status
    assert errors.strip().splitlines() == ["working.py: stopped; what was finished before is on disk, nothing is "
                                           "half-written"]


def test_workers_of_a_killed_process_end_too(working):
    wait_for(lambda: len(workers(working)) == 2)
    left = workers(working)
    MOMENTS["at work"](working)
    working.kill()
    wait_for(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in left))


# ------------------------------------------------------------------------------------------- before and after the work


FIRST = {"augmentation.py": "numpy", "preprocessing.py": "numpy", "train.py": "keras", "predict.py": "numpy",
         "datasets.py": "numpy", "metrics.py": "numpy", "model.py": "keras", "report.py": "nbformat",
         "-m unet.pipeline": "numpy"}  # the first large library of each


def started(folder, words, **files):
    """A command that says `ready` on its first line, beside modules of these texts that come before all others."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                               env={**os.environ, "PYTHONPATH": str(folder)})
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("script", FIRST)
def test_ctrl_c_while_libraries_come_in_is_no_traceback(script, tmp_path):
    process = started(tmp_path, script.split(), **{FIRST[script]: "import time\nprint('ready', flush=True)\n"
                                                                  "time.sleep(600)\n"})
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=300)[1] == ""
    assert process.returncode == -signal.SIGINT  # of which a shell makes 130


def test_a_second_ctrl_c_while_python_leaves_is_no_traceback(tmp_path):
    process = started(tmp_path, ["-m", "leaves"], leaves="""
import atexit, time
from unet.system.signals import end_at_once
end_at_once()
from utils import run
def main():
    print("ready", flush=True)
    time.sleep(600)
atexit.register(lambda: (print("leaving", flush=True), time.sleep(600)))
run(main)
""")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "leaving\n"
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=300)[1]
    assert len(errors.strip().splitlines()) == 1 and "stopped; what was finished before is on disk" in errors
    assert process.returncode == -signal.SIGINT


def test_ctrl_c_that_is_ignored_stays_ignored():
    """As of a command that was started with `nohup`, or in the background of a shell script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        end_at_once()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def heard():
    """Signals that came, by number; whoever asks for this stands in for what `utils.run` does with them."""
    came = []

    def stop(number, _):
        came.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    yield came
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_put_off_to_where_it_is_asked_for_or_the_end(heard, number):
    with pytest.raises(KeyboardInterrupt), delay_signals() as answer:
        signal.raise_signal(number)
        assert not heard
        answer()
        pytest.fail("it was asked for")
    with pytest.raises(KeyboardInterrupt), delay_signals():
        signal.raise_signal(number)
        assert heard == [number]
    assert heard == [number, number]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)  # as before


def test_a_second_signal_comes_at_once_and_another_error_stays_itself(heard):
    with pytest.raises(KeyboardInterrupt), delay_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it was the second")
    with pytest.raises(ZeroDivisionError), delay_signals():
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError
    assert heard == [signal.SIGTERM]
