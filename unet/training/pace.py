"""Print one line after twenty steps: the time left, the memory so far, and whether the network waits for tiles."""

from __future__ import annotations

import sys
import time

import keras
import psutil
import tensorflow as tf
from tqdm import tqdm

from unet.training.feed import READERS, Feed

AFTER = 20  # steps
TIMED = 10  # the last of these steps: before, the network is compiled, and batches lie ready


class Pace(keras.callbacks.Callback):
    """A callback that prints the line once; `total` is the number of steps of this run. Shorter runs print nothing."""

    def __init__(self, feed: Feed, total: int):
        super().__init__()
        self.feed, self.total, self.steps = feed, total, 0
        self.began, self.ahead = 0.0, []  # when the timed steps began, s; batches that lay ready after each

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.steps += 1
        if self.steps == AFTER - TIMED:
            self.began = time.perf_counter()
        elif AFTER - TIMED < self.steps <= AFTER:
            self.ahead.append(self.feed.batches - self.steps)
            if self.steps == AFTER:
                tqdm.write(self.describe((time.perf_counter() - self.began) / TIMED))

    def describe(self, seconds: float) -> str:
        """Return the line for steps of so many seconds."""
        memory = f"{peak_memory() / 1e9:.1f} GB of memory at most so far"
        for gpu in tf.config.list_logical_devices("GPU"):
            try:
                most = tf.config.experimental.get_memory_info(gpu.name)["peak"]
            except ValueError:  # not every allocator counts
                continue
            memory += f", {most / 1e9:.1f} GB of {gpu.name.removeprefix('/device:')}"
        waits = ("the network waits for its tiles: more processor cores or a faster disk would shorten this"
                 if sum(self.ahead) < READERS * len(self.ahead) / 2 else "tiles are ready before the network asks")
        return (f"{duration(seconds * (self.total - AFTER))} of training left at {seconds:.2g} s a step; {memory}; "
                f"{waits}")


def duration(seconds: float) -> str:
    """Return a time in seconds as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def peak_memory() -> int:
    """Return how many bytes of memory this process had at most so far."""
    if hasattr(memory := psutil.Process().memory_info(), "peak_wset"):  # Windows
        return memory.peak_wset
    import resource  # which Windows doesn't have

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
