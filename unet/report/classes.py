"""Pictures of a run on several classes: slices, tiles, weights, scores class by class, wrong pixels, the test stack.

Each takes a run as `lastrun` reads it and returns a figure; where the run did not come so far, the figure says so.
show_cells.py and show_nuclei.py have functions of the same names for other runs.
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from unet.report import show_data
from unet.report.colours import class_colours, drawn_classes
from unet.report.lastrun import StackRun
from unet.report.pictures import BLUE, DPI, MISSED, ORANGE, colour_bar, faded, message, panels, show
from unet.tasks.classes import class_weights
from utils import OverlapTile

NOT_JUDGED = ("No slice was held out of this run (--holdout none), or it was stopped before it was judged, so there is "
              "nothing to compare the prediction with.")
NOT_PREDICTED = ("The test stack or its prediction is not there, or they are not of one size: run 'python predict.py' "
                 "on the test stack, and name both with DATA and OUT.")
NO_INSTANCES = "Classes are kinds of pixels, and nothing in them is counted: there are no instances to colour."
SIDE = 128  # of the worst tiles at most, pixels; of small slices half the side


def _legend(figure: Figure, run: StackRun) -> None:
    """Say above the panels which colour is which class."""
    figure.legend(handles=[Patch(facecolor=tuple(colour), edgecolor="#777777", label=f"class {number}")
                           for number, colour in enumerate(class_colours(run.classes))][:16],
                  loc="outside upper right", ncols=min(run.classes, 8), fontsize=8, frameon=False)


# ------------------------------------------------------------------------------------------- what goes in


def example(run: StackRun) -> tuple[np.ndarray, np.ndarray]:
    """A training slice, uint8 (H, W), and its label in colours, uint8 (H, W, 3), to show augmentations on."""
    image, label = run.example
    return image, drawn_classes(label, run.classes)


def show_images(run: StackRun, count: int = 4) -> Figure:
    """Some labelled slices, from the first to the last, with their classes in colours."""
    chosen = np.unique(np.linspace(0, len(run.images) - 1, count).astype(int))
    height, width = run.images.shape[1:3]
    figure, _ = show_data.show_pairs(
        [(f"slice {number}", run.images[number], drawn_classes(run.labels[number], run.classes)) for number in chosen],
        f"What the network learns from: {len(run.images)} slices of {height} x {width} pixels and, below each, its "
        f"label of {run.classes} classes. What looks alike in the image should have one colour in the label.")
    _legend(figure, run)
    return figure


def show_tiles(run: StackRun) -> Figure:
    """Overlap tiles over a slice, and one of them as the network gets it."""
    return show_data.show_tiles(*example(run), run.geometry["core"], run.geometry["margin"])


def show_weights(run: StackRun) -> Figure:
    """The weight map, in the middle of a slice."""
    label = show_data.middle(run.example[1])
    figure, axes = panels(1, 2, f"Weights of the loss (--weights {run.geometry['weights']} in this run): balance makes "
                          "all classes count the same in all, so that rare ones shine.", size=3.4)
    show(axes[0, 0], drawn_classes(label, run.classes), "label, in colours")
    weights = class_weights(label, run.geometry["class_shares"])
    drawn = show(axes[0, 1], weights, "balance", cmap="cividis", vmax=max(weights.max(), 1e-6))
    colour_bar(figure, drawn, axes[0, 1:], "weight")
    _legend(figure, run)
    return figure


# ------------------------------------------------------------------------------------------ what came out


def show_scores(run: StackRun) -> Figure:
    """IoU and Dice of each class, in the held-out slices."""
    if run.scores is None:
        return message(NOT_JUDGED)
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    rows = run.scores["classes"]
    for shift, name, title, colour in ((-0.2, "iou", "IoU", BLUE), (0.2, "dice", "Dice", ORANGE)):
        axis.bar([row["class"] + shift for row in rows], [row[name] or 0 for row in rows], 0.38, color=colour,
                 label=title)
    axis.set(xlabel="class", ylabel="score, 1 = perfect", ylim=(0, 1.02), xticks=[row["class"] for row in rows],
             title="Held-out slices, class by class: the lowest one wants more labels")
    axis.legend(loc="lower right")
    return figure


def show_errors(run: StackRun, most: int = 2) -> Figure:
    """Held-out slices, those with the most wrong pixels first: image, truth, the most probable class, wrong pixels."""
    if run.judged is None:
        return message(NOT_JUDGED)
    judged = [(number, run.labels[number], probabilities.argmax(axis=0))
              for number, probabilities in zip(run.holdout, run.judged, strict=True)]
    judged = sorted(judged, key=lambda one: np.mean(one[1] != one[2]), reverse=True)[:most]
    figure, axes = panels(len(judged), 4, "Held-out slices: what is wrong is vermilion in the last picture. Borders "
                          "one pixel beside the true ones matter little; whole areas do.", size=3)
    for row, (number, label, given) in zip(axes, judged, strict=True):
        grey = show(row[0], run.images[number], f"held-out slice {number}")
        show(row[1], drawn_classes(label, run.classes), "truth")
        show(row[2], drawn_classes(given, run.classes), "the most probable class")
        overlay = faded(run.images[number])
        overlay[label != given] = to_rgb(MISSED)
        show(row[3], overlay, f"{np.mean(label != given):.1%} of the pixels are wrong")
    colour_bar(figure, grey, axes[-1, 0], "grey level", "bottom")
    _legend(figure, run)
    return figure


def show_worst(run: StackRun, most: int = 4) -> Figure:
    """The tiles of the held-out slices with the most wrong pixels: image, truth, the most probable class."""
    if run.judged is None:
        return message(NOT_JUDGED)
    shape = run.images.shape[1:3]
    tiles = OverlapTile(shape, max(1, min(SIDE, *(full // 2 for full in shape))))
    found = []
    for place, (number, probabilities) in enumerate(zip(run.holdout, run.judged, strict=True)):
        wrong = tiles.cut_at(probabilities.argmax(axis=0) != run.labels[number], tiles.inside())
        found += [(float(tile.mean()), place, corner) for tile, corner in zip(wrong, tiles.inside(), strict=True)]
    worst = sorted(found, reverse=True)[:most]
    figure, axes = panels(3, len(worst), "The tiles of the held-out slices with the most wrong pixels: where to look "
                          "first. Sometimes the label itself is in doubt.", size=2.8)
    for column, (share, place, corner) in zip(axes.T, worst, strict=True):
        number = run.holdout[place]
        window = tuple(slice(start, start + tiles.core) for start in corner)
        grey = show(column[0], run.images[number][window],
                    f"slice {number}, y {corner[0]}, x {corner[1]}\n{share:.1%} wrong")
        show(column[1], drawn_classes(run.labels[number][window], run.classes))
        show(column[2], drawn_classes(run.judged[place].argmax(axis=0)[window], run.classes))
    for axis, what in zip(axes[:, 0], ("image", "truth", "the most probable class"), strict=True):
        axis.set_ylabel(what, fontsize=9)
    colour_bar(figure, grey, axes[0], "grey level")
    _legend(figure, run)
    return figure


def show_instances(run: StackRun) -> Figure:
    """Says that there are none."""
    return message(NO_INSTANCES)


def show_prediction(run: StackRun, most: int = 5) -> Figure:
    """Slices of the test stack, from its first to its last, above their most probable classes."""
    if run.prediction is None:
        return message(NOT_PREDICTED)
    chosen = np.unique(np.linspace(0, len(run.test) - 1, most).astype(int))
    figure, axes = panels(2, len(chosen), f"The test stack, {len(run.test)} slices, above; below the most probable "
                          "class of each pixel. No seam should be seen.")
    for column, number in zip(axes.T, chosen, strict=True):
        grey = show(column[0], run.test[number], f"test slice {number}")
        show(column[1], drawn_classes(run.prediction[number].argmax(axis=0), run.classes))
    colour_bar(figure, grey, axes[0], "grey level")
    _legend(figure, run)
    return figure
