"""Judges that decide which walls of a slice are membranes: they learn from labelled slices, and judge others.

Whether a doubtful wall is a membrane depends on more than its mean probability: a short one between two large cells
rarely is, a long one with a sure end mostly is. And sections are thin compared with cells: two cells that a true
membrane separates are seldom one cell in the slices before and after. So a logistic regression decides, from the walls'
shape and probabilities and from what the neighbouring slices show. Learning to merge an over-segmentation is an idea of
Nunez-Iglesias et al., PLoS ONE 8(8), e71715, 2013.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import root
from scipy.special import expit, logit

from unet.scores.isbi import components
from unet.scores.overlap import largest_overlap
from unet.segment.crests import Walls
from unet.segment.distance import squared_distance

LEAST_WALLS = 50  # of either sort, membranes and not; from fewer nothing is learnt
RIDGE = 30.0  # strength of the penalty on the squared weights, in walls; by cross-validation
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
JOINED = 0.7  # in a neighbouring slice, pixels that are connected above this probability are one cell
# least correlation between the probabilities of two slices that show the same tissue: in ISBI 10-24, adjacent slices
# have .14 to .44, slices five apart .11 at most
LEAST_CORRELATION = 0.12
SQUARE = 4  # side of the squares over which probabilities are averaged before they are compared, pixels


def neighbouring(slices: Sequence, number: int) -> list:
    """Return the slices before and after a slice, if there are any."""
    return [slices[neighbour] for neighbour in (number - 1, number + 1) if 0 <= neighbour < len(slices)]


def show_same_tissue(probability: np.ndarray, neighbour: np.ndarray) -> bool:
    """Tell whether two probabilities (H, W) show the same tissue: consecutive images need not."""
    if probability.shape != neighbour.shape or min(probability.shape) < 2 * SQUARE:
        return False
    high, wide = (side // SQUARE for side in probability.shape)
    small = [full[:high * SQUARE, :wide * SQUARE].reshape(high, SQUARE, wide, SQUARE).mean(axis=(1, 3)).ravel()
             for full in (probability, neighbour)]
    return all(np.ptp(values) for values in small) and bool(np.corrcoef(*small)[0, 1] >= LEAST_CORRELATION)


def neighbour_votes(walls: Walls, probability: np.ndarray, neighbours: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the share of neighbouring slices in which the same cell lies on both sides of each wall, float64 (n,).

    `walls` and `probability` belong to a slice, `neighbours` are the probabilities of cell (H, W) of the slices before
    and after it. Those that do not show the same tissue are left out; None if there are no others. A slice in which a
    side has no cell votes 0.5; see `within_one_cell`.
    """
    votes = []
    for neighbour in neighbours:
        if show_same_tissue(probability, neighbour):
            same, comparable = within_one_cell(walls, neighbour > JOINED)
            votes.append(np.where(comparable, same, 0.5))
    return np.mean(votes, axis=0) if votes else None


def features(walls: Walls, votes: np.ndarray | None = None) -> np.ndarray:
    """Compute the features of each wall, float64 (n, 15); none uses the image's pixels, as grey levels may differ.

    They are the mean of the probability along the wall, its log-odds and `QUANTILES`; the log length in pixels; the log
    area of the smaller and of the larger side; the wall's share of the whole border of the side with less border; the
    log of its length divided by the width of the narrower side, and the log of that width. With the `votes` of
    `neighbour_votes` (n,) there are 16.
    """
    length = np.bincount(walls.wall_of)
    ascending = walls.probability[np.lexsort((walls.probability, walls.wall_of))]
    first = np.cumsum(length) - length
    quantiles = [ascending[first + np.minimum((length * share).astype(int), length - 1)] for share in QUANTILES]

    side, opposite = walls.sides.T
    count = walls.cells.max() + 1
    area = np.bincount(walls.cells.ravel(), minlength=count)
    border = np.bincount(walls.sides.ravel(), np.repeat(length, 2), minlength=count)
    inside = np.zeros(count, np.uint16)
    np.maximum.at(inside, walls.cells.ravel(), squared_distance(walls.cells == 0).ravel())
    width = np.sqrt(np.maximum(np.minimum(inside[side], inside[opposite]), 1), dtype=np.float64)
    return np.stack([walls.mean, logit(np.clip(walls.mean, 1e-3, 1 - 1e-3)), *quantiles, np.log(length),
                     np.log(np.minimum(area[side], area[opposite]) + 1),
                     np.log(np.maximum(area[side], area[opposite]) + 1),
                     length / np.minimum(border[side], border[opposite]), np.log(length / width), np.log(width),
                     *([] if votes is None else [votes])], axis=1)


