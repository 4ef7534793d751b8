"""A model file is data: damaged or hostile, it is refused in one line, and nothing in it runs."""

import json
from dataclasses import asdict

import keras
import numpy as np
import pytest
import tensorflow as tf

from unet.network import Network
from unet.tasks.cells import Cells
from unet.training.encoders import build
from unet.training.trained import load_model
from utils import UserError

NETWORK = Network(4, 2, dropout=(0.0,) * 3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A small model.keras with its config.json."""
    folder, task = tmp_path_factory.mktemp("run"), Cells()
    config = {"task": task.settings(), "network": asdict(NETWORK), "channels": task.channels,
              "normalisation": task.normalisation, "recipe": {"flips": 8}}
    (folder / "config.json").write_text(json.dumps(config))
    build(NETWORK, task.channels, task.normalisation).save(folder / "model.keras")
    return folder / "model.keras"


@pytest.fixture
def content(path):
    """Its bytes, which are put back afterwards."""
    whole = path.read_bytes()
    yield whole
    path.write_bytes(whole)


def test_a_card_compiles_nothing_anew_for_tiles_of_each_size(path, monkeypatch):
    cards = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: cards)
    assert load_model(path)[0].jit_compile is False


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_model_that_is_cut_short(path, content, share):
    path.write_bytes(content[:int(share * len(content))])
    with pytest.raises(UserError, match=r"model\.keras cannot be read as a model \(.+\); run 'python train\.py'"):
        load_model(path)


def test_bits_that_flip_anywhere(path, content, rng):
    for place in rng.integers(0, len(content), 40):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1:])
        try:
            load_model(path)  # some bytes mean nothing
        except UserError as error:
            assert "\n" not in str(error)


def test_nothing_in_a_model_runs(path, content, tmp_path):
    """A layer whose code would make a file, in a model of the same shape of input and output."""
    trap = tmp_path / "it ran"

    run = eval(f"lambda image: [open({str(trap)!r}, 'w').close(), image][1]")  # nothing of it lies outside its code
    image = keras.Input((None, None, 1))
    model = keras.Model(image, keras.layers.Lambda(run, output_shape=(None, None, 1))(image))
    model.save(path)
    with pytest.raises(UserError, match="cannot be read as a model"):
        load_model(path)
    assert not trap.exists()
    keras.models.load_model(path, safe_mode=False)(np.zeros((1, 8, 8, 1), np.float32))
    assert trap.exists()  # so it would have
    path.write_bytes(content)
    assert load_model(path)[0].predict_on_batch(np.zeros((1, 64, 64, 1), np.uint8)).shape[0] == 1


def test_a_missing_or_strange_model_says_what_to_do(path, content, tmp_path):
    with pytest.raises(UserError, match=r"other\.keras not found; run 'python train\.py'"):
        load_model(path.with_name("other.keras"))
    with pytest.raises(UserError, match=r"is a folder; name the model in it, for instance .*model\.keras"):
        load_model(path.parent)
    alone, config = tmp_path / "model.keras", json.loads(path.with_name("config.json").read_text())
    alone.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json not found"):
        load_model(alone)
    (tmp_path / "config.json").write_text(json.dumps({**config, "normalisation": {"mean": 0, "sd": 1}}))
    with pytest.raises(UserError, match=r"version normalises them to .*; predict with the version that trained it"):
        load_model(alone)


@pytest.mark.parametrize("change", [{"network": {}}, {"network": {"filters": 4, "rooms": 2}}, {"network": 3},
                                    {"task": {"name": "dogs"}}, {"task": {"name": "cells", "breed": 1}}, {"task": []},
                                    {"recipe": {}}, {"recipe": []}, {"recipe": {"flips": 9}}, {"learnt": [1]},
                                    {"learnt": {"threshold": "a"}}, {"learnt": {"threshold": float("nan")}},
                                    {"learnt": {"walls": {"width": "x"}}}, {"learnt": {"walls": {"width": -1}}},
                                    {"network": {"filters": 10**9}}])
def test_a_config_of_something_else_is_refused_before_its_model_is_read(path, tmp_path, change):
    config = json.loads(path.with_name("config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    (tmp_path / "model.keras").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"(config\.json is not what this project writes|cannot be read as a model)"):
        load_model(tmp_path / "model.keras")


def test_a_config_of_brackets_is_refused(path, tmp_path):
    (tmp_path / "config.json").write_text("[" * 200_000)
    (tmp_path / "model.keras").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"config\.json is not what this project writes"):
        load_model(tmp_path / "model.keras")


def test_weights_of_another_network_or_that_are_no_numbers_are_refused(path, content, recwarn):
    task = Cells()
    other = build(Network(8, 1, dropout=(0.0,) * 2), task.channels, task.normalisation)
    broken = build(NETWORK, task.channels, task.normalisation)
    broken.set_weights([array * np.nan for array in broken.get_weights()])
    for model, reason in ((other, "could not be loaded"), (broken, "its weights are not numbers")):
        model.save(path)
        recwarn.clear()
        with pytest.raises(UserError, match=reason):
            load_model(path)
        assert not [warning for warning in recwarn if warning.category is UserWarning]
