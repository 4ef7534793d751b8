"""Tiles of half a second: what step 2 leaves, written by hand, for tests that train."""

import json

import numpy as np

from utils import file_hash


def write_patches(work, side=16, label=None, counts=(10, 0), slices=5, channels=1, weights=None, **geometry):
    """Write `work`/patches and the manifest before it: tiles of dark lines on light cells, from slices in turn.

    `label` is the side of the labels (that of the images), `counts` the tiles that train and are held out, `weights`
    a constant array of one element whose dtype and value the weights get.
    """
    rng = np.random.default_rng(0)
    label = label or side
    (work / "augmented").mkdir(parents=True, exist_ok=True)
    (work / "patches").mkdir(exist_ok=True)
    for part, count in zip(("train", "holdout"), counts, strict=True):
        lines = rng.integers(2, side - 2, (count, 1, 1))
        labels = (np.abs(np.arange(side) - lines) > 1).repeat(side, axis=1).astype(np.uint8)
        images = np.where(labels, 150, 70) + rng.integers(-20, 20, labels.shape)
        edge = (side - label) // 2
        arrays = {"images": images.astype(np.uint8), "labels": labels[:, edge:edge + label, edge:edge + label],
                  "sources": np.arange(count, dtype=np.int32) % slices}
        if channels > 1:
            arrays["images"] = np.stack([arrays["images"]] * channels, axis=-1)
        if weights is not None:
            arrays["weights"] = np.full((count, label, label), weights)
        for name, array in arrays.items():
            np.save(work / "patches" / f"{part}-{name}.npy", array)
    manifest = {"inputs": {}, "split": {"train": list(range(slices)), "holdout": []}, "shape": [slices, side, side],
                "data": "data", "samples": []}
    (work / "augmented" / "manifest.json").write_text(json.dumps(manifest))
    geometry = {"tile": side, "margin": 0, "core": side, "label": label, "valid": label < side, "channels": channels,
                "normalisation": {"mean": 128.0, "sd": 40.0}, "weights": "none" if weights is None else "border",
                "counts": dict(zip(("train", "holdout"), counts, strict=True)), "split": manifest["split"],
                "data": "data", "manifest": file_hash(work / "augmented" / "manifest.json"), **geometry}
    (work / "patches" / "geometry.json").write_text(json.dumps(geometry))
    return work
