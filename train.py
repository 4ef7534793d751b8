"""Step 3: train a U-Net on the tiles, score it on held-out slices, predict the test stack or images without masks.

results/patches/ -> results/model.keras, then prediction.tif, or prediction/ for single images
A run that was stopped at any moment continues with python train.py --work DIR --resume
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from unet.system.quiet import import_quietly
from unet.system.signals import delay_signals, end_at_once

if __name__ == "__main__":
    end_at_once()
    import_quietly()

import keras
import numpy as np
import tensorflow as tf

from model import PRESETS, Recipe, with_encoder
from predict import finish
from preprocessing import fresh_geometry
from unet.citations import version
from unet.engines.engines import TensorFlow
from unet.folds import cross_validate
from unet.inputs.layouts import layout_of
from unet.report.pictures import save_curve
from unet.tasks import task_of
from unet.training.affinities import affinity_output
from unet.training.alarm import Alarm
from unet.training.device import PRECISIONS, prepare_device, ran_out_of_memory
from unet.training.encoders import ENCODERS, PRETRAINED, build
from unet.training.feed import Feed, in_shares
from unet.training.folder import run_folder
from unet.training.keeper import Keeper, read_state
from unet.training.optimizer import compile_model
from unet.training.pace import Pace
from unet.training.parts import InParts
from unet.training.strategy import (
    STRATEGIES,
    check_agreed,
    draw_apart,
    is_chief,
    open_strategy,
    prepare_model,
    process_place,
    several_processes,
    stop_together,
)
from unet.training.trained import load_model
from utils import Parser, UserError, at_least, count_of, file_hash, require_space, run

DECIDING = ("preset", "epochs", "steps", "batch", "lr", "filters", "depth", "encoder", "pretrained", "seed",
            "early_stopping", "validation", "precision")  # options that decide what is trained
GPU_TILES = 16  # tiles per step that the preset auto takes on a GPU; not tested on one
VALIDATION_SHARE = 0.04  # tiles validated after an epoch, as a share of those that trained: some 1.5 % of the time


# ------------------------------------------------------------------------------------------------------- the run


def train(work: Path, recipe: Recipe, seed: int = 0, resume: bool = False, notes: dict | None = None,
          strategy: tf.distribute.Strategy | None = None) -> tuple[keras.Model, dict]:
    """Train on `work`/patches, write model.keras, config.json, history.csv, curve.png; return model and configuration.

    With `resume` a run continues from its checkpoint, to the same weights as if it had never stopped; a finished one is
    only read. `notes` are added to the configuration: preset, device, and the command's options; its `tensorboard`
    turns logging on. With a `strategy` several devices train together. If there are several processes, only the first
    writes, and the others return the network as it is at the end.
    Raises UserError if an earlier step has to run first, NotLearning if the network does not learn, and
    KeyboardInterrupt on Ctrl-C, when all is saved.
    """
    geometry = fresh_geometry(work)
    task = task_of(geometry)
    recipe = replace(recipe, network=replace(recipe.network, classes=geometry["classes"]),
                     intensity=min(recipe.intensity, task.max_intensity),
                     affinities=recipe.affinities if task.affinities else 0.0)
    _check_fit(recipe, geometry)
    settings = json.loads(json.dumps({  # as it is read from a file: lists, not tuples
        **asdict(recipe), "seed": seed, "precision": keras.config.dtype_policy().name,
        "tiles": file_hash(work / "patches" / "geometry.json")}))
    config = {"task": geometry["task"], "network": settings["network"], "channels": geometry["channels"],
              "normalisation": geometry["normalisation"], "recipe": settings, "split": geometry["split"],
              "versions": {"python": platform.python_version(), "tensorflow": tf.__version__,
                           "keras": keras.__version__, "numpy": np.__version__},
              "data": geometry["data"], **(notes or {})}
    strategy = strategy or tf.distribute.get_strategy()
    keeper = Keeper(work, recipe, config)
    state = read_state(work) if resume else None
    if state:
        keeper.check(state)
    elif resume:
        print(f"note: {work} has no run that was stopped; training from the beginning")
    check_agreed(strategy, settings, len(keeper.rows))
    if keeper.finished:
        print(f"{work / 'model.keras'} is trained, {len(keeper.rows)} epochs; nothing is left to train")
    else:
        keras.utils.set_random_seed(seed)
        with strategy.scope():
            model, config["parameters"] = _build(recipe, geometry, "none" if keeper.rows else recipe.pretrained)
        prepare_model(model)
        if is_chief(strategy):
            require_space(work, 40 * model.count_params() + 10_000_000)  # old and new checkpoint, and the model
        keeper.start(model)
        _fit(model, geometry, keeper)
        check_agreed(strategy, *model.get_weights(), *keeper.mean)
        if not is_chief(strategy):
            return keeper.predictor, config
    if is_chief(strategy) and not (work / "curve.png").is_file():
        save_curve(work / "curve.png", keeper.rows)
    return load_model(work / "model.keras")


def _build(recipe: Recipe, geometry: dict, pretrained: str) -> tuple[InParts, int]:
    """Build the network to train, with its further outputs; return it and how many parameters predict."""
    network = build(recipe.network, geometry["channels"], geometry["normalisation"], pretrained)
    outputs = [network.output, affinity_output(network)] if recipe.affinities else network.output
    model = InParts(network.input, outputs, name=network.name)
    model.affinities = recipe.affinities
    compile_model(model, recipe)
    return model, network.count_params()


def _hold_back(recipe: Recipe, patches: Path, slices: list[int], strategy: tf.distribute.Strategy
               ) -> tuple[list[int], dict]:
    """Set a validation block aside if the recipe has one; return the slices that train, and `fit`'s arguments."""
    if not (recipe.patience or recipe.validation):
        return slices, {}
    block, most = max(1, len(slices) // 5), max(1, int(VALIDATION_SHARE * recipe.steps * recipe.batch))
    most = most // recipe.batch * recipe.batch or most  # whole batches, if there is one
    tiles = Feed(patches, recipe.batch, keep=slices[-block:]).plain_tiles(64 if recipe.patience else most)
    data, count = in_shares(tiles, recipe.batch, strategy)
    return slices[:-block], {"validation_data": data, "validation_steps": count}


def _fit(model: InParts, geometry: dict, keeper: Keeper) -> None:
    """Run the rest of the schedule; on Ctrl-C raise KeyboardInterrupt, which says what was saved.

    If memory runs out, continue from the checkpoint with each batch in parts; raise MemoryError if even one tile is too
    much, or if there are other processes, which cannot know of it.
    """
    recipe, work, strategy = keeper.recipe, keeper.work, model.distribute_strategy
    patches = work / "patches"
    slices, validation = _hold_back(recipe, patches, geometry["split"]["train"], strategy)
    feed = Feed(patches, recipe.batch, keeper.config["recipe"]["seed"], recipe.intensity, keep=slices,
                numbers=bool(recipe.affinities))
    total, start = recipe.epochs * recipe.steps, time.perf_counter()
    while True:
        epochs = len(keeper.rows)
        first = epochs * recipe.steps
        draw_apart(model)
        callbacks = [Alarm(feed, first, total, geometry["classes"]), keeper]
        if keeper.writes:
            callbacks.append(Pace(feed, total - first))
        if keeper.writes and keeper.config.get("command", {}).get("tensorboard"):
            callbacks.append(keras.callbacks.TensorBoard(str(work / "tensorboard")))
        try:
            with delay_signals() as interrupt:
                callbacks.append(keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: interrupt(),
                                                                on_test_batch_begin=lambda batch, logs: interrupt()))
                model.fit(feed.from_step(first, total, strategy), epochs=recipe.epochs, initial_epoch=epochs,
                          steps_per_epoch=recipe.steps, verbose=0, shuffle=False, callbacks=callbacks, **validation)
            break
        except KeyboardInterrupt:
            option = " --strategy multiworker" if several_processes(strategy) else ""
            raise interruption(work, keeper.describe(), option) from None
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            if several_processes(strategy):
                raise MemoryError("that of one process, and the others cannot know it") from error
            if model.parts >= recipe.batch // strategy.num_replicas_in_sync:
                raise MemoryError("even one tile at a time is too much") from error
        finally:
            keeper.bar.close()
        model.halve()
        keeper.restore()
        print(f"note: memory ran out; going on from epoch {len(keeper.rows) + 1} with each batch in {model.parts} "
              "parts, whose gradients are added up: the result is the same, but a step takes longer", flush=True)
    print(f"trained for {time.perf_counter() - start:.0f} s, start of fit to end of fit")


