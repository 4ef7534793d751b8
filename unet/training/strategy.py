"""Train on several GPUs, or in processes on several machines: each takes its share of the batch in every step."""

from __future__ import annotations

import json
import os
import signal
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from utils import UserError

STRATEGIES = ("auto", "one", "mirrored", "multiworker")
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError,
        tf.errors.InternalError, tf.errors.FailedPreconditionError)  # raised in a process whose peer is gone
EXAMPLE = '{"cluster": {"worker": ["node1:12345", "node2:12345"]}, "task": {"type": "worker", "index": 0}}'


def process_place(strategy: str) -> tuple[int, int]:
    """Return this process's number, 0 for the chief, and how many train together: 0 and 1, or as TF_CONFIG says.

    Raises UserError if that is absent or wrong.
    """
    if strategy != "multiworker":
        return 0, 1
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise UserError(f"--strategy multiworker needs TF_CONFIG, which names all processes and this one: {EXAMPLE}")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        jobs = [job for job in ("chief", "worker") if cluster.get(job)]
        if set(cluster) - {"chief", "worker"}:
            raise ValueError(f"cluster has {', '.join(cluster)}, expected worker")
        tasks = [(job, number) for job in jobs for number, _ in enumerate(cluster[job])]
        addresses = [address for job in jobs for address in cluster[job]]
        wrong = [address for address in addresses if not str(address).rpartition(":")[2].isdigit()]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no host:port")
        return tasks.index((task["type"], int(task["index"]))), len(tasks)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"TF_CONFIG is not what --strategy multiworker needs ({error}); it has to be like "
                        f"{EXAMPLE}") from None


def open_strategy(name: str, batch: int) -> tf.distribute.Strategy:
    """Open the strategy of this name for `batch` tiles per step; 'multiworker' waits until all processes are there.

    'auto' takes as many of this machine's GPUs as can share the batch evenly. Raises UserError if 'mirrored'
    finds fewer than two, if 'multiworker' cannot begin, or if the devices cannot share the batch.
    """
    if name == "multiworker" and process_place(name)[1] == 1:
        name = "auto"
    if name == "multiworker":
        try:
            with _signals_at_once():
                strategy = tf.distribute.MultiWorkerMirroredStrategy()  # first: TensorFlow must not have computed yet
        except tf.errors.OpError as error:
            raise UserError(f"--strategy multiworker cannot begin ({reason(error)}); each process needs an address of "
                            "its own in TF_CONFIG, which is free and which the others can reach") from None
    else:
        gpus = len(tf.config.list_physical_devices("GPU"))
        if name == "auto":
            gpus = max((number for number in range(1, gpus + 1) if batch % number == 0), default=0)
        if name == "one" or (name == "auto" and gpus < 2):
            return tf.distribute.get_strategy()
        device = "GPU" if gpus else "CPU"
        count = gpus or len(tf.config.list_logical_devices("CPU"))
        if count < 2:
            raise UserError(f"--strategy mirrored is for two GPUs or more, and there is {gpus or 'none'}; leave it out")
        strategy = tf.distribute.MirroredStrategy([f"{device}:{number}" for number in range(count)])
    devices = strategy.num_replicas_in_sync
    if batch % devices:
        raise UserError(f"a batch of {batch} tiles cannot be shared evenly by {devices} devices; take a multiple of "
                        f"{devices} with --batch, for instance {max(1, round(batch / devices)) * devices}")
    return strategy


@contextmanager
def _signals_at_once() -> Iterator[None]:
    """End on Ctrl-C and SIGTERM at once: Python's own handlers would run only after TensorFlow has stopped waiting."""
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether this process is the one that writes."""
    return strategy.extended.should_checkpoint


def several_processes(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether other processes take part."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def prepare_model(model: keras.Model) -> None:
    """Make a compiled model, built within its strategy's scope, train on several devices as it would on one."""
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # float16's loss scale wraps it
    # Keras clips each device's gradients and then adds them up: ours are added up before, see `InParts`
    inner._all_reduce_sum_gradients = list
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True  # the mean of the whole batch


def draw_apart(model: keras.Model) -> None:
    """Make dropout draw different pixels on each device; the first one draws as a single device would.

    Call it once after a checkpoint was read or written: that has the first device's state.
    """
    states = [variable.value for variable in model.variables if variable.path.endswith("seed_generator_state")]

    @tf.function
    def add_number() -> None:
        device = tf.distribute.get_replica_context().replica_id_in_sync_group
        for state in states:
            state.assign_add(tf.stack([tf.cast(device, state.dtype), tf.zeros((), state.dtype)]))

    model.distribute_strategy.run(add_number)


def check_agreed(strategy: tf.distribute.Strategy, *contents: object) -> None:
    """Raise UserError if another process has other contents, arrays or JSON values; each process waits for all."""
    if not several_processes(strategy):
        return
    parts = (one.tobytes() if isinstance(one, np.ndarray) else json.dumps(one).encode() for one in contents)
    checksum = float(zlib.crc32(b"".join(parts)) >> 12)  # 20 bits: sums of their squares are exact in float64

    @tf.function
    def sums() -> list[tf.Tensor]:
        values = [tf.constant(checksum, tf.float64), tf.constant(checksum**2, tf.float64)]
        return tf.distribute.get_replica_context().all_reduce("sum", values)

    total, squares = (strategy.experimental_local_results(value)[0].numpy() for value in strategy.run(sums))
    if total**2 != strategy.num_replicas_in_sync * squares:  # their variance is not zero
        raise UserError("the processes of this run do not agree: start all of them with the same options and in the "
                        "same folder, where each has to see the same tiles and checkpoint")


@contextmanager
def stop_together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Raise KeyboardInterrupt, which says how to go on, if another process of the run is lost meanwhile."""
    try:
        yield
    except LOST as error:
        if not several_processes(strategy):
            raise
        raise KeyboardInterrupt("stopped, as another process of this run ended or cannot be reached; what was finished "
                                f"before is on disk: start all processes again with --resume ({reason(error)})"
                                ) from error


def reason(error: tf.errors.OpError) -> str:
    """Return TensorFlow's message, shortened to a line."""
    words = str(error).partition("aborted by: ")[2] or str(error)
    return words.strip().partition("\n")[0][:120]
