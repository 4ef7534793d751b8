"""The final step: a trained model and any stack of slices -> prediction.tif, the probability of cell.

    python predict.py STACK.tif --model results/model.keras --out prediction.tif
    python predict.py FOLDER    nuclei images, each for itself -> prediction/<name>.tif and <name>-labels.tif
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow comes in and fills the screen
os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever else the user's Keras is set to

import keras
import numpy as np
import tensorflow as tf
from skimage.transform import resize
from tqdm import tqdm

from datasets import read_images
from model import Network
from preprocessing import normalise
from unet.inputs.folders import find_images
from unet.inputs.stacks import format_slices, open_stack, read_stack, stack_writer, write_stack
from unet.report.pictures import save_classes, save_holdout
from unet.scores.isbi import best_threshold, isbi_scores, segments
from unet.segment.crests import along_crests
from unet.segment.walls import judge_walls, learn_walls
from unet.tasks.classes import class_scores
from unet.tasks.nuclei_prediction import Predictor, check_folder, write_folder
from unet.training.encoders import build
from utils import NotLearning, OverlapTile, UserError, check_output, read_json, run, write_json

PRECISIONS = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16", "float32": "float32"}
CORE = 640  # largest core predicted at once, pixels; a whole ISBI slice, magnified too
CHOOSING = 5  # of the slices that trained, the last, on which the threshold is chosen
TRAIN_FIRST = "run 'python train.py' first, or name the model with --model"


def prepare_device(precision: str = "auto") -> str:
    """Set Keras up for the machine: GPU memory that grows as needed, and the arithmetic; returns what was chosen.

    'auto' is bfloat16 where processor or GPU computes it, float16 on GPUs with tensor cores alone, else float32.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)
    if precision == "auto":
        precision = _gpu_precision(gpus) if gpus else _cpu_precision()
    keras.mixed_precision.set_global_policy(PRECISIONS[precision])
    where = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}" if gpus else f"no GPU found, {os.cpu_count()} CPU cores"
    return f"{where}, {precision}"


def _gpu_precision(gpus: list) -> str:
    capability = min(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus)
    return "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else "float32"


def _cpu_precision() -> str:
    flags = Path("/proc/cpuinfo")  # Linux only; elsewhere float32 is safe
    text = flags.read_text() if flags.is_file() else ""
    return "bfloat16" if "avx512_bf16" in text or "amx_bf16" in text else "float32"


def load_model(path: Path) -> tuple[keras.Model, dict]:
    """The trained network and its config.json; raises UserError where either is missing or broken.

    The network is built anew for this machine's arithmetic, then gets the weights: a model trained in bfloat16
    predicts anywhere.
    """
    if not path.is_file():
        raise UserError(f"{path} not found; {TRAIN_FIRST}")
    config = read_json(path.with_name("config.json"), f"it lies beside {path.name} and belongs to it; {TRAIN_FIRST}",
                       ("network", "channels", "normalisation", "recipe"))
    try:
        model = build(Network(**config["network"]), config["channels"], config["normalisation"])
        model.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise UserError(f"{path} cannot be read as a model ({str(error).splitlines()[0][:90]}); "
                        f"{TRAIN_FIRST}") from None
    return model, config


def predict_slice(model: keras.Model, image: np.ndarray, network: Network, normalisation: dict,
                  core: int = CORE, margin: int | None = None, flips: int = 1, zooms: Sequence[float] = (1.0,)
                  ) -> np.ndarray:
    """Probability of cell, float32 (H, W), or of each of several classes (H, W, K), of one uint8 slice of any size.

    Mirrored overlap tiles are predicted one by one and their cores stitched; the default margin covers the network's
    receptive field, so no seam is left. The slice is predicted at each magnification in `zooms`, the probability
    brought back to its size, and with `flips` up to 8 in as many of the square's symmetries; the mean is given.
    """
    shape, total = image.shape, 0.0
    for zoom in zooms:
        size = [max(1, round(side * zoom)) for side in shape]
        magnified = image if zoom == 1 else np.rint(resize(image, size, order=1, preserve_range=True))
        one = predict_normalised(model, normalise(magnified.astype(image.dtype), **normalisation), network, core,
                                 margin, flips)
        total = total + (one if zoom == 1 else resize(one, shape, order=1))
    return total / len(zooms)


def predict_normalised(model: keras.Model, image: np.ndarray, network: Network, core: int = CORE,
                       margin: int | None = None, flips: int = 1) -> np.ndarray:
    """`predict_slice` of a normalised image, uint8 (H, W) or (H, W, C)."""
    margin = network.margin if margin is None else margin
    total = 0.0
    for number in range(flips):
        turned = np.rot90(image[:, ::-1] if number >= 4 else image, number)
        back = np.rot90(_stitched(model, turned, network.stride, core, margin), -number)
        total = total + (back[:, ::-1] if number >= 4 else back)
    return total / flips


