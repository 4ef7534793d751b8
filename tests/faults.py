"""Cause faults on purpose, and check that the documented command recovers: python tests/faults.py --kills 20

The three scripts and predict.py run on a small stack, first undisturbed. Then each is killed (-9) or terminated
(SIGTERM) at random moments, finds its disk full or read-only, its input replaced, its files from the future, or another
run in its folder. A fault is survived if what users are told to do next leads to the files of the undisturbed run, and
no half-written file remains. For POSIX systems; a read-only folder needs the right to mount.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.inputs.demo import make_demo
from utils import file_hash

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ("--filters", "4", "--depth", "1", "--epochs", "3", "--steps", "10", "--batch", "2", "--precision", "float32")
CLOSE = 1e-4  # allowed difference of probabilities trained again: floats are added in another order
LIMIT = 600.0  # seconds after which a script is taken to hang


@dataclass(frozen=True)
class Step:
    """A script with its options, the options that resume it, and its outputs, relative to the run's folder."""

    name: str
    options: tuple[str, ...]
    resume_options: tuple[str, ...]
    outputs: tuple[str, ...]

    def command(self, resume: bool = False) -> list[str]:
        return [sys.executable, str(ROOT / f"{self.name}.py"), *(self.resume_options if resume else self.options)]


AUGMENT = ("--data", "data", "--work", "work", "--copies", "6", "--workers", "2")
PREDICT = ("data/test-volume.tif", "--model", "work/model.keras", "--engine", "tensorflow", "--flips", "2",
           "--out", "new/p.tif", "--cells", "new/c.tif", "--resume")
STEPS = (
    Step("augmentation", AUGMENT, AUGMENT, ("augmented/images.tif", "augmented/labels.tif", "augmented/manifest.json")),
    Step("preprocessing", ("--work", "work", "--tile", "64", "--margin", "8"),
         ("--work", "work", "--tile", "64", "--margin", "8"),
         ("patches/train-images.npy", "patches/train-labels.npy", "patches/train-sources.npy",
          "patches/geometry.json")),
    Step("train", ("--work", "work", "--out", "work/prediction.tif", *TRAIN, "--resume"),
         ("--work", "work", "--resume"),
         ("prediction.tif", "cells.tif", "holdout.tif", "metrics.json", "config.json", "history.csv")),
    Step("predict", PREDICT, PREDICT, ("../new/p.tif", "../new/c.tif")))


@dataclass
class Harness:
    """A folder that can be set back to its state before each step.

    `place` has `data`, `work` and `new`, always under the same path, as manifests name their inputs by it; `copies`
    has a copy of it as it was before each step and after the last one.
    """

    place: Path
    copies: Path
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    seconds: dict[str, float] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    failures: list[tuple[str, str, str]] = field(default_factory=list)

    def prepare(self) -> None:
        """Make the stack and run all steps undisturbed; copy the folder before each step, and after the last one."""
        make_demo(self.place / "data", slices=6, size=128)
        for step in STEPS:
            shutil.copytree(self.place, self.copies / step.name)
            start = time.perf_counter()
            result = self.run(step)
            self.seconds[step.name] = time.perf_counter() - start
            if result.returncode:
                raise RuntimeError(f"{step.name} fails undisturbed: {result.stderr}")
        shutil.copytree(self.place, self.copies / "end")

    def reset(self, step: Step) -> None:
        """Set the folder back to its state before a step."""
        shutil.rmtree(self.place)
        shutil.copytree(self.copies / step.name, self.place)

    def start(self, step: Step, resume: bool = False, before: Callable[[], None] | None = None) -> subprocess.Popen:
        """Start a step in a session of its own; `before` is called first in the new process."""
        return subprocess.Popen(step.command(resume), cwd=self.place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True, preexec_fn=before)

    def run(self, step: Step, resume: bool = False, before: Callable[[], None] | None = None
            ) -> subprocess.CompletedProcess:
        """Run a step to its end; kill it if it hangs."""
        process = self.start(step, resume, before)
        try:
            out, errors = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = process.communicate()
            errors += f"\nhung for {LIMIT:.0f} s"
        return subprocess.CompletedProcess(step.command(resume), process.returncode, out, errors)

    def moment(self, step: Step) -> float:
        """Return a random moment of a step, in seconds from its start."""
        return self.rng.uniform(0.05, 1) * self.seconds[step.name]

    def note(self, step: Step, fault: str, why: str | None) -> None:
        """Count a fault; `why` says why it was not survived, None if it was."""
        self.counts[step.name, fault] += 1
        if why:
            self.failures.append((step.name, fault, why))
            print(f"{step.name}, {fault}: {why}", flush=True)

    def recover(self, step: Step) -> str | None:
        """Run what users are told to run after a fault; tell why that does not lead to the undisturbed run's files."""
        result = self.run(step, resume=can_resume(self.place / "work", step))
        if result.returncode:
            return f"the command that resumes ends with {result.returncode}: {result.stderr.strip()[-300:]}"
        return self.difference(step) or self.leftover()

    def difference(self, step: Step, end: Path | None = None) -> str | None:
        """Tell which file of a step differs from the undisturbed run's, or from that in the folder `end`."""
        for name in step.outputs:
            path, expected = self.place / "work" / name, (end or self.copies / "end") / "work" / name
            if not (path.is_file() and expected.is_file()):
                return f"{name} is missing"
            if not alike(path, expected):
                return f"{name} is not the undisturbed run's"
        return None

    def leftover(self) -> str | None:
        """Tell which temporary file remains."""
        hidden = [path for path in self.place.rglob(".*") if path.name != ".mine"]
        return f"{hidden[0].relative_to(self.place)} is left" if hidden else None


