"""Step 2: cut the training pairs into tiles of one size for the network. results/augmented/ -> results/patches/

Every page that trains is normalised and cut into overlapping tiles, which are written in random order as .npy files
that can be memory-mapped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unet.system.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from unet.inputs.rows import Rows, new_array, stack_rows
from unet.tasks import task_of
from unet.tasks.task import MARGIN, TILE, Task
from unet.training.folder import run_folder
from unet.training.unfinished import unfinished
from utils import OverlapTile, Parser, UserError, at_least, file_hash, input_hash, read_json, run, write_json

WEIGHTS = ("none", "balance", "border")
BORDER_W0, BORDER_SIGMA = 10.0, 5.0  # Ronneberger et al. 2015, section 3; sigma in pixels
STEP_1 = "run 'python augmentation.py' first (with the same --work)"


@dataclass(frozen=True)
class Tiling:
    """Tile and margin in pixels; a valid network predicts only the core, a same-padding one the whole tile."""

    tile: int = TILE
    margin: int = MARGIN
    valid: bool = False

    @property
    def core(self) -> int:
        """Side of a tile without its margins, pixels."""
        return self.tile - 2 * self.margin

    @property
    def label_side(self) -> int:
        """Side of the label that belongs to a tile, pixels."""
        return self.core if self.valid else self.tile


TILE_PRESETS = {"paper": Tiling(572, 92, valid=True)}  # 572 in, 388 out: Ronneberger et al. 2015, figure 1


# ------------------------------------------------------------------------------------------------ weight maps


def balance_weights(target: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return weights, float32 (H, W), with which all classes of a target (H, W) count the same.

    `shares` are the classes' shares of all pixels. Ronneberger et al. 2015, w_c of equation 2: the inverse of a class's
    frequency, with a mean of 1; 0 for absent classes.
    """
    present = sum(share > 0 for share in shares)
    return np.array([1 / (present * share) if share > 0 else 0.0 for share in shares], np.float32)[target]


def border_weights(regions: np.ndarray, w0: float = BORDER_W0, sigma: float = BORDER_SIGMA) -> np.ndarray:
    """Return the part of the weight map that stresses narrow gaps between cells: float32 (H, W), 0 .. w0.

    w0 * exp(-(d1 + d2)² / (2 sigma²)) with d1 and d2 the distances in pixels to the nearest and second nearest cell,
    for pixels outside all cells; Ronneberger et al. 2015, equation 2. Distances over 4 sigma along an axis count as
    infinite.

    Parameters
    ----------
    regions : (H, W), 0 outside cells; instances if it has two or more other values, otherwise 4-connected cells
    """
    cells = ndimage.label(regions)[0] if len(np.unique(regions)) <= 2 else regions
    reach = int(np.ceil(4 * sigma))
    nearest, second = (np.full(regions.shape, np.inf, np.float32) for _ in range(2))
    for number, box in enumerate(ndimage.find_objects(cells), 1):
        if box is None:
            continue
        window = tuple(slice(max(part.start - reach, 0), part.stop + reach) for part in box)
        distance = ndimage.distance_transform_edt(cells[window] != number).astype(np.float32)
        here_nearest, here_second = nearest[window], second[window]
        np.minimum(here_second, np.maximum(distance, here_nearest), out=here_second)
        np.minimum(here_nearest, distance, out=here_nearest)
    return np.where(cells > 0, 0, w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))).astype(np.float32)


# ----------------------------------------------------------------------------------------------------- tiles


@dataclass(frozen=True)
class TrainingArrays:
    """The way from a page of step 1 to image, target and weights; `shares` are the classes' shares of all pixels."""

    task: Task
    weights: str
    shares: Sequence[float]

    def arrays(self, image: np.ndarray, label: np.ndarray, levels: dict) -> dict[str, np.ndarray]:
        """Return a page's image uint8 (H, W[, C]), target uint8 (H, W) and, if used, weights float32 (H, W).

        A copy is normalised with the grey levels of its original: its own would undo the augmented brightness.
        """
        target = self.task.target(label)
        content = {"images": self.task.normalise(image, levels), "labels": target}
        if self.weights != "none":
            content["weights"] = balance_weights(target, self.shares)
        if self.weights == "border":
            content["weights"] = content["weights"] + border_weights(self.task.regions(label))
        return content


