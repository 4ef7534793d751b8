"""One process for one output: the second is refused by the first's number, the dead are in nobody's way."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from unet.system.lock import RUN, STEP, lock_outputs, lock_path, lock_run
from utils import UserError, atomic_path

HOLD = """
import sys
from pathlib import Path
from unet.system.lock import lock_outputs
from utils import atomic_path
with lock_outputs([Path(sys.argv[1])]), atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds p.tif until a line comes."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "p.tif")], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_who_is_first_and_comes_in_after_it(tmp_path, holder):
    with pytest.raises(UserError, match=rf"p\.tif is being written by process {holder.pid} right now; wait for it"), \
            lock_outputs([tmp_path / "other.tif", tmp_path / "p.tif"]):
        pass
    with lock_outputs([tmp_path / "other.tif"]):  # what was held on the way is free again
        pass
    holder.communicate("go on\n")
    assert (tmp_path / "p.tif").read_text() == "half"
    (tmp_path / "p.tif").unlink()
    with lock_outputs([tmp_path / "p.tif"]):
        assert json.loads(lock_path(tmp_path / "p.tif").read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_is_not_in_the_way_nor_what_it_left_half_written(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert {path.name for path in tmp_path.iterdir()} == {".p.tif.lock", f".p.{holder.pid}.tif"}
    with lock_outputs([tmp_path / "p.tif"]), atomic_path(tmp_path / "p.tif") as temporary:
        temporary.write_text("whole")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"p.tif": "whole"}


def test_a_process_that_got_a_dead_ones_number_is_not_taken_for_it(tmp_path):
    mine = {"process": os.getpid(), "started": 0, "machine": socket.gethostname()}
    lock_path(tmp_path / "p.tif").write_text(json.dumps(mine))
    with lock_outputs([tmp_path / "p.tif"]):
        pass


def test_of_another_machine_nobody_can_tell(tmp_path):
    path = lock_path(tmp_path / "p.tif")
    path.write_text(json.dumps({"process": 1, "started": 0, "machine": "elsewhere"}))
    with pytest.raises(UserError, match=r"by process 1 on elsewhere; if it no longer runs there, delete .*k"), \
            lock_outputs([tmp_path / "p.tif"]):
        pass
    path.write_text("")  # made by a process that was killed before it wrote its name
    with lock_outputs([tmp_path / "p.tif"]):
        pass


# ---------------------------------------------------------------------------------------------- a run's folder

WORK = """
import subprocess, sys
from pathlib import Path
from unet.system.lock import lock_run
with lock_run(Path(sys.argv[1]), whole=sys.argv[2] == "whole"):
    if sys.argv[2] == "whole":  # as make starts the scripts
        sys.exit(subprocess.run([sys.executable, "-c", sys.argv[3], sys.argv[1], "step"]).returncode)
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["step", "whole"])
def worker(request, tmp_path):
    """Another process at work in results/, alone or started by one that runs all scripts."""
    process = subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path / "results"), request.param, WORK], cwd=ROOT,
                               text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_in_a_folder_is_refused_and_comes_in_after_it(tmp_path, worker):
    with pytest.raises(UserError, match=rf"results is being written by process {worker.pid} right now; wait for it, or "
                                        "name another folder with --work"), lock_run(tmp_path / "results"):
        pass
    worker.communicate("go on\n")
    assert worker.returncode == 0
    assert not (tmp_path / "results").exists()
    with lock_run(tmp_path / "results"):
        assert {path.name for path in (tmp_path / "results").iterdir()} == {RUN, STEP}


@pytest.mark.parametrize("worker", ["whole"], indirect=True)
def test_a_script_whose_starter_was_killed_still_holds_the_folder(tmp_path, worker):
    step = json.loads((tmp_path / "results" / STEP).read_text())["process"]
    worker.kill()
    worker.wait()
    with pytest.raises(UserError, match=f"by process {step} right now"), lock_run(tmp_path / "results"):
        pass
    os.kill(step, 9)
    while psutil.pid_exists(step):
        time.sleep(0.02)
    with lock_run(tmp_path / "results"):
        pass


def test_a_clock_that_is_set_back_makes_nobody_dead(tmp_path, holder, monkeypatch):
    """Where a process started is reckoned from the machine's start: older and newer psutil add a boot time to it."""
    boot, create = psutil.boot_time, psutil.Process.create_time
    monkeypatch.setattr(psutil, "boot_time", lambda: boot() - 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create(self) - 3600)
    with pytest.raises(UserError, match=f"by process {holder.pid}"), lock_outputs([tmp_path / "p.tif"]):
        pass


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no place here where folders cannot be made")
def test_where_no_folder_can_be_made_one_sentence_says_so():
    said = "/proc/run: no folder can be made there; choose another with --work"
    with pytest.raises(UserError, match=said), lock_run(Path("/proc/run")):
        pytest.fail("it is there")
