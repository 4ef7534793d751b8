"""A check for seams between tiles: how much the probability jumps where two cores meet, compared with elsewhere."""

from __future__ import annotations

import numpy as np

from unet.engines.ensemble import Ensemble
from unet.engines.predictor import Predictor
from unet.engines.windows import fill_to_stride, overlap_tiles
from unet.tasks.task import is_large
from utils import apply_symmetry

MAX_RATIO = 1.05  # above it seams may be visible; chance alone moves the ratio by a few hundredths if seams are short
BAND = 1024  # rows to process at once


def seam_positions(predictor: Predictor, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the columns, sorted, before which two cores meet in any flip of an image of `shape`."""
    rows, columns = set(), set()
    height, width = shape = fill_to_stride(np.broadcast_to(np.uint8(0), shape), predictor.network).shape
    axes = ((np.broadcast_to(np.arange(height)[:, None], shape), rows),
            (np.broadcast_to(np.arange(width), shape), columns))
    flips_tiles = is_large(shape) and predictor.by_rows  # instead of the image, so that cores stay where they are
    for flip in range(1 if flips_tiles else predictor.flips):
        for positions, seams in axes:
            turn = apply_symmetry(positions, flip)
            for y, x in overlap_tiles(predictor.network, turn.shape, predictor.limits.core).corners():
                before = [turn[y - 1, x]] * (y > 0) + [turn[y, x - 1]] * (x > 0)
                seams.update(int(max(one, turn[y, x])) for one in before if one != turn[y, x])
    return np.array(sorted(rows), int), np.array(sorted(columns), int)


class Seams:
    """Sums of the absolute differences between neighbouring pixels, across seams and elsewhere."""

    def __init__(self, predictor: Predictor | Ensemble):
        self.predictor, self.sums, self.counts = predictor, np.zeros(2), np.zeros(2)  # elsewhere, across seams

    def add(self, probability: np.ndarray) -> None:
        """Add a prediction (H, W[, classes]) that was made at the image's own size."""
        height, width = probability.shape[:2]
        rows, columns = (np.unique(np.concatenate(positions)) for positions in zip(
            *(seam_positions(member, (height, width)) for member in self.predictor.members), strict=True))
        for first in range(0, height, BAND):
            band = probability[first:first + BAND + 1]  # with the next band's first row, for the pair between them
            self._count(np.abs(np.diff(band, axis=0)), rows - first - 1)
            across = np.abs(np.diff(band[:BAND], axis=1))
            self._count(np.moveaxis(across, 1, 0), columns - 1)

    def _count(self, differences: np.ndarray, seams: np.ndarray) -> None:
        """Add differences (n, ...) between neighbours; those at indices `seams` of the first axis are across a seam."""
        across = np.isin(np.arange(len(differences)), seams)
        sums = differences.reshape(len(differences), -1).sum(axis=1, dtype=float)
        self.sums += np.bincount(across, sums, 2)
        self.counts += differences[:1].size * np.bincount(across, minlength=2)

    @property
    def ratio(self) -> float | None:
        """Mean difference across seams over that elsewhere; None if there is no seam, or elsewhere no difference."""
        if not self.counts[1] or not self.sums[0]:
            return None
        elsewhere, across = self.sums / self.counts
        return float(across / elsewhere)

    def describe(self) -> str:
        """Describe the result for the console."""
        if self.ratio is None:
            return "seams: none, or nothing to compare them with"
        verdict = "none is visible" if self.ratio <= MAX_RATIO else f"more than {MAX_RATIO}, they may be visible"
        return f"seams: neighbouring pixels differ {self.ratio:.3f} times as much across them as elsewhere; {verdict}"
