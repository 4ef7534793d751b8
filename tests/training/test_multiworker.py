"""Two processes on this machine train together as on two: the first alone writes, either may be killed, all agree."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import call

from unet.inputs.demo import make_demo

EPOCHS = 4
OPTIONS = ("--strategy", "multiworker", "--epochs", EPOCHS, "--steps", "4", "--batch", "2", "--filters", "8", "--depth",
           "2", "--lr", "3e-3", "--precision", "float32")
PATIENCE = 1800  # seconds: a launch takes 20, on a machine that does ten other things 240


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """Folder of demo/ and of results/ with its tiles."""
    folder = tmp_path_factory.mktemp("cluster")
    make_demo(folder / "demo", slices=4, test_slices=1, size=64)
    for command in (("augmentation.py", "--data", folder / "demo", "--copies", 1, "--workers", 1),
                    ("preprocessing.py", "--tile", 64, "--margin", 8)):
        assert call(folder, *command).returncode == 0
    return folder


def free_ports(count):
    """Ports that nobody has now, nor gets by asking for any: until both processes are there, minutes may go by."""
    found = []
    for port in random.SystemRandom().sample(range(10_000, 32_000), 100):  # systems hand out higher ones
        with socket.socket() as one, suppress(OSError):
            one.bind(("localhost", port))
            found.append(port)
    return found[:count]


def launch(folder, work, *options, ended=(), by=signal.SIGKILL, epoch=0):
    """Start both processes, of which some may be ended in an epoch; gives exit status, output and errors of each."""
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    processes = []
    for number in (0, 1):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task), "PYTHONPATH": os.pathsep.join(sys.path),
                       "ENDS": f"{epoch} {by:d}" if number in ended else "", "READS": str(folder) if number else ""}
        processes.append(subprocess.Popen(
            [sys.executable, __file__, "--work", work, *map(str, options)], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    try:
        outputs = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def state(work):
    with np.load(work / "checkpoint.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if name != "state"}


@pytest.mark.slow
def test_the_first_writes_and_a_run_of_which_either_was_killed_is_the_run_that_was_not(tiled):
    for name in ("whole", "killed"):
        (tiled / name).mkdir()
        for step in ("augmented", "patches"):
            (tiled / name / step).symlink_to(tiled / "results" / step)
    whole = launch(tiled, "whole", *OPTIONS)
    asked = launch(tiled, "killed", *OPTIONS, ended=(0, 1), by=signal.SIGTERM, epoch=1)  # as a cluster asks all
    assert 143 in [status for status, _, _ in asked]
    for status, _, errors in asked:  # whoever hears of the other's end first, says that
        assert "Traceback" not in errors, errors
        assert {143: "'python train.py --work killed --strategy multiworker --resume' does what is left",
                130: "another process of this run ended or cannot be reached"}[status] in errors
    options = ("--strategy", "multiworker", "--resume")
    for killed, epoch in ((1, 2), (0, 3)):
        ended = launch(tiled, "killed", *options, ended=[killed], epoch=epoch)
        assert ended[killed][0] == -signal.SIGKILL, ended[killed][2]
        status, _, errors = ended[1 - killed]
        assert (status, "Traceback" in errors) == (130, False), errors
        assert "another process of this run ended or cannot be reached" in errors
        assert "start all processes again with --resume" in errors
    resumed = launch(tiled, "killed", *options)
    assert [status for status, _, _ in (*whole, *resumed)] == [0] * 4, [errors for _, _, errors in (*whole, *resumed)]
    digests = [output.splitlines()[-1] for _, output, _ in (*whole, *resumed)]
    assert digests[0].startswith("weights ")
    assert digests[0] == digests[1]
    assert digests[2] == digests[3]
    assert f"epoch {EPOCHS - 1}/{EPOCHS}" not in resumed[0][1]  # from the last checkpoint
    assert f"epoch {EPOCHS}/{EPOCHS}" in resumed[0][1]
    assert "epoch" not in whole[1][1].replace("epochs", "")
    expected = state(tiled / "whole")
    for name, array in state(tiled / "killed").items():
        np.testing.assert_allclose(array, expected[name], atol=1e-5, err_msg=name)
    assert {path.name for path in (tiled / "killed").iterdir()} == {path.name for path in (tiled / "whole").iterdir()}


@pytest.mark.slow
def test_processes_that_do_not_agree_say_so(tiled):
    other = {**os.environ}
    try:
        os.environ["OTHER"] = "7"  # the second one's seed
        ended = launch(tiled, "results", *OPTIONS)
    finally:
        os.environ.clear()
        os.environ.update(other)
    assert [status for status, _, _ in ended] == [2, 2]
    assert all("the processes of this run do not agree" in errors for _, _, errors in ended)


# ------------------------------------------------------------------------------------------- one of the processes


def only_reads(folder):
    """Leave at once with exit status 9 where anything in this folder is written."""
    def hook(event, arguments):
        paths = [str(one) for one in arguments[:1 + (event == "os.rename")] if isinstance(one, str | os.PathLike)]
        writes = event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and any(os.path.abspath(path).startswith(folder + os.sep) for path in paths):
            sys.stderr.write(f"{event} {paths}\n")
            os._exit(9)

    sys.addaudithook(hook)


def main():
    import train
    from unet.training.keeper import Keeper
    from utils import run

    if os.environ["READS"]:
        only_reads(os.environ["READS"])
        sys.argv += ["--seed", os.environ["OTHER"]] if "OTHER" in os.environ else []
    original, trained = Keeper.on_train_batch_end, train.train

    def on_train_batch_end(self, batch, logs=None):
        original(self, batch, logs)
        epoch, _, number = os.environ["ENDS"].partition(" ")
        if str(len(self.rows)) == epoch and batch == 2:
            os.kill(os.getpid(), int(number))

    def train_and_keep(*arguments):
        model, config = trained(*arguments)
        train.weights = zlib.crc32(b"".join(array.tobytes() for array in model.get_weights()))
        return model, config

    Keeper.on_train_batch_end, train.train = on_train_batch_end, train_and_keep
    run(train.main)
    print("weights", train.weights)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
