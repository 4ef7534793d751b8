"""Which nuclei were found, and what became of the others: missed, merged with a neighbour, split; and the invented.

Found is what the score counts: a pair of a predicted and a true nucleus whose intersection over union is over .5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage
from skimage.segmentation import find_boundaries

from unet.report.pictures import GREEN, INVENTED, MISSED, PURPLE, YELLOW, faded
from unet.scores.mistakes import LEAST_PIXELS, LEAST_SHARE, shared_pixels

FOUND, MERGED, SPLIT = GREEN, YELLOW, PURPLE
COLOURS = {"found": FOUND, "missed": MISSED, "merged": MERGED, "split": SPLIT, "invented": INVENTED}
STRENGTH = 0.7  # of a colour over the image


@dataclass(frozen=True)
class NucleiMistakes:
    """Numbers of nuclei, in rising order: of true ones, each in one list, and of predicted ones that are of nothing."""

    found: list[int]
    missed: list[int]
    merged: list[int]
    split: list[int]
    invented: list[int]

    def in_words(self) -> str:
        """What happened how often, in two lines to be written above a picture."""
        counts = [f"{len(getattr(self, name))} {name}" for name in COLOURS]
        return f"{', '.join(counts[:3])}\n{', '.join(counts[3:])}"


def find_nuclei_mistakes(predicted: np.ndarray, truth: np.ndarray) -> NucleiMistakes:
    """Sort the nuclei of two label maps (H, W), numbered 1, 2, ... with 0 = background.

    Two overlap in earnest where they share a quarter of the smaller one, and ten pixels. A true nucleus is merged where
    none is found in its place and the predicted one that overlaps it overlaps others, too; split where several
    predicted ones overlap it and not all of these are found elsewhere; else missed, or drawn too badly to count.
    """
    shared = shared_pixels(predicted, truth)[1:, 1:]
    sizes, true_sizes = (np.bincount(labels.ravel(), minlength=count + 1)[1:] for labels, count in
                         zip((predicted, truth), shared.shape, strict=True))
    pairs = shared > 0.5 * (sizes[:, np.newaxis] + true_sizes - shared)
    smaller = np.minimum(sizes[:, np.newaxis], true_sizes)
    earnest = (shared >= LEAST_SHARE * smaller) & (shared >= LEAST_PIXELS)
    paired, found = pairs.any(axis=1), pairs.any(axis=0)  # predicted, true
    several = earnest.sum(axis=1) > 1
    merged = ~found & earnest[several].any(axis=0)
    split = ~merged & (earnest.sum(axis=0) > 1) & earnest[~paired].any(axis=0)
    merging = several & earnest[:, merged].any(axis=1)
    part = earnest[:, split].any(axis=1)

    def numbers(which: np.ndarray) -> list[int]:
        return (np.flatnonzero(which) + 1).tolist()

    return NucleiMistakes(numbers(found & ~split), numbers(~found & ~merged & ~split), numbers(merged), numbers(split),
                          numbers(~paired & ~merging & ~part))


def paint_nuclei(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray, mistakes: NucleiMistakes) -> np.ndarray:
    """Float (H, W, 3) in 0..1: the image uint8 (H, W[, 3]), faded, true nuclei by what became of them.

    Invented ones in blue; all predicted outlines in black.
    """
    overlay = faded(image if image.ndim == 2 else image.mean(axis=2))
    for name, labels in (("invented", predicted), ("found", truth), ("missed", truth), ("merged", truth),
                         ("split", truth)):
        where = np.isin(labels, getattr(mistakes, name))
        overlay[where] = (1 - STRENGTH) * overlay[where] + STRENGTH * np.array(to_rgb(COLOURS[name]))
    overlay[find_boundaries(predicted, mode="inner")] = 0
    return overlay


def wrong_pixels(predicted: np.ndarray, truth: np.ndarray, mistakes: NucleiMistakes) -> np.ndarray:
    """Where mistakes are, bool (H, W), of two label maps (H, W)."""
    return np.isin(truth, mistakes.missed + mistakes.merged + mistakes.split) | np.isin(predicted, mistakes.invented)


def busiest(wrong: np.ndarray, side: int) -> tuple[slice, slice]:
    """The window of at most `side` pixels each way with the most of the True pixels of bool (H, W); else the middle."""
    size = tuple(min(side, full) for full in wrong.shape)
    if not wrong.any():
        corner = [(full - part) // 2 for full, part in zip(wrong.shape, size, strict=True)]
    else:
        sums = np.pad(wrong, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
        inside = (sums[size[0]:, size[1]:] - sums[:-size[0], size[1]:] - sums[size[0]:, :-size[1]]
                  + sums[:-size[0], :-size[1]])
        # of equally good ones the middle one, so that mistakes do not lie at the window's edge
        corner = tuple(round(place) for place in ndimage.center_of_mass(inside == inside.max()))
        if inside[corner] < inside.max():
            corner = np.unravel_index(inside.argmax(), inside.shape)
    return tuple(slice(int(start), int(start) + part) for start, part in zip(corner, size, strict=True))
