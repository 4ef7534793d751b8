"""TensorFlow without the six lines that it prints on each start, even with TF_CPP_MIN_LOG_LEVEL set."""

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
    """Import a package that imports TensorFlow, without TensorFlow's greeting; other messages appear afterwards.

    With TF_CPP_MIN_LOG_LEVEL=0 the greeting appears, too.
    """
    with_greeting = name in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0"
    with nullcontext() if with_greeting else _without_greeting():
        import_module(name)


@contextmanager
def _without_greeting() -> Iterator[None]:
    """Filter the process's error output, to which C++ code writes without Python's `sys.stderr`."""
    try:
        screen = os.dup(2)
    except OSError:  # a process without error output
        yield
        return
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            buffer.seek(0)
            for line in buffer:
                if not GREETING.match(line):
                    os.write(2, line)
