"""A batch in parts makes the step of the whole batch; a run that memory is too small for goes on with parts."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from training.tiny import write_patches

import train
from model import Network, Recipe, build_unet
from unet.training.affinities import affinity_output
from unet.training.optimizer import compile_model
from unet.training.parts import InParts

RECIPE = Recipe(Network(8, 1, dropout=(0, 0)), epochs=2, steps=3, batch=5, lr=0.02, optimizer="muon", average=0.5)


def network(recipe, parts=1, classes=1):
    keras.utils.set_random_seed(3)
    recipe = replace(recipe, network=replace(recipe.network, classes=classes))
    inner = build_unet(recipe.network)
    outputs = [inner.output, affinity_output(inner)] if recipe.affinities else inner.output
    model = InParts(inner.input, outputs, name=inner.name)
    model.affinities = recipe.affinities
    compile_model(model, recipe)
    model.parts, model.run_eagerly = parts, True  # to trace Muon's steps takes longer than they do
    return model


def batches(rng, classes, weighted, count=3):
    for _ in range(count):
        images = rng.integers(0, 256, (5, 16, 16, 1)).astype(np.float32)
        labels = rng.integers(0, max(classes, 2), (5, 16, 16, 1)).astype(np.float32)
        yield images, labels, *([rng.uniform(0, 9, (5, 16, 16)).astype(np.float32)] if weighted else [])


@pytest.mark.parametrize(("optimizer", "parts", "classes", "weighted", "affinities"), [
    ("muon", 2, 1, False, 0.5), ("muon", 8, 1, True, 0.0), ("adam", 4, 3, True, 0.0), ("sgd", 2, 1, True, 0.5)])
def test_steps_in_parts_are_those_of_whole_batches(optimizer, parts, classes, weighted, affinities):
    """Five tiles in parts of three and two, or of one: losses and weights are equal to float error."""
    recipe = replace(RECIPE, optimizer=optimizer, affinities=affinities)
    whole, split = network(recipe, classes=classes), network(recipe, parts, classes)
    for batch in batches(np.random.default_rng(0), classes, weighted):
        assert split.train_on_batch(*batch) == pytest.approx(whole.train_on_batch(*batch), rel=1e-5)
    for one, other in zip(whole.variables, split.variables, strict=True):
        assert one.path.split("/")[-2:] == other.path.split("/")[-2:]
    for one, other in zip(whole.get_weights(), split.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 if optimizer == "muon" else 1e-6)
    assert int(split.optimizer.iterations) == 3


def run(work):
    train.train(work, replace(RECIPE, optimizer="sgd", lr=1e-2), seed=1)
    with np.load(work / "checkpoint.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if name != "state"}


def out_of_memory(monkeypatch, enough, after=4, error=None):
    """From step `after` on, memory has room for a batch in `enough` parts or more alone; gives the parts of each step.
    """
    parts, original = [], InParts.make_train_function

    def make(self, force=False):
        original(self, force)
        function = self.train_function

        def step(iterator):
            if len(parts) >= after and self.parts < enough:
                raise error or tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            parts.append(self.parts)
            return function(iterator)

        if not getattr(function, "counted", False):
            self.train_function = step
            step.counted = True

    monkeypatch.setattr(InParts, "make_train_function", make)
    return parts


def test_a_run_whose_memory_runs_out_goes_on_in_parts_to_the_same_weights(tmp_path, monkeypatch, capsys):
    expected = run(write_patches(tmp_path / "enough"))
    parts = out_of_memory(monkeypatch, enough=4)
    found = run(write_patches(tmp_path / "short"))
    assert parts == [1] * 4 + [4] * 3  # the fifth step fails, and with two parts again; the second epoch begins anew
    said = capsys.readouterr().out
    assert "memory ran out; going on from epoch 2 with each batch in 2 parts" in said
    assert "in 4 parts" in said
    assert expected.keys() == found.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], atol=1e-4, err_msg=name)


def test_where_one_tile_is_too_much_it_is_said(tmp_path, monkeypatch):
    out_of_memory(monkeypatch, enough=99, error=MemoryError("no room"))
    with pytest.raises(MemoryError, match="one tile at a time"):
        run(write_patches(tmp_path))


def test_another_error_is_not_taken_for_memory(tmp_path, monkeypatch):
    out_of_memory(monkeypatch, enough=99, error=RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        run(write_patches(tmp_path))
