"""What comes out, of nuclei: each image's probability, its nuclei by number, a picture, Kaggle's run-length lines.

A `predictor` is a trained network behind a function: normalised uint8 (H, W, 3) -> probability float32 (H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.transform import resize
from tqdm import tqdm

from unet.inputs.folders import Source, find_sources, kind_of, levels_of, read_image, read_source, stretch
from unet.inputs.stacks import write_stack
from unet.report.pictures import save_nuclei
from unet.scores.precision import SUFFIX, nuclei_scores
from unet.segment.instances import run_lengths, separate_nuclei
from unet.tasks.crops import squeeze
from utils import NotLearning, UserError, atomic_path, require_space, write_json

Predictor = Callable[[np.ndarray], np.ndarray]
IMAGES_SHOWN = 6  # held-out images in holdout.png


@dataclass(frozen=True)
class Prediction:
    """An image uint8 (H, W, 3), its probability of nucleus float32 (H, W), its nuclei int32 (H, W), 0 = background."""

    name: str
    image: np.ndarray
    probability: np.ndarray
    labels: np.ndarray


def predict_image(image: np.ndarray, predictor: Predictor, side: int | None = None) -> np.ndarray:
    """Probability of nucleus, float32 (H, W), of an image uint8 (H, W, 3) of any size.

    Normalised by its own levels; or, where the network learnt from images squeezed to `side` pixels, squeezed, and the
    probability resized back.
    """
    if side is None:
        return predictor(stretch(image, levels_of(image, kind_of(image))))
    return resize(predictor(squeeze(image, side)), image.shape[:2], order=1, anti_aliasing=False).astype(np.float32)


def predict_source(name: str, image: np.ndarray, predictor: Predictor, side: int | None) -> Prediction:
    """Probability and nuclei of one image uint8 (H, W, 3)."""
    probability = predict_image(image, predictor, side)
    return Prediction(name, image, probability, separate_nuclei(probability))


def predict_sources(sources: Iterable[Source], predictor: Predictor, side: int | None, notes: list[str]
                    ) -> Iterator[Prediction]:
    """Read and predict one image after the other; what should be known of reading is added to `notes`."""
    found: dict[str, list[str]] = {"reduced": []}
    for source in sources:
        yield predict_source(source.name, read_image(source.image, found), predictor, side)
    notes += [f"{path} was reduced to 8 bit: .1 % of its pixels became 0, .1 % 255" for path in found["reduced"]]


# ------------------------------------------------------------------------------------------------------ files


def check_folder(out: Path) -> None:
    """Raise UserError where nothing can be written into the folder `out`, ahead of the work."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; predicted nuclei go into a folder, name one with --out, for instance "
                        f"{out.with_name('prediction')}")
    require_space(out, 10_000_000)


def remove_predictions(out: Path, names: Iterable[str]) -> int:
    """Remove the files of images that an earlier run predicted into `out`; returns of how many images.

    Those that train now would be scored as if they had been held out.
    """
    ours = [name for name in names if (out / f"{name}{SUFFIX}").is_file()]  # else who knows whose files they are
    for name in ours:
        for end in (".tif", SUFFIX, ".png"):
            (out / f"{name}{end}").unlink(missing_ok=True)
    return len(ours)


def write_prediction_files(out: Path, prediction: Prediction) -> None:
    """Write <name>.tif, float32, and <name>-labels.tif, uint16; ImageJ, at the image's own size."""
    if prediction.labels.max() > np.iinfo(np.uint16).max:
        raise UserError(f"{prediction.name} has {prediction.labels.max()} nuclei, expected 65535 at most; cut it into "
                        "pieces")
    write_stack(out / f"{prediction.name}.tif", prediction.probability[np.newaxis])
    write_stack(out / f"{prediction.name}{SUFFIX}", prediction.labels.astype(np.uint16)[np.newaxis])


def write_folder(sources: list[Source], out: Path, predictor: Predictor, side: int | None = None, panels: bool = False,
                 submission: Path | None = None) -> tuple[int, list[str]]:
    """Predict images and write their files into `out`; also a picture of each, and Kaggle's table, on request.

    Returns how many nuclei were found, and notes, a sentence each.
    """
    notes: list[str] = []
    lines = ["ImageId,EncodedPixels"]
    nuclei = 0
    bar = tqdm(sources, desc="predicting", unit="image", disable=None)
    for prediction in predict_sources(bar, predictor, side, notes):
        write_prediction_files(out, prediction)
        if panels:
            save_nuclei(out / f"{prediction.name}.png", [(prediction.name, prediction.image, prediction.probability,
                                                          prediction.labels, None)])
        # an image without nuclei has a line, too, and nothing in it
        lines += [f"{prediction.name},{line}" for line in run_lengths(prediction.labels)] or [f"{prediction.name},"]
        nuclei += int(prediction.labels.max())
    if submission:
        with atomic_path(submission) as temporary:
            temporary.write_text("\n".join(lines) + "\n")
    return nuclei, notes


# --------------------------------------------------------------------------------------------------- judgement


def judge_nuclei(work: Path, data: Path, manifest: dict, predictor: Predictor, out: Path) -> dict | None:
    """Predict the held-out images into `out` and score them; writes metrics.json and holdout.png into `work`.

    Returns the scores of `nuclei_scores` with "accuracy" and "iou" of the pixels at a probability of .5 beside them, or
    None where nothing was held out. Raises NotLearning where training images get one value everywhere.
    """
    sources = {source.name: source for source in find_sources(data)}
    images, side = manifest["images"], manifest["resize"]
    train, held_out = ([sources[images[number]["name"]] for number in manifest["split"][part]]
                       for part in ("train", "holdout"))
    seen = [predict_image(read_image(source.image), predictor, side).ravel() for source in train[:3]]
    if np.concatenate(seen).std() < 0.02:
        raise NotLearning("the network puts out the same value everywhere: it did not learn. Train longer (--epochs), "
                          "with a smaller --lr, or look whether the masks belong to their images")
    if not held_out:
        return None
    kinds = [images[number]["kind"] for number in manifest["split"]["holdout"]]
    # a picture of each kind before a second one of any
    in_picture = sorted(range(len(kinds)), key=lambda number: kinds[:number].count(kinds[number]))[:IMAGES_SHOWN]
    pairs, pixels, shown = [], [], []
    for number, source in enumerate(tqdm(held_out, desc="judging", unit="image", disable=None)):
        one = read_source(source)
        prediction = predict_source(one.name, one.image, predictor, side)
        write_prediction_files(out, prediction)
        pairs.append((prediction.labels, one.labels))
        pixels.append(pixel_scores(prediction.probability, one.labels))
        if number in in_picture:
            shown.append((one.name, one.image, prediction.probability, prediction.labels, one.labels))
    scores = nuclei_scores(pairs, [source.name for source in held_out], kinds)
    for row, values in zip(scores["per_image"], pixels, strict=True):
        row.update(values)
    scores["all"].update({name: float(np.mean([values[name] for values in pixels])) for name in pixels[0]})
    write_json(work / "metrics.json", scores)
    save_nuclei(work / "holdout.png", shown)
    return scores


def pixel_scores(probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Share of the pixels (H, W) that are right at a probability of .5, and intersection over union of the nuclei."""
    nuclei, true = probability > 0.5, truth > 0
    union = int(np.sum(nuclei | true))
    return {"accuracy": float(np.mean(nuclei == true)), "iou": float(np.sum(nuclei & true) / union) if union else 1.0}
