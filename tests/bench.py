"""Measure the speed, the memory and the transfer of this project: python tests/bench.py WHAT

- augment: augmented pairs per second, in comparison with the original repository
- memory: peak memory of steps 1 and 2, and of prediction (see memory.py); steps: the two steps only
- feed: how fast the network gets its tiles (see feeding.py)
- predict: how fast prediction is (see rates.py)
- transfer: how well a network works on other laboratories' images (see transfer.py)

The original repository augments in one process: a dense random field smoothed by `gaussian_filter`, `map_coordinates`
in float64 for image and label separately, and a PNG for each sample.
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
from unet.system.workers import default_workers
from utils import run


def original_way(images: np.ndarray, labels: np.ndarray, pairs: int, folder: Path, seed: int = 0) -> float:
    """Return the seconds for `pairs` elastic pairs as the original repository made them: alpha 34, sigma 6 to 12."""
    rng = np.random.default_rng(seed)
    start = time.perf_counter()
    for number in range(pairs):
        for name, stack in (("image", images), ("label", labels)):
            array = stack[number % len(stack)].astype(np.float64)
            sigma = rng.uniform(6, 12)
            dy, dx = (gaussian_filter(rng.random(array.shape) * 2 - 1, sigma, mode="constant") * 34 for _ in range(2))
            y, x = np.indices(array.shape)
            result = map_coordinates(array, [y + dy, x + dx], order=1, mode="reflect")
            imsave(folder / f"{name}-{number}.png", result.astype(np.uint8), check_contrast=False)
    return time.perf_counter() - start


def bench_augment(args: argparse.Namespace) -> None:
    """Print the speed of step 1 from its start to its end, and that of the original on the same stacks."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = args.data or (Path("data") if Path("data/train-volume.tif").is_file() else folder / "demo")
        if data == folder / "demo":
            make_demo(data, size=512)
        layout = layout_of(data)
        images, labels = layout.images, layout.labels
        start = time.perf_counter()
        manifest = augment(data, folder / "work", Settings(copies=args.copies, workers=args.workers))
        seconds = time.perf_counter() - start
        pairs, original_pairs = len(manifest["split"]["train"]) * args.copies, 40
        original_seconds = original_way(images, labels, original_pairs, folder)
    rate, original_rate = pairs / seconds, original_pairs / original_seconds
    print(f"{images.shape[1]}x{images.shape[2]} pixels, {os.cpu_count()} cores\n"
          f"here:     {pairs} pairs in {seconds:.1f} s, {args.workers} workers, start to finish: {rate:.1f} pairs/s\n"
          f"original: {original_pairs} pairs in {original_seconds:.1f} s, one process: {original_rate:.1f} pairs/s\n"
          f"ratio:    {rate / original_rate:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=["augment", "memory", "steps", "feed", "predict", "transfer"],
                        default="augment", help="what to measure (augment)")
    parser.add_argument("--data", type=Path, help="folder of the three stacks (default: data/, or a demo)")
    parser.add_argument("--copies", type=int, default=30, help="augment: copies of each slice (30)")
    parser.add_argument("--workers", type=int, default=default_workers(), help="augment: processes (one per core)")
    parser.add_argument("--model", type=Path, help="the trained network (default for memory: one of random weights)")
    parser.add_argument("--engine", default="auto", help="memory, predict, transfer: what runs the network (auto)")
    parser.add_argument("--side", type=int, default=2048, help="memory, steps: side of a slice, pixels (2048)")
    parser.add_argument("--slices", type=int, default=200, help="steps: how many slices (200)")
    parser.add_argument("--room", type=Path, help="memory, steps: folder with room for 15 GB of stacks and tiles")
    parser.add_argument("--page", type=int, default=16384, help="memory, predict: side of the page, pixels (16384)")
    parser.add_argument("--tile", type=int, default=256, help="feed: side of a tile, pixels (256)")
    parser.add_argument("--steps", type=int, default=50, help="feed: how many steps of the network are timed (50)")
    parser.add_argument("--repeats", type=int, default=3, help="predict: how often each is timed (3)")
    args = parser.parse_args()
    if args.what in ("memory", "steps"):
        from memory import bench_memory, bench_steps  # importing Keras takes seconds
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
