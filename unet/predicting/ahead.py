"""Work ahead: what comes next is made in threads of their own while this one goes on with what was made before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TypeVar

Item = TypeVar("Item")
PATIENCE = 5.0  # seconds that a stop waits for what is under way


def ahead(jobs: Iterable[Callable[[], Item]], most: int = 1, threads: int = 1) -> Iterator[Item]:
    """Yield what `jobs` give, in order; `threads` make the next `most` of it while the caller works on what it took.

    So that memory stays bounded, none is begun before there is room for it. What making one raises is raised here, in
    its turn, KeyboardInterrupt too. When the caller stops early, no further job is begun.
    """
    places, source, turn = count(), iter(jobs), threading.Lock()
    room, stop = threading.Semaphore(most), threading.Event()
    made: dict[int, tuple[Item | None, BaseException | None]] = {}
    news = threading.Condition()

    def make() -> None:
        going_on = True
        while going_on and room.acquire() and not stop.is_set():
            item, error = None, None
            with turn:
                place = next(places)
                try:
                    job = next(source)
                except BaseException as end:  # the caller's to answer, as what follows; StopIteration is the last
                    job, error = None, end
            if job:
                try:
                    item = job()
                except BaseException as failure:
                    error = failure
            with news:
                made[place] = item, error
                news.notify_all()
            going_on = error is None

    # nobody waits for a tile that nobody wants
    crew = [threading.Thread(target=make, name="ahead", daemon=True) for _ in range(threads)]
    for thread in crew:
        thread.start()
    try:
        for place in count():
            with news:
                while place not in made:
                    news.wait(1.0)  # in pieces: Ctrl-C comes in between
                item, error = made.pop(place)
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item
    finally:
        stop.set()
        for _ in crew:
            room.release()
        for thread in crew:
            thread.join(PATIENCE)
