"""Write the tiles of step 2 by hand, for tests that train for half a second."""

import csv
import json

import numpy as np

from unet.training.keeper import Keeper
from utils import file_hash


def write_patches(work, side=16, label=None, count=10, slices=5, weights=None, **geometry):
    """Write `work`/patches and step 1's manifest: tiles of dark lines on light cells, from slices in turn.

    `label` is the side of the labels (default: that of the images), `count` the number of tiles, `weights` the value of
    all weights, in its dtype. `geometry` has further values of geometry.json; with `channels` images have as many.
    """
    rng = np.random.default_rng(0)
    label = label or side
    (work / "augmented").mkdir(parents=True, exist_ok=True)
    (work / "patches").mkdir(exist_ok=True)
    lines = rng.integers(2, side - 2, (count, 1, 1))
    labels = (np.abs(np.arange(side) - lines) > 1).repeat(side, axis=1).astype(np.uint8)
    images = (np.where(labels, 150, 70) + rng.integers(-20, 20, labels.shape)).astype(np.uint8)
    edge = (side - label) // 2
    channels = geometry.get("channels", 1)
    arrays = {"images": images if channels == 1 else np.stack([images] * channels, axis=-1),
              "labels": labels[:, edge:edge + label, edge:edge + label],
              "sources": np.arange(count, dtype=np.int32) % slices}
    if weights is not None:
        arrays["weights"] = np.full((count, label, label), weights)
    for name, array in arrays.items():
        np.save(work / "patches" / f"train-{name}.npy", array)
    common = {"task": {"name": "cells"}, "split": {"train": list(range(slices)), "holdout": []}, "data": "data"}
    manifest = {**common, "inputs": {}, "sources": [], "samples": [], "shape": [slices, side, side]}
    (work / "augmented" / "manifest.json").write_text(json.dumps(manifest))
    geometry = {**common, "tile": side, "margin": 0, "core": side, "label": label, "valid": label < side,
                "channels": 1, "classes": 1, "normalisation": {"mean": 128.0, "sd": 40.0}, "count": count,
                "weights": "none" if weights is None else "border",
                "manifest": file_hash(work / "augmented" / "manifest.json"), **geometry}
    (work / "patches" / "geometry.json").write_text(json.dumps(geometry))
    return work


def history(work):
    """Read the rows of history.csv."""
    return list(csv.DictReader((work / "history.csv").open()))


def stop_at(monkeypatch, epoch, method="on_epoch_begin", error=KeyboardInterrupt):
    """Interrupt a training at an epoch, numbered from 0, until monkeypatch.undo() is called."""
    original = getattr(Keeper, method)

    def stop(self, number, logs=None):
        if number == epoch:
            raise error
        original(self, number, logs)

    monkeypatch.setattr(Keeper, method, stop)
