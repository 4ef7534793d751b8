"""Scores of predictions of cells: those of the ISBI 2012 challenge, of pixels, and of instance label maps.

A prediction is the probability of cell (1 = cell, 0 = membrane); in labels every value except 0 is cell.
[A] Arganda-Carreras et al., Frontiers in Neuroanatomy 9:142, 2015, doi 10.3389/fnana.2015.00142.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from unet.scores.overlap import overlap_table
from unet.scores.warping import warping_error

THRESHOLDS = tuple(k / 10 for k in range(10))  # a pixel is cell if its probability of cell is greater
BEST = {"V_rand": max, "V_info": max, "pixel_error": min}  # each is reported at its best threshold
SCORE_NAMES = ("V_rand", "V_rand_split", "V_rand_merge", "V_info", "V_info_split", "V_info_merge", "warping_error",
               "pixel_error", "membrane_iou", "membrane_dice", "accuracy")
Stack = np.ndarray | Sequence[np.ndarray]  # (N, H, W), or slices (H, W) of any sizes
HEADS = ("t", "V_rand", "split", "merge", "V_info", "split", "merge", "warp", "pixel", "IoU", "Dice", "acc.")


# ---------------------------------------------------------------------------- segments and how they agree


def components(binary: np.ndarray) -> np.ndarray:
    """Label the 4-connected components of bool (H, W) as int32 (H, W), 1, 2, ...; 0 = False."""
    return ndimage.label(binary)[0]  # by default scipy connects 4 neighbours, scikit-image 8


def thin(binary: np.ndarray) -> np.ndarray:
    """Shrink the border (False) between the cells (True) of bool (H, W) to one pixel; bool (H, W).

    As in [A]: the 4-connected components flood the border through 4-neighbours, all at the same speed, and stop where
    two of them meet. This watershed sees only the binary prediction, not the truth or the probability.
    """
    if not binary.any():  # nothing floods: every pixel stays border
        return np.zeros(binary.shape, bool)
    return watershed(np.zeros(binary.shape, np.uint8), components(binary), connectivity=1, watershed_line=True) > 0


def segments(binary: np.ndarray) -> np.ndarray:
    """Label the cells of bool (H, W) after thinning the border between them; int32 (H, W), 0 = border."""
    return components(thin(binary))


def overlap(labels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the pixels p_ij, s_i = sum_j p_ij, t_j = sum_i p_ij of two integer label maps, same shape; int64, no zeros.

    i are the segments of the prediction `labels`, j those of `truth`. Pixels with truth 0 are left out
    (foreground restriction, [A]); each other pixel that the prediction labels 0 is a segment of its own.
    Raises ValueError if the truth is 0 everywhere, and as `overlap_table`.
    """
    table = overlap_table(labels, truth)
    if table.shape[1] == 1:
        raise ValueError("the truth has no cell, so its scores are undefined")
    s, t = table[1:, 1:].sum(axis=1), table[:, 1:].sum(axis=0)
    single_pixels = np.ones(t.sum() - s.sum(), np.int64)
    return np.append(table[1:, 1:].data, single_pixels), np.append(s[s > 0], single_pixels), t[t > 0]


