"""From the probability of cell to numbered cells: predicted membranes are redrawn as walls along their crests.

Each wall, see `find_walls`, gets one value, the probability that it is no membrane: see `judge`. From all values
together follows at which of them the cells on both sides merge: see `merge_values`. It is drawn with that value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from unet.scores.isbi import THRESHOLDS, components, pick_threshold, thin, threshold_curve
from unet.segment.basins import basins
from unet.segment.crests import Walls, find_walls, redraw
from unet.segment.judge import example, fit_judges, judge, neighbour_votes, neighbouring
from unet.segment.merging import merge_values

THIN = 0.3  # three quarters of thin walls are at most this wide, as a share of the cells' diameter
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
    votes = [one and neighbour_votes(one, outputs[number], neighbouring(outputs, number))
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


def draw_walls(probability: np.ndarray, learnt: dict, neighbours: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Redraw a probability of cell, float32 (H, W), with the "walls" that `learn_cells` returned; see `redraw`.

    `neighbours` are the probabilities of the slices before and after it, if there are any.
    """
    walls, votes = find_walls(probability, learnt["width"]), None
    if walls and learnt.get("with_neighbours"):  # runs of an earlier version have no such judge
        votes = neighbour_votes(walls, probability, neighbours)
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
