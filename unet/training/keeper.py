"""Write a run to disk after its epochs, so that it can be stopped at any moment and resumed."""

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
from unet.training.affinities import is_affinity_weight
from unet.training.encoders import build
from unet.training.strategy import is_chief
from utils import UserError, atomic_path, write_json

CHECKPOINT = "checkpoint.npz"
LARGE_CHECKPOINT, INTERVAL = 100_000_000, 300  # bytes; larger checkpoints are written at least so many seconds apart
OUTDATED = ("finished.json", "metrics.json", "holdout.tif", "holdout.png", "curve.png",
            "next.csv")  # as soon as there is a new model.keras


class Keeper(keras.callbacks.Callback):
    """A callback that writes the curve after each epoch, and the weights that predict and, last, a checkpoint.

    Large networks are written less often, see `INTERVAL`.
    The weights that predict are the mean over the last epochs of the schedule (Izmailov et al. 2018, algorithm 1),
    which the schedule chooses without any measurement; before those, the current weights. With patience they are the
    weights of the epoch with the least loss on the validation block, and the run ends when that loss has not fallen for
    so many epochs.

    If several processes train together, only the first one writes.

    A run that was killed at any moment resumes from the checkpoint, one file that is complete or still the previous
    one: weights, optimizer, the states of dropout's random numbers (which .keras files leave out), the mean, the
    history.
    """

    def __init__(self, work: Path, recipe: Recipe, config: dict):
        super().__init__()
        self.work, self.recipe, self.config = work, recipe, config
        self.rows: list[dict] = []  # of history.csv
        self.mean: list[np.ndarray] = []
        self.averaged_from = recipe.epochs - max(1, round(recipe.epochs * recipe.average))  # epoch, from 0
        self.bar = tqdm(disable=True)
        self.writes = True  # only the first process does
        self.saved_at, self.unsaved = 0.0, 0  # time of the last checkpoint, s, and epochs since

    def check(self, state: dict) -> None:
        """Take over the history of a checkpoint's state; raises UserError if it has other settings or tiles."""
        settings = state["config"]["recipe"]
        differences = ", ".join(name for name, value in self.config["recipe"].items() if settings.get(name) != value)
        if differences:
            raise UserError(f"{self.work / CHECKPOINT} is from a run that differs in {differences}; leave out --resume "
                            "to train again from the start, or all options of the training to go on with that run")
        self.rows = state["rows"]

    def start(self, model: keras.Model) -> None:
        """Restore a compiled model from the checkpoint, or write the first checkpoint, at epoch 0."""
        self.set_model(model)
        self.writes = is_chief(model.distribute_strategy)
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        leftovers = (*self.work.glob(f".{Path(CHECKPOINT).stem}.*.npz"), *self.work.glob(".model.*.keras"))
        for leftover in leftovers if self.writes else ():
            leftover.unlink()  # a run was killed while it wrote
        # a separate network: the one that trains would save its optimizer, too, twice the weights and a custom object
        self.predictor = build(self.recipe.network, self.config["channels"], self.config["normalisation"])
        if self.rows:
            self.restore()
        else:
            self.save_checkpoint()

    def restore(self) -> None:
        """Restore the model, the mean and the history from the checkpoint."""
        with np.load(self.work / CHECKPOINT) as arrays:
            for variable, name in self.variables():
                variable.assign(arrays[name])
            self.mean = [arrays[name] for name in arrays.files if name.startswith("mean")]
            self.rows = json.loads(str(arrays["state"]))["rows"]
        self.unsaved = 0

    def variables(self) -> list[tuple]:
        """List each variable that training changes, and its name in the checkpoint."""
        groups = {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
        return [(variable, f"{group}{number}") for group, variables in groups.items()
                for number, variable in enumerate(variables)]

    @property
    def best(self) -> int:
        """The epoch, from 0, with the least loss on the validation block."""
        losses = [row["val_loss"] for row in self.rows]
        return losses.index(min(losses))

    @property
    def finished(self) -> bool:
        """Whether the schedule has ended, or the loss has not fallen for as many epochs as patience allows."""
        if self.recipe.patience and self.rows and len(self.rows) - 1 - self.best >= self.recipe.patience:
            return True
        return len(self.rows) >= self.recipe.epochs

    def describe(self) -> str:
        """Say which weights model.keras has after the epochs so far."""
        count = len(self.rows) - self.unsaved
        if not count:
            return "is as it was"
        if self.recipe.patience:
            return f"has the weights of epoch {self.best + 1} of {count}, with the least loss on the validation block"
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
        if self.bar.disable and self.writes:  # no terminal: a line per epoch instead of the bar
            print(f"epoch {epoch + 1}/{self.recipe.epochs}  loss {logs['loss']:.4f}  {seconds:.0f} s", flush=True)
        self.config["seconds"] = round(sum((row["seconds"] for row in self.rows), seconds), 1)
        size = sum(4 * math.prod(variable.shape) for variable, _ in self.variables())
        # not after every epoch if the network is large: its epochs may last only seconds
        due = size < LARGE_CHECKPOINT or time.monotonic() - self.saved_at > INTERVAL or epoch + 1 >= self.recipe.epochs
        if all(logs["val_loss"] < row["val_loss"] for row in self.rows) if self.recipe.patience else due:
            self.save_model()
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.rows.append({"epoch": epoch + 1, "step": (epoch + 1) * self.recipe.steps, "learning_rate": rate,
                          **{name: float(value) for name, value in logs.items()}, "seconds": seconds})
        if self.writes:
            self.save_history()
        self.unsaved += 1
        if due or self.finished:
            self.save_checkpoint()  # last: if a kill comes before, the epoch is trained again and all is written then
        self.model.stop_training = self.finished

    def save_history(self) -> None:
        """Write history.csv."""
        with atomic_path(self.work / "history.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)

    def save_model(self) -> None:
        """Write model.keras and its config.json; remove the scores and pictures of an older model."""
        weights = zip(self.model.weights, self.mean or self.model.get_weights(), strict=True)
        self.predictor.set_weights([array for weight, array in weights if not is_affinity_weight(weight)])
        if not self.writes:
            return
        with atomic_path(self.work / "model.keras") as temporary:
            self.predictor.save(temporary)
        write_json(self.work / "config.json", self.config)
        for name in OUTDATED:
            (self.work / name).unlink(missing_ok=True)

    def save_checkpoint(self) -> None:
        """Write all that a run resumes from into one file, all or nothing."""
        if self.writes:
            arrays = {name: keras.ops.convert_to_numpy(variable) for variable, name in self.variables()}
            means = {f"mean{number}": array for number, array in enumerate(self.mean)}
            state = json.dumps({"config": self.config, "rows": self.rows})
            with atomic_path(self.work / CHECKPOINT) as temporary:
                np.savez(temporary, state=state, **arrays, **means)
        self.saved_at, self.unsaved = time.monotonic(), 0


def read_state(work: Path) -> dict | None:
    """Read the config and the rows of a checkpoint; None if no run was started.

    Raises UserError if it is broken, or missing although there is a model.
    """
    path = work / CHECKPOINT
    try:
        with np.load(path) as arrays:
            return json.loads(str(arrays["state"]))
    except FileNotFoundError:
        if (work / "model.keras").exists():
            raise UserError(f"{path} not found, though there is a model.keras; leave out --resume to train again "
                            "from the start") from None
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} cannot be read as a checkpoint ({error}); leave out --resume to train again from the "
                        "start") from None
