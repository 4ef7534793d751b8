"""Step 1: more training pairs than were drawn by hand. data/*.tif -> results/augmented/

Geometry (flip, turn and zoom, elastic deformation, crop and symmetric pad) moves image and label by one and the same
draw; intensity (noise, brightness) touches the image alone. Held-out slices are chosen first and never augmented.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets import Dataset, choose_holdout, read_dataset
from stacks import stack_writer
from transforms import (
    CORNERS,
    FLIPS,
    brightness,
    crop,
    crop_corner,
    elastic_field,
    flip,
    gaussian_noise,
    symmetric_pad,
    turn_field,
    uniform_noise,
    warp,
)
from utils import UserError, at_least, atomic_folder, require_space, run


@dataclass(frozen=True)
class Options:
    """What is drawn for each copy; a range is (least, most), drawn uniformly."""

    turn_probability: float = 0.7
    angle: tuple[float, float] = (-180.0, 180.0)  # rotation, degrees
    zoom: tuple[float, float] = (0.8, 1.25)  # magnification; other microscopes have other pixels
    elastic_probability: float = 0.8
    elastic_alpha: tuple[float, float] = (2.0, 5.0)  # root mean square displacement along each axis, pixels
    elastic_sigma: tuple[float, float] = (24.0, 48.0)  # smoothness of the deformation, pixels
    crop_probability: float = 0.1
    crop_share: tuple[float, float] = (0.6, 0.9)  # side of the crop, share of the image's
    brightness: float = 15.0  # at most this shift up or down, grey levels
    noise_probability: float = 0.25  # Gaussian or uniform, either as likely
    gaussian_sd: tuple[float, float] = (1.0, 6.0)  # standard deviation, grey levels
    uniform_intensity: tuple[float, float] = (2.0, 10.0)  # largest change, grey levels


# ------------------------------------------------------------------------------------------------- one pair


def augment_pair(image: np.ndarray, label: np.ndarray, rng: np.random.Generator, options: Options
                 ) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """One augmented copy of an image (H, W[, C]) and its label (H, W): both arrays and what was done to them.

    The record lists each operation with its drawn parameters, in order, as the manifest keeps it.
    """
    shape = image.shape[:2]
    done: list[dict] = []

    how = str(rng.choice(FLIPS))
    image, label = flip(image, how), flip(label, how)
    done.append({"operation": "flip", "how": how})

    fields = []
    if rng.random() < options.turn_probability:
        angle, zoom = rng.uniform(*options.angle), rng.uniform(*options.zoom)
        fields.append(turn_field(shape, angle, zoom))
        done.append({"operation": "turn and zoom", "angle": round(angle, 3), "zoom": round(zoom, 3)})
    if rng.random() < options.elastic_probability:
        alpha, sigma = rng.uniform(*options.elastic_alpha), rng.uniform(*options.elastic_sigma)
        fields.append(elastic_field(shape, alpha, sigma, rng))
        done.append({"operation": "elastic", "alpha": round(alpha, 3), "sigma": round(sigma, 3)})
    if fields:
        field = sum(fields)  # added up, so that the pixels are interpolated once
        image, label = warp(image, field), warp(label, field, order=0)  # nearest: no new classes

    if rng.random() < options.crop_probability:
        share = rng.uniform(*options.crop_share)
        size = tuple(max(1, round(side * share)) for side in shape)
        where = str(rng.choice([*CORNERS, "random"]))
        corner = crop_corner(shape, size, where, rng)
        image, label = (symmetric_pad(crop(array, corner, size), shape, corner) for array in (image, label))
        done.append({"operation": "crop and pad", "where": where, "corner": list(corner), "size": list(size)})

    shift = rng.uniform(-options.brightness, options.brightness)
    image = brightness(image, shift)
    done.append({"operation": "brightness", "shift": round(shift, 3)})

    if rng.random() < options.noise_probability:
        if rng.random() < 0.5:
            sd = rng.uniform(*options.gaussian_sd)
            image = gaussian_noise(image, sd, rng)
            done.append({"operation": "gaussian noise", "sd": round(sd, 3)})
        else:
            intensity = rng.uniform(*options.uniform_intensity)
            image = uniform_noise(image, intensity, rng)
            done.append({"operation": "uniform noise", "intensity": round(intensity, 3)})
    return image, label, done


# ----------------------------------------------------------------------------------------------- many pairs


def augmented_pairs(images: np.ndarray, labels: np.ndarray, tasks: list[tuple[int, int]], seed: int,
                    workers: int, options: Options) -> Iterator[tuple[np.ndarray, np.ndarray, list[dict]]]:
    """Augmented (image, label, record) for each task (slice, copy), in order; the same bytes for any `workers`.

    Each pair has a generator of its own, seeded by (seed, slice, copy). At most a few pairs a worker are under way, so
    memory does not grow with the number of tasks.
    """
    if workers == 1:
        for source, copy in tasks:
            yield augment_pair(images[source], labels[source], np.random.default_rng((seed, source, copy)), options)
        return
    # spawn behaves alike on Linux, macOS and Windows, and copies no locks of threads that run here
    with ProcessPoolExecutor(workers, get_context("spawn"), _remember, (images, labels, seed, options)) as pool:
        waiting: deque = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(_augment_task, task))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError("a worker process was ended from outside, mostly for want of memory; try --workers 1") \
                from None
        finally:
            for future in waiting:
                future.cancel()


def default_workers() -> int:
    """One process for each core that this process may use; Windows allows 61 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 61)


