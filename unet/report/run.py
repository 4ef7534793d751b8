"""Read a run: its settings, samples, scores and predictions."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from preprocessing import TrainingArrays
from unet.inputs.layouts import Layout, Subset, layout_of
from unet.inputs.samples import Samples
from unet.inputs.stacks import open_stack
from unet.scores.doubt import Doubt, read_doubts
from unet.segment.judge import neighbouring
from unet.tasks import task_of
from unet.tasks.task import Options, Outputs, Prediction, Task, is_large
from utils import UserError, read_json

RUN_FIRST = "run 'make', or the three scripts one after the other (with the same --work)"


@dataclass(frozen=True)
class Run:
    """A run, finished or stopped; what a stopped run lacks is None or empty."""

    work: Path  # its folder
    task: Task
    layout: Layout  # of its data
    outputs: Outputs  # the files of its prediction
    manifest: dict  # of augmentation.py
    geometry: dict  # of preprocessing.py
    config: dict  # of train.py
    history: list[dict]  # rows of history.csv: step, loss, ...
    scores: dict | None  # of metrics.json

    @property
    def recipe(self) -> dict:
        """The settings of the network and of its training."""
        return self.config["recipe"]

    @property
    def learnt(self) -> dict:
        """Thresholds and walls, as in config.json; empty if the run was stopped before they were learnt."""
        return self.config.get("learnt", {})

    @property
    def train(self) -> list[int]:
        """The numbers of the training samples."""
        return self.config["split"]["train"]

    @property
    def holdout(self) -> list[int]:
        """The numbers of the held-out samples, which were never trained on."""
        return self.config["split"]["holdout"]

    @property
    def shows_demo(self) -> bool:
        """True if the data's folder is named demo, or lies in one: the synthetic demo stack, or data made from it."""
        return "demo" in Path(self.manifest["data"]).parts[-2:]

    # --------------------------------------------------------------------------------- steps 1 and 2

    @property
    def options(self) -> Options:
        """The ranges from which step 1 drew."""
        return Options(**{name: tuple(value) if isinstance(value, list) else value
                          for name, value in self.manifest["options"].items()})

    @cached_property
    def pages(self) -> np.ndarray:
        """All pages of step 1, originals first: (M, H, W[, 3]); `manifest["samples"]` describes each."""
        return open_stack(self.work / "augmented" / "images.tif", self.manifest["shape"])

    @cached_property
    def labels(self) -> np.ndarray:
        """The labels of `pages`, (M, H, W)."""
        return open_stack(self.work / "augmented" / "labels.tif", self.manifest["shape"][:3])

    def page(self, number: int) -> tuple[np.ndarray, np.ndarray, dict]:
        """Return a page of step 1: image (H, W[, 3]), label (H, W), and the levels that `task.normalise` needs."""
        levels = self.manifest["sources"][self.manifest["samples"][number]["source"]]["levels"]
        return np.asarray(self.pages[number]), np.asarray(self.labels[number]), levels

    def originals(self, source: int) -> list[int]:
        """Return the numbers of the pages that show a sample or its parts and were not augmented."""
        return [page["page"] for page in self.manifest["samples"]
                if page["source"] == source and not page["operations"]]

    @property
    def training_arrays(self) -> TrainingArrays:
        """The object that makes a network's input, target and weights from a page."""
        return TrainingArrays(self.task, self.geometry["weights"], self.geometry["shares"])

    # ---------------------------------------------------------------------------------- predictions

    def _read_predictions(self, outputs: Outputs, samples: Samples, numbers: Iterable[int]) -> list[Prediction]:
        """Return the samples with these numbers and their predictions; leave out those without a prediction."""
        predictions = []
        for number in numbers:
            probability = self.task.read(outputs, samples, number)
            if probability is None:
                continue
            around = [self.task.read(outputs, samples, other) for other in neighbouring(range(len(samples)), number)
                      ] if self.task.redraws(self.learnt) and not is_large(probability.shape) else []
            redrawn = self.task.redraw(probability, self.learnt, [one for one in around if one is not None])
            sample = samples[number]
            sample = replace(sample, image=np.asarray(sample.image))  # whole, if it is read row by row
            predictions.append(Prediction(sample, probability, redrawn, self.task.segment(redrawn, self.learnt)))
        return predictions

    @cached_property
    def holdout_predictions(self) -> list[Prediction]:
        """The held-out samples and their predictions, without those whose prediction is missing."""
        if self.scores is None:
            return []
        samples, outputs = Subset(self.layout, self.holdout), self.task.holdout_outputs(self.work, self.outputs)
        return self._read_predictions(outputs, samples, range(len(samples)))

    def predictions(self, numbers: Iterable[int]) -> list[Prediction]:
        """Return those of `to_predict` with these numbers and their predictions, without those that are missing."""
        return self._read_predictions(self.outputs, self.to_predict, numbers)

    @cached_property
    def to_predict(self) -> Samples:
        """The unlabelled samples."""
        return self.layout.to_predict()

    @property
    def doubts(self) -> list[Doubt]:
        """The unlabelled samples to label next, the least sure first."""
        names = self.to_predict.names if len(self.to_predict) else ()
        return [one for one in read_doubts(self.work / "next.csv") if one.name in names]


def last_run(work: str | Path = "results", data: str | Path | None = None, out: str | Path | None = None) -> Run:
    """Read the run in the folder `work`; if there is none, the one in `work`/demo.

    `data` is the folder of its data and `out` its prediction, if they were moved. Raise UserError if no model was
    trained, if it was trained on another split than step 1 has now, or if the data differ from the run's.
    """
    work = Path(work)
    if not (work / "config.json").is_file() and (work / "demo" / "config.json").is_file():
        work = work / "demo"
    manifest = read_json(work / "augmented" / "manifest.json", RUN_FIRST, ("task", "sources"))
    geometry = read_json(work / "patches" / "geometry.json", RUN_FIRST, ("task", "shares"))
    config = read_json(work / "config.json", RUN_FIRST, ("task", "recipe"))
    if manifest["split"] != config["split"]:
        raise UserError(f"{work / 'model.keras'} was trained on another split than the one in {work / 'augmented'}; "
                        f"{RUN_FIRST}")
    task, layout = task_of(config), layout_of(data or manifest["data"])
    if sorted(layout.hashes().values()) != sorted(manifest["inputs"].values()):
        raise UserError(f"{layout.folder} has other images or labels than this run was made from; name their folder "
                        f"with data= or --data, or {RUN_FIRST}")
    with open(work / "history.csv") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    scores = read_json(work / "metrics.json", RUN_FIRST) if (work / "metrics.json").is_file() else None
    outputs = task.outputs(Path(out) if out else _find_output(work, task))
    return Run(work, task, layout, outputs, manifest, geometry, config, history, scores)


def _find_output(work: Path, task: Task) -> Path:
    """Find the prediction of a run: where the run wrote it, in the run's folder, or in the current folder."""
    stages = read_json(work / "finished.json", RUN_FIRST) if (work / "finished.json").is_file() else {}
    places = [Path(stages["predicted"]["out"])] if "predicted" in stages else []
    places.append(work / task.default_out)
    return next((place for place in places if place.exists()), task.default_out)
