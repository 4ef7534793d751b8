"""Pictures and texts about runs on nuclei: which nuclei were found, missed, merged or split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from unet.citations import cite
from unet.inputs.folders import MODALITIES, in_8_bit
from unet.report.base import NO_HOLDOUT, Pictures, Window
from unet.report.colours import colour_objects
from unet.report.images import ImageWords
from unet.report.paint import INVENTED, MERGED, MISSED, RIGHT, SPLIT, busiest, paint_objects
from unet.report.pictures import BLUE, DPI, GREEN, ORANGE, SKY, Panel, message
from unet.report.words import Words
from unet.scores.mistakes import object_mistakes
from unet.segment.instances import EDGE, INSIDE, LEAST_MEAN, NUCLEUS, SMALLEST
from unet.tasks.task import Prediction
from utils import count_of

if TYPE_CHECKING:
    from unet.report.run import Run

MODALITY_STYLES = ({"color": BLUE, "marker": "o"}, {"color": ORANGE, "marker": "s"}, {"color": GREEN, "marker": "^"},
                   {"color": SKY, "marker": "v"})


class NucleiPictures(Pictures):
    """Pictures of a run on nuclei."""

    label_meaning = "nuclei in random colours"
    advice = "Nuclei that touch should have different colours."
    object_name = "nuclei"
    mistake_colours = (RIGHT, MISSED, MERGED, SPLIT, INVENTED)
    mistakes_caption = ("Right: the overlap of the true and the predicted nucleus is more than half of both together. "
                        "Black: outlines of the prediction. Large images are shown by the part with the most mistakes; "
                        "the numbers are for the whole image.")
    method = (f"each connected part with a probability over {INSIDE:g} is a seed. A watershed grows it over pixels "
              f"with a probability over {NUCLEUS:g} and over {EDGE:g} times the object's mean; objects with a mean "
              f"under {LEAST_MEAN:g}, or of under {SMALLEST} pixels, are dropped.")
    doubt_region = "over the pixels that may be nucleus"
    choice_text = (f"Nothing is chosen after training: nuclei are where the probability is over {NUCLEUS:g}, in every "
                   "run. The other settings that make objects were chosen by cross-validation on images of the 2018 "
                   "Data Science Bowl.")
    side = 256  # a nucleus is some twenty pixels wide

    def label_picture(self, label: np.ndarray) -> np.ndarray:
        return colour_objects(label)

    def maps(self, prediction: Prediction, learnt: dict) -> list[Panel]:
        return [Panel(prediction.probability, "probability of nucleus", "by the network")]

    def mistakes(self, prediction: Prediction, learnt: dict) -> Panel:
        objects, sample = prediction.objects, prediction.sample
        mistakes = object_mistakes(objects, sample.label)
        return Panel(paint_objects(in_8_bit(sample.image), objects, sample.label, mistakes), mistakes.describe())

    def wrong(self, prediction: Prediction, learnt: dict) -> np.ndarray:
        objects, label = prediction.objects, prediction.sample.label
        return object_mistakes(objects, label).wrong_pixels(objects, label)

    def score(self, run: Run, prediction: Prediction) -> tuple[float, str]:
        value = next(row["mean"] for row in run.scores["per_image"] if row["image"] == prediction.sample.name)
        return value, f"mean AP {value:.3f}"

    def windows(self, run: Run, prediction: Prediction) -> list[tuple[float, str, Window]]:
        """Return the part with the most mistakes, and the whole image's score."""
        return [(*self.score(run, prediction), busiest(self.wrong(prediction, run.learnt), self.side))]

    def scores(self, run: Run) -> Figure:
        """Draw average precision over the intersection over union that a match needs, by modality."""
        if run.scores is None:
            return message(NO_HOLDOUT)
        figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
        axis = figure.subplots()

        def draw(row: dict, label: str, **style) -> None:
            axis.plot([float(overlap) for overlap in row["ap"]], list(row["ap"].values()), label=label, **style)

        modalities = sorted(run.scores["modalities"].items(), key=lambda item: MODALITIES.index(item[0]))
        for (name, row), style in zip(modalities, MODALITY_STYLES, strict=False):
            draw(row, f"{name}, {count_of(row['images'], 'image')}", **style)
        total = run.scores["all"]
        draw(total, f"all {total['images']}, mean {total['mean']:.3f}", color="black", linestyle="--")
        axis.set(xlabel="intersection over union above which a nucleus counts as found",
                 ylabel="average precision, 1 = perfect", ylim=(0, 1.02))
        axis.set_title("Held-out images. Left: whether nuclei are found; right: how well outlined", fontsize=10)
        figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)  # curves may be anywhere
        return figure


class NucleiWords(ImageWords, Words):
    """Texts about a run on nuclei."""

    aim = "Nuclei were segmented"
    loss = "binary cross-entropy"
    borders = "gaps between nuclei"
    labels = "masks"
    origin = f" [if they are from the 2018 Data Science Bowl, BBBC038: {cite('bowl')}]"

    @property
    def normalisation(self) -> str:
        """The normalisation of images, as the end of a sentence that begins with "Images were"."""
        if self.task.resize:
            return f"resized as a whole to {self.task.resize} x {self.task.resize} pixels"
        return ("inverted if bright, stretched channel by channel between two percentiles of the whole image, cut into "
                f"windows of {self.task.side} pixels at their own resolution, with labels set to background on both "
                "sides of a border between touching nuclei")

    def postprocessing(self, run: Run) -> list[str]:
        return [f"nuclei are where the probability is over {NUCLEUS:g} and over {EDGE:g} times the object's mean; a "
                f"seeded watershed separated touching ones, and objects with a mean under {LEAST_MEAN:g}, or of under "
                f"{SMALLEST} pixels, were dropped"]

    def results(self, run: Run) -> str:
        total = run.scores["all"]
        return (f"On the held-out images, the average precision, TP / (TP + FP + FN), was {total['ap']['0.50']:.3f} at "
                f"an intersection over union of .5, and {total['mean']:.3f} as the mean over .50, .55, ... .95 (the "
                f"score of the 2018 Data Science Bowl; {cite('bowl')}). Images were held out one by one. It is not "
                "known which of them are from the same experiment, so held-out images may resemble training images.")
