"""Score a prediction as the ISBI 2012 challenge did, or nuclei as the 2018 Data Science Bowl did.

    python metrics.py prediction.tif data/train-labels.tif --slices 25-29 --json scores.json
    python metrics.py cells.tif data/train-labels.tif  a number for each cell in each slice
    python metrics.py cells.tif data/demo/test-cells.tif --linked  the same number for a cell in all slices
    python metrics.py predicted/ stage1_train/         two folders: separate nuclei

Each score is explained beside its code in `unet/scores/`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from unet.system.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import numpy as np

from unet.inputs.layouts import Folders, layout_class
from unet.inputs.pages import open_pages
from unet.inputs.stacks import parse_slices, read_stack
from unet.inputs.zarrs import is_zarr
from unet.scores.isbi import (
    adapted_rand_error,
    best_threshold,
    format_instances,
    format_scores,
    instance_scores,
    isbi_scores,
)
from unet.scores.precision import SUFFIX, format_nuclei, nuclei_scores
from utils import Parser, UserError, run, write_json

# -------------------------------------------------------------------------------------------- stacks of cells


def score_stacks(prediction_path: str | Path, labels_path: str | Path, text: str | None = None,
                 instances: bool = False, linked: bool = False) -> dict:
    """Score two stacks, of any format, on the slices of the labels that `text` ("25-29") names, or on all.

    With `instances`, or if `are_cells` says so, the prediction numbers cells and gets `instance_scores`, otherwise
    `isbi_scores`. With `linked` a cell has the same number in all slices, and "linked" holds the scores in three
    dimensions. Raises UserError for input that cannot be scored.
    """
    prediction, labels = (np.asarray(open_pages(path)) for path in (prediction_path, labels_path))
    slices = parse_slices(text, len(labels)) if text else list(range(len(labels)))
    if not slices or len(prediction) not in (len(labels), len(slices)):
        raise UserError(f"{prediction_path} has {len(prediction)} slices, {labels_path} has {len(labels)}; "
                        "name as many of these with --slices as the prediction has, for instance 25-29")
    if labels.dtype.kind == "f":
        if (labels != np.rint(labels)).any():
            raise UserError(f"{labels_path} has fractions, so it looks like a prediction; name the labels second")
        labels = labels.astype(np.int64)
    whole_numbers = prediction.dtype.kind in "iu"
    if (instances or linked) and not whole_numbers:
        raise UserError(f"{prediction_path} is {prediction.dtype}, expected whole numbers, one for each cell; leave "
                        "out --instances and --linked for probabilities")
    if linked and len(np.unique(labels)) <= 2:
        raise UserError(f"{labels_path} does not number its cells; --linked needs the same number for a cell in all "
                        "slices, as in the demo's test-cells.tif")
    try:
        if instances or linked or (whole_numbers and are_cells(prediction)):
            cells = prediction[slices] if len(prediction) == len(labels) else prediction
            scores = instance_scores(cells, labels[slices], slices)
            if linked:
                names = ("adapted_rand_error", "precision", "recall")
                scores["linked"] = dict(zip(names, adapted_rand_error(cells, labels[slices]), strict=True))
            return scores
        if whole_numbers and prediction.max() > 1:  # a probability saved as grey values
            white = np.iinfo(prediction.dtype).max
            if white > 255 and prediction.max() < white / 10:
                raise UserError(f"{prediction_path} has values up to {prediction.max()} of {white}; if they number "
                                "cells, score them with --instances")
            prediction = prediction / np.float32(white)
        return _score_probabilities(prediction, labels, slices)
    except ValueError as error:
        raise UserError(f"{prediction_path} against {labels_path}: {error}") from None


def are_cells(stack: np.ndarray) -> bool:
    """Tell whether whole numbers (N, H, W) clearly number cells: several beside 0, and different ones never touch.

    In a probability saved as grey values, different values do touch.
    """
    neighbours = (stack[:, 1:], stack[:, :-1]), (stack[:, :, 1:], stack[:, :, :-1])
    touch = any(((one != other) & (one != 0) & (other != 0)).any() for one, other in neighbours)
    return not touch and len(np.unique(stack)) > 2


def _score_probabilities(prediction: np.ndarray, labels: np.ndarray, slices: list[int]) -> dict:
    """Compute `isbi_scores` on these slices of the labels.

    If the prediction has all slices, these are selected, and the threshold t is chosen on the other slices. If it has
    only these slices, they are paired with the labels' in order. Without other slices, t is chosen for each slice on
    the rest.
    """
    if len(prediction) != len(labels):
        return isbi_scores(prediction, labels[slices], threshold="others", slices=slices)
    others = sorted(set(range(len(labels))) - set(slices))
    threshold = best_threshold(prediction[others], labels[others]) if others else "others"
    scores = isbi_scores(prediction[slices], labels[slices], threshold=threshold, slices=slices)
    if others:
        scores["chosen"]["how"] = f"the t best on the prediction's other {len(others)} slices"
    return scores


# --------------------------------------------------------------------------------------------------- nuclei


def score_nuclei(predicted: str | Path, truth: str | Path) -> dict:
    """Compute `nuclei_scores` of a folder of `<name>-labels.tif`.

    The truth is a folder of images with masks or labels, or another folder of `<name>-labels.tif`. Two label TIFFs are
    compared page by page. Only predicted images are scored; "missing" lists the others, "without" the predicted ones
    that have no masks. Raises UserError if no names match, or a prediction has no image there.
    """
    predicted, truth = Path(predicted), Path(truth)
    for path in (predicted, truth):
        if not path.exists():
            raise UserError(f"{path} not found; name the predicted instances, then the true ones")
    if predicted.is_dir() != truth.is_dir():
        raise UserError(f"{predicted} and {truth} are a folder and a file; name two folders or two label TIFFs")
    try:
        if not predicted.is_dir():
            predictions, truths = _label_maps(predicted), _label_maps(truth)
            if len(predictions) != len(truths):
                raise UserError(f"{predicted} has {len(predictions)} pages, {truth} has {len(truths)}; each needs its "
                                "truth")
            return nuclei_scores(zip(predictions, truths, strict=True), [f"page {n}" for n in range(len(truths))])
        return _score_folders(predicted, truth)
    except ValueError as error:
        raise UserError(f"{predicted} against {truth}: {error}") from None


def _label_files(folder: Path) -> dict[str, Path]:
    """Return the <name>-labels.tif of a folder, by name."""
    return {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def _truths(folder: Path) -> tuple[dict[str, Callable[[], tuple[np.ndarray, str | None]]], set[str]]:
    """Return functions that read each image's true objects and its modality, by name, and the images without any."""
    layout_type = layout_class(folder)
    if not issubclass(layout_type, Folders):
        return {name: lambda path=path: (_label_map(path), None) for name, path in _label_files(folder).items()}, set()
    images = layout_type.find(folder)
    if not any(image.masks for image in images):
        return {}, {image.name for image in images}
    layout = layout_type(folder)

    def read(name: str) -> tuple[np.ndarray, str]:
        sample = layout[layout.names.index(name)]
        return layout.objects(sample.label), sample.group

    return {name: partial(read, name) for name in layout.names}, {one.name for one in images if not one.masks}


