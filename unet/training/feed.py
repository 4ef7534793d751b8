"""The feed: tiles from disk to the network, shuffled, turned and varied; what step k trains on, k alone decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from unet.training.affinities import numbered
from unet.workers import default_workers
from utils import turned

ORDER, CHANGES = 0, 1  # two families of random numbers of one seed
READERS = min(max(4, default_workers()), 16)  # threads that make batches, and batches that wait for the network


class Feed:
    """Training batches by their step, so that a run that goes on at step k gets what it would have got.

    Sample number s is the tile that the order of its pass over all tiles gives it; how it is turned and varied is
    drawn from the seed and s. The files are mapped: only the tiles of a batch are read.

    Parameters
    ----------
    patches : folder of train-images.npy uint8 (n, side, side[, C]), train-labels.npy (n, side, side), train-sources.npy
        (n,) and, where the loss is weighted, train-weights.npy (n, side, side)
    batch : tiles a step
    intensity : strength of `varied`, 0 for none
    keep : sources, slices or images, whose tiles are taken; None takes all
    numbers : give the cells of a label numbers, as `affinities` needs them
    """

    def __init__(self, patches: Path, batch: int, seed: int = 0, intensity: float = 0.0,
                 keep: list[int] | None = None, numbers: bool = False):
        self.batch, self.seed, self.intensity, self.numbers = batch, seed, intensity, numbers
        self.made = 0  # batches so far
        files = (patches / f"train-{name}.npy" for name in ("images", "labels", "weights"))
        images, labels, *weights = (np.load(file, mmap_mode="r") for file in files if file.is_file())
        self.arrays = (images if images.ndim == 4 else images[..., np.newaxis], labels[..., np.newaxis], *weights)
        sources = np.load(patches / "train-sources.npy")
        self.tiles = np.arange(len(sources)) if keep is None else np.flatnonzero(np.isin(sources, keep))

    def __getitem__(self, step: int) -> tuple[np.ndarray, ...]:
        """Images float32 (batch, side, side, C), labels (batch, side, side, 1) and any weights (batch, side, side)."""
        return self.samples(step * self.batch, self.batch)

    def samples(self, first: int, count: int) -> tuple[np.ndarray, ...]:
        """Samples `first` to `first + count - 1`, as a batch of `count`."""
        samples = map(self.sample, range(first, first + count))
        return tuple(np.stack(arrays) for arrays in zip(*samples, strict=True))

    def sample(self, number: int) -> list[np.ndarray]:
        """Image float32 (side, side, C), label (side, side, 1) and any weights (side, side) of a sample."""
        tile = self.tile(number)
        rng = np.random.default_rng((self.seed, CHANGES, number))
        turn = rng.integers(8)  # one of the square's symmetries
        image, label, *weights = (turned(array[tile], turn) for array in self.arrays)
        label = numbered(label) if self.numbers else label
        image = varied(image, self.intensity, rng) if self.intensity else image
        return [array.astype(np.float32, copy=False) for array in (image, label, *weights)]

    def tile(self, number: int) -> int:
        """The tile that a sample is made of."""
        rounds, place = divmod(number, len(self.tiles))
        return self.tiles[shuffled(len(self.tiles), self.seed, rounds)[place]]

    def shares(self, step: int, classes: int) -> np.ndarray:
        """What each class weighs in a step's loss, its share of the pixels where they weigh the same: float (classes,).
        """
        tiles = [self.tile(number) for number in range(step * self.batch, (step + 1) * self.batch)]
        labels, *weights = (array[tiles].ravel() for array in self.arrays[1:])
        return np.bincount(labels, *weights, minlength=classes) / labels.size

    def of_one_value(self) -> bool:
        """Whether no label of any tile has a second value."""
        labels = self.arrays[1]
        first = labels[self.tiles[0]].flat[0]
        return not any((labels[tile] != first).any() for tile in self.tiles)

    def unchanged(self, most: int = 64, apart: bool = False) -> tuple[np.ndarray, ...]:
        """The first tiles as they are, at most `most`, or as many far `apart` from each other.

        Images uint8 (n, side, side, C), labels and any weights.
        """
        count = min(most, len(self.tiles))
        tiles = self.tiles[np.arange(count) * len(self.tiles) // count if apart else slice(count)]
        images, *others = (array[tiles] for array in self.arrays)
        return images, *(array.astype(np.float32) for array in others)

    def from_step(self, first: int, last: int, strategy: tf.distribute.Strategy | None = None) -> tf.data.Dataset:
        """The batches of steps `first` .. `last` - 1, in this order, made ahead; each device of a strategy gets its
        share of each."""
        def shares(context: tf.distribute.InputContext) -> tf.data.Dataset:
            devices, size, begin = shares_of(self.batch, context)

            def make(number: np.ndarray) -> tuple[np.ndarray, ...]:
                step, device = divmod(int(number), devices)
                share = self.samples(step * self.batch + begin + device * size, size)
                self.made += 1 / devices
                return share

            made = dataset(make, first * devices, last * devices, ahead=READERS * devices)
            self.made = 0  # one was made to see its shapes
            return made

        return (strategy or tf.distribute.get_strategy()).distribute_datasets_from_function(shares)


def shares_of(batch: int, context: tf.distribute.InputContext) -> tuple[int, int, int]:
    """How many devices this process feeds, how many tiles of a batch each gets, and the first tile of the first."""
    devices = context.num_replicas_in_sync // context.num_input_pipelines
    size = batch // context.num_replicas_in_sync
    return devices, size, context.input_pipeline_id * devices * size


def dataset(make: Callable[[np.ndarray], tuple[np.ndarray, ...]], first: int, last: int, ahead: int
            ) -> tf.data.Dataset:
    """What `make` gives of numbers `first` .. `last` - 1, arrays float32 of one shape, in this order, some ahead."""
    shapes = [array.shape for array in make(first)]

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        arrays = tf.numpy_function(make, [number], [tf.float32] * len(shapes), stateful=False)
        return tuple(tf.ensure_shape(array, shape) for array, shape in zip(arrays, shapes, strict=True))

    numbers = tf.data.Dataset.range(first, last)
    return numbers.map(read, num_parallel_calls=READERS, deterministic=True).prefetch(ahead).with_options(untuned())


def untuned() -> tf.data.Options:
    """Nothing is left to tune, and the tuner's thread, asleep for up to a minute, may delay the end of training."""
    fixed = tf.data.Options()
    fixed.autotune.enabled = False
    return fixed