def preprocess(work: Path, tiling: Tiling | None = None, weights: str | None = None, seed: int = 0) -> dict:
    """Write `work`/patches/: train-images, -labels, -sources (and -weights) as .npy, and geometry.json.

    images are uint8 (n, tile, tile[, 3]), labels uint8 (n, label, label) of 0 and 1, or of 0 .. classes - 1, weights
    float32, sources int32 (n): the sample that each tile comes from. `weights` defaults to the task's own.
    Return the geometry. Raise UserError if step 1 has to run first. A stopped call's finished tiles stay for the next
    call with the same settings.
    """
    manifest = fresh_manifest(work)
    task = task_of(manifest)
    weights = weights or task.default_weights
    shape = manifest["shape"][1:3]
    tiling = tiling or task_tiling(task, shape)
    check_tiling(task, tiling, weights, shape)
    images = stack_rows(work / "augmented" / "images.tif", manifest["shape"])
    labels = stack_rows(work / "augmented" / "labels.tif", manifest["shape"][:3])
    held_out = set(manifest["split"]["holdout"])  # predict.py scores them whole: they need no tiles
    pages = [page for page in manifest["samples"] if page["source"] not in held_out]
    corners = tile_corners(tiling, shape, task.windowed)
    count = len(pages) * len(corners)
    originals = [page["page"] for page in pages if not page["operations"]]
    shares = class_shares((task.target(labels[page]) for page in tqdm(
        originals, desc="counting classes", unit="page", leave=False, disable=None)), task.classes)
    if max(shares) == 1:
        raise UserError(f"{manifest['data']}: the labels to train on have one value everywhere, expected objects and "
                        "background; label the missing one, or hold out others with --holdout in augmentation.py")
    geometry = {
        "task": manifest["task"], "tile": tiling.tile, "margin": tiling.margin, "core": tiling.core,
        "label": tiling.label_side, "valid": tiling.valid, "channels": task.channels, "classes": task.classes,
        "normalisation": task.normalisation, "weights": weights, "shares": shares, "seed": seed,
        "split": manifest["split"], "data": manifest["data"], "count": count,
        "manifest": file_hash(work / "augmented" / "manifest.json")}
    training, levels = TrainingArrays(task, weights, shares), [source["levels"] for source in manifest["sources"]]
    places = np.random.default_rng((seed, 5)).permutation(count).reshape(-1, len(corners))
    needed = count * (tiling.tile**2 * task.channels + tiling.label_side**2 * (1 if weights == "none" else 5))
    with unfinished(work / "patches", "tiles", {"geometry": geometry}, needed,
                    lambda folder: _new_tiles(folder, geometry)) as part:
        waiting = part.unfinished_jobs(len(pages))
        for number in tqdm(waiting, total=len(pages), initial=len(pages) - len(waiting), desc="tiles", unit="page",
                           disable=None):
            page, page_places = pages[number], places[number].tolist()
            arrays = training.arrays(images[page["page"]], labels[page["page"]], levels[page["source"]])
            part.add(number, page_places, _write_tiles(part.rows, arrays, page_places, corners, tiling))
        sources = np.repeat(np.int32([page["source"] for page in pages]), len(corners))
        np.save(part.folder / "train-sources.npy", sources[np.argsort(places, axis=None)])
        write_json(part.folder / "geometry.json", geometry)
    return geometry


def task_tiling(task: Task, shape: Sequence[int], tile: int | None = None, margin: int | None = None) -> Tiling:
    """Return the requested tiles of a page (H, W), with the task's defaults."""
    default_side, default_margin = task.default_tile(shape)
    return Tiling(default_side if tile is None else tile, default_margin if margin is None else margin)


def check_tiling(task: Task, tiling: Tiling, weights: str, shape: Sequence[int]) -> None:
    """Raise UserError for tiles and weights that are impossible with this task's pages (H, W)."""
    if weights not in task.weights:
        raise UserError(f"--weights {weights} is not for {task.name}; choose {' or '.join(task.weights)}")
    if tiling.core < 1 or tiling.margin < 0:
        raise UserError(f"a tile of {tiling.tile} pixels has no room for two margins of {tiling.margin}; choose a "
                        "larger --tile or a smaller --margin")
    task.check_tile(tiling.tile, shape)


def class_shares(targets: Iterable[np.ndarray], classes: int) -> list[float]:
    """Return each class's share of all pixels in targets (H, W); for one class the shares of 0 and 1."""
    counts = sum(np.bincount(target.ravel(), minlength=max(classes, 2)) for target in targets)
    return (counts / counts.sum()).tolist()


def tile_corners(tiling: Tiling, shape: Sequence[int], windowed: bool) -> list[tuple[int, int]]:
    """Return the upper left corners (y, x) of the tiles of a page (H, W) to train on.

    They lie inside the page, because a padding network learns worse from tiles that reach into the mirror image (a
    third of their pixels in 512x512). A valid network's tiles reach beyond the page by their margin, except in windows.
    """
    cut = OverlapTile(tuple(shape), tiling.core, tiling.margin)
    if tiling.valid and not windowed:
        return [(y - tiling.margin, x - tiling.margin) for y, x in cut.corners()]
    return cut.inside()


