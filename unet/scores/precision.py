"""Average precision of nuclei, found one by one, as the 2018 Data Science Bowl scored them.

AP(t) = TP / (TP + FP + FN). A predicted and a true nucleus are a pair, TP, if their intersection over union (IoU) is
greater than t; FP are the predicted nuclei without a pair, FN the true ones. Kaggle's score is the mean over t = .50,
.55, ... .95, then over images. Caicedo et al., Nature Methods 16:1247, 2019, doi 10.1038/s41592-019-0612-7;
https://www.kaggle.com/competitions/data-science-bowl-2018/overview/evaluation
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from skimage.segmentation import relabel_sequential

from unet.scores.overlap import check_label_maps, intersection_over_union
from utils import count_of

IOU_THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))  # quotients: an IoU of 11/20 equals .55 exactly
PRINTED_THRESHOLDS = (0.5, 0.7, 0.9)  # thresholds in the printed table, beside the mean over all
SUFFIX = "-labels.tif"  # an image's instance map is named after the image, and ends in this


def average_precision(predicted: np.ndarray, truth: np.ndarray) -> dict:
    """Compute the average precision of one image's instance map: integer (H, W) both, 0 = background, any numbers.

    Returns "ap", TP / (TP + FP + FN) at each of `IOU_THRESHOLDS`; "tp", the pairs at each; "mean" over the thresholds;
    "predicted" and "true", the numbers of nuclei. A pair's IoU is greater than t, not equal to it, as in Kaggle's code:
    so at .50 and above no nucleus can be in two pairs. If neither map has a nucleus all scores are 1, by convention; if
    only one has, they are 0. Raises ValueError if shapes differ, or a map does not hold whole numbers.
    """
    check_label_maps(predicted, truth)
    predicted, truth = (relabel_sequential(labels)[0] for labels in (predicted, truth))
    iou, count, true = intersection_over_union(predicted, truth).data, int(predicted.max()), int(truth.max())
    tp = {t: int(np.count_nonzero(iou > t)) for t in IOU_THRESHOLDS}
    ap = {t: pairs / (count + true - pairs) if count + true else 1.0 for t, pairs in tp.items()}
    return {"ap": ap, "tp": tp, "mean": float(np.mean(list(ap.values()))), "predicted": count, "true": true}


def nuclei_scores(pairs: Iterable[tuple[np.ndarray, np.ndarray]], names: Sequence[str],
                  modalities: Sequence[str] | None = None) -> dict:
    """Compute the average precision of a set of images, ready for JSON, from (predicted, true) integer maps (H, W).

    Returns "all", "modalities" (by modality, if `modalities` names that of each image) and "per_image". Each has "ap"
    by threshold ("0.50", ...) and "mean"; for a set these are means over its images, whatever their size. Raises
    ValueError, naming the image, if two maps do not fit, and for a set without images.
    """
    rows = []
    for number, (name, (predicted, truth)) in enumerate(zip(names, pairs, strict=True)):
        try:
            scores = average_precision(predicted, truth)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        ap = {f"{t:.2f}": value for t, value in scores["ap"].items()}
        modality_entry = {"modality": modalities[number]} if modalities is not None else {}
        rows.append({"image": name, **modality_entry, "predicted": scores["predicted"], "true": scores["true"],
                     "ap": ap, "mean": scores["mean"]})
    if not rows:
        raise ValueError("there is no image to score")
    by_modality = {modality: _mean([row for row in rows if row["modality"] == modality])
                   for modality in sorted(set(modalities or ()))}
    return {"all": _mean(rows), "modalities": by_modality, "per_image": rows}


def _mean(rows: list[dict]) -> dict:
    """Average the scores of rows of "per_image", and add up their counts; see `nuclei_scores`."""
    return {"images": len(rows), "predicted": sum(row["predicted"] for row in rows),
            "true": sum(row["true"] for row in rows),
            "ap": {t: float(np.mean([row["ap"][t] for row in rows])) for t in rows[0]["ap"]},
            "mean": float(np.mean([row["mean"] for row in rows]))}


def pixel_scores(probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compute the share of pixels (H, W) that are right at a probability of .5, and the IoU of the pixels of nuclei."""
    nuclei, true = probability > 0.5, truth > 0
    union = int(np.sum(nuclei | true))
    return {"accuracy": float(np.mean(nuclei == true)), "iou": float(np.sum(nuclei & true) / union) if union else 1.0}


def format_nuclei(scores: dict) -> str:
    """Format what `nuclei_scores` returned as a table to print: each image, each modality, all."""
    heads = ("true", "found", *(f"AP@{t:.2f}" for t in PRINTED_THRESHOLDS), "mean AP")
    sets = [(f"{name}, {count_of(row['images'], 'image')}", row)
            for name, row in (*scores["modalities"].items(), ("all", scores["all"]))]
    lines = [" " * 32 + "".join(f"{head:>9}" for head in heads)]
    for title, row in [*((row["image"], row) for row in scores["per_image"]), ("", None), *sets]:
        if row is None:
            lines.append("")
            continue
        values = "".join(f"{row['ap'][f'{t:.2f}']:>9.4f}" for t in PRINTED_THRESHOLDS)
        name = title if len(title) <= 31 else title[:28] + "..."
        lines.append(f"{name:<32}{row['true']:>9}{row['predicted']:>9}{values}{row['mean']:>9.4f}")
    for what, names in (("prediction", scores.get("missing", ())), ("masks", scores.get("without", ()))):
        if names:
            lines.append(f"{len(names)} image{'s have' if len(names) > 1 else ' has'} no {what} and "
                         f"{'do' if len(names) > 1 else 'does'} not count: {', '.join(names[:3])}"
                         f"{', ...' * (len(names) > 3)}")
    lines.append("AP = TP / (TP + FP + FN) at that IoU; mean AP: over IoU .50 to .95; for a set: over its images")
    return "\n".join(lines)
