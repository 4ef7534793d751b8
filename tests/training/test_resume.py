"""A run that is killed (-9) in three places has the curve and the weights of one that was not."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training.tiny import write_patches

import train
from model import Network, Recipe
from unet.training.keeper import Keeper

# all that has a state of its own: dropout, momenta, the mean of the last three epochs; 10 tiles, read in 6 passes
RECIPE = Recipe(Network(8, 1, dropout=(0.2, 0.5)), epochs=5, steps=4, batch=3, lr=0.02, optimizer="muon", average=0.6,
                intensity=0.5)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def in_an_epoch():
    original = Keeper.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        original(self, batch, logs)
        if len(self.rows) == 1 and batch == 2:
            die()

    Keeper.on_train_batch_end = on_train_batch_end


def in_the_middle_of_a_checkpoint():
    original = np.savez

    def savez(path, state, **arrays):
        original(path, state=state, **arrays)
        if '"epoch": 3' in state:
            os.truncate(path, path.stat().st_size // 2)
            die()

    np.savez = savez


def between_model_and_checkpoint():
    original = Keeper.save_checkpoint
    Keeper.save_checkpoint = lambda self: die() if len(self.rows) == 4 else original(self)


def curve(work):
    rows = list(csv.DictReader((work / "history.csv").open()))
    return np.array([[float(row[name]) for name in ("epoch", "step", "learning_rate", "loss")] for row in rows])


def weights_of(work):
    with np.load(work / "checkpoint.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if name != "state"}


@pytest.mark.slow
def test_a_run_killed_in_three_places_is_the_run_that_was_not(tmp_path):
    killed, whole = (write_patches(tmp_path / name) for name in ("killed", "whole"))
    result = subprocess.run([sys.executable, __file__, str(killed), str(whole)], capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, timeout=600)
    assert result.returncode == 0, result.stderr
    assert curve(whole)[:, 0].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(curve(killed), curve(whole), rtol=1e-5)
    expected = weights_of(whole)
    for name, array in weights_of(killed).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6)
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}


if __name__ == "__main__":
    killed_folder, whole_folder = map(Path, sys.argv[1:])
    places = (in_an_epoch, in_the_middle_of_a_checkpoint, between_model_and_checkpoint)
    # TensorFlow comes in once, and starts no threads before a network is built: processes can still be copied
    for folder, place in ((whole_folder, None), *((killed_folder, place) for place in places), (killed_folder, None)):
        child = os.fork()
        if not child:
            if place:
                place()
            train.train(folder, RECIPE, seed=1, resume=True)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) if place else status == 0, place
