"""The feed: tiles from disk to the network, shuffled, turned and varied; a step's batch depends only on its number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from unet.system.workers import default_workers
from unet.training.affinities import number_pieces
from utils import apply_symmetry

ORDER, CHANGES = 0, 1  # two streams of random numbers from one seed
READERS = min(max(4, default_workers()), 16)  # threads that make batches, and batches that wait for the network


class Feed:
    """Training batches by their step, so that a run that is resumed at a step gets the batches as without a stop.

    Each pass over all tiles has an order of its own, which gives training example s its tile; how that is turned and
    varied is drawn from the seed and s. The files are memory-mapped: only the tiles of a batch are read.

    Parameters
    ----------
    patches : folder of train-images.npy uint8 (n, side, side[, C]), train-labels.npy (n, label, label),
        train-sources.npy (n,) and, if the loss is weighted, train-weights.npy (n, label, label)
    batch : tiles per step
    intensity : strength of `vary_grey_levels`, 0 for none
    keep : numbers of the slices or images whose tiles are used; None uses all
    numbers : number the cells in each label, as `affinities` needs them
    """

    def __init__(self, patches: Path, batch: int, seed: int = 0, intensity: float = 0.0,
                 keep: list[int] | None = None, numbers: bool = False):
        self.batch, self.seed, self.intensity, self.numbers = batch, seed, intensity, numbers
        self.batches = 0  # made so far
        files = (patches / f"train-{name}.npy" for name in ("images", "labels", "weights"))
        images, labels, *weights = (np.load(file, mmap_mode="r") for file in files if file.is_file())
        self.arrays = (images if images.ndim == 4 else images[..., np.newaxis], labels[..., np.newaxis], *weights)
        sources = np.load(patches / "train-sources.npy")
        self.tiles = np.arange(len(sources)) if keep is None else np.flatnonzero(np.isin(sources, keep))

    def __getitem__(self, step: int) -> tuple[np.ndarray, ...]:
        """Return a step's float32 images (n, side, side, C), labels (n, side, side, 1), any weights (n, side, side)."""
        return self.examples(step * self.batch, self.batch)

    def examples(self, first: int, count: int) -> tuple[np.ndarray, ...]:
        """Return training examples `first` to `first + count - 1` as a batch of `count`."""
        examples = map(self.example, range(first, first + count))
        return tuple(np.stack(arrays) for arrays in zip(*examples, strict=True))

    def example(self, number: int) -> list[np.ndarray]:
        """Return an example's image (side, side, C), label (side, side, 1) and any weights (side, side); float32."""
        tile = self.tile(number)
        rng = np.random.default_rng((self.seed, CHANGES, number))
        turn = rng.integers(8)  # one of the square's symmetries
        image, label, *weights = (apply_symmetry(array[tile], turn) for array in self.arrays)
        label = number_pieces(label) if self.numbers else label
        image = vary_grey_levels(image, self.intensity, rng) if self.intensity else image
        return [array.astype(np.float32, copy=False) for array in (image, label, *weights)]

    def tile(self, number: int) -> int:
        """Return the number of the tile that an example is made from."""
        number_of_pass, place = divmod(number, len(self.tiles))
        return self.tiles[shuffled(len(self.tiles), self.seed, number_of_pass)[place]]

    def class_shares(self, step: int, classes: int) -> np.ndarray:
        """Return each class's weight in a step's loss, float (classes,): without weights its share of the pixels."""
        tiles = [self.tile(number) for number in range(step * self.batch, (step + 1) * self.batch)]
        labels, *weights = (array[tiles].ravel() for array in self.arrays[1:])
        return np.bincount(labels, *weights, minlength=classes) / labels.size

    def has_one_value(self) -> bool:
        """Tell whether all labels of all tiles have one and the same value."""
        labels = self.arrays[1]
        first = labels[self.tiles[0]].flat[0]
        return not any((labels[tile] != first).any() for tile in self.tiles)

    def plain_tiles(self, most: int = 64, apart: bool = False) -> tuple[np.ndarray, ...]:
        """Return the first tiles unchanged, `most` at most; with `apart` as many at even distances.

        Images are uint8 (n, side, side, C), labels and any weights float32.
        """
        count = min(most, len(self.tiles))
        tiles = self.tiles[np.arange(count) * len(self.tiles) // count if apart else slice(count)]
        images, *labels = (array[tiles] for array in self.arrays)  # and weights
        return images, *(array.astype(np.float32) for array in labels)

    def from_step(self, first: int, last: int, strategy: tf.distribute.Strategy | None = None) -> tf.data.Dataset:
        """Return the batches of steps `first` .. `last` - 1, in this order, made ahead.

        Each device of a strategy gets its share of each batch.
        """
        def shares(context: tf.distribute.InputContext) -> tf.data.Dataset:
            devices, size, begin = shares_of(self.batch, context)

            def make(number: np.ndarray) -> tuple[np.ndarray, ...]:
                step, device = divmod(int(number), devices)
                share = self.examples(step * self.batch + begin + device * size, size)
                self.batches += 1 / devices
                return share

            batches = dataset(make, first * devices, last * devices, ahead=READERS * devices)
            self.batches = 0  # one was made only to see its shapes
            return batches

        return (strategy or tf.distribute.get_strategy()).distribute_datasets_from_function(shares)


def shares_of(batch: int, context: tf.distribute.InputContext) -> tuple[int, int, int]:
    """Return how many devices this process feeds, how many tiles each gets, and the first one's first tile."""
    devices = context.num_replicas_in_sync // context.num_input_pipelines
    size = batch // context.num_replicas_in_sync
    return devices, size, context.input_pipeline_id * devices * size


def dataset(make: Callable[[np.ndarray], tuple[np.ndarray, ...]], first: int, last: int, ahead: int
            ) -> tf.data.Dataset:
    """Return the float32 arrays, of one shape, that `make` returns for `first` .. `last` - 1, in this order.

    As many as `ahead` are made before they are asked for.
    """
    shapes = [array.shape for array in make(first)]

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        arrays = tf.numpy_function(make, [number], [tf.float32] * len(shapes), stateful=False)
        return tuple(tf.ensure_shape(array, shape) for array, shape in zip(arrays, shapes, strict=True))

    numbers = tf.data.Dataset.range(first, last)
    return numbers.map(read, num_parallel_calls=READERS, deterministic=True).prefetch(ahead).with_options(untuned())


def untuned() -> tf.data.Options:
    """Return options without autotuning, whose thread may delay the end of training by up to a minute."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def in_shares(arrays: tuple[np.ndarray, ...], batch: int, strategy: tf.distribute.Strategy
              ) -> tuple[tf.data.Dataset, int]:
    """Return arrays (n, ...) in batches, repeated endlessly, shared among a strategy's devices; and their number.

    All devices get equally many tiles: the last tiles may be left out, and if there are too few some come twice.
    """
    devices = strategy.num_replicas_in_sync
    count = max(len(arrays[0]) // devices, 1) * devices

    def shares(context: tf.distribute.InputContext) -> tf.data.Dataset:
        own = shares_of(batch, context)[0]

        def batches() -> Iterator[tuple[np.ndarray, ...]]:
            for first in range(0, count, batch):
                size = min(batch, count - first) // devices
                for device in range(context.input_pipeline_id * own, (context.input_pipeline_id + 1) * own):
                    tiles = np.arange(first + device * size, first + (device + 1) * size) % len(arrays[0])
                    yield tuple(array[tiles] for array in arrays)

        signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in arrays)
        return tf.data.Dataset.from_generator(batches, output_signature=signature).repeat().with_options(untuned())

    return strategy.distribute_datasets_from_function(shares), -(-count // batch)


@lru_cache(maxsize=4)
def shuffled(count: int, seed: int, number: int) -> np.ndarray:
    """Return the order of `count` tiles in pass `number`, int (count,)."""
    return np.random.default_rng((seed, ORDER, number)).permutation(count)


def vary_grey_levels(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Change gamma, contrast and brightness at random, and add noise: uint8 (side, side, C) -> float32 grey levels.

    At strength 1 the exponent and the contrast are between 0.7 and 1.4, the brightness changes by 20 grey levels at
    most, the noise has a standard deviation of 12 at most. Colour images get a gain in each channel, too, between 0.8
    and 1.25, as stains and cameras differ.
    """
    gamma, contrast, brightness, noise = rng.uniform(-strength, strength, 4)
    levels = 255 * ((np.arange(256) + 0.5) / 256) ** np.exp(0.35 * gamma)
    levels = (levels - 128) * np.exp(0.35 * contrast) + 128 + 20 * brightness
    channels = image.shape[-1]
    gain = np.exp(0.22 * rng.uniform(-strength, strength, channels)) if channels > 1 else np.ones(1)
    table = np.outer(gain, levels).astype(np.float32)  # (C, 256): a look-up takes a tenth of the time
    varied_pixels = np.stack([table[channel].take(image[..., channel]) for channel in range(channels)], axis=-1)
    return varied_pixels + np.float32(12 * abs(noise)) * rng.standard_normal(image.shape, np.float32)
