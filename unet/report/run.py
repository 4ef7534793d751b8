"""What the last run left: its settings, samples, scores and predictions, read for whoever looks at them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from preprocessing import TrainingArrays
from unet.inputs.layouts import Chosen, Layout, layout_of
from unet.inputs.samples import Samples
from unet.inputs.stacks import open_stack
from unet.scores.doubt import Doubt, read_doubts
from unet.segment.judge import neighbours
from unet.tasks import task_of
from unet.tasks.task import Judged, Options, Outputs, Task, is_large
from utils import UserError, read_json

STEPS = "run 'make', or the three scripts one after the other (with the same --work)"


@dataclass(frozen=True)
class Run:
    """A run, finished or stopped; what it did not come to is None or empty."""

    work: Path  # the folder of all that it made
    task: Task
    layout: Layout  # of the data that it was made of
    outputs: Outputs  # what it predicted
    manifest: dict  # of augmentation.py
    geometry: dict  # of preprocessing.py
    config: dict  # of train.py
    history: list[dict]  # rows of history.csv: step, loss, ...
    scores: dict | None  # of metrics.json

    @property
    def recipe(self) -> dict:
        """Network and schedule."""
        return self.config["recipe"]

    @property
    def learnt(self) -> dict:
        """Thresholds and walls, as config.json has them; empty where the run was stopped before."""
        return self.config.get("learnt", {})

    @property
    def train(self) -> list[int]:
        """Numbers of the samples that trained."""
        return self.config["split"]["train"]

    @property
    def holdout(self) -> list[int]:
        """Numbers of the samples that judged and never trained."""
        return self.config["split"]["holdout"]

    @property
    def is_demo(self) -> bool:
        """Whether the data are synthetic: the demo stack, or something made of it in a folder inside."""
        return "demo" in Path(self.manifest["data"]).parts[-2:]

    # --------------------------------------------------------------------------------- steps 1 and 2

    @property
    def options(self) -> Options:
        """What step 1 drew from."""
        return Options(**{name: tuple(value) if isinstance(value, list) else value
                          for name, value in self.manifest["options"].items()})

    @cached_property
    def pages(self) -> np.ndarray:
        """All that step 1 wrote, the originals first: (M, H, W[, 3]); `manifest["samples"]` says what each is."""
        return open_stack(self.work / "augmented" / "images.tif", self.manifest["shape"])

    @cached_property
    def labels(self) -> np.ndarray:
        """The labels of `pages`, (M, H, W)."""
        return open_stack(self.work / "augmented" / "labels.tif", self.manifest["shape"][:3])

    def page(self, number: int) -> tuple[np.ndarray, np.ndarray, dict]:
        """A page of step 1: image (H, W[, 3]), label (H, W), and the levels that `task.normalise` takes."""
        levels = self.manifest["sources"][self.manifest["samples"][number]["source"]]["levels"]
        return np.asarray(self.pages[number]), np.asarray(self.labels[number]), levels

    def originals(self, source: int) -> list[int]:
        """Numbers of the pages that are parts of a sample and were not augmented."""
        return [page["page"] for page in self.manifest["samples"]
                if page["source"] == source and not page["operations"]]

    @property
    def content(self) -> TrainingArrays:
        """How a page becomes image, target and weights."""
        return TrainingArrays(self.task, self.geometry["weights"], self.geometry["shares"])

    # -------------------------------------------------------------------------------- what came out

    def _judged(self, outputs: Outputs, samples: Samples, number: int) -> Judged | None:
        probability = self.task.read(outputs, samples, number)
        if probability is None:
            return None
        beside = [self.task.read(outputs, samples, other) for other in neighbours(range(len(samples)), number)
                  ] if self.task.redraws(self.learnt) and not is_large(probability.shape) else []
        redrawn = self.task.redraw(probability, self.learnt, [one for one in beside if one is not None])
        sample = samples[number]
        sample = replace(sample, image=np.asarray(sample.image))  # whole, of a page that is read by rows, too
        return Judged(sample, probability, redrawn, self.task.segment(redrawn, self.learnt))

    @cached_property
    def judged(self) -> list[Judged]:
        """The held-out samples and what was predicted of them, as far as it is there."""
        if self.scores is None:
            return []
        samples = Chosen(self.layout, self.holdout)
        outputs = self.task.holdout_outputs(self.work, self.outputs)
        rows = (self._judged(outputs, samples, number) for number in range(len(samples)))
        return [row for row in rows if row is not None]

    @cached_property
    def to_predict(self) -> Samples:
        """What nobody labelled."""
        return self.layout.to_predict()

    @property
    def doubts(self) -> list[Doubt]:
        """What to label next, the least sure first; of what is to be predicted now."""
        names = self.to_predict.names if len(self.to_predict) else ()
        return [one for one in read_doubts(self.work / "next.csv") if one.name in names]

    def predicted(self, numbers: Sequence[int]) -> list[Judged]:
        """Those of `to_predict` with these numbers, and what was predicted of them, as far as it is there."""
        rows = (self._judged(self.outputs, self.to_predict, number) for number in numbers)
        return [row for row in rows if row is not None]


def last_run(work: str | Path = "results", data: str | Path | None = None, out: str | Path | None = None) -> Run:
    """Read the run in the folder `work`, or in its folder `demo` where there is no other.

    Its data are looked for where they were, or in `data`; its prediction where it wrote it, beside it, or in `out`.
    Raises UserError where no model was trained, and where the data are others.
    """
    work = Path(work)
    if not (work / "config.json").is_file() and (work / "demo" / "config.json").is_file():
        work = work / "demo"
    manifest = read_json(work / "augmented" / "manifest.json", STEPS, ("task", "sources"))
    geometry = read_json(work / "patches" / "geometry.json", STEPS, ("task", "shares"))
    config = read_json(work / "config.json", STEPS, ("task", "recipe"))
    if manifest["split"] != config["split"]:
        raise UserError(f"{work / 'model.keras'} was trained on another split than {work / 'augmented'} has now; "
                        f"{STEPS}")
    task, layout = task_of(config), layout_of(data or manifest["data"])
    if sorted(layout.hashes().values()) != sorted(manifest["inputs"].values()):
        raise UserError(f"{layout.folder} has other images or labels than this run was made of; name their folder with "
                        f"data= or --data, or {STEPS}")
    with open(work / "history.csv") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    scores = read_json(work / "metrics.json", STEPS) if (work / "metrics.json").is_file() else None
    outputs = task.outputs(Path(out) if out else _where(work, task))
    return Run(work, task, layout, outputs, manifest, geometry, config, history, scores)


def _where(work: Path, task: Task) -> Path:
    """The prediction of a run: where it wrote it, beside all else, or where the user stands."""
    marks = read_json(work / "finished.json", STEPS) if (work / "finished.json").is_file() else {}
    places = [Path(marks["predicted"]["out"])] if "predicted" in marks else []
    places.append(work / task.default_out)
    return next((place for place in places if place.exists()), task.default_out)
