"""Measurements. Augmented pairs per second, this project's way and the original's: python tests/bench.py augment

Peak memory of steps 1 and 2, and of prediction: python tests/bench.py memory (see memory.py; steps alone: steps)
How fast tiles come to the network: python tests/bench.py feed (see feeding.py)
How fast prediction is: python tests/bench.py predict (see rates.py)
How a network carries over to other laboratories' images: python tests/bench.py transfer (see transfer.py)

The original's way, one process: a dense random field smoothed by `gaussian_filter`, `map_coordinates` in float64, image
and label each, every sample a PNG of its own.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.io import imsave

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from augmentation import Settings, augment
from unet.inputs.demo import make_demo
from unet.inputs.layouts import layout_of
from unet.workers import default_workers
from utils import run


def original_way(images: np.ndarray, labels: np.ndarray, pairs: int, folder: Path, seed: int = 0) -> float:
    """Seconds for `pairs` elastic pairs as the original repository made them: alpha 34, sigma 6 to 12."""
    rng = np.random.default_rng(seed)
    began = time.perf_counter()
    for number in range(pairs):
        for name, stack in (("image", images), ("label", labels)):
            array = stack[number % len(stack)].astype(np.float64)
            sigma = rng.uniform(6, 12)
            dy, dx = (gaussian_filter(rng.random(array.shape) * 2 - 1, sigma, mode="constant") * 34 for _ in range(2))
            y, x = np.indices(array.shape)
            moved = map_coordinates(array, [y + dy, x + dx], order=1, mode="reflect")
            imsave(folder / f"{name}-{number}.png", moved.astype(np.uint8), check_contrast=False)
    return time.perf_counter() - began


def bench_augment(args: argparse.Namespace) -> None:
    """Time step 1 from its start to its end, and the original's way on the same stacks."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = args.data or (Path("data") if Path("data/train-volume.tif").is_file() else folder / "demo")
        if data == folder / "demo":
            make_demo(data, size=512)
        layout = layout_of(data)
        images, labels = layout.images, layout.labels
        began = time.perf_counter()
        manifest = augment(data, folder / "work", Settings(copies=args.copies, workers=args.workers))
        ours = time.perf_counter() - began
        pairs = len(manifest["split"]["train"]) * args.copies
        theirs_pairs = 40
        theirs = original_way(images, labels, theirs_pairs, folder)
    rate, their_rate = pairs / ours, theirs_pairs / theirs
    print(f"{images.shape[1]}x{images.shape[2]} pixels, {os.cpu_count()} cores\n"
          f"here:         {pairs} pairs in {ours:.1f} s, {args.workers} workers, start to finish: {rate:.1f} pairs/s\n"
          f"original way: {theirs_pairs} pairs in {theirs:.1f} s, one process: {their_rate:.1f} pairs/s\n"
          f"ratio:        {rate / their_rate:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=["augment", "memory", "steps", "feed", "predict", "transfer"],
                        default="augment", help="what to measure (augment)")
    parser.add_argument("--data", type=Path, help="folder of the three stacks (without it data/, else the demo)")
    parser.add_argument("--copies", type=int, default=30)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--model", type=Path, help="the trained network (memory: without it one of random weights)")
    parser.add_argument("--engine", default="auto", help="memory, predict, transfer: what runs the network (auto)")
    parser.add_argument("--side", type=int, default=2048, help="memory, steps: side of the slices, pixels (2048)")
    parser.add_argument("--slices", type=int, default=200, help="steps: how many slices (200)")
    parser.add_argument("--room", type=Path, help="memory, steps: folder with room for 15 GB of stacks and tiles")
    parser.add_argument("--page", type=int, default=16384, help="memory, predict: side of the page, pixels (16384)")
    parser.add_argument("--tile", type=int, default=256, help="feed: side of a tile, pixels (256)")
    parser.add_argument("--steps", type=int, default=50, help="feed: steps of the network that are timed (50)")
    parser.add_argument("--repeats", type=int, default=3, help="predict: how often each is timed (3)")
    args = parser.parse_args()
    if args.what in ("memory", "steps"):
        from memory import bench_memory, bench_steps  # Keras takes seconds to come in
        bench_steps(args)
        if args.what == "memory":
            bench_memory(args)
    elif args.what == "feed":
        from feeding import bench_feed
        bench_feed(args)
    elif args.what == "predict":
        from rates import bench_predict
        bench_predict(args)
    elif args.what == "transfer":
        from transfer import bench_transfer
        bench_transfer(args)
    else:
        bench_augment(args)


if __name__ == "__main__":
    run(main)
