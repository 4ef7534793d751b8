"""Paint mistakes over the image: a colour has the same meaning in all pictures of all tasks.

Warm colours say that something is missing in the prediction (a wall, an object), cool ones that it has too much. Merges
and splits have the two colours that readers with any colour vision tell apart best: over grey their CIEDE2000 distance
is at least 47, that of any two colours of objects at least 9, also in simulations of three colour vision deficiencies
(Machado et al. 2009).
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage
from skimage.segmentation import find_boundaries

from unet.report.pictures import BLUE, GREEN, ORANGE, PURPLE, VERMILION, YELLOW, fade
from unet.scores.mistakes import MembraneMistakes, ObjectMistakes

MERGED, SPLIT, MISSED, INVENTED, RIGHT, HARMLESS = VERMILION, BLUE, ORANGE, PURPLE, GREEN, YELLOW
MEANING = {
    MERGED: "merged: several become one",  # membrane missed between cells; merged objects
    SPLIT: "split: one becomes several",  # membrane invented within a cell; a split object
    MISSED: "missed",  # an object that was not found; in runs on classes, wrong pixels
    INVENTED: "invented",  # an object where there is none
    RIGHT: "right",  # an object that was found
    HARMLESS: "beside the true border, harmless",  # wrong pixels that neither merge nor split
}
STRENGTH = 0.8  # opacity of an object's colour over the image
STRENGTH_OF_HARMLESS = 0.55  # opacity of harmless wrong pixels
INCHES = 2.2  # width of the widest entry of the legend


def legend(figure: Figure, *colours: str) -> None:
    """Explain these colours of `MEANING` in a legend above the panels."""
    columns = min(len(colours), int(figure.get_figwidth() / INCHES))
    figure.legend(handles=[Patch(color=colour, label=MEANING[colour]) for colour in colours],
                  loc="outside upper right", ncols=columns, fontsize=8, frameon=False)


def _tint(overlay: np.ndarray, mask: np.ndarray, colour: str, strength: float) -> None:
    """Colour the pixels of float (H, W, 3) where bool (H, W) is True, in place."""
    overlay[mask] = (1 - strength) * overlay[mask] + strength * np.array(to_rgb(colour))


def paint_membranes(image: np.ndarray, mistakes: MembraneMistakes) -> np.ndarray:
    """Paint wrong pixels by their effect over the faded image, uint8 (H, W[, 3]): float (H, W, 3) 0..1."""
    overlay = fade(image)
    _tint(overlay, mistakes.harmless, HARMLESS, STRENGTH_OF_HARMLESS)
    for mask, colour in ((mistakes.merging, MERGED), (mistakes.splitting, SPLIT)):
        _tint(overlay, ndimage.binary_dilation(mask), colour, 1)  # wider: three pixels must be visible in print
    return overlay


def paint_objects(image: np.ndarray, objects: np.ndarray, truth: np.ndarray, mistakes: ObjectMistakes) -> np.ndarray:
    """Paint objects over the faded image, uint8 (H, W[, 3]): float (H, W, 3) 0..1.

    `objects` and `truth` are label maps (H, W) of the predicted and the true objects. A true object's colour says
    whether it was found, missed, merged or split; invented objects have a colour, too. All predicted objects have black
    outlines.
    """
    overlay = fade(image)
    for labels, numbers, colour in ((objects, mistakes.invented, INVENTED), (truth, mistakes.right, RIGHT),
                                    (truth, mistakes.missed, MISSED), (truth, mistakes.merged, MERGED),
                                    (truth, mistakes.split, SPLIT)):
        _tint(overlay, np.isin(labels, numbers), colour, STRENGTH)
    overlay[find_boundaries(objects, mode="inner")] = 0
    return overlay


# ------------------------------------------------------------------------------------------- where to look


def group_centres(mask: np.ndarray, distance: int = 12) -> np.ndarray:
    """Return the centres (n, 2), y and x, of groups of True pixels, bool (H, W), at most `distance` + 1 apart."""
    groups, count = ndimage.label(ndimage.binary_dilation(mask, iterations=distance // 2))
    return np.array(ndimage.center_of_mass(mask, groups, range(1, count + 1))).reshape(-1, 2)


def busiest(mask: np.ndarray, side: int) -> tuple[slice, slice]:
    """Return the window, at most `side` pixels each way, with most True pixels of bool (H, W); if none, the middle."""
    size = tuple(min(side, full) for full in mask.shape)
    if not mask.any():
        corner = [(full - part) // 2 for full, part in zip(mask.shape, size, strict=True)]
    else:
        sums = np.pad(mask, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
        inside = (sums[size[0]:, size[1]:] - sums[:-size[0], size[1]:] - sums[size[0]:, :-size[1]]
                  + sums[:-size[0], :-size[1]])
        # the middle one of equally good windows, so that mistakes do not lie at the window's edge
        corner = tuple(round(place) for place in ndimage.center_of_mass(inside == inside.max()))
        if inside[corner] < inside.max():
            corner = np.unravel_index(inside.argmax(), inside.shape)
    return tuple(slice(int(start), int(start) + part) for start, part in zip(corner, size, strict=True))
