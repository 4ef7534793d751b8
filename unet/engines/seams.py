"""Whether tiles leave seams: how much the probability jumps where two cores meet, against everywhere else."""

from __future__ import annotations

import numpy as np

from unet.engines.ensemble import Ensemble
from unet.engines.predictor import Predictor
from unet.engines.windows import filled, overlap_tiles
from unet.tasks.task import is_large
from utils import turned

MOST = 1.05  # of the ratio; chance alone moves it by a few hundredths where seams are short
BAND = 1024  # rows looked at at once


def seams_of(predictor: Predictor, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows and the columns, sorted, before which two cores meet in any flip of an image of `shape`."""
    rows, columns = set(), set()
    height, width = shape = filled(np.broadcast_to(np.uint8(0), shape), predictor.network).shape
    places = ((np.broadcast_to(np.arange(height)[:, None], shape), rows),
              (np.broadcast_to(np.arange(width), shape), columns))
    tiles_turn = is_large(shape) and predictor.by_rows  # not the image
    for number in range(1 if tiles_turn else predictor.flips):
        for place, found in places:
            here = turned(place, number)
            for y, x in overlap_tiles(predictor.network, here.shape, predictor.limits.core).corners():
                before = [here[y - 1, x]] * (y > 0) + [here[y, x - 1]] * (x > 0)
                found |= {int(max(one, here[y, x])) for one in before if one != here[y, x]}
    return np.array(sorted(rows), int), np.array(sorted(columns), int)


class Seams:
    """Sums up absolute differences of neighbouring pixels, across seams and elsewhere."""

    def __init__(self, predictor: Predictor | Ensemble):
        self.predictor, self.sums, self.counts = predictor, np.zeros(2), np.zeros(2)  # elsewhere, across seams

    def add(self, probability: np.ndarray) -> None:
        """Look at one more prediction (H, W[, classes]), made at its own size."""
        height, width = probability.shape[:2]
        rows, columns = (np.unique(np.concatenate(places)) for places in zip(
            *(seams_of(member, (height, width)) for member in self.predictor.members), strict=True))
        for first in range(0, height, BAND):
            # a row more, so that no pair of rows is left out
            band = probability[first:first + BAND + 1]
            self._count(np.abs(np.diff(band, axis=0)), rows - first - 1)
            across = np.abs(np.diff(band[:BAND], axis=1))
            self._count(np.moveaxis(across, 1, 0), columns - 1)

    def _count(self, differences: np.ndarray, seams: np.ndarray) -> None:
        """Count differences (n, ...) whose first axis is across seams at some of its places."""
        sums, each = differences.reshape(len(differences), -1).sum(axis=1, dtype=float), differences[:1].size
        across = np.isin(np.arange(len(differences)), seams)
        for kind in (False, True):
            self.sums[int(kind)] += sums[across == kind].sum()
            self.counts[int(kind)] += each * (across == kind).sum()

    @property
    def ratio(self) -> float | None:
        """Mean difference across seams over that elsewhere; None where there is no seam, or nothing but one value."""
        if not self.counts[1] or not self.sums[0]:
            return None
        elsewhere, across = self.sums / self.counts
        return float(across / elsewhere)

    def in_words(self) -> str:
        """What was found, for the console."""
        if self.ratio is None:
            return "seams: none, each image was predicted in one tile"
        verdict = "none to be seen" if self.ratio <= MOST else f"more than {MOST}, they may be seen"
        return f"seams: neighbouring pixels differ {self.ratio:.3f} times as much across them as elsewhere; {verdict}"
