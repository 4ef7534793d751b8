"""Prediction of an image: stitched equals whole, one normalisation, flips turned back, and how far these disagree."""

import threading
from dataclasses import asdict, replace

import keras
import numpy as np
import pytest
from conftest import draw_nuclei
from finished import SAME, Bright
from numpy.testing import assert_allclose, assert_array_equal

from model import Network
from unet.engines.engines import TensorFlow
from unet.engines.predictor import Limits, Predictor
from unet.tasks.cells import Cells
from unet.tasks.nuclei import Nuclei
from unet.tasks.of_images import ClassImages
from unet.training.encoders import build
from utils import apply_symmetry

NETWORKS = {"same": SAME, "valid": Network(4, 2, "valid", dropout=(0, 0, 0)),
            "upsample": Network(4, 2, up="upsample", dropout=(0, 0, 0)),
            "half resolution": Network(4, 2, half=True, dropout=(0, 0, 0))}
COLOUR = {"mean": 32.0, "sd": 48.0}


def random_model(network, channels=1, mean=128.0, sd=40.0):
    """Return a model of random weights whose output depends on the whole receptive field."""
    keras.utils.set_random_seed(3)
    model = build(network, channels, {"mean": mean, "sd": sd})
    for layer in model.layers:
        layer.set_weights([weight * 1.5 for weight in layer.get_weights()])
    return model


def random_engine(*arguments, **more):
    """Return `random_model` as an engine."""
    return TensorFlow(random_model(*arguments, **more))


@pytest.fixture(scope="module")
def same():
    return random_engine(SAME)


@pytest.mark.parametrize(("name", "shape"), [*((name, (61, 97)) for name in NETWORKS), ("same", (5, 3))])
def test_stitched_prediction_is_the_whole_images_prediction(name, shape, same, rng):
    network = NETWORKS[name]
    engine = same if network == SAME else random_engine(network)
    image = rng.integers(0, 256, shape, np.uint8)
    whole, stitched = (Predictor(engine, network, Cells(), limits=Limits(core, 1)).predict(image)[..., 0]
                       for core in (512, 4 * network.stride))  # one tile a batch: larger batches round otherwise
    assert (whole.shape, whole.dtype) == (shape, np.float32)
    assert whole.std() > 0.01 or min(shape) < 8
    assert_allclose(stitched, whole, atol=2e-6)


def test_stitched_colour_prediction_is_the_whole_images(rng):
    predictor = Predictor(random_engine(SAME, 3, **COLOUR), SAME, Nuclei(), limits=Limits(512))
    image = rng.integers(0, 256, (40, 70, 3), np.uint8)
    whole = predictor.predict(image)
    assert whole.shape == (40, 70, 1)
    assert_allclose(replace(predictor, limits=Limits(4 * SAME.stride)).predict(image), whole, atol=2e-6)
    normalised = Nuclei().normalise(image, Nuclei().levels(image))
    assert_allclose(predictor(image), predictor.predict(normalised)[..., 0], atol=2e-6)


def test_a_margin_below_the_receptive_field_shows_seams(same, rng):
    class WithoutMargin(Network):
        margin = 0

    image = rng.integers(0, 256, (61, 97), np.uint8)
    whole, seamed = (Predictor(same, network, Cells(), limits=Limits(core)).predict(image)
                     for network, core in ((SAME, 512), (WithoutMargin(**asdict(SAME)), 16)))
    assert np.abs(seamed - whole).max() > 1e-3


class InTwoThreads(Bright):
    """An engine that answers once two threads call at the same time."""

    streams = 2

    def __init__(self):
        super().__init__()
        self.both = threading.Barrier(2)

    def __call__(self, tiles):
        self.both.wait(20)
        return super().__call__(tiles)


@pytest.mark.parametrize("flips", [1, 2])
def test_many_tiles_are_predicted_two_at_once(flips, rng):
    image, limits = rng.integers(0, 256, (64, 160), np.uint8), Limits(core=16, pixels=1)  # 40 tiles
    levels = Cells().levels(image)
    alone, together = (Predictor(engine, SAME, Cells(), flips, limits=limits) for engine in (Bright(), InTwoThreads()))
    assert_array_equal(together.predict(image), alone.predict(image))
    assert_array_equal(together.rows(image, levels, 16, 64), alone.rows(image, levels, 16, 64))


def test_eight_flips_give_the_same_for_a_flipped_slice(same, rng):
    image = rng.integers(0, 256, (40, 52), np.uint8)
    eight = Predictor(same, SAME, Cells(), flips=8)
    plain, apply_symmetry = eight(image), eight(image[::-1].T)
    assert_allclose(apply_symmetry, plain[::-1].T, atol=2e-6)
    assert np.abs(plain - Predictor(same, SAME, Cells())(image)).max() > 1e-3


@pytest.mark.parametrize("flips", range(1, 9))
def test_every_flip_is_turned_back(flips, rng):
    """Check that all flips agree for a network that looks at one pixel only."""
    image = rng.integers(0, 256, (23, 34), np.uint8)
    assert_allclose(Predictor(Bright(), SAME, Cells(), flips).predict(image),
                    Predictor(Bright(), SAME, Cells()).predict(image), atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 52), (61, 33)])
