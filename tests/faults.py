"""Faults on purpose, and what the documented command makes of them: python tests/faults.py --kills 20

The three scripts and predict.py run on a small stack, undisturbed first. Then each is killed (-9) or ended (SIGTERM)
at random moments, finds its disk full or read-only, its input replaced, its files from the future, or another run in
its folder. A fault is survived where what users are told to do next leads to the files of the undisturbed run, and
nothing half-written is left. POSIX systems; a read-only folder needs the right to mount.
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
CLOSE = 1e-4  # of probabilities that were trained anew: sums of floats in another order
LIMIT = 600.0  # seconds after which a script hangs


@dataclass(frozen=True)
class Step:
    """A script with its options, the options that go on after a stop, and what it puts out, below the folder."""

    name: str
    options: tuple[str, ...]
    again: tuple[str, ...]
    outputs: tuple[str, ...]

    def command(self, again: bool = False) -> list[str]:
        return [sys.executable, str(ROOT / f"{self.name}.py"), *(self.again if again else self.options)]


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
    """A folder that is set back to before a step, as often as is needed.

    `place` has `data`, `work` and `new`, always under the same path, as manifests name their inputs by it.
    """

    place: Path
    kept: Path
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    seconds: dict[str, float] = field(default_factory=dict)
    injected: Counter = field(default_factory=Counter)
    lost: list[tuple[str, str, str]] = field(default_factory=list)

    def prepare(self) -> None:
        """Make the stack and run all undisturbed; keeps the folder as it was before each step, and after the last."""
        make_demo(self.place / "data", slices=6, size=128)
        for step in STEPS:
            shutil.copytree(self.place, self.kept / step.name)
            began = time.perf_counter()
            result = self.run(step)
            self.seconds[step.name] = time.perf_counter() - began
            if result.returncode:
                raise RuntimeError(f"{step.name} fails undisturbed: {result.stderr}")
        shutil.copytree(self.place, self.kept / "end")

    def set_back(self, step: Step) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(self.kept / step.name, self.place)

    def start(self, step: Step, again: bool = False, before: Callable[[], None] | None = None) -> subprocess.Popen:
        """Start a step in a session of its own; `before` is called in the new process."""
        return subprocess.Popen(step.command(again), cwd=self.place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True, preexec_fn=before)

    def run(self, step: Step, again: bool = False, before: Callable[[], None] | None = None
            ) -> subprocess.CompletedProcess:
        process = self.start(step, again, before)
        try:
            out, errors = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = process.communicate()
            errors += f"\nhung for {LIMIT:.0f} s"
        return subprocess.CompletedProcess(step.command(again), process.returncode, out, errors)

    def moment(self, step: Step) -> float:
        """A random moment of a step, seconds from its start."""
        return self.rng.uniform(0.05, 1) * self.seconds[step.name]

    def note(self, step: Step, fault: str, why: str | None) -> None:
        """Count a fault; `why` it was not survived, None where it was."""
        self.injected[step.name, fault] += 1
        if why:
            self.lost.append((step.name, fault, why))
            print(f"{step.name}, {fault}: {why}", flush=True)

    def go_on(self, step: Step) -> str | None:
        """Run what users are told to run after a fault; why that does not lead to the undisturbed run's files."""
        result = self.run(step, again=started(self.place / "work", step))
        if result.returncode:
            return f"the command that goes on ends with {result.returncode}: {result.stderr.strip()[-300:]}"
        return self.differs(step) or self.left_over()

    def differs(self, step: Step, end: Path | None = None) -> str | None:
        """What of a step's files is not that of the undisturbed run, or of the run that a folder was left by."""
        for name in step.outputs:
            one, other = self.place / "work" / name, (end or self.kept / "end") / "work" / name
            if not (one.is_file() and other.is_file()):
                return f"{name} is missing"
            if not alike(one, other):
                return f"{name} is not the undisturbed run's"
        return None

    def left_over(self) -> str | None:
        hidden = [path for path in self.place.rglob(".*") if path.name != ".mine"]
        return f"{hidden[0].relative_to(self.place)} is left" if hidden else None


