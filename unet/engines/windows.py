"""The tiles in which an image is predicted: where the image ends, so do they; a valid network's reach beyond."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from unet.network import Network
from utils import OverlapTile

CORE = 640  # largest core predicted at once, pixels; a whole ISBI slice


@dataclass(frozen=True)
class Windows(OverlapTile):
    """Overlap tiles whose margin is what of the image lies around a core, or with `mirrored` its mirror image, too.

    A padding network has seen the ends of tiles while it trained, and none of mirror images: on five slices of the ISBI
    stack that trained no network, the end of the image makes better cells than a mirrored margin, of half the pixels.

    Laws: with a margin of the network's receptive-field radius, what is stitched of cores is what a padding network
    says of the whole image, filled up to a multiple of its `stride`; a valid one, of the whole mirrored image.
    """

    stride: int = 1
    mirrored: bool = False

    def window(self, corner: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Upper left corner (y, x) and size (height, width) of the tile around the core at `corner`, pixels."""
        spans = []
        for start, core, size in zip(corner, self.cores, self.shape, strict=True):
            first, last = start - self.margin, start + core + self.margin
            if not self.mirrored:
                first, last = max(first, 0), min(last, math.ceil(size / self.stride) * self.stride)
            spans.append((first, last - first))
        return tuple(first for first, _ in spans), tuple(side for _, side in spans)

    def tile_at(self, image: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
        """The tile (h, w[, C]) of an image (H, W[, C]) around the core at `corner`."""
        first, size = self.window(corner)
        return OverlapTile(self.shape, size).cut_at(image, [first])[0]

    def core_of(self, prediction: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
        """What of a tile's prediction (h, w, C), a valid network's smaller than the tile, is its core in the image."""
        first, size = self.window(corner)
        parts = []
        for start, before, side, there, core, whole in zip(
                corner, first, size, prediction.shape[:2], self.cores, self.shape, strict=True):
            skip = start - before - (side - there) // 2
            parts.append(slice(skip, skip + min(core, whole - start)))
        return prediction[tuple(parts)]


def overlap_tiles(network: Network, shape: tuple[int, int], core: int = CORE, margin: int | None = None) -> Windows:
    """The tiles in which an image of `shape` is predicted: as few as fit `core` on each axis, and no larger."""
    cores = tuple(math.ceil(size / math.ceil(size / core) / network.stride) * network.stride for size in shape)
    return Windows(shape, cores, network.margin if margin is None else margin, network.stride,
                   network.padding == "valid")


def filled(image: np.ndarray, network: Network) -> np.ndarray:
    """An image (H, W[, C]) filled up with its mirror image, below and at the right, to a multiple of the stride.

    Before it is turned: so the pixels at its ends are the same in all flips.
    """
    shape = image.shape[:2]
    size = tuple(math.ceil(side / network.stride) * network.stride for side in shape)
    if network.padding == "valid" or size == shape:  # a valid network sees the mirror image anyway
        return image
    return OverlapTile(shape, size).cut_at(image, [(0, 0)])[0]