def can_resume(work: Path, step: Step) -> bool:
    """Tell whether a step can be resumed: a training only once it has written its first checkpoint."""
    return step.name != "train" or (work / "checkpoint.npz").is_file()


def alike(path: Path, expected: Path) -> bool:
    """Tell whether two files have the same content: up to float error if networks trained, otherwise to the byte."""
    if path.suffix == ".tif" and path.name not in ("images.tif", "labels.tif"):
        first, second = tifffile.imread(path), tifffile.imread(expected)
        return first.shape == second.shape and np.abs(first.astype(float) - second).max() <= CLOSE
    if path.name in ("metrics.json", "config.json", "history.csv"):  # seconds differ; scores are the maps'
        return path.stat().st_size > 0
    return file_hash(path) == file_hash(expected)


# ------------------------------------------------------------------------------------------------- the faults


def kill(harness: Harness, step: Step, number: signal.Signals, fault: str) -> None:
    """Stop a step and its workers at a random moment, then resume it."""
    harness.reset(step)
    for name in (".mine", "notes.txt"):  # files of the user in the run's folder
        (harness.place / "work").mkdir(exist_ok=True)
        (harness.place / "work" / name).write_text("mine")
    process = harness.start(step)
    time.sleep(harness.moment(step))
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT)
    why = None
    if number == signal.SIGTERM and process.returncode not in (0, 143, -signal.SIGTERM):
        why = f"ends with {process.returncode}: {errors.strip()[-300:]}"
    if number == signal.SIGTERM and "Traceback" in errors:
        why = errors.strip()[-300:]
    why = why or harness.recover(step)
    if any(not (harness.place / "work" / name).is_file() for name in (".mine", "notes.txt")):
        why = "the user's own files are gone"
    harness.note(step, fault, why)


def full_disk(harness: Harness, step: Step, share: float) -> None:
    """Let no file grow beyond a share of the step's largest: the step says so, and can resume when there is room."""
    harness.reset(step)
    sizes = [(harness.copies / "end" / "work" / name).stat().st_size for name in step.outputs]
    most = max(1, int(share * max(sizes)))

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    result = harness.run(step, before=limit_file_size)
    why = None
    if result.returncode not in (0, 2) or "Traceback" in result.stderr:
        why = f"ends with {result.returncode}: {result.stderr.strip()[-300:]}"
    elif result.returncode == 2 and "disk is full" not in result.stderr:
        why = f"says {result.stderr.strip()[-300:]}"
    harness.note(step, "full disk", why or harness.recover(step))


def read_only(harness: Harness, step: Step) -> None:
    """Make the folder read-only: the step says so, and can resume when it is writable again."""
    harness.reset(step)
    with mount_read_only(harness.place) as success:
        if not success:
            return
        result = harness.run(step)
    why = None if result.returncode == 2 and "Traceback" not in result.stderr else (
        f"ends with {result.returncode}: {result.stderr.strip()[-300:]}")
    harness.note(step, "read-only folder", why or harness.recover(step))


