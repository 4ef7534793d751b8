"""Prediction: stitched equals whole, any size, one normalisation, all written or nothing."""

import json
from dataclasses import asdict

import keras
import numpy as np
import pytest
import tifffile

import predict
from model import Network, build_unet
from predict import load_model, predict_slice, write_prediction
from preprocessing import NORMALISATION
from unet.segment.crests import along_crests
from utils import UserError

SAME = Network(4, 2, dropout=(0, 0, 0))
VALID = Network(4, 2, "valid", dropout=(0, 0, 0))


def random_model(network):
    """Random weights whose output depends on the whole receptive field."""
    keras.utils.set_random_seed(3)
    model = build_unet(network, 1, **NORMALISATION)
    for layer in model.layers:
        layer.set_weights([weight * 1.5 for weight in layer.get_weights()])
    return model


@pytest.mark.parametrize("network", [SAME, VALID, Network(4, 2, up="upsample", dropout=(0, 0, 0)),
                                     Network(4, 2, half=True, dropout=(0, 0, 0))])
@pytest.mark.parametrize("shape", [(96, 96), (61, 97), (40, 130), (5, 3)])
def test_stitched_prediction_is_the_whole_images_prediction(network, shape, rng):
    model = random_model(network)
    image = rng.integers(0, 256, shape, np.uint8)
    whole = predict_slice(model, image, network, NORMALISATION, core=512)
    stitched = predict_slice(model, image, network, NORMALISATION, core=4 * network.stride)
    assert whole.shape == shape
    assert whole.dtype == np.float32
    assert whole.std() > 0.01 or min(shape) < 8
    np.testing.assert_allclose(stitched, whole, atol=2e-6)


def test_eight_flips_give_the_same_for_a_flipped_slice(rng):
    model = random_model(SAME)
    image = rng.integers(0, 256, (40, 52), np.uint8)
    plain, turned = (predict_slice(model, picture, SAME, NORMALISATION, flips=8) for picture in (image, image[::-1].T))
    np.testing.assert_allclose(turned, plain[::-1].T, atol=2e-6)
    assert np.abs(plain - predict_slice(model, image, SAME, NORMALISATION)).max() > 1e-3


@pytest.mark.parametrize("shape", [(40, 52), (61, 33)])
def test_a_magnified_prediction_has_the_slices_size_and_place(shape):
    def bright(x):  # a network that finds bright pixels: what it says must lie where they are
        return 1 / (1 + np.exp(128.0 - x))

    class Model:
        output_shape = (None, None, None, 1)

        def predict_on_batch(self, tiles):
            return bright(tiles.astype(np.float32))

    image = np.full(shape, 100, np.uint8)
    image[10:20, 8:24] = 200
    probability = predict_slice(Model(), image, SAME, {"mean": 128.0, "sd": 40.0}, zooms=(1.0, 1.5))
    assert probability.shape == shape
    assert probability.dtype == np.float32
    inside = np.zeros(shape, bool)
    inside[11:19, 9:23] = True
    assert probability[inside].min() > 0.9
    inside[9:21, 7:25] = True
    assert probability[~inside].max() < 0.1


def test_a_margin_below_the_receptive_field_shows_seams(rng):
    model = random_model(SAME)
    image = rng.integers(0, 256, (96, 96), np.uint8)
    whole = predict_slice(model, image, SAME, NORMALISATION)
    seams = predict_slice(model, image, SAME, NORMALISATION, core=16, margin=0)
    assert np.abs(seams - whole).max() > 1e-3


def test_brightness_and_contrast_of_the_microscope_do_not_change_the_prediction(rng):
    model = random_model(SAME)
    image = rng.normal(120, 20, (64, 64)).clip(60, 180).astype(np.uint8)
    brighter = (image + 40).astype(np.uint8)
    assert np.array_equal(predict_slice(model, image, SAME, NORMALISATION),
                          predict_slice(model, brighter, SAME, NORMALISATION))


@pytest.fixture
def saved(tmp_path):
    """A model on disk as train.py leaves it."""
    model = random_model(SAME)
    model.save(tmp_path / "model.keras")
    network = asdict(SAME)
    (tmp_path / "config.json").write_text(json.dumps({"network": network, "channels": 1,
                                                      "normalisation": NORMALISATION, "recipe": {"flips": 1}}))
    return tmp_path / "model.keras"


def test_prediction_is_an_imagej_stack_of_probabilities(saved, rng, tmp_path):
    model, config = load_model(saved)
    images = rng.integers(0, 256, (3, 50, 70), np.uint8)
    out = tmp_path / "prediction.tif"
    write_prediction(model, images, config, out)
    with tifffile.TiffFile(out) as tiff:
        assert tiff.is_imagej
        stack = tiff.asarray()
    assert (stack.shape, stack.dtype) == ((3, 50, 70), np.float32)
    assert stack.min() >= 0
    assert stack.max() <= 1
    np.testing.assert_allclose(stack[1], predict_slice(random_model(SAME), images[1], SAME, NORMALISATION), atol=1e-6)


def test_membranes_become_walls_where_the_run_says_so(saved, rng, monkeypatch):
    model, config = load_model(saved)
    probability = np.ones((40, 60), np.float32)
    probability[:, 30] = 0.2
    monkeypatch.setattr(predict, "predict_slice", lambda *_, **__: probability)
    image = rng.integers(0, 256, (1, 40, 60), np.uint8)
    np.testing.assert_array_equal(next(predict.predict_slices(model, image, config)), probability)
    walls = next(predict.predict_slices(model, image, {**config, "membrane": 5.0}))
    np.testing.assert_array_equal(walls, along_crests(probability, 5.0))
    assert np.count_nonzero(walls < 0.5) == 40 * 5
    monkeypatch.setattr(predict, "judge_walls", lambda walls, learnt: np.full(len(walls.sides), learnt["value"]))
    walls = next(predict.predict_slices(model, image, {**config, "membrane": 5.0, "walls": {"value": 0.7}}))
    assert np.count_nonzero(walls == np.float32(0.7)) == 40 * 5


def test_a_prediction_that_breaks_off_leaves_the_old_file(saved, rng, tmp_path, monkeypatch):
    model, config = load_model(saved)
    out = tmp_path / "prediction.tif"
    out.write_bytes(b"old")
    calls = []

    def breaks_off(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return np.zeros((50, 70), np.float32)

    monkeypatch.setattr(predict, "predict_slice", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        write_prediction(model, rng.integers(0, 256, (3, 50, 70), np.uint8), config, out)
    assert out.read_bytes() == b"old"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_missing_or_broken_model_says_what_to_run(saved):
    with pytest.raises(UserError, match=r"python train\.py"):
        load_model(saved.with_name("other.keras"))
    saved.write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read as a model"):
        load_model(saved)
    saved.with_name("config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json not found"):
        load_model(saved)
