"""Step 3: train a U-Net on the tiles, judge it on the held-out slices, predict the test stack.

results/patches/ -> results/model.keras, then prediction.tif
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow comes in and fills the screen
os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever else the user's Keras is set to

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from datasets import read_images
from feed import training_feed, validation_tiles
from metrics import format_scores
from model import PRESETS, Recipe, build_unet, compile_model
from pictures import save_curve
from predict import PRECISIONS, judge, prepare_device, write_prediction
from preprocessing import fresh_geometry
from stacks import TEST
from utils import (
    NotLearning,
    UserError,
    at_least,
    atomic_folder,
    atomic_path,
    check_output,
    file_hash,
    read_json,
    require_space,
    run,
    write_json,
)

# -------------------------------------------------------------------------------------------------- the schedule


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


# ------------------------------------------------------------------------------------------------------- the run


def train(work: Path, recipe: Recipe, seed: int = 0, patience: int | None = None, resume: bool = False,
          tensorboard: bool = False, told: dict | None = None) -> tuple[keras.Model, dict]:
    """Train on `work`/patches and write model.keras, config.json, history.csv, curve.png; returns model and config.

    With `patience` the training stops when the loss on a validation block, the last fifth of the training slices,
    has not fallen for so many epochs, and the weights of its least loss predict. `told` goes into the configuration.
    Raises UserError where an earlier step has to run first, NotLearning where the loss is not a number,
    KeyboardInterrupt, all saved, on Ctrl-C.
    """
    geometry = fresh_geometry(work)
    _check_fit(recipe, geometry)
    keras.utils.set_random_seed(seed)
    tiles_hash = file_hash(work / "patches" / "geometry.json")
    settings = json.loads(json.dumps({  # as a file gives it back
        **asdict(recipe), "seed": seed, "patience": patience, "precision": keras.config.dtype_policy().name}))
    scale = geometry["normalisation"]
    state = load_checkpoint(work, settings, tiles_hash) if resume else None
    if state:
        model = keras.models.load_model(work / "checkpoint" / "last.keras")
    else:
        model = build_unet(recipe.network, geometry["channels"], **scale)
        compile_model(model, recipe)
    require_space(work, 40 * model.count_params() + 10_000_000)  # checkpoints, the old and the new, and the model
    config = {"network": settings["network"], "channels": geometry["channels"], "normalisation": scale,
              "recipe": settings, "parameters": model.count_params(), "split": geometry["split"],
              "versions": {"python": platform.python_version(), "tensorflow": tf.__version__,
                           "keras": keras.__version__, "numpy": np.__version__}, **(told or {})}
    keeper = Keeper(work, recipe, config, state, tiles_hash)
    _fit(model, work, geometry, keeper, seed, patience, tensorboard)
    keeper.finish()
    return keeper.predictor, config


def _fit(model: keras.Model, work: Path, geometry: dict, keeper: Keeper, seed: int, patience: int | None,
         tensorboard: bool) -> None:
    """Run the schedule from where `keeper` stands; raises KeyboardInterrupt, which says what was saved, on Ctrl-C."""
    recipe, done = keeper.recipe, len(keeper.rows)
    callbacks: list[keras.callbacks.Callback] = [keeper]
    slices, keep, validation = geometry["split"]["train"], None, None
    if patience is not None:
        if len(slices) < 2:
            raise UserError("--early-stopping sets training slices aside and needs two or more")
        keep = slices[:-max(1, len(slices) // 5)]
        validation = validation_tiles(work, [number for number in slices if number not in keep])
        callbacks.append(keras.callbacks.EarlyStopping(patience=patience))
    if tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(str(work / "tensorboard")))
    feed = training_feed(work, geometry, recipe, seed * 1000 + done, keep)
    began = time.perf_counter()
    try:
        model.fit(feed, epochs=recipe.epochs, initial_epoch=done, steps_per_epoch=recipe.steps, verbose=0,
                  shuffle=False, validation_data=validation, validation_batch_size=recipe.batch, callbacks=callbacks)
    except KeyboardInterrupt:
        epochs = len(keeper.rows)
        raise KeyboardInterrupt(
            f"stopped; {work / 'model.keras'} has the best of {epochs} epochs, the same command with --resume goes on"
            if epochs else "stopped before the first epoch ended; nothing was changed") from None
    finally:
        keeper.bar.close()
    print(f"trained for {time.perf_counter() - began:.0f} s, start of fit to end of fit")


def _check_fit(recipe: Recipe, geometry: dict) -> None:
    """Raise UserError where the tiles are not of the kind or size that the network takes."""
    network, tile = recipe.network, geometry["tile"]
    if (network.padding == "valid") != geometry["valid"]:
        raise UserError("these tiles are for valid convolutions; run 'python preprocessing.py' again without --preset "
                        "paper" if geometry["valid"] else "this network has valid convolutions; run 'python "
                        "preprocessing.py --preset paper --weights border' first")
    if geometry["valid"] and (geometry["margin"] != network.shrinkage or (geometry["core"] - 4) % network.stride):
        raise UserError(f"tiles of {tile} pixels with margins of {geometry['margin']} do not fit this valid network, "
                        f"which takes {network.shrinkage} off each side; preprocessing.py --preset paper fits depth 4")
    if not geometry["valid"] and tile % network.stride:
        raise UserError(f"tiles of {tile} pixels do not fit a network that pools {network.stride} pixels into one; "
                        f"choose a --tile that is a multiple of {network.stride} in preprocessing.py")
    if not geometry["counts"]["train"]:
        raise UserError("there are no tiles to train on")


def recipe_of(args: argparse.Namespace) -> tuple[str, Recipe]:
    """The preset's name and its recipe with what the command line changes in it."""
    name = args.preset
    if name == "auto":
        name = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    recipe = PRESETS[name]
    network = recipe.network
    if args.depth and args.depth != network.depth:
        spare = network.dropout[-1:] * args.depth  # deeper levels drop out as much as the bottom did
        network = replace(network, depth=args.depth, dropout=(network.dropout[:-1] + spare)[:args.depth + 1])
    changes = {key: getattr(args, key) for key in ("epochs", "steps", "batch", "lr") if getattr(args, key)}
    return name, replace(recipe, network=replace(network, filters=args.filters or network.filters), **changes)