def started(work: Path, step: Step) -> bool:
    """Whether a training came as far as its first checkpoint; `--resume` alone says what it says from there on."""
    return step.name != "train" or (work / "checkpoint.npz").is_file()


def alike(one: Path, other: Path) -> bool:
    """Whether two files have the same content: to float error where networks trained, else to the byte."""
    if one.suffix == ".tif" and one.name not in ("images.tif", "labels.tif"):
        first, second = tifffile.imread(one), tifffile.imread(other)
        return first.shape == second.shape and np.abs(first.astype(float) - second).max() <= CLOSE
    if one.name in ("metrics.json", "config.json", "history.csv"):  # seconds differ; their numbers are the maps'
        return one.stat().st_size > 0
    return file_hash(one) == file_hash(other)


# ------------------------------------------------------------------------------------------------- the faults


def killed(harness: Harness, step: Step, sign: signal.Signals, fault: str) -> None:
    """Stop a step and its workers at a random moment, then go on."""
    harness.set_back(step)
    for name in (".mine", "notes.txt"):  # the user's, also in the run's folder
        (harness.place / "work").mkdir(exist_ok=True)
        (harness.place / "work" / name).write_text("mine")
    process = harness.start(step)
    time.sleep(harness.moment(step))
    if sign == signal.SIGKILL:
        os.killpg(process.pid, sign)
    else:
        process.send_signal(sign)
    _, errors = process.communicate(timeout=LIMIT)
    why = None
    if sign == signal.SIGTERM and process.returncode not in (0, 143, -signal.SIGTERM):
        why = f"ends with {process.returncode}: {errors.strip()[-300:]}"
    if sign == signal.SIGTERM and "Traceback" in errors:
        why = errors.strip()[-300:]
    why = why or harness.go_on(step)
    if any(not (harness.place / "work" / name).is_file() for name in (".mine", "notes.txt")):
        why = "what the user kept beside it is gone"
    harness.note(step, fault, why)


def full_disk(harness: Harness, step: Step, share: float) -> None:
    """Let no file grow beyond a share of the step's largest: the step says so, and goes on when there is room."""
    harness.set_back(step)
    sizes = [(harness.kept / "end" / "work" / name).stat().st_size for name in step.outputs]
    most = max(1, int(share * max(sizes)))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    result = harness.run(step, before=limited)
    why = None
    if result.returncode not in (0, 2) or "Traceback" in result.stderr:
        why = f"ends with {result.returncode}: {result.stderr.strip()[-300:]}"
    elif result.returncode == 2 and "disk is full" not in result.stderr:
        why = f"says {result.stderr.strip()[-300:]}"
    harness.note(step, "full disk", why or harness.go_on(step))


def read_only(harness: Harness, step: Step) -> None:
    """Let the folder be read-only."""
    harness.set_back(step)
    with mounted_read_only(harness.place) as there:
        if not there:
            return
        result = harness.run(step)
    why = None if result.returncode == 2 and "Traceback" not in result.stderr else (
        f"ends with {result.returncode}: {result.stderr.strip()[-300:]}")
    harness.note(step, "read-only folder", why or harness.go_on(step))


