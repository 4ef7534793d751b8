"""From numbers to colours: instances at random, classes by a palette, images of any brightness so that they are seen.

All colours are Okabe and Ito's, in several lightnesses, which readers with any colour vision tell apart.
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage

from unet.report.pictures import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW

HUES = (ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE)
FAMILIES = np.array([0, 1, 2, 3, 1, 0, 4])  # of each hue: made lighter, blue looks like sky, vermilion like orange
TOUCHING = 4.0  # pixels from a cell to the middle of a border that is as good as none
PERCENTILES = (0.5, 99.8)  # of an image's pixels: they are shown black and white
NOBODY = 0.85  # grey of an instance that covers none in truth


def brightened(image: np.ndarray) -> np.ndarray:
    """An image uint8 (H, W, 3) so that a faint one is seen, too: uint8 (H, W) where it is gray, else (H, W, 3).

    All channels by the same levels: colours stay what they are.
    """
    low, high = np.percentile(image, PERCENTILES)
    seen = np.clip((image.astype(np.float32) - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
    return seen[..., 0] if (seen == seen[..., :1]).all() else seen


def random_colours(cells: np.ndarray, seed: int = 0) -> np.ndarray:
    """Float (count + 1, 3): black for 0 and for each cell of a label map (H, W) a random colour unlike its neighbours'.

    Okabe and Ito's colours in random lightness. Where there are not enough for all around, touching cells come first:
    these get hues that look alike only where there is no other.
    """
    rng = np.random.default_rng(seed)
    hues = np.array([to_rgb(hue) for hue in HUES])
    chosen = np.full(int(cells.max()) + 1, -1)

    def unlike(others: list[int]) -> np.ndarray:
        around = chosen[others]
        return ~np.isin(FAMILIES, FAMILIES[around[around >= 0]])

    for number, (others, touching) in enumerate(zip(_neighbours(cells), _neighbours(cells, TOUCHING), strict=True)):
        unused = ~np.isin(np.arange(len(hues)), chosen[others])
        candidates = (unlike(others), unlike(touching) & unused, unlike(touching), unused, np.ones(len(hues), bool))
        chosen[number] = rng.choice(np.flatnonzero(next(which for which in candidates if which.any())))
    light = rng.uniform(0, 0.5, (len(chosen), 1))
    colours = hues[chosen] + (1 - hues[chosen]) * light
    colours[0] = 0
    return colours


def _neighbours(cells: np.ndarray, reach: float = np.inf) -> list[list[int]]:
    """For each number of a label map (H, W) the cells next to it; none for 0.

    Across a border of any width, or of twice `reach` pixels.
    """
    around: list[set[int]] = [set() for _ in range(int(cells.max()) + 1)]
    if not cells.any():
        return [[]]
    distance, places = ndimage.distance_transform_edt(cells == 0, return_indices=True)
    nearest = np.where(distance <= reach, cells[tuple(places)], 0)
    for one, other in ((nearest[1:], nearest[:-1]), (nearest[:, 1:], nearest[:, :-1])):
        for pair in np.unique(np.stack([one, other])[:, (one != other) & (one > 0) & (other > 0)], axis=1).T.tolist():
            around[pair[0]].add(pair[1])
            around[pair[1]].add(pair[0])
    return [sorted(others) for others in around]


def matched_colours(cells: np.ndarray, truth: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Float (H, W, 3): each cell of a label map (H, W) in the colour of the true cell that it covers most of.

    Light grey where it covers none.
    """
    pairs = np.zeros((cells.max() + 1, truth.max() + 1), np.int64)
    np.add.at(pairs, (cells.ravel(), truth.ravel()), 1)
    pairs[:, 0] = 0  # membrane is no cell
    painted = colours[pairs.argmax(axis=1)]
    painted[~pairs.any(axis=1)] = NOBODY
    painted[0] = 0
    return painted[cells]


def drawn_instances(labels: np.ndarray) -> np.ndarray:
    """A label map (H, W) in random colours: uint8 (H, W, 3), 0 is black."""
    return np.rint(random_colours(labels) * 255).astype(np.uint8)[labels]


def class_colours(classes: int) -> np.ndarray:
    """Float (classes, 3): class 0 is black, then the hues, then the same ever lighter."""
    hues = np.array([to_rgb(hue) for hue in HUES])
    number = np.arange(max(classes - 1, 0))
    rounds = 1 + (classes - 2) // len(hues)
    light = (number // len(hues) / max(rounds, 1))[:, np.newaxis]
    return np.vstack([np.zeros((1, 3)), hues[number % len(hues)] * (1 - light) + light])


def drawn_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Class numbers (H, W) in their colours: uint8 (H, W, 3)."""
    return np.rint(class_colours(classes) * 255).astype(np.uint8)[labels]