@contextmanager
def mount_read_only(folder: Path) -> Iterator[bool]:
    """Mount a folder read-only; yield False if that is not possible."""
    commands = (["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder])
    success = bool(shutil.which("mount")) and all(subprocess.run(command, capture_output=True).returncode == 0
                                                  for command in commands)
    try:
        yield success
    finally:
        if success:
            subprocess.run(["umount", folder], check=True)


def from_the_future(harness: Harness, step: Step, days: float) -> None:
    """Date all files `days` into the future, as if the clock had been set back since, or into the past."""
    harness.reset(step)
    for path in harness.place.rglob("*"):
        os.utime(path, (time.time() + 86400 * days,) * 2)
    harness.note(step, "clock set back" if days > 0 else "clock set forward", harness.recover(step))


def replace_input(harness: Harness, step: Step) -> None:
    """Replace the input while a step runs: it says so, or has read one of the two; then go on with the first input."""
    name = "test-volume.tif" if step.name == "predict" else "train-volume.tif"
    path, end = harness.place / "data" / name, harness.copies / f"{step.name} with another input"
    if not end.exists():
        harness.reset(step)
        mirror(path)
        harness.run(step)
        shutil.copytree(harness.place, end)
    harness.reset(step)
    process = harness.start(step)
    time.sleep(harness.moment(step))
    mirror(path)
    _, errors = process.communicate(timeout=LIMIT)
    if process.returncode == 0:
        why = harness.difference(step) and harness.difference(step, end)
    else:
        named = process.returncode == 2 and name in errors and "Traceback" not in errors
        why = None if named else f"ends with {process.returncode}: {errors.strip()[-300:]}"
        shutil.copy(harness.copies / step.name / "data" / name, path)
        why = why or harness.recover(step)
    harness.note(step, "input replaced", why)


def mirror(path: Path) -> None:
    """Replace a stack by its mirror image."""
    tifffile.imwrite(path.with_suffix(".new"), tifffile.imread(path)[:, ::-1])
    path.with_suffix(".new").replace(path)


def two_at_once(harness: Harness, step: Step) -> None:
    """Start a step twice: the second refuses to run and names the first's process, and the first ends undisturbed."""
    harness.reset(step)
    first = harness.start(step)
    end = time.monotonic() + LIMIT
    # stopped before it has written its name, it would be taken for dead after a second
    while first.poll() is None and time.monotonic() < end:
        if any(path.stat().st_size for path in harness.place.rglob(".*.lock")):
            break
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # otherwise it may end before the second has begun
    second = harness.run(step)
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=LIMIT)
    why = None
    if second.returncode != 2 or f"process {first.pid}" not in second.stderr:
        why = f"the second ends with {second.returncode}: {second.stderr.strip()[-300:]}"
    elif first.returncode:
        why = f"the first ends with {first.returncode}: {errors.strip()[-300:]}"
    harness.note(step, "two at once", why or harness.difference(step) or harness.leftover())


def inject(harness: Harness, kills: int) -> None:
    """Cause every fault in every step: kill -9 `kills` times, other faults at random moments a fifth as often."""
    for step in STEPS:
        for _ in range(kills):
            kill(harness, step, signal.SIGKILL, "kill -9")
        for _ in range(max(1, kills // 5)):
            kill(harness, step, signal.SIGTERM, "SIGTERM")
            replace_input(harness, step)
        for share in (0.02, 0.3, 0.7, 0.97):
            full_disk(harness, step, share)
        read_only(harness, step)
        for days in (1, -1):
            from_the_future(harness, step, days)
        two_at_once(harness, step)


def table(harness: Harness) -> str:
    """Format the numbers of survived and injected faults as a table: a row for each fault, a column for each step."""
    faults = list(dict.fromkeys(fault for _, fault in harness.counts))
    failures = Counter((step, fault) for step, fault, _ in harness.failures)
    rows = [f"{'':20}" + "".join(f"{step.name:>16}" for step in STEPS)]
    for fault in faults:
        cells = ((harness.counts[step.name, fault], failures[step.name, fault]) for step in STEPS)
        rows.append(f"{fault:20}" + "".join(f"{f'{count - fails} of {count}':>16}" for count, fails in cells))
    total, failed = sum(harness.counts.values()), len(harness.failures)
    return "\n".join([*rows, f"{total} injected, {total - failed} survived, {failed} lost"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="at how many random moments each step is killed (20)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(Path(folder) / "place", Path(folder) / "copies")
        harness.prepare()
        inject(harness, args.kills)
    print(table(harness))
    sys.exit(bool(harness.failures))


if __name__ == "__main__":
    main()