def options() -> argparse.ArgumentParser:
    """The command line of `python train.py`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder for all that a run makes (results)")
    parser.add_argument("--out", type=Path, default=Path("prediction.tif"), help="the predicted test stack "
                                                                                "(prediction.tif)")
    parser.add_argument("--preset", choices=["auto", *PRESETS], default="auto", help="network and schedule; auto fits "
                                                                                     "the machine: gpu or cpu")
    whole = at_least(1)
    for name, number, meaning in (("epochs", whole, "pieces of the schedule"), ("steps", whole, "steps an epoch"),
                                  ("batch", whole, "tiles a step"), ("lr", at_least(1e-12, float), "peak of the rate"),
                                  ("filters", whole, "of the first level"), ("depth", whole, "halvings of the image")):
        parser.add_argument(f"--{name}", type=number, help=f"{meaning} (without it the preset's)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of weights and the order of tiles (0)")
    parser.add_argument("--early-stopping", type=at_least(1), metavar="PATIENCE", help="stop when the loss on a "
                        "block of training slices has not fallen for so many epochs; its best weights predict")
    parser.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="arithmetic (auto)")
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument("--tensorboard", action="store_true", help="log to results/tensorboard, too")
    return parser


def main() -> None:
    args = options().parse_args()
    geometry = fresh_geometry(args.work)
    # a missing test stack, or no room for its prediction, must not show after the training
    notes: list[str] = []
    test_images = read_images(Path(geometry["data"]) / TEST, notes)
    for note in notes:
        print(f"note: {note}")
    check_output(args.out, 4 * test_images.size)
    device = prepare_device(args.precision)
    name, recipe = recipe_of(args)
    print(f"{device}; preset {name}: {recipe.network.filters} to {recipe.network.filters * 2**recipe.network.depth} "
          f"filters, {recipe.epochs} epochs of {recipe.steps} steps, {recipe.batch} tiles a step")
    told = {"preset": name, "device": device, "data": geometry["data"]}
    model, config = train(args.work, recipe, args.seed, args.early_stopping, args.resume, args.tensorboard, told)
    print(f"{args.work / 'model.keras'}: {config['parameters']:,} parameters")
    scores = judge(args.work, model, config)
    write_prediction(model, test_images, config, args.out)
    pictures = [args.work / name for name in ("curve.png", "holdout.png") if (args.work / name).is_file()]
    if scores:
        print("\nheld-out slices, which judged and never trained:\n" + format_scores(scores))
        at = scores["chosen"]
        print(f"\nhold-out at the threshold chosen before: V_rand {at['V_rand']:.3f}, V_info {at['V_info']:.3f}, "
              f"pixel error {at['pixel_error']:.3f}, membrane IoU {at['membrane_iou']:.3f}, "
              f"Dice {at['membrane_dice']:.3f}")
    print(f"pictures: {', '.join(map(str, pictures))}; 'python report.py --work {args.work} --out {args.out}' puts "
          f"everything about this run into {args.work / 'report.html'}\n"
          f"{args.out}: probability of cell, {len(test_images)} slices")


if __name__ == "__main__":
    run(main)