def _stitched(model: keras.Model, normalised: np.ndarray, stride: int, core: int, margin: int) -> np.ndarray:
    shape = normalised.shape[:2]
    count = math.ceil(max(shape) / core)  # tiles along the longer side, all of one size, no larger than it needs
    tiles = OverlapTile(shape, math.ceil(max(shape) / count / stride) * stride, margin)
    classes = model.output_shape[-1]
    probability = np.empty((*shape, classes), np.float32)
    for number, corner in enumerate(tiles.corners()):
        tile = tiles.cut(normalised, [number])
        tile = tile if normalised.ndim == 3 else tile[..., np.newaxis]
        tiles.place(probability, model.predict_on_batch(tile)[0], corner)
    return probability if classes > 1 else probability[..., 0]


def predict_slices(model: keras.Model, images: Iterable[np.ndarray], config: dict) -> Iterator[np.ndarray]:
    """Yield the probability float32 (H, W), or of several classes (H, W, K), of each uint8 slice (H, W).

    Membranes as walls, where the run's configuration says so.
    """
    for image in images:
        yield drawn(network_output(model, image, config), config)


def network_output(model: keras.Model, image: np.ndarray, config: dict) -> np.ndarray:
    """`predict_slice` as the run's configuration says, before membranes are drawn as walls."""
    recipe = config["recipe"]
    return predict_slice(model, image, Network(**config["network"]), config["normalisation"], flips=recipe["flips"],
                         zooms=recipe.get("zooms", (1.0,)))


def drawn(probability: np.ndarray, config: dict) -> np.ndarray:
    """The probability float32 (H, W) with membranes as walls, if the run's configuration gives their width."""
    width, learnt = config.get("membrane", 0.0), config.get("walls")
    if not width:
        return probability
    return along_crests(probability, width, *([partial(judge_walls, learnt=learnt)] if learnt else []))


def predictor_of(model: keras.Model, config: dict) -> Predictor:
    """The trained network as a function of a normalised image: uint8 (H, W, 3) -> probability float32 (H, W)."""
    return partial(predict_normalised, model, network=Network(**config["network"]), flips=config["recipe"]["flips"])


def write_prediction(model: keras.Model, images: np.ndarray, config: dict, out: Path) -> None:
    """Predict uint8 (N, H, W) and write float32 probabilities of cell slice by slice; one ImageJ stack.

    Of several classes a hyperstack (N, K, H, W), a channel a class.
    """
    check_output(out, 4 * images.size * model.output_shape[-1])
    slices = predict_slices(model, tqdm(images, desc="predicting", unit="slice", disable=None), config)
    _write_probabilities(out, images.shape, slices, model.output_shape[-1])


def _write_probabilities(out: Path, shape: tuple[int, int, int], slices: Iterable[np.ndarray], classes: int) -> None:
    count, *size = shape
    several = classes > 1
    with stack_writer(out, (count, classes, *size) if several else shape, np.float32, channels=several) as write:
        for probability in slices:
            write(np.moveaxis(probability, -1, 0) if several else probability)


def write_instances(prediction: Path, out: Path, threshold: float) -> None:
    """Write a number for each cell and slice, uint16 (N, H, W), 0 = border, from a stack of probabilities of cell.

    The cells are the 4-connected components of the thinned segmentation at `threshold`, the very segments that V_rand
    and V_info score. One ImageJ stack, all or nothing.
    """
    probabilities = read_stack(prediction)
    with stack_writer(out, probabilities.shape, np.uint16) as write:
        for probability in probabilities:
            cells = segments(probability > threshold)
            if cells.max() > 65535:
                raise UserError(f"{out}: a slice has {cells.max()} cells, more than an ImageJ label stack can number")
            write(cells.astype(np.uint16))


def judge(work: Path, model: keras.Model, config: dict) -> dict | None:
    """Predict the held-out slices, score them as ISBI 2012 did, write metrics.json, holdout.tif and .png.

    Several classes are scored one by one. Before, on slices that trained, walls are learnt, and the threshold that is
    not the best afterwards but chosen beforehand: the best one on the last of them. Returns the scores, or None where
    nothing was held out. Raises NotLearning for a constant prediction.
    """
    split = config["split"]
    shape = read_json(work / "augmented" / "manifest.json", "run 'python augmentation.py'")["shape"]
    images = open_stack(work / "augmented" / "images.tif", shape)
    labels = open_stack(work / "augmented" / "labels.tif", shape[:3])
    held_out, seen = split["holdout"], split["train"][-config["recipe"].get("look_back", 10):]
    several = Network(**config["network"]).classes > 1
    seen = seen if config.get("membrane") else seen[-CHOOSING:]
    bar = tqdm(seen, desc="looking back", unit="slice", disable=None)
    outputs = np.stack([network_output(model, images[number], config) for number in bar])
    if np.max(outputs.std(axis=(0, 1, 2))) < 0.02:
        raise NotLearning("the network puts out the same value everywhere: it did not learn. Train longer (--epochs), "
                          "with a smaller --lr, or look for inverted labels with 'python datasets.py check'")
    config["walls"] = learn_walls(outputs, labels[seen]) if config.get("membrane") else None
    chosen_on = seen[-CHOOSING:]
    if not several:
        last = np.stack([drawn(output, config) for output in outputs[-CHOOSING:]])
        config["threshold"] = best_threshold(last, labels[chosen_on])
    write_json(work / "config.json", config)
    if not held_out:
        return None
    probabilities = np.stack(list(predict_slices(model, (images[number] for number in held_out), config)))
    if several:
        return _judge_classes(work, images[held_out], labels[held_out], probabilities, held_out)
    write_stack(work / "holdout.tif", probabilities)
    scores = isbi_scores(probabilities, labels[held_out], threshold=config["threshold"], slices=held_out)
    scores["chosen"]["how"] = f"the t best on the training slices {format_slices(chosen_on)}"
    write_json(work / "metrics.json", scores)
    save_holdout(work / "holdout.png", images[held_out], labels[held_out], probabilities, config["threshold"], held_out)
    return scores


