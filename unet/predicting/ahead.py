"""Work ahead: what comes next is made in a thread of its own while this one goes on with what was made before."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
PATIENCE = 5.0  # seconds that a stop waits for what is under way


def ahead(items: Iterable[Item], most: int = 1) -> Iterator[Item]:
    """Yield all `items` in order; a thread makes the next `most` of them while the caller works on the one it took.

    So that memory stays bounded, none is begun before there is room for it. What making one raises is raised here, in
    its turn, KeyboardInterrupt too. When the caller stops early, no further item is begun.
    """
    made: SimpleQueue = SimpleQueue()
    room, stop = threading.Semaphore(most), threading.Event()

    def make() -> None:
        source = iter(items)
        try:
            while room.acquire() and not stop.is_set():
                made.put((next(source), None))
        except BaseException as error:  # the caller's to answer
            made.put((None, error))

    thread = threading.Thread(target=make, name="ahead", daemon=True)  # nobody waits for a tile that nobody wants
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item
    finally:
        stop.set()
        room.release()
        thread.join(PATIENCE)
