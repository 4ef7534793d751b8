"""The feed: tiles from disk to the network, shuffled, turned and varied, without Python in the loop."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow comes in and fills the screen

import numpy as np
import tensorflow as tf

from model import Recipe


def tiles(work: Path, geometry: dict, part: str, names: tuple[str, ...], keep: list[int] | None) -> tf.data.Dataset:
    """Tuples of uint8 images (side, side, C), uint8 labels and float16 weights (side, side, 1), as `names` asks.

    Read without Python. `keep` leaves only tiles of these sources, slices or images.
    """
    sides = {"images": geometry["tile"], "labels": geometry["label"], "weights": geometry["label"]}
    channels = {"images": geometry["channels"]}
    types = {"images": tf.uint8, "labels": tf.uint8, "weights": tf.float32, "sources": tf.int32}

    def records(name: str) -> tf.data.Dataset:
        path = work / "patches" / f"{part}-{name}.npy"
        size = types[name].size * sides.get(name, 1) ** 2 * channels.get(name, 1)
        header = path.stat().st_size - size * geometry["count"]
        return tf.data.FixedLengthRecordDataset(str(path), size, header_bytes=header)

    def decode(*raw: tf.Tensor) -> tuple[tf.Tensor, ...]:
        shapes = [(sides[name], sides[name], channels.get(name, 1)) for name in names]
        return tuple(tf.reshape(tf.io.decode_raw(bytes_, types[name]), shape)
                     for name, shape, bytes_ in zip(names, shapes, raw, strict=True))

    def is_kept(source: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(tf.io.decode_raw(source, tf.int32)[0] == tf.constant(keep, tf.int32))

    data = tf.data.Dataset.zip(*(records(name) for name in ("sources", *names)))
    data = data.filter(is_kept) if keep is not None else data
    return data.map(lambda _source, *raw: decode(*raw), num_parallel_calls=1)


def turned(arrays: tuple[tf.Tensor, ...], seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """All arrays (side, side, C) flipped and turned by the same draw, one of the square's eight symmetries."""
    draw = tf.random.stateless_uniform((2,), seed, 0, 4, tf.int32)

    def turn(array: tf.Tensor) -> tf.Tensor:
        array = tf.image.rot90(array, draw[0])
        return tf.cond(draw[1] < 2, lambda: array, lambda: tf.image.flip_left_right(array))

    return tuple(turn(array) for array in arrays)


def varied(images: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Float images (side, side, C) in grey levels with another gamma, contrast and brightness, and some noise.

    At strength 1 the exponent and the contrast are between 0.7 and 1.4, the brightness moves by 20 grey levels at most,
    the noise has a standard deviation of 12 at most. Colour images get a gain in each channel, too, between 0.8 and
    1.25, as stains and cameras differ.
    """
    draw = tf.random.stateless_uniform((4,), seed, -1.0, 1.0) * strength
    images = 255 * ((images + 0.5) / 256) ** tf.exp(0.35 * draw[0])
    images = (images - 128) * tf.exp(0.35 * draw[1]) + 128 + 20 * draw[2]
    if images.shape[-1] > 1:
        gain = tf.random.stateless_uniform((images.shape[-1],), seed + 2, -1.0, 1.0) * strength
        images = images * tf.exp(0.22 * gain)
    return images + 12 * tf.abs(draw[3]) * tf.random.stateless_normal(tf.shape(images), seed)


def training_feed(work: Path, geometry: dict, recipe: Recipe, seed: int, keep: list[int] | None) -> tf.data.Dataset:
    """Endless batches of float32 (images, labels[, weights]), shuffled, turned and varied; same seed, same batches."""
    names = ("images", "labels") + (("weights",) if geometry["weights"] != "none" else ())

    def prepare(arrays: tuple[tf.Tensor, ...], draw: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image, *rest = (tf.cast(array, tf.float32) for array in turned(arrays, draw))
        if recipe.intensity:
            image = varied(image, recipe.intensity, draw + 1)
        return (image, *rest[:1], *(weights[..., 0] for weights in rest[1:]))

    data = tiles(work, geometry, "train", names, keep).repeat().shuffle(512, seed=seed)
    data = tf.data.Dataset.zip(data, tf.data.Dataset.random(seed=seed).batch(2))
    # nothing is left to tune, and the tuner's thread, asleep for up to a minute, may keep the end of training waiting
    fixed = tf.data.Options()
    fixed.autotune.enabled = False
    return data.map(prepare, num_parallel_calls=1).batch(recipe.batch).prefetch(4).with_options(fixed)


def validation_tiles(work: Path, block: list[int], most: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Tiles of the sources in `block`, at most `most`: images uint8 (n, side, side, C), labels float32 (.., 1)."""
    images, labels, sources = (np.load(work / "patches" / f"train-{name}.npy", mmap_mode="r")
                               for name in ("images", "labels", "sources"))
    chosen = np.flatnonzero(np.isin(sources, block))[:most]
    pixels = images[chosen] if images.ndim == 4 else images[chosen][..., np.newaxis]
    return pixels, labels[chosen][..., np.newaxis].astype(np.float32)
