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

    Memory stays bounded: no job begins before there is room for its result, nor if the caller stops early. An error of
    a job, KeyboardInterrupt too, is raised here in its turn.
    """
    numbers, source, source_lock = count(), iter(jobs), threading.Lock()
    room, stop, arrival = threading.Semaphore(most), threading.Event(), threading.Condition()
    results: dict[int, tuple[Item | None, BaseException | None]] = {}

    def work() -> None:
        going_on = True
        while going_on and room.acquire() and not stop.is_set():
            item = error = None
            try:
                with source_lock:
                    number = next(numbers)
                    job = next(source)
                item = job()
            except BaseException as failure:  # passed on to the caller; StopIteration is the last
                error = failure
            with arrival:
                results[number] = item, error
                arrival.notify_all()
            going_on = error is None

    workers = [threading.Thread(target=work, name="ahead", daemon=True)  # daemon: at exit nobody waits for it
               for _ in range(threads)]
    for thread in workers:
        thread.start()
    try:
        for number in count():
            with arrival:
                while number not in results:
                    arrival.wait(1.0)  # again and again, so that Ctrl-C comes through
                item, error = results.pop(number)
            if error is not None:
                break
            room.release()
            yield item
        if not isinstance(error, StopIteration):
            raise error
    finally:
        stop.set()
        room.release(threads)
        for thread in workers:
            thread.join(STOP_WAIT)
