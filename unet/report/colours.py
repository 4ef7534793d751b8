"""From numbers to colours: objects at random, classes by a palette, images of any brightness so that they are visible.

All colours are Okabe and Ito's, in several lightnesses, which readers with any colour vision tell apart; vermilion is
not among them, it marks what merged.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage
from skimage.exposure import rescale_intensity

from unet.report.pictures import BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW
from unet.scores.overlap import largest_overlap

HUES = np.array([to_rgb(hue) for hue in (ORANGE, SKY, GREEN, YELLOW, BLUE, PURPLE)])
FAMILIES = np.array([0, 1, 2, 3, 1, 4])  # of each hue: made lighter, blue looks like sky
LIGHTS = np.array([0.0, 0.25, 0.5])  # how far a hue goes to white
TOUCHING = 4.0  # pixels from a cell to the middle of a border that is as good as none
PERCENTILES = (0.5, 99.8)  # of an image's pixels: they are shown black and white
NOBODY = 0.85  # grey of an object that covers none in truth


def stretched(image: np.ndarray) -> np.ndarray:
    """An image (H, W) or (H, W, 3) between two of its percentiles: uint8 (H, W) where it is gray, else (H, W, 3).

    All channels by the same levels: colours stay what they are.
    """
    low, high = np.percentile(image, PERCENTILES)
    grey = np.rint(rescale_intensity(image.astype(float), (low, max(high, low + 1e-6)), (0, 255))).astype(np.uint8)
    return grey[..., 0] if grey.ndim == 3 and (grey == grey[..., :1]).all() else grey


# ------------------------------------------------------------------------------------------------ objects


def pick_colours(objects: np.ndarray, rng: np.random.Generator, kept: np.ndarray | None = None) -> np.ndarray:
    """A hue and a lightness for each object of a label map (H, W), unlike its neighbours': int (count + 1, 2).

    Those of `kept` (count + 1, 2) stay where they are not -1. Where there are not enough hues for all around, touching
    objects come first: these get hues that look alike only where there is no other.
    """
    picked = np.full((int(objects.max()) + 1, 2), -1) if kept is None else kept.copy()
    hues = picked[:, 0]

    def unlike(others: list[int]) -> np.ndarray:
        around = hues[others]
        return ~np.isin(FAMILIES, FAMILIES[around[around >= 0]])

    for number, (others, touching) in enumerate(zip(_neighbours(objects), _neighbours(objects, TOUCHING), strict=True)):
        if hues[number] >= 0:
            continue
        unused = ~np.isin(np.arange(len(HUES)), hues[others])
        choices = (unlike(others), unlike(touching) & unused, unlike(touching), unused, np.ones(len(HUES), bool))
        picked[number] = rng.choice(np.flatnonzero(next(which for which in choices if which.any()))), \
            rng.integers(len(LIGHTS))
    return picked


def colours_of(picked: np.ndarray) -> np.ndarray:
    """Float (count + 1, 3), 0 is black, of what `pick_colours` gave."""
    hues, light = HUES[picked[:, 0]], LIGHTS[picked[:, 1], np.newaxis]
    colours = hues + (1 - hues) * light
    colours[0] = 0
    return colours


def random_colours(objects: np.ndarray, seed: int = 0) -> np.ndarray:
    """Float (count + 1, 3): black for 0, and a random colour for each object of a label map (H, W)."""
    return colours_of(pick_colours(objects, np.random.default_rng(seed)))


def linked_colours(slices: list[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Colours as `random_colours` gives them for label maps (H, W) that follow each other, so that cells keep theirs.

    A cell goes on in the one of the next slice that covers most of it, where it covers most of that one, too.
    """
    rng = np.random.default_rng(seed)
    picked = [pick_colours(slices[0], rng)]
    for before, now in pairwise(slices):
        backward, forward = largest_overlap(now, before), largest_overlap(before, now)
        same = (backward > 0) & (forward[backward] == np.arange(len(backward)))
        kept = np.where(same[:, np.newaxis], picked[-1][backward], -1)
        picked.append(pick_colours(now, rng, kept))
    return [colours_of(one) for one in picked]


def _neighbours(objects: np.ndarray, reach: float = np.inf) -> list[list[int]]:
    """For each number of a label map (H, W) the objects next to it; none for 0.

    Across a border of any width, or of twice `reach` pixels.
    """
    around: list[set[int]] = [set() for _ in range(int(objects.max()) + 1)]
    if not objects.any():
        return [[]]
    distance, places = ndimage.distance_transform_edt(objects == 0, return_indices=True)
    nearest = np.where(distance <= reach, objects[tuple(places)], 0)
    for one, other in ((nearest[1:], nearest[:-1]), (nearest[:, 1:], nearest[:, :-1])):
        for pair in np.unique(np.stack([one, other])[:, (one != other) & (one > 0) & (other > 0)], axis=1).T.tolist():
            around[pair[0]].add(pair[1])
            around[pair[1]].add(pair[0])
    return [sorted(others) for others in around]


def matched_colours(objects: np.ndarray, truth: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Float (H, W, 3): each object of a label map (H, W) in the colour of the true one that it covers most of.

    Light grey where it covers none.
    """
    most = largest_overlap(objects, truth)
    palette = np.where(most[:, np.newaxis] > 0, colours[most], NOBODY)
    palette[0] = 0
    return palette[objects]


def coloured(objects: np.ndarray) -> np.ndarray:
    """A label map (H, W) in random colours: uint8 (H, W, 3), 0 is black."""
    return np.rint(random_colours(objects) * 255).astype(np.uint8)[objects]


# ------------------------------------------------------------------------------------------------ classes


def class_colours(classes: int) -> np.ndarray:
    """Float (classes, 3): class 0 is black, then the hues but orange, which marks mistakes, then these ever lighter."""
    number, hues = np.arange(max(classes - 1, 0)), HUES[1:]
    rounds = 1 + (classes - 2) // len(hues)
    light = (number // len(hues) / max(rounds, 1))[:, np.newaxis]
    return np.vstack([np.zeros((1, 3)), hues[number % len(hues)] * (1 - light) + light])


def coloured_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Class numbers (H, W) in their colours: uint8 (H, W, 3)."""
    return np.rint(class_colours(classes) * 255).astype(np.uint8)[labels]
