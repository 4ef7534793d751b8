"""Measure how fast the feed makes tiles, and how fast the network takes them: python tests/bench.py feed

The feed runs without a network, as train.py calls it, then the steps of the default preset run on the same machine. Two
more rates decide the speed on more cores than there are here: what one core makes, and what happens one tile after the
other however many cores there are: the part of each tile during which Python holds its lock, and handing tiles on.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np

from model import PRESETS
from unet.system.workers import default_workers
from unet.tasks.cells import Cells
from unet.training.device import prepare_device
from unet.training.encoders import build
from unet.training.feed import READERS, Feed, dataset
from unet.training.optimizer import compile_model
from unet.training.parts import InParts

LEAST = 5  # required ratio of the feed's rate to the network's
CORES, RATE = 16, 2000  # on so many cores, the feed is required to make so many tiles a second
WARM_UP = 5  # steps before the clock starts: the network is compiled, the threads begin
SPECK = 8  # side of a tile whose pixels cost almost no time, pixels


def write_tiles(folder: Path, count: int, side: int) -> Path:
    """Write `count` tiles of noise and their labels, as preprocessing.py does."""
    rng = np.random.default_rng(0)
    for name, most in (("images", 256), ("labels", 2)):
        np.save(folder / f"train-{name}.npy", rng.integers(0, most, (count, side, side), np.uint8))
    np.save(folder / "train-sources.npy", np.zeros(count, np.int32))
    return folder


def seconds_of(batches: Iterable) -> float:
    """Return the seconds from batch `WARM_UP` to the last."""
    iterator = iter(batches)
    for _ in range(WARM_UP):
        next(iterator)
    start = time.perf_counter()
    for _ in iterator:
        pass
    return time.perf_counter() - start


def feed_rate(feed: Feed, steps: int) -> float:
    """Return the tiles a second that the feed makes if nothing makes it wait."""
    return steps * feed.batch / seconds_of(feed.from_step(0, WARM_UP + steps))


def core_rate(feed: Feed, steps: int, threads: int) -> float:
    """Return the tiles that a core makes in a second of processor time, if so many threads make them."""
    with ThreadPoolExecutor(threads) as pool:
        start = time.process_time()
        for _ in pool.map(lambda step: len(feed[step]), range(steps)):
            pass
        return steps * feed.batch / (time.process_time() - start)


def handing_rate(feed: Feed, steps: int) -> float:
    """Return the tiles a second that are handed on if making them costs nothing."""
    batch = feed[0]
    return steps * feed.batch / seconds_of(dataset(lambda step: batch, 0, WARM_UP + steps, ahead=READERS))


class Clock(keras.callbacks.Callback):
    """A clock that starts after the first steps."""

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == WARM_UP:
            self.start = time.perf_counter()


def network_rate(feed: Feed, preset: str, steps: int) -> float:
    """Return the tiles a second on which the network of a preset trains."""
    recipe, task, clock = PRESETS[preset], Cells(), Clock()
    network = build(recipe.network, task.channels, task.normalisation)
    model = InParts(network.input, network.output, name=network.name)
    compile_model(model, recipe)
    total = WARM_UP + steps
    model.fit(feed.from_step(0, total), epochs=1, steps_per_epoch=total, verbose=0, callbacks=[clock])
    return steps * feed.batch / (time.perf_counter() - clock.start)


def bench_feed(args: argparse.Namespace) -> None:
    """Print both rates and their ratio, what decides the rate on more cores, and the rate to expect on 16."""
    device, recipe, cores = prepare_device("auto"), PRESETS["cpu"], default_workers()
    steps = args.steps * 20
    with tempfile.TemporaryDirectory() as large, tempfile.TemporaryDirectory() as small:
        feed, specks = (Feed(write_tiles(Path(folder), 2000, side), recipe.batch, intensity=recipe.intensity)
                        for folder, side in ((large, args.tile), (small, SPECK)))
        rate = feed_rate(feed, steps)
        training = network_rate(feed, "cpu", args.steps)
        one_thread, two_threads = (core_rate(feed, steps, threads) for threads in (1, 2))
        handing = handing_rate(feed, steps)
        ceiling = min(core_rate(specks, steps, 1), handing)
    print(f"{cores} cores, {READERS} readers, tiles of {args.tile} pixels, preset cpu; {device}\n"
          f"the feed makes    {rate:.0f} tiles/s\nthe network takes {training:.1f} tiles/s\n"
          f"ratio: {rate / training:.1f}, {LEAST} required: {'yes' if rate >= LEAST * training else 'NO'}\n"
          f"a second of a core makes {one_thread:.0f} tiles with one thread, {two_threads:.0f} with two; "
          f"handed on, if making them costs nothing: {handing:.0f} tiles/s; "
          f"one after the other on any number of cores: {ceiling:.0f} tiles/s")
    if cores >= CORES:
        print(f"{RATE} tiles/s required on {CORES} cores: {'yes' if rate >= RATE else 'NO'}")
    else:
        expected = min(CORES * two_threads, ceiling)
        print(f"{RATE} tiles/s on {CORES} cores: not measured, there are {cores}; from these figures "
              f"{expected:.0f} tiles/s, {'enough' if expected >= RATE else 'TOO FEW'}")
