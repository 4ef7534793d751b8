"""One process for one output, or one run's folder: a file names who is at work, and the dead hold nobody up."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from glob import escape
from pathlib import Path

import psutil

from utils import UserError, temporary_path

RUN, STEP = ".run.lock", ".step.lock"  # in a run's folder: of who runs all scripts, and of the script at work
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
def working(work: Path, whole: bool = False) -> Iterator[None]:
    """Hold the folder of a run; raises UserError, naming the process, where another one is at work in it.

    `whole` is for who starts the scripts one after the other: these then hold the folder, too. A folder that was made
    for this alone goes again.
    """
    run, step, made = work / RUN, work / STEP, not work.exists()
    try:
        with _held(run, work, "--work"):
            with _held(step, work, "--work"):  # the script of a run whose first process was killed may still be at it
                if not whole:
                    yield
            if whole:
                yield
    finally:
        if made and work.is_dir() and not any(work.iterdir()):
            work.rmdir()


@contextmanager
def _lock(output: Path) -> Iterator[None]:
    with _held(lock_path(output), output, "--out", _leftovers):
        yield


@contextmanager
def _held(path: Path, what: Path, option: str, sweep: Callable[[Path, int], None] | None = None
          ) -> Iterator[None]:
    """Hold the file `path`, which locks `what`; a process that started this one shares it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # so /proc and its like answer
        raise UserError(f"{path.parent}: no folder can be made there; choose another with {option}") from error
    mine = {"process": os.getpid(), "started": _started(psutil.Process()), "machine": socket.gethostname()}
    while not _made(path, mine):
        theirs = _read(path)
        if theirs is not None and _alive(theirs):
            if theirs["machine"] == mine["machine"] and theirs["process"] in _ancestors():
                yield
                return
            where = "" if theirs["machine"] == mine["machine"] else (
                f" on {theirs['machine']}; if that machine is no longer at it, delete {path}")
            raise UserError(f"{what} is being written by process {theirs['process']}{where or ' right now'}; wait "
                            f"for it, or name another {'folder' if option == '--work' else 'output'} with {option}")
        if theirs and sweep:
            sweep(what, theirs["process"])
        path.unlink(missing_ok=True)  # of a process that is dead, or that never came to write its name
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _leftovers(output: Path, process: int) -> None:
    """Remove what a dead process left half-written of an output, file or folder; a folder it moved comes back."""
    temporary_path(output, process).unlink(missing_ok=True)
    for path in output.glob(f".*.{process}.*") if output.is_dir() else ():
        path.unlink()
    for path in sorted(output.parent.glob(f".{escape(output.name)}.{process}.*")):  # as `atomic_folder` names them
        if path.suffix == ".old" and not output.exists():
            path.rename(output)
        else:
            shutil.rmtree(path)


def _ancestors() -> set[int]:
    return {process.pid for process in psutil.Process().parents()}


def _started(process: psutil.Process) -> float:
    """When a process started, seconds since the machine did: no clock that is set back changes that."""
    since = psutil.boot_time()  # first: older versions of psutil reckon with what it gave last
    return process.create_time() - since


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
        return abs(_started(psutil.Process(theirs["process"])) - theirs["started"]) < 1
    except psutil.NoSuchProcess:
        return False
