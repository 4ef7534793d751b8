"""What a run leaves on disk after every epoch, so that it can be stopped at any moment, and what it goes on from."""

from __future__ import annotations

import csv
import json
import math
import time
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np
from tqdm import tqdm

from model import Recipe
from unet.training.affinities import of_affinities
from unet.training.encoders import build
from unet.training.strategy import is_chief
from utils import UserError, atomic_path, write_json

CHECKPOINT = "checkpoint.npz"
LARGE, SELDOM = 100_000_000, 300  # bytes: larger checkpoints are written this many seconds apart, or more
OUTDATED = ("finished.json", "metrics.json", "holdout.tif", "holdout.png", "curve.png",
            "next.csv")  # by another model.keras


class Keeper(keras.callbacks.Callback):
    """After each epoch writes the weights that predict, the curve and, last, a checkpoint: what a stopped run needs.

    The weights that predict are the mean over the schedule's end (Izmailov et al. 2018, algorithm 1), chosen by the
    schedule and by nothing that was measured; before its end, those of now. With patience they are those of the
    least loss on the validation block, and the run ends when that has not fallen for so many epochs.

    Of several processes that train together the first one alone writes.

    Killed at any moment, a run goes on from the checkpoint, one file that is there whole or as it was: weights,
    optimizer, the states of dropout's random numbers (which .keras files leave out), the mean, the history.
    """

    def __init__(self, work: Path, recipe: Recipe, config: dict):
        super().__init__()
        self.work, self.recipe, self.config = work, recipe, config
        self.rows: list[dict] = []  # of history.csv
        self.mean: list[np.ndarray] = []
        self.averaged_from = recipe.epochs - max(1, round(recipe.epochs * recipe.average))  # epoch, from 0
        self.bar = tqdm(disable=True)
        self.writes = True  # but for other processes than the first
        self.written, self.unwritten = 0.0, 0  # when the last checkpoint was, s, and epochs since

    def check(self, state: dict) -> None:
        """Take the history of a checkpoint's state; raises UserError where its settings or tiles are others."""
        settings = state["config"]["recipe"]
        other = ", ".join(name for name, value in self.config["recipe"].items() if settings.get(name) != value)
        if other:
            raise UserError(f"{self.work / CHECKPOINT} is of a run that differs in {other}; leave out --resume to "
                            "train anew, or all options of the training to go on with that run")
        self.rows = state["rows"]

    def start(self, model: keras.Model) -> None:
        """Give a compiled model all that the checkpoint has, or write the first checkpoint, at epoch 0."""
        self.set_model(model)
        self.writes = is_chief(model.distribute_strategy)
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        leftovers = (*self.work.glob(f".{Path(CHECKPOINT).stem}.*.npz"), *self.work.glob(".model.*.keras"))
        for leftover in leftovers if self.writes else ():
            leftover.unlink()  # of a run that was killed while it wrote
        # a network of its own, as the one that trains saves its optimizer too, twice the weights and a custom object
        self.predictor = build(self.recipe.network, self.config["channels"], self.config["normalisation"])
        if self.rows:
            self.restore()
        else:
            self.save_checkpoint()

    def restore(self) -> None:
        """Give the model, and this, what the checkpoint has."""
        with np.load(self.work / CHECKPOINT) as arrays:
            for variable, name in self.variables():
                variable.assign(arrays[name])
            self.mean = [arrays[name] for name in arrays.files if name.startswith("mean")]
            self.rows = json.loads(str(arrays["state"]))["rows"]
        self.unwritten = 0

    def variables(self) -> list[tuple]:
        """Each variable that training changes, and its name in the checkpoint."""
        groups = {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
        return [(variable, f"{group}{number}") for group, variables in groups.items()
                for number, variable in enumerate(variables)]

    @property
    def best(self) -> int:
        """The epoch, from 0, of the least loss on the validation block."""
        losses = [row["val_loss"] for row in self.rows]
        return losses.index(min(losses))

    @property
    def finished(self) -> bool:
        """Whether the schedule is at its end, or patience is."""
        if self.recipe.patience and self.rows and len(self.rows) - 1 - self.best >= self.recipe.patience:
            return True
        return len(self.rows) >= self.recipe.epochs

    def describe(self) -> str:
        """Say what model.keras has after the epochs so far."""
        count = len(self.rows) - self.unwritten
        if not count:
            return "is as it was"
        if self.recipe.patience:
            return f"has the weights of epoch {self.best + 1} of {count}, of the least loss on the validation block"
        if count > self.averaged_from + 1:
            return f"has the mean of the weights of epochs {self.averaged_from + 1} to {count}"
        return f"has the weights of epoch {count}"

    def on_train_begin(self, logs=None) -> None:
        steps = self.recipe.steps
        self.bar = tqdm(total=self.recipe.epochs * steps, initial=len(self.rows) * steps, desc="training", unit="step",
                        disable=None if self.writes else True)

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.bar.update()
        if batch % 10 == 0:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None) -> None:
        if epoch >= self.averaged_from and not self.recipe.patience:
            weights, count = self.model.get_weights(), epoch - self.averaged_from + 1
            self.mean = [mean + (new - mean) / count for mean, new in zip(self.mean or weights, weights, strict=True)]
        seconds = round(time.perf_counter() - self.began, 2)
        if self.bar.disable and self.writes:  # no terminal: a line an epoch instead of the bar
            print(f"epoch {epoch + 1}/{self.recipe.epochs}  loss {logs['loss']:.4f}  {seconds:.0f} s", flush=True)
        self.config["seconds"] = round(sum((row["seconds"] for row in self.rows), seconds), 1)
        due = self.due or epoch + 1 >= self.recipe.epochs
        if all(logs["val_loss"] < row["val_loss"] for row in self.rows) if self.recipe.patience else due:
            self.save_model()
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.rows.append({"epoch": epoch + 1, "step": (epoch + 1) * self.recipe.steps, "learning_rate": rate,
                          **{name: float(value) for name, value in logs.items()}, "seconds": seconds})
        if self.writes:
            self.save_curve()
        self.unwritten += 1
        if due or self.finished:
            self.save_checkpoint()  # last: whatever a kill leaves undone before, the epoch that is trained again does
        self.model.stop_training = self.finished

    def save_curve(self) -> None:
        """Write history.csv."""
        with atomic_path(self.work / "history.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint: after every epoch, but for large networks; their epochs may be seconds.
        """
        size = sum(4 * math.prod(variable.shape) for variable, _ in self.variables())
        return size < LARGE or time.monotonic() - self.written > SELDOM

    def save_model(self) -> None:
        """Write model.keras and the config.json that belongs to it; what judged an older model goes."""
        weights = zip(self.model.weights, self.mean or self.model.get_weights(), strict=True)
        self.predictor.set_weights([array for weight, array in weights if not of_affinities(weight)])
        if not self.writes:
            return
        with atomic_path(self.work / "model.keras") as temporary:
            self.predictor.save(temporary)
        write_json(self.work / "config.json", self.config)
        for name in OUTDATED:
            (self.work / name).unlink(missing_ok=True)

    def save_checkpoint(self) -> None:
        """Write all that a run goes on from as one file, all or nothing."""
        if self.writes:
            arrays = {name: keras.ops.convert_to_numpy(variable) for variable, name in self.variables()}
            means = {f"mean{number}": array for number, array in enumerate(self.mean)}
            state = json.dumps({"config": self.config, "rows": self.rows})
            with atomic_path(self.work / CHECKPOINT) as temporary:
                np.savez(temporary, state=state, **arrays, **means)
        self.written, self.unwritten = time.monotonic(), 0


def read_state(work: Path) -> dict | None:
    """Read what a checkpoint has beside arrays: config and rows; None where no run was started.

    Raises UserError where it is broken, or gone though a model is there.
    """
    path = work / CHECKPOINT
    try:
        with np.load(path) as arrays:
            return json.loads(str(arrays["state"]))
    except FileNotFoundError:
        if (work / "model.keras").exists():
            raise UserError(f"{path} not found, though there is a model.keras; leave out --resume to train "
                            "anew") from None
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} cannot be read as a checkpoint ({error}); leave out --resume to train anew") from None
