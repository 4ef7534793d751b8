"""What a run leaves on disk after every epoch, so that it can be stopped, and what it goes on from."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever else the user's Keras is set to

import keras
import numpy as np
from tqdm import tqdm

from model import Recipe, build_unet
from unet.report.pictures import save_curve
from utils import NotLearning, UserError, atomic_folder, atomic_path, read_json, write_json


class Keeper(keras.callbacks.Callback):
    """After each epoch writes what a stopped run needs: the weights that predict, the curve, a checkpoint.

    The weights that predict are the mean over the schedule's end (Izmailov et al. 2018, algorithm 1), chosen by the
    schedule and by nothing that was measured; before its end, those of now. With a validation block they are those of
    its least loss.
    """

    def __init__(self, work: Path, recipe: Recipe, config: dict, state: dict | None, tiles_hash: str):
        super().__init__()
        self.work, self.recipe, self.config, self.tiles_hash = work, recipe, config, tiles_hash
        state = state or {"rows": [], "count": 0, "mean": None}
        self.rows: list[dict] = state["rows"]
        self.count: int = state["count"]
        self.mean: list[np.ndarray] | None = state["mean"]
        self.bar = tqdm(disable=True)
        self.first = recipe.epochs - max(1, round(recipe.epochs * recipe.average))

    def on_train_begin(self, logs=None) -> None:
        # a network of its own, as the one that trains saves its optimizer too, twice the weights and a custom object
        self.predictor = build_unet(self.recipe.network, self.config["channels"], **self.config["normalisation"])
        steps = self.recipe.steps
        self.bar = tqdm(total=self.recipe.epochs * steps, initial=len(self.rows) * steps, desc="training", unit="step",
                        disable=None)

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.bar.update()
        if batch % 10 == 0:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None) -> None:
        if not np.isfinite(logs["loss"]):
            raise NotLearning("the loss is not a number any more; try again with a smaller --lr")
        if epoch >= self.first and "val_loss" not in logs:
            self.count += 1
            weights = self.model.get_weights()
            self.mean = weights if self.mean is None else [
                mean + (new - mean) / self.count for mean, new in zip(self.mean, weights, strict=True)]
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.rows.append({"epoch": epoch + 1, "step": (epoch + 1) * self.recipe.steps, "learning_rate": rate,
                          **{name: float(value) for name, value in logs.items()},
                          "seconds": round(time.perf_counter() - self.began, 2)})
        if self.bar.disable:  # no terminal: a line an epoch instead of the bar
            print(f"epoch {epoch + 1}/{self.recipe.epochs}  loss {logs['loss']:.4f}  "
                  f"{self.rows[-1]['seconds']:.0f} s", flush=True)
        self.save()

    def on_train_end(self, logs=None) -> None:
        self.bar.close()

    def save(self) -> None:
        """Write checkpoint/, history.csv and, where this epoch's weights are to predict, model.keras."""
        with atomic_folder(self.work / "checkpoint") as folder:
            self.model.save(folder / "last.keras")
            if self.mean is not None:
                np.savez(folder / "mean.npz", *self.mean)
            self.write_state(folder)
        with atomic_path(self.work / "history.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)
        losses = [row["val_loss"] for row in self.rows if "val_loss" in row]
        if not losses or losses[-1] == min(losses):
            self.save_model()

    def write_state(self, folder: Path, finished: bool = False) -> None:
        """Write what else than weights a run goes on from, and whether there is anything left to do."""
        write_json(folder / "state.json", {"rows": self.rows, "count": self.count, "tiles": self.tiles_hash,
                                           "settings": self.config["recipe"], "finished": finished})

    def finish(self) -> None:
        """Give `predictor` the weights on disk, the mean or the validation block's best, and draw curve.png."""
        self.predictor.load_weights(self.work / "model.keras")
        self.write_state(self.work / "checkpoint", finished=True)
        save_curve(self.work / "curve.png", self.rows)

    def save_model(self) -> None:
        """Write model.keras and the config.json that belongs to it; what judged an older model goes."""
        self.predictor.set_weights(self.mean or self.model.get_weights())
        with atomic_path(self.work / "model.keras") as temporary:
            self.predictor.save(temporary)
        self.config["seconds"] = round(sum(row["seconds"] for row in self.rows), 1)
        write_json(self.work / "config.json", self.config)
        for name in ("metrics.json", "holdout.tif", "holdout.png", "curve.png"):
            (self.work / name).unlink(missing_ok=True)


def load_checkpoint(work: Path, settings: dict, tiles_hash: str) -> dict:
    """What `Keeper` wrote; raises UserError where there is none, or it is of a run with other settings or tiles."""
    folder = work / "checkpoint"
    state = read_json(folder / "state.json", "there is no stopped run to continue; leave out --resume")
    if state["settings"] != settings or state["tiles"] != tiles_hash:
        other = "settings" if state["settings"] != settings else "tiles"
        raise UserError(f"{folder} is of a run with other {other}; use the options it was started with, or leave out "
                        "--resume to start anew")
    if state["finished"]:
        raise UserError(f"{folder} is of a run that is finished; leave out --resume to train anew")
    state["mean"] = None
    if (folder / "mean.npz").is_file():
        with np.load(folder / "mean.npz") as arrays:
            state["mean"] = [arrays[name] for name in arrays.files]
    return state
