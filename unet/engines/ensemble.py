"""Several trained networks as one: the mean of their probabilities, and of what each learnt on its slices."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unet.engines.engines import open_engine
from unet.engines.predictor import Predictor, predictor_of
from unet.inputs.pages import natural
from unet.tasks import task_of
from unet.tasks.task import Task
from unet.training.trained import read_config
from utils import UserError

ALIKE = {  # what models have to have in common so that their probabilities mean the same, and how it is read
    "task": lambda config: config["task"]["name"],
    "number of channels": lambda config: config["channels"],
    "number of classes": lambda config: config["network"]["classes"],
    "normalisation": lambda config: config["normalisation"]}


@dataclass(frozen=True)
class Ensemble:
    """Predictors of one task as one: an image (H, W[, C]) -> the mean of what they say, float32 (H, W[, classes]).

    They predict one after the other: beside the sum, one member's probability is in memory.
    """

    members: Sequence[Predictor]

    @property
    def task(self) -> Task:
        """What all of them were trained for."""
        return self.members[0].task

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Predict a whole image."""
        return self._mean(member(image) for member in self.members)

    def with_spread(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict as a call does; gives with it how far models, and flips of each, disagree.

        That is the standard deviation over all of them, float32 (H, W), 0 to .5; of several classes the greatest
        between models, and the greatest between flips, are taken together.
        """
        total = squares = within = np.float32(0)
        for member in self.members:
            mean, spread = member.with_spread(image)
            total, squares = total + mean, squares + mean**2
            within = within + (0 if spread is None else spread**2)
        count = np.float32(len(self.members))
        mean = total / count
        between = np.maximum(squares / count - mean**2, 0)  # what is alike differs by rounding
        between = between if mean.ndim == 2 else between.max(axis=-1)
        return mean, np.sqrt(within / count + between)

    def rows(self, image: np.ndarray, levels: dict, first: int, last: int) -> np.ndarray:
        """Predict rows `first` to `last` - 1, as `Predictor.rows`."""
        return self._mean(member.rows(image, levels, first, last) for member in self.members)

    def block(self, image: np.ndarray, levels: dict, corner: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """Predict a part of an image, as `Predictor.block`."""
        return self._mean(member.block(image, levels, corner, shape) for member in self.members)

    @property
    def at_once(self) -> int:
        """How many images are predicted best at the same time, in threads."""
        return min(member.at_once for member in self.members)

    @property
    def by_rows(self) -> bool:
        """Whether `rows` gives what a call gives."""
        return all(member.by_rows for member in self.members)

    def row_step(self, shape: tuple[int, int]) -> int:
        """How many rows are predicted best at once: those of the coarsest network, on whose grid the others lie."""
        return max(self.members, key=lambda member: member.network.stride).row_step(shape)

    def in_words(self) -> str:
        """What is done to each image, for the console."""
        return f"mean of {len(self.members)} models, {self.members[0].in_words()}"

    def _mean(self, probabilities: Iterable[np.ndarray]) -> np.ndarray:
        total = None
        for one in probabilities:
            total = one.copy() if total is None else np.add(total, one, out=total)
        return total / np.float32(len(self.members))


def open_again(models: Sequence[Path], engine: str, precision: str, flips: int | None) -> Predictor | Ensemble:
    """Open trained models in another process than the one that checked them, at the image's own size."""
    configs = read_configs(models)
    members = [predictor_of(open_engine(model, engine, precision)[0], {**config, "recipe": configs[0]["recipe"]}, flips,
                            (1.0,)) for model, config in zip(models, configs, strict=True)]
    return Ensemble(members) if len(members) > 1 else members[0]


def models_of(names: Sequence[Path]) -> list[Path]:
    """The files that a user named, or patterns (`*`) of them, each once and fold-2 before fold-10.

    Raises UserError where a pattern fits no file.
    """
    models: dict[Path, Path] = {}
    for name in names:
        paths = [name] if name.exists() or not glob.has_magic(str(name)) else glob.glob(str(name))
        if not paths:
            raise UserError(f"--model {name} fits no file; name trained models, like results/fold-1/model.keras")
        models |= {Path(path).resolve(): Path(path) for path in paths}
    return sorted(models.values(), key=natural)


def read_configs(models: Sequence[Path]) -> list[dict]:
    """The config.json of each model; raises UserError where their probabilities do not mean the same."""
    configs = [read_config(model) for model in models]
    for model, config in zip(models, configs, strict=True):
        for what, read in ALIKE.items():
            if read(config) != read(configs[0]):
                raise UserError(f"{model} is of another {what} ({read(config)}) than {models[0]} ({read(configs[0])}); "
                                "models whose probabilities are averaged have to be alike in that")
    return configs


def learnt_together(configs: Sequence[dict]) -> dict:
    """What models learnt, as one; {} where none of them did yet."""
    learnts = [config["learnt"] for config in configs if "learnt" in config]
    return task_of(configs[0]).together(learnts) if len(learnts) > 1 else learnts[0] if learnts else {}