def within_one_cell(walls: Walls, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell for each wall whether one cell of `label` lies on both sides, and whether both have a cell; bool (n,) each.

    `label` (H, W) is 0 for membrane. The cell of a side is the one that covers most of it; a side that is all membrane
    has none.
    """
    cells = largest_overlap(walls.cells, components(label > 0))[walls.sides]
    return cells[:, 0] == cells[:, 1], (cells > 0).all(axis=1)


def example(walls: Walls, label: np.ndarray, votes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `fit_judges` learns from: features, votes, and whether one cell lies on both sides of each wall.

    They are float64 (n, 15), float64 (n,), nan if `votes` is None, and bool (n,), for the n walls of which
    both sides have a cell; see `within_one_cell`.
    """
    same, comparable = within_one_cell(walls, label)
    votes = np.full(len(same), np.nan) if votes is None else votes
    return features(walls)[comparable], votes[comparable], same[comparable]


def fit_judges(examples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, dict | None]:
    """Learn from examples of slices a "judge" that looks at a single slice, and one "with_neighbours"."""
    with_votes = [(np.column_stack([values, votes]), same) for values, votes, same in examples
                  if not np.isnan(votes).any()]
    return {"judge": fit_judge([(values, same) for values, _, same in examples]),
            "with_neighbours": fit_judge(with_votes)}


def fit_judge(examples: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict | None:
    """Learn which walls are no membranes, from `features` (n, 15 or 16) and whether one cell lies on both sides (n,).

    Returns what `judge` needs, ready for JSON, or None if there are fewer than `LEAST_WALLS` of either sort.
    """
    values, same = (np.concatenate(parts) for parts in zip(*examples, strict=True)) if examples else ([], np.zeros(0))
    if min(same.sum(), len(same) - same.sum()) < LEAST_WALLS:
        return None
    learnt = {"least": values.min(axis=0).tolist(), "most": values.max(axis=0).tolist(),
              "mean": values.mean(axis=0).tolist(), "sd": (values.std(axis=0) + 1e-6).tolist()}
    terms = _terms(values, learnt)
    strength = np.append(0, np.full(terms.shape[1] - 1, RIDGE))

    def gradient(weights: np.ndarray) -> np.ndarray:
        return terms.T @ (expit(terms @ weights) - same) + 2 * strength * weights

    def hessian(weights: np.ndarray) -> np.ndarray:
        chance = expit(terms @ weights)
        return (terms.T * (chance * (1 - chance))) @ terms + 2 * np.diag(strength)

    # where the gradient of the penalised negative log-likelihood is 0: it has a single minimum
    best = root(gradient, np.zeros(terms.shape[1]), jac=hessian)
    return {**learnt, "weights": best.x.tolist()}


def judge(walls: Walls, learnt: dict | list | None, votes: np.ndarray | None = None) -> np.ndarray:
    """Compute the probability that one cell lies on both sides of each wall, float64 (n,), by what `fit_judge` learnt.

    `votes` are given if it learnt from features with votes. If nothing was learnt, return the mean of the probability
    along the wall. A list stands for several judges, whose results are averaged.
    """
    if isinstance(learnt, list):
        return np.mean([judge(walls, one, votes) for one in learnt], axis=0)
    return expit(_terms(features(walls, votes), learnt) @ np.array(learnt["weights"])) if learnt else walls.mean


def _terms(values: np.ndarray, learnt: dict) -> np.ndarray:
    """Return 1, the normalised features, and the products of every two of them, float64 (n, 136 or 153).

    Values beyond those of the examples are set to the most extreme of these.
    """
    inside = np.clip(values, learnt["least"], learnt["most"])
    normalised = (inside - learnt["mean"]) / np.array(learnt["sd"])
    first, second = np.triu_indices(normalised.shape[1])
    return np.concatenate([np.ones((len(normalised), 1)), normalised, normalised[:, first] * normalised[:, second]],
                          axis=1)