def test_a_magnified_prediction_has_the_slices_size_and_place(shape):
    image = np.full(shape, 100, np.uint8)
    image[10:20, 8:24] = 200
    probability = Predictor(Bright(), SAME, Cells(), zooms=(1.0, 1.5))(image)
    assert (probability.shape, probability.dtype) == (shape, np.float32)
    inside = np.zeros(shape, bool)
    inside[11:19, 9:23] = True
    assert probability[inside].min() > 0.9
    inside[9:21, 7:25] = True
    assert probability[~inside].max() < probability[inside].min()


def test_what_the_network_sees_is_what_it_was_trained_on(rng):
    """Check that neither the microscope's brightness nor padding changes the network's input."""
    image = rng.normal(120, 20, (64, 64)).clip(60, 180).astype(np.uint8)
    seen = Cells().normalise(image, Cells().levels(image))
    for other, where in ((image, np.s_[:]), (image + np.uint8(40), np.s_[:]), (np.pad(image, ((0, 0), (0, 30))),
                                                                              np.s_[:, :64])):
        model = Bright()
        Predictor(model, replace(SAME, padding="valid"), Cells())(other)
        margin = replace(SAME, padding="valid").margin
        tile = model.tiles[0][margin:margin + 64, margin:margin + other.shape[1], 0]
        assert_array_equal(tile[where], seen)


def test_squeezed_images_are_predicted_small_and_resized_back():
    image, label = draw_nuclei((60, 90))
    model = Bright()
    probability = Predictor(model, SAME, Nuclei(resize=32))(image)
    assert (probability.shape, probability.dtype) == ((60, 90), np.float32)
    assert model.tiles[0].shape == (32, 32, 3)
    assert probability[label > 0].mean() > 2 * probability[label == 0].mean()


def test_what_is_done_is_said():
    for predictor, words in ((Predictor(None, SAME, Cells(), 8), "mean of 8 flips"),
                             (Predictor(None, SAME, Nuclei(), 8, (1.0, 1.15)),
                              "mean of 8 flips at 1, 1.15 times the size"),
                             (Predictor(None, SAME, Nuclei()), "no flips")):
        assert predictor.describe() == words


# ------------------------------------------------------------------------------------------ how far flips disagree


class Tilted:
    """A stand-in for a network: its prediction of a pixel depends on the pixel above, so that flips disagree."""

    def __init__(self, classes=1):
        self.classes = classes

    def __call__(self, tiles):
        above = np.roll(tiles, 1, axis=1).mean(axis=-1, keepdims=True, dtype=np.float32) / 255
        return above if self.classes == 1 else np.concatenate([above, 0.5 * (1 - above), 0.5 * (1 - above)], axis=-1)


def each_flip(predictor, image):
    """Predict each flip on its own, and turn it back: (flips, H, W[, classes])."""
    one = Predictor(predictor.engine, predictor.network, predictor.task)
    found = np.empty((predictor.flips, *one.predict(image).shape), np.float32)
    for number in range(predictor.flips):
        apply_symmetry(found[number], number)[:] = one.predict(apply_symmetry(image, number))
    return found if predictor.network.classes > 1 else found[..., 0]


@pytest.mark.parametrize("flips", [2, 3, 8])
@pytest.mark.parametrize("limits", [Limits(), Limits(core=16, pixels=1)])
def test_the_spread_is_the_standard_deviation_over_flips(flips, limits, rng):
    image = rng.integers(0, 256, (40, 28), np.uint8)
    predictor = Predictor(Tilted(), SAME, Cells(), flips, limits=limits)
    probability, spread = predictor.with_spread(image)
    all_of_them = each_flip(predictor, Cells().normalise(image, Cells().levels(image)))
    assert_array_equal(probability, predictor(image))  # to the bit: prediction.tif is the same
    assert probability.flags["C_CONTIGUOUS"]
    assert (spread.shape, spread.dtype) == (image.shape, np.float32)
    assert spread.mean() > 0.02
    assert_allclose(spread, all_of_them.std(axis=0), atol=1e-3)


def test_of_several_classes_it_is_the_greatest(rng):
    image = rng.integers(0, 256, (24, 24, 3), np.uint8)
    task = ClassImages(3)
    predictor = Predictor(Tilted(3), Network(4, 2, dropout=(0, 0, 0), classes=3), task, 4)
    probability, spread = predictor.with_spread(image)
    all_of_them = each_flip(predictor, task.normalise(image, task.levels(image)))
    assert probability.shape == (24, 24, 3)
    assert_allclose(spread, all_of_them.std(axis=0).max(axis=-1), atol=1e-3)


def test_magnifications_disagree_too_and_one_prediction_agrees_with_itself(rng):
    image = rng.integers(0, 256, (24, 32), np.uint8)
    probability, spread = Predictor(Tilted(), SAME, Cells()).with_spread(image)
    assert spread is None
    assert probability.shape == image.shape
    predictor = Predictor(Tilted(), SAME, Cells(), zooms=(1.0, 1.5))
    probability, spread = predictor.with_spread(image)
    assert_array_equal(probability, predictor(image))
    one, other = (Predictor(Tilted(), SAME, Cells(), zooms=(zoom,))(image) for zoom in (1.0, 1.5))
    assert spread.mean() > np.abs(one - other).mean() / 2 - 1e-6  # and what neighbours differ by, which it mixes
