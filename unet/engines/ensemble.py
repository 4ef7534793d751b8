"""An ensemble of trained networks: the mean of their probabilities, and of what each learnt on its slices."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unet.engines.engines import open_engine
from unet.engines.predictor import Predictor, make_predictor
from unet.inputs.pages import natural
from unet.tasks import task_of
from unet.tasks.task import Task
from unet.training.trained import read_config
from utils import UserError

MUST_AGREE = {  # what models must have in common so that their probabilities mean the same, and how to read it
    "task": lambda config: config["task"]["name"],
    "number of channels": lambda config: config["channels"],
    "number of classes": lambda config: config["network"]["classes"],
    "normalisation": lambda config: config["normalisation"]}


@dataclass(frozen=True)
class Ensemble:
    """Predictors for one task: an image (H, W[, C]) -> the mean of their probabilities, float32 (H, W[, classes]).

    They predict one after the other, so that memory holds only the sum and one member's probability.
    """

    members: Sequence[Predictor]

    @property
    def task(self) -> Task:
        """The task that all of them were trained for."""
        return self.members[0].task

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Predict a whole image."""
        return self._mean(member(image) for member in self.members)

    def with_spread(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict as a call does; return with the probability how far models, and the flips of each, disagree.

        This is the standard deviation over all of them, float32 (H, W), 0 to .5. For several classes, it combines the
        greatest one between models with the greatest one between flips.
        """
        total = squares = within = np.float32(0)
        for member in self.members:
            mean, spread = member.with_spread(image)
            total, squares = total + mean, squares + mean**2
            within = within + (0 if spread is None else spread**2)
        count = np.float32(len(self.members))
        mean = total / count
        between = np.maximum(squares / count - mean**2, 0)  # rounding may leave it below 0
        between = between if mean.ndim == 2 else between.max(axis=-1)
        return mean, np.sqrt(within / count + between)

    def rows(self, image: np.ndarray, levels: dict, first: int, last: int) -> np.ndarray:
        """Predict rows `first` to `last` - 1, as `Predictor.rows` does."""
        return self._mean(member.rows(image, levels, first, last) for member in self.members)

    def block(self, image: np.ndarray, levels: dict, corner: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """Predict a part of an image, as `Predictor.block` does."""
        return self._mean(member.block(image, levels, corner, shape) for member in self.members)

    @property
    def best_threads(self) -> int:
        """The best number of images to predict at the same time, in threads."""
        return min(member.best_threads for member in self.members)

    @property
    def by_rows(self) -> bool:
        """Whether `rows` returns the same as a call."""
        return all(member.by_rows for member in self.members)

    def row_step(self, shape: tuple[int, int]) -> int:
        """Return the best number of rows to predict at once: the coarsest network's, whose grid fits the others."""
        return max(self.members, key=lambda member: member.network.stride).row_step(shape)

    def describe(self) -> str:
        """Describe for the console how each image is predicted."""
        return f"mean of {len(self.members)} models, {self.members[0].describe()}"

    def _mean(self, probabilities: Iterable[np.ndarray]) -> np.ndarray:
        total = None
        for probability in probabilities:
            total = probability.copy() if total is None else np.add(total, probability, out=total)
        return total / np.float32(len(self.members))


def reopen_models(models: Sequence[Path], engine: str, precision: str, flips: int | None) -> Predictor | Ensemble:
    """Open trained models that another process has checked, to predict at the image's own size."""
    configs = read_configs(models)
    members = [make_predictor(open_engine(model, engine, precision)[0], {**config, "recipe": configs[0]["recipe"]},
                              flips, (1.0,)) for model, config in zip(models, configs, strict=True)]
    return Ensemble(members) if len(members) > 1 else members[0]


def find_models(names: Sequence[Path]) -> list[Path]:
    """List the files that the user named, or that match a pattern (`*`), each once and fold-2 before fold-10.

    Raises UserError if a pattern matches no file.
    """
    models: dict[Path, Path] = {}
    for name in names:
        paths = [name] if name.exists() or not glob.has_magic(str(name)) else glob.glob(str(name))
        if not paths:
            raise UserError(f"--model {name} matches no file; name trained models, like results/fold-1/model.keras")
        models |= {Path(path).resolve(): Path(path) for path in paths}
    return sorted(models.values(), key=natural)


def read_configs(models: Sequence[Path]) -> list[dict]:
    """Read the config.json of each model; raise UserError if their probabilities do not mean the same."""
    configs = [read_config(model) for model in models]
    for model, config in zip(models, configs, strict=True):
        for what, read in MUST_AGREE.items():
            if read(config) != read(configs[0]):
                raise UserError(f"{model} has another {what} ({read(config)}) than {models[0]} ({read(configs[0])}); "
                                "only models with the same one can be averaged")
    return configs


def combine_learnt(configs: Sequence[dict]) -> dict:
    """Combine what models learnt; {} if none of them has learnt anything yet."""
    learnts = [config["learnt"] for config in configs if "learnt" in config]
    return task_of(configs[0]).combine_learnt(learnts) if len(learnts) > 1 else learnts[0] if learnts else {}
