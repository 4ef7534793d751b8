"""Ctrl-C while a script imports its libraries, which takes seconds, and while TensorFlow traces a network."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def end_at_once() -> None:
    """Let Ctrl-C end this process without a traceback, as it has not started its work; an ignored Ctrl-C stays ignored.

    Scripts call this before they import large libraries; later `utils.run` handles Ctrl-C.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def delay_signals() -> Iterator[Callable[[], None]]:
    """Delay Ctrl-C and SIGTERM until the block ends or calls the function that this yields; a second one acts at once.

    While TensorFlow traces a network, an exception from a signal's handler may end the process with a segmentation
    fault, or turn into another error.
    """
    pending: list[tuple[int, FrameType | None]] = []
    handlers = {number: handler for number in (signal.SIGINT, signal.SIGTERM)
                if callable(handler := signal.getsignal(number))}

    def handle_pending() -> None:
        if pending:
            number, frame = pending.pop()
            handlers[number](number, frame)

    def delay(number: int, frame: FrameType | None) -> None:
        pending.append((number, frame))
        if len(pending) > 1:
            handle_pending()

    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield handle_pending
        return
    for number in handlers:
        signal.signal(number, delay)
    try:
        yield handle_pending
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    handle_pending()
