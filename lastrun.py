"""What the last run left: its settings, slices, scores and predictions, read once for whoever looks at them."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets import read_images
from stacks import TEST, VOLUME, open_stack, read_stack
from utils import UserError, read_json

STEPS = "run 'make', or the three scripts one after the other (with the same --work)"


@dataclass(frozen=True)
class LastRun:
    """A run, finished or stopped; what it did not come to is None or empty."""

    work: Path  # the folder of all that it made
    manifest: dict  # of augmentation.py
    geometry: dict  # of preprocessing.py
    config: dict  # of train.py
    history: list[dict]  # rows of history.csv: step, loss, ...
    scores: dict | None  # of metrics.json
    images: np.ndarray  # uint8 (N, H, W), the labelled slices
    labels: np.ndarray  # uint8 (N, H, W), 0 = membrane, 255 = cell
    judged: np.ndarray | None  # float32 (held out, H, W), probability of cell
    test: np.ndarray | None  # uint8 (M, H, W), the slices to segment
    prediction: np.ndarray | None  # float32 (M, H, W), their probability of cell

    @property
    def holdout(self) -> list[int]:
        """Numbers of the slices that judged."""
        return self.config["split"]["holdout"]

    @property
    def threshold(self) -> float:
        """Cell is where the probability is greater; chosen on training slices, 0.5 where none was chosen."""
        return self.config.get("threshold", 0.5)

    @property
    def example(self) -> tuple[np.ndarray, np.ndarray]:
        """A training slice and its label, uint8 (H, W) each: the one to show augmentations on."""
        number = self.config["split"]["train"][0]
        return np.asarray(self.images[number]), np.asarray(self.labels[number])

    @property
    def is_demo(self) -> bool:
        """Whether the data are the demo stack, that is synthetic."""
        return Path(self.manifest["data"]).name == "demo"

    @property
    def data_hash(self) -> str:
        """SHA-256 of the images that it was trained on, as augmentation.py found them."""
        return next((was for path, was in self.manifest["inputs"].items() if Path(path).name == VOLUME), "unknown")


def last_run(work: Path | None = None, data: Path | None = None, out: Path | None = None) -> LastRun:
    """Read a run; without arguments what the environment's WORK, DATA and OUT name, as for make.

    Their defaults: results, the data that the run was made of, prediction.tif. Raises UserError where no model was
    trained.
    """
    work = Path(work or os.environ.get("WORK") or "results")
    out = Path(out or os.environ.get("OUT") or "prediction.tif")
    manifest = read_json(work / "augmented" / "manifest.json", STEPS)
    geometry = read_json(work / "patches" / "geometry.json", STEPS)
    config = read_json(work / "config.json", STEPS)
    if geometry.get("kind") == "nuclei" or geometry.get("classes", 1) > 1:
        raise UserError(f"{work} is a run on nuclei or on several classes, and notebook and report show stacks of "
                        f"cells; look at {work / 'holdout.png'} and {work / 'metrics.json'}")
    if manifest["split"] != config["split"]:
        raise UserError(f"{work / 'model.keras'} was trained on another split than {work / 'augmented'} has now; "
                        f"{STEPS}")
    data = Path(data or os.environ.get("DATA") or manifest["data"])
    labelled = sum(not sample["operations"] for sample in manifest["samples"])  # they come first
    images = open_stack(work / "augmented" / "images.tif", manifest["shape"])[:labelled]
    labels = open_stack(work / "augmented" / "labels.tif", manifest["shape"][:3])[:labelled]
    with open(work / "history.csv") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    judged = read_stack(work / "holdout.tif") if (work / "holdout.tif").is_file() else None
    scores = read_json(work / "metrics.json", STEPS) if (work / "metrics.json").is_file() else None
    return LastRun(work, manifest, geometry, config, history, scores, images, labels, judged, *_predicted(data, out))


def _predicted(data: Path, out: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The test stack and its prediction, each None where it is not there; a prediction of another stack is not."""
    try:
        test = read_images(data / TEST)
    except UserError:
        return None, None
    prediction = read_stack(out) if out.is_file() else None
    return test, prediction if prediction is not None and prediction.shape == test.shape else None