def _score_folders(predicted: Path, truth: Path) -> dict:
    predictions, (truths, unlabelled) = _label_files(predicted), _truths(truth)
    without = unlabelled & set(predictions)
    for folder, files, alternative in ((predicted, predictions, ""), (truth, truths, ", and no <name>/masks")):
        if not files:
            raise UserError(f"{folder} holds no <name>{SUFFIX}{alternative}; name the folder that 'python predict.py' "
                            "wrote, then the one with the truth")
    unknown = [name for name in predictions if name not in truths and name not in without]
    if unknown:
        raise UserError(f"{truth} has no truth for {len(unknown)} of {len(predictions)} predictions, {unknown[0]} the "
                        "first; name the folder that the images came from")
    predictions = {name: path for name, path in predictions.items() if name not in without}
    if not predictions:
        raise UserError(f"{truth} has no masks for any predicted image; name the folder of annotated images")
    objects, modalities = zip(*(truths[name]() for name in predictions), strict=True)
    scores = nuclei_scores(zip(map(_label_map, predictions.values()), objects, strict=True), list(predictions),
                           None if None in modalities else modalities)
    return {**scores, "missing": sorted(set(truths) - set(predictions)), "without": sorted(without)}


def _label_maps(path: Path) -> np.ndarray:
    labels = read_stack(path)
    if labels.dtype.kind not in "iu" or labels.ndim != 3:
        raise UserError(f"{path} is {labels.dtype} {labels.shape}, expected a number for each nucleus, one channel")
    return labels


def _label_map(path: Path) -> np.ndarray:
    labels = _label_maps(path)
    if len(labels) != 1:
        raise UserError(f"{path} has {len(labels)} pages, expected one, as it belongs to one image")
    return labels[0]


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("prediction", help="stack (TIFF, Zarr, folder) with the probability of cell (0 to 1, or grey "
                                           "values) or a number for each cell; or a folder of <name>-labels.tif with "
                                           "a number for each nucleus")
    parser.add_argument("labels", help="stack (TIFF, Zarr), 0 = membrane, other values = cell; or a folder of "
                                       "<name>/masks/*.png, labels/<name>.tif or <name>-labels.tif")
    parser.add_argument("--slices", help="slices of the labels to score, e.g. 25-29 (default: all)")
    parser.add_argument("--instances", action="store_true", help="the prediction has a number for each cell; needed "
                                                                 "only if cells touch")
    parser.add_argument("--linked", action="store_true", help="a cell has the same number in all slices of both "
                                                              "stacks: also print the adapted Rand error in 3-D")
    parser.add_argument("--nuclei", action="store_true", help="score two TIFFs with a number for each nucleus by "
                                                              "average precision, like two folders")
    parser.add_argument("--json", metavar="FILE", help="also write all scores to this file")
    options = parser.parse_args()
    labels = Path(options.labels)
    if options.nuclei or (labels.is_dir() and not is_zarr(labels)):
        if options.slices or options.instances or options.linked:
            raise UserError("--slices, --instances and --linked are for TIFF stacks of cells, not for nuclei; leave "
                            "them out")
        table = format_nuclei(scores := score_nuclei(options.prediction, labels))
    else:
        scores = score_stacks(options.prediction, options.labels, options.slices, options.instances, options.linked)
        table = format_scores(scores) if "curve" in scores else format_instances(scores)
    if options.json:
        write_json(options.json, scores)
    print(table)


if __name__ == "__main__":
    run(main)
