"""Pictures of a run on stacks of cells: slices, tiles, scores, errors that merge or split cells, the test stack.

Each takes a run as `lastrun` reads it and returns a figure; where the run did not come so far, the figure says so.
show_classes.py and show_nuclei.py have functions of the same names for other runs.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from unet.report import show_data
from unet.report.colours import matched_colours, random_colours
from unet.report.lastrun import StackRun
from unet.report.paint import HARMLESS, MERGED, SPLIT, legend, paint_membranes, places
from unet.report.pictures import BLUE, DPI, GREEN, ORANGE, colour_bar, message, panels, show
from unet.scores.isbi import components, segments, v_rand
from unet.scores.mistakes import MembraneMistakes, membrane_mistakes
from utils import OverlapTile, atomic_path

NOT_JUDGED = ("No slice was held out of this run (--holdout none), or it was stopped before it was judged, so there is "
              "nothing to compare the prediction with.")
NOT_PREDICTED = ("The test stack or its prediction is not there, or they are not of one size: run 'python predict.py' "
                 "on the test stack, and name both with DATA and OUT.")
SIDE = 128  # of the worst tiles at most, pixels; of small slices half the side


# ------------------------------------------------------------------------------------------- what goes in


def example(run: StackRun) -> tuple[np.ndarray, np.ndarray]:
    """A training slice and its label, uint8 (H, W) each, to show augmentations on."""
    return run.example


def show_images(run: StackRun, count: int = 4) -> Figure:
    """Some labelled slices, from the first to the last, with their labels."""
    chosen = np.unique(np.linspace(0, len(run.images) - 1, count).astype(int))
    height, width = run.images.shape[1:3]
    return show_data.show_pairs(
        [(f"slice {number}", run.images[number], run.labels[number]) for number in chosen],
        f"What the network learns from: {len(run.images)} slices of {height} x {width} pixels and, below each, its "
        "label. Every dark line in the image should be a black line in the label.")[0]


def show_tiles(run: StackRun) -> Figure:
    """Overlap tiles over a slice, and one of them as the network gets it."""
    return show_data.show_tiles(*run.example, run.geometry["core"], run.geometry["margin"])


def show_weights(run: StackRun) -> Figure:
    """The two parts of the weight map, in the middle of a slice."""
    return show_data.show_weights(show_data.middle(run.example[1]), run.geometry["cell_share"])


# ------------------------------------------------------------------------------------------ what came out


def show_scores(run: StackRun) -> Figure:
    """The hold-out's scores over the threshold that makes cells of probabilities."""
    if run.scores is None:
        return message(NOT_JUDGED)
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    at = [point["threshold"] for point in run.scores["curve"]]
    for name, title, colour, marker in (("V_rand", "V_rand", BLUE, "o"), ("V_info", "V_info", ORANGE, "s"),
                                        ("membrane_dice", "Dice of the membrane", GREEN, "^")):
        axis.plot(at, [point[name] for point in run.scores["curve"]], color=colour, marker=marker, label=title)
    axis.axvline(run.threshold, color="#777777", linestyle=":", label="chosen on training slices")
    axis.set(xlabel="threshold: cell is where the probability is greater", ylabel="score, 1 = perfect", ylim=(0, 1.02),
             title="Held-out slices: a good network has a wide flat top")
    axis.legend()
    return figure


def _judged(run: StackRun) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray, MembraneMistakes]]:
    """Number, image, label, probability and mistakes of each held-out slice."""
    return [(number, run.images[number], run.labels[number], probability,
             membrane_mistakes(run.labels[number], probability, run.threshold))
            for number, probability in zip(run.holdout, run.judged, strict=True)]


def show_errors(run: StackRun, most: int = 2) -> Figure:
    """Held-out slices, those with the most merges and splits first: image, truth, prediction, mistakes by kind."""
    if run.judged is None:
        return message(NOT_JUDGED)
    judged = sorted(_judged(run), key=lambda one: one[4].merges + one[4].splits, reverse=True)[:most]
    figure, axes = panels(len(judged), 4, f"Held-out slices at the threshold {run.threshold:g}, chosen on training "
                          "slices. Rings: where cells merge (vermilion) or are split (blue); few pixels decide. Yellow "
                          "pixels lie beside the true border: they merge and split no cell.", size=3)
    for row, (number, image, label, probability, mistakes) in zip(axes, judged, strict=True):
        grey = show(row[0], image, f"held-out slice {number}")
        show(row[1], label, "truth: black = membrane")
        drawn = show(row[2], probability, "predicted probability of cell")
        show(row[3], paint_membranes(image, mistakes), f"merges: {mistakes.merges}, splits: {mistakes.splits}")
        _ring(row[3], mistakes)
    colour_bar(figure, grey, axes[-1, 0], "grey level", "bottom")
    colour_bar(figure, drawn, axes[-1, 2], "probability of cell", "bottom")
    legend(figure, MERGED, SPLIT, HARMLESS)
    return figure


def _ring(axis: Axes, mistakes: MembraneMistakes) -> None:
    """Draw a ring around each place where cells merge or are split."""
    for where, colour in ((mistakes.merging, MERGED), (mistakes.splitting, SPLIT)):
        middles = places(where)
        axis.scatter(middles[:, 1], middles[:, 0], s=220, facecolors="none", edgecolors=colour, linewidths=1.5)


