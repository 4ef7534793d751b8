"""Affinities say which pixels share a cell; they count while a network trains, and are gone when it predicts."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from training.tiny import write_patches

import train
from model import PRESETS, Network, Recipe, with_encoder
from unet.network import OFFSETS
from unet.training.affinities import affinity_loss, number_pieces
from unet.training.parts import InParts

RECIPE = Recipe(Network(8, 1, dropout=(0, 0), half=True), epochs=2, steps=3, batch=4, lr=0.02, optimizer="muon",
                average=1.0, affinities=0.5)


def by_hand(cells, logits, step):
    """The same, a pair of pixels after the other."""
    losses, (count, height, width) = [], cells.shape[:3]
    for tile in range(count):
        for y in range(0, height, step):
            for x in range(0, width, step):
                for number, (down, right) in enumerate(OFFSETS):
                    if y + down < height and 0 <= x + right < width:
                        same = cells[tile, y, x, 0] == cells[tile, y + down, x + right, 0] > 0
                        logit = logits[tile, y // step, x // step, number]
                        losses.append(np.log1p(np.exp(-logit if same else logit)))
    return np.mean(losses)


@pytest.mark.parametrize(("step", "side"), [(1, 32), (2, 32), (2, 16)])
def test_the_loss_is_that_of_all_pairs_of_pixels(rng, step, side):
    cells = np.stack([number_pieces(rng.random((side, side, 1)) > 0.3) for _ in range(2)]).astype(np.float32)
    logits = rng.normal(size=(2, side // step, side // step, len(OFFSETS))).astype(np.float32)
    assert float(affinity_loss(tf.constant(cells), tf.constant(logits))) == pytest.approx(
        by_hand(cells, logits, step), rel=1e-5)


def test_a_tile_smaller_than_every_offset_has_none():
    assert float(affinity_loss(tf.ones((1, 4, 4, 1)), tf.ones((1, 4, 4, len(OFFSETS))))) == 0


def test_cells_are_numbered_in_a_tile():
    label = np.array([[1, 0, 1], [1, 0, 1], [0, 1, 0]], np.uint8)[..., np.newaxis]
    np.testing.assert_array_equal(number_pieces(label)[..., 0], [[1, 0, 2], [1, 0, 2], [0, 3, 0]])


def test_they_change_what_is_learnt_and_are_no_part_of_the_model(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(train, "InParts", lambda *args, **kwargs: kept.append(InParts(*args, **kwargs)) or kept[-1])
    work = write_patches(tmp_path / "with")
    recipe = replace(RECIPE, optimizer="adam")  # half the time of Muon, which goes on from its checkpoint below
    model, config = train.train(work, recipe, seed=1)
    plain, _ = train.train(write_patches(tmp_path / "without"), replace(recipe, affinities=0.0), seed=1)
    assert [weight.path for weight in model.weights] == [weight.path for weight in plain.weights]
    assert len(model.outputs) == 1
    assert model.count_params() == config["parameters"]
    assert config["recipe"]["affinities"] == 0.5
    assert not np.allclose(model.get_weights()[-2], plain.get_weights()[-2])
    head = kept[0].get_layer("affinities")
    assert np.abs(head.bias.numpy()).max() > 0  # it learnt, too
    tiles = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1)).astype(np.float32)
    shared = {layer.name: layer.get_weights() for layer in kept[0].layers if layer.name != "affinities"}
    rest = keras.models.clone_model(model)
    for layer in rest.layers:
        layer.set_weights(shared[layer.name])
    np.testing.assert_allclose(rest(tiles), kept[0](tiles)[0], atol=1e-6)


def test_the_loss_that_is_shown_is_the_probabilitys(tmp_path):
    work = write_patches(tmp_path)
    losses = []
    for weight in (0.5, 1e-9):
        train.train(work, replace(RECIPE, epochs=1, steps=1, optimizer="adam", affinities=weight), seed=1)
        losses.append((work / "history.csv").read_text().splitlines()[1].split(",")[3])
    assert losses[0] == losses[1]


def test_a_run_with_affinities_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    whole = train.train(write_patches(tmp_path / "whole"), RECIPE, seed=1)[0]
    work = write_patches(tmp_path / "stopped")
    fit, ended = InParts.fit, []

    def stop(model, *args, epochs, **kwargs):
        fit(model, *args, epochs=1 if not ended else epochs, **kwargs)
        if not ended:
            ended.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(InParts, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        train.train(work, RECIPE, seed=1)
    resumed = train.train(work, RECIPE, seed=1, resume=True)[0]
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_trains_with_them():
    assert {name for name, recipe in PRESETS.items() if recipe.affinities} == {"fast", "cpu", "best", "gpu"}
    assert with_encoder(PRESETS["cpu"], "vgg16").affinities == 0
