"""Measure how well a network transfers: python tests/bench.py transfer --model results/model.keras --data data

Held-out slices are disturbed in one way at a time, as another laboratory's microscope, sections or stain would, and
predicted as in the run's final step. The scores are those of ISBI 2012 at the best threshold, against the original
labels: magnified predictions are brought back to the original size after walls are drawn. A network that works on other
laboratories' images loses little in each row.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.transform import resize

from unet.engines.engines import open_engine
from unet.engines.predictor import make_predictor
from unet.inputs.layouts import layout_of
from unet.scores.isbi import isbi_scores
from unet.segment.judge import neighbouring
from unet.tasks import task_of
from unet.training.trained import read_config
from utils import UserError

Stack = np.ndarray  # float64 (N, H, W), grey levels 0 to 255
Disturbance = Callable[[Stack, np.ndarray, np.random.Generator], Stack]  # of images and of labels, 0 = membrane


def magnify(images: Stack, factor: float) -> Stack:
    """Return slices (N, H, W) as a microscope of `factor` times the magnification would show them."""
    size = [round(side * factor) for side in images.shape[1:]]
    return np.stack([resize(image, size, order=1, anti_aliasing=factor < 1, preserve_range=True) for image in images])


def thicken(images: Stack) -> Stack:
    """Return sections of twice the thickness: each is the mean of itself and the next, the last with the one before."""
    following = np.concatenate([images[1:], images[-2:-1]])
    return (images + following) / 2


def stain(images: Stack, labels: np.ndarray, rng: np.random.Generator, strength: float = 60.0) -> Stack:
    """Darken the inside of cells in patches of 10 pixels by up to `strength` grey levels; membranes stay."""
    result = images.copy()
    for image, label in zip(result, labels, strict=True):
        patches = gaussian_filter(rng.standard_normal(image.shape), 5)
        inside = np.clip(distance_transform_edt(label > 0) / 6, 0, 1)  # gradually, over 6 pixels from the membrane
        image -= strength * inside * np.clip(patches / patches.std(), 0, 2) / 2
    return result


def contrast(factor: float) -> Disturbance:
    return lambda images, labels, rng: images.mean() + factor * (images - images.mean())


def gamma(exponent: float) -> Disturbance:
    return lambda images, labels, rng: 255 * (np.clip(images, 0, 255) / 255) ** exponent


def noise(sd: float) -> Disturbance:
    return lambda images, labels, rng: images + rng.normal(0, sd, images.shape)


def blur(sigma: float) -> Disturbance:
    return lambda images, labels, rng: gaussian_filter(images, (0, sigma, sigma))


def magnification(factor: float) -> Disturbance:
    return lambda images, labels, rng: magnify(images, factor)


BATTERY: dict[str, Disturbance] = {
    "as they are": lambda images, labels, rng: images,
    **{f"magnified x {factor}": magnification(factor) for factor in (0.7, 0.85, 1.2, 1.4)},
    **{f"contrast x {factor}": contrast(factor) for factor in (0.4, 0.7)},
    **{f"gamma {exponent}": gamma(exponent) for exponent in (0.5, 2.0)},
    **{f"noise, sd {sd} grey levels": noise(sd) for sd in (15, 30)},
    **{f"blur, sigma {sigma} pixels": blur(sigma) for sigma in (1, 2)},
    "sections twice as thick": lambda images, labels, rng: thicken(images),
    "inside of cells stained": stain,
}


def disturb(name: str, images: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Disturb slices by `name` of the battery; uint8 (N, H', W'), the same for the same seed."""
    result = BATTERY[name](images.astype(np.float64), labels, np.random.default_rng(seed))
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def bench_transfer(args: argparse.Namespace) -> None:
    """Print V_rand and V_info of held-out slices, without and with walls, for each disturbance, and their means."""
    if not args.model:
        raise UserError("name the trained network with --model")
    config = read_config(args.model)
    task, numbers = task_of(config), config["split"]["holdout"]
    if task.name != "cells" or not config.get("learnt") or not numbers:
        raise UserError(f"{args.model}: expected a finished run on cells with held-out slices")
    layout = layout_of(args.data or Path(config["data"]))
    samples = [layout[number] for number in numbers]
    images, labels = (np.stack([getattr(sample, part) for sample in samples]) for part in ("image", "label"))
    if images.dtype != np.uint8:
        raise UserError("the disturbances need images of 8 bits; name such a stack with --data")
    engine, words = open_engine(args.model, args.engine)
    predictor, rows = make_predictor(engine, config), []
    print(f"{words}; slices {numbers[0]}-{numbers[-1]}, {predictor.describe()}; best threshold\n"
          f"{'':28} V_rand raw  V_info raw  V_rand walls  V_info walls")
    for name in BATTERY:
        probabilities = [predictor(image) for image in disturb(name, images, labels)]
        walls = [task.redraw(probability, config["learnt"], neighbouring(probabilities, number))
                 for number, probability in enumerate(probabilities)]
        rows.append([score for maps in (probabilities, walls) for score in best(maps, labels)])
        print(f"{name:28} " + "".join(f"{score:<12.4f}" for score in rows[-1]), flush=True)
    print(f"{'mean of disturbed slices':28} " + "".join(f"{score:<12.4f}" for score in np.mean(rows[1:], axis=0)))


def best(maps: list[np.ndarray], labels: np.ndarray) -> tuple[float, float]:
    """Compute V_rand and V_info at the best threshold; `maps` of any size are resized to that of labels (N, H, W)."""
    scores = isbi_scores([one if one.shape == label.shape else resize(one, label.shape, order=1)
                          for one, label in zip(maps, labels, strict=True)], list(labels))
    return scores["best"]["V_rand"]["V_rand"], scores["best"]["V_info"]["V_info"]
