"""Step 1: more training pairs than were drawn by hand. data/*.tif -> results/augmented/

Geometry (flip, turn and zoom, elastic deformation, crop and symmetric pad) moves image and label by one and the same
draw; intensity (noise, brightness) touches the image alone. Held-out slices are chosen first and never augmented.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

from unet.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import numpy as np
from scipy.sparse import csr_array
from tqdm import tqdm

from unet.inputs.layouts import Layout, layout_of
from unet.inputs.rows import Rows, new_stacks
from unet.inputs.samples import Sample
from unet.tasks import MEANINGS, choose_task
from unet.tasks.task import Options, Page, Task
from unet.training.copies import Job, jobs_of
from unet.training.folder import check_work, run_folder
from unet.training.plan import Settings, announce, plan, stacks_of, write_manifest
from unet.training.unfinished import unfinished
from unet.workers import default_workers, in_order
from utils import Parser, at_least, counted, run

FLIPS = ("none", "vertical", "horizontal", "both")
CORNERS = ("left-bottom", "left-top", "right-bottom", "right-top")


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
    """Displacement field, float32 (2, H, W): clockwise by `angle` degrees and larger by `zoom`, about the middle."""
    y, x = (np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2) for side in shape)
    cosine, sine = np.float32(np.cos(np.radians(angle)) / zoom), np.float32(np.sin(np.radians(angle)) / zoom)
    return np.stack([np.add.outer((cosine - 1) * y, -sine * x), np.add.outer(sine * y, (cosine - 1) * x)])


def warp(image: np.ndarray, field: np.ndarray, order: int = 1) -> np.ndarray:
    """Move (H, W[, C]) by a displacement field (2, h, w) in pixels; (h, w[, C]), dtype kept, mirrored beyond the image.

    A field of another size than the image puts out its upper left part; adding a corner to the field, another part.
    `order` 1 interpolates linearly; 0 takes the nearest pixel, for labels: no new classes. The pixels are those of
    scipy's `map_coordinates` with mode 'mirror' (linear: to one grey level, by rounding) in half its time.
    """
    height, width = image.shape[:2]
    rows, columns = (np.arange(size, dtype=np.float32) for size in field.shape[1:])
    y, x = _folded(field[0] + rows[:, None], height), _folded(field[1] + columns, width)
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
    """Values between four pixels of an image (H, W), the upper left one at `places`, shares of 1 from it."""
    width, pixels = image.shape[1], image.astype(np.float32).ravel()
    upper, lower = pixels.take(places), pixels[width:].take(places)
    upper += (pixels[1:].take(places) - upper) * right
    lower += (pixels[width + 1:].take(places) - lower) * right
    upper += (lower - upper) * down
    return upper.astype(image.dtype) if image.dtype.kind == "f" else (upper + np.float32(0.5)).astype(image.dtype)


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
    """Add normal noise of standard deviation `sd` grey levels to an image; clipped to its dtype's range."""
    return _clipped(image + np.float32(sd) * rng.standard_normal(image.shape, np.float32), image.dtype)


