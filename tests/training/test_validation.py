"""The curve of the validation block: at most 3 % of the time, and as many steps as say so beforehand."""

import time
from dataclasses import replace

import keras
import pytest
from training.tiny import write_patches

import train
from model import PRESETS, Network, Recipe


class Stopwatch(keras.callbacks.Callback):
    """Processor time of each validation, and of all from the end of the first epoch on, s: before, all is compiled."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.began, self.validated = time.process_time(), 0.0

    def on_test_begin(self, logs=None):
        self.at = time.process_time()

    def on_test_end(self, logs=None):
        if hasattr(self, "began"):
            self.validated += time.process_time() - self.at

    def on_train_end(self, logs=None):
        self.total = time.process_time() - self.began


@pytest.mark.slow
def test_validation_costs_at_most_three_percent_of_the_time(tmp_path, monkeypatch):
    watch, pace = Stopwatch(), train.Pace
    monkeypatch.setattr(train, "Pace", lambda *arguments: keras.callbacks.CallbackList([watch, pace(*arguments)]))
    recipe = Recipe(Network(16, 2, dropout=(0, 0, 0)), epochs=4, steps=25, batch=4, lr=2e-3, validation=True)
    train.train(write_patches(tmp_path, side=128, count=40), recipe)
    assert 0 < watch.validated < 0.03 * watch.total


@pytest.mark.parametrize("preset", PRESETS)
def test_a_validation_is_a_twenty_fifth_of_the_tiles_of_an_epoch_at_most(preset, tmp_path, monkeypatch):
    """A forward pass is less than half of a training step, so that this is 2 % of the time."""
    class Found(Exception):
        pass

    def fit(self, *_, validation_steps, **__):
        raise Found(validation_steps)

    monkeypatch.setattr(train.InParts, "fit", fit)
    recipe = PRESETS[preset]
    tiny = Recipe(Network(4, 1, dropout=(0, 0)), epochs=1, steps=recipe.steps, batch=recipe.batch, validation=True)
    with pytest.raises(Found) as found:
        train.train(write_patches(tmp_path, count=200), replace(tiny, optimizer="adam"))
    assert 1 <= found.value.args[0] <= 0.04 * recipe.steps
