"""The README's pictures, drawn from a run on the demo stack: results/demo/ -> images/

    make images                         makes that run where it isn't there, then calls this
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from model import Network
from unet.report import show_cells, show_data
from unet.report.lastrun import StackRun, last_run
from unet.report.pictures import draw_curve, save
from unet.report.show_network import draw_network
from utils import UserError, run

SEED = 0  # of the noise and deformations that are shown


def _small(one: StackRun) -> tuple[np.ndarray, np.ndarray]:
    """The middle of an image and of its label."""
    return tuple(show_data.middle(array) for array in one.example)


def _network(one: StackRun) -> Figure:
    return draw_network(Network(**one.config["network"]), one.config["channels"], one.geometry["tile"])


FIGURES: dict[str, Callable[[StackRun], Figure]] = {  # photographs as JPEG, line drawings as PNG
    "slices.jpg": show_cells.show_images,
    "flips.jpg": lambda one: show_data.show_flips(*_small(one)),
    "noise.jpg": lambda one: show_data.show_noise(_small(one)[0], np.random.default_rng(SEED)),
    "brightness.jpg": lambda one: show_data.show_brightness(_small(one)[0]),
    "elastic.jpg": lambda one: show_data.show_elastic(*_small(one), np.random.default_rng(SEED)),
    "crops.jpg": lambda one: show_data.show_crops(*one.example),
    "pads.jpg": lambda one: show_data.show_pads(*one.example),
    "tiles.jpg": show_cells.show_tiles,
    "weights.jpg": show_cells.show_weights,
    "network.png": _network,
    "curves.png": lambda one: draw_curve(one.history),
    "thresholds.png": show_cells.show_scores,
    "errors.jpg": show_cells.show_errors,
    "worst-tiles.jpg": show_cells.show_worst,
    "instances.jpg": show_cells.show_instances,
    "stack.jpg": show_cells.show_prediction,
}
ANIMATION = "prediction.gif"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("results/demo"), help="folder of a run on the demo stack")
    parser.add_argument("--out", type=Path, default=Path("results/demo/prediction.tif"), help="its predicted stack")
    parser.add_argument("--images", type=Path, default=Path("images"), help="folder to draw into")
    args = parser.parse_args()
    # the environment's DATA is for other commands: these pictures are of the run's own data
    one = last_run(args.work, out=args.out)
    if one.kind != "cells" or not one.is_demo:
        raise UserError(f"{args.work} is a run on {one.manifest['data']}; the README's pictures are drawn from the "
                        "demo stack, which is free to show: 'make images' makes such a run")
    for name, draw in tqdm(FIGURES.items(), desc="drawing", unit="picture", disable=None):
        save(draw(one), args.images / name)
    if one.prediction is None:
        raise UserError(f"{args.out} is not the prediction of this run's test stack; name it with --out")
    show_cells.animate_prediction(one, args.images / ANIMATION)
    size = sum((args.images / name).stat().st_size for name in [*FIGURES, ANIMATION])
    print(f"{args.images}: {len(FIGURES)} pictures and {ANIMATION}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
