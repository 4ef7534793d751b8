"""Ctrl-C while a script's libraries come in, which takes seconds, while TensorFlow traces, and while Python leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def end_at_once() -> None:
    """Let Ctrl-C end this process without a traceback, as nothing is begun; where it is ignored it stays so.

    Scripts call it before they import what is large, and `utils.run` hears of Ctrl-C from its begin to its end.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def put_off() -> Iterator[Callable[[], None]]:
    """Put Ctrl-C and SIGTERM off to the end, or to where the function it gives is called; a second one comes at once.

    While TensorFlow traces a network, what they raise may end the process with a segmentation fault, or come out as
    another error.
    """
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: handler for number in (signal.SIGINT, signal.SIGTERM)
                if callable(handler := signal.getsignal(number))}

    def answer() -> None:
        if came:
            number, frame = came.pop()
            handlers[number](number, frame)

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        if len(came) > 1:
            answer()

    if threading.current_thread() is not threading.main_thread():  # no other is asked
        yield answer
        return
    for number in handlers:
        signal.signal(number, note)
    try:
        yield answer
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    answer()
