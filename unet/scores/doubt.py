"""What to label next: slices or images that nobody labelled, and tiles in them, by what the network is least sure of.

Doubt is the entropy of the network's probability, 0 where it is sure and 1 where it knows nothing, as a mean over the
pixels where labels decide something (of cells: along predicted membranes). Uncertainty sampling, as Settles calls it in
his survey (Active learning literature survey, University of Wisconsin 2009). It sees what the network hesitates at, not
what it is sure of and wrong about.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import entr

from utils import OverlapTile, atomic_path

SIDE = 128  # of tiles at most, pixels; of small images half the side
TILES = 3  # named of each slice
COLUMNS = ("rank", "name", "doubt", "tile", "y", "x", "height", "width", "tile_doubt")


@dataclass(frozen=True)
class Tile:
    """A part of a slice or image, in pixels; its doubt is on the scale of the whole's."""

    y: int
    x: int
    height: int
    width: int
    doubt: float


@dataclass(frozen=True)
class Doubt:
    """How unsure the network is of a slice or image, 0 to 1, and of its worst tiles, worst first."""

    name: str
    doubt: float
    tiles: Sequence[Tile]


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of a probability (H, W) or of K classes (H, W, K): float (H, W), 0 = sure, 1 = knows nothing."""
    shares = np.stack([probability, 1 - probability], axis=-1) if probability.ndim == 2 else probability
    return entr(shares).sum(axis=-1) / np.log(shares.shape[-1])


def windows(shape: Sequence[int]) -> list[tuple[slice, slice]]:
    """Square tiles of `SIDE` pixels, of small images half the side, that cover an image of `shape`."""
    side = max(1, min(SIDE, *(full // 2 for full in shape)))
    return [(slice(y, y + side), slice(x, x + side)) for y, x in OverlapTile(tuple(shape), side).inside()]


def doubt_of(name: str, probability: np.ndarray, where: np.ndarray, most: int = TILES) -> Doubt:
    """The doubt of a probability (H, W[, K]) where bool (H, W) says that it counts; `most` tiles are named.

    A tile's is the sum over its pixels by the number that a tile of this image has on average: a tile with few pixels
    that count is no place to label, however unsure they are.
    """
    counted = np.where(where, entropy(probability), 0)
    share = where.mean()
    tiles = [Tile(y.start, x.start, y.stop - y.start, x.stop - x.start, float(counted[y, x].mean() / share))
             for y, x in windows(where.shape)] if share else []
    tiles = sorted(tiles, key=lambda tile: -tile.doubt)[:most]
    return Doubt(name, float(counted.mean() / share) if share else 0.0, tiles)


def write_doubts(path: Path, doubts: Iterable[Doubt]) -> None:
    """Write next.csv, the least sure first: a row for each tile that is named, or one without."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for rank, one in enumerate(sorted(doubts, key=lambda one: -one.doubt), 1):
            tiles = [(number, tile.y, tile.x, tile.height, tile.width, f"{tile.doubt:.4f}")
                     for number, tile in enumerate(one.tiles, 1)]
            rows.writerows([rank, one.name, f"{one.doubt:.4f}", *tile] for tile in tiles or [[""] * 6])


def read_doubts(path: Path) -> list[Doubt]:
    """What `write_doubts` wrote, the least sure first; nothing where there is no file."""
    doubts: dict[str, Doubt] = {}
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                one = doubts.setdefault(row["name"], Doubt(row["name"], float(row["doubt"]), []))
                if row["tile"]:
                    one.tiles.append(Tile(*(int(row[name]) for name in ("y", "x", "height", "width")),
                                          float(row["tile_doubt"])))
    return list(doubts.values())
