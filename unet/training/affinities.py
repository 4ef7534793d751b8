"""Affinities: whether two pixels lie in one cell, a further output that is trained, and then left out.

To say it of pixels that are far apart a network has to follow the membrane between them, gaps and all. Lee et al. 2017
(arXiv:1706.00120) train on such affinities as an auxiliary task, for the sake of those to the next pixel; here they are
for the sake of the probability of cell.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from unet.network import OFFSETS

NAME = "affinities"  # of the layer
FROM = "up0_conv2"  # the layer whose features it reads, the last of the expanding path


def output_of(network: keras.Model):
    """A further output of a network: logits (batch, h, w, offsets), at the resolution of its first level."""
    return keras.layers.Conv2D(len(OFFSETS), 1, dtype="float32", name=NAME)(network.get_layer(FROM).output)


def of_affinities(weight: keras.Variable) -> bool:
    """Whether a weight is that output's."""
    return weight.path.rpartition("/")[0].endswith(NAME)


def numbered(label: np.ndarray) -> np.ndarray:
    """Number the cells of a tile's label (H, W, 1), 0 = membrane, that hang together within it; int32 (H, W, 1)."""
    return ndimage.label(label[..., 0])[0][..., np.newaxis]


def affinity_loss(cells: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean binary cross-entropy of logits (batch, h, w, offsets) against what `numbered` cells (batch, H, W, 1) say.

    That is 1 where a pixel and the one at the offset from it have one number; pixels without such a one do not count.
    Where the first level has half the image's resolution, every other pixel is asked.
    """
    step = cells.shape[1] // logits.shape[1]
    cells = cells[:, ::step, ::step, 0]
    height, width = cells.shape[1:]
    same, counts = [], np.zeros((height, width, len(OFFSETS)), np.float32)
    for number, (down, right) in enumerate(OFFSETS):
        down, right = min(down // step, height), max(min(right // step, width), -width)
        left = [[0, 0], [0, down], [max(0, -right), max(0, right)]]  # of pixels that have no other
        here = cells[:, :height - down, max(0, -right):width - max(0, right)]
        there = cells[:, down:, max(0, right):width - max(0, -right)]
        same.append(tf.pad(tf.cast((here == there) & (here > 0), tf.float32), left))
        counts[:height - down, max(0, -right):width - max(0, right), number] = 1
    losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.stack(same, axis=-1), logits)
    # one sum over all: of ten parts of the logits the gradients took longer than all of the network's
    return tf.reduce_sum(losses * counts) / max(counts.sum(), 1) / tf.cast(tf.shape(cells)[0], tf.float32)
