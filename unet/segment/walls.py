"""From the probability of cell to cells with a number each: predicted membranes redrawn as walls along their crests.

A watershed cuts a slice along the crests of its membranes; the crest between two cells is a wall, and each wall gets
one value, the probability that it is no membrane: see `judge`.

Only what lies near a crest is redrawn. Background that is too thick for a wall (a lumen, the outside of a colony) and
membranes that end within a cell stay as the network gave them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from unet.scores.isbi import THRESHOLDS, components, pick_threshold, thin, threshold_curve
from unet.segment.basins import basins
from unet.segment.distance import nearest, squared_distance
from unet.segment.judge import example, fit_judges, joined, judge, neighbours

SURE = 0.9  # probability of cell from which on a pixel seeds the watershed
FAIR = 0.8  # ... and that seeds it where it is the most of a piece that membrane encloses
EVEN = 0.5  # up to here a pixel is more likely membrane than cell
SMOOTH = 1.5  # standard deviation of the Gaussian that steadies the crest, pixels
THIN = 0.3  # three quarters of the walls are at most this share of the cells' diameter wide, else they are no walls
THICK = 5.0  # walls' widths: what is thicker is no wall
NEAR = 2.0  # walls' widths: how far beside a wall predicted membrane is taken for its blur
FOLDS = 5  # parts of the slices, for walls judged by what was learnt on the others
# of how a threshold is picked: membranes are surer in slices that trained than in others, where cells run together at
# low thresholds; V_rand of those that trained says little from .3 to .9. By cross-validation, ISBI 0-4 and 20-24, for
# the probability as it is; with walls drawn, which hold at lower ones, in five folds of ISBI 0-24
OVERSURE = {"usual": 0.8, "by_chance": 0.008}
OVERSURE_DRAWN = {**OVERSURE, "usual": 0.7}


# ------------------------------------------------------------------------------------------------ thin walls


def wall_width(labels: Iterable[np.ndarray]) -> tuple[float, str | None]:
    """Median width in pixels of the walls (0) between the cells of labels (H, W), and why they are no thin walls.

    The width is local: that of the background along the line that `thin` leaves of it. Walls are thin where its upper
    quartile is small against the cells' diameter (of squares of their area, weighted by area): a lumen or the outside
    of a colony is a small part of the lines, the ground between scattered or packed objects is not. The median says
    less, as objects lie apart by chance: the 90th percentile is 2 times the median among packed discs, and up to 2.5
    times in slices of the ISBI stack.
    """
    widths, sizes = [np.empty(0)], [np.empty(0)]
    for one in labels:
        cell = one > 0
        line = ~thin(cell) if cell.any() else np.zeros(cell.shape, bool)
        widths.append(2 * distance_transform_edt(~cell)[line & ~cell] - 1)
        sizes.append(np.bincount(components(cell).ravel())[1:].astype(float))
    width, area = np.concatenate(widths), np.concatenate(sizes)
    if not width.size:
        return 0.0, "no two cells of the labels have a wall between them"
    diameter, wide = np.sqrt(area @ area / area.sum()), np.quantile(width, 0.75)
    if wide > THIN * diameter:
        return 0.0, (f"what separates the cells of the labels is no thin wall: a quarter of it is over {wide:.0f} "
                     f"pixels wide, where a cell measures {diameter:.0f}")
    return float(np.median(width)), None


def thin_walls(labels: Iterable[np.ndarray]) -> bool:
    """Whether labels (H, W), 0 = membrane, show cells with thin walls between them; see `wall_width`."""
    return wall_width(labels)[1] is None


# ---------------------------------------------------------------------------------------- along the crests


@dataclass(frozen=True)
class Walls:
    """The predicted membranes of a slice, each between two cells of its finest segmentation; see `find_walls`."""

    cells: np.ndarray  # int32 (H, W): a number for each cell, 0 = crest or thick
    thick: np.ndarray  # bool (H, W): background that is too thick for a wall
    crest: np.ndarray  # bool (H, W): the middle lines of the walls, P pixels
    of: np.ndarray  # int64 (P,): the wall of each of the crest's pixels
    sides: np.ndarray  # int64 (n, 2): the cells on both sides of each wall
    probability: np.ndarray  # float32 (P,): of cell, at each of the crest's pixels, SURE at most
    reach: np.ndarray  # float64 (P,): how far predicted membrane reaches from the crest, pixels; 0 = there is none

    @property
    def mean(self) -> np.ndarray:
        """Mean probability of cell along each wall, float64 (n,)."""
        return np.bincount(self.of, self.probability) / np.bincount(self.of)


def find_walls(probability: np.ndarray, width: float) -> Walls | None:
    """Cut a slice, probability of cell float32 (H, W), along the crests of its membranes; None where there is none.

    A watershed (Beucher and Lantuejoul 1979) floods the probability of membrane from the cells; where two meet is the
    crest. It keeps out of what is `THICK` times thicker than `width`, the walls' usual width in pixels.
    """
    half = THICK * width / 2
    depth = squared_distance(probability > EVEN, int(half) + 2)
    core = depth > int(half**2)
    thick = (depth > 0) & (squared_distance(core, int(half) + 2) <= int(half**2)) if core.any() else core
    height = gaussian_filter(probability, SMOOTH)
    cells = basins(np.minimum(height, SURE, out=height), _seeds(probability), ~thick)
    line, number = np.flatnonzero((cells == 0) & ~thick), cells.max() + 1
    around = _around(cells, line, 0)
    greatest = around.max(axis=0)
    reached = greatest > 0  # what no flood reached, within something thick, is no crest
    if not reached.any():
        return None
    line, greatest = line[reached], greatest[reached]
    least = np.where(around == 0, number, around).min(axis=0)[reached]
    crest = np.zeros(cells.shape, bool)
    crest.ravel()[line] = True
    pairs, of = np.unique(least.astype(np.int64) * number + greatest, return_inverse=True)
    sides = np.stack([pairs // number, pairs % number], axis=1)
    return Walls(cells, thick, crest, of.ravel(), sides, np.minimum(probability.ravel()[line], SURE),
                 np.sqrt(depth.ravel()[line], dtype=np.float64))


def _seeds(probability: np.ndarray) -> np.ndarray:
    """A number for each component of sure cell, and for each of likely cell that has none, but is fair somewhere."""
    sure, likely = probability > SURE, components(probability > EVEN)
    seeds, fair = components(sure), np.zeros(likely.max() + 1, bool)
    doubtful = np.flatnonzero((probability > EVEN) & ~sure)
    piece = likely.ravel()[doubtful]
    fair[piece[probability.ravel()[doubtful] > FAIR]] = True
    starts = sure.copy()  # of each row of sure pixels the first one: all components are among them
    starts[:, 1:] &= ~sure[:, :-1]
    fair[likely.ravel()[np.flatnonzero(starts)]] = False
    seeds.ravel()[doubtful] = np.where(fair[piece], piece + seeds.max(), 0)
    return seeds


def _around(values: np.ndarray, pixels: np.ndarray, beyond: float) -> np.ndarray:
    """Of `pixels`, n places in the raveled image, the values (H, W) and those of all eight neighbours; (9, n).

    Outside the image they are `beyond`.
    """
    framed = np.full((values.shape[0] + 2, values.shape[1] + 2), beyond, values.dtype)
    framed[1:-1, 1:-1] = values
    width = framed.shape[1]
    corner = pixels + pixels // values.shape[1] * 2  # of the nine, in the frame
    return np.stack([framed.ravel()[corner + (y * width + x)] for y in range(3) for x in range(3)])


def redraw(probability: np.ndarray, walls: Walls, values: np.ndarray, width: float) -> np.ndarray:
    """Probability of cell, float32 (H, W), redrawn: each wall as wide as it is predicted, alike to both sides.

    All of a wall gets its value in `values` (n,): a short gap in a sure membrane closes, and a membrane that is
    doubtful all along merges its cells at a threshold below its value. The challenge's scores shrink a wide border
    from both sides alike, so that a cell on the side where its membrane fades slowly would lose pixels: what is left of
    the membrane beside its wall becomes cell, 1. But membrane that leads further away than `NEAR` times `width`, the
    walls' usual width in pixels, stays as it is, and so does what is thick. What is likelier cell is 1: where it kept
    its doubt, a high threshold would cut it off from the cell beside the wall.
    """
    known = np.bincount(walls.of, walls.reach > 0)
    mean = np.where(known > 0, np.bincount(walls.of, walls.reach) / np.maximum(known, 1), (width + 1) / 2)
    crest = np.flatnonzero(walls.crest)
    half = np.where(walls.reach > 0, walls.reach, mean[walls.of])
    along, number = np.ones(probability.shape, np.float32), np.zeros(probability.size, np.int32)
    along.ravel()[crest], number[crest] = values[walls.of], np.arange(len(crest))
    value = _around(along, crest, 1).min(axis=0)  # where a sure wall meets a doubtful one, it has no gap of a pixel
    membrane = probability <= EVEN
    # what is nearer to a crest than predicted membrane reaches is membrane
    reaches = half.max(where=walls.reach == 0, initial=0)
    middle = np.zeros(membrane.shape, bool)
    middle.ravel()[crest[half > 0]] = True
    near = squared_distance(middle & ~membrane, int(reaches) + 2) < math.ceil(reaches**2)
    asked = np.flatnonzero(membrane | near)
    # beyond that it leads away
    squared, place = nearest(walls.crest, asked, int(NEAR * width + half.max(initial=0)) + 2)
    nearest_one, is_membrane = number[place], membrane.ravel()[asked]
    beyond, thick = np.sqrt(squared, dtype=np.float64) - half[nearest_one], walls.thick.ravel()[asked]
    wall = ((beyond < 0) | ((beyond < 0.75) & is_membrane)) & ~thick  # the middle may lie between two pixels
    rest = np.zeros(membrane.shape, bool)
    rest.ravel()[asked] = is_membrane & ~wall
    others = components(rest)
    others, leads = others.ravel()[asked], np.zeros(others.max() + 1, bool)
    leads[others[thick | (beyond >= NEAR * width)]] = True
    leads[0] = False
    redrawn = np.ones(probability.shape, np.float32)
    redrawn.ravel()[asked] = np.where(wall, value[nearest_one],
                                      np.where(leads[others], probability.ravel()[asked], np.float32(1)))
    return redrawn


# ---------------------------------------------------------------------------------------------- learn and apply


def learn_cells(outputs: Sequence[np.ndarray], labels: Sequence[np.ndarray], walls: bool = True,
                thresholds: Sequence[float] = THRESHOLDS) -> dict:
    """Learn from labelled slices how to come from probabilities of cell, float32 (H, W) each, to cells.

    `labels` (H, W) each, 0 = membrane; the slices in their order, as some are neighbours. Returns, ready for JSON, the
    "threshold" and the "curve" that it was picked from, V_rand at each of `thresholds`; "plain_threshold" and
    "plain_curve", those of the probability as it is; the "walls" that `draw_walls` takes, None where none are to be
    drawn; "why" not, None where they are. The threshold is the best for walls that were judged by what was learnt on
    other slices, as it will be with new ones: of its own examples a judge is too sure. So is the network itself of
    slices that trained it; see `OVERSURE`.
    """
    width, why = wall_width(labels)
    plain = threshold_curve(outputs, labels, thresholds)
    learnt = {"plain_threshold": pick_threshold(plain, thresholds, **({} if why else OVERSURE)), "plain_curve": plain}
    if why or not walls:
        return {**learnt, "threshold": learnt["plain_threshold"], "curve": plain, "walls": None,
                "why": why if walls else "they are switched off"}
    cut = [find_walls(output, width) for output in outputs]
    beside = [one and joined(one, outputs[number], neighbours(outputs, number)) for number, one in enumerate(cut)]
    examples = [one and example(one, label, there) for one, label, there in zip(cut, labels, beside, strict=True)]
    folds = np.arange(len(cut)) * FOLDS // max(len(cut), FOLDS)  # neighbours in one: they resemble each other
    judges = [fit_judges([one for one, part in zip(examples, folds, strict=True) if one and part != fold])
              for fold in range(folds[-1] + 1)]
    # where walls are too few for any part, none of them is judged: a threshold holds for one way to get values alone
    final = {name: fitted if all(one[name] for one in judges) else None
             for name, fitted in fit_judges([one for one in examples if one]).items()}
    maps = [_redraw(output, one, {"width": width, **{name: final[name] and judges[fold][name] for name in final}},
                    there) for output, one, there, fold in zip(outputs, cut, beside, folds, strict=True)]
    curve = threshold_curve(maps, labels, thresholds)
    return {**learnt, "threshold": pick_threshold(curve, thresholds, **OVERSURE_DRAWN), "curve": curve,
            "walls": {"width": width, **final}, "why": None}


def draw_walls(probability: np.ndarray, learnt: dict, beside: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Redraw a probability of cell, float32 (H, W), with the "walls" that `learn_cells` gave; see `redraw`.

    `beside` are the probabilities of the slices before and after it, as far as there are any.
    """
    walls = find_walls(probability, learnt["width"])
    asked = walls and learnt.get("with_neighbours")  # runs of an earlier version have none
    return _redraw(probability, walls, learnt, joined(walls, probability, beside) if asked else None)


def _redraw(probability: np.ndarray, walls: Walls | None, learnt: dict, beside: np.ndarray | None) -> np.ndarray:
    if not walls:
        return probability
    others = None if beside is None else learnt["with_neighbours"]
    judged = judge(walls, others, beside) if others else judge(walls, learnt["judge"])
    return redraw(probability, walls, judged, learnt["width"])


def number_cells(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Number the cells of a probability (H, W), redrawn or not: int32 (H, W), 1, 2, ...; 0 = border.

    The 4-connected components of where the probability is > `threshold` are the cells; they flood the border between
    them but for a pixel, as V_rand and V_info do. Specks that these cut off then, and count, stay with their cell.
    """
    return basins(0, components(probability > threshold))
