"""The tiles in which an image is predicted: they end where the image ends; only those of valid networks reach beyond.

Valid networks use convolutions without padding, so that their output is smaller than their input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from unet.network import Network
from utils import OverlapTile

CORE_SIDE = 640  # side of the largest core to predict at once, pixels: a whole ISBI slice


@dataclass(frozen=True)
class Windows(OverlapTile):
    """Overlap tiles whose margin is the image around a core, as far as it goes; with `mirrored` also its mirror image.

    A padding network sees the ends of tiles while it trains, but never mirror images: on five slices of the ISBI stack
    that trained no network, tiles that end with the image give better cells than a mirrored margin, and have half the
    pixels.

    Laws: with a margin of the network's receptive-field radius, the stitched cores equal a padding network's prediction
    of the whole image, extended to a multiple of its `stride`, or a valid network's of the whole mirrored image.
    """

    stride: int = 1
    mirrored: bool = False

    def window(self, corner: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        spans = []
        for start, core, size in zip(corner, self.cores, self.shape, strict=True):
            first, last = start - self.margin, start + core + self.margin
            if not self.mirrored:
                first, last = max(first, 0), min(last, math.ceil(size / self.stride) * self.stride)
            spans.append((first, last - first))
        return tuple(first for first, _ in spans), tuple(side for _, side in spans)


def overlap_tiles(network: Network, shape: tuple[int, int], core: int = CORE_SIDE) -> Windows:
    """Return the tiles in which to predict an image of `shape`: as few as `core` allows on each axis, evenly sized."""
    cores = tuple(math.ceil(size / math.ceil(size / core) / network.stride) * network.stride for size in shape)
    return Windows(shape, cores, network.margin, network.stride, network.padding == "valid")


def fill_to_stride(image: np.ndarray, network: Network) -> np.ndarray:
    """Extend an image (H, W[, C]) by its mirror image, below and at the right, to a multiple of the stride.

    This comes before flips, so that the pixels at its ends are the same in all of them.
    """
    shape = image.shape[:2]
    size = tuple(math.ceil(side / network.stride) * network.stride for side in shape)
    if network.padding == "valid" or size == shape:  # a valid network sees the mirror image anyway
        return image
    return OverlapTile(shape, size).cut_at(image, [(0, 0)])[0]
