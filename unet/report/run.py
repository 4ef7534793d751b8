"""What the last run left: its settings, images, scores and predictions, read for whoever looks at them."""

from __future__ import annotations

import csv
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets import read_images
from unet.inputs.folders import Nuclei, Source, find_sources, is_nuclei_folder, read_source
from unet.inputs.stacks import TEST, VOLUME, open_stack, read_stack
from unet.scores.precision import SUFFIX
from utils import UserError, read_json

STEPS = "run 'make', or the three scripts one after the other (with the same --work)"


@dataclass(frozen=True)
class Run:
    """A run, finished or stopped; what it did not come to is None or empty."""

    work: Path  # the folder of all that it made
    out: Path  # what it predicted: a stack, of nuclei a folder
    manifest: dict  # of augmentation.py
    geometry: dict  # of preprocessing.py
    config: dict  # of train.py
    history: list[dict]  # rows of history.csv: step, loss, ...
    scores: dict | None  # of metrics.json

    @property
    def kind(self) -> str:
        """What it segmented: 'cells', 'classes' where there are several, or 'nuclei'."""
        return "nuclei" if self.geometry.get("kind") == "nuclei" else "classes" if self.classes > 1 else "cells"

    @property
    def classes(self) -> int:
        """How many kinds of pixels it tells apart, by their numbers; 1 for cells and for nuclei."""
        return self.geometry.get("classes", 1)

    @property
    def train(self) -> list[int]:
        """Numbers of the slices or images that trained."""
        return self.config["split"]["train"]

    @property
    def holdout(self) -> list[int]:
        """Numbers of the slices or images that judged."""
        return self.config["split"]["holdout"]

    @property
    def threshold(self) -> float:
        """Cell is where the probability is greater; chosen on training slices, 0.5 where none was chosen."""
        return self.config.get("threshold", 0.5)


# -------------------------------------------------------------------------------------------------- stacks


@dataclass(frozen=True)
class StackRun(Run):
    """A run on stacks of slices; of K classes predictions are (slices, K, H, W), and labels 0 .. K-1."""

    images: np.ndarray  # uint8 (N, H, W), the labelled slices
    labels: np.ndarray  # uint8 (N, H, W), 0 = membrane, 255 = cell
    judged: np.ndarray | None  # float32 (held out, H, W), probability of cell
    test: np.ndarray | None  # uint8 (M, H, W), the slices to segment
    prediction: np.ndarray | None  # float32 (M, H, W), their probability of cell

    @property
    def example(self) -> tuple[np.ndarray, np.ndarray]:
        """A training slice and its label, uint8 (H, W) each: the one to show augmentations on."""
        number = self.train[0]
        return np.asarray(self.images[number]), np.asarray(self.labels[number])

    @property
    def is_demo(self) -> bool:
        """Whether the data are the demo stack, that is synthetic."""
        return Path(self.manifest["data"]).name == "demo"

    @property
    def data_hash(self) -> str:
        """SHA-256 of the images that it was trained on, as augmentation.py found them."""
        return next((was for path, was in self.manifest["inputs"].items() if Path(path).name == VOLUME), "unknown")


def _stack_run(common: dict, data: Path) -> StackRun:
    """Read a run on stacks; `data` is the folder of the test stack."""
    work, manifest = common["work"], common["manifest"]
    labelled = sum(not sample["operations"] for sample in manifest["samples"])  # they come first
    images = open_stack(work / "augmented" / "images.tif", manifest["shape"])[:labelled]
    labels = open_stack(work / "augmented" / "labels.tif", manifest["shape"][:3])[:labelled]
    classes, size = manifest.get("classes", 1), images.shape[1:]
    judged = _probabilities(work / "holdout.tif", (len(common["config"]["split"]["holdout"]), *size), classes)
    try:
        test = read_images(data / TEST)
    except UserError:
        test = None
    prediction = None if test is None else _probabilities(common["out"], test.shape, classes)
    return StackRun(**common, images=images, labels=labels, judged=judged, test=test, prediction=prediction)


def _probabilities(path: Path, shape: tuple[int, ...], classes: int) -> np.ndarray | None:
    """A stack (N, H, W), of several classes (N, K, H, W), that train.py wrote; None where it is not there or others'.

    `shape` is (N, H, W) of the slices that it belongs to.
    """
    if not path.is_file():
        return None
    if classes > 1:
        try:
            return open_stack(path, [shape[0], classes, *shape[1:]])
        except ValueError:  # of other slices
            return None
    stack = read_stack(path)
    return stack if stack.shape == tuple(shape) else None


