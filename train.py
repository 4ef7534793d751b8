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

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from datasets import read_images
from metrics import format_scores
from model import PRESETS, Recipe, build_unet, compile_model
from pictures import save_curve
from predict import PRECISIONS, judge, prepare_device, write_prediction
from preprocessing import fresh_geometry
from utils import (
    TEST,
    NotLearning,
    UserError,
    atomic_folder,
    atomic_path,
    file_hash,
    read_json,
    require_space,
    run,
    write_json,
)

# ------------------------------------------------------------------------------------------------------ the feed


def tiles(work: Path, geometry: dict, part: str, names: tuple[str, ...], keep: list[int] | None) -> tf.data.Dataset:
    """Tuples of uint8 images, uint8 labels and float16 weights (side, side, 1), as `names` asks, read without Python.

    `keep` leaves only tiles of these source slices.
    """
    sides = {"images": geometry["tile"], "labels": geometry["label"], "weights": geometry["label"]}
    types = {"images": tf.uint8, "labels": tf.uint8, "weights": tf.float16, "sources": tf.int32}

    def records(name: str) -> tf.data.Dataset:
        path = work / "patches" / f"{part}-{name}.npy"
        size = types[name].size * sides.get(name, 1) ** 2
        header = path.stat().st_size - size * geometry["counts"][part]
        return tf.data.FixedLengthRecordDataset(str(path), size, header_bytes=header)

    def decode(*raw: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(tf.reshape(tf.io.decode_raw(bytes_, types[name]), (sides[name], sides[name], 1))
                     for name, bytes_ in zip(names, raw, strict=True))

    def is_kept(source: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(tf.io.decode_raw(source, tf.int32)[0] == tf.constant(keep, tf.int32))

    data = tf.data.Dataset.zip(*(records(name) for name in ("sources", *names)))
    data = data.filter(is_kept) if keep is not None else data
    return data.map(lambda _source, *raw: decode(*raw), num_parallel_calls=1)


def turned(arrays: tuple[tf.Tensor, ...], seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """All arrays (side, side, 1) flipped and turned by the same draw, one of the square's eight symmetries."""
    draw = tf.random.stateless_uniform((2,), seed, 0, 4, tf.int32)

    def turn(array: tf.Tensor) -> tf.Tensor:
        array = tf.image.rot90(array, draw[0])
        return tf.cond(draw[1] < 2, lambda: array, lambda: tf.image.flip_left_right(array))

    return tuple(turn(array) for array in arrays)


def varied(images: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Float images (side, side, C) in grey levels with another gamma, contrast and brightness, and some noise.

    At strength 1 the exponent and the contrast are between 0.7 and 1.4, the brightness moves by 20 grey levels at most,
    the noise has a standard deviation of 12 at most.
    """
    draw = tf.random.stateless_uniform((4,), seed, -1.0, 1.0) * strength
    images = 255 * ((images + 0.5) / 256) ** tf.exp(0.35 * draw[0])
    images = (images - 128) * tf.exp(0.35 * draw[1]) + 128 + 20 * draw[2]
    return images + 12 * tf.abs(draw[3]) * tf.random.stateless_normal(tf.shape(images), seed)


def training_feed(work: Path, geometry: dict, recipe: Recipe, seed: int, keep: list[int] | None) -> tf.data.Dataset:
    """Endless batches of float32 (images, labels[, weights]), shuffled, turned and varied; same seed, same batches."""
    names = ("images", "labels") + (("weights",) if geometry["weights"] != "none" else ())

    def prepare(arrays: tuple[tf.Tensor, ...], draw: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image, *rest = (tf.cast(array, tf.float32) for array in turned(arrays, draw))
        if recipe.intensity:
            image = varied(image, recipe.intensity, draw + 1)
        return (image, *rest[:1], *(weights[..., 0] for weights in rest[1:]))

    data = tiles(work, geometry, "train", names, keep).repeat().shuffle(512, seed=seed)
    data = tf.data.Dataset.zip(data, tf.data.Dataset.random(seed=seed).batch(2))
    return data.map(prepare, num_parallel_calls=1).batch(recipe.batch).prefetch(4)


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
            write_json(folder / "state.json", {"rows": self.rows, "count": self.count, "tiles": self.tiles_hash,
                                               "settings": self.config["recipe"]})
        with atomic_path(self.work / "history.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)
        losses = [row["val_loss"] for row in self.rows if "val_loss" in row]
        if not losses or losses[-1] == min(losses):
            self.save_model()

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
    settings = json.loads(json.dumps({**asdict(recipe), "seed": seed, "patience": patience}))  # as a file gives it back
    scale = geometry["normalisation"]
    state = load_checkpoint(work, settings, tiles_hash) if resume else None
    if state:
        model = keras.models.load_model(work / "checkpoint" / "last.keras")
    else:
        model = build_unet(recipe.network, geometry["channels"], **scale)
        compile_model(model, recipe)
    config = {"network": settings["network"], "channels": geometry["channels"], "normalisation": scale,
              "recipe": settings, "parameters": model.count_params(), "split": geometry["split"],
              "versions": {"python": platform.python_version(), "tensorflow": tf.__version__,
                           "keras": keras.__version__, "numpy": np.__version__}, **(told or {})}
    keeper = Keeper(work, recipe, config, state, tiles_hash)
    _fit(model, work, geometry, keeper, seed, patience, tensorboard)
    model.load_weights(work / "model.keras")  # the mean, or the best on the validation block
    save_curve(work / "curve.png", keeper.rows)
    return model, config


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
        validation = _validation(work, [number for number in slices if number not in keep])
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
            f"stopped; {work / 'model.keras'} is of epoch {epochs}, the same command with --resume goes on"
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
    if not geometry["valid"] and tile % network.stride:
        raise UserError(f"tiles of {tile} pixels do not fit a network that halves them {network.depth} times; choose "
                        f"a --tile that is a multiple of {network.stride} in preprocessing.py, or a smaller --depth")
    if not geometry["counts"]["train"]:
        raise UserError("there are no tiles to train on")


def _validation(work: Path, block: list[int], most: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Tiles of the slices in `block`, at most `most`: images uint8 and labels float32 (n, side, side, 1)."""
    images, labels, sources = (np.load(work / "patches" / f"train-{name}.npy", mmap_mode="r")
                               for name in ("images", "labels", "sources"))
    chosen = np.flatnonzero(np.isin(sources, block))[:most]
    return images[chosen][..., np.newaxis], labels[chosen][..., np.newaxis].astype(np.float32)


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
    positive = lambda kind: lambda text: _positive(kind, text)  # noqa: E731
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder for all that a run makes (results)")
    parser.add_argument("--out", type=Path, default=Path("prediction.tif"), help="the predicted test stack "
                                                                                "(prediction.tif)")
    parser.add_argument("--preset", choices=["auto", *PRESETS], default="auto", help="network and schedule; auto fits "
                                                                                     "the machine: gpu or cpu")
    for name, kind, meaning in (("epochs", int, "pieces of the schedule"), ("steps", int, "steps an epoch"),
                                ("batch", int, "tiles a step"), ("lr", float, "peak learning rate"),
                                ("filters", int, "of the first level"), ("depth", int, "halvings of the image")):
        parser.add_argument(f"--{name}", type=positive(kind), help=f"{meaning} (without it the preset's)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and the order of tiles (0)")
    parser.add_argument("--early-stopping", type=positive(int), metavar="PATIENCE", help="stop when the loss on a "
                        "block of training slices has not fallen for so many epochs; its best weights predict")
    parser.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="arithmetic (auto)")
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument("--tensorboard", action="store_true", help="log to results/tensorboard, too")
    return parser


def _positive(kind: type, text: str) -> float:
    value = kind(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def main() -> None:
    args = options().parse_args()
    geometry = fresh_geometry(args.work)
    # a missing test stack, or no room for its prediction, must not show after the training
    test_images = read_images(Path(geometry["data"]) / TEST)
    require_space(args.out.parent, 4 * test_images.size)
    require_space(args.work, 300_000_000)  # model and checkpoint
    device = prepare_device(args.precision)
    name, recipe = recipe_of(args)
    print(f"{device}; preset {name}: {recipe.network.filters} to {recipe.network.filters * recipe.network.stride} "
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
    print(f"pictures: {', '.join(map(str, pictures))}\n"
          f"{args.out}: probability of cell, {len(test_images)} slices")


if __name__ == "__main__":
    run(main)
