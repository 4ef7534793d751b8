"""One process for one output: the second is refused by the first's number, the dead are in nobody's way."""

import json
import os
import socket
import subprocess
import sys

import psutil
import pytest
from conftest import ROOT

from unet.predicting.lock import lock_path, locked
from utils import UserError, atomic_path

HOLD = """
import sys
from pathlib import Path
from unet.predicting.lock import locked
from utils import atomic_path
with locked([Path(sys.argv[1])]), atomic_path(Path(sys.argv[1])) as temporary:
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
            locked([tmp_path / "other.tif", tmp_path / "p.tif"]):
        pass
    with locked([tmp_path / "other.tif"]):  # what was held on the way is free again
        pass
    holder.communicate("go on\n")
    assert (tmp_path / "p.tif").read_text() == "half"
    (tmp_path / "p.tif").unlink()
    with locked([tmp_path / "p.tif"]):
        assert json.loads(lock_path(tmp_path / "p.tif").read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_is_not_in_the_way_nor_what_it_left_half_written(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert {path.name for path in tmp_path.iterdir()} == {".p.tif.lock", f".p.{holder.pid}.tif"}
    with locked([tmp_path / "p.tif"]), atomic_path(tmp_path / "p.tif") as temporary:
        temporary.write_text("whole")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"p.tif": "whole"}


def test_a_process_that_got_a_dead_ones_number_is_not_taken_for_it(tmp_path):
    mine = {"process": os.getpid(), "started": psutil.Process().create_time() - 100, "machine": socket.gethostname()}
    lock_path(tmp_path / "p.tif").write_text(json.dumps(mine))
    with locked([tmp_path / "p.tif"]):
        pass


def test_of_another_machine_nobody_can_tell(tmp_path):
    path = lock_path(tmp_path / "p.tif")
    path.write_text(json.dumps({"process": 1, "started": 0, "machine": "elsewhere"}))
    with pytest.raises(UserError, match=r"by process 1 on elsewhere; if that machine is no longer at it, delete .*k"), \
            locked([tmp_path / "p.tif"]):
        pass
    path.write_text("")  # made by a process that was killed before it wrote its name
    with locked([tmp_path / "p.tif"]):
        pass