def interruption(work: Path, state: str, options: str = "") -> KeyboardInterrupt:
    """Return the interruption to raise on Ctrl-C, which says how to go on."""
    return KeyboardInterrupt(f"stopped; {work / 'model.keras'} {state}; 'python train.py --work {work}{options} "
                             "--resume' does what is left")


def _check_fit(recipe: Recipe, geometry: dict) -> None:
    """Raise UserError if the network cannot take tiles of this kind or size, or a validation block all slices."""
    if (recipe.patience or recipe.validation) and len(geometry["split"]["train"]) < 2:
        raise UserError("--early-stopping and --validation set training slices aside and need two or more")
    network, tile = recipe.network, geometry["tile"]
    if (network.padding == "valid") != geometry["valid"]:
        raise UserError("these tiles are for valid convolutions; run 'python preprocessing.py' again without --preset "
                        "paper" if geometry["valid"] else "this network has valid convolutions; run 'python "
                        "preprocessing.py --preset paper --weights border' first")
    if geometry["valid"] and (geometry["margin"] != network.shrinkage or (geometry["core"] - 4) % network.stride):
        raise UserError(f"tiles of {tile} pixels with margins of {geometry['margin']} do not fit this valid network, "
                        f"which cuts {network.shrinkage} off each side; preprocessing.py --preset paper fits depth 4")
    if not geometry["valid"] and tile % network.stride:
        raise UserError(f"tiles of {tile} pixels do not fit a network that pools {network.stride} x {network.stride} "
                        "pixels into one; run 'python preprocessing.py' with a --tile that is a multiple of "
                        f"{network.stride}")
    if not geometry["count"]:
        raise UserError("there are no tiles to train on; hold out fewer slices or images with --holdout in "
                        "augmentation.py, then run 'python preprocessing.py' again")


