"""Step 3: train a U-Net on the tiles, judge it on what was held out, predict the test stack or images without masks.

results/patches/ -> results/model.keras, then prediction.tif, of nuclei prediction/
"""

from __future__ import annotations

import argparse
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

from model import PRESETS, Recipe, build_unet, compile_model, with_encoder
from predict import PRECISIONS, finish, prepare_device
from preprocessing import fresh_geometry
from unet.inputs.layouts import layout_of
from unet.tasks import task_of
from unet.training.encoders import ENCODERS, WEIGHTS
from unet.training.feed import training_feed, validation_tiles
from unet.training.keeper import Keeper, load_checkpoint
from utils import UserError, at_least, file_hash, require_space, run

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
    recipe = replace(recipe, network=replace(recipe.network, classes=geometry.get("classes", 1)))
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
        try:
            model = build_unet(recipe.network, geometry["channels"], **scale, weights=recipe.weights)
        except OSError as error:
            raise UserError(str(error)) from None
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
    if not geometry["count"]:
        raise UserError("there are no tiles to train on")


def recipe_of(args: argparse.Namespace) -> tuple[str, Recipe]:
    """The preset's name and its recipe with what the command line changes in it."""
    name = args.preset
    if name == "auto":
        name = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    recipe = PRESETS[name]
    if args.encoder:
        if args.depth:
            raise UserError("--depth is not for encoders, which halve the image five times; leave it out")
        recipe = with_encoder(recipe, args.encoder, args.weights)
    elif args.weights != "none":
        raise UserError(f"--weights {args.weights} are those of an encoder; name one with --encoder, or leave it out")
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
    parser.add_argument("--out", type=Path, help="the predicted test stack (prediction.tif), or the folder of "
                                                 "predicted nuclei images (prediction)")
    parser.add_argument("--preset", choices=["auto", *PRESETS], default="auto", help="network and schedule; auto fits "
                                                                                     "the machine: gpu or cpu")
    whole = at_least(1)
    for name, number, meaning in (("epochs", whole, "pieces of the schedule"), ("steps", whole, "steps an epoch"),
                                  ("batch", whole, "tiles a step"), ("lr", at_least(1e-12, float), "peak of the rate"),
                                  ("filters", whole, "of the first level"), ("depth", whole, "halvings of the image")):
        parser.add_argument(f"--{name}", type=number, help=f"{meaning} (without it the preset's)")
    parser.add_argument("--encoder", choices=list(ENCODERS), help="a network of keras.applications as the contracting "
                        "path, on 16 to 256 filters back up, trained with Adam")
    parser.add_argument("--weights", choices=WEIGHTS, default="none", help="an encoder's weights to start from; "
                        "imagenet is downloaded once (none)")
    parser.add_argument("--classes", type=whole, help="check that the labels have so many; augmentation.py takes them")
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
    task = task_of(geometry)
    outputs = task.outputs(args.out)
    layout = layout_of(geometry["data"])
    task.check_outputs(outputs, layout.to_predict())
    device = prepare_device(args.precision)
    name, recipe = recipe_of(args)
    network = recipe.network
    levels = network.depth - bool(network.encoder)  # the bottom is the encoder's
    kind = f"{network.encoder} with {recipe.weights} weights, " if network.encoder else ""
    print(f"{device}; preset {name}: {kind}{network.filters} to {network.filters * 2**levels} filters, "
          f"{recipe.epochs} epochs of {recipe.steps} steps, {recipe.batch} tiles a step")
    told = {"task": geometry["task"], "preset": name, "device": device, "data": geometry["data"]}
    model, config = train(args.work, recipe, args.seed, args.early_stopping, args.resume, args.tensorboard, told)
    print(f"{args.work / 'model.keras'}: {config['parameters']:,} parameters")
    finish(args.work, model, config, outputs)


if __name__ == "__main__":
    run(main)
