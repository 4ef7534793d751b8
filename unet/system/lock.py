"""One process per output or run's folder: a lock file names it, and that of a dead process blocks nobody."""

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

RUN, STEP = ".run.lock", ".step.lock"  # in a run's folder: one for the process that runs all scripts, one for a script
NAME_WAIT = 1.0  # seconds to wait for the name of the process that created an empty lock file


def lock_path(output: Path) -> Path:
    """Return the lock file that lies beside an output, file or folder, while a process writes it."""
    output = output.resolve()
    return output.with_name(f".{output.name}.lock")


@contextmanager
def lock_outputs(outputs: Sequence[Path]) -> Iterator[None]:
    """Lock these outputs for this process; raise UserError, naming the process, if another one has locked any."""
    with ExitStack() as locks:
        for output in sorted({output.resolve() for output in outputs}):  # all processes lock in the same order
            locks.enter_context(_hold(lock_path(output), output, "--out", _remove_leftovers))
        yield


@contextmanager
def lock_run(work: Path, whole: bool = False) -> Iterator[None]:
    """Lock the folder of a run; raise UserError, naming the process, if another one works in it.

    `whole` is for a process that starts the scripts one after the other: each of them then locks the folder, too. A
    folder that was made only for the lock is removed again.
    """
    run, step, is_new = work / RUN, work / STEP, not work.exists()
    try:
        with _hold(run, work, "--work"):
            with _hold(step, work, "--work"):  # a script may still be running after the process that started it died
                if not whole:
                    yield
            if whole:
                yield
    finally:
        if is_new and work.is_dir() and not any(work.iterdir()):
            work.rmdir()


@contextmanager
def _hold(path: Path, output: Path, option: str, sweep: Callable[[Path, int], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path` of an output; a process that was started by the holder shares the lock."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # raised in /proc and similar places
        raise UserError(f"{path.parent}: no folder can be made there; choose another with {option}") from error
    owner = {"process": os.getpid(), "started": _start_time(psutil.Process()), "machine": socket.gethostname()}
    while not _create(path, owner):
        other = _read(path)
        if other is not None and _may_run(other):
            is_here = other["machine"] == owner["machine"]
            if is_here and other["process"] in [process.pid for process in psutil.Process().parents()]:
                yield
                return
            where = " right now" if is_here else f" on {other['machine']}; if it no longer runs there, delete {path}"
            raise UserError(f"{output} is being written by process {other['process']}{where}; wait for it, or name "
                            f"another {'folder' if option == '--work' else 'output'} with {option}")
        if other and sweep:
            sweep(output, other["process"])
        path.unlink(missing_ok=True)  # its process is dead, or never wrote its name
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _remove_leftovers(output: Path, process: int) -> None:
    """Remove a dead process's half-written parts of an output, file or folder; restore a folder that it moved."""
    temporary_path(output, process).unlink(missing_ok=True)
    for path in output.glob(f".*.{process}.*") if output.is_dir() else ():
        path.unlink()
    for path in sorted(output.parent.glob(f".{escape(output.name)}.{process}.*")):  # as `atomic_folder` names them
        if path.suffix == ".old" and not output.exists():
            path.rename(output)
        else:
            shutil.rmtree(path)


def _start_time(process: psutil.Process) -> float:
    """Return when a process started, in seconds since the machine started: setting the clock does not change that."""
    boot_time = psutil.boot_time()  # first: older versions of psutil compute `create_time` from its last result
    return process.create_time() - boot_time


def _create(path: Path, owner: dict) -> bool:
    """Create the lock file and write its owner into it; return False if there is one already."""
    try:
        with open(path, "x") as file:
            file.write(json.dumps(owner))
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> dict | None:
    """Read the owner from a lock file; return None if the file is gone, or stays empty."""
    end = time.monotonic() + NAME_WAIT
    while True:
        try:
            content = json.loads(path.read_text())
            return {name: content[name] for name in ("process", "started", "machine")}
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError):  # created, but not written yet
            if time.monotonic() > end:
                return None
            time.sleep(0.02)


def _may_run(owner: dict) -> bool:
    """Tell whether a lock's process may still run; on another machine this cannot be checked, so it may."""
    if owner["machine"] != socket.gethostname():
        return True
    try:  # process numbers are reused: it is the same process only if it started at the same time
        return abs(_start_time(psutil.Process(owner["process"])) - owner["started"]) < 1
    except psutil.NoSuchProcess:
        return False
