"""One process for one output: a file beside it names who is at work, and a dead process holds nobody up."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from utils import UserError, temporary_path

PATIENCE = 1.0  # seconds in which whoever made the file has written its name into it


def lock_path(output: Path) -> Path:
    """The file that stands beside an output, file or folder, while a process writes it."""
    output = output.resolve()
    return output.with_name(f".{output.name}.lock")


@contextmanager
def locked(outputs: Sequence[Path]) -> Iterator[None]:
    """Hold these outputs for this process; raises UserError, naming the process, where another one holds any."""
    with ExitStack() as held:
        for output in sorted({output.resolve() for output in outputs}):  # in one order, whoever comes
            held.enter_context(_lock(output))
        yield


@contextmanager
def _lock(output: Path) -> Iterator[None]:
    path = lock_path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = {"process": os.getpid(), "started": psutil.Process().create_time(), "machine": socket.gethostname()}
    while not _made(path, mine):
        theirs = _read(path)
        if theirs is not None and _alive(theirs):
            where = "" if theirs["machine"] == mine["machine"] else (
                f" on {theirs['machine']}; if that machine is no longer at it, delete {path}")
            raise UserError(f"{output} is being written by process {theirs['process']}{where or ' right now'}; wait "
                            "for it, or name another output with --out")
        if theirs:
            temporary_path(output, theirs["process"]).unlink(missing_ok=True)  # what it left half-written
        path.unlink(missing_ok=True)  # of a process that is dead, or that never came to write its name
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _made(path: Path, mine: dict) -> bool:
    """Make the file, where there is none, and write into it."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(json.dumps(mine))
    return True


def _read(path: Path) -> dict | None:
    """What is in the file; None where it is gone, or stays without a name."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            content = json.loads(path.read_text())
            return {name: content[name] for name in ("process", "started", "machine")}
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError):  # made, and not written yet
            if time.monotonic() > end:
                return None
            time.sleep(0.02)


def _alive(theirs: dict) -> bool:
    """Whether the process may be at work: of another machine nobody can tell, so it is taken to be."""
    if theirs["machine"] != socket.gethostname():
        return True
    try:  # numbers of processes are used again: it is the same only if it started then
        return abs(psutil.Process(theirs["process"]).create_time() - theirs["started"]) < 1
    except psutil.NoSuchProcess:
        return False