def _judge_classes(work: Path, images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray,
                   slices: list[int]) -> dict:
    """Score and write what was held out, of several classes: images, labels (N, H, W), probabilities (N, H, W, K)."""
    _write_probabilities(work / "holdout.tif", labels.shape, probabilities, probabilities.shape[-1])
    scores = class_scores(np.moveaxis(probabilities, -1, 1), labels, slices)
    write_json(work / "metrics.json", scores)
    save_classes(work / "holdout.png", images, labels, probabilities.argmax(axis=-1), probabilities.shape[-1], slices)
    return scores


def options() -> argparse.ArgumentParser:
    """The command line of `python predict.py`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("stack", type=Path, metavar="INPUT", help="TIFF stack to segment, gray, any size; for a model "
                        "of nuclei an image, a folder of PNG or TIFF images, or one with <id>/images/<id>.png")
    parser.add_argument("--model", type=Path, default=Path("results/model.keras"), help="the trained model")
    parser.add_argument("--out", type=Path, help="float32 stack, probability of cell (without it prediction.tif), of "
                                                 "nuclei the folder for all images' (without it prediction)")
    parser.add_argument("--instances", type=Path, metavar="FILE", help="write a number for each cell and slice, too")
    parser.add_argument("--panels", action="store_true", help="nuclei: write a picture of each image, too")
    parser.add_argument("--submission", type=Path, metavar="FILE", help="nuclei: write Kaggle's run-length CSV, too")
    parser.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="arithmetic")
    return parser


def segment_stack(args: argparse.Namespace) -> None:
    """Segment the TIFF stack that the command line names."""
    out = args.out or Path("prediction.tif")
    if args.panels or args.submission:
        raise UserError(f"--panels and --submission are for models of nuclei, and {args.model} is none; leave them out")
    notes: list[str] = []
    for path in filter(None, (out, args.instances)):
        check_output(path, 0)
    images = read_images(args.stack, notes, "name the TIFF stack to segment")
    for note in notes:
        print(f"note: {note}")
    print(prepare_device(args.precision))
    model, config = load_model(args.model)
    classes = model.output_shape[-1]
    if classes > 1 and args.instances:
        raise UserError(f"--instances is for models of cells, and {args.model} knows {classes} classes; leave it out")
    write_prediction(model, images, config, out)
    print(f"{out}: probability of {'cell' if classes == 1 else f'{classes} classes, a channel each'}, "
          f"{images.shape[0]} slices of {images.shape[1]}x{images.shape[2]} pixels")
    if args.instances:
        threshold = config.get("threshold", 0.5)  # a run that was stopped has chosen none
        write_instances(out, args.instances, threshold)
        print(f"{args.instances}: a number for each cell and slice, 0 = border, at threshold {threshold:g}")


def segment_nuclei(args: argparse.Namespace) -> None:
    """Segment the image, or the images of the folder, that the command line names."""
    out = args.out or Path("prediction")
    if args.instances:
        raise UserError("--instances is for stacks of cells; of nuclei <name>-labels.tif is written anyway, leave it "
                        "out")
    sources = find_images(args.stack)
    check_folder(out)
    if args.submission:
        check_output(args.submission, 0)
    print(prepare_device(args.precision))
    model, config = load_model(args.model)
    if config.get("kind") != "nuclei":
        raise UserError(f"{args.stack} is a folder, but {args.model} was trained on stacks of slices; name a TIFF "
                        "stack, or a model of nuclei with --model")
    count, notes = write_folder(sources, out, predictor_of(model, config), config["resize"], args.panels,
                                args.submission)
    for note in notes:
        print(f"note: {note}")
    print(f"{out}: probability <name>.tif and instances <name>-labels.tif of {len(sources)} images, {count} nuclei")


def main() -> None:
    args = options().parse_args()
    config = args.model.with_name("config.json")
    of_nuclei = config.is_file() and read_json(config, TRAIN_FIRST).get("kind") == "nuclei"
    (segment_nuclei if of_nuclei or args.stack.is_dir() else segment_stack)(args)


if __name__ == "__main__":
    run(main)
