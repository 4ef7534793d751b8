"""The pictures of README and docs, drawn from runs on the demo stack and on nuclei of the Data Science Bowl of 2018.

    make images                         makes the demo's run where it isn't there, then calls this

Pictures of several classes and of nuclei are drawn where such runs are, else they stay as they are:
    python -m unet.report.figures --make-classes data/demo/classes, then the three steps with --classes 3 and --work
    results/classes; and the three steps with --data FOLDER --work results/nuclei on the bowl's images, which are CC0
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from scipy.ndimage import binary_opening, gaussian_filter
from tqdm import tqdm

from unet.quiet import import_quietly

if __name__ == "__main__":
    import_quietly()

from unet.inputs.stacks import LABELS, TEST, VOLUME, read_stack, write_stack
from unet.network import Network
from unet.report import operations
from unet.report.base import Pictures, cut
from unet.report.by_task import pictures_of
from unet.report.colours import HUES, LIGHTS, linked_colours, stretched
from unet.report.network import draw_network, draw_overlap_tiles
from unet.report.paint import busiest
from unet.report.pictures import draw_curve, grid, middle, save
from unet.report.run import Run, last_run
from utils import Parser, UserError, atomic_path, run

SEED = 0  # of the noise and deformations that are shown
ANIMATION = "prediction.gif"
FRAMES, SIDE = 10, 208  # of the animation: at most so many slices, pixels
GAP, HEAD = 8, 24  # between its pictures and above them, pixels
SOURCE = "Images: BBBC038v1 of the Broad Bioimage Benchmark Collection (CC0; Caicedo et al. 2019)."


def _overview(one: Run, pictures: Pictures) -> Figure:
    """A slice that nobody labelled: image, probability, cells."""
    image, *maps, cells = pictures.row(one.predicted([0])[0], one.learnt, "image")
    return grid([[replace(panel, means="") for panel in (image, maps[0], cells)]], "", 4)[0]


def _examples(one: Run, pictures: Pictures, caption: str) -> Figure:
    """A held-out sample of each group, with a score in the middle."""
    rows = [cut(pictures.row(judged, one.learnt, judged.sample.group or judged.sample.name),
                busiest(judged.sample.label > 0, pictures.side)) for judged in pictures.typical(one, 1)]
    figure, _ = grid(rows, caption, 2.8)
    pictures.mark(figure)
    return figure


def _small(draw: Callable) -> Callable[[Run, Pictures], Figure]:
    """A picture of an operation, on the middle of an image and of its label."""
    return lambda one, pictures: draw(*map(middle, pictures.example(one)), one.options)


def _random(draw: Callable) -> Callable:
    return lambda *arguments: draw(*arguments, np.random.default_rng(SEED))


FIGURES: dict[str, Callable[[Run, Pictures], Figure]] = {  # photographs as JPEG, line drawings as PNG
    "overview.jpg": _overview,
    "slices.jpg": lambda one, pictures: pictures.images(one),
    "flips.jpg": _small(lambda image, label, _: operations.show_flips(image, label)),
    "noise.jpg": _small(_random(lambda image, _, *others: operations.show_noise(image, *others))),
    "brightness.jpg": _small(lambda image, _, options: operations.show_brightness(image, options)),
    "elastic.jpg": _small(_random(operations.show_elastic)),
    "crops.jpg": lambda one, pictures: operations.show_crops(*pictures.example(one), one.options),
    "pads.jpg": lambda one, pictures: operations.show_pads(*pictures.example(one), one.options),
    "pages.jpg": lambda one, pictures: operations.show_pages(
        one, pictures, np.linspace(len(one.layout), len(one.pages) - 1, 4).astype(int).tolist()),
    "tiles.jpg": lambda one, pictures: pictures.tiles(one),
    "overlap-tiles.jpg": lambda one, pictures: draw_overlap_tiles(one),
    "weights.jpg": lambda one, pictures: pictures.weights(one),
    "network.png": lambda one, pictures: draw_network(Network(**one.config["network"]), one.config["channels"],
                                                      one.geometry["tile"]),
    "curves.png": lambda one, pictures: draw_curve(one.history),
    "walls.jpg": lambda one, pictures: pictures.objects(one),
    "thresholds.png": lambda one, pictures: pictures.scores(one),
    "errors.jpg": lambda one, pictures: pictures.errors(one),
    "worst-tiles.jpg": lambda one, pictures: pictures.worst(one),
    "instances.jpg": lambda one, pictures: pictures.instances(one),
    "stack.jpg": lambda one, pictures: pictures.prediction(one, most=4),
}
OTHERS: dict[str, tuple[str, Callable[[Run, Pictures], Figure]]] = {  # of runs on other data: task, drawing
    "classes.jpg": ("classes", lambda one, pictures: _examples(
        one, pictures, "A held-out slice of the synthetic demo stack with three classes: 0 = membrane, 1 = cell, 2 = "
        "its dark insides, which a threshold labelled.")),
    "nuclei.jpg": ("nuclei", lambda one, pictures: _examples(
        one, pictures, "Held-out images, of each modality the one whose score is in the middle. Of a large image a "
        "part is shown; the counts are of the whole image. A nucleus is right where more than half of the true and "
        f"the predicted one together is common to both. Black: outlines of the prediction. {SOURCE}")),
}


def animate(one: Run, path: Path) -> None:
    """Write an animated GIF: slices that nobody labelled, image, probability and cells beside each other."""
    shown = one.predicted(range(min(FRAMES, len(one.to_predict))))
    cells, frames = [middle(judged.objects, SIDE) for judged in shown], []
    for number, (judged, objects, colours) in enumerate(zip(shown, cells, linked_colours(cells), strict=True)):
        height, width = objects.shape
        frame = Image.new("RGB", (3 * width + 2 * GAP, height + HEAD), "white")
        for place, (array, title) in enumerate((
                (stretched(middle(judged.sample.image, SIDE)), f"slice {number}"),
                (middle(judged.probability, SIDE) * 255, "probability of cell"),
                (colours[objects] * 255, "cells, colours kept from slice to slice"))):
            frame.paste(Image.fromarray(np.rint(array).astype(np.uint8)), (place * (width + GAP), HEAD))
            ImageDraw.Draw(frame).text((place * (width + GAP) + 2, 6), title, "black")
        frames.append(frame)
    # greys and the cells' colours, no others: nothing is dithered, nothing flickers
    hues = (HUES[:, np.newaxis] + (1 - HUES[:, np.newaxis]) * LIGHTS[:, np.newaxis]).ravel() * 255
    greys = np.linspace(0, 255, 256 - len(hues) // 3).repeat(3)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(np.concatenate([hues, greys])).astype(np.uint8).tobytes())
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_path(path) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=700, loop=0)


def make_classes(demo: Path, folder: Path) -> None:
    """Write the demo stack with labels of three classes: 0 = membrane, 1 = cell, 2 = what is dark inside a cell."""
    images, labels = read_stack(demo / VOLUME), read_stack(demo / LABELS)
    classes = np.zeros_like(labels)
    for image, label, numbers in zip(images, labels, classes, strict=True):
        cell = label > 0
        grey = (image - np.median(image[cell])) / image.std()
        mean = gaussian_filter(grey * cell, 3) / np.maximum(gaussian_filter(cell.astype(float), 3), 0.05)
        numbers[:] = np.add(cell, binary_opening((mean < -0.6) & cell, iterations=6), dtype=np.uint8)
    for name, stack in ((VOLUME, images), (LABELS, classes), (TEST, read_stack(demo / TEST))):
        write_stack(folder / name, stack)


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("results/demo"), help="folder of a run on the demo stack")
    parser.add_argument("--out", type=Path, help="its predicted stack, where it is elsewhere")
    parser.add_argument("--classes", type=Path, default=Path("results/classes"), help="folder of a run on classes")
    parser.add_argument("--nuclei", type=Path, default=Path("results/nuclei"), help="folder of a run on nuclei")
    parser.add_argument("--images", type=Path, default=Path("images"), help="folder to draw into")
    parser.add_argument("--make-classes", type=Path, metavar="DIR", help="only make a demo stack of three classes")
    args = parser.parse_args()
    if args.make_classes:
        make_classes(Path("data/demo"), args.make_classes)
        return
    one = last_run(args.work, out=args.out)
    if one.task.name != "cells" or not one.is_demo:
        raise UserError(f"{args.work} is a run on {one.manifest['data']}; the README's pictures are drawn from the "
                        "demo stack, which is free to show: 'make images' makes such a run")
    if not one.predicted([0]):
        raise UserError(f"{one.outputs.out} is not the prediction of this run's test stack; name it with --out")
    pictures = pictures_of(one.task)
    jobs = {name: (draw, one, pictures) for name, draw in FIGURES.items()}
    for name, (task, draw) in OTHERS.items():
        work = getattr(args, task)
        if (work / "metrics.json").is_file():
            other = last_run(work)
            jobs[name] = (draw, other, pictures_of(other.task))
        else:
            print(f"note: {work} has no run, so {args.images / name} stays as it is")
    for name, (draw, *arguments) in tqdm(jobs.items(), desc="drawing", unit="picture", disable=None):
        save(draw(*arguments), args.images / name)
    animate(one, args.images / ANIMATION)
    size = sum((args.images / name).stat().st_size for name in [*jobs, ANIMATION])
    print(f"{args.images}: {len(jobs)} pictures and {ANIMATION}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
