"""How well nuclei are found one by one: average precision over instances, as the 2018 Data Science Bowl scored them.

    python metrics.py predicted/ stage1_train/ --json scores.json

AP(t) = TP / (TP + FP + FN). A predicted and a true nucleus are a pair, TP, where their intersection over union is
greater than t; FP are predicted nuclei without a pair, FN true ones. Kaggle's score is the mean over t = .50, .55, ...
.95, then over images. Caicedo et al., Nature Methods 16:1247, 2019, doi 10.1038/s41592-019-0612-7;
https://www.kaggle.com/competitions/data-science-bowl-2018/overview/evaluation
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from unet.inputs import folders as nuclei
from unet.inputs.stacks import read_stack
from utils import UserError

THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))  # quotients, so that an IoU of 11/20 is the very number .55
SHOWN = (0.5, 0.7, 0.9)  # columns of the printed table, beside the mean over all
SUFFIX = "-labels.tif"  # of an image's instance map, behind the image's name


def intersection_over_union(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU of each predicted with each true nucleus that it touches, float64 (pairs,), from two integer maps (H, W).

    0 is background in both. Raises ValueError where shapes differ, or a map is not of whole numbers.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"the prediction is {predicted.shape}, the truth is {truth.shape}")
    if predicted.dtype.kind not in "iu" or truth.dtype.kind not in "iu":
        raise ValueError(f"instance maps are whole numbers, not {predicted.dtype} and {truth.dtype}")
    (_, i), (_, j) = (np.unique(np.append(labels.ravel(), 0), return_inverse=True) for labels in (predicted, truth))
    i, j = i.ravel()[:-1], j.ravel()[:-1]  # the appended 0 made sure that background is the first number
    both, count = (i > 0) & (j > 0), j.max(initial=0) + 1
    pairs, shared = np.unique(i[both] * count + j[both], return_counts=True)
    return shared / (np.bincount(i)[pairs // count] + np.bincount(j)[pairs % count] - shared)


def average_precision(predicted: np.ndarray, truth: np.ndarray) -> dict:
    """Average precision of one image's instance map: integer (H, W) of both, 0 = background, any numbers else.

    Returns "ap", TP / (TP + FP + FN) at each of `THRESHOLDS`, "tp", the pairs at each, "mean" over the thresholds, and
    "predicted" and "true", the numbers of nuclei. A pair's IoU is greater than t, as Kaggle's code compares, not equal
    to it: so at .50 and above no nucleus can be in two pairs. Without a nucleus in both maps all are 1, by convention;
    without one in one of them 0. Raises ValueError as `intersection_over_union`.
    """
    iou = intersection_over_union(predicted, truth)
    found, true = (int(np.count_nonzero(np.unique(labels))) for labels in (predicted, truth))
    tp = {t: int(np.count_nonzero(iou > t)) for t in THRESHOLDS}
    ap = {t: pairs / (found + true - pairs) if found + true else 1.0 for t, pairs in tp.items()}
    return {"ap": ap, "tp": tp, "mean": float(np.mean(list(ap.values()))), "predicted": found, "true": true}


def nuclei_scores(pairs: Iterable[tuple[np.ndarray, np.ndarray]], names: Sequence[str],
                  kinds: Sequence[str] | None = None) -> dict:
    """Average precision of a set of images, ready for JSON, from (predicted, true) integer maps (H, W) one by one.

    Returns "all", "kinds" (by kind, where `kinds` names each image's) and "per_image". Each has "ap" by threshold
    ("0.50", ...) and "mean": of a set the mean over its images, large and small alike. Raises ValueError, naming the
    image, where two maps do not fit, and for a set without images.
    """
    rows = []
    for number, (name, (predicted, truth)) in enumerate(zip(names, pairs, strict=True)):
        try:
            scores = average_precision(predicted, truth)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        ap = {f"{t:.2f}": value for t, value in scores["ap"].items()}
        kind = {"kind": kinds[number]} if kinds is not None else {}
        rows.append({"image": name, **kind, "predicted": scores["predicted"], "true": scores["true"], "ap": ap,
                     "mean": scores["mean"]})
    if not rows:
        raise ValueError("there is no image to score")
    found = sorted(set(kinds or ()))
    return {"all": _mean(rows), "kinds": {kind: _mean([row for row in rows if row["kind"] == kind]) for kind in found},
            "per_image": rows}


def _mean(rows: list[dict]) -> dict:
    return {"images": len(rows), "predicted": sum(row["predicted"] for row in rows),
            "true": sum(row["true"] for row in rows),
            "ap": {t: float(np.mean([row["ap"][t] for row in rows])) for t in rows[0]["ap"]},
            "mean": float(np.mean([row["mean"] for row in rows]))}


def pixel_scores(probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Share of the pixels (H, W) that are right at a probability of .5, and intersection over union of the nuclei."""
    nuclei, true = probability > 0.5, truth > 0
    union = int(np.sum(nuclei | true))
    return {"accuracy": float(np.mean(nuclei == true)), "iou": float(np.sum(nuclei & true) / union) if union else 1.0}


def format_nuclei(scores: dict) -> str:
    """The table to print of what `nuclei_scores` returned: each image, each kind, all."""
    heads = ("true", "found", *(f"AP@{t:.2f}" for t in SHOWN), "mean AP")
    sets = [*((f"{kind}, {row['images']} images", row) for kind, row in scores["kinds"].items()),
            (f"all, {scores['all']['images']} images", scores["all"])]
    lines = [" " * 32 + "".join(f"{head:>9}" for head in heads)]
    for title, row in [*((row["image"], row) for row in scores["per_image"]), ("", None), *sets]:
        if row is None:
            lines.append("")
            continue
        values = "".join(f"{row['ap'][f'{t:.2f}']:>9.4f}" for t in SHOWN)
        shown = title if len(title) <= 31 else title[:28] + "..."
        lines.append(f"{shown:<32}{row['true']:>9}{row['predicted']:>9}{values}{row['mean']:>9.4f}")
    for lacking, names in (("prediction", scores.get("missing", ())), ("masks", scores.get("without", ()))):
        if names:
            lines.append(f"{len(names)} image{'s have' if len(names) > 1 else ' has'} no {lacking} and "
                         f"{'do' if len(names) > 1 else 'does'} not count: {', '.join(names[:3])}"
                         f"{', ...' * (len(names) > 3)}")
    lines.append("AP = TP / (TP + FP + FN) at that IoU; mean AP: over IoU .50 to .95; of a set the mean over images")
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------- files


def score_nuclei(predicted: str | Path, truth: str | Path) -> dict:
    """`nuclei_scores` of a folder of `<name>-labels.tif` against a Data Science Bowl folder or another such folder.

    Two label TIFFs are compared page by page. Only images that were predicted are scored; "missing" names the others,
    "without" the predicted ones of a Data Science Bowl folder that have no masks. Raises UserError where nothing fits,
    or a prediction is of no image there.
    """
    predicted, truth = Path(predicted), Path(truth)
    for path in (predicted, truth):
        if not path.exists():
            raise UserError(f"{path} not found; name the predicted instances, then the true ones")
    if predicted.is_dir() != truth.is_dir():
        raise UserError(f"{predicted} and {truth} are a folder and a file; name two folders or two label TIFFs")
    try:
        if not predicted.is_dir():
            ours, theirs = _label_maps(predicted), _label_maps(truth)
            if len(ours) != len(theirs):
                raise UserError(f"{predicted} has {len(ours)} pages, {truth} has {len(theirs)}; each needs its truth")
            return nuclei_scores(zip(ours, theirs, strict=True), [f"page {n}" for n in range(len(ours))])
        return _score_folders(predicted, truth)
    except ValueError as error:
        raise UserError(f"{predicted} against {truth}: {error}") from None


def _score_folders(predicted: Path, truth: Path) -> dict:
    ours, theirs = ({path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}
                    for folder in (predicted, truth))
    from_masks, without = nuclei.is_nuclei_folder(truth), set()
    if from_masks:
        sources = nuclei.find_sources(truth)
        theirs = {source.name: source for source in sources if source.masks}
        without = {source.name for source in sources if not source.masks} & set(ours)
    for folder, found, wanted in ((predicted, ours, ""), (truth, theirs, ", and no <name>/masks")):
        if not found:
            raise UserError(f"{folder} holds no <name>{SUFFIX}{wanted}; name the folder that 'python predict.py' "
                            "wrote, then the one with the truth")
    strangers = [name for name in ours if name not in theirs and name not in without]
    if strangers:
        raise UserError(f"{truth} has no truth for {len(strangers)} of {len(ours)} predictions, {strangers[0]} the "
                        "first; name the folder that the images came from")
    ours = {name: path for name, path in ours.items() if name not in without}
    if not ours:
        raise UserError(f"{truth} has no masks for what was predicted; name the folder of annotated images")
    if from_masks:
        images = [nuclei.read_source(theirs[name]) for name in ours]
        truths, kinds = [image.labels for image in images], [image.kind for image in images]
    else:
        truths, kinds = (_label_map(theirs[name]) for name in ours), None
    scores = nuclei_scores(zip(map(_label_map, ours.values()), truths, strict=True), list(ours), kinds)
    return {**scores, "missing": sorted(set(theirs) - set(ours)), "without": sorted(without)}


def _label_maps(path: Path) -> np.ndarray:
    labels = read_stack(path)
    if labels.dtype.kind not in "iu" or labels.ndim != 3:
        raise UserError(f"{path} is {labels.dtype} {labels.shape}, expected a number for each nucleus, one channel")
    return labels


def _label_map(path: Path) -> np.ndarray:
    labels = _label_maps(path)
    if len(labels) != 1:
        raise UserError(f"{path} has {len(labels)} pages, expected the one of an image")
    return labels[0]