@contextmanager
def mounted_read_only(folder: Path) -> Iterator[bool]:
    """The folder, read-only; False where nothing can be mounted."""
    commands = (["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder])
    there = shutil.which("mount") and all(subprocess.run(one, capture_output=True).returncode == 0 for one in commands)
    try:
        yield bool(there)
    finally:
        if there:
            subprocess.run(["umount", folder], check=True)


def from_the_future(harness: Harness, step: Step, days: float) -> None:
    """Let the clock have been set back since the files were written, or forward."""
    harness.set_back(step)
    for path in harness.place.rglob("*"):
        os.utime(path, (time.time() + 86400 * days,) * 2)
    harness.note(step, "clock set back" if days > 0 else "clock set forward", harness.go_on(step))


def replaced(harness: Harness, step: Step) -> None:
    """Replace what a step reads while it runs: it says so, or has read one of both; then go on with the first."""
    name = "test-volume.tif" if step.name == "predict" else "train-volume.tif"
    path, end = harness.place / "data" / name, harness.kept / f"{step.name} of another"
    if not end.exists():
        harness.set_back(step)
        replace_input(path)
        harness.run(step)
        shutil.copytree(harness.place, end)
    harness.set_back(step)
    process = harness.start(step)
    time.sleep(harness.moment(step))
    replace_input(path)
    _, errors = process.communicate(timeout=LIMIT)
    if process.returncode == 0:
        why = harness.differs(step) and harness.differs(step, end)
    else:
        named = process.returncode == 2 and name in errors and "Traceback" not in errors
        why = None if named else f"ends with {process.returncode}: {errors.strip()[-300:]}"
        shutil.copy(harness.kept / step.name / "data" / name, path)
        why = why or harness.go_on(step)
    harness.note(step, "input replaced", why)


def replace_input(path: Path) -> None:
    """Put the stack's mirror image in its place."""
    mirrored = tifffile.imread(path)[:, ::-1]
    tifffile.imwrite(path.with_suffix(".new"), mirrored)
    path.with_suffix(".new").replace(path)


def two_at_once(harness: Harness, step: Step) -> None:
    """Start a step twice: the second is refused by the first's number, and the first ends as if nothing had been."""
    harness.set_back(step)
    first = harness.start(step)
    end = time.monotonic() + LIMIT
    while not list(harness.place.rglob(".*.lock")) and first.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # else it may be done before the second has begun
    second = harness.run(step)
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=LIMIT)
    why = None
    if second.returncode != 2 or f"process {first.pid}" not in second.stderr:
        why = f"the second ends with {second.returncode}: {second.stderr.strip()[-300:]}"
    elif first.returncode:
        why = f"the first ends with {first.returncode}: {errors.strip()[-300:]}"
    harness.note(step, "two at once", why or harness.differs(step) or harness.left_over())


def inject(harness: Harness, kills: int, shares: tuple[float, ...] = (0.02, 0.3, 0.7, 0.97)) -> None:
    """Every fault of every step: `kills` times -9, a fifth as often what else is random, full disks at `shares`."""
    for step in STEPS:
        for _ in range(kills):
            killed(harness, step, signal.SIGKILL, "kill -9")
        for _ in range(max(1, kills // 5)):
            killed(harness, step, signal.SIGTERM, "SIGTERM")
            replaced(harness, step)
        for share in shares:
            full_disk(harness, step, share)
        read_only(harness, step)
        for days in (1, -1):
            from_the_future(harness, step, days)
        two_at_once(harness, step)


def table(harness: Harness) -> str:
    """The faults as a table: injected and survived, a row a fault, a column a step."""
    faults = list(dict.fromkeys(fault for _, fault in harness.injected))
    lost = Counter((step, fault) for step, fault, _ in harness.lost)
    rows = [f"{'':20}" + "".join(f"{step.name:>16}" for step in STEPS)]
    for fault in faults:
        cells = ((harness.injected[step.name, fault], lost[step.name, fault]) for step in STEPS)
        rows.append(f"{fault:20}" + "".join(f"{f'{count - gone} of {count}':>16}" for count, gone in cells))
    total = sum(harness.injected.values())
    return "\n".join([*rows, f"{total} injected, {total - len(harness.lost)} survived, {len(harness.lost)} lost"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="random moments of each step at which it is killed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(Path(folder) / "place", Path(folder) / "kept")
        harness.prepare()
        inject(harness, args.kills)
    print(table(harness))
    sys.exit(bool(harness.lost))


if __name__ == "__main__":
    main()
