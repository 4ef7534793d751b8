"""Work in several processes, its results in order."""

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
_HELD = (signal.SIGINT, signal.SIGTERM)


def in_order(make: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Yield `make(job)` of each job, in order, from `workers` processes; `make` is handed to each of them once.

    At most a few jobs a worker are under way, so memory does not grow with their number. Raises UserError where a
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
                with signals_held():  # the first jobs start the processes
                    waiting.append(pool.submit(_make, job))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            time.sleep(0.2)  # where a cluster ended all processes at once, our own signal may be on its way
            raise UserError("a worker process was ended from outside, mostly for want of memory; try --workers 1") \
                from None
        finally:
            # Python takes a thread for ended whose join is interrupted: this process would not wait for workers that
            # only begin, and what they share would be gone. Futures cancelled one by one would upset a broken pool
            with signals_held():
                pool.shutdown(cancel_futures=True)


@contextmanager
def signals_held() -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM waiting, here and in processes started meanwhile, whose imports would show a traceback.

    Processes inherit the mask; here it is not enough, for a library's thread takes the signal and Python still runs the
    handler. Windows has no mask; there Ctrl-C at that moment may show a traceback.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # it would let the signals in again when it is started
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _HELD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # what the mask kept is noted now, too
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def run_python(words: Sequence[str], **options: object) -> int:
    """Run this Python with arguments, in a process that answers Ctrl-C itself; gives its exit status as a shell does.

    `options` are those of `subprocess.Popen`.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)  # no SIG_IGN: the process would inherit that
    try:
        with subprocess.Popen([sys.executable, *words], **options) as process:
            status = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


_handed_over: dict[str, Callable] = {}  # what a worker process calls, from its start on


def _remember(make: Callable) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer, in one line
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _handed_over["make"] = make


def _end_with_parent() -> None:
    """End this process when its parent is killed: it would wait for jobs for ever."""
    parent_process().join()
    os._exit(1)


def _make(job: object) -> object:
    return _handed_over["make"](job)


def default_workers() -> int:
    """One process for each core that this process may use; Windows allows 61 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 61)