def in_shares(arrays: tuple[np.ndarray, ...], batch: int, strategy: tf.distribute.Strategy
              ) -> tuple[tf.data.Dataset, int]:
    """Arrays (n, ...) in batches, over and over, each device of a strategy its share; and how many batches they are.

    The same for all devices: of what is left over some tiles may be missing, of too few some come twice.
    """
    number = strategy.num_replicas_in_sync
    count = max(len(arrays[0]) // number, 1) * number

    def shares(context: tf.distribute.InputContext) -> tf.data.Dataset:
        here = shares_of(batch, context)[0]

        def give() -> Iterator[tuple[np.ndarray, ...]]:
            for first in range(0, count, batch):
                size = min(batch, count - first) // number
                for device in range(context.input_pipeline_id * here, (context.input_pipeline_id + 1) * here):
                    tiles = np.arange(first + device * size, first + (device + 1) * size) % len(arrays[0])
                    yield tuple(array[tiles] for array in arrays)

        kinds = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in arrays)
        return tf.data.Dataset.from_generator(give, output_signature=kinds).repeat().with_options(untuned())

    return strategy.distribute_datasets_from_function(shares), -(-count // batch)


@lru_cache(maxsize=4)
def shuffled(count: int, seed: int, number: int) -> np.ndarray:
    """The order int (count,) of pass `number` over so many tiles."""
    return np.random.default_rng((seed, ORDER, number)).permutation(count)


def varied(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Draw another gamma, contrast and brightness, and some noise: uint8 (side, side, C) -> float32 grey levels.

    At strength 1 the exponent and the contrast are between 0.7 and 1.4, the brightness moves by 20 grey levels at most,
    the noise has a standard deviation of 12 at most. Colour images get a gain in each channel, too, between 0.8 and
    1.25, as stains and cameras differ.
    """
    gamma, contrast, brightness, noise = rng.uniform(-strength, strength, 4)
    levels = 255 * ((np.arange(256) + 0.5) / 256) ** np.exp(0.35 * gamma)
    levels = (levels - 128) * np.exp(0.35 * contrast) + 128 + 20 * brightness
    channels = image.shape[-1]
    gain = np.exp(0.22 * rng.uniform(-strength, strength, channels)) if channels > 1 else np.ones(1)
    table = np.outer(gain, levels).astype(np.float32)  # (C, 256): a look-up is a tenth of the arithmetic
    changed = np.stack([table[channel].take(image[..., channel]) for channel in range(channels)], axis=-1)
    return changed + np.float32(12 * abs(noise)) * rng.standard_normal(image.shape, np.float32)
