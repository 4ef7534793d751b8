"""How well nuclei are found one by one: average precision over instances, as the 2018 Data Science Bowl scored them.

AP(t) = TP / (TP + FP + FN). A predicted and a true nucleus are a pair, TP, where their intersection over union is
greater than t; FP are predicted nuclei without a pair, FN true ones. Kaggle's score is the mean over t = .50, .55, ...
.95, then over images. Caicedo et al., Nature Methods 16:1247, 2019, doi 10.1038/s41592-019-0612-7;
https://www.kaggle.com/competitions/data-science-bowl-2018/overview/evaluation
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from skimage.segmentation import relabel_sequential

from unet.scores.overlap import check_label_maps, intersection_over_union
from utils import counted

THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))  # quotients, so that an IoU of 11/20 is the very number .55
SHOWN = (0.5, 0.7, 0.9)  # columns of the printed table, beside the mean over all
SUFFIX = "-labels.tif"  # of an image's instance map, behind the image's name


def average_precision(predicted: np.ndarray, truth: np.ndarray) -> dict:
    """Average precision of one image's instance map: integer (H, W) of both, 0 = background, any numbers else.

    Returns "ap", TP / (TP + FP + FN) at each of `THRESHOLDS`, "tp", the pairs at each, "mean" over the thresholds, and
    "predicted" and "true", the numbers of nuclei. A pair's IoU is greater than t, as Kaggle's code compares, not equal
    to it: so at .50 and above no nucleus can be in two pairs. Without a nucleus in both maps all are 1, by convention;
    without one in one of them 0. Raises ValueError where shapes differ, or a map is not of whole numbers.
    """
    check_label_maps(predicted, truth)
    predicted, truth = (relabel_sequential(labels)[0] for labels in (predicted, truth))
    iou, count, true = intersection_over_union(predicted, truth).data, int(predicted.max()), int(truth.max())
    tp = {t: int(np.count_nonzero(iou > t)) for t in THRESHOLDS}
    ap = {t: pairs / (count + true - pairs) if count + true else 1.0 for t, pairs in tp.items()}
    return {"ap": ap, "tp": tp, "mean": float(np.mean(list(ap.values()))), "predicted": count, "true": true}


def nuclei_scores(pairs: Iterable[tuple[np.ndarray, np.ndarray]], names: Sequence[str],
                  modalities: Sequence[str] | None = None) -> dict:
    """Average precision of a set of images, ready for JSON, from (predicted, true) integer maps (H, W) one by one.

    Returns "all", "modalities" (by modality, where `modalities` names each image's) and "per_image". Each has "ap" by
    threshold ("0.50", ...) and "mean": of a set the mean over its images, large and small alike. Raises ValueError,
    naming the image, where two maps do not fit, and for a set without images.
    """
    rows = []
    for number, (name, (predicted, truth)) in enumerate(zip(names, pairs, strict=True)):
        try:
            scores = average_precision(predicted, truth)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        ap = {f"{t:.2f}": value for t, value in scores["ap"].items()}
        modality = {"modality": modalities[number]} if modalities is not None else {}
        rows.append({"image": name, **modality, "predicted": scores["predicted"], "true": scores["true"], "ap": ap,
                     "mean": scores["mean"]})
    if not rows:
        raise ValueError("there is no image to score")
    by_modality = {one: _mean([row for row in rows if row["modality"] == one]) for one in sorted(set(modalities or ()))}
    return {"all": _mean(rows), "modalities": by_modality, "per_image": rows}


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
    """The table to print of what `nuclei_scores` returned: each image, each modality, all."""
    heads = ("true", "found", *(f"AP@{t:.2f}" for t in SHOWN), "mean AP")
    sets = [(f"{name}, {counted(row['images'], 'image')}", row)
            for name, row in (*scores["modalities"].items(), ("all", scores["all"]))]
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
