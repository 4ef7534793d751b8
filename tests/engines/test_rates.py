"""The measurement of prediction's speed: what it times is what predicts."""

import numpy as np
from numpy.testing import assert_array_equal
from rates import bare_passes, median_seconds

from unet.engines.predictor import Predictor
from unet.network import Network
from unet.tasks.cells import Cells


def test_bare_passes_are_the_batches_that_predict(rng):
    asked = []

    def engine(tiles):
        asked.append(tiles)
        return np.full((*tiles.shape[:3], 1), 0.5, np.float32)

    images = [rng.integers(0, 256, shape, np.uint8) for shape in ((50, 70), (64, 64))]
    predictor = Predictor(engine, Network(4, 2, dropout=(0, 0, 0)), Cells(), flips=8)
    for image in images:
        predictor(image)
    assert len(asked) == 3  # two batches of four flips, and one of eight
    for one, other in zip(asked, bare_passes(predictor, images), strict=True):
        assert_array_equal(one, other)


def test_the_median_counts_without_the_first_call():
    calls = []
    assert median_seconds(lambda: calls.append(1), 3) < 0.1
    assert len(calls) == 4