def uniform_noise(image: np.ndarray, intensity: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise drawn evenly from -intensity .. +intensity grey levels to an image; clipped."""
    return _clipped(image + np.float32(intensity) * (2 * rng.random(image.shape, np.float32) - 1), image.dtype)


def brightness(image: np.ndarray, shift: float) -> np.ndarray:
    """Make every pixel `shift` grey levels brighter (darker if negative); clipped."""
    return _clipped(image + np.float32(shift), image.dtype)


def _clipped(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)


# ------------------------------------------------------------------------------------------------- one pair


def augment_pair(image: np.ndarray, label: np.ndarray, rng: np.random.Generator, options: Options,
                 size: tuple[int, int] | None = None, grey_level: float = 1.0) -> Page:
    """One augmented copy of an image (H, W[, C]) and its label (H, W): both arrays and what was done to them.

    The record lists each operation with its drawn parameters, in order, as the manifest keeps it.

    Parameters
    ----------
    size : (height, width) of the middle part that is kept, pixels; all without it. What lies around it is what a turn
        or a deformation brings into it
    grey_level : how much of the image's own range makes one of the grey levels of `options`
    """
    shape = image.shape[:2]
    size = shape if size is None else size
    corner = tuple((full - part) // 2 for full, part in zip(shape, size, strict=True))

    how = str(rng.choice(FLIPS))
    image, label = flip(image, how), flip(label, how)
    record: list[dict] = [{"operation": "flip", "how": how}]

    fields = []
    if rng.random() < options.turn_probability:
        angle, zoom = rng.uniform(*options.angle), rng.uniform(*options.zoom)
        fields.append(turn_field(size, angle, zoom))
        record.append({"operation": "turn and zoom", "angle": round(angle, 3), "zoom": round(zoom, 3)})
    if rng.random() < options.elastic_probability:
        alpha, sigma = rng.uniform(*options.elastic_alpha), rng.uniform(*options.elastic_sigma)
        fields.append(elastic_field(size, alpha, sigma, rng))
        record.append({"operation": "elastic", "alpha": round(alpha, 3), "sigma": round(sigma, 3)})
    if fields:  # added up, so that the pixels are interpolated once
        field = sum(fields) + np.array(corner, np.float32)[:, None, None]
        image, label = warp(image, field), warp(label, field, order=0)  # nearest: no new classes
    else:
        image, label = crop(image, corner, size), crop(label, corner, size)

    if rng.random() < options.crop_probability:
        share = rng.uniform(*options.crop_share)
        part = tuple(max(1, round(side * share)) for side in size)
        where = str(rng.choice([*CORNERS, "random"]))
        place = crop_corner(size, part, where, rng)
        image, label = (symmetric_pad(crop(array, place, part), size, place) for array in (image, label))
        record.append({"operation": "crop and pad", "where": where, "corner": list(place), "size": list(part)})

    image, changes = vary_intensity(image, rng, options, grey_level)
    return image, label, record + changes


def vary_intensity(image: np.ndarray, rng: np.random.Generator, options: Options, grey_level: float
                   ) -> tuple[np.ndarray, list[dict]]:
    """The image with another brightness and perhaps noise, and their record in the grey levels of `options`."""
    shift = rng.uniform(-options.brightness, options.brightness)
    image, record = brightness(image, shift * grey_level), [{"operation": "brightness", "shift": round(shift, 3)}]
    if rng.random() < options.noise_probability:
        if rng.random() < 0.5:
            sd = rng.uniform(*options.gaussian_sd)
            image = gaussian_noise(image, sd * grey_level, rng)
            record.append({"operation": "gaussian noise", "sd": round(sd, 3)})
        else:
            intensity = rng.uniform(*options.uniform_intensity)
            image = uniform_noise(image, intensity * grey_level, rng)
            record.append({"operation": "uniform noise", "intensity": round(intensity, 3)})
    return image, record


@lru_cache(maxsize=1)  # one job after the other is of one sample
def _sample(layout: Layout, number: int) -> Sample:
    return layout[number]


@dataclass(frozen=True)
class Pairs:
    """What pairs are made of, by name, and where they go: a worker process reads and writes them itself."""

    layout: Layout
    task: Task
    manifest: dict  # without its pages
    files: dict[str, Rows]  # images and labels

    def make(self, job: Job) -> tuple[dict[str, int], list[dict]]:
        """Write a job's pages; gives their checksum in each file, and what the manifest keeps of each page."""
        sample, crcs, records = _sample(self.layout, job.sample), dict.fromkeys(self.files, 0), []
        for page, (image, label, record) in enumerate(self.pages(job, sample), job.page):
            for (name, file), array in zip(self.files.items(), (image, label), strict=True):
                crcs[name] = file.write([page], [array], crcs[name])
            records.append({"page": page, "source": job.sample, "name": sample.name, **record})
        return crcs, records

    def pages(self, job: Job, sample: Sample) -> Iterator[Page]:
        """The unchanged pages of a sample, or its augmented one, whose generator is seeded by (seed, sample, copy)."""
        if not job.copy:
            yield from ((image, label, {**where, "operations": []}) for image, label, where in self.task.pages(sample))
            return
        seed = [self.manifest["seed"], job.sample, job.copy]
        rng = np.random.default_rng(seed)
        image, label, where = self.task.window(sample, rng)
        size, grey_level = self.manifest["shape"][1:3], self.task.grey_level(
            self.manifest["sources"][job.sample]["levels"])
        image, label, record = augment_pair(image, label, rng, self.task.options, tuple(size), grey_level)
        yield image, label, {"seed": seed, **where, "operations": record}


# ------------------------------------------------------------------------------------------------- the step


def augment(data: Path, work: Path, settings: Settings) -> dict:
    """Write `work`/augmented/: images.tif, labels.tif (all originals first, then the copies) and manifest.json.

    Returns the manifest. Raises UserError for wrong input, and where `work` has what no run made; the folder is
    replaced as a whole or not at all. What is finished at a stop is kept for the next call with the same to do.
    """
    check_work(work)
    layout = layout_of(data)
    task = choose_task(layout, settings.task, classes=settings.classes, window_side=settings.window,
                       resize=settings.resize)
    manifest = plan(layout, task, settings)
    jobs = jobs_of([(task.page_count(source["shape"]), source["copies"]) for source in manifest["sources"]])
    stacks = stacks_of(manifest, layout, task)
    needed = announce(manifest, task, stacks, settings.copies is None) + 10_000_000
    with unfinished(work / "augmented", "pairs", {"manifest": manifest}, needed, partial(new_stacks, stacks)) as part, \
            layout.unchanged(part.discard):
        pairs, left = Pairs(layout, task, manifest, part.rows), part.left(len(jobs))
        with closing(in_order(pairs.make, [jobs[number] for number in left], settings.workers or default_workers())
                     ) as results:
            bar = tqdm(results, total=len(jobs), initial=len(jobs) - len(left), desc="augmenting", unit="pair",
                       disable=None)
            for number, (crcs, records) in zip(left, bar, strict=True):
                part.add(number, [record["page"] for record in records], crcs, records)
        order = sorted(range(len(jobs)), key=lambda number: jobs[number].page)
        write_manifest(part.folder / "manifest.json", manifest, chain.from_iterable(part.contents(order)))
    return manifest


def options() -> argparse.ArgumentParser:
    """The command line of `python augmentation.py`."""
    parser = Parser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the three TIFF stacks, with "
                        "images/ and labels/ of equal names, or with <id>/images/<id>.png and <id>/masks/*.png")
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder for all that a run makes")
    parser.add_argument("--copies", type=at_least(0, float), help="augmented copies of each training slice, .5 for "
                        "every other one; of images on average, more of rare modalities (without it what training "
                        f"draws, {Task.default_copies} at most, with --resize 0)")
    parser.add_argument("--holdout", help="slices that judge and never train: 25-29, or 3,7,11, or none (without it "
                                          "the last 5; of fewer than 30 slices the last sixth); of images their "
                                          "names' beginnings, with commas (without it a tenth of each modality)")
    side = parser.add_mutually_exclusive_group()
    side.add_argument("--window", type=at_least(16), help="side of windows cut from images, pixels (without it 256)")
    side.add_argument("--resize", type=at_least(16), help="squeeze whole nuclei images to this side, pixels, in place "
                                                          "of cutting windows; 128 goes with --preset nuclei")
    parser.add_argument("--task", choices=MEANINGS, help="what the labels of images/ and labels/ say: 0 = membrane or "
                        "background, classes from 0, or a number for each object (without it what they look like)")
    parser.add_argument("--classes", type=at_least(2), help="kinds of pixels that the labels number from 0 (without it "
                        "cells and what is between them). The later steps know it from here")
    parser.add_argument("--seed", type=at_least(0), default=0, help="same seed, same bytes")
    parser.add_argument("--workers", type=at_least(1), help="processes that augment (without it one a core)")
    return parser


def main() -> None:
    args = vars(options().parse_args())
    data, work = args.pop("data"), args.pop("work")
    with run_folder(work):
        manifest = augment(data, work, Settings(**args))
    layout, split = layout_of(data), manifest["split"]
    count, held_out = len(split["train"]), layout.listed(split["holdout"]) if split["holdout"] else "none"
    print(f"{work / 'augmented'}: {counted(count, layout.noun)} to train on; held out: {held_out}")


if __name__ == "__main__":
    run(main)