def worst_tiles(run: StackRun, count: int = 4) -> list[tuple[float, int, tuple[int, int], int]]:
    """The held-out tiles with the lowest V_rand, worst first: (V_rand, which held-out slice, corner (y, x), side)."""
    found = []
    shape = run.images.shape[1:3]
    side = max(1, min(SIDE, *(full // 2 for full in shape)))
    tiles = OverlapTile(shape, side)
    for place, (number, probability) in enumerate(zip(run.holdout, run.judged, strict=True)):
        truth, cells = components(run.labels[number] > 0), segments(probability > run.threshold)
        corners = tiles.inside()
        for corner, one, other in zip(corners, tiles.cut_at(cells, corners), tiles.cut_at(truth, corners), strict=True):
            if other.any():
                found.append((v_rand(one, other)[0], place, corner, side))
    return sorted(found)[:count]


def show_worst(run: StackRun) -> Figure:
    """The four worst tiles of the held-out slices: prediction above, mistakes by kind below."""
    if run.judged is None:
        return message(NOT_JUDGED)
    worst = worst_tiles(run)
    figure, axes = panels(3, len(worst), "The worst tiles of the held-out slices, by V_rand: where to look first. "
                          "Often a membrane cut at a slant is a grey smear there, or the label itself is in doubt.",
                          size=2.8)
    for column, (score, place, corner, side) in zip(axes.T, worst, strict=True):
        number = run.holdout[place]
        image, label, probability = run.images[number], run.labels[number], run.judged[place]
        mistakes = membrane_mistakes(label, probability, run.threshold)
        window = tuple(slice(start, start + side) for start in corner)
        grey = show(column[0], image[window], f"slice {number}, y {corner[0]}, x {corner[1]}\nV_rand {score:.3f}")
        drawn = show(column[1], probability[window])
        show(column[2], paint_membranes(image, mistakes)[window])
    for axis, what in zip(axes[:, 0], ("image", "probability of cell", "mistakes"), strict=True):
        axis.set_ylabel(what, fontsize=9)
    colour_bar(figure, grey, axes[0], "grey level")
    colour_bar(figure, drawn, axes[1], "probability of cell")
    legend(figure, MERGED, SPLIT, HARMLESS)
    return figure


def show_instances(run: StackRun) -> Figure:
    """A held-out slice and its cells, each in a colour of its own, as they are in truth and as predicted."""
    if run.judged is None:
        return message(NOT_JUDGED)
    number, image, label, probability, _ = max(_judged(run), key=lambda one: one[4].merges + one[4].splits)
    truth, cells = components(label > 0), segments(probability > run.threshold)
    colours = random_colours(truth)
    figure, axes = panels(1, 3, "Instances in random colours: each predicted cell has the colour of the true cell that "
                          "it covers most of. Where one colour fills two true cells, they merged; where a black line "
                          "runs through one colour, a cell was split.", size=3.6)
    grey = show(axes[0, 0], image, f"held-out slice {number}")
    show(axes[0, 1], colours[truth], f"truth: {truth.max()} cells")
    show(axes[0, 2], matched_colours(cells, truth, colours), f"predicted: {cells.max()} cells")
    colour_bar(figure, grey, axes[0, :1], "grey level")
    return figure


def show_prediction(run: StackRun, most: int = 5) -> Figure:
    """Slices of the test stack, from its first to its last, above their stitched predictions."""
    if run.prediction is None:
        return message(NOT_PREDICTED)
    chosen = np.unique(np.linspace(0, len(run.test) - 1, most).astype(int))
    figure, axes = panels(2, len(chosen), f"The test stack, {len(run.test)} slices, above; below its prediction, which "
                          "was stitched from the cores of tiles. No seam should be seen, and walls should be closed.")
    for column, number in zip(axes.T, chosen, strict=True):
        grey = show(column[0], run.test[number], f"test slice {number}")
        drawn = show(column[1], run.prediction[number])
    colour_bar(figure, grey, axes[0], "grey level")
    colour_bar(figure, drawn, axes[1], "probability of cell")
    return figure


def animate_prediction(run: StackRun, path: Path, most: int = 10, side: int = 256) -> None:
    """Write an animated GIF: test slices one after the other, image, probability and cells beside each other."""
    frames = []
    for number, (image, probability) in enumerate(zip(run.test[:most], run.prediction, strict=False)):
        window = (slice(0, side), slice(0, side))
        cells = segments(probability > run.threshold)
        figure, axes = panels(1, 3, "Prediction slice by slice: the image, the network's probability of cell, and the "
                              "cells that follow from it, in colours drawn anew for each slice.", size=2.6)
        grey = show(axes[0, 0], image[window], f"test slice {number}")
        drawn = show(axes[0, 1], probability[window], "probability of cell")
        show(axes[0, 2], random_colours(cells)[cells][window], "cells")
        colour_bar(figure, grey, axes[0, :1], "grey level")
        colour_bar(figure, drawn, axes[0, 1:2], "probability of cell")
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=85)
        frames.append(Image.open(buffer).convert("RGB"))
    # one palette for all frames, or colours would flicker
    palette = Image.fromarray(np.vstack([np.asarray(frame) for frame in frames])).quantize(64)
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_path(path) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=700, loop=0)
