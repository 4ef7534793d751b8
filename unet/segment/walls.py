"""Which predicted walls are membranes and which only cross a cell: learnt from the labelled slices that trained.

A wall in doubt is a matter of more than its mean probability: a short one between two large cells is rarely a membrane,
a long one with a sure end mostly is. A logistic regression on the walls' shape and probabilities decides; the idea of
learning to merge an over-segmentation is that of Nunez-Iglesias et al., PLoS ONE 8(8), e71715, 2013.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import distance_transform_edt, maximum
from scipy.optimize import minimize
from scipy.special import expit, logit

from unet.scores.isbi import components
from unet.segment.crests import Walls, find_walls

LEAST_WALLS = 50  # of either sort, to learn from
RIDGE = 30.0  # strength of the penalty on the squared weights, in walls; by cross-validation
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def features(walls: Walls) -> np.ndarray:
    """What is to be known of each wall, float64 (n, 15): nothing of the image itself, whose grey levels may differ.

    Mean and log-odds of the probability along it, the quantiles `QUANTILES`; log length in pixels; log area of the
    smaller and the larger side; its share of the smaller side's whole border; its length against the width of
    the narrower side, and that width, both as logarithms.
    """
    length = np.bincount(walls.of)
    ordered = walls.probability[np.lexsort((walls.probability, walls.of))]
    first = np.cumsum(length) - length
    quantiles = [ordered[first + np.minimum((length * share).astype(int), length - 1)] for share in QUANTILES]

    one, other = walls.sides.T
    count = walls.cells.max() + 2  # where three crests meet a wall may have a side that is no cell, the last
    area = np.bincount(walls.cells.ravel(), minlength=count)
    border = np.bincount(walls.sides.ravel(), np.repeat(length, 2), minlength=count)
    inside = maximum(distance_transform_edt(walls.cells > 0), walls.cells, np.arange(count))
    width = np.maximum(np.minimum(inside[one], inside[other]), 1)
    return np.stack([walls.mean, logit(np.clip(walls.mean, 1e-3, 1 - 1e-3)), *quantiles, np.log(length),
                     np.log(np.minimum(area[one], area[other]) + 1), np.log(np.maximum(area[one], area[other]) + 1),
                     length / np.minimum(border[one], border[other]), np.log(length / width), np.log(width)], axis=1)


def within_one_cell(walls: Walls, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each wall whether one true cell lies on both sides, bool (n,), and whether that is known, bool (n,).

    `label` (H, W), 0 = membrane. A side is the true cell that covers most of it; one that is all membrane is none.
    """
    true = components(label > 0)
    shared = np.zeros((walls.cells.max() + 2, true.max() + 1), np.int64)
    np.add.at(shared, (walls.cells.ravel(), true.ravel()), 1)
    shared[:, 0] = 0
    most = shared.argmax(axis=1)[walls.sides]
    return most[:, 0] == most[:, 1], (most > 0).all(axis=1)


def learn_walls(probabilities: Iterable[np.ndarray], labels: Iterable[np.ndarray]) -> dict | None:
    """Learn from slices, probability of cell float32 (H, W) and label (H, W), 0 = membrane, which walls are none.

    Returns what `judge_walls` needs, ready for JSON, or None where there are too few walls of either sort. The
    slices may be those that trained: the network knows them hardly better than others.
    """
    rows, answers = [], []
    for probability, label in zip(probabilities, labels, strict=True):
        walls = find_walls(probability)
        if walls is not None:
            same, known = within_one_cell(walls, label)
            rows.append(features(walls)[known])
            answers.append(same[known])
    if not rows:
        return None
    values, same = np.concatenate(rows), np.concatenate(answers).astype(float)
    if min(same.sum(), len(same) - same.sum()) < LEAST_WALLS:
        return None
    learnt = {"least": values.min(axis=0).tolist(), "most": values.max(axis=0).tolist(),
              "mean": values.mean(axis=0).tolist(), "sd": (values.std(axis=0) + 1e-6).tolist()}
    terms = _terms(values, learnt)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score, penalised = terms @ weights, np.append(0, weights[1:])
        return (np.sum(np.logaddexp(0, score) - same * score) + RIDGE * penalised @ penalised,
                terms.T @ (expit(score) - same) + 2 * RIDGE * penalised)

    found = minimize(loss, np.zeros(terms.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return {**learnt, "weights": found.x.tolist()}


def judge_walls(walls: Walls, learnt: dict) -> np.ndarray:
    """Probability of each wall that one cell lies on both its sides, float64 (n,); `learnt` by `learn_walls`."""
    return expit(_terms(features(walls), learnt) @ np.array(learnt["weights"]))


def _terms(values: np.ndarray, learnt: dict) -> np.ndarray:
    """1, the features, and their products two by two, float64 (n, 136); beyond what was seen they stay at its edge."""
    inside = np.clip(values, learnt["least"], learnt["most"])
    scaled = (inside - learnt["mean"]) / np.array(learnt["sd"])
    one, other = np.triu_indices(scaled.shape[1])
    return np.concatenate([np.ones((len(scaled), 1)), scaled, scaled[:, one] * scaled[:, other]], axis=1)


# bridge
def thin_walls(labels):
    from unet.segment.crests import membrane_width
    return membrane_width(labels) > 0


def learn_cells(outputs, labels, walls=True):
    from unet.scores.isbi import best_threshold
    from unet.segment.crests import membrane_width
    width = membrane_width(labels) if walls else 0
    if not width:
        return {"threshold": best_threshold(outputs[-5:], labels[-5:]), "walls": None}
    w = {"width": width, "judge": learn_walls(outputs, labels)}
    return {"threshold": best_threshold(np.stack([draw_walls(o, w) for o in outputs[-5:]]), labels[-5:]), "walls": w}


def draw_walls(probability, walls):
    from functools import partial

    from unet.segment.crests import along_crests
    judge = walls["judge"]
    return along_crests(probability, walls["width"], *([partial(judge_walls, learnt=judge)] if judge else []))


def number_cells(probability, threshold):
    from unet.scores.isbi import segments
    return segments(probability > threshold)
