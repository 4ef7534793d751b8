"""What to label next: slices or images that nobody labelled, and tiles in them, by what the network is least sure of.

Doubt is the entropy of the network's probability, 0 where it is sure and 1 where it knows nothing, as a mean over the
pixels where labels decide something (of cells: along predicted membranes). Uncertainty sampling, as Settles calls it in
his survey (Active learning literature survey, University of Wisconsin 2009). It sees what the network hesitates at, not
what it is sure of and wrong about.

Beside it stands the disagreement: the standard deviation over the flips that were averaged, a mean over the same
pixels. It ranks nothing: where nothing is flipped there is none, and it shows much the same places (docs/own-data.md).
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
COLUMNS = ("rank", "name", "doubt", "disagreement", "tile", "y", "x", "height", "width", "tile_doubt",
           "tile_disagreement")


@dataclass(frozen=True)
class Tile:
    """A part of a slice or image, in pixels; its doubt and disagreement are on the scale of the whole's."""

    y: int
    x: int
    height: int
    width: int
    doubt: float
    disagreement: float | None = None


@dataclass(frozen=True)
class Doubt:
    """How unsure the network is of a slice or image, 0 to 1, and of its worst tiles, worst first.

    `disagreement` is that of its flips, 0 to .5; None where there was one flip, or it is not known.
    """

    name: str
    doubt: float
    tiles: Sequence[Tile]
    disagreement: float | None = None


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of a probability (H, W) or of K classes (H, W, K): float (H, W), 0 = sure, 1 = knows nothing."""
    shares = np.stack([probability, 1 - probability], axis=-1) if probability.ndim == 2 else probability
    return entr(shares).sum(axis=-1) / np.log(shares.shape[-1])


def windows(shape: Sequence[int]) -> list[tuple[slice, slice]]:
    """Square tiles of `SIDE` pixels, of small images half the side, that cover an image of `shape`."""
    side = max(1, min(SIDE, *(full // 2 for full in shape)))
    return [(slice(y, y + side), slice(x, x + side)) for y, x in OverlapTile(tuple(shape), side).inside()]


def doubt_of(name: str, probability: np.ndarray, where: np.ndarray, spread: np.ndarray | None = None,
             most: int = TILES) -> Doubt:
    """The doubt of a probability (H, W[, K]) where bool (H, W) says that it counts; `most` tiles are named.

    `spread` (H, W) is the standard deviation over flips, where there is one.
    A tile's is the sum over its pixels by the number that a tile of this image has on average: a tile with few pixels
    that count is no place to label, however unsure they are.
    """
    share = where.mean()
    kinds = [entropy(probability), *([spread] if spread is not None else [])]
    counted = np.where(where, kinds, 0) / (share or 1)

    def means(*part: slice) -> list[float]:
        return [float(one[part].mean()) for one in counted]

    tiles = [Tile(y.start, x.start, y.stop - y.start, x.stop - x.start, *means(y, x))
             for y, x in windows(where.shape)] if share else []
    tiles = sorted(tiles, key=lambda tile: -tile.doubt)[:most]
    doubt, *disagreement = means()
    return Doubt(name, doubt, tiles, *disagreement)


def write_doubts(path: Path, doubts: Iterable[Doubt]) -> None:
    """Write next.csv, the least sure first: a row for each tile that is named, or one without."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for rank, one in enumerate(sorted(doubts, key=lambda one: -one.doubt), 1):
            tiles = [(number, tile.y, tile.x, tile.height, tile.width, _written(tile.doubt),
                      _written(tile.disagreement)) for number, tile in enumerate(one.tiles, 1)]
            whole = [rank, one.name, _written(one.doubt), _written(one.disagreement)]
            rows.writerows([*whole, *tile] for tile in tiles or [[""] * 7])


def read_doubts(path: Path) -> list[Doubt]:
    """What `write_doubts` wrote, the least sure first; nothing where there is no file."""
    doubts: dict[str, Doubt] = {}
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                one = doubts.setdefault(row["name"], Doubt(row["name"], float(row["doubt"]), [],
                                                           _read(row.get("disagreement"))))
                if row["tile"]:
                    one.tiles.append(Tile(*(int(row[name]) for name in ("y", "x", "height", "width")),
                                          float(row["tile_doubt"]), _read(row.get("tile_disagreement"))))
    return list(doubts.values())


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _read(value: str | None) -> float | None:
    return float(value) if value else None
