"""From the probability of cell to numbered cells: predicted membranes are redrawn as walls along their crests.

A watershed cuts a slice along the crests of its membranes, where the probability of membrane is greatest. The crest
between two cells is a wall, and each wall gets one value, the probability that it is no membrane: see `judge`. From all
values together follows at which of them the cells on both sides merge: see `merge_values`.

Only pixels near a crest are redrawn. Background that is too thick for a wall (a lumen, the outside of a colony) and
membranes that end within a cell stay as the network predicted them.
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
from unet.segment.judge import example, fit_judges, judge, neighbour_votes, neighbours
from unet.segment.merging import merge_values

SURE = 0.9  # probability of cell from which on a pixel seeds the watershed
FAIR = 0.8  # a piece of likely cell without such a pixel seeds it, too, if its surest pixel is above this
EVEN = 0.5  # a pixel with at most this probability of cell is more likely membrane
SMOOTH = 1.5  # standard deviation of the Gaussian that smooths the crest, pixels
THIN = 0.3  # three quarters of thin walls are at most this wide, as a share of the cells' diameter
THICK = 5.0  # background that is thicker is no wall, in widths of a usual wall
NEAR = 2.0  # up to this distance from a wall predicted membrane is taken for its blur, in widths of a usual wall
FOLDS = 5  # parts of the slices; the walls of each part are judged by what was learnt on the other parts
# how a threshold is picked: membranes are surer in training slices than in others, where cells run together at low
# thresholds; on training slices, V_rand differs little from .3 to .9. By cross-validation: for the probability as
# it is on ISBI 0-4 and 20-24; for drawn walls in five folds of ISBI 0-24, with eight networks
OVERSURE = {"usual": 0.8, "by_chance": 0.008}
OVERSURE_WITH_WALLS = {**OVERSURE, "usual": 0.5}
SWITCHED_OFF = "they are switched off"  # why a recipe without walls draws none, even if the labels have thin ones


# ------------------------------------------------------------------------------------------------ thin walls


def wall_width(labels: Iterable[np.ndarray]) -> tuple[float, str | None]:
    """Return the median width in pixels of the walls (0) between the cells of labels (H, W), or 0 and a reason.

    The reason, None for thin walls, says why there are none. The width is local: that of the background along the line
    to which `thin` shrinks it. Walls are thin if the upper quartile of their width is small compared with the cells'
    diameter (the side of a square of their area, weighted by area): a lumen or the outside of a colony is a small part
    of the lines, the background between scattered or packed objects is not. The median says less, as distances between
    objects vary: the 90th percentile is 2 times the median for packed discs, and up to 2.5 times in slices of the ISBI
    stack.
    """
    widths, areas = [np.empty(0)], [np.empty(0)]
    for label in labels:
        cell = label > 0
        line = ~thin(cell) if cell.any() else np.zeros(cell.shape, bool)
        widths.append(2 * distance_transform_edt(~cell)[line & ~cell] - 1)
        areas.append(np.bincount(components(cell).ravel())[1:].astype(float))
    width, area = np.concatenate(widths), np.concatenate(areas)
    if not width.size:
        return 0.0, "no two cells of the labels have a wall between them"
    diameter, wide = np.sqrt(area @ area / area.sum()), np.quantile(width, 0.75)
    if wide > THIN * diameter:
        return 0.0, ("the cells of the labels are not separated by thin walls: a quarter of what separates them is "
                     f"over {wide:.0f} pixels wide, and a cell measures {diameter:.0f}")
    return float(np.median(width)), None


def thin_walls(labels: Iterable[np.ndarray]) -> bool:
    """Tell whether labels (H, W), 0 = membrane, show cells with thin walls between them; see `wall_width`."""
    return wall_width(labels)[1] is None


# ---------------------------------------------------------------------------------------- walls along crests


@dataclass(frozen=True)
class Walls:
    """The n predicted membranes of a slice, each between two cells of its finest segmentation; see `find_walls`."""

    cells: np.ndarray  # int32 (H, W): a number for each cell, 0 = crest or thick
    thick: np.ndarray  # bool (H, W): background that is too thick for a wall
    crest: np.ndarray  # bool (H, W): the middle lines of the walls, P pixels
    wall_of: np.ndarray  # int64 (P,): the wall that each of the crest's pixels belongs to
    sides: np.ndarray  # int64 (n, 2): the cells on both sides of each wall
    probability: np.ndarray  # float32 (P,): probability of cell at each of the crest's pixels, SURE at most
    reach: np.ndarray  # float64 (P,): how far predicted membrane reaches from the crest, pixels; 0 = there is none

    @property
    def mean(self) -> np.ndarray:
        """The mean probability of cell along each wall, float64 (n,)."""
        return np.bincount(self.wall_of, self.probability) / np.bincount(self.wall_of)


def find_walls(probability: np.ndarray, width: float) -> Walls | None:
    """Cut a slice, probability of cell float32 (H, W), along the crests of its membranes; None if there is no crest.

    A watershed (Beucher and Lantuejoul 1979) floods the probability of membrane from the cells; the crest is where two
    floods meet. It leaves out background that is more than `THICK` times as thick as `width`, the usual width of walls
    in pixels.
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
    is_crest = greatest > 0  # pixels that no flood reached, inside thick background, are none
    if not is_crest.any():
        return None
    line, greatest = line[is_crest], greatest[is_crest]
    least = np.where(around == 0, number, around).min(axis=0)[is_crest]
    crest = np.zeros(cells.shape, bool)
    crest.ravel()[line] = True
    pairs, wall_of = np.unique(least.astype(np.int64) * number + greatest, return_inverse=True)
    sides = np.stack([pairs // number, pairs % number], axis=1)
    return Walls(cells, thick, crest, wall_of.ravel(), sides, np.minimum(probability.ravel()[line], SURE),
                 np.sqrt(depth.ravel()[line], dtype=np.float64))


def _seeds(probability: np.ndarray) -> np.ndarray:
    """Number the components of sure cell, and those of likely cell without a sure pixel, but with a fair one."""
    sure, likely = probability > SURE, components(probability > EVEN)
    seeds, fair = components(sure), np.zeros(likely.max() + 1, bool)
    doubtful = np.flatnonzero((probability > EVEN) & ~sure)
    piece = likely.ravel()[doubtful]
    fair[piece[probability.ravel()[doubtful] > FAIR]] = True
    starts = sure.copy()  # the first pixel of each run of sure ones along a row: every component has some
    starts[:, 1:] &= ~sure[:, :-1]
    fair[likely.ravel()[np.flatnonzero(starts)]] = False
    seeds.ravel()[doubtful] = np.where(fair[piece], piece + seeds.max(), 0)
    return seeds


def _around(values: np.ndarray, pixels: np.ndarray, beyond: float) -> np.ndarray:
    """Return the values (H, W) at `pixels`, n places in the raveled image, and at their eight neighbours; (9, n).

    Neighbours outside the image have the value `beyond`.
    """
    framed = np.full((values.shape[0] + 2, values.shape[1] + 2), beyond, values.dtype)
    framed[1:-1, 1:-1] = values
    width = framed.shape[1]
    corner = pixels + pixels // values.shape[1] * 2  # the first of the nine, in the framed image
    return np.stack([framed.ravel()[corner + (y * width + x)] for y in range(3) for x in range(3)])


def redraw(probability: np.ndarray, walls: Walls, values: np.ndarray, width: float) -> np.ndarray:
    """Redraw a probability of cell, float32 (H, W): each wall as wide as it is predicted, equally on both sides.

    All of a wall gets its value in `values` (n,): a short gap in a sure membrane closes, and a membrane that is
    doubtful all along merges its cells at a threshold below its value. The challenge's scores shrink a wide border
    equally from both sides, so that a cell on the side where its membrane fades slowly would lose pixels: the rest of
    the membrane beside its wall becomes cell, 1. But membrane that leads further away than `NEAR` times `width`, the
    usual width of walls in pixels, stays as it is, and so does thick background. All pixels that are more likely cell
    become 1: if they kept their doubt, a high threshold would cut them off from the cell beside the wall.
    """
    counts = np.bincount(walls.wall_of, walls.reach > 0)
    mean = np.where(counts > 0, np.bincount(walls.wall_of, walls.reach) / np.maximum(counts, 1), (width + 1) / 2)
    crest = np.flatnonzero(walls.crest)
    half = np.where(walls.reach > 0, walls.reach, mean[walls.wall_of])
    along, number = np.ones(probability.shape, np.float32), np.zeros(probability.size, np.int32)
    along.ravel()[crest], number[crest] = values[walls.wall_of], np.arange(len(crest))
    value = _around(along, crest, 1).min(axis=0)  # a sure wall has no gap of a pixel where a doubtful one meets it
    membrane = probability <= EVEN
    # pixels that are nearer to a crest than predicted membrane reaches are membrane
    reaches = half.max(where=walls.reach == 0, initial=0)
    middle = np.zeros(membrane.shape, bool)
    middle.ravel()[crest[half > 0]] = True
    near = squared_distance(middle & ~membrane, int(reaches) + 2) < math.ceil(reaches**2)
    pixels = np.flatnonzero(membrane | near)
    # membrane at a greater distance leads away
    squared, place = nearest(walls.crest, pixels, int(NEAR * width + half.max(initial=0)) + 2)
    crest_pixel, is_membrane = number[place], membrane.ravel()[pixels]
    beyond, thick = np.sqrt(squared, dtype=np.float64) - half[crest_pixel], walls.thick.ravel()[pixels]
    wall = ((beyond < 0) | ((beyond < 0.75) & is_membrane)) & ~thick  # the middle may lie between two pixels
    rest = np.zeros(membrane.shape, bool)
    rest.ravel()[pixels] = is_membrane & ~wall
    pieces = components(rest)
    pieces, leads_away = pieces.ravel()[pixels], np.zeros(pieces.max() + 1, bool)
    leads_away[pieces[thick | (beyond >= NEAR * width)]] = True
    leads_away[0] = False
    result = np.ones(probability.shape, np.float32)
    result.ravel()[pixels] = np.where(wall, value[crest_pixel],
                                      np.where(leads_away[pieces], probability.ravel()[pixels], np.float32(1)))
    return result


# ---------------------------------------------------------------------------------------------- learn and apply


def learn_cells(outputs: Sequence[np.ndarray], labels: Sequence[np.ndarray], walls: bool = True,
                thresholds: Sequence[float] = THRESHOLDS) -> dict:
    """Learn from labelled slices how to segment cells in probabilities of cell, float32 (H, W) each.

    `labels` are (H, W) each, 0 = membrane; the slices are in their order, as some are neighbours. Returns, ready for
    JSON, the "threshold" and the "curve" that it was picked from, V_rand at each of `thresholds`; "plain_threshold" and
    "plain_curve", the same for the probability as it is; the "walls" that `draw_walls` takes, None if none are to be
    drawn; and "why" not, None if they are. The threshold is the best for walls that were judged by what was learnt on
    other slices, as walls of new slices will be: a judge is too sure of its own examples. So is the network of slices
    that trained it; see `OVERSURE`.
    """
    width, why = wall_width(labels)
    plain = threshold_curve(outputs, labels, thresholds)
    learnt = {"plain_threshold": pick_threshold(plain, thresholds, **({} if why else OVERSURE)), "plain_curve": plain}
    if why or not walls:
        return {**learnt, "threshold": learnt["plain_threshold"], "curve": plain, "walls": None,
                "why": why if walls else SWITCHED_OFF}
    slice_walls = [find_walls(output, width) for output in outputs]
    votes = [one and neighbour_votes(one, outputs[number], neighbours(outputs, number))
             for number, one in enumerate(slice_walls)]
    examples = [one and example(one, label, vote) for one, label, vote in zip(slice_walls, labels, votes, strict=True)]
    folds = np.arange(len(outputs)) * FOLDS // max(len(outputs), FOLDS)  # slices of a fold are neighbours, and alike
    judges = [fit_judges([one for one, part in zip(examples, folds, strict=True) if one and part != fold])
              for fold in range(folds[-1] + 1)]
    # if any part has too few walls, none is judged: a threshold holds only for values that were computed in one way
    final = {name: judge_of_all if all(one[name] for one in judges) else None
             for name, judge_of_all in fit_judges([one for one in examples if one]).items()}
    maps = [_redraw(output, one, {"width": width, **{name: final[name] and judges[fold][name] for name in final}},
                    vote) for output, one, vote, fold in zip(outputs, slice_walls, votes, folds, strict=True)]
    curve = threshold_curve(maps, labels, thresholds)
    return {**learnt, "threshold": pick_threshold(curve, thresholds, **OVERSURE_WITH_WALLS), "curve": curve,
            "walls": {"width": width, **final}, "why": None}


def draw_walls(probability: np.ndarray, learnt: dict, neighbour_slices: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Redraw a probability of cell, float32 (H, W), with the "walls" that `learn_cells` returned; see `redraw`.

    `neighbour_slices` are the probabilities of the slices before and after it, if there are any.
    """
    walls, votes = find_walls(probability, learnt["width"]), None
    if walls and learnt.get("with_neighbours"):  # runs of an earlier version have no such judge
        votes = neighbour_votes(walls, probability, neighbour_slices)
    return _redraw(probability, walls, learnt, votes)


def _redraw(probability: np.ndarray, walls: Walls | None, learnt: dict, votes: np.ndarray | None) -> np.ndarray:
    """Judge the walls, with `votes` if there are any, and redraw each with the value at which its cells merge.

    Return the probability if there are no walls.
    """
    if not walls:
        return probability
    with_neighbours = None if votes is None else learnt["with_neighbours"]
    values = judge(walls, with_neighbours, votes) if with_neighbours else judge(walls, learnt["judge"])
    return redraw(probability, walls, merge_values(walls, values), learnt["width"])


def number_cells(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Number the cells of a probability (H, W), redrawn or not: int32 (H, W), 1, 2, ...; 0 = border.

    The cells are the 4-connected components of the pixels with a probability > `threshold`; they grow over the border
    until it is one pixel wide, as for V_rand and V_info. Specks that those scores then cut off, and count, stay part of
    their cell.
    """
    return basins(0, components(probability > threshold))