def v_rand(labels: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Compute the Rand score of two integer label maps, its split part, its merge part; 1 = the same segments ([A]).

    V = sum p_ij^2 / (sum s_i^2 / 2 + sum t_j^2 / 2). Split = sum p_ij^2 / sum t_j^2, low if cells are cut;
    merge = sum p_ij^2 / sum s_i^2, low if cells run together. Pixels, zeros and errors: see `overlap`.
    """
    return _v_rand(*overlap(labels, truth))


def v_info(labels: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Compute the information score of two integer label maps, its split part, its merge part; 1 = the same ([A]).

    V = I(S; T) / (H(S) / 2 + H(T) / 2), split = I / H(S), merge = I / H(T); 1 if H is 0, as there is nothing to split
    or to merge. Pixels, zeros and errors: see `overlap`.
    """
    return _v_info(*overlap(labels, truth))


def _v_rand(*pixels: np.ndarray) -> tuple[float, float, float]:
    p, s, t = (int(x @ x) for x in pixels)
    return 2 * p / (s + t), p / t, p / s


def _v_info(*pixels: np.ndarray) -> tuple[float, float, float]:
    joint, s, t = _entropies(*pixels)
    return tuple(min((s + t - joint) / h, 1.0) if h > 1e-9 else 1.0 for h in ((s + t) / 2, s, t))


def _entropies(*pixels: np.ndarray) -> list[float]:
    """Compute the entropies H(S, T), H(S), H(T) in bits from what `overlap` returned."""
    joint, s, t = (float(np.log2(x.sum()) - x @ np.log2(x) / x.sum()) for x in pixels)
    return [min(max(joint, s, t), s + t), s, t]  # rounding may break these bounds


def adapted_rand_error(labels: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Compute the error 1 - V_rand of two integer instance maps (0 = background), precision (merge) and recall (split).

    scikit-image's function differs: it takes predicted background as one segment, leaves out each pixel's pair with
    itself, and returns precision and recall in the opposite order to its documentation (0.26).
    """
    score, recall, precision = v_rand(labels, truth)
    return 1 - score, precision, recall


def variation_of_information(labels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Compute the bits H(S|T) of splits and H(T|S) of merges of two integer instance maps; their sum is the variation.

    Meila 2007, doi 10.1016/j.jmva.2006.11.013. Pixels, zeros and errors: see `overlap`.
    """
    joint, s, t = _entropies(*overlap(labels, truth))
    return joint - t, joint - s


# ------------------------------------------------------------------------------------------------- pixels


def _counts(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count the pixels of bool arrays that are cell in both, in the truth only, in the prediction only, in neither."""
    cell, true, predicted = (np.count_nonzero(x) for x in (prediction & truth, truth, prediction))
    return np.array([cell, true - cell, predicted - cell, truth.size - true - predicted + cell])


def _pixel_scores(counts: np.ndarray) -> dict[str, float]:
    """Compute scores from what `_counts` returned; IoU and Dice are those of the membrane, 1 if neither has any.

    The pixel error is 1 - F for the cell pixels, F = 2 TP / (2 TP + FP + FN), as in Fiji's PixelError.
    """
    cell, missed, invented, membrane = counts.tolist()
    wrong = missed + invented
    right = {"pixel_error": 2 * cell, "membrane_iou": membrane, "membrane_dice": 2 * membrane,
             "accuracy": cell + membrane}
    shares = {name: pixels / (pixels + wrong) if pixels + wrong else 1.0 for name, pixels in right.items()}
    return shares | {"pixel_error": 1 - shares["pixel_error"]}


# ------------------------------------------------------------------------------------- scores of a stack


def _slice_pairs(probabilities: Stack, labels: Stack) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Check a prediction and its labels; return the probability and the cells, bool (H, W), of each slice."""
    shapes = [[image.shape for image in stack] for stack in (probabilities, labels)]
    if shapes[0] != shapes[1] or any(len(shape) != 2 for shape in shapes[1]):
        prediction, truth = (getattr(stack, "shape", of_slices)
                             for stack, of_slices in zip((probabilities, labels), shapes, strict=True))
        raise ValueError(f"the prediction is {prediction}, the labels are {truth}, "
                         "expected (slices, height, width) for both, and the same")
    low, high = np.min([image.min() for image in probabilities]), np.max([image.max() for image in probabilities])
    if not 0 <= low <= high <= 1:  # nan fails, too
        raise ValueError(f"the prediction holds {low:g} to {high:g}, expected a probability of cell, 0 to 1")
    return zip(probabilities, (label != 0 for label in labels), strict=True)


def _table(probabilities, labels, thresholds, warping=True) -> np.ndarray:
    """Compute the first seven of SCORE_NAMES and four pixel counts, by threshold: float (slices, thresholds, 11)."""
    table = []
    for image, cells in _slice_pairs(probabilities, labels):
        truth, rows = components(cells), {}
        for t in thresholds:
            binary = image > t
            size = np.count_nonzero(binary)  # a higher t takes pixels away: equal size, equal pixels
            if size not in rows:
                shared = overlap(segments(binary), truth)
                rows[size] = [*_v_rand(*shared), *_v_info(*shared),
                              warping_error(binary, cells) if warping else np.nan, *_counts(binary, cells)]
            table.append(rows[size])
    return np.reshape(table, (len(labels), len(thresholds), 11))


def _summary(rows: np.ndarray) -> dict[str, float]:
    """Compute scores from rows (n, 11) of the table: means over the rows, and pixel scores of all pixels together."""
    pixels = _pixel_scores(rows[:, 7:].sum(axis=0))
    return {name: pixels.get(name, float(mean)) for name, mean in zip(SCORE_NAMES, rows.mean(axis=0), strict=True)}


def best_threshold(probabilities: Stack, labels: Stack, thresholds=THRESHOLDS) -> float:
    """Return the threshold to use for other slices: that of the best V_rand of a stack (N, H, W); see `_best`."""
    return pick_threshold(threshold_curve(probabilities, labels, thresholds), thresholds)


def threshold_curve(probabilities: Stack, labels: Stack, thresholds=THRESHOLDS) -> list[float]:
    """Compute the mean V_rand of a stack (N, H, W) at each threshold, by which a threshold is chosen."""
    return _table(probabilities, labels, thresholds, warping=False)[..., 0].mean(axis=0).tolist()


def pick_threshold(curve: Sequence[float], thresholds=THRESHOLDS, usual: float = 0.5, by_chance: float = 1e-4) -> float:
    """Return the best threshold of what `threshold_curve` returned; see `_best`."""
    return float(thresholds[_best(np.array(curve), thresholds, usual, by_chance)])


def _best(rand: np.ndarray, thresholds: Sequence[float], usual: float = 0.5, by_chance: float = 1e-4) -> int:
    """Return the index of the best V_rand (thresholds,), averaged with its neighbours; of equals, that nearest `usual`.

    Values that differ by less than `by_chance` are equal: V_rand does not mind how wide a border is, but people do.
    """
    rand = _with_neighbours(rand)
    return min(np.flatnonzero(rand > rand.max() - by_chance).tolist(), key=lambda k: abs(thresholds[k] - usual))


def _with_neighbours(rand: np.ndarray) -> np.ndarray:
    """Average each V_rand (..., thresholds) with those beside it: a single one jumps when one large cell merges."""
    return ndimage.uniform_filter1d(rand, 3, axis=-1, mode="nearest")


def isbi_scores(probabilities: Stack, labels: Stack, thresholds=THRESHOLDS,
                threshold: float | str | None = None, slices: Sequence[int] | None = None) -> dict:
    """Compute all scores of a stack (N, H, W), ready for JSON, from probabilities of cell and labels (not 0 = cell).

    At a threshold t, pixels are cell if the prediction is > t. A stack's score is the mean over its slices; pixel
    scores pool them. The best score is that at the best t for the whole stack, as the challenge reported it: that t has
    seen the truth. `threshold` is a t that was chosen without these slices, or "others": each slice is scored at the
    `best_threshold` of the other slices, if there are any. The warping error has no best t: it falls towards 0 for a
    prediction without cells, as all cells shrink to points. `slices` are the slices' numbers.

    Returns "curve", the scores at each t; "best", all scores at the best t of V_rand, of V_info and of pixel_error;
    "chosen", those at `threshold`, or None. The last two hold "per_slice"; "threshold" is None if it varies. Raises
    ValueError for unequal shapes, values outside 0 to 1, a slice without a cell.
    """
    grid = [float(t) for t in thresholds] + ([float(threshold)] if threshold not in (None, "others") else [])
    table = _table(probabilities, labels, grid)
    numbers = range(len(labels)) if slices is None else slices

    def scores(columns) -> dict:
        rows = table[range(len(labels)), columns]
        per_slice = [{"slice": int(number), "threshold": grid[column], **_summary(row[None])}
                     for number, column, row in zip(numbers, columns, rows, strict=True)]
        return {"threshold": grid[columns[0]] if len(set(columns)) == 1 else None,
                **_summary(rows), "per_slice": per_slice}

    curve = [{"threshold": grid[k], **_summary(table[:, k])} for k in range(len(thresholds))]
    best, at_chosen_t = {}, None
    for name, better in BEST.items():
        values = [point[name] for point in curve]
        best[name] = scores([values.index(better(values))] * len(labels))
    if threshold == "others" and len(labels) > 1:
        others = (table[..., 0].sum(axis=0) - table[..., 0]) / (len(labels) - 1)
        columns = [_best(rand, grid) for rand in others]
        at_chosen_t = {"how": "for each slice the t best on the other slices", **scores(columns)}
    elif threshold not in (None, "others"):
        at_chosen_t = {"how": "a t chosen beforehand", **scores([len(grid) - 1] * len(labels))}
    return {"curve": curve, "best": best, "chosen": at_chosen_t}


def format_scores(scores: dict, curve: bool = True) -> str:
    """Format what `isbi_scores` returned as a table to print: the stack, its slices, the curve."""
    at_chosen_t = scores["chosen"]
    stack = [(f"best {name}", at) for name, at in scores["best"].items()]
    stack += [("chosen t", at_chosen_t)] if at_chosen_t else []
    rows = (at_chosen_t or scores["best"]["V_rand"])["per_slice"]
    slices = [(at.get("image", f"slice {at['slice']}")[:16], at) for at in rows]
    lines = [" " * 16 + "".join(f"{head:>8}" for head in HEADS)]
    for rows in (stack, slices, *([[("all slices", at) for at in scores["curve"]]] if curve else [])):
        for name, at in rows:
            t = "varies" if at["threshold"] is None else f"{at['threshold']:g}"
            lines.append(f"{name:<16}{t:>8}" + "".join(f"{at[name]:>8.4f}" for name in SCORE_NAMES))
        lines.append("")
    lines.append("best: one t for the stack, picked on these very slices, as the challenge reported it")
    return "\n".join(lines + ([f"chosen t, and the slices: {at_chosen_t['how']}"] if at_chosen_t else []))


def instance_scores(labels: np.ndarray, truth: np.ndarray, slices: Sequence[int] | None = None) -> dict:
    """Score a stack of instance maps (N, H, W), 0 = border, against membrane labels (not 0 = cell) or instance maps.

    Returns "mean" and "per_slice", each with V_rand, V_info, adapted Rand error and variation of information (bits).
    Borders are not thinned. Raises ValueError for unequal shapes and a slice without a cell.
    """
    rows = []
    numbers = range(len(truth)) if slices is None else slices
    for number, predicted, label in zip(numbers, labels, truth, strict=True):
        cells = components(label > 0) if len(np.unique(label)) <= 2 else label
        splits, merges = variation_of_information(predicted, cells)
        rand = v_rand(predicted, cells)[0]
        rows.append({"slice": int(number), "V_rand": rand, "V_info": v_info(predicted, cells)[0],
                     "adapted_rand_error": 1 - rand, "variation": splits + merges})
    return {"mean": {name: float(np.mean([row[name] for row in rows])) for name in list(rows[0])[1:]},
            "per_slice": rows}


def format_instances(scores: dict) -> str:
    """Format what `instance_scores` returned as a table to print."""
    names = list(scores["mean"])
    lines = [f"{'':<10}" + "".join(f"{name:>20}" for name in names)]
    for title, row in [*((f"slice {row['slice']}", row) for row in scores["per_slice"]), ("mean", scores["mean"])]:
        lines.append(f"{title:<10}" + "".join(f"{row[name]:>20.4f}" for name in names))
    lines.append("V_rand, V_info: 1 = perfect; adapted Rand error and variation of information (bits): 0 = perfect")
    if scores.get("linked"):
        volume = scores["linked"]
        lines.append(f"through the stack, in 3-D: adapted Rand error {volume['adapted_rand_error']:.4f}, precision "
                     f"{volume['precision']:.4f} (low if cells run together), recall {volume['recall']:.4f}")
    return "\n".join(lines)
