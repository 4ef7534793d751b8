"""Score files: a prediction as the ISBI 2012 challenge did, nuclei as the Data Science Bowl of 2018.

    python metrics.py prediction.tif data/train-labels.tif --slices 25-29 --json scores.json
    python metrics.py predicted/ stage1_train/         two folders: nuclei one by one

What each score means stands beside its code in `unet/scores/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from unet.inputs.stacks import parse_slices, read_stack
from unet.scores.isbi import best_threshold, format_instances, format_scores, instance_scores, isbi_scores
from unet.scores.precision import format_nuclei, score_nuclei
from utils import UserError, run, write_json


def read_pair(prediction_path: str, labels_path: str, text: str | None) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Prediction, labels and the slices of the labels that `text` ("25-29") names, or all; raises UserError."""
    prediction, labels = read_stack(prediction_path), read_stack(labels_path)
    slices = parse_slices(text, len(labels)) if text else list(range(len(labels)))
    if not slices or len(prediction) not in (len(labels), len(slices)):
        raise UserError(f"{prediction_path} has {len(prediction)} slices, {labels_path} has {len(labels)}; "
                        "name as many of these with --slices as the prediction has, for instance 25-29")
    if labels.dtype.kind == "f" and (labels != np.rint(labels)).any():
        raise UserError(f"{labels_path} has fractions, as a prediction has; the labels come second")
    return prediction, labels, slices


def score_instance_files(prediction_path: str, labels_path: str, text: str | None = None) -> dict:
    """`instance_scores` of two TIFF stacks, on the slices of the labels that `text` names, or on all."""
    prediction, labels, slices = read_pair(prediction_path, labels_path, text)
    if prediction.dtype.kind not in "iu":
        raise UserError(f"{prediction_path} is {prediction.dtype}, expected whole numbers, one a cell; leave out "
                        "--instances for probabilities")
    try:
        mine = prediction[slices] if len(prediction) == len(labels) else prediction
        return instance_scores(mine, labels[slices], slices)
    except ValueError as error:
        raise UserError(f"{prediction_path} against {labels_path}: {error}") from None


def score_files(prediction_path: str, labels_path: str, text: str | None = None) -> dict:
    """`isbi_scores` of two TIFF stacks, on the slices of the labels that `text` ("25-29") names, or on all.

    A prediction of all slices is cut to them, and t chosen on its other slices; one of these slices alone is
    paired with them in order, and t chosen for each slice on the others. Raises UserError.
    """
    prediction, labels, slices = read_pair(prediction_path, labels_path, text)
    if prediction.dtype.kind in "iu" and prediction.max() > 1:  # saved as grey values
        white = np.iinfo(prediction.dtype).max
        if white > 255 and prediction.max() < white / 10:
            raise UserError(f"{prediction_path} goes up to {prediction.max()} of {white}; numbers of cells are scored "
                            "with --instances")
        prediction = prediction / np.float32(white)
    whole = len(prediction) == len(labels)
    others = sorted(set(range(len(labels))) - set(slices)) if whole else []
    try:
        threshold = best_threshold(prediction[others], labels[others]) if others else "others"
        mine = prediction[slices] if whole else prediction
        scores = isbi_scores(mine, labels[slices], threshold=threshold, slices=slices)
    except ValueError as error:
        raise UserError(f"{prediction_path} against {labels_path}: {error}") from None
    if others:
        scores["chosen"]["how"] = f"the t best on the prediction's other {len(others)} slices"
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a prediction as the ISBI 2012 challenge did, or nuclei as the "
                                                 "Data Science Bowl of 2018.")
    parser.add_argument("prediction", help="TIFF stack, probability of cell (0 to 1, or grey values), or a folder of "
                                           "<name>-labels.tif, nuclei with a number each")
    parser.add_argument("labels", help="TIFF stack, 0 = membrane, all else = cell, or a folder: <name>/masks/*.png, or "
                                       "again <name>-labels.tif")
    parser.add_argument("--slices", help="slices of the labels to score, e.g. 25-29 (default: all)")
    parser.add_argument("--instances", action="store_true", help="the prediction has a number for each cell")
    parser.add_argument("--nuclei", action="store_true", help="two TIFFs have a number for each nucleus: score them as "
                                                              "two folders are")
    parser.add_argument("--json", metavar="FILE", help="write all scores to this file, too")
    options = parser.parse_args()
    if options.nuclei or Path(options.prediction).is_dir() or Path(options.labels).is_dir():
        if options.slices or options.instances:
            raise UserError("--slices and --instances are for TIFF stacks of cells, not for nuclei; leave them out")
        scores, show = score_nuclei(options.prediction, options.labels), format_nuclei
    else:
        score, show = (score_instance_files, format_instances) if options.instances else (score_files, format_scores)
        scores = score(options.prediction, options.labels, options.slices)
    if options.json:
        write_json(options.json, scores)
    print(show(scores))


if __name__ == "__main__":
    run(main)
