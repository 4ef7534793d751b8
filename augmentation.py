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
from scipy.sparse import csr_array
from tqdm import tqdm

from datasets import Dataset, choose_holdout, read_dataset
from stacks import stack_writer
from utils import UserError, at_least, atomic_folder, require_space, run

FLIPS = ("none", "vertical", "horizontal", "both")
CORNERS = ("left-bottom", "left-top", "right-bottom", "right-top")


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


# ---------------------------------------------------------------------------------- geometry: image and label


def flip(image: np.ndarray, how: str) -> np.ndarray:
    """Flip (H, W[, C]): 'vertical' turns it upside down, 'horizontal' left to right, 'both', or 'none'."""
    if how not in FLIPS:
        raise ValueError(f"flip {how!r}, expected one of {', '.join(FLIPS)}")
    step_y = -1 if how in ("vertical", "both") else 1
    step_x = -1 if how in ("horizontal", "both") else 1
    return image[::step_y, ::step_x]


def elastic_field(shape: tuple[int, int], alpha: float, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random displacement field, float32 (2, H, W): for each output pixel, where to look, dy and dx in pixels.

    White noise smoothed by a Gaussian (Simard et al. 2003, section 2), drawn on a grid `sigma` apart, which is as fine
    as such a field varies, and scaled so that each component has standard deviation `alpha` in every place.

    Parameters
    ----------
    shape : (height, width), pixels
    alpha : root mean square displacement along each axis, pixels
    sigma : standard deviation of the smoothing Gaussian, pixels; larger is smoother
    """
    def spread(size: int) -> csr_array:
        knots = np.arange(-4 * sigma, size + 4 * sigma, sigma)
        distance = (np.arange(size)[:, None] - knots) / sigma
        basis = np.where(abs(distance) < 4, np.exp(-0.5 * distance**2), 0)
        return csr_array((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))

    # sparse, as only the nine nearest knots count; and a dense product's BLAS threads would fight the other workers
    down, across = spread(shape[0]), spread(shape[1])
    noise = rng.standard_normal((2, down.shape[1], across.shape[1]), np.float32)
    return np.stack([down @ (across @ component.T).T for component in np.float32(alpha) * noise])


def turn_field(shape: tuple[int, int], angle: float, zoom: float) -> np.ndarray:
    """Displacement field, float32 (2, H, W), that turns by `angle` degrees and magnifies by `zoom` about the middle."""
    y, x = (np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2) for side in shape)
    cosine, sine = np.float32(np.cos(np.radians(angle)) / zoom), np.float32(np.sin(np.radians(angle)) / zoom)
    return np.stack([np.add.outer((cosine - 1) * y, -sine * x), np.add.outer(sine * y, (cosine - 1) * x)])


def warp(image: np.ndarray, field: np.ndarray, order: int = 1) -> np.ndarray:
    """Move (H, W[, C]) by a displacement field (2, H, W) in pixels; dtype kept, mirrored beyond the image.

    `order` 1 interpolates linearly, for integer images; 0 takes the nearest pixel, for labels: no new classes. The
    pixels are those of scipy's `map_coordinates` with mode 'mirror' (linear: to one grey level, by rounding) in half
    its time.
    """
    height, width = image.shape[:2]
    y = _folded(field[0] + np.arange(height, dtype=np.float32)[:, None], height)
    x = _folded(field[1] + np.arange(width, dtype=np.float32), width)
    if order == 0 or min(height, width) < 2:
        places = np.rint(y).astype(np.int32) * width + np.rint(x).astype(np.int32)
        return image.reshape(height * width, *image.shape[2:]).take(places, axis=0)
    top, left = np.minimum(y.astype(np.int32), height - 2), np.minimum(x.astype(np.int32), width - 2)
    y -= top
    x -= left
    places = top * width + left
    channels = [_interpolated(image[..., c], places, y, x) for c in range(image.shape[2])] if image.ndim == 3 else None
    return _interpolated(image, places, y, x) if channels is None else np.stack(channels, axis=-1)


def _interpolated(image: np.ndarray, places: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Values between four pixels of an integer image (H, W), the upper left one at `places`, shares of 1 from it."""
    width, pixels = image.shape[1], image.astype(np.float32).ravel()
    upper, lower = pixels.take(places), pixels[width:].take(places)
    upper += (pixels[1:].take(places) - upper) * right
    lower += (pixels[width + 1:].take(places) - lower) * right
    upper += (lower - upper) * down
    return (upper + np.float32(0.5)).astype(image.dtype)


def _folded(index: np.ndarray, size: int) -> np.ndarray:
    """Coordinates mirrored into 0 .. size-1 at the first and last pixel."""
    last = np.float32(size - 1)
    if not last:
        return np.zeros_like(index)
    if index.min() < -last or index.max() > 2 * last:  # farther than one mirror image
        index = (index + last) % (2 * last) - last
    return last - np.abs(last - np.abs(index))


def crop_corner(shape: tuple[int, int], size: tuple[int, int], where: str, rng: np.random.Generator | None = None
                ) -> tuple[int, int]:
    """Upper left corner (y, x) of a crop of `size` pixels in an image of `shape`: at a named corner, or 'random'."""
    room_y, room_x = shape[0] - size[0], shape[1] - size[1]
    if min(room_y, room_x) < 0:
        raise ValueError(f"a crop of {size} does not fit an image of {shape}")
    if where == "random":
        if rng is None:
            raise ValueError("a random crop needs a generator")
        return int(rng.integers(room_y + 1)), int(rng.integers(room_x + 1))
    if where not in CORNERS:
        raise ValueError(f"crop at {where!r}, expected random or one of {', '.join(CORNERS)}")
    return room_y if where.endswith("bottom") else 0, room_x if where.startswith("right") else 0


def crop(image: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Cut `size` (height, width) out of (H, W[, C]) at `corner` (y, x), pixels."""
    return image[corner[0]:corner[0] + size[0], corner[1]:corner[1] + size[1]]


def symmetric_pad(image: np.ndarray, shape: tuple[int, int], corner: tuple[int, int]) -> np.ndarray:
    """Pad (h, w[, C]) to `shape` (H, W), with the image at `corner` (y, x) and its mirror image all around it."""
    widths = [(start, full - start - side) for start, full, side in zip(corner, shape, image.shape[:2], strict=True)]
    if min(min(pair) for pair in widths) < 0:
        raise ValueError(f"an image of {image.shape[:2]} at {corner} reaches beyond {shape}")
    return np.pad(image, widths + [(0, 0)] * (image.ndim - 2), mode="symmetric")


# -------------------------------------------------------------------------------------- intensity: image alone


def gaussian_noise(image: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise of standard deviation `sd` grey levels to a uint8 or uint16 image; clipped, dtype kept."""
    return _clipped(image + np.float32(sd) * rng.standard_normal(image.shape, np.float32), image.dtype)


def uniform_noise(image: np.ndarray, intensity: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise drawn evenly from -intensity .. +intensity grey levels to an image; clipped, dtype kept."""
    return _clipped(image + np.float32(intensity) * (2 * rng.random(image.shape, np.float32) - 1), image.dtype)


def brightness(image: np.ndarray, shift: float) -> np.ndarray:
    """Make every pixel `shift` grey levels brighter (darker if negative); clipped, dtype kept."""
    return _clipped(image + np.float32(shift), image.dtype)


def _clipped(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)


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
