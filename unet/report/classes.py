"""Runs on several classes of pixels, in pictures and words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from unet.report.base import NOT_JUDGED, Window
from unet.report.colours import class_colours, coloured_classes, stretched
from unet.report.paint import MISSED
from unet.report.pictures import BLUE, DPI, ORANGE, Panel, faded, message
from unet.report.slices import SlicePictures, SliceWords
from unet.tasks.task import Judged

if TYPE_CHECKING:
    from unet.report.run import Run

SHOWN = 16  # classes in a legend


class ClassPictures(SlicePictures):
    """What a run on classes looks like."""

    label_means = "classes in colours"
    advice = "What looks alike in the image should have one colour."
    object_name = ""
    marks = ()
    mistakes_mean = "Borders one pixel beside the true ones matter little; whole areas do."
    follows = "each pixel belongs to the most probable class."
    doubt_means = "over all pixels"
    choice = "Nothing is chosen after training: each pixel belongs to its most probable class."

    def mark(self, figure: Figure) -> None:
        patches = [Patch(facecolor=tuple(colour), edgecolor="#777777", label=f"class {number}")
                   for number, colour in enumerate(class_colours(self.task.classes))][:SHOWN]
        patches.append(Patch(color=MISSED, label="wrong"))
        figure.legend(handles=patches, loc="outside upper right", ncols=min(len(patches), 8), fontsize=8, frameon=False)

    def label(self, label: np.ndarray) -> np.ndarray:
        return coloured_classes(label, self.task.classes)

    def maps(self, one: Judged, learnt: dict) -> list[Panel]:
        """The most probable class, and how sure the network is of it."""
        return [Panel(self.label(one.probability.argmax(axis=-1)), "the most probable class"),
                Panel(one.probability.max(axis=-1), "its probability", "by the network")]

    def mistakes(self, one: Judged, learnt: dict) -> Panel:
        overlay, wrong = faded(stretched(one.sample.image)), self.wrong(one, learnt)
        overlay[wrong] = to_rgb(MISSED)
        return Panel(overlay, f"{wrong.mean():.1%} of the pixels are wrong")

    def wrong(self, one: Judged, learnt: dict) -> np.ndarray:
        return one.probability.argmax(axis=-1) != self.task.label(one.sample.label)

    def score(self, run: Run, one: Judged) -> tuple[float, str]:
        value = self.row_of(run.scores["per_slice"], run, one)["accuracy"]
        return value, f"{value:.1%} right"

    def windows(self, run: Run, one: Judged) -> list[tuple[float, str, Window]]:
        right, parts = ~self.wrong(one, run.learnt), []
        for window in self.tiles_of(one):
            value = float(right[window].mean())
            parts.append((value, f"y {window[0].start}, x {window[1].start}, {1 - value:.1%} wrong", window))
        return parts

    def scores(self, run: Run) -> Figure:
        """IoU and Dice of each class, in the held-out slices."""
        if run.scores is None:
            return message(NOT_JUDGED)
        figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
        axis, rows = figure.subplots(), run.scores["classes"]
        for shift, name, title, colour in ((-0.2, "iou", "IoU", BLUE), (0.2, "dice", "Dice", ORANGE)):
            axis.bar([row["class"] + shift for row in rows], [row[name] or 0 for row in rows], 0.38, color=colour,
                     label=title)
        axis.set(xlabel="class", ylabel="score, 1 = perfect", ylim=(0, 1.02), xticks=[row["class"] for row in rows],
                 title=f"Held-out {run.layout.noun}s, class by class: the lowest one wants more labels")
        axis.legend(loc="lower right")
        return figure


class ClassWords(SliceWords):
    """What is to be said of a run on classes."""

    aim = "Pixels were classified"
    loss = "cross-entropy"

    def after(self, run: Run) -> list[str]:
        return [f"each pixel belongs to the most probable of {self.task.classes} classes (softmax)"]

    def results(self, run: Run) -> str:
        mean = run.scores["mean"]
        return (f"On the held-out {run.layout.noun}s the mean intersection over union of the classes was "
                f"{mean['iou']:.4f}, the mean Dice coefficient {mean['dice']:.4f}; {run.scores['accuracy']:.2%} of the "
                "pixels had the right class.")
