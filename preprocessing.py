"""Step 2: tiles of one size that the network trains on. results/augmented/ -> results/patches/

Every page of what trains is normalised, cut into overlapping tiles, and written as memory-mappable .npy in a shuffled
order.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unet.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects
from scipy.ndimage import label as components
from tqdm import tqdm

from unet.inputs.rows import Rows, new_array, stack_rows
from unet.tasks import task_of
from unet.tasks.task import Task
from unet.training.copies import MARGIN, TILE
from unet.training.folder import run_folder
from unet.training.unfinished import unfinished
from utils import OverlapTile, Parser, UserError, at_least, file_hash, input_hash, read_json, run, write_json

WEIGHTS = ("none", "balance", "border")
BORDER_W0, BORDER_SIGMA = 10.0, 5.0  # Ronneberger et al. 2015, section 3; sigma in pixels
STEP_1 = "run 'python augmentation.py' first (with the same --work)"


@dataclass(frozen=True)
class Tiling:
    """Tile and margin in pixels; a valid network predicts the core alone, a same-padding one the whole tile."""

    tile: int = TILE
    margin: int = MARGIN
    valid: bool = False

    @property
    def core(self) -> int:
        """Side of what is left of a tile without its margins, pixels."""
        return self.tile - 2 * self.margin

    @property
    def label(self) -> int:
        """Side of the label that belongs to a tile, pixels."""
        return self.core if self.valid else self.tile


PRESETS = {"paper": Tiling(572, 92, valid=True)}  # 572 in, 388 out: Ronneberger et al. 2015, figure 1


# ------------------------------------------------------------------------------------------------ weight maps


def balance_weights(target: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Weights float32 (H, W) with which all classes of a target (H, W) count the same; `shares` are theirs.

    Ronneberger et al. 2015, w_c of equation 2: the inverse of a class's frequency, with a mean of 1; of absent ones 0.
    """
    present = sum(share > 0 for share in shares)
    return np.array([1 / (present * share) if share > 0 else 0.0 for share in shares], np.float32)[target]


def border_weights(regions: np.ndarray, w0: float = BORDER_W0, sigma: float = BORDER_SIGMA) -> np.ndarray:
    """The part of the weight map that makes narrow gaps between cells count: float32 (H, W), 0 .. w0.

    w0 * exp(-(d1 + d2)² / (2 sigma²)) with d1 and d2 the distances in pixels to the nearest and second nearest cell,
    for pixels outside all cells; Ronneberger et al. 2015, equation 2. Distances over 4 sigma count as infinite.

    Parameters
    ----------
    regions : (H, W), 0 outside cells; instances where it has more than one other value, else 4-connected cells
    """
    cells = components(regions)[0] if len(np.unique(regions)) <= 2 else regions
    reach = int(np.ceil(4 * sigma))
    nearest, second = (np.full(regions.shape, np.inf, np.float32) for _ in range(2))
    for number, box in enumerate(find_objects(cells), 1):
        if box is None:
            continue
        window = tuple(slice(max(part.start - reach, 0), part.stop + reach) for part in box)
        distance = distance_transform_edt(cells[window] != number).astype(np.float32)
        here_nearest, here_second = nearest[window], second[window]
        np.minimum(here_second, np.maximum(distance, here_nearest), out=here_second)
        np.minimum(here_nearest, distance, out=here_nearest)
    return np.where(cells > 0, 0, w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))).astype(np.float32)


# ----------------------------------------------------------------------------------------------------- tiles


