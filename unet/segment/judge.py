"""Which of the walls of a slice are membranes: learnt from labelled slices, asked of others.

A wall in doubt is a matter of more than its mean probability: a short one between two large cells is rarely a
membrane, a long one with a sure end mostly is. And sections are thin against cells: two cells that a true membrane
parts are seldom one in the slices before and after. A logistic regression on the walls' shape and probabilities, and on
what the neighbouring slices say, decides; the idea of learning to merge an over-segmentation is that of Nunez-Iglesias
et al., PLoS ONE 8(8), e71715, 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import root
from scipy.special import expit, logit

from unet.scores.isbi import components
from unet.scores.overlap import largest_overlap
from unet.segment.distance import squared_distance

if TYPE_CHECKING:
    from unet.segment.walls import Walls

LEAST_WALLS = 50  # of either sort, to learn from
RIDGE = 30.0  # strength of the penalty on the squared weights, in walls; by cross-validation
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
JOINED = 0.7  # what hangs together above this probability is one cell of a neighbouring slice
# correlation of two slices' probabilities from which on they are neighbours: of ISBI 10-24 next ones have .14 to .44,
# those five apart .11 at most
ALIKE = 0.12
BLOCK = 4  # pixels: over squares of this side probabilities are averaged before they are compared


def neighbours(slices: Sequence, number: int) -> list:
    """Those before and after one of the slices, as far as there are any."""
    return [slices[other] for other in (number - 1, number + 1) if 0 <= other < len(slices)]


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two probabilities (H, W) show the same tissue: images that follow each other need not."""
    if one.shape != other.shape or min(one.shape) < 2 * BLOCK:
        return False
    high, wide = (side // BLOCK for side in one.shape)
    small = [probability[:high * BLOCK, :wide * BLOCK].reshape(high, BLOCK, wide, BLOCK).mean(axis=(1, 3)).ravel()
             for probability in (one, other)]
    return all(np.ptp(values) for values in small) and bool(np.corrcoef(*small)[0, 1] >= ALIKE)


def joined(walls: Walls, probability: np.ndarray, neighbours: Sequence[np.ndarray]) -> np.ndarray | None:
    """Share of the neighbouring slices in which one cell lies on both sides of each wall, float64 (n,).

    `neighbours` are probabilities of cell (H, W) of the slices before and after that of `probability`, whose the walls
    are. What is not `alike` is left out; None where nothing is left. A side is the cell there that covers most of it;
    a slice in which there is none for one of the sides counts half.
    """
    said = []
    for neighbour in neighbours:
        if alike(probability, neighbour):
            most = largest_overlap(walls.cells, components(neighbour > JOINED))[walls.sides]
            said.append(np.where((most > 0).all(axis=1), most[:, 0] == most[:, 1], 0.5))
    return np.mean(said, axis=0) if said else None


def features(walls: Walls, beside: np.ndarray | None = None) -> np.ndarray:
    """What is to be known of each wall, float64 (n, 15): nothing of the image itself, whose grey levels may differ.

    Mean and log-odds of the probability along it, the quantiles `QUANTILES`; log length in pixels; log area of the
    smaller and the larger side; its share of the smaller side's whole border; its length against the width of
    the narrower side, and that width, both as logarithms. With what `joined` said of the slices `beside` they are 16.
    """
    length = np.bincount(walls.of)
    ordered = walls.probability[np.lexsort((walls.probability, walls.of))]
    first = np.cumsum(length) - length
    quantiles = [ordered[first + np.minimum((length * share).astype(int), length - 1)] for share in QUANTILES]

    one, other = walls.sides.T
    count = walls.cells.max() + 1
    area = np.bincount(walls.cells.ravel(), minlength=count)
    border = np.bincount(walls.sides.ravel(), np.repeat(length, 2), minlength=count)
    inside = np.zeros(count, np.uint16)
    np.maximum.at(inside, walls.cells.ravel(), squared_distance(walls.cells == 0).ravel())
    width = np.sqrt(np.maximum(np.minimum(inside[one], inside[other]), 1), dtype=np.float64)
    return np.stack([walls.mean, logit(np.clip(walls.mean, 1e-3, 1 - 1e-3)), *quantiles, np.log(length),
                     np.log(np.minimum(area[one], area[other]) + 1), np.log(np.maximum(area[one], area[other]) + 1),
                     length / np.minimum(border[one], border[other]), np.log(length / width), np.log(width),
                     *([] if beside is None else [beside])], axis=1)


def within_one_cell(walls: Walls, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each wall whether one true cell lies on both sides, bool (n,), and whether that is known, bool (n,).

    `label` (H, W), 0 = membrane. A side is the true cell that covers most of it; one that is all membrane is none.
    """
    most = largest_overlap(walls.cells, components(label > 0))[walls.sides]
    return most[:, 0] == most[:, 1], (most > 0).all(axis=1)


def example(walls: Walls, label: np.ndarray, beside: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each wall that is known in `label`, `features` without neighbours, what is `joined` there, nan where nothing
    is, and whether it is none; float64 (n, 15) and (n,), bool (n,).
    """
    same, known = within_one_cell(walls, label)
    there = np.full(len(same), np.nan) if beside is None else beside
    return features(walls)[known], there[known], same[known]


def fit_judges(examples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, dict | None]:
    """What `fit_judge` learns from examples of slices: the "judge" of a slice alone, and that "with_neighbours"."""
    stacked = [(np.column_stack([values, beside]), same) for values, beside, same in examples
               if not np.isnan(beside).any()]
    return {"judge": fit_judge([(values, same) for values, _, same in examples]), "with_neighbours": fit_judge(stacked)}


def fit_judge(examples: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict | None:
    """Learn from examples, `features` (n, 15 or 16) and whether one cell lies on both sides (n,), which walls are none.

    Returns what `judge` needs, ready for JSON, or None where there are too few walls of either sort.
    """
    values, same = (np.concatenate(parts) for parts in zip(*examples, strict=True)) if examples else ([], np.zeros(0))
    if min(same.sum(), len(same) - same.sum()) < LEAST_WALLS:
        return None
    learnt = {"least": values.min(axis=0).tolist(), "most": values.max(axis=0).tolist(),
              "mean": values.mean(axis=0).tolist(), "sd": (values.std(axis=0) + 1e-6).tolist()}
    terms = _terms(values, learnt)
    strength = np.append(0, np.full(terms.shape[1] - 1, RIDGE))

    def slope(weights: np.ndarray) -> np.ndarray:
        return terms.T @ (expit(terms @ weights) - same) + 2 * strength * weights

    def curvature(weights: np.ndarray) -> np.ndarray:
        chance = expit(terms @ weights)
        return (terms.T * (chance * (1 - chance))) @ terms + 2 * np.diag(strength)

    # of the log-likelihood less the penalty, which has one maximum
    best = root(slope, np.zeros(terms.shape[1]), jac=curvature)
    return {**learnt, "weights": best.x.tolist()}


def judge(walls: Walls, learnt: dict | list | None, beside: np.ndarray | None = None) -> np.ndarray:
    """Probability of each wall that one cell lies on both its sides, float64 (n,), by what `fit_judge` learnt.

    That was learnt of features as these are, with what is `joined` in the slices beside or without. The mean of the
    probability along the wall where nothing was learnt; of several judges, a list, the mean of what they say.
    """
    if isinstance(learnt, list):
        return np.mean([judge(walls, one, beside) for one in learnt], axis=0)
    return expit(_terms(features(walls, beside), learnt) @ np.array(learnt["weights"])) if learnt else walls.mean


def _terms(values: np.ndarray, learnt: dict) -> np.ndarray:
    """1, the features, and their products two by two, float64 (n, 136 or 153).

    Beyond what was seen they stay at its edge.
    """
    inside = np.clip(values, learnt["least"], learnt["most"])
    scaled = (inside - learnt["mean"]) / np.array(learnt["sd"])
    one, other = np.triu_indices(scaled.shape[1])
    return np.concatenate([np.ones((len(scaled), 1)), scaled, scaled[:, one] * scaled[:, other]], axis=1)