def recipe_of(args: argparse.Namespace) -> tuple[str, Recipe]:
    """Return the preset's name, and its recipe with the command line's changes."""
    automatic = args.preset in (None, "auto")
    name = "cpu" if automatic else args.preset
    recipe = PRESETS[name]
    if automatic and tf.config.list_physical_devices("GPU"):  # the preset gpu was never measured, this network was
        recipe = replace(recipe, batch=GPU_TILES)
    if args.encoder:
        if args.depth:
            raise UserError("--depth is not for encoders, which halve the image five times; leave it out")
        recipe = with_encoder(recipe, args.encoder, args.pretrained or "none")
    elif args.pretrained not in (None, "none"):
        raise UserError(f"--pretrained {args.pretrained} is for an encoder; name one with --encoder, or leave it out")
    network = recipe.network
    if args.depth and args.depth != network.depth:
        deepest = network.dropout[-1:] * args.depth  # deeper levels drop out as much as the bottom did
        network = replace(network, depth=args.depth, dropout=(network.dropout[:-1] + deepest)[:args.depth + 1])
    changes = {key: getattr(args, key) for key in ("epochs", "steps", "batch", "lr") if getattr(args, key)}
    return name, replace(recipe, network=replace(network, filters=args.filters or network.filters),
                         patience=args.early_stopping, validation=bool(args.validation), **changes)