@dataclass(frozen=True)
class TrainingArrays:
    """How a page of step 1 becomes image, target and weights; `shares` are those of the target's classes."""

    task: Task
    weights: str
    shares: Sequence[float]

    def arrays(self, image: np.ndarray, label: np.ndarray, levels: dict) -> dict[str, np.ndarray]:
        """Of a page its image uint8 (H, W[, C]), target uint8 (H, W) and, where they count, weights float32 (H, W).

        A copy is normalised with the levels of its original: with its own, a drawn brightness would be undone.
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

    images uint8 (n, tile, tile[, 3]), labels uint8 (n, label, label) of 0 and 1, or of 0 .. classes - 1, weights
    float32, sources int32 (n): the sample that each tile comes from. Without `weights` what the task takes by default.
    Returns the geometry. Raises UserError where step 1 has to run first. What is finished at a stop is kept for the
    next call with the same to do.
    """
    manifest = fresh_manifest(work)
    task = task_of(manifest)
    weights = weights or task.default_weights
    shape = manifest["shape"][1:3]
    tiling = tiling or task_tiling(task, shape)
    check_tiling(task, tiling, weights, shape)
    images = stack_rows(work / "augmented" / "images.tif", manifest["shape"])
    labels = stack_rows(work / "augmented" / "labels.tif", manifest["shape"][:3])
    held_out = set(manifest["split"]["holdout"])  # judged whole by predict.py: no tile of them is needed
    pages = [page for page in manifest["samples"] if page["source"] not in held_out]
    corners = tile_corners(tiling, shape, task.windowed)
    count = len(pages) * len(corners)
    originals = [page["page"] for page in pages if not page["operations"]]
    shares = class_shares((task.target(labels[page]) for page in tqdm(
        originals, desc="counting classes", unit="page", leave=False, disable=None)), task.classes)
    if max(shares) == 1:
        raise UserError(f"{manifest['data']}: the labels to train on have one value everywhere, expected objects and "
                        "background; label what is missing, or hold out others with --holdout in augmentation.py")
    geometry = {
        "task": manifest["task"], "tile": tiling.tile, "margin": tiling.margin, "core": tiling.core,
        "label": tiling.label, "valid": tiling.valid, "channels": task.channels, "classes": task.classes,
        "normalisation": task.normalisation, "weights": weights, "shares": shares, "seed": seed,
        "split": manifest["split"], "data": manifest["data"], "count": count,
        "manifest": file_hash(work / "augmented" / "manifest.json")}
    content, levels = TrainingArrays(task, weights, shares), [source["levels"] for source in manifest["sources"]]
    places = np.random.default_rng((seed, 5)).permutation(count).reshape(-1, len(corners))
    needed = count * (tiling.tile**2 * task.channels + tiling.label**2 * (1 if weights == "none" else 5))
    with unfinished(work / "patches", "tiles", {"geometry": geometry}, needed,
                    lambda folder: _new_tiles(folder, geometry)) as part:
        left = part.left(len(pages))
        for number in tqdm(left, total=len(pages), initial=len(pages) - len(left), desc="tiles", unit="page",
                           disable=None):
            page, its_places = pages[number], places[number].tolist()
            arrays = content.arrays(images[page["page"]], labels[page["page"]], levels[page["source"]])
            part.add(number, its_places, _write_tiles(part.rows, arrays, its_places, corners, tiling))
        sources = np.repeat(np.int32([page["source"] for page in pages]), len(corners))
        np.save(part.folder / "train-sources.npy", sources[np.argsort(places, axis=None)])
        write_json(part.folder / "geometry.json", geometry)
    return geometry


def task_tiling(task: Task, shape: Sequence[int], tile: int | None = None, margin: int | None = None) -> Tiling:
    """The tiles asked for; by default as `Tiling` says, of windows all of the page."""
    usual = Tiling(shape[0], 0) if task.windowed else Tiling()
    return Tiling(usual.tile if tile is None else tile, usual.margin if margin is None else margin)


def check_tiling(task: Task, tiling: Tiling, weights: str, shape: Sequence[int]) -> None:
    """Raise UserError for tiles and weights that this task's pages (H, W) cannot give."""
    if weights not in task.weights:
        raise UserError(f"--weights {weights} is not for {task.name}; choose {' or '.join(task.weights)}")
    if tiling.core < 1 or tiling.margin < 0:
        raise UserError(f"a tile of {tiling.tile} pixels has no room for two margins of {tiling.margin}; choose a "
                        "larger --tile or a smaller --margin")
    if task.windowed and tiling.tile > shape[0]:
        raise UserError(f"tiles of {tiling.tile} pixels do not fit the windows of {shape[0]} that step 1 cut; run "
                        f"'python augmentation.py --window {tiling.tile}' first, or choose a smaller --tile")


def class_shares(targets: Iterable[np.ndarray], classes: int) -> list[float]:
    """Share of all pixels that each class has in targets (H, W); of one class the shares of 0 and 1."""
    counts = sum(np.bincount(target.ravel(), minlength=max(classes, 2)) for target in targets)
    return (counts / counts.sum()).tolist()


