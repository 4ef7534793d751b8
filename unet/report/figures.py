"""Draw the pictures of README and docs from runs on the demo stack and on nuclei of the 2018 Data Science Bowl.

    make images                         makes the run on the demo stack if there is none, then calls this

Pictures of classes and of nuclei are drawn only if there are such runs:
    python -m unet.report.figures --make-classes data/demo/classes, then the three steps with --classes 3 and --work
    results/classes; and the three steps with --data FOLDER --work results/nuclei on the bowl's images, which are CC0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from scipy.ndimage import binary_opening, gaussian_filter
from tqdm import tqdm

from unet.system.quiet import import_quietly

if __name__ == "__main__":
    import_quietly()

from unet.inputs.stacks import LABELS, TEST, VOLUME, read_stack, write_stack
from unet.network import Network
from unet.report import operations
from unet.report.base import Pictures, crop_panels
from unet.report.by_task import pictures_of
from unet.report.colours import HUES, LIGHTS, for_display, linked_colours
from unet.report.network import draw_network, draw_overlap_tiles
from unet.report.paint import busiest
from unet.report.pictures import draw_curve, grid, middle, save
from unet.report.run import Run, last_run
from utils import Parser, UserError, atomic_path, run

SEED = 0  # of the noise and the deformations
ANIMATION = "prediction.gif"
FRAMES, FRAME_SIDE = 10, 208  # of the animation: slices, and side of a picture in pixels, at most
GAP, TITLE_HEIGHT = 8, 24  # space between its pictures and above them, pixels
SOURCE = "Images: BBBC038v1 of the Broad Bioimage Benchmark Collection (CC0; Caicedo et al. 2019)."


def _overview(run: Run, pictures: Pictures) -> Figure:
    """Draw an unlabelled slice: image, probability, cells."""
    image, *maps, cells = pictures.row(run.predictions([0])[0], run.learnt, "image")
    return grid([[replace(panel, meaning="") for panel in (image, maps[0], cells)]], "", 4)[0]


def _examples(run: Run, pictures: Pictures, caption: str) -> Figure:
    """Draw a held-out sample of each group, with a score in the middle."""
    rows = [crop_panels(pictures.row(one, run.learnt, one.sample.group or one.sample.name),
                        busiest(one.sample.label > 0, pictures.side)) for one in pictures.typical(run, 1)]
    figure, _ = grid(rows, caption, 2.8)
    pictures.add_legend(figure)
    return figure


def _small(draw: Callable) -> Callable[[Run, Pictures], Figure]:
    """Return a function that draws an operation on the middle of an image and of its label."""
    return lambda run, pictures: draw(*map(middle, pictures.example(run)), run.options)


def _seeded(draw: Callable) -> Callable:
    """Return `draw` with a generator as its last argument."""
    return lambda *arguments: draw(*arguments, np.random.default_rng(SEED))


def _four_copies(run: Run) -> list[int]:
    """Choose four augmented pages, of different slices: copies follow each other in the order of the slices."""
    originals, copies = len(run.layout), len(run.pages) - len(run.layout)
    return [originals + number * (copies // 4 + 1) % copies for number in range(4)]


FIGURES: dict[str, Callable[[Run, Pictures], Figure]] = {  # photographs as JPEG, line drawings as PNG
    "overview.jpg": _overview,
    "slices.jpg": lambda run, pictures: pictures.images(run),
    "flips.jpg": _small(lambda image, label, _: operations.show_flips(image, label)),
    "noise.jpg": _small(_seeded(lambda image, _, *others: operations.show_noise(image, *others))),
    "brightness.jpg": _small(lambda image, _, options: operations.show_brightness(image, options)),
    "elastic.jpg": _small(_seeded(operations.show_elastic)),
    "crops.jpg": lambda run, pictures: operations.show_crops(*pictures.example(run), run.options),
    "pads.jpg": lambda run, pictures: operations.show_pads(*pictures.example(run), run.options),
    "pages.jpg": lambda run, pictures: operations.show_pages(run, pictures, _four_copies(run)),
    "tiles.jpg": lambda run, pictures: pictures.tiles(run),
    "overlap-tiles.jpg": lambda run, pictures: draw_overlap_tiles(run),
    "weights.jpg": lambda run, pictures: pictures.weights(run),
    "network.png": lambda run, pictures: draw_network(Network(**run.config["network"]), run.config["channels"],
                                                      run.geometry["tile"]),
    "curves.png": lambda run, pictures: draw_curve(run.history),
    "walls.jpg": lambda run, pictures: pictures.objects(run),
    "thresholds.png": lambda run, pictures: pictures.scores(run),
    "errors.jpg": lambda run, pictures: pictures.errors(run),
    "worst-tiles.jpg": lambda run, pictures: pictures.worst(run),
    "instances.jpg": lambda run, pictures: pictures.instances(run),
    "stack.jpg": lambda run, pictures: pictures.prediction(run, most=4),
}
OTHERS: dict[str, tuple[str, Callable[[Run, Pictures], Figure]]] = {  # from runs on other data: option, drawing
    "classes.jpg": ("classes", lambda run, pictures: _examples(
        run, pictures, "A held-out slice of the synthetic demo stack with three classes: 0 = membrane, 1 = cell, "
        "2 = dark parts inside a cell, which a threshold labelled.")),
    "nuclei.jpg": ("nuclei", lambda run, pictures: _examples(
        run, pictures, "Held-out images: for each modality the one whose score is in the middle. Large images are "
        "shown in part; the counts are for the whole image. A nucleus is right if the overlap of the true and the "
        f"predicted one is more than half of both together. Black: outlines of the prediction. {SOURCE}")),
}


def animate(run: Run, path: Path) -> None:
    """Write an animated GIF of unlabelled slices: image, probability and cells side by side."""
    predictions = run.predictions(range(min(FRAMES, len(run.to_predict))))
    cells, frames = [middle(one.objects, FRAME_SIDE) for one in predictions], []
    for number, (one, objects, colours) in enumerate(zip(predictions, cells, linked_colours(cells), strict=True)):
        height, width = objects.shape
        frame = Image.new("RGB", (3 * width + 2 * GAP, height + TITLE_HEIGHT), "white")
        for place, (array, title) in enumerate((
                (for_display(middle(one.sample.image, FRAME_SIDE)), f"slice {number}"),
                (middle(one.probability, FRAME_SIDE) * 255, "probability of cell"),
                (colours[objects] * 255, "cells, colours kept from slice to slice"))):
            frame.paste(Image.fromarray(np.rint(array).astype(np.uint8)), (place * (width + GAP), TITLE_HEIGHT))
            ImageDraw.Draw(frame).text((place * (width + GAP) + 2, 6), title, "black")
        frames.append(frame)
    # only greys and the colours of cells: without dithering nothing flickers
    hues = (HUES[:, np.newaxis] + (1 - HUES[:, np.newaxis]) * LIGHTS[:, np.newaxis]).ravel() * 255
    greys = np.linspace(0, 255, 256 - len(hues) // 3).repeat(3)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(np.concatenate([hues, greys])).astype(np.uint8).tobytes())
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_path(path) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=700, loop=0)


def make_classes(demo: Path, folder: Path) -> None:
    """Write the demo stack with labels of three classes: 0 = membrane, 1 = cell, 2 = dark part inside a cell."""
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
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("results/demo"), help="folder of a run on the demo stack")
    parser.add_argument("--out", type=Path, help="its predicted stack, if it was moved")
    parser.add_argument("--classes", type=Path, default=Path("results/classes"), help="folder of a run on classes")
    parser.add_argument("--nuclei", type=Path, default=Path("results/nuclei"), help="folder of a run on nuclei")
    parser.add_argument("--images", type=Path, default=Path("images"), help="folder for the pictures")
    parser.add_argument("--make-classes", type=Path, metavar="DIR", help="only write a demo stack of three classes")
    args = parser.parse_args()
    if args.make_classes:
        make_classes(Path("data/demo"), args.make_classes)
        return
    demo = last_run(args.work, out=args.out)
    if demo.task.name != "cells" or not demo.shows_demo:
        raise UserError(f"{args.work} is a run on {demo.manifest['data']}; the README's pictures are drawn from the "
                        "demo stack, which is free to show: 'make images' makes such a run")
    if not demo.predictions([0]):
        raise UserError(f"{demo.outputs.out} is not the prediction of this run's test stack; name it with --out")
    jobs = {name: (draw, demo, pictures_of(demo.task)) for name, draw in FIGURES.items()}
    for name, (option, draw) in OTHERS.items():
        work = getattr(args, option)
        if (work / "metrics.json").is_file():
            task_run = last_run(work)
            jobs[name] = (draw, task_run, pictures_of(task_run.task))
        else:
            print(f"note: {work} has no run, so {args.images / name} stays as it is")
    for name, (draw, *arguments) in tqdm(jobs.items(), desc="drawing", unit="picture", disable=None):
        save(draw(*arguments), args.images / name)
    animate(demo, args.images / ANIMATION)
    size = sum((args.images / name).stat().st_size for name in [*jobs, ANIMATION])
    print(f"{args.images}: {len(jobs)} pictures and {ANIMATION}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
