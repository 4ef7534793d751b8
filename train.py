"""Step 3: train a U-Net on the tiles, judge it on the held-out slices, predict the test stack.

results/patches/ -> results/model.keras, then prediction.tif
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow comes in and fills the screen

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from datasets import read_images
from metrics import format_scores
from model import PUBLISHED, Network, build_unet
from pictures import save_curve
from predict import PRECISIONS, judge, prepare_device, write_prediction
from preprocessing import fresh_geometry
from utils import TEST, NotLearning, UserError, atomic_folder, atomic_path, file_hash, read_json, run, write_json


@dataclass(frozen=True)
class Recipe:
    """A network and the fixed schedule that trains it: nothing here looks at the held-out slices."""

    network: Network
    epochs: int = 24
    steps: int = 100  # per epoch: an epoch is a piece of the schedule, the tiles are drawn without end
    batch: int = 4  # tiles a step
    lr: float = 5e-4  # peak of the learning rate: linear warm-up, then a cosine to zero
    warmup: float = 0.1  # share of the schedule
    average: float = 0.2  # share of the schedule, at its end, over whose epochs the weights are averaged
    optimizer: str = "adam"
    turn: bool = True  # flip and turn tiles at random by quarters while training


PRESETS = {
    "cpu": Recipe(Network(16, 4)),
    "gpu": Recipe(Network(64, 4), epochs=60, batch=8),
    "keras": Recipe(PUBLISHED["keras"], lr=1e-4),
    "nuclei": Recipe(PUBLISHED["nuclei"], epochs=20, batch=16, lr=1e-3, warmup=0.0, average=0.0),
    # section 3: one tile a batch, momentum 0.99; the rate is ours, the paper names none
    "paper": Recipe(PUBLISHED["paper"], batch=1, lr=1e-3, optimizer="sgd"),
}


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


def training_feed(work: Path, geometry: dict, recipe: Recipe, seed: int, keep: list[int] | None) -> tf.data.Dataset:
    """Endless batches of (images, labels[, weights]), shuffled and turned; same seed, same batches."""
    names = ("images", "labels") + (("weights",) if geometry["weights"] != "none" else ())
    data = tiles(work, geometry, "train", names, keep).repeat().shuffle(512, seed=seed)
    if recipe.turn:
        seeds = tf.data.Dataset.random(seed=seed).batch(2)
        data = tf.data.Dataset.zip(data, seeds).map(lambda arrays, draw: turned(arrays, draw), num_parallel_calls=1)
    return data.batch(recipe.batch).map(_to_float, num_parallel_calls=1).prefetch(4)


def _to_float(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
    labels = tf.cast(labels, tf.float32)
    return (images, labels) if weights is None else (images, labels, tf.cast(weights, tf.float32)[..., 0])


# -------------------------------------------------------------------------------------------------- the schedule


def compile_model(model: keras.Model, recipe: Recipe) -> None:
    """Binary cross-entropy and the recipe's optimizer: warm-up, cosine to zero, gradients of norm 1 at most."""
    total = recipe.epochs * recipe.steps
    warmup = max(1, round(total * recipe.warmup))
    rate = keras.optimizers.schedules.CosineDecay(recipe.lr / 100, max(1, total - warmup), warmup_target=recipe.lr,
                                                  warmup_steps=warmup)
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=0.99, clipnorm=1.0)
    else:
        optimizer = keras.optimizers.Adam(rate, clipnorm=1.0)
    model.compile(optimizer, loss="binary_crossentropy")


