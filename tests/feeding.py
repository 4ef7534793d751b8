"""How fast tiles come to the network, and how fast it takes them: python tests/bench.py feed

The feed alone, as train.py calls it, and the steps of the default preset, on one machine one after the other.
"""

import argparse
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from model import PRESETS
from unet.tasks.cells import Cells
from unet.training.device import prepare_device
from unet.training.encoders import build
from unet.training.feed import READERS, Feed
from unet.training.optimizer import compile_model
from unet.training.parts import InParts
from unet.workers import default_workers

LEAST, CORES, RATE = 5, 16, 2000  # the feed against the network; and tiles a second on so many cores
WARM = 5  # steps before the clock starts: the network is compiled, the threads begin


def write_tiles(folder: Path, count: int, side: int) -> Path:
    """Write so many tiles of noise and their labels, as preprocessing.py does."""
    rng = np.random.default_rng(0)
    for name, most in (("images", 256), ("labels", 2)):
        np.save(folder / f"train-{name}.npy", rng.integers(0, most, (count, side, side), np.uint8))
    np.save(folder / "train-sources.npy", np.zeros(count, np.int32))
    return folder


def feed_rate(feed: Feed, steps: int) -> float:
    """Tiles a second that the feed gives where nobody makes it wait."""
    batches = iter(feed.from_step(0, WARM + steps))
    for _ in range(WARM):
        next(batches)
    began = time.perf_counter()
    for _ in batches:
        pass
    return steps * feed.batch / (time.perf_counter() - began)


class Clock(keras.callbacks.Callback):
    """Notes when the first steps are over."""

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == WARM:
            self.began = time.perf_counter()


def network_rate(feed: Feed, preset: str, steps: int) -> float:
    """Tiles a second that the network of a preset trains on."""
    recipe, task, clock = PRESETS[preset], Cells(), Clock()
    network = build(recipe.network, task.channels, task.normalisation)
    model = InParts(network.input, network.output, name=network.name)
    compile_model(model, recipe)
    model.fit(feed.from_step(0, WARM + steps), epochs=1, steps_per_epoch=WARM + steps, verbose=0, callbacks=[clock])
    return steps * feed.batch / (time.perf_counter() - clock.began)


def bench_feed(args: argparse.Namespace) -> None:
    """Print both rates and their ratio, and on enough cores whether the feed is fast enough for them."""
    device, recipe, cores = prepare_device("auto"), PRESETS["cpu"], default_workers()
    with tempfile.TemporaryDirectory() as temporary:
        patches = write_tiles(Path(temporary), 2000, args.tile)
        feed = Feed(patches, recipe.batch, intensity=recipe.intensity)
        given = feed_rate(feed, args.steps * 20)
        taken = network_rate(feed, "cpu", args.steps)
    print(f"{cores} cores, {READERS} readers, tiles of {args.tile} pixels, preset cpu; {device}\n"
          f"the feed gives    {given:.0f} tiles/s\nthe network takes {taken:.1f} tiles/s\n"
          f"ratio: {given / taken:.1f}, {LEAST} asked: {'yes' if given >= LEAST * taken else 'NO'}")
    if cores >= CORES:
        print(f"{RATE} tiles/s asked on {CORES} cores: {'yes' if given >= RATE else 'NO'}")
    else:
        print(f"{RATE} tiles/s on {CORES} cores: not measured, there are {cores}")
