"""Step 1: make more training pairs than were labelled by hand. data/*.tif -> results/augmented/

Geometry (flip, turn and zoom, elastic deformation, crop and symmetric pad) changes image and label in the same way;
intensity (noise, brightness) changes only the image. Held-out slices are chosen first and never augmented.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

from unet.system.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import numpy as np
from scipy.sparse import csr_array
from tqdm import tqdm

from unet.inputs.layouts import Layout, layout_of
from unet.inputs.rows import Rows, new_stacks
from unet.inputs.samples import Sample
from unet.system.workers import default_workers, in_order
from unet.tasks import MEANINGS
from unet.tasks.task import Options, Page, Task
from unet.training.copies import Job, jobs_of
from unet.training.folder import check_work, run_folder
from unet.training.plan import Settings, announce, plan, stacks_of, task_for, write_manifest
from unet.training.unfinished import unfinished
from utils import Parser, at_least, count_of, mirror, run

FLIPS = ("none", "vertical", "horizontal", "both")
CORNERS = ("left-bottom", "left-top", "right-bottom", "right-top")


# ---------------------------------------------------------------------------------- geometry: image and label


def flip(image: np.ndarray, how: str) -> np.ndarray:
    """Flip (H, W[, C]): 'vertical' swaps top and bottom, 'horizontal' left and right, or 'both', or 'none'."""
    if how not in FLIPS:
        raise ValueError(f"flip {how!r}, expected one of {', '.join(FLIPS)}")
    step_y = -1 if how in ("vertical", "both") else 1
    step_x = -1 if how in ("horizontal", "both") else 1
    return image[::step_y, ::step_x]


def elastic_field(shape: tuple[int, int], alpha: float, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth random displacement field, float32 (2, H, W): where each output pixel looks, dy and dx in pixels.

    White noise smoothed by a Gaussian (Simard et al. 2003, section 2). The noise is drawn on a grid with spacing
    `sigma`, as the field varies no faster, and scaled: each component has standard deviation `alpha` everywhere.

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

    # sparse: at most the eight nearest knots count, and a dense product's BLAS threads would compete with other workers
    down, across = spread(shape[0]), spread(shape[1])
    noise = rng.standard_normal((2, down.shape[1], across.shape[1]), np.float32)
    return np.stack([down @ (across @ component.T).T for component in np.float32(alpha) * noise])


def turn_field(shape: tuple[int, int], angle: float, zoom: float) -> np.ndarray:
    """Return the field, float32 (2, H, W), of a clockwise turn by `angle` degrees and a `zoom`, about the middle."""
    y, x = (np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2) for side in shape)
    cosine, sine = np.float32(np.cos(np.radians(angle)) / zoom), np.float32(np.sin(np.radians(angle)) / zoom)
    return np.stack([np.add.outer((cosine - 1) * y, -sine * x), np.add.outer(sine * y, (cosine - 1) * x)])


def warp(image: np.ndarray, field: np.ndarray, order: int = 1) -> np.ndarray:
    """Warp (H, W[, C]) by a displacement field (2, h, w) in pixels: (h, w[, C]) of its dtype, mirrored at the edges.

    A field smaller than the image gives its upper left part; add a corner to the field for another part. `order` 1
    interpolates linearly; 0 takes the nearest pixel, for labels: no new classes. The pixels are those of scipy's
    `map_coordinates` with mode 'mirror' (linear: within one grey level, by rounding) in half its time.
    """
    height, width = image.shape[:2]
    rows, columns = (np.arange(size, dtype=np.float32) for size in field.shape[1:])
    y, x = mirror(field[0] + rows[:, None], height), mirror(field[1] + columns, width)
    if order == 0 or min(height, width) < 2:
        indices = np.rint(y).astype(np.int32) * width + np.rint(x).astype(np.int32)
        return image.reshape(height * width, *image.shape[2:]).take(indices, axis=0)
    top, left = np.minimum(y.astype(np.int32), height - 2), np.minimum(x.astype(np.int32), width - 2)
    y -= top
    x -= left
    indices = top * width + left
    if image.ndim == 2:
        return _interpolate(image, indices, y, x)
    return np.stack([_interpolate(channel, indices, y, x) for channel in np.moveaxis(image, -1, 0)], axis=-1)


def _interpolate(image: np.ndarray, indices: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Interpolate between four pixels of an image (H, W): `indices` of the upper left one, 0 .. 1 down and right."""
    width, pixels = image.shape[1], image.astype(np.float32).ravel()
    upper, lower = pixels.take(indices), pixels[width:].take(indices)
    upper += (pixels[1:].take(indices) - upper) * right
    lower += (pixels[width + 1:].take(indices) - lower) * right
    upper += (lower - upper) * down
    return upper.astype(image.dtype) if image.dtype.kind == "f" else (upper + np.float32(0.5)).astype(image.dtype)