class Keeper(keras.callbacks.Callback):
    """After each epoch writes what a stopped run needs: averaged weights, the curve, and a checkpoint to go on from.

    The weights that predict are the mean over the schedule's end (Izmailov et al. 2018, algorithm 1), chosen by the
    schedule and by nothing that was measured.
    """

    def __init__(self, work: Path, recipe: Recipe, fingerprint: dict, state: dict | None):
        super().__init__()
        self.work, self.recipe, self.fingerprint = work, recipe, fingerprint
        self.rows: list[dict] = state["rows"] if state else []
        self.count: int = state["count"] if state else 0
        self.mean: list[np.ndarray] | None = state["mean"] if state else None
        self.first = recipe.epochs - max(1, round(recipe.epochs * recipe.average))

    def on_train_begin(self, logs=None) -> None:
        done = len(self.rows)
        self.bar = tqdm(total=self.recipe.epochs * self.recipe.steps, initial=done * self.recipe.steps, desc="training",
                        unit="step", disable=None)

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.bar.update()
        if batch % 10 == 0:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None) -> None:
        if epoch >= self.first:
            weights = self.model.get_weights()
            self.mean = weights if self.mean is None else [
                mean + (new - mean) / (self.count + 1) for mean, new in zip(self.mean, weights, strict=True)]
            self.count += 1
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.rows.append({"epoch": epoch + 1, "step": (epoch + 1) * self.recipe.steps, "learning_rate": rate,
                          **{name: float(value) for name, value in (logs or {}).items()},
                          "seconds": round(time.perf_counter() - self.began, 2)})
        if self.bar.disable:  # no terminal: a line an epoch instead of the bar
            print(f"epoch {epoch + 1}/{self.recipe.epochs}  loss {self.rows[-1]['loss']:.4f}  "
                  f"{self.rows[-1]['seconds']:.0f} s", flush=True)
        self.save()

    def on_train_end(self, logs=None) -> None:
        self.bar.close()

    def save(self) -> None:
        """Write checkpoint/, history.csv and, if this is the first epoch or later, model.keras."""
        with atomic_folder(self.work / "checkpoint") as folder:
            self.model.save(folder / "last.keras")
            if self.mean is not None:
                np.savez(folder / "mean.npz", *self.mean)
            write_json(folder / "state.json", {"rows": self.rows, "count": self.count, **self.fingerprint})
        with atomic_path(self.work / "history.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)
        self.save_model()

    def save_model(self) -> None:
        """Write model.keras with the weights that predict: the mean where there is one, else those of now."""
        now = self.model.get_weights()
        if self.mean is not None:
            self.model.set_weights(self.mean)
        with atomic_path(self.work / "model.keras") as temporary:
            self.model.save(temporary, include_optimizer=False)
        self.model.set_weights(now)


def load_checkpoint(work: Path, fingerprint: dict) -> dict | None:
    """What `Keeper` wrote; raises UserError where there is none, or it is of a run with other settings or tiles."""
    folder = work / "checkpoint"
    state = read_json(folder / "state.json", "there is no stopped run to continue; leave out --resume")
    other = [name for name, value in fingerprint.items() if state.get(name) != value]
    if other:
        raise UserError(f"{folder} is of a run with another {' and '.join(other)}; use the options it was started "
                        "with, or leave out --resume to start anew")
    mean = folder / "mean.npz"
    if mean.is_file():
        with np.load(mean) as arrays:
            state["mean"] = [arrays[name] for name in arrays.files]
    return {"mean": None, **state}


# ------------------------------------------------------------------------------------------------------- the run


def train(work: Path, recipe: Recipe, seed: int = 0, patience: int | None = None, resume: bool = False,
          tensorboard: bool = False, settings: dict | None = None) -> tuple[keras.Model, dict]:
    """Train on `work`/patches and write model.keras and config.json; returns the model and the configuration.

    With `patience` the training stops when the loss on a validation block, the last fifth of the training slices,
    has not fallen for so many epochs, and the weights of its least loss predict. Raises UserError where an earlier
    step has to run first, NotLearning where the loss is not a number, KeyboardInterrupt, all saved, on Ctrl-C.
    """
    geometry = fresh_geometry(work)
    _check_fit(recipe, geometry)
    keras.utils.set_random_seed(seed)
    fingerprint = {"settings": {**asdict(recipe), "seed": seed, "patience": patience},
                   "tiles": file_hash(work / "patches" / "geometry.json")}
    fingerprint["settings"]["network"]["dropout"] = list(recipe.network.dropout)  # as JSON gives it back
    state = load_checkpoint(work, fingerprint) if resume else None
    scale = geometry["normalisation"]
    if state:
        model = keras.models.load_model(work / "checkpoint" / "last.keras")
    else:
        model = build_unet(recipe.network, geometry["channels"], **scale)
        compile_model(model, recipe)
    done = len(state["rows"]) if state else 0
    config = {"network": asdict(recipe.network), "channels": geometry["channels"], "normalisation": scale,
              "recipe": fingerprint["settings"], "parameters": model.count_params(), "split": geometry["split"],
              "versions": {"python": platform.python_version(), "tensorflow": tf.__version__,
                           "keras": keras.__version__, "numpy": np.__version__}, **(settings or {})}
    write_json(work / "config.json", config)

    keeper = Keeper(work, recipe, fingerprint, state)
    block, validation = None, None
    callbacks: list[keras.callbacks.Callback] = [keeper, keras.callbacks.TerminateOnNaN()]
    slices = geometry["split"]["train"]
    if patience is not None:
        block = slices[-max(1, len(slices) // 5):]
        validation = _validation(work, block)
        keeper.first = recipe.epochs  # the best epoch's weights predict, not a mean
        callbacks.insert(0, keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True))
    if tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(str(work / "tensorboard")))
    keep = None if block is None else [number for number in slices if number not in block]
    feed = training_feed(work, geometry, recipe, seed * 1000 + done, keep)
    began = time.perf_counter()
    try:
        model.fit(feed, epochs=recipe.epochs, initial_epoch=done, steps_per_epoch=recipe.steps, verbose=0,
                  shuffle=False, validation_data=validation, validation_batch_size=recipe.batch, callbacks=callbacks)
    except KeyboardInterrupt:
        keeper.bar.close()
        epochs = len(keeper.rows)
        raise KeyboardInterrupt(
            f"{work / 'model.keras'} has the weights of epoch {epochs}; the same command with --resume goes on"
            if epochs else "before the first epoch ended; nothing was saved") from None
    config["seconds"] = round(sum(row["seconds"] for row in keeper.rows), 1)
    config["fit_seconds"] = round(time.perf_counter() - began, 1)
    if not np.isfinite(keeper.rows[-1]["loss"]):
        raise NotLearning("the loss is not a number any more; try again with a smaller --lr")
    if patience is None and keeper.mean is not None:
        model.set_weights(keeper.mean)
    keeper.mean = None
    keeper.save_model()
    write_json(work / "config.json", config)
    save_curve(work / "curve.png", keeper.rows)
    return model, config


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
    test_images = read_images(Path(geometry["data"]) / TEST)  # a missing test stack must not show after the training
    device = prepare_device(args.precision)
    name, recipe = recipe_of(args)
    print(f"{device}; preset {name}: {recipe.network.filters} to {recipe.network.filters * recipe.network.stride} "
          f"filters, {recipe.epochs} epochs of {recipe.steps} steps, {recipe.batch} tiles a step")
    settings = {"preset": name, "device": device, "data": geometry["data"]}
    model, config = train(args.work, recipe, args.seed, args.early_stopping, args.resume, args.tensorboard, settings)
    print(f"{args.work / 'model.keras'}: {config['parameters']:,} parameters, trained for {config['seconds']:.0f} s")
    scores = judge(args.work, model, config)
    write_prediction(model, test_images, config, args.out)
    pictures = [args.work / name for name in ("curve.png", "holdout.png") if (args.work / name).is_file()]
    if scores:
        print("\nheld-out slices, which judged and never trained:\n" + format_scores(scores))
        at = scores["chosen"]
        print(f"\nhold-out at the threshold chosen before: V_rand {at['V_rand']:.3f}, V_info {at['V_info']:.3f}, "
              f"pixel error {at['pixel_error']:.3f}, membrane IoU {at['membrane_iou']:.3f}, Dice {at['membrane_dice']:.3f}")
    print(f"pictures: {', '.join(map(str, pictures))}\n"
          f"{args.out}: probability of cell, {len(test_images)} slices")


if __name__ == "__main__":
    run(main)
