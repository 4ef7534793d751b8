"""Suggestions of what to label next: unlabelled slices or images, and tiles in them, that the network is least sure of.

Doubt is the entropy of the network's probability, 0 where it is sure and 1 where it knows nothing, as a mean over the
pixels where labels decide something (for cells: along predicted membranes). Settles calls that uncertainty sampling in
his survey (Active learning literature survey, University of Wisconsin 2009). It finds where the network hesitates, not
where it is sure and wrong.

Disagreement is the standard deviation over the flips that were averaged, as a mean over the same pixels. It is listed
beside the doubt and ranks nothing: without flips there is none, and it shows much the same places (docs/own-data.md).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import entr

from utils import OverlapTile, atomic_path

DOUBT_TILE = 128  # of a tile, pixels; half the image's side if that is less
LISTED_TILES = 3  # tiles listed for each slice
CSV_COLUMNS = ("rank", "name", "doubt", "disagreement", "tile", "y", "x", "height", "width", "tile_doubt",
               "tile_disagreement")


@dataclass(frozen=True)
class Tile:
    """A part of a slice or image, in pixels; its doubt and disagreement are on the scale of the whole image's."""

    y: int
    x: int
    height: int
    width: int
    doubt: float
    disagreement: float | None = None


@dataclass(frozen=True)
class Doubt:
    """The network's doubt about a slice or image, 0 to 1, and its worst tiles, worst first.

    `disagreement` is that of the flips, 0 to .5; None if there was one flip only, or if it is not known.
    """

    name: str
    doubt: float
    tiles: Sequence[Tile]
    disagreement: float | None = None


def entropy(probability: np.ndarray) -> np.ndarray:
    """Return the entropy of a probability (H, W) or of K classes' (H, W, K): float (H, W), 0 = sure, 1 = unsure."""
    shares = np.stack([probability, 1 - probability], axis=-1) if probability.ndim == 2 else probability
    return entr(shares).sum(axis=-1) / np.log(shares.shape[-1])


def doubt_tiles(shape: Sequence[int]) -> list[tuple[slice, slice]]:
    """Return square tiles that cover an image, of `DOUBT_TILE` pixels or half the image's shorter side, if less."""
    side = max(1, min(DOUBT_TILE, *(full // 2 for full in shape)))
    return [(slice(y, y + side), slice(x, x + side)) for y, x in OverlapTile(tuple(shape), side).inside()]


def doubt_of(name: str, probability: np.ndarray, mask: np.ndarray, spread: np.ndarray | None = None,
             top: int = LISTED_TILES) -> Doubt:
    """Return the doubt of a probability (H, W[, K]) over the pixels of `mask`, bool (H, W), and its `top` worst tiles.

    `spread` (H, W) is the standard deviation over flips, if there is one. A tile's doubt is the sum over its pixels in
    `mask`, divided by the number of such pixels that an average tile of this image has: a tile with few of them is no
    place to label, however unsure they are.
    """
    share = mask.mean()
    measures = [entropy(probability), *([spread] if spread is not None else [])]
    measures = np.where(mask, measures, 0) / (share or 1)

    def means(*part: slice) -> list[float]:
        return [float(measure[part].mean()) for measure in measures]

    tiles = [Tile(y.start, x.start, y.stop - y.start, x.stop - x.start, *means(y, x))
             for y, x in doubt_tiles(mask.shape)] if share else []
    tiles = sorted(tiles, key=lambda tile: -tile.doubt)[:top]
    doubt, *disagreement = means()
    return Doubt(name, doubt, tiles, *disagreement)


def write_doubts(path: Path, doubts: Iterable[Doubt]) -> None:
    """Write next.csv, the least sure image first, with a row for each of its tiles, or one row if it has none."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(CSV_COLUMNS)
        for rank, image in enumerate(sorted(doubts, key=lambda image: -image.doubt), 1):
            tiles = [(number, tile.y, tile.x, tile.height, tile.width, _format(tile.doubt), _format(tile.disagreement))
                     for number, tile in enumerate(image.tiles, 1)]
            whole = [rank, image.name, _format(image.doubt), _format(image.disagreement)]
            rows.writerows([*whole, *tile] for tile in tiles or [[""] * 7])


def read_doubts(path: Path) -> list[Doubt]:
    """Read what `write_doubts` wrote, the least sure image first; an empty list if there is no file."""
    doubts: dict[str, Doubt] = {}
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                image = doubts.setdefault(row["name"], Doubt(row["name"], float(row["doubt"]), [],
                                                             _parse(row.get("disagreement"))))
                if row["tile"]:
                    image.tiles.append(Tile(*(int(row[name]) for name in ("y", "x", "height", "width")),
                                            float(row["tile_doubt"]), _parse(row.get("tile_disagreement"))))
    return list(doubts.values())


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _parse(value: str | None) -> float | None:
    return float(value) if value else None