def tile_corners(tiling: Tiling, shape: Sequence[int], windowed: bool) -> list[tuple[int, int]]:
    """Upper left corners (y, x) of the tiles of a page (H, W) to train on.

    They lie inside the page: a padding network learns worse from tiles that reach into the mirror image, a third of
    their pixels in 512x512. A valid network's reach beyond it by their margin, but for windows.
    """
    cut = OverlapTile(tuple(shape), tiling.core, tiling.margin)
    mirrored = [(y - tiling.margin, x - tiling.margin) for y, x in cut.corners()]
    return mirrored if tiling.valid and not windowed else cut.inside()


def _new_tiles(folder: Path, geometry: dict) -> dict[str, Rows]:
    """Make the files of the tiles; neighbours in them are strangers."""
    tile, label = (geometry["tile"],) * 2, (geometry["label"],) * 2
    kinds = {"images": (tile if geometry["channels"] == 1 else (*tile, geometry["channels"]), np.uint8),
             "labels": (label, np.uint8), "weights": (label, np.float32)}
    return {name: new_array(folder / f"train-{name}.npy", (geometry["count"], *shape), dtype)
            for name, (shape, dtype) in kinds.items() if name != "weights" or geometry["weights"] != "none"}


def _write_tiles(files: dict[str, Rows], arrays: dict[str, np.ndarray], places: Sequence[int],
                 corners: list[tuple[int, int]], tiling: Tiling) -> dict[str, int]:
    """Write the tiles of a page at their places, and give their checksum in each file.

    Labels and weights lack a valid network's edge.
    """
    edge, crcs = (tiling.tile - tiling.label) // 2, {}
    inner = [(y + edge, x + edge) for y, x in corners]
    for name, array in arrays.items():
        whole = name == "images"
        cut = OverlapTile(array.shape[:2], tiling.tile if whole else tiling.label)
        crcs[name] = files[name].write(places, cut.cut_at(array, corners if whole else inner))
    return crcs


# ------------------------------------------------------------------------------------------- stale inputs


def fresh_manifest(work: Path) -> dict:
    """The manifest of step 1; raises UserError where step 1 did not run, or its input changed since."""
    manifest = read_json(work / "augmented" / "manifest.json", STEP_1,
                         ("inputs", "task", "split", "shape", "data", "sources", "samples"))
    for path, was in manifest["inputs"].items():
        if not Path(path).exists() or input_hash(path) != was:
            raise UserError(f"{path} is gone or changed since it was augmented; run 'python augmentation.py' and then "
                            "'python preprocessing.py' again")
    return manifest


def fresh_geometry(work: Path) -> dict:
    """The geometry of step 2; raises UserError where step 1 or 2 did not run, or its input changed since."""
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
    """The command line of `python preprocessing.py`."""
    parser = Parser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder for all that a run makes")
    parser.add_argument("--tile", type=at_least(1), help=f"side of a tile, pixels (without it {Tiling.tile}, of images "
                                                         "the windows that step 1 cut)")
    parser.add_argument("--margin", type=at_least(0), help=f"context around the core, pixels (without it "
                                                           f"{Tiling.margin}, of images 0)")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="the tiles of a published network: paper = 572 in, "
                                                                  "388 out, for valid convolutions")
    parser.add_argument("--weights", choices=WEIGHTS, help="per-pixel weights of the loss (without it none, of nuclei "
                                                           "border unless they were squeezed)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="order of the tiles")
    return parser


def tiling_of(args: argparse.Namespace, task: Task, shape: Sequence[int]) -> Tiling:
    """The tiles that the command line asks for, of pages (H, W)."""
    return PRESETS[args.preset] if args.preset else task_tiling(task, shape, args.tile, args.margin)


def main() -> None:
    args = options().parse_args()
    with run_folder(args.work):
        manifest = fresh_manifest(args.work)
        tiling = tiling_of(args, task_of(manifest), manifest["shape"][1:3])
        geometry = preprocess(args.work, tiling, args.weights, args.seed)
    print(f"{args.work / 'patches'}: {geometry['count']} tiles to train on, {tiling.tile}x{tiling.tile} pixels with "
          f"labels of {tiling.label}x{tiling.label}")


if __name__ == "__main__":
    run(main)
