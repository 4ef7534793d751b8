"""Prefetching: threads compute the next results while the caller works on those before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TypeVar

Item = TypeVar("Item")
STOP_WAIT = 5.0  # seconds to wait for running jobs after a stop


def prefetch(jobs: Iterable[Callable[[], Item]], most: int = 1, threads: int = 1) -> Iterator[Item]:
    """Yield the results of `jobs` in order; `threads` compute the next `most` while the caller works on the last.

    Memory stays bounded: no job begins before there is room for its result. An error of a job is raised here, in its
    turn, KeyboardInterrupt too. If the caller stops early, no further job begins.
    """
    numbers, source, source_lock = count(), iter(jobs), threading.Lock()
    room, stop = threading.Semaphore(most), threading.Event()
    results: dict[int, tuple[Item | None, BaseException | None]] = {}
    arrival = threading.Condition()

    def work() -> None:
        going_on = True
        while going_on and room.acquire() and not stop.is_set():
            item, error = None, None
            with source_lock:
                number = next(numbers)
                try:
                    job = next(source)
                except BaseException as end:  # passed on to the caller, as below; StopIteration is the last
                    job, error = None, end
            if job:
                try:
                    item = job()
                except BaseException as failure:
                    error = failure
            with arrival:
                results[number] = item, error
                arrival.notify_all()
            going_on = error is None

    # daemons: at exit nobody waits for results that nobody needs
    workers = [threading.Thread(target=work, name="ahead", daemon=True) for _ in range(threads)]
    for thread in workers:
        thread.start()
    try:
        for number in count():
            with arrival:
                while number not in results:
                    arrival.wait(1.0)  # again and again, so that Ctrl-C comes through
                item, error = results.pop(number)
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item
    finally:
        stop.set()
        for _ in workers:
            room.release()
        for thread in workers:
            thread.join(STOP_WAIT)
