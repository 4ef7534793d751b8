"""Measure how fast prediction is: python tests/bench.py predict --model results/model.keras

The whole pipeline (reading, flips, walls, numbering, writing) is compared with the engine's bare passes on the same
tiles, and with TensorFlow's passes one flip at a time on square tiles, as this project predicted at first. One large
page is compared with OpenVINO's own benchmark_app on the same tile. All in one run; times are medians.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from unet.engines.engines import FOLDER, open_engine
from unet.engines.predictor import Predictor, make_predictor
from unet.engines.windows import overlap_tiles
from unet.predicting.images import predictions
from unet.training.trained import read_config
from utils import OverlapTile, UserError, apply_symmetry, file_hash

PAGE_TILES = 12  # bare passes that are timed for the large page, which has several hundred tiles of one size
SECONDS = 10  # for which benchmark_app runs


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of `call`, after a first one that is not counted."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class Passes:
    """A stand-in for an engine: it keeps the batches that it gets, and returns .5 in the right shape."""

    def __init__(self, classes: int):
        self.classes, self.batches = classes, []

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        self.batches.append(tiles)
        return np.full((*tiles.shape[:3], self.classes), 0.5, np.float32)


def bare_passes(predictor: Predictor, images: list[np.ndarray]) -> list[np.ndarray]:
    """Return the batches that go through the network for these images."""
    passes = Passes(predictor.network.classes)
    for image in images:
        Predictor(passes, predictor.network, predictor.task, predictor.flips, predictor.zooms, predictor.limits)(image)
    return passes.batches


def bench_predict(args: argparse.Namespace) -> None:
    """Print the figures that this file's first lines describe."""
    if not args.model:
        raise UserError("name the trained network with --model")
    config = read_config(args.model)
    if not config.get("learnt"):
        raise UserError(f"{args.model}: nothing was learnt yet about walls; train to the end")
    engine, words = open_engine(args.model, args.engine)
    predictor = make_predictor(engine, config)
    stack = (args.data or Path("data")) / "test-volume.tif"
    samples = predictor.task.inputs(stack)
    images = [sample.image for sample in samples]
    print(f"{words}; {stack}: {len(images)} slices of {images[0].shape}, {predictor.flips} flips; medians of "
          f"{args.repeats}, after a first one that is not counted")
    batches = bare_passes(predictor, images)
    with ThreadPoolExecutor(predictor.best_threads) as pool:  # as many as the pipeline has images
        bare = median_seconds(lambda: list(pool.map(engine, batches)), args.repeats)
    with tempfile.TemporaryDirectory() as folder:
        outputs = predictor.task.outputs(Path(folder) / "prediction.tif")
        whole = median_seconds(lambda: [None for _ in predictions(predictor, predictor.task, samples,
                                                                  config["learnt"], outputs)], args.repeats)
    print(f"bare passes:    {bare:.2f} s\nwhole pipeline: {whole:.2f} s, {len(images) / whole:.2f} slices/s, "
          f"{whole / bare:.3f} times the bare passes")
    plain = one_by_one(args.model, predictor, images[0], args.repeats) * len(images)
    print(f"TensorFlow, one flip at a time, only passes: {plain:.2f} s; the whole pipeline has {plain / whole:.2f} "
          "times that rate")
    large_page(args, predictor)


def one_by_one(model: Path, predictor: Predictor, image: np.ndarray, repeats: int) -> float:
    """Return TensorFlow's median seconds for all flips of an image, one at a time on square, mirrored tiles."""
    engine, _ = open_engine(model, "tensorflow")
    normalised = predictor.task.normalise(image, predictor.task.levels(image))
    core = max(overlap_tiles(predictor.network, (max(normalised.shape[:2]),) * 2).cores)
    image = normalised if normalised.ndim == 3 else normalised[..., np.newaxis]
    turns = (apply_symmetry(image, number) for number in range(predictor.flips))
    grids = ((turn, OverlapTile(turn.shape[:2], core, predictor.network.margin)) for turn in turns)
    tiles = [grid.tile_at(turn, corner) for turn, grid in grids for corner in grid.corners()]
    return median_seconds(lambda: [engine(tile[np.newaxis]) for tile in tiles], repeats)


def large_page(args: argparse.Namespace, predictor: Predictor) -> None:
    """Print megapixels a second for a square page at one flip, and the ratio to benchmark_app on the same tile."""
    one_flip = Predictor(predictor.engine, predictor.network, predictor.task, limits=predictor.limits)
    page = np.random.default_rng(0).integers(0, 256, (args.page, args.page, predictor.task.channels), np.uint8)
    page = page if predictor.task.channels > 1 else page[..., 0]
    tiles = overlap_tiles(predictor.network, page.shape[:2], predictor.limits.core)
    inner = tiles.corners()[len(tiles) // 2 + tiles.grid[1] // 2]  # a tile in the middle, which has the full size
    batch = np.stack([tiles.tile_at(page, inner)] * predictor.best_threads)
    batch = batch if batch.ndim == 4 else batch[..., np.newaxis]
    passes = median_seconds(lambda: [predictor.engine(batch) for _ in range(PAGE_TILES)], args.repeats)
    bare = passes / PAGE_TILES / len(batch)
    start = time.perf_counter()
    one_flip.predict(page)
    seconds = time.perf_counter() - start
    print(f"page of {args.page} x {args.page}, one flip, once: {args.page**2 / seconds / 1e6:.2f} MP/s, "
          f"{seconds / len(tiles):.4f} s a tile of {tiles.sides[0]} x {tiles.sides[1]}; a bare pass {bare:.4f} s")
    reference = benchmark_app(args.model, (1, *batch.shape[1:]), len(batch))
    if reference:
        print(f"benchmark_app on that tile: {reference:.4f} s; bare pass {bare / reference:.3f} times, page "
              f"{seconds / len(tiles) / reference:.3f} times as long")


def benchmark_app(model: Path, shape: tuple[int, ...], streams: int) -> float | None:
    """Return the seconds a tile of OpenVINO's benchmark in so many streams; without it, print why and return None."""
    program = shutil.which("benchmark_app", path=str(Path(sys.executable).parent)) or shutil.which("benchmark_app")
    network = model.parent / FOLDER / f"{file_hash(model)[:16]}.xml"
    if not program or not network.is_file():
        print("benchmark_app: left out, as OpenVINO is not installed or did not run")
        return None
    result = subprocess.run([program, "-m", str(network), "-d", "CPU", "-hint", "none", "-nstreams", str(streams), "-t",
                             str(SECONDS), "-shape", f"[{','.join(map(str, shape))}]"], capture_output=True, text=True)
    rate = re.search(r"Throughput:\s+([\d.]+) FPS", result.stdout)
    if result.returncode or not rate:
        raise UserError(f"benchmark_app failed: {(result.stderr or result.stdout).strip().splitlines()[-1]}")
    return 1 / float(rate[1])
