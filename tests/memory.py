"""Measure the peak resident memory of whole processes, as users run them: python tests/bench.py memory

Steps 1 and 2 (only these: python tests/bench.py steps) run on 200 slices of 2048x2048, uint8 and uint16, for which they
may take 2 GB. predict.py runs on 8 and on 64 slices of 2048x2048 uint16, between which its memory may grow by a tenth,
and on a page of 16384x16384 uint16, for which it may take 3 GB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import psutil

from model import PRESETS
from unet.inputs.stacks import LABELS, TEST, VOLUME, stack_writer
from unet.tasks.cells import Cells
from unet.training.encoders import build

ROOT = Path(__file__).resolve().parent.parent
INTERVAL = 0.02  # seconds between two looks at a process
GROWTH = 1.10  # allowed ratio of the memory for 64 slices to that for 8
PAGE_BYTES, STEP_BYTES = 3e9, 2e9  # allowed for predict.py on one page, and for steps 1 and 2


def peak(command: list[str], folder: Path) -> tuple[int, float]:
    """Run a command in a folder; return the most bytes that its processes had resident together, and the seconds.

    Raises subprocess.CalledProcessError if it fails.
    """
    start, most = time.perf_counter(), 0
    with open(folder / "printed.txt", "w+") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        top = psutil.Process(process.pid)
        while process.poll() is None:
            most = max(most, resident(top))
            time.sleep(INTERVAL)
        if process.returncode:
            output.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, output.read())
    return most, time.perf_counter() - start


def resident(top: psutil.Process) -> int:
    """Return the bytes that a process and its children have resident now; 0 once it has ended."""
    try:
        return sum(one.memory_info().rss for one in [top, *top.children(recursive=True)])
    except psutil.NoSuchProcess:  # it, or a child, ended between two looks
        return 0


def write_input(path: Path, slices: int, side: int, dtype: type = np.uint16, labels: bool = False) -> None:
    """Write a stack (slices, side, side) of cells between dark membranes, with noise, or its labels, slice by slice."""
    rng = np.random.default_rng(0)
    y, x = np.ogrid[:side, :side]
    walls = (y % 60 < 4) | (x % 60 < 4)
    with stack_writer(path, (slices, side, side), np.uint8 if labels else dtype) as write:
        for _ in range(slices):
            if labels:
                write(np.where(walls, 0, 255).astype(np.uint8))
            elif dtype == np.uint8:
                write(np.where(walls, 50, 200).astype(np.uint8) + rng.integers(0, 40, walls.shape, np.uint8))
            else:
                write(np.where(walls, 2000, 9000).astype(np.uint16) + rng.integers(0, 1500, walls.shape, np.uint16))


def write_model(folder: Path, preset: str) -> Path:
    """Write a network of a preset with random weights, and its config.json: memory doesn't depend on the weights."""
    network, task = PRESETS[preset].network, Cells()
    folder.mkdir()
    config = {"task": task.settings(), "network": asdict(network), "channels": task.channels,
              "normalisation": task.normalisation, "recipe": {"flips": 1, "look_back": 1, "walls": False},
              "learnt": {"walls": None, "threshold": 0.5, "plain_threshold": 0.5, "on": []}}
    keras.utils.set_random_seed(0)
    build(network, task.channels, task.normalisation).save(folder / "model.keras")
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.keras"


def bench_steps(args: argparse.Namespace) -> None:
    """Print the peak memory of both steps with their default options, and whether it is allowed."""
    for dtype in (np.uint8, np.uint16):
        with tempfile.TemporaryDirectory(dir=args.room) as temporary:
            data = Path(temporary) / "data"
            data.mkdir()
            write_input(data / VOLUME, args.slices, args.side, dtype)
            write_input(data / LABELS, args.slices, args.side, labels=True)
            write_input(data / TEST, 1, args.side, dtype)
            for script in ("augmentation.py", "preprocessing.py"):
                most, seconds = peak([sys.executable, str(ROOT / script)], Path(temporary))
                print(f"{script}, {args.slices} x {args.side} x {args.side} {np.dtype(dtype)}: {most / 1e9:.2f} GB at "
                      f"most, {seconds:.0f} s, {STEP_BYTES / 1e9:.0f} GB allowed: "
                      f"{'yes' if most <= STEP_BYTES else 'NO'}", flush=True)


def bench_memory(args: argparse.Namespace) -> None:
    """Print the peak memory of prediction for each input, and whether it is allowed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, peaks = Path(temporary), {}
        model = args.model.resolve() if args.model else write_model(folder / "run", "fast")
        print(f"random weights of the preset fast, 1 flip, engine {args.engine}, no walls" if not args.model else model)
        for slices, side in ((2, 256), (8, args.side), (64, args.side), (1, args.page)):
            write_input(folder / "in.tif", slices, side)
            command = [sys.executable, str(ROOT / "predict.py"), "in.tif", "--model", str(model), "--flips", "1",
                       "--engine", args.engine]
            peaks[slices], seconds = peak(command, folder)
            if slices == 2:  # the first run exports the engine's file with TensorFlow, which is not to be measured
                continue
            print(f"{slices} x {side} x {side} uint16: {peaks[slices] / 1e6:.0f} MB at most, {seconds:.0f} s, engine "
                  f"{args.engine}", flush=True)
    growth, page = peaks[64] / peaks[8], peaks[1]
    print(f"64 slices against 8: {growth:.2f} times, {GROWTH:.2f} allowed: {'yes' if growth <= GROWTH else 'NO'}\n"
          f"one page: {page / 1e9:.2f} GB, {PAGE_BYTES / 1e9:.0f} GB allowed: {'yes' if page <= PAGE_BYTES else 'NO'}")
