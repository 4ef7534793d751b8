"""Work in several processes, with results in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from typing import TypeVar

from utils import UserError

Job, Result = TypeVar("Job"), TypeVar("Result")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def in_order(make: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Yield `make(job)` for each job, in order, from `workers` processes; each process gets `make` once.

    Each worker has only a few jobs at a time, so memory does not grow with the number of jobs. Raises UserError if a
    process was ended from outside.
    """
    if workers == 1:
        yield from map(make, jobs)
        return
    # spawn behaves alike on Linux, macOS and Windows, and copies no locks of threads that run here
    with ProcessPoolExecutor(workers, get_context("spawn"), _remember, (make,)) as pool:
        waiting: deque = deque()
        try:
            for job in jobs:
                with hold_signals():  # the first jobs start the processes
                    waiting.append(pool.submit(_make, job))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            time.sleep(0.2)  # if a cluster ended all processes at once, our own signal may be on its way
            raise UserError("a worker process was ended from outside, most often because memory ran out; try "
                            "--workers 1") from None
        finally:
            # Python considers a thread finished if its join is interrupted: this process would not wait for workers
            # that are starting, and what they share would be gone. Cancelling single futures could break a broken pool
            with hold_signals():
                pool.shutdown(cancel_futures=True)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM, here and in processes started meanwhile, whose imports would show a traceback.

    Processes inherit the mask. In this process it is not enough: a library's thread takes the signal, and Python still
    runs the handler. Windows has no mask; there Ctrl-C at that moment may show a traceback.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # starting it later would unblock the signals
    pending: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: pending.append(number)) for number in _SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # blocked signals reach `pending` now
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in pending[:1]:
            signal.raise_signal(number)


def run_python(words: Sequence[str], **options: object) -> int:
    """Run this Python with arguments, in a process that handles Ctrl-C itself; return its exit status as a shell does.

    `options` are those of `subprocess.Popen`.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the process would inherit
    try:
        with subprocess.Popen([sys.executable, *words], **options) as process:
            status = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


_functions: dict[str, Callable] = {}  # the function that a worker process calls


def _remember(make: Callable) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, in one line
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _functions["make"] = make


def _end_with_parent() -> None:
    """End this process when its parent is killed; otherwise it would wait for jobs for ever."""
    parent_process().join()
    os._exit(1)


def _make(job: object) -> object:
    return _functions["make"](job)


def default_workers() -> int:
    """Return the number of cores that this process may use, for one worker each; Windows allows 61 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 61)
