"""Pictures and texts about runs on several classes of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from unet.report.base import NO_HOLDOUT, Window
from unet.report.colours import class_colours, colour_classes, for_display
from unet.report.paint import MISSED
from unet.report.pictures import BLUE, DPI, ORANGE, Panel, fade, message
from unet.report.slices import SlicePictures, SliceWords
from unet.tasks.task import Prediction

if TYPE_CHECKING:
    from unet.report.run import Run

LEGEND_CLASSES = 16  # at most so many classes are named in a legend


class ClassPictures(SlicePictures):
    """Pictures of a run on classes."""

    label_meaning = "classes in colours"
    advice = "What looks alike in the image should have the same colour."
    object_name = ""
    mistake_colours = ()
    mistakes_caption = "Borders that are one pixel off matter little; whole wrong areas matter more."
    method = "each pixel belongs to the most probable class."
    doubt_region = "over all pixels"
    choice_text = "Nothing is chosen after training: each pixel belongs to its most probable class."

    def add_legend(self, figure: Figure) -> None:
        patches = [Patch(facecolor=tuple(colour), edgecolor="#777777", label=f"class {number}")
                   for number, colour in enumerate(class_colours(self.task.classes))][:LEGEND_CLASSES]
        patches.append(Patch(color=MISSED, label="wrong"))
        figure.legend(handles=patches, loc="outside upper right", ncols=min(len(patches), 8), fontsize=8, frameon=False)

    def label_picture(self, label: np.ndarray) -> np.ndarray:
        return colour_classes(label, self.task.classes)

    def target_picture(self, target: np.ndarray) -> np.ndarray:
        return self.label_picture(target)

    def maps(self, prediction: Prediction, learnt: dict) -> list[Panel]:
        """Return the most probable class, and its probability."""
        return [Panel(self.label_picture(prediction.probability.argmax(axis=-1)), "the most probable class"),
                Panel(prediction.probability.max(axis=-1), "its probability", "by the network")]

    def mistakes(self, prediction: Prediction, learnt: dict) -> Panel:
        overlay, wrong = fade(for_display(prediction.sample.image)), self.wrong(prediction, learnt)
        overlay[wrong] = to_rgb(MISSED)
        return Panel(overlay, f"{wrong.mean():.1%} of the pixels are wrong")

    def wrong(self, prediction: Prediction, learnt: dict) -> np.ndarray:
        return prediction.probability.argmax(axis=-1) != self.task.label(prediction.sample.label)

    def score(self, run: Run, prediction: Prediction) -> tuple[float, str]:
        value = self.row_of(run.scores["per_slice"], run, prediction)["accuracy"]
        return value, f"{value:.1%} right"

    def windows(self, run: Run, prediction: Prediction) -> list[tuple[float, str, Window]]:
        right, parts = ~self.wrong(prediction, run.learnt), []
        for window in self.tiles_of(prediction):
            value = float(right[window].mean())
            parts.append((value, f"y {window[0].start}, x {window[1].start}, {1 - value:.1%} wrong", window))
        return parts

    def scores(self, run: Run) -> Figure:
        """Draw IoU and Dice of each class, in the held-out slices."""
        if run.scores is None:
            return message(NO_HOLDOUT)
        figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
        axis, rows = figure.subplots(), run.scores["classes"]
        for shift, name, title, colour in ((-0.2, "iou", "IoU", BLUE), (0.2, "dice", "Dice", ORANGE)):
            axis.bar([row["class"] + shift for row in rows], [row[name] or 0 for row in rows], 0.38, color=colour,
                     label=title)
        axis.set(xlabel="class", ylabel="score, 1 = perfect", ylim=(0, 1.02), xticks=[row["class"] for row in rows],
                 title=f"Held-out {run.layout.noun}s, class by class: the lowest one needs more labels")
        axis.legend(loc="lower right")
        return figure


class ClassWords(SliceWords):
    """Texts about a run on classes."""

    aim = "Pixels were classified"
    loss = "cross-entropy"

    def postprocessing(self, run: Run) -> list[str]:
        return [f"each pixel belongs to the most probable of {self.task.classes} classes (softmax)"]

    def results(self, run: Run) -> str:
        mean = run.scores["mean"]
        return (f"On the held-out {run.layout.noun}s, the mean intersection over union of the classes was "
                f"{mean['iou']:.4f} and the mean Dice coefficient {mean['dice']:.4f}; {run.scores['accuracy']:.2%} of "
                "the pixels had the right class.")
