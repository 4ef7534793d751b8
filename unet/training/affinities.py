"""Affinities: whether two pixels lie in the same cell. An auxiliary output of the network, used only while it trains.

To predict them for pixels that are far apart, a network has to follow the membrane between them, gaps and all. Lee et
al. 2017 (arXiv:1706.00120) train on such affinities as an auxiliary task, to improve those between neighbouring pixels;
here they improve the probability of cell.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from unet.network import OFFSETS

NAME = "affinities"  # of the layer
FEATURES = "up0_conv2"  # the layer whose features it reads, the last of the expanding path


def affinity_output(network: keras.Model):
    """Return a network's additional output: logits (batch, h, w, offsets), at the resolution of its first level."""
    return keras.layers.Conv2D(len(OFFSETS), 1, dtype="float32", name=NAME)(network.get_layer(FEATURES).output)


def is_affinity_weight(weight: keras.Variable) -> bool:
    """Tell whether a weight belongs to that output."""
    return weight.path.rpartition("/")[0].endswith(NAME)


def number_pieces(label: np.ndarray) -> np.ndarray:
    """Number the connected pieces of cell in a tile's label (H, W, 1), 0 = membrane; int32 (H, W, 1)."""
    return ndimage.label(label[..., 0])[0][..., np.newaxis]


def affinity_loss(cells: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the mean binary cross-entropy of logits (batch, h, w, offsets) against the affinities of numbered cells.

    `cells` (batch, H, W, 1) are labels after `number_pieces`. A pixel's affinity is 1 if the pixel at the offset from
    it has the same number, other than 0 (membrane), and 0 otherwise; if there is no such pixel, it does not count. If
    the first level has half the image's resolution, only every second pixel counts.
    """
    step = cells.shape[1] // logits.shape[1]
    cells = cells[:, ::step, ::step, 0]
    height, width = cells.shape[1:]
    affinities, counts = [], np.zeros((height, width, len(OFFSETS)), np.float32)
    for number, (down, right) in enumerate(OFFSETS):
        down, right = min(down // step, height), max(min(right // step, width), -width)
        padding = [[0, 0], [0, down], [max(0, -right), max(0, right)]]  # pixels without one at the offset
        pixels = cells[:, :height - down, max(0, -right):width - max(0, right)]
        partners = cells[:, down:, max(0, right):width - max(0, -right)]
        affinities.append(tf.pad(tf.cast((pixels == partners) & (pixels > 0), tf.float32), padding))
        counts[:height - down, max(0, -right):width - max(0, right), number] = 1
    losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.stack(affinities, axis=-1), logits)
    # one sum over all offsets: with one for each of the ten, gradients took longer than those of the whole network
    return tf.reduce_sum(losses * counts) / max(counts.sum(), 1) / tf.cast(tf.shape(cells)[0], tf.float32)