def _new_tiles(folder: Path, geometry: dict) -> dict[str, Rows]:
    """Make the files for the tiles."""
    tile, label = (geometry["tile"],) * 2, (geometry["label"],) * 2
    shapes = {"images": (tile if geometry["channels"] == 1 else (*tile, geometry["channels"]), np.uint8),
               "labels": (label, np.uint8)}
    if geometry["weights"] != "none":
        shapes["weights"] = (label, np.float32)
    return {name: new_array(folder / f"train-{name}.npy", (geometry["count"], *shape), dtype)
            for name, (shape, dtype) in shapes.items()}


def _write_tiles(files: dict[str, Rows], arrays: dict[str, np.ndarray], places: Sequence[int],
                 corners: list[tuple[int, int]], tiling: Tiling) -> dict[str, int]:
    """Write the tiles of a page at their places, and return their checksum in each file.

    Labels and weights are smaller by the edge that a valid network does not predict.
    """
    edge, crcs = (tiling.tile - tiling.label_side) // 2, {}
    inner = [(y + edge, x + edge) for y, x in corners]
    for name, array in arrays.items():
        side, starts = (tiling.tile, corners) if name == "images" else (tiling.label_side, inner)
        crcs[name] = files[name].write(places, OverlapTile(array.shape[:2], side).cut_at(array, starts))
    return crcs


# ------------------------------------------------------------------------------------------- stale inputs


def fresh_manifest(work: Path) -> dict:
    """Read the manifest of step 1; raise UserError if step 1 did not run, or its input changed since."""
    manifest = read_json(work / "augmented" / "manifest.json", STEP_1,
                         ("inputs", "task", "split", "shape", "data", "sources", "samples"))
    for path, digest in manifest["inputs"].items():
        if not Path(path).exists() or input_hash(path) != digest:
            raise UserError(f"{path} is gone or changed since it was augmented; run 'python augmentation.py' and then "
                            "'python preprocessing.py' again")
    return manifest


def fresh_geometry(work: Path) -> dict:
    """Read the geometry of step 2; raise UserError if step 1 or 2 did not run, or its input changed since."""
    geometry = read_json(work / "patches" / "geometry.json",
                         "run 'python augmentation.py' and 'python preprocessing.py' first (with the same --work)",
                         ("task", "tile", "margin", "core", "label", "valid", "channels", "classes", "normalisation",
                          "weights", "split", "data", "count", "manifest"))
    fresh_manifest(work)
    if file_hash(work / "augmented" / "manifest.json") != geometry["manifest"]:
        raise UserError(f"{work / 'augmented'} changed since it was cut into tiles; run 'python preprocessing.py' "
                        "again")
    return geometry


def options() -> argparse.ArgumentParser:
    """Return the command line of `python preprocessing.py`."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder for all files of a run")
    parser.add_argument("--tile", type=at_least(1), help=f"side of a tile, pixels (default: {Tiling.tile}; for single "
                                                         "images that of the windows that step 1 cut)")
    parser.add_argument("--margin", type=at_least(0), help="context on each side of a tile, pixels: neighbouring tiles "
                        f"overlap by twice as much (default: {Tiling.margin}; 0 for single images)")
    parser.add_argument("--preset", choices=sorted(TILE_PRESETS), help="the tiles of a published network: paper = 572 "
                        "in, 388 out, for valid convolutions")
    parser.add_argument("--weights", choices=WEIGHTS, help="per-pixel weights of the loss: balance makes classes count "
                        "the same, border stresses narrow gaps between cells, too (default: none; border for nuclei, "
                        "unless step 1 resized the images)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="decides the order of the tiles")
    return parser


def tiling_of(args: argparse.Namespace, task: Task, shape: Sequence[int]) -> Tiling:
    """Return the tiles that the command line asks for, for pages (H, W)."""
    return TILE_PRESETS[args.preset] if args.preset else task_tiling(task, shape, args.tile, args.margin)


def main() -> None:
    args = options().parse_args()
    with run_folder(args.work):
        manifest = fresh_manifest(args.work)
        tiling = tiling_of(args, task_of(manifest), manifest["shape"][1:3])
        geometry = preprocess(args.work, tiling, args.weights, args.seed)
    print(f"{args.work / 'patches'}: {geometry['count']} tiles to train on, {tiling.tile}x{tiling.tile} pixels with "
          f"labels of {tiling.label_side}x{tiling.label_side}")


if __name__ == "__main__":
    run(main)
