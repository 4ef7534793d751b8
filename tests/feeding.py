"""How fast tiles come to the network, and how fast it takes them: python tests/bench.py feed

The feed alone, as train.py calls it, and the steps of the default preset, on one machine one after the other. Then what
decides the rate on more cores than there are here: what one core makes, and what is done for one tile after the other
however many cores there are, the part of each tile that Python holds its lock for, and the handing on.
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
from unet.tasks.cells import Cells
from unet.training.device import prepare_device
from unet.training.encoders import build
from unet.training.feed import READERS, Feed, dataset
from unet.training.optimizer import compile_model
from unet.training.parts import InParts
from unet.workers import default_workers

LEAST, CORES, RATE = 5, 16, 2000  # the feed against the network; and tiles a second on so many cores
WARM = 5  # steps before the clock starts: the network is compiled, the threads begin
SPECK = 8  # side of a tile whose pixels cost next to nothing, pixels


def write_tiles(folder: Path, count: int, side: int) -> Path:
    """Write so many tiles of noise and their labels, as preprocessing.py does."""
    rng = np.random.default_rng(0)
    for name, most in (("images", 256), ("labels", 2)):
        np.save(folder / f"train-{name}.npy", rng.integers(0, most, (count, side, side), np.uint8))
    np.save(folder / "train-sources.npy", np.zeros(count, np.int32))
    return folder


def seconds_of(batches: Iterable) -> float:
    """Seconds from batch `WARM` to the last."""
    left = iter(batches)
    for _ in range(WARM):
        next(left)
    began = time.perf_counter()
    for _ in left:
        pass
    return time.perf_counter() - began


def feed_rate(feed: Feed, steps: int) -> float:
    """Tiles a second that the feed gives where nobody makes it wait."""
    return steps * feed.batch / seconds_of(feed.from_step(0, WARM + steps))


def core_rate(feed: Feed, steps: int, threads: int) -> float:
    """Tiles that a core makes in a second of its time, whatever else it does, where so many threads make them."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.process_time()
        for _ in pool.map(lambda step: len(feed[step]), range(steps)):
            pass
        return steps * feed.batch / (time.process_time() - began)


def handing_rate(feed: Feed, steps: int) -> float:
    """Tiles a second that are handed on where making them costs nothing."""
    batch = feed[0]
    return steps * feed.batch / seconds_of(dataset(lambda step: batch, 0, WARM + steps, ahead=READERS))


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
    """Print both rates and their ratio, what decides the rate on other numbers of cores, and what follows for 16."""
    device, recipe, cores = prepare_device("auto"), PRESETS["cpu"], default_workers()
    steps = args.steps * 20
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        feed, specks = (Feed(write_tiles(Path(folder), 2000, side), recipe.batch, intensity=recipe.intensity)
                        for folder, side in ((one, args.tile), (other, SPECK)))
        given = feed_rate(feed, steps)
        taken = network_rate(feed, "cpu", args.steps)
        made = [core_rate(feed, steps, threads) for threads in (1, 2)]
        ceiling = min(core_rate(specks, steps, 1), handed := handing_rate(feed, steps))
    print(f"{cores} cores, {READERS} readers, tiles of {args.tile} pixels, preset cpu; {device}\n"
          f"the feed gives    {given:.0f} tiles/s\nthe network takes {taken:.1f} tiles/s\n"
          f"ratio: {given / taken:.1f}, {LEAST} asked: {'yes' if given >= LEAST * taken else 'NO'}\n"
          f"a second of a core makes {made[0]:.0f} tiles with one thread, {made[1]:.0f} with two; "
          f"handed on, where making them costs nothing: {handed:.0f} tiles/s; "
          f"one after the other on any number of cores: {ceiling:.0f} tiles/s")
    if cores >= CORES:
        print(f"{RATE} tiles/s asked on {CORES} cores: {'yes' if given >= RATE else 'NO'}")
    else:
        expected = min(CORES * made[1], ceiling)
        print(f"{RATE} tiles/s on {CORES} cores: not measured, there are {cores}; from these figures "
              f"{expected:.0f} tiles/s, {'enough' if expected >= RATE else 'TOO FEW'}")