# -------------------------------------------------------------------------------------------------- nuclei


@dataclass(frozen=True)
class NucleiRun(Run):
    """A run on nuclei images of many sizes; they are read one by one, as they are wanted."""

    sources: dict[str, Source]  # where each image lies, by its name; those without masks, too
    windows: np.ndarray  # uint8 (P, side, side, 3) of augmentation.py: of each image some, then the augmented ones
    labels: np.ndarray  # uint16 (P, side, side), 0 = background, a number for each nucleus

    @property
    def data_hash(self) -> str:
        """SHA-256 of the hashes of all its images and masks, as augmentation.py found them, wherever they lay."""
        return hashlib.sha256("\n".join(sorted(self.manifest["inputs"].values())).encode()).hexdigest()

    def kind_of(self, number: int) -> str:
        """What an image shows: fluorescence, histology or bright-field."""
        return self.manifest["images"][number]["kind"]

    def read(self, number: int) -> Nuclei:
        """A labelled image, its nuclei and its levels."""
        return read_source(self.sources[self.manifest["images"][number]["name"]])

    def pages(self, numbers: list[int]) -> list[dict]:
        """The records of the windows that were cut of these images and not augmented."""
        wanted = set(numbers)
        return [sample for sample in self.manifest["samples"]
                if sample["source"] in wanted and not sample["operations"]]

    def predicted(self, name: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
        """Probability float32 (H, W) and nuclei uint16 (H, W) of an image; None where they are not there, or others'.

        `shape` is the image's, (H, W).
        """
        files = self.out / f"{name}.tif", self.out / f"{name}{SUFFIX}"
        if not all(file.is_file() for file in files):
            return None
        probability, nuclei = (read_stack(file)[0] for file in files)
        return (probability, nuclei) if probability.shape == nuclei.shape == tuple(shape) else None

    @property
    def others(self) -> list[Source]:
        """The images without masks that were predicted."""
        return [source for source in self.sources.values()
                if not source.masks and (self.out / f"{source.name}{SUFFIX}").is_file()]


def _nuclei_run(common: dict, data: Path) -> NucleiRun:
    """Read a run on nuclei; `data` is the folder of its images."""
    manifest, folder = common["manifest"], common["work"] / "augmented"
    sources = {source.name: source for source in find_sources(data)} if is_nuclei_folder(data) else {}
    for image in manifest["images"]:
        if image["name"] not in sources:
            raise UserError(f"{data} has no image {image['name']}, which this run was made of; name the folder of its "
                            "images with DATA")
    return NucleiRun(**common, sources=sources, windows=open_stack(folder / "images.tif", manifest["shape"]),
                     labels=open_stack(folder / "labels.tif", manifest["shape"][:3]))


# ------------------------------------------------------------------------------------------------ any of them


def last_run(work: Path | None = None, data: Path | None = None, out: Path | None = None) -> StackRun | NucleiRun:
    """Read a run; without arguments what the environment's WORK, DATA and OUT name, as for make.

    Their defaults: results, the data that the run was made of, and prediction.tif, of nuclei prediction. Raises
    UserError where no model was trained.
    """
    work = Path(work or os.environ.get("WORK") or "results")
    manifest = read_json(work / "augmented" / "manifest.json", STEPS)
    geometry = read_json(work / "patches" / "geometry.json", STEPS)
    config = read_json(work / "config.json", STEPS)
    if manifest["split"] != config["split"]:
        raise UserError(f"{work / 'model.keras'} was trained on another split than {work / 'augmented'} has now; "
                        f"{STEPS}")
    is_nuclei = geometry.get("kind") == "nuclei"
    data = Path(data or os.environ.get("DATA") or manifest["data"])
    out = Path(out or os.environ.get("OUT") or ("prediction" if is_nuclei else "prediction.tif"))
    with open(work / "history.csv") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    scores = read_json(work / "metrics.json", STEPS) if (work / "metrics.json").is_file() else None
    common = {"work": work, "out": out, "manifest": manifest, "geometry": geometry, "config": config,
              "history": history, "scores": scores}
    return (_nuclei_run if is_nuclei else _stack_run)(common, data)
