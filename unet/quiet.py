"""TensorFlow without its greeting: six lines on each start, which its own TF_CPP_MIN_LOG_LEVEL does not reach."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module

GREETING = re.compile(rb"WARNING: All log messages before absl::InitializeLog\(\)|I0000 ")  # as of TensorFlow 2.21


def import_quietly(name: str = "keras") -> None:
    """Import a package that brings TensorFlow in; all but the greeting is on the screen once it is there.

    With TF_CPP_MIN_LOG_LEVEL=0, the greeting too.
    """
    shown = name in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0"
    with nullcontext() if shown else _without_greeting():
        import_module(name)


@contextmanager
def _without_greeting() -> Iterator[None]:
    """Hold back what C++ code writes to the process's error output, which Python's `sys.stderr` does not see."""
    try:
        screen = os.dup(2)
    except OSError:  # a process without one
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            held.seek(0)
            for line in held:
                if not GREETING.match(line):
                    os.write(2, line)
