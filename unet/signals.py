"""Ctrl-C while a script's libraries come in, which takes seconds, and while the interpreter leaves."""

from __future__ import annotations

import signal


def end_at_once() -> None:
    """Let Ctrl-C end this process without a traceback, as nothing is begun; where it is ignored it stays so.

    Scripts call it before they import what is large, and `utils.run` hears of Ctrl-C from its begin to its end.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