def crop_corner(shape: tuple[int, int], size: tuple[int, int], where: str, rng: np.random.Generator | None = None
                ) -> tuple[int, int]:
    """Return the upper left (y, x) of a crop of `size` pixels in an image of `shape`: at a named corner or 'random'."""
    last_y, last_x = shape[0] - size[0], shape[1] - size[1]
    if min(last_y, last_x) < 0:
        raise ValueError(f"a crop of {size} does not fit an image of {shape}")
    if where == "random":
        return int(rng.integers(last_y + 1)), int(rng.integers(last_x + 1))
    if where not in CORNERS:
        raise ValueError(f"crop at {where!r}, expected random or one of {', '.join(CORNERS)}")
    return last_y if where.endswith("bottom") else 0, last_x if where.startswith("right") else 0


def crop(image: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Cut `size` (height, width) out of (H, W[, C]) at `corner` (y, x), pixels."""
    return image[corner[0]:corner[0] + size[0], corner[1]:corner[1] + size[1]]


def symmetric_pad(image: np.ndarray, shape: tuple[int, int], corner: tuple[int, int]) -> np.ndarray:
    """Pad (h, w[, C]) to `shape` (H, W), with the image at `corner` (y, x) and its mirror image all around it."""
    widths = [(start, full - start - side) for start, full, side in zip(corner, shape, image.shape[:2], strict=True)]
    if min(min(pair) for pair in widths) < 0:
        raise ValueError(f"an image of {image.shape[:2]} at {corner} reaches beyond {shape}")
    return np.pad(image, widths + [(0, 0)] * (image.ndim - 2), mode="symmetric")


# --------------------------------------------------------------------------------------- intensity: only the image


def gaussian_noise(image: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise of standard deviation `sd` grey levels to an image; clip to its dtype's range."""
    return _clip(image + np.float32(sd) * rng.standard_normal(image.shape, np.float32), image.dtype)


def uniform_noise(image: np.ndarray, intensity: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise, uniform in -intensity .. +intensity grey levels, to an image; clip to its dtype's range."""
    return _clip(image + np.float32(intensity) * (2 * rng.random(image.shape, np.float32) - 1), image.dtype)


def brightness(image: np.ndarray, shift: float) -> np.ndarray:
    """Make every pixel `shift` grey levels brighter (darker if negative); clip to the image's dtype's range."""
    return _clip(image + np.float32(shift), image.dtype)


def _clip(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)


# ------------------------------------------------------------------------------------------------- one pair


def augment_pair(image: np.ndarray, label: np.ndarray, rng: np.random.Generator, options: Options,
                 size: tuple[int, int] | None = None, grey_level: float = 1.0) -> tuple[np.ndarray, np.ndarray, list]:
    """Make an augmented copy of an image (H, W[, C]) and its label (H, W); return both, and a record for the manifest.

    The record lists each operation with its random parameters, in order.

    Parameters
    ----------
    size : (height, width) of the middle part that is returned, pixels (default: all). The pixels around it are what a
        turn or a deformation moves into it
    grey_level : how many of the image's own grey levels make one of those of `options`
    """
    size = size or image.shape[:2]
    corner = tuple((full - part) // 2 for full, part in zip(image.shape[:2], size, strict=True))

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
    if fields:  # their sum, so that the pixels are interpolated once
        field = sum(fields) + np.array(corner, np.float32)[:, None, None]
        image, label = warp(image, field), warp(label, field, order=0)  # nearest: no new classes
    else:
        image, label = crop(image, corner, size), crop(label, corner, size)

    if rng.random() < options.crop_probability:
        share = rng.uniform(*options.crop_share)
        part = tuple(max(1, round(side * share)) for side in size)
        where = str(rng.choice([*CORNERS, "random"]))
        start = crop_corner(size, part, where, rng)
        image, label = (symmetric_pad(crop(array, start, part), size, start) for array in (image, label))
        record.append({"operation": "crop and pad", "where": where, "corner": list(start), "size": list(part)})

    image, changes = vary_intensity(image, rng, options, grey_level)
    return image, label, record + changes


def vary_intensity(image: np.ndarray, rng: np.random.Generator, options: Options, grey_level: float
                   ) -> tuple[np.ndarray, list[dict]]:
    """Change an image's brightness and perhaps add noise; return it with a record in the grey levels of `options`."""
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


@lru_cache(maxsize=1)  # jobs for the same sample follow each other
def _sample(layout: Layout, number: int) -> Sample:
    return layout[number]


@dataclass(frozen=True)
class Pairs:
    """All that a worker process needs to make pairs: it reads the samples and writes the pages itself."""

    layout: Layout
    task: Task
    manifest: dict  # without its pages
    files: dict[str, Rows]  # images and labels

    def make(self, job: Job) -> tuple[dict[str, int], list[dict]]:
        """Write a job's pages; return their checksum in each file, and each page's record for the manifest."""
        sample, crcs, records = _sample(self.layout, job.sample), dict.fromkeys(self.files, 0), []
        for page, (image, label, record) in enumerate(self.pages(job, sample), job.page):
            for (name, file), array in zip(self.files.items(), (image, label), strict=True):
                crcs[name] = file.write([page], [array], crcs[name])
            records.append({"page": page, "source": job.sample, "name": sample.name, **record})
        return crcs, records

    def pages(self, job: Job, sample: Sample) -> Iterator[Page]:
        """Yield a sample's unchanged pages, or one copy, whose random generator is seeded by (seed, sample, copy)."""
        if not job.copy:
            yield from ((image, label, {**where, "operations": []}) for image, label, where in self.task.pages(sample))
            return
        seed = [self.manifest["seed"], job.sample, job.copy]
        rng = np.random.default_rng(seed)
        image, label, where = self.task.window(sample, rng)
        size = tuple(self.manifest["shape"][1:3])
        grey_level = self.task.grey_level(self.manifest["sources"][job.sample]["levels"])
        image, label, record = augment_pair(image, label, rng, self.task.options, size, grey_level)
        yield image, label, {"seed": seed, **where, "operations": record}


# ------------------------------------------------------------------------------------------------- the step


def augment(data: Path, work: Path, settings: Settings) -> dict:
    """Write `work`/augmented/: images.tif, labels.tif (all originals first, then the copies) and manifest.json.

    Return the manifest. Raise UserError for wrong input, or if `work` has files that no run made. The folder is
    replaced as a whole or not at all. A stopped call's finished pages stay for the next call with the same settings.
    """
    check_work(work)
    layout = layout_of(data)
    task = task_for(layout, settings)
    manifest = plan(layout, task, settings)
    jobs = jobs_of([(task.page_count(source["shape"]), source["copies"]) for source in manifest["sources"]])
    stacks = stacks_of(manifest, layout, task)
    needed = announce(manifest, task, stacks, settings.copies is None) + 10_000_000
    with unfinished(work / "augmented", "pairs", {"manifest": manifest}, needed, partial(new_stacks, stacks)) as part, \
            layout.require_unchanged(part.discard):
        pairs, waiting = Pairs(layout, task, manifest, part.rows), part.unfinished_jobs(len(jobs))
        with closing(in_order(pairs.make, [jobs[number] for number in waiting], settings.workers or default_workers())
                     ) as results:
            bar = tqdm(results, total=len(jobs), initial=len(jobs) - len(waiting), desc="augmenting", unit="pair",
                       disable=None)
            for number, (crcs, records) in zip(waiting, bar, strict=True):
                part.add(number, [record["page"] for record in records], crcs, records)
        order = sorted(range(len(jobs)), key=lambda number: jobs[number].page)
        write_manifest(part.folder / "manifest.json", manifest, chain.from_iterable(part.contents(order)))
    return manifest


def options() -> argparse.ArgumentParser:
    """Return the command line of `python augmentation.py`."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the three TIFF stacks, with "
                        "images/ and labels/ of equal names, or with <id>/images/<id>.png and <id>/masks/*.png")
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder for all files of a run")
    parser.add_argument("--copies", type=at_least(0, float), help="augmented copies of each training slice; .5 = one "
                        "of every second slice; for single images the average, with more of rare modalities "
                        f"(default: as many as training reads, {Task.default_copies} at most; 0 with --resize)")
    parser.add_argument("--holdout", help="slices to score on, not used for training: 25-29, or 3,7,11, or none "
                        "(default: the last 5, or the last sixth of fewer than 30 slices); for single images the "
                        "beginnings of their names, separated by commas (default: a tenth of each modality)")
    side = parser.add_mutually_exclusive_group()
    side.add_argument("--window", type=at_least(16), help="side of the windows cut from single images, pixels "
                                                          "(default: 256)")
    side.add_argument("--resize", type=at_least(16), help="resize whole nuclei images to squares of this side, pixels, "
                                                          "instead of cutting windows; 128 suits --preset nuclei")
    parser.add_argument("--task", choices=MEANINGS, help="what the values in labels/ mean: cells, 0 = membrane or "
                        "background; classes, numbered from 0; nuclei, a number for each object (default: what they "
                        "look like)")
    parser.add_argument("--classes", type=at_least(2), help="number of classes, if the labels number kinds of pixels "
                        "from 0 (default: cells and membrane); later steps read it from the manifest")
    parser.add_argument("--seed", type=at_least(0), default=0, help="the same seed gives the same bytes")
    parser.add_argument("--workers", type=at_least(1), help="processes that augment (default: one for each core)")
    return parser


def main() -> None:
    args = vars(options().parse_args())
    data, work = args.pop("data"), args.pop("work")
    with run_folder(work):
        manifest = augment(data, work, Settings(**args))
    layout, split = layout_of(data), manifest["split"]
    count, held_out = len(split["train"]), layout.name_samples(split["holdout"]) if split["holdout"] else "none"
    print(f"{work / 'augmented'}: {count_of(count, layout.noun)} to train on; held out: {held_out}")


if __name__ == "__main__":
    run(main)
