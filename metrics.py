"""Score files: a prediction as the ISBI 2012 challenge did, nuclei as the Data Science Bowl of 2018.

    python metrics.py prediction.tif data/train-labels.tif --slices 25-29 --json scores.json
    python metrics.py cells.tif data/train-labels.tif  a number for each cell
    python metrics.py cells.tif data/demo/test-cells.tif --linked  one number for a cell through the stack
    python metrics.py predicted/ stage1_train/         two folders: nuclei one by one

What each score means stands beside its code in `unet/scores/`.
"""

from __future__ import annotations

from pathlib import Path

from unet.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import numpy as np

from unet.inputs.layouts import Folders, kind_of
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

    With `instances`, or where it is plain to see, the prediction numbers cells: `instance_scores`, else `isbi_scores`.
    With `linked` the numbers run through the stack: "linked" has their scores in three dimensions. Raises UserError.
    """
    prediction, labels = (np.asarray(open_pages(path)) for path in (prediction_path, labels_path))
    slices = parse_slices(text, len(labels)) if text else list(range(len(labels)))
    if not slices or len(prediction) not in (len(labels), len(slices)):
        raise UserError(f"{prediction_path} has {len(prediction)} slices, {labels_path} has {len(labels)}; "
                        "name as many of these with --slices as the prediction has, for instance 25-29")
    if labels.dtype.kind == "f":
        if (labels != np.rint(labels)).any():
            raise UserError(f"{labels_path} has fractions, as a prediction has; the labels come second")
        labels = labels.astype(np.int64)
    whole_numbers = prediction.dtype.kind in "iu"
    if (instances or linked) and not whole_numbers:
        raise UserError(f"{prediction_path} is {prediction.dtype}, expected whole numbers, one a cell; leave out "
                        "--instances and --linked for probabilities")
    if linked and len(np.unique(labels)) <= 2:
        raise UserError(f"{labels_path} says where cells are, not which; --linked needs a number for each cell through "
                        "the stack, as in the demo's test-cells.tif")
    try:
        if instances or linked or (whole_numbers and are_cells(prediction)):
            mine = prediction[slices] if len(prediction) == len(labels) else prediction
            scores = instance_scores(mine, labels[slices], slices)
            names = ("adapted_rand_error", "precision", "recall")
            through = dict(zip(names, adapted_rand_error(mine, labels[slices]), strict=True)) if linked else None
            return {**scores, "linked": through} if linked else scores
        if whole_numbers and prediction.max() > 1:  # saved as grey values
            white = np.iinfo(prediction.dtype).max
            if white > 255 and prediction.max() < white / 10:
                raise UserError(f"{prediction_path} goes up to {prediction.max()} of {white}; numbers of cells are "
                                "scored with --instances")
            prediction = prediction / np.float32(white)
        return _score_probabilities(prediction, labels, slices)
    except ValueError as error:
        raise UserError(f"{prediction_path} against {labels_path}: {error}") from None


def are_cells(stack: np.ndarray) -> bool:
    """Whether whole numbers (N, H, W) are plainly those of cells: several beside 0, and different ones never touch.

    A probability saved as grey values runs through all those between dark and bright.
    """
    pairs = (stack[:, 1:], stack[:, :-1]), (stack[:, :, 1:], stack[:, :, :-1])
    touch = any(((one != other) & (one != 0) & (other != 0)).any() for one, other in pairs)
    return not touch and len(np.unique(stack)) > 2


def _score_probabilities(prediction: np.ndarray, labels: np.ndarray, slices: list[int]) -> dict:
    """`isbi_scores` on these slices of the labels.

    A prediction of all slices is cut to them, and t chosen on its other slices; one of these slices alone is
    paired with them in order, and t chosen for each slice on the others.
    """
    others = sorted(set(range(len(labels))) - set(slices)) if len(prediction) == len(labels) else []
    threshold = best_threshold(prediction[others], labels[others]) if others else "others"
    mine = prediction[slices] if len(prediction) == len(labels) else prediction
    scores = isbi_scores(mine, labels[slices], threshold=threshold, slices=slices)
    if others:
        scores["chosen"]["how"] = f"the t best on the prediction's other {len(others)} slices"
    return scores


# --------------------------------------------------------------------------------------------------- nuclei


def score_nuclei(predicted: str | Path, truth: str | Path) -> dict:
    """`nuclei_scores` of a folder of `<name>-labels.tif` against a folder of images with masks or labels, or another
    such folder.

    Two label TIFFs are compared page by page. Only images that were predicted are scored; "missing" names the others,
    "without" the predicted ones that have no masks. Raises UserError where nothing fits,
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
    kind, without = kind_of(truth), set()
    from_masks = issubclass(kind, Folders)
    if from_masks:
        sources = kind.find(truth)
        theirs = {source.name: source for source in sources if source.masks}
        without = {source.name for source in sources if not source.masks} & set(ours)
    for folder, files, wanted in ((predicted, ours, ""), (truth, theirs, ", and no <name>/masks")):
        if not files:
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
        layout = kind(truth)
        samples = [layout[layout.names.index(name)] for name in ours]
        truths, modalities = (layout.objects(one.label) for one in samples), [one.group for one in samples]
    else:
        truths, modalities = (_label_map(theirs[name]) for name in ours), None
    scores = nuclei_scores(zip(map(_label_map, ours.values()), truths, strict=True), list(ours), modalities)
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


def main() -> None:
    parser = Parser(description="Score a prediction as the ISBI 2012 challenge did, or nuclei as the Data Science Bowl "
                                "of 2018.")
    parser.add_argument("prediction", help="stack (TIFF, Zarr, folder), probability of cell (0 to 1, or grey values) "
                                           "or a number for each cell, or a folder of <name>-labels.tif, nuclei with "
                                           "a number each")
    parser.add_argument("labels", help="TIFF stack, 0 = membrane, all else = cell, or a folder: <name>/masks/*.png, "
                                       "labels/<name>.tif, or again <name>-labels.tif")
    parser.add_argument("--slices", help="slices of the labels to score, e.g. 25-29 (default: all)")
    parser.add_argument("--instances", action="store_true", help="the prediction has a number for each cell; where "
                                                                 "they don't touch, that is plain without it")
    parser.add_argument("--linked", action="store_true", help="numbers run through the stack in both: adapted Rand "
                                                              "error in 3-D, too")
    parser.add_argument("--nuclei", action="store_true", help="two TIFFs have a number for each nucleus: score them as "
                                                              "two folders are")
    parser.add_argument("--json", metavar="FILE", help="write all scores to this file, too")
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
