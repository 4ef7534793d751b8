"""Step 2: tiles of one size that the network trains on. results/augmented/ -> results/patches/

Every slice or window of nuclei is normalised, cut into overlapping tiles, and written as memory-mappable .npy in a
shuffled order; held-out ones go to files of their own.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, maximum_filter, minimum_filter
from scipy.ndimage import label as components
from tqdm import tqdm

from unet.inputs.folders import PERCENTILES, RAW, stretch
from unet.inputs.stacks import open_stack
from unet.segment.crests import membrane_width
from unet.tasks.classes import check_asked, class_shares, class_weights
from utils import (
    OverlapTile,
    UserError,
    at_least,
    atomic_folder,
    file_hash,
    input_hash,
    read_json,
    require_space,
    run,
    write_json,
)

NORMALISATION = {"mean": 128.0, "sd": 40.0}  # every slice is brought to these, grey levels; kept as uint8
NUCLEI_NORMALISATION = {"mean": 32.0, "sd": 48.0}  # of stretched images, all pixels of a data set taken together
RAW_NORMALISATION = {"mean": 0.0, "sd": 255.0}  # of squeezed images: 0..255 becomes 0..1
WEIGHTS = ("none", "balance", "border")
BORDER_W0, BORDER_SIGMA = 10.0, 5.0  # Ronneberger et al. 2015, section 3; sigma in pixels
STEP_1 = "run 'python augmentation.py' first (with the same --work)"


@dataclass(frozen=True)
class Tiling:
    """Tile and margin in pixels; a valid network predicts the core alone, a same-padding one the whole tile."""

    tile: int = 256
    margin: int = 32
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


def normalise(image: np.ndarray, mean: float = NORMALISATION["mean"], sd: float = NORMALISATION["sd"]) -> np.ndarray:
    """Bring an image (H, W[, C]) to `mean` and `sd` grey levels, each channel for itself; uint8, clipped.

    What a microscope's brightness and contrast settings change linearly is gone after this; an image of one grey level
    becomes `mean` everywhere.
    """
    centre, spread = image.mean(axis=(0, 1), dtype=np.float64), image.std(axis=(0, 1), dtype=np.float64)
    scale = np.divide(sd, spread, out=np.zeros_like(spread), where=spread > 1e-3)
    levels = (image.astype(np.float32) - centre.astype(np.float32)) * scale.astype(np.float32) + np.float32(mean)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ weight maps


def balance_weights(label: np.ndarray, share: float) -> np.ndarray:
    """Weights float32 (H, W) with which membrane and cell count the same in all; `share` is the cells' of all pixels.

    Ronneberger et al. 2015, w_c of equation 2: each class weighs the inverse of its frequency, the mean weight is 1.
    """
    return np.where(label > 0, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)


def border_weights(label: np.ndarray, w0: float = BORDER_W0, sigma: float = BORDER_SIGMA) -> np.ndarray:
    """The part of the weight map that makes narrow gaps between cells count: float32 (H, W), 0 .. w0.

    w0 * exp(-(d1 + d2)² / (2 sigma²)) with d1 and d2 the distances in pixels to the nearest and second nearest cell,
    for pixels outside all cells; Ronneberger et al. 2015, equation 2. Distances over 4 sigma count as infinite.

    Parameters
    ----------
    label : (H, W), 0 outside cells; instances where it has more than one other value, else 4-connected cells
    """
    values = np.unique(label)
    cells = components(label)[0] if len(values) <= 2 else label
    reach = int(np.ceil(4 * sigma))
    nearest, second = (np.full(label.shape, np.inf, np.float32) for _ in range(2))
    for number, box in enumerate(find_objects(cells), 1):
        if box is None:
            continue
        window = tuple(slice(max(part.start - reach, 0), part.stop + reach) for part in box)
        distance = distance_transform_edt(cells[window] != number).astype(np.float32)
        here_nearest, here_second = nearest[window], second[window]
        np.minimum(here_second, np.maximum(distance, here_nearest), out=here_second)
        np.minimum(here_nearest, distance, out=here_nearest)
    return np.where(cells > 0, 0, w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))).astype(np.float32)


def weight_map(label: np.ndarray, kind: str, share: float) -> np.ndarray:
    """Per-pixel loss weights float32 (H, W): 'balance', or 'border' = balance + border map."""
    weights = balance_weights(label, share)
    return weights + border_weights(label) if kind == "border" else weights


def separated(labels: np.ndarray) -> np.ndarray:
    """Where nuclei are and touch no other: bool (H, W) of instances (H, W).

    A pixel with another nucleus in its 3x3 neighbourhood is background: where nuclei touch, a gap two pixels wide.
    """
    most = np.iinfo(labels.dtype).max
    alone = maximum_filter(labels, 3) == labels
    alone &= minimum_filter(np.where(labels, labels, most), 3) == labels
    return alone & (labels > 0)


# ----------------------------------------------------------------------------------------------------- tiles


@dataclass(frozen=True)
class Content:
    """How a page of step 1 becomes image, target and weights; `share` of all pixels is the target's (or classes')."""

    manifest: dict
    weights: str
    share: float | list[float] = 0.5

    @property
    def is_nuclei(self) -> bool:
        """Whether labels are nuclei's instances, not the cells of a stack."""
        return self.manifest.get("kind") == "nuclei"

    @property
    def classes(self) -> int:
        """1, or how many the labels number from 0."""
        return self.manifest.get("classes", 1)

    def image(self, image: np.ndarray, source: int) -> np.ndarray:
        """The normalised page, uint8 (H, W[, 3]); nuclei windows by the levels of the whole image."""
        if not self.is_nuclei:
            return normalise(image)
        return stretch(image, RAW if self.manifest["resize"] else self.manifest["images"][source]["levels"])

    def target(self, label: np.ndarray) -> np.ndarray:
        """What the network is to put out, bool (H, W); nuclei apart from each other, unless they were squeezed.

        Of several classes their numbers, uint8.
        """
        if self.classes > 1:
            return label
        return separated(label) if self.is_nuclei and not self.manifest["resize"] else label > 0

    def weight_map(self, label: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Weights of the loss, float16 (H, W)."""
        if self.classes > 1:
            return class_weights(label, self.share).astype(np.float16)
        label = np.where(target, label, 0) if self.is_nuclei else label
        return weight_map(label, self.weights, self.share).astype(np.float16)

    def measured(self, labels: Iterable[np.ndarray]) -> Content:
        """The same with `share` from label pages (H, W) to train on; raises UserError where they teach nothing."""
        if self.classes > 1:
            share = class_shares(labels, self.classes)
            if max(share) == 1:
                raise UserError("the slices to train on are all of one class; label the others, or hold out other "
                                "slices with --holdout in augmentation.py")
            return replace(self, share=share)
        share = float(np.mean([np.mean(self.target(label)) for label in labels]))
        if not 0 < share < 1:  # of stacks every slice has both, or augmentation.py would not have taken it
            raise UserError(f"the images to train on have no {'background' if share else 'nuclei'} at all; label it, "
                            "or hold out others with --holdout in augmentation.py")
        return replace(self, share=share)

    def described(self) -> dict:
        """What a later step must know of it, for geometry.json."""
        if not self.is_nuclei:
            return {"channels": 1, "normalisation": NORMALISATION,
                    **({"classes": self.classes} if self.classes > 1 else {})}
        resize = self.manifest["resize"]
        levels = "none" if resize else (f"each channel's {PERCENTILES[0]:g} and {PERCENTILES[1]:g} percentile in the "
                                        "whole image become 0 and 255; bright images inverted first")
        return {"channels": 3, "normalisation": RAW_NORMALISATION if resize else NUCLEI_NORMALISATION,
                "kind": "nuclei", "levels": levels, "resize": resize}


def default_tiling(manifest: dict, tile: int | None = None, margin: int | None = None) -> Tiling:
    """Tiles of a stack as `Tiling` says, of nuclei the windows of step 1; or those asked for."""
    usual = Tiling(manifest["shape"][1], 0) if manifest.get("kind") == "nuclei" else Tiling()
    return Tiling(usual.tile if tile is None else tile, usual.margin if margin is None else margin)


def preprocess(work: Path, tiling: Tiling | None = None, weights: str | None = None, seed: int = 0) -> dict:
    """Write `work`/patches/: train and holdout images, labels, sources (and weights) as .npy, and geometry.json.

    images uint8 (n, tile, tile[, 3]), labels uint8 (n, label, label) of 0 and 1, or of 0 .. classes - 1, weights
    float16, sources int32 (n): the slice or image that each tile comes from. Without `weights`, 'border' for nuclei at
    native resolution, else 'none'. Returns the geometry. Raises UserError where step 1 has to run first.
    """
    manifest = fresh_manifest(work)
    content = Content(manifest, weights or "none")
    if weights is None and content.is_nuclei and not manifest["resize"]:
        content = replace(content, weights="border")
    if content.classes > 1 and content.weights == "border":
        raise UserError("--weights border is for one class, cells or nuclei; choose balance or none for several")
    tiling = tiling or default_tiling(manifest)
    if tiling.core < 1 or tiling.margin < 0:
        raise UserError(f"a tile of {tiling.tile} pixels has no room for two margins of {tiling.margin}; choose a "
                        "larger --tile or a smaller --margin")
    if content.is_nuclei and tiling.tile > manifest["shape"][1]:
        raise UserError(f"tiles of {tiling.tile} pixels do not fit the windows of {manifest['shape'][1]} that step 1 "
                        f"cut; run 'python augmentation.py --window {tiling.tile}' first, or choose a smaller --tile")
    folder = work / "augmented"
    images = open_stack(folder / "images.tif", manifest["shape"])
    labels = open_stack(folder / "labels.tif", manifest["shape"][:3])
    held_out = set(manifest["split"]["holdout"])
    pages = {"holdout": [s for s in manifest["samples"] if s["source"] in held_out],
             "train": [s for s in manifest["samples"] if s["source"] not in held_out]}
    corners = tile_corners(tiling, images.shape[1:3], content.is_nuclei)
    counts = {part: len(samples) * len(corners[part]) for part, samples in pages.items()}
    described = content.described()
    per_tile = tiling.tile**2 * described["channels"] + tiling.label**2 * (1 if content.weights == "none" else 3)
    require_space(work, sum(counts.values()) * per_tile)
    originals = [s["page"] for s in pages["train"] if not s["operations"]]
    content = content.measured(labels[page] for page in originals)
    is_cells = not content.is_nuclei and content.classes == 1

    with atomic_folder(work / "patches") as target:
        for part, samples in pages.items():
            order = np.random.default_rng((seed, len(part))).permutation(counts[part])
            _write_part(target, part, samples, order, (images, labels), corners[part], tiling, content)
        geometry = {
            "tile": tiling.tile, "margin": tiling.margin, "core": tiling.core, "label": tiling.label,
            "valid": tiling.valid, **described, "weights": content.weights,
            "class_shares" if content.classes > 1 else "cell_share": content.share,
            "membrane": membrane_width(labels[page] for page in originals) if is_cells else 0.0,
            "split": manifest["split"], "data": manifest["data"], "counts": counts,
            "manifest": file_hash(folder / "manifest.json")}
        write_json(target / "geometry.json", geometry)
    return geometry


def tile_corners(tiling: Tiling, shape: tuple[int, int], inside: bool) -> dict[str, list[tuple[int, int]]]:
    """Upper left corners (y, x) of the tiles of a page, held out and to train on; all `inside` the page on request."""
    cut = OverlapTile(shape, tiling.core, tiling.margin)
    mirrored = [(y - tiling.margin, x - tiling.margin) for y, x in cut.corners()]
    # a padding network learns worse from tiles that reach into the mirror image, a third of their pixels in 512x512
    return {"holdout": cut.inside() if inside else mirrored,
            "train": mirrored if tiling.valid and not inside else cut.inside()}


def _write_part(target: Path, part: str, samples: list[dict], order: np.ndarray, stacks: tuple,
                corners: list[tuple[int, int]], tiling: Tiling, content: Content) -> None:
    """Write the tiles of `samples` at the places that `order` gives them: neighbours in the file are strangers."""
    def array(name: str, dtype: type, *side: int) -> np.ndarray:
        shape = (len(order), *side)
        if not len(order):  # an empty file cannot be mapped
            np.save(target / f"{part}-{name}.npy", np.empty(shape, dtype))
            return np.empty(shape, dtype)
        mapped = np.lib.format.open_memmap(target / f"{part}-{name}.npy", "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):  # a full disk must be an error here, not a crash at some later pixel
            with open(mapped.filename, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, mapped.offset + mapped.nbytes)
        return mapped

    image_tiles = array("images", np.uint8, tiling.tile, tiling.tile, *stacks[0].shape[3:])
    label_tiles = array("labels", np.uint8, tiling.label, tiling.label)
    sources = array("sources", np.int32)
    weight_tiles = array("weights", np.float16, tiling.label, tiling.label) if content.weights != "none" else None
    shape, edge = stacks[0].shape[1:3], (tiling.tile - tiling.label) // 2
    whole, inner = OverlapTile(shape, tiling.tile), OverlapTile(shape, tiling.label)
    inner_corners = [(y + edge, x + edge) for y, x in corners]
    places = order.reshape(-1, len(corners))
    for sample, place in zip(tqdm(samples, desc=f"{part} tiles", unit="page", disable=None), places, strict=True):
        image, label = (stack[sample["page"]] for stack in stacks)
        wanted = content.target(label)
        image_tiles[place] = whole.cut_at(content.image(image, sample["source"]), corners)
        label_tiles[place] = inner.cut_at(wanted.astype(np.uint8), inner_corners)
        sources[place] = sample["source"]
        if weight_tiles is not None:
            weight_tiles[place] = inner.cut_at(content.weight_map(label, wanted), inner_corners)
    for array_on_disk in (image_tiles, label_tiles, sources, weight_tiles):
        if isinstance(array_on_disk, np.memmap):
            array_on_disk.flush()


# ------------------------------------------------------------------------------------------- stale inputs


def fresh_manifest(work: Path) -> dict:
    """The manifest of step 1; raises UserError where step 1 did not run, or its input changed since."""
    manifest = read_json(work / "augmented" / "manifest.json", STEP_1, ("inputs", "split", "shape", "data", "samples"))
    for path, was in manifest["inputs"].items():
        if not Path(path).exists() or input_hash(path) != was:
            raise UserError(f"{path} is gone or changed since it was augmented; run 'python augmentation.py' and then "
                            "'python preprocessing.py' again")
    return manifest


def fresh_geometry(work: Path) -> dict:
    """The geometry of step 2; raises UserError where step 1 or 2 did not run, or its input changed since."""
    geometry = read_json(work / "patches" / "geometry.json",
                         "run 'python augmentation.py' and 'python preprocessing.py' first (with the same --work)",
                         ("tile", "label", "valid", "channels", "normalisation", "weights", "counts", "manifest"))
    fresh_manifest(work)
    if file_hash(work / "augmented" / "manifest.json") != geometry["manifest"]:
        raise UserError(f"{work / 'augmented'} changed since it was cut into tiles; run 'python preprocessing.py' "
                        "again")
    return geometry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder for all that a run makes")
    parser.add_argument("--tile", type=at_least(1), help=f"side of a tile, pixels (without it {Tiling.tile}, of nuclei "
                                                         "the windows that step 1 cut)")
    parser.add_argument("--margin", type=at_least(0), help=f"context around the core, pixels (without it "
                                                           f"{Tiling.margin}, of nuclei 0)")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="the tiles of a published network: paper = 572 in, "
                                                                  "388 out, for valid convolutions")
    parser.add_argument("--weights", choices=WEIGHTS, help="per-pixel weights of the loss (without it none, of nuclei "
                                                           "border unless they were squeezed)")
    parser.add_argument("--classes", type=at_least(1), help="check that the labels have so many; augmentation.py takes "
                                                            "them")
    parser.add_argument("--seed", type=at_least(0), default=0, help="order of the tiles")
    args = parser.parse_args()
    manifest = fresh_manifest(args.work)
    check_asked(args.classes, manifest)
    tiling = PRESETS[args.preset] if args.preset else default_tiling(manifest, args.tile, args.margin)
    geometry = preprocess(args.work, tiling, args.weights, args.seed)
    counts = geometry["counts"]
    print(f"{args.work / 'patches'}: {counts['train']} tiles to train on, {counts['holdout']} held out, "
          f"{tiling.tile}x{tiling.tile} pixels with labels of {tiling.label}x{tiling.label}")


if __name__ == "__main__":
    run(main)
