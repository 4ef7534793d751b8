"""Mistakes in colours over the image: a colour means one thing in all pictures of all tasks.

Warm colours say that the prediction has too little (a wall, an object), cool ones that it has too much. Merges and
splits are the pair that readers with any colour vision tell apart best: their CIEDE2000 distance over grey is 47 or
more, that of any two colours of objects 9 or more, simulated for three colour deficiencies (Machado et al. 2009).
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage
from skimage.segmentation import find_boundaries

from unet.report.pictures import BLUE, GREEN, ORANGE, PURPLE, VERMILION, YELLOW, faded
from unet.scores.mistakes import MembraneMistakes, ObjectMistakes

MERGED, SPLIT, MISSED, INVENTED, RIGHT, HARMLESS = VERMILION, BLUE, ORANGE, PURPLE, GREEN, YELLOW
MEANING = {
    MERGED: "merged: several become one",  # the membrane missed between them, or the objects
    SPLIT: "split: one becomes several",  # the membrane invented within it, or the object
    MISSED: "missed",  # an object, or pixels of a class, given to another
    INVENTED: "invented",  # an object where none is
    RIGHT: "right",  # an object found
    HARMLESS: "beside the true border, harmless",  # wrong pixels that merge and split nothing
}
STRENGTH = 0.8  # of an object's colour over the image
STRENGTH_OF_HARMLESS = 0.55
INCHES = 2.2  # of the widest entry of the legend


def legend(figure: Figure, *colours: str) -> None:
    """Say above the panels what these colours of `MEANING` mean."""
    columns = min(len(colours), int(figure.get_figwidth() / INCHES))
    figure.legend(handles=[Patch(color=colour, label=MEANING[colour]) for colour in colours],
                  loc="outside upper right", ncols=columns, fontsize=8, frameon=False)


def _tint(overlay: np.ndarray, where: np.ndarray, colour: str, strength: float) -> None:
    """Colour the pixels of float (H, W, 3) where bool (H, W) is True, in place."""
    overlay[where] = (1 - strength) * overlay[where] + strength * np.array(to_rgb(colour))


def paint_membranes(image: np.ndarray, mistakes: MembraneMistakes) -> np.ndarray:
    """Float (H, W, 3) in 0..1: the image uint8 (H, W[, 3]), faded, with wrong pixels by what they do."""
    overlay = faded(image)
    _tint(overlay, mistakes.harmless, HARMLESS, STRENGTH_OF_HARMLESS)
    for where, colour in ((mistakes.merging, MERGED), (mistakes.splitting, SPLIT)):
        _tint(overlay, ndimage.binary_dilation(where), colour, 1)  # wider: three pixels have to be visible in print
    return overlay


def paint_objects(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray, mistakes: ObjectMistakes) -> np.ndarray:
    """Float (H, W, 3) in 0..1: the image uint8 (H, W[, 3]), faded, true objects by what became of them.

    Invented ones have theirs, too; the outlines of all predicted objects are black.
    """
    overlay = faded(image)
    for labels, numbers, colour in ((predicted, mistakes.invented, INVENTED), (truth, mistakes.right, RIGHT),
                                    (truth, mistakes.missed, MISSED), (truth, mistakes.merged, MERGED),
                                    (truth, mistakes.split, SPLIT)):
        _tint(overlay, np.isin(labels, numbers), colour, STRENGTH)
    overlay[find_boundaries(predicted, mode="inner")] = 0
    return overlay


# ------------------------------------------------------------------------------------------- where to look


def places(where: np.ndarray, apart: int = 12) -> np.ndarray:
    """Middles (n, 2) as (y, x) of the groups of pixels in bool (H, W); what lies less than `apart` pixels is one."""
    groups, count = ndimage.label(ndimage.binary_dilation(where, iterations=apart // 2))
    return np.array(ndimage.center_of_mass(where, groups, range(1, count + 1))).reshape(-1, 2)


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
