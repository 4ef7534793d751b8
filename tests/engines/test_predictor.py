"""How far flips disagree: from sums and sums of squares what all flips at once would give, beside the same mean."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from unet.engines.predictor import Limits, Predictor
from unet.network import Network
from unet.tasks.cells import Cells
from unet.tasks.of_images import ClassImages
from utils import turned

SAME = Network(4, 2, dropout=(0, 0, 0))


class Tilted:
    """In place of a network of some classes: what it says of a pixel depends on the pixel above, so flips disagree."""

    def __init__(self, classes=1):
        self.classes = classes

    def __call__(self, tiles):
        above = np.roll(tiles, 1, axis=1).mean(axis=-1, keepdims=True, dtype=np.float32) / 255
        return above if self.classes == 1 else np.concatenate([above, 0.5 * (1 - above), 0.5 * (1 - above)], axis=-1)


def each_flip(predictor, image):
    """The predictions of each flip for itself, turned back: (flips, H, W[, classes])."""
    one = Predictor(predictor.engine, predictor.network, predictor.task)
    found = np.empty((predictor.flips, *one.predict(image).shape), np.float32)
    for number in range(predictor.flips):
        turned(found[number], number)[:] = one.predict(turned(image, number))
    return found


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