def options() -> argparse.ArgumentParser:
    """Return the command line of `python train.py`; options in `DECIDING` are None unless the user names them."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=version())
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder for all files of a run")
    parser.add_argument("--out", type=Path, help="file for the predicted test stack (default: prediction.tif), or "
                                                 "folder for predicted single images (default: prediction)")
    parser.add_argument("--preset", choices=["auto", *PRESETS], help="network and schedule; auto is cpu, on a GPU with "
                                                                     f"{GPU_TILES} tiles per step (default: auto)")
    positive = at_least(1)
    for name, number, meaning in (("epochs", positive, "parts of the schedule, after each of which the run is saved"),
                                  ("steps", positive, "steps per epoch"), ("batch", positive, "tiles per step"),
                                  ("lr", at_least(1e-12, float), "peak learning rate"),
                                  ("filters", positive, "feature maps of the first level"),
                                  ("depth", positive, "how often the network halves its first level")):
        parser.add_argument(f"--{name}", type=number, help=f"{meaning} (default: the preset's)")
    parser.add_argument("--encoder", choices=list(ENCODERS), help="a network of keras.applications as the contracting "
                        "path, with 16 to 256 filters on the way back up; trained with Adam")
    parser.add_argument("--pretrained", choices=PRETRAINED, help="weights that an encoder starts from; imagenet is "
                        "downloaded once (default: none)")
    parser.add_argument("--seed", type=at_least(0), help="decides the first weights, dropout and the order of the "
                                                         "tiles (default: 0)")
    parser.add_argument("--early-stopping", type=at_least(1), metavar="PATIENCE", help="stop when the loss on a "
                        "block of training slices has not fallen for so many epochs; predict with its best weights")
    parser.add_argument("--validation", action="store_true", default=None, help="hold back a block of training slices "
                        "and draw the loss on it into curve.png, too")
    parser.add_argument("--folds", type=at_least(2), metavar="K", help="cross-validation: train K networks, each "
                        "scored on a block of labelled slices that the others train on; predict with their mean")
    parser.add_argument("--precision", choices=["auto", *PRECISIONS], help="floating-point format (default: auto)")
    parser.add_argument("--strategy", choices=STRATEGIES, default="auto", help="devices that share each batch: all "
                        "GPUs, one, or those of the processes that TF_CONFIG names; see docs/clusters.md")
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped; needs only --work, and "
                        "--folds or --strategy multiworker if the run had them")
    parser.add_argument("--tensorboard", action="store_true", help="also log to tensorboard/ in the folder of the run")
    return parser


def resume_options(args: argparse.Namespace) -> argparse.Namespace:
    """Return the stopped run's options, unless the command names one that decides what is trained."""
    state = read_state(args.work)
    if not state or any(getattr(args, name) is not None for name in DECIDING):
        return args
    command = state["config"].get("command", {})
    out = args.out or command.get("out")
    return argparse.Namespace(**{**vars(args), **command, "out": out and Path(out)})


def main() -> None:
    args = options().parse_args()
    number, count = process_place(args.strategy)
    if args.folds and args.strategy == "multiworker":
        raise UserError("--folds trains in one process; leave out --strategy multiworker, or train fold by fold")
    with run_folder(args.work) if number == 0 else nullcontext():  # the others write nothing
        if args.folds:
            cross_validate(args, DECIDING, train_fold)
            return
        if count > 1:
            print(f"process {number + 1} of {count}; waiting until all are there", flush=True)
        run_step(resume_options(args) if args.resume else args)


def train_fold(args: argparse.Namespace) -> None:
    """Train and score one of several folds; nothing of the previous fold stays in memory."""
    keras.backend.clear_session()
    run_step(args, predicts=False)


def run_step(args: argparse.Namespace, predicts: bool = True) -> None:
    """Train as the command line says, then learn thresholds and walls, score and predict."""
    geometry = fresh_geometry(args.work)
    task = task_of(geometry)
    outputs, layout = task.outputs(args.out), layout_of(geometry["data"])
    task.check_outputs(outputs, layout.to_predict())  # before the training, not after it
    device = prepare_device(args.precision or "auto")
    name, recipe = recipe_of(args)
    strategy = open_strategy(args.strategy, recipe.batch)
    network, devices = recipe.network, strategy.num_replicas_in_sync
    levels = network.depth - bool(network.encoder)  # the bottom is the encoder's
    encoder = f"{network.encoder} with {recipe.pretrained} weights, " if network.encoder else ""
    print(f"{device}; preset {name}: {encoder}{network.filters} to {network.filters * 2**levels} filters, "
          f"{count_of(recipe.epochs, 'epoch')} of {count_of(recipe.steps, 'step')}, {recipe.batch} tiles per step"
          + (f", shared by {devices} devices" if devices > 1 else ""), flush=True)
    precision = {policy: name for name, policy in PRECISIONS.items()}[keras.config.dtype_policy().name]
    command = {**{option: getattr(args, option) for option in DECIDING}, "preset": name, "precision": precision,
               "tensorboard": args.tensorboard, "out": str(args.out) if args.out else None}
    with stop_together(strategy):
        model, config = train(args.work, recipe, args.seed or 0, args.resume,
                              {"preset": name, "device": device, "command": command,
                               "voxel": layout.voxel and layout.voxel.as_json()}, strategy)
    if not is_chief(strategy):
        print("trained; the first process scores and predicts")
        return
    print(f"{args.work / 'model.keras'}: {config['parameters']:,} parameters")
    fresh_geometry(args.work)  # training took its time: are the held-out labels still those of step 1?
    try:
        finish(args.work, TensorFlow(model), config, outputs, predicts)
    except KeyboardInterrupt:
        raise interruption(args.work, "is trained") from None


if __name__ == "__main__":
    run(main)