_memory: dict = {}  # what a worker process works on, handed over once when it starts


def _remember(images: np.ndarray, labels: np.ndarray, seed: int, options: Options) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer, in one line
    _memory.update(images=images, labels=labels, seed=seed, options=options)


def _augment_task(task: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    rng = np.random.default_rng((_memory["seed"], *task))
    return augment_pair(_memory["images"][task[0]], _memory["labels"][task[0]], rng, _memory["options"])


def augment(data: Path, work: Path, copies: int = 30, holdout: str | None = None, seed: int = 0,
            workers: int | None = None, options: Options | None = None) -> dict:
    """Write `work`/augmented/: images.tif, labels.tif (all originals first, then the copies) and manifest.json.

    Returns the manifest. Raises UserError for wrong input; the folder is replaced as a whole or not at all.
    """
    options = options or Options()
    if copies < 0 or seed < 0:
        raise UserError("--copies and --seed must be 0 or more")
    dataset = read_dataset(data)
    for note in dataset.notes:
        print(f"note: {note}")
    images, labels = dataset.images, dataset.labels
    # split first: copies of one slice must not reach the hold-out
    held_out = choose_holdout(len(images), holdout)
    train = [number for number in range(len(images)) if number not in held_out]
    tasks = [(source, copy) for copy in range(1, copies + 1) for source in train]
    shape = (len(images) + len(tasks), *images.shape[1:])
    require_space(work, 2 * int(np.prod(shape)) + 10_000_000)
    manifest = {"inputs": dataset.hashes(), "data": str(data.resolve()), "shape": list(shape), "seed": seed,
                "copies": copies, "split": {"train": train, "holdout": held_out}, "options": asdict(options)}
    pairs = augmented_pairs(images, labels, tasks, seed, workers or default_workers(), options)
    with atomic_folder(work / "augmented") as folder, closing(pairs):
        _write_pairs(folder, dataset, tasks, tqdm(pairs, total=len(tasks), desc="augmenting", unit="pair",
                                                  disable=None), manifest)
    return manifest


def _write_pairs(folder: Path, dataset: Dataset, tasks: list[tuple[int, int]],
                 pairs: Iterable[tuple[np.ndarray, np.ndarray, list[dict]]], manifest: dict) -> None:
    """Write images.tif, labels.tif and manifest.json one sample after the other, so that none has to be remembered."""
    shape = manifest["shape"]
    with (stack_writer(folder / "images.tif", shape, dataset.images.dtype) as write_image,
          stack_writer(folder / "labels.tif", shape[:3], dataset.labels.dtype) as write_label,
          open(folder / "manifest.json", "w") as file):
        file.write(json.dumps(manifest, indent=1)[:-2] + ',\n "samples": [')
        for page, (image, label) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
            write_image(image)
            write_label(label)
            file.write(("," if page else "") + "\n  " + json.dumps({"page": page, "source": page, "operations": []}))
        first = len(dataset.images)
        for page, ((source, copy), (image, label, done)) in enumerate(zip(tasks, pairs, strict=True), first):
            write_image(image)
            write_label(label)
            sample = {"page": page, "source": source, "seed": [manifest["seed"], source, copy], "operations": done}
            file.write(",\n  " + json.dumps(sample))
        file.write("\n ]\n}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the three TIFF stacks")
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder for all that a run makes")
    parser.add_argument("--copies", type=at_least(0), default=30, help="augmented copies of each training slice")
    parser.add_argument("--holdout", help="slices that judge and never train: 25-29, or 3,7,11, or none "
                                          "(without it the last 5; of fewer than 30 slices the last sixth)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="same seed, same bytes")
    parser.add_argument("--workers", type=at_least(1), help="processes that augment (without it one a core)")
    args = parser.parse_args()
    manifest = augment(args.data, args.work, args.copies, args.holdout, args.seed, args.workers)
    split = manifest["split"]
    print(f"{args.work / 'augmented'}: {manifest['shape'][0]} pairs, {len(split['train'])} slices to train on with "
          f"{args.copies} copies each, {len(split['holdout'])} held out ({split['holdout'] or 'none'})")


if __name__ == "__main__":
    run(main)
