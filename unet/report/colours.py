"""Colour numbers: objects at random, classes by a palette; stretch the contrast of images of any brightness.

All colours are Okabe and Ito's, which readers with any colour vision can tell apart, in several lightnesses. Vermilion
is not among them: it marks merged objects.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage

from unet.inputs.folders import stretch
from unet.report.pictures import BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW
from unet.scores.overlap import largest_overlap

HUES = np.array([to_rgb(hue) for hue in (ORANGE, SKY, GREEN, YELLOW, BLUE, PURPLE)])
FAMILIES = np.array([0, 1, 2, 3, 1, 4])  # of each hue; blue is in the family of sky, as it looks like it when lighter
LIGHTS = np.array([0.0, 0.25, 0.5])  # share of white mixed into a hue
TOUCHING = 4.0  # most pixels from a cell to the middle of a border across which cells count as touching
UNMATCHED = 0.85  # grey of an object that covers no true one


def for_display(image: np.ndarray) -> np.ndarray:
    """Stretch an image (H, W) or (H, W, 3) for a picture: uint8, (H, W) if it is grey, otherwise (H, W, 3)."""
    return squeeze_grey(stretch(image))


def squeeze_grey(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, C) as (H, W) if all its channels are equal; others as they are."""
    return image[..., 0] if image.ndim == 3 and (image == image[..., :1]).all() else image


# ------------------------------------------------------------------------------------------------ objects


def pick_colours(objects: np.ndarray, rng: np.random.Generator, fixed: np.ndarray | None = None) -> np.ndarray:
    """Pick a hue and a lightness for each object of a label map (H, W), unlike its neighbours': int (count + 1, 2).

    Rows of `fixed` (count + 1, 2) that are not -1 are kept. If there are not enough hues for all neighbours, those that
    touch come first: they get hues that look alike only if no other is left.
    """
    codes = np.full((int(objects.max()) + 1, 2), -1) if fixed is None else fixed.copy()
    hues = codes[:, 0]

    def unlike(neighbours: list[int]) -> np.ndarray:
        around = hues[neighbours]
        return ~np.isin(FAMILIES, FAMILIES[around[around >= 0]])

    for number, (neighbours, touching) in enumerate(zip(_neighbours(objects), _neighbours(objects, TOUCHING),
                                                        strict=True)):
        if hues[number] >= 0:
            continue
        unused = ~np.isin(np.arange(len(HUES)), hues[neighbours])
        choices = (unlike(neighbours), unlike(touching) & unused, unlike(touching), unused, np.ones(len(HUES), bool))
        codes[number] = rng.choice(np.flatnonzero(next(which for which in choices if which.any()))), \
            rng.integers(len(LIGHTS))
    return codes


def colours_of(codes: np.ndarray) -> np.ndarray:
    """Return the colours of hues and lightnesses from `pick_colours`: float (count + 1, 3), black for 0."""
    hues, light = HUES[codes[:, 0]], LIGHTS[codes[:, 1], np.newaxis]
    colours = hues + (1 - hues) * light
    colours[0] = 0
    return colours


def random_colours(objects: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a random colour for each object of a label map (H, W), and black for 0: float (count + 1, 3)."""
    return colours_of(pick_colours(objects, np.random.default_rng(seed)))


def linked_colours(slices: list[np.ndarray]) -> list[np.ndarray]:
    """Return colours as `random_colours` does for consecutive label maps (H, W); cells keep theirs in the next slice.

    A cell continues as the cell of the next slice that covers most of it, if it also covers most of that one.
    """
    rng = np.random.default_rng(0)
    codes = [pick_colours(slices[0], rng)]
    for before, now in pairwise(slices):
        backward, forward = largest_overlap(now, before), largest_overlap(before, now)
        same = (backward > 0) & (forward[backward] == np.arange(len(backward)))
        codes.append(pick_colours(now, rng, np.where(same[:, np.newaxis], codes[-1][backward], -1)))
    return [colours_of(one) for one in codes]


def _neighbours(objects: np.ndarray, reach: float = np.inf) -> list[list[int]]:
    """Return, for each number of a label map (H, W), the objects next to it; none for 0.

    Neighbours are separated by a border of any width, or of at most twice `reach` pixels.
    """
    around: list[set[int]] = [set() for _ in range(int(objects.max()) + 1)]
    if not objects.any():
        return [[]]
    distance, places = ndimage.distance_transform_edt(objects == 0, return_indices=True)
    nearest = np.where(distance <= reach, objects[tuple(places)], 0)
    for left, right in ((nearest[1:], nearest[:-1]), (nearest[:, 1:], nearest[:, :-1])):
        pairs = np.stack([left, right])[:, (left != right) & (left > 0) & (right > 0)]
        for first, second in np.unique(pairs, axis=1).T.tolist():
            around[first].add(second)
            around[second].add(first)
    return [sorted(neighbours) for neighbours in around]


def matched_colours(objects: np.ndarray, truth: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Draw each object of a label map (H, W) in the colour of the true one that it covers most of: float (H, W, 3).

    Objects that cover no true one are light grey.
    """
    matches = largest_overlap(objects, truth)
    palette = np.where(matches[:, np.newaxis] > 0, colours[matches], UNMATCHED)
    palette[0] = 0
    return palette[objects]


def colour_objects(objects: np.ndarray) -> np.ndarray:
    """Draw a label map (H, W) in random colours: uint8 (H, W, 3), black for 0."""
    return np.rint(random_colours(objects) * 255).astype(np.uint8)[objects]


# ------------------------------------------------------------------------------------------------ classes


def class_colours(classes: int) -> np.ndarray:
    """Return float (classes, 3): black, then all hues but orange (which marks mistakes), then the same hues lighter."""
    number, hues = np.arange(max(classes - 1, 0)), HUES[1:]
    rounds = 1 + (classes - 2) // len(hues)
    light = (number // len(hues) / max(rounds, 1))[:, np.newaxis]
    return np.vstack([np.zeros((1, 3)), hues[number % len(hues)] * (1 - light) + light])


def colour_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Draw class numbers (H, W) in their colours: uint8 (H, W, 3)."""
    return np.rint(class_colours(classes) * 255).astype(np.uint8)[labels]
