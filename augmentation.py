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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets import choose_holdout, read_dataset
from unet.inputs.folders import is_nuclei_folder, read_nuclei, split_nuclei
from unet.inputs.stacks import stack_writer
from unet.tasks.crops import WindowOptions, augment_window, copies_of_each, squeezed, window_corners, windows
from unet.tasks.transforms import (
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
from utils import UserError, at_least, atomic_folder, input_hash, require_space, run

COPIES = 30  # augmented copies of each slice or image to train on
Pair = tuple[np.ndarray, np.ndarray, list[dict]]  # image, label, and what was done to them


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


def augmented_pairs(images: Sequence, labels: Sequence, tasks: list[tuple[int, int]], seed: int, workers: int,
                    options: object, pair: Callable = augment_pair) -> Iterator[Pair]:
    """Augmented (image, label, record) for each task (slice, copy), in order; the same bytes for any `workers`.

    `pair` makes one of an image, its label, a generator and the options. Each pair has a generator of its own, seeded
    by (seed, slice, copy). At most a few pairs a worker are under way, so memory does not grow with the tasks.
    """
    if workers == 1:
        for source, copy in tasks:
            yield pair(images[source], labels[source], np.random.default_rng((seed, source, copy)), options)
        return
    # spawn behaves alike on Linux, macOS and Windows, and copies no locks of threads that run here
    with ProcessPoolExecutor(workers, get_context("spawn"), _remember, (images, labels, seed, options, pair)) as pool:
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


def _remember(images: Sequence, labels: Sequence, seed: int, options: object, pair: Callable) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer, in one line
    _memory.update(images=images, labels=labels, seed=seed, options=options, pair=pair)


def _augment_task(task: tuple[int, int]) -> Pair:
    rng = np.random.default_rng((_memory["seed"], *task))
    return _memory["pair"](_memory["images"][task[0]], _memory["labels"][task[0]], rng, _memory["options"])


# ------------------------------------------------------------------------------------------------- the step


@dataclass(frozen=True)
class Plan:
    """What step 1 is going to write.

    images, labels : what `pair` makes copies of, by source
    originals : (image, label, record) of each page that is there as it came, in order
    tasks : (source, copy) of each augmented page, in order
    manifest : all that is known beforehand; its `shape` is that of images.tif
    """

    images: Sequence
    labels: Sequence
    originals: Iterable[tuple[np.ndarray, np.ndarray, dict]]
    tasks: list[tuple[int, int]]
    options: object
    pair: Callable
    manifest: dict
    notes: list[str]


def plan_stacks(data: Path, copies: int, holdout: str | None, seed: int, options: Options, classes: int = 1) -> Plan:
    """The plan for a folder of TIFF stacks: all slices, then `copies` of each one to train on."""
    dataset = read_dataset(data, classes)
    images, labels = dataset.images, dataset.labels
    # split first: copies of one slice must not reach the hold-out
    held_out = choose_holdout(len(images), holdout)
    train = [number for number in range(len(images)) if number not in held_out]
    tasks = [(source, copy) for copy in range(1, copies + 1) for source in train]
    shape = (len(images) + len(tasks), *images.shape[1:])
    manifest = {"inputs": dataset.hashes(), "data": str(data.resolve()), "shape": list(shape), "seed": seed,
                "copies": copies, "split": {"train": train, "holdout": held_out}, "options": asdict(options),
                **({"classes": classes} if classes > 1 else {})}
    originals = ((image, label, {"source": source, "operations": []})
                 for source, (image, label) in enumerate(zip(images, labels, strict=True)))
    return Plan(images, labels, originals, tasks, options, augment_pair, manifest, dataset.notes)


def plan_nuclei(data: Path, copies: int, holdout: str | None, seed: int, options: WindowOptions, resize: int | None
                ) -> Plan:
    """The plan for a nuclei folder: windows that cover all images, then augmented ones of those to train on.

    With `resize`, whole images squeezed to that many pixels take the windows' place.
    """
    nuclei, _, notes = read_nuclei(data)
    held_out = split_nuclei([one.name for one in nuclei], [one.kind for one in nuclei], holdout, seed)
    train = [number for number in range(len(nuclei)) if number not in held_out]
    shapes = [list(one.image.shape[:2]) for one in nuclei]
    if resize:
        nuclei, options = [squeezed(one, resize) for one in nuclei], replace(options, side=resize)
    each = copies_of_each(nuclei, train, copies, options.side)
    tasks = [(source, copy) for copy in range(1, max(each) + 1) for source in train if copy <= each[source]]
    pages = sum(len(window_corners(one.image.shape[:2], options.side)) for one in nuclei) + len(tasks)
    manifest = {
        "kind": "nuclei", "inputs": {str((data / one.name).resolve()): input_hash(data / one.name) for one in nuclei},
        "data": str(data.resolve()), "shape": [pages, options.side, options.side, 3], "seed": seed, "copies": copies,
        "resize": resize, "split": {"train": train, "holdout": held_out}, "options": asdict(options),
        "images": [{"name": one.name, "kind": one.kind, "shape": shape, "levels": one.levels, "copies": count}
                   for one, shape, count in zip(nuclei, shapes, each, strict=True)]}
    return Plan(nuclei, [one.labels for one in nuclei], windows(nuclei, options.side), tasks, options, augment_window,
                manifest, notes)


def augment(data: Path, work: Path, copies: int | None = None, holdout: str | None = None, seed: int = 0,
            workers: int | None = None, options: Options | WindowOptions | None = None, resize: int | None = None,
            classes: int = 1) -> dict:
    """Write `work`/augmented/: images.tif, labels.tif (all originals first, then the copies) and manifest.json.

    Returns the manifest. Raises UserError for wrong input; the folder is replaced as a whole or not at all.
    """
    data = Path(data)
    if copies is None:
        copies = 0 if resize else COPIES  # squeezed images are those of a recipe that augments nothing
    if copies < 0 or seed < 0:
        raise UserError("--copies and --seed must be 0 or more")
    if is_nuclei_folder(data):
        if classes > 1:
            raise UserError(f"--classes is for TIFF stacks, and {data} is a nuclei folder; leave it out")
        plan = plan_nuclei(data, copies, holdout, seed, options or WindowOptions(), resize)
    elif resize:
        raise UserError(f"--resize squeezes the images of a nuclei folder, and {data} is none; leave it out")
    else:
        plan = plan_stacks(data, copies, holdout, seed, options or Options(), classes)
    for note in plan.notes:
        print(f"note: {note}")
    pixels, channels = int(np.prod(plan.manifest["shape"][:3])), plan.manifest["shape"][3:] or [1]
    require_space(work, pixels * (channels[0] + plan.labels[0].itemsize) + 10_000_000)
    pairs = augmented_pairs(plan.images, plan.labels, plan.tasks, seed, workers or default_workers(), plan.options,
                            plan.pair)
    with atomic_folder(work / "augmented") as folder, closing(pairs):
        _write_pairs(folder, plan, tqdm(pairs, total=len(plan.tasks), desc="augmenting", unit="pair", disable=None))
    return plan.manifest


def _write_pairs(folder: Path, plan: Plan, pairs: Iterable[Pair]) -> None:
    """Write images.tif, labels.tif and manifest.json one sample after the other, so that none has to be remembered."""
    manifest = plan.manifest
    shape, names = manifest["shape"], [image["name"] for image in manifest.get("images", [])]

    def copies() -> Iterator[tuple[np.ndarray, np.ndarray, dict]]:
        for (source, copy), (image, label, done) in zip(plan.tasks, pairs, strict=True):
            name = {"name": names[source]} if names else {}
            yield image, label, {"source": source, **name, "seed": [manifest["seed"], source, copy],
                                 "operations": done}

    with (stack_writer(folder / "images.tif", shape, np.uint8) as write_image,
          stack_writer(folder / "labels.tif", shape[:3], plan.labels[0].dtype) as write_label,
          open(folder / "manifest.json", "w") as file):
        file.write(json.dumps(manifest, indent=1)[:-2] + ',\n "samples": [')
        for page, (image, label, record) in enumerate(chain(plan.originals, copies())):
            write_image(image)
            write_label(label)
            file.write(("," if page else "") + "\n  " + json.dumps({"page": page, **record}))
        file.write("\n ]\n}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"),
                        help="folder with the three TIFF stacks, or with <id>/images/<id>.png and <id>/masks/*.png")
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder for all that a run makes")
    parser.add_argument("--copies", type=at_least(0),
                        help="augmented copies of each training slice; of nuclei images on average, more of rare "
                             f"kinds (without it {COPIES}, with --resize 0)")
    parser.add_argument("--holdout", help="slices that judge and never train: 25-29, or 3,7,11, or none (without it "
                                          "the last 5; of fewer than 30 slices the last sixth); of nuclei images their "
                                          "names' beginnings, with commas (without it a tenth of each kind)")
    parser.add_argument("--window", type=at_least(16), help="side of the windows cut from nuclei images, pixels "
                                                            f"(without it {WindowOptions.side})")
    parser.add_argument("--resize", type=at_least(16), help="squeeze whole nuclei images to this side, pixels, in "
                                                            "place of cutting windows; 128 goes with --preset nuclei")
    parser.add_argument("--classes", type=at_least(1), default=1, help="kinds of pixels that the labels number "
                        "from 0; 1 = cells and what is between them. The later steps know it from here")
    parser.add_argument("--seed", type=at_least(0), default=0, help="same seed, same bytes")
    parser.add_argument("--workers", type=at_least(1), help="processes that augment (without it one a core)")
    args = parser.parse_args()
    if args.window and not is_nuclei_folder(args.data):
        raise UserError(f"--window is for the images of a nuclei folder, and {args.data} is none; leave it out")
    options = WindowOptions(side=args.window) if args.window else None
    manifest = augment(args.data, args.work, args.copies, args.holdout, args.seed, args.workers, options, args.resize,
                       args.classes)
    split, images = manifest["split"], manifest.get("images")
    what = "images" if images else "slices"
    held_out = [images[number]["name"][:8] for number in split["holdout"]] if images else split["holdout"]
    print(f"{args.work / 'augmented'}: {manifest['shape'][0]} pairs, {len(split['train'])} {what} to train on with "
          f"{manifest['copies']} copies each{' on average' * bool(images)}, {len(held_out)} held out "
          f"({held_out or 'none'})")


if __name__ == "__main__":
    run(main)
