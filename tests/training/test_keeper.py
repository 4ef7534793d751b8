"""What a run says and writes: when it is at its end, what model.keras has, checkpoints that are no good."""

import json

import numpy as np
import pytest
from training.tiny import write_patches

import train
from model import Network, Recipe
from unet.training import keeper as keeper_module
from unet.training.keeper import Keeper, read_state
from utils import UserError


def keeper_after(losses, epochs=10, patience=None, average=0.2):
    keeper = Keeper(None, Recipe(Network(), epochs=epochs, average=average, patience=patience), {})
    keeper.rows = [{"val_loss": loss} for loss in losses]
    return keeper


@pytest.mark.parametrize(("losses", "patience", "finished"), [
    ([], 2, False),
    ([3, 2, 1], 2, False),
    ([1, 2], 2, False),
    ([1, 2, 3], 2, True),
    ([1, 1, 1], 2, True),  # as low is no lower
    ([3, 1, 2, 0.5, 2], 2, False),
    ([3, 2, 1, 0], None, False),
    ([9] * 10, None, True),
])
def test_a_run_ends_with_its_schedule_or_its_patience(losses, patience, finished):
    assert keeper_after(losses, patience=patience).finished is finished


def test_model_keras_is_described_as_what_it_is():
    assert keeper_after([]).describe() == "is as it was"
    assert keeper_after([1] * 7).describe() == "has the weights of epoch 7"
    assert keeper_after([1] * 9).describe() == "has the weights of epoch 9"
    assert keeper_after([1] * 10).describe() == "has the mean of the weights of epochs 9 to 10"
    assert keeper_after([3, 1, 2], patience=5).describe() == (
        "has the weights of epoch 2 of 3, with the least loss on the validation block")


def test_a_checkpoint_that_is_broken_or_of_something_else_is_refused(tmp_path):
    assert read_state(tmp_path) is None
    (tmp_path / "model.keras").write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint\.npz not found, though there is a model"):
        read_state(tmp_path)
    for content in (b"", b"PK\x03\x04", b"text"):
        (tmp_path / "checkpoint.npz").write_bytes(content)
        with pytest.raises(UserError, match="leave out --resume"):
            read_state(tmp_path)
    np.savez(tmp_path / "checkpoint.npz", state=json.dumps({"rows": []}))
    assert read_state(tmp_path) == {"rows": []}


def test_settings_and_tiles_must_be_the_same(tmp_path):
    keeper = Keeper(tmp_path, Recipe(Network()), {"recipe": {"lr": 1, "tiles": "a hash", "batch": 4}})
    state = {"config": {"recipe": {"lr": 1, "tiles": "a hash", "batch": 4}}, "rows": [{"epoch": 1}]}
    keeper.check(state)
    assert keeper.rows == [{"epoch": 1}]
    with pytest.raises(UserError, match="differs in lr, tiles;"):
        keeper.check({**state, "config": {"recipe": {"lr": 3, "tiles": "another", "batch": 4}}})


def test_large_checkpoints_are_written_minutes_apart(tmp_path, monkeypatch):
    """Of seven epochs, 120 s each, those after 300 s or more and the last; a stop in between says what is there."""
    clock, work = [0], write_patches(tmp_path)

    def begin(self, epoch, logs=None):
        self.began = 0.0
        clock[0] += 120

    monkeypatch.setattr(keeper_module, "LARGE_CHECKPOINT", 1)
    monkeypatch.setattr(Keeper, "on_epoch_begin", begin)
    monkeypatch.setattr(keeper_module.time, "monotonic", lambda: clock[0])
    epochs, original = [], Keeper.save_checkpoint
    monkeypatch.setattr(Keeper, "save_checkpoint", lambda self: (
        epochs.append((len(self.rows), self.describe())), original(self)))
    train.train(work, Recipe(Network(2, 1, dropout=(0, 0)), epochs=7, steps=1, batch=2, average=0))
    assert [count for count, _ in epochs] == [0, 3, 6, 7]
    assert len((work / "history.csv").read_text().splitlines()) == 8
    keeper = keeper_after([1] * 5)
    keeper.unsaved = 2
    assert keeper.describe() == "has the weights of epoch 3"
