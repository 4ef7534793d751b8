"""Runs on nuclei images, in pictures and words: what was found, missed, merged, split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from unet.citations import cited
from unet.inputs.folders import MODALITIES, in_8_bit
from unet.report.base import NOT_JUDGED, Pictures, Window
from unet.report.colours import coloured
from unet.report.images import ImageWords
from unet.report.paint import INVENTED, MERGED, MISSED, RIGHT, SPLIT, busiest, paint_objects
from unet.report.pictures import BLUE, DPI, GREEN, ORANGE, SKY, Panel, message
from unet.report.words import Words
from unet.scores.mistakes import object_mistakes
from unet.segment.instances import CORE, EDGE, NUCLEUS, SMALLEST, SURE
from unet.tasks.task import Judged
from utils import counted

if TYPE_CHECKING:
    from unet.report.run import Run

LOOKS = ({"color": BLUE, "marker": "o"}, {"color": ORANGE, "marker": "s"}, {"color": GREEN, "marker": "^"},
         {"color": SKY, "marker": "v"})


class NucleiPictures(Pictures):
    """What a run on nuclei looks like."""

    label_means = "nuclei in random colours"
    advice = "Nuclei that touch should have two colours."
    object_name = "nuclei"
    marks = (RIGHT, MISSED, MERGED, SPLIT, INVENTED)
    mistakes_mean = ("Right: more than half of true and predicted nucleus together is common to both. Black: outlines "
                     "of the prediction. Of large images the part with the most mistakes is shown, numbers are of "
                     "the whole.")
    follows = (f"each piece of more than {CORE:g} is a seed and grows by a watershed over what is more than "
               f"{NUCLEUS:g}, and over {EDGE:g} times the object's mean; objects whose mean is under {SURE:g}, or of "
               f"under {SMALLEST} pixels, are dropped.")
    doubt_means = "over the pixels that may be nucleus"
    choice = (f"Nothing is chosen after training: nuclei are where the probability is over {NUCLEUS:g}, in every run. "
              "How objects are made of that is by cross-validation on images of the 2018 Data Science Bowl.")
    side = 256  # nuclei have some twenty pixels

    def label(self, label: np.ndarray) -> np.ndarray:
        return coloured(label)

    def maps(self, one: Judged, learnt: dict) -> list[Panel]:
        return [Panel(one.probability, "probability of nucleus", "by the network")]

    def mistakes(self, one: Judged, learnt: dict) -> Panel:
        mistakes = object_mistakes(one.objects, one.sample.label)
        painted = paint_objects(in_8_bit(one.sample.image), one.objects, one.sample.label, mistakes)
        return Panel(painted, mistakes.in_words())

    def wrong(self, one: Judged, learnt: dict) -> np.ndarray:
        return object_mistakes(one.objects, one.sample.label).where(one.objects, one.sample.label)

    def score(self, run: Run, one: Judged) -> tuple[float, str]:
        value = next(row["mean"] for row in run.scores["per_image"] if row["image"] == one.sample.name)
        return value, f"mean AP {value:.3f}"

    def windows(self, run: Run, one: Judged) -> list[tuple[float, str, Window]]:
        """The part with the most mistakes, ranked by the whole image's score."""
        return [(*self.score(run, one), busiest(self.wrong(one, run.learnt), self.side))]

    def scores(self, run: Run) -> Figure:
        """Average precision over the intersection over union that is asked of a pair, by modality."""
        if run.scores is None:
            return message(NOT_JUDGED)
        figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
        axis = figure.subplots()

        def draw(row: dict, label: str, **look) -> None:
            axis.plot([float(at) for at in row["ap"]], list(row["ap"].values()), label=label, **look)

        for (name, row), look in zip(_by_modality(run), LOOKS, strict=False):
            draw(row, f"{name}, {counted(row['images'], 'image')}", **look)
        total = run.scores["all"]
        draw(total, f"all {total['images']}, mean {total['mean']:.3f}", color="black", linestyle="--")
        axis.set(xlabel="intersection over union from which on a nucleus counts as found",
                 ylabel="average precision, 1 = perfect", ylim=(0, 1.02))
        axis.set_title("Held-out images: left, whether nuclei are found; right, how well outlined", fontsize=10)
        figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)  # curves may be anywhere
        return figure


def _by_modality(run: Run) -> list[tuple[str, dict]]:
    """The scores of each modality, in their order."""
    return sorted(run.scores["modalities"].items(), key=lambda item: MODALITIES.index(item[0]))


class NucleiWords(ImageWords, Words):
    """What is to be said of a run on nuclei."""

    aim = "Nuclei were segmented"
    loss = "binary cross-entropy"
    borders = "gaps between nuclei"
    labels = "masks"
    origin = f" [if they are of the 2018 Data Science Bowl, BBBC038: {cited('bowl')}]"

    @property
    def normalised(self) -> str:
        """How images were normalised, a part of a sentence."""
        if self.task.resize:
            return f"squeezed to {self.task.resize} x {self.task.resize} pixels as wholes"
        return ("inverted where they are bright, stretched channel by channel between two percentiles of the whole "
                f"image, cut into windows of {self.task.side} pixels at their own resolution, their labels made "
                "background on both sides of a border where nuclei touch")

    def after(self, run: Run) -> list[str]:
        return [f"nuclei are where the probability is over {NUCLEUS:g} and over {EDGE:g} times the object's mean; a "
                f"seeded watershed took touching ones apart, and objects whose mean was under {SURE:g}, or of under "
                f"{SMALLEST} pixels, were dropped"]

    def results(self, run: Run) -> str:
        at = run.scores["all"]
        return (f"On the held-out images the average precision, TP / (TP + FP + FN), was {at['ap']['0.50']:.3f} at an "
                f"intersection over union of .5, and {at['mean']:.3f} as the mean over .50, .55, ... .95 (the score of "
                f"the 2018 Data Science Bowl; {cited('bowl')}). Images were held out one by one: which of them are of "
                "one experiment is not known, so that like images may have trained and judged.")
