"""Runs on nuclei images, in pictures and words: what was found, missed, merged, split."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from unet.inputs.folders import MODALITIES
from unet.report.base import GREY, NOT_JUDGED, Pictures, Window, cut
from unet.report.colours import coloured, stretched
from unet.report.paint import INVENTED, MERGED, MISSED, RIGHT, SPLIT, busiest, paint_objects
from unet.report.pictures import BLUE, DPI, GREEN, ORANGE, SKY, Panel, grid, message
from unet.report.words import NO_SCORES, Words, cited, table
from unet.scores.mistakes import object_mistakes
from unet.segment.instances import CORE, NUCLEUS, SMALLEST
from unet.tasks.task import Judged

if TYPE_CHECKING:
    from unet.report.run import Run

LOOKS = ({"color": BLUE, "marker": "o"}, {"color": ORANGE, "marker": "s"}, {"color": GREEN, "marker": "^"},
         {"color": SKY, "marker": "v"})
NO_CHOICE = (f"Nothing is chosen after training: nuclei are where the probability is over {NUCLEUS:g}, in every run. "
             "The value is by cross-validation on images of the 2018 Data Science Bowl.")
SHOWN = ("0.50", "0.60", "0.70", "0.80", "0.90")  # of the thresholds of the intersection over union


class NucleiPictures(Pictures):
    """What a run on nuclei looks like."""

    label_means = "nuclei in random colours"
    advice = "Nuclei that touch should have two colours."
    object_name = "nuclei"
    marks = (RIGHT, MISSED, MERGED, SPLIT, INVENTED)
    mistakes_mean = ("Right: more than half of true and predicted nucleus together is common to both. Black: outlines "
                     "of the prediction. Of large images the part with the most mistakes is shown, numbers are of "
                     "the whole.")
    side = 256  # nuclei have some twenty pixels

    def label(self, label: np.ndarray) -> np.ndarray:
        return coloured(label)

    def truth(self, label: np.ndarray) -> np.ndarray:
        return label.astype(np.int32)

    def maps(self, one: Judged, learnt: dict) -> list[Panel]:
        return [Panel(one.probability, "probability of nucleus", "by the network")]

    def mistakes(self, one: Judged, learnt: dict) -> Panel:
        mistakes = object_mistakes(one.objects, one.sample.label)
        return Panel(paint_objects(one.sample.image, one.objects, one.sample.label, mistakes), mistakes.in_words())

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
            draw(row, f"{name}, {row['images']} image{'s' * (row['images'] > 1)}", **look)
        total = run.scores["all"]
        draw(total, f"all {total['images']}, mean {total['mean']:.3f}", color="black", linestyle="--")
        axis.set(xlabel="intersection over union from which on a nucleus counts as found",
                 ylabel="average precision, 1 = perfect", ylim=(0, 1.02))
        axis.set_title("Held-out images: left, whether nuclei are found; right, how well outlined", fontsize=10)
        figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)  # curves may be anywhere
        return figure

    def objects(self, run: Run) -> Figure:
        """Seeds and nuclei of held-out images, one of each modality."""
        rows = []
        for one in self.typical(run):
            inside = np.stack([one.probability > NUCLEUS, one.probability > max(CORE, NUCLEUS)]).sum(axis=0) / 2
            part = busiest(one.objects > 0, self.side // 2)
            row = [Panel(stretched(one.sample.image), self._name(run, one), GREY), *self.maps(one, run.learnt),
                   Panel(inside, f"grey: over {NUCLEUS:g}, white: seeds"),
                   Panel(coloured(one.objects), f"{one.objects.max()} nuclei"),
                   Panel(self.label(one.sample.label), f"truth: {one.sample.label.max()} nuclei")]
            rows.append(cut(row, part))
        if not rows:
            return message(NOT_JUDGED)
        figure, _ = grid(rows, f"From the network's probability to nuclei: each piece of more than {CORE:g} is a seed "
                         f"and grows by a watershed over what is more than {NUCLEUS:g}; objects under {SMALLEST} "
                         "pixels are dropped.", 2.6)
        return figure

    def choices(self, run: Run) -> Figure:
        return message(NO_CHOICE)


def _by_modality(run: Run) -> list[tuple[str, dict]]:
    """The scores of each modality, in their order."""
    return sorted(run.scores["modalities"].items(), key=lambda item: MODALITIES.index(item[0]))


class NucleiWords(Words):
    """What is to be said of a run on nuclei."""

    aim = "Nuclei were segmented"
    loss = "binary cross-entropy"
    borders = "gaps between nuclei"

    @property
    def normalised(self) -> str:
        """How images were normalised, a part of a sentence."""
        if self.task.resize:
            return f"squeezed to {self.task.resize} x {self.task.resize} pixels as wholes"
        return ("inverted where they are bright, stretched channel by channel between two percentiles of the whole "
                f"image, cut into windows of {self.task.side} pixels at their own resolution, their labels made "
                "background on both sides of a border where nuclei touch")

    def counted(self, run: Run, numbers: list[int]) -> str:
        counts = Counter(run.layout.groups[number] for number in numbers)
        return ", ".join(f"{counts[one]} {one}" for one in MODALITIES if counts[one]) or "none"

    def data(self, run: Run) -> str:
        shapes = sorted(tuple(source["shape"]) for source in run.manifest["sources"])
        ends = [f"{height} x {width}" for height, width in (shapes[0], shapes[-1])]
        sizes = ends[0] if ends[0] == ends[1] else " to ".join(ends)
        return (f"{len(run.layout)} images of {sizes} pixels ({self.counted(run, range(len(run.layout)))}; SHA-256 of "
                f"images and masks: {self.data_hash(run)[:16]}) [if they are of the 2018 Data Science Bowl, BBBC038: "
                f"{cited('bowl')}]")

    def after(self, run: Run) -> list[str]:
        return [f"nuclei are where the probability is over {NUCLEUS:g}; a seeded watershed took touching ones apart, "
                f"and objects under {SMALLEST} pixels were dropped"]

    def scores(self, run: Run) -> str:
        if run.scores is None:
            return NO_SCORES
        images = run.scores["per_image"]
        head = ("true", "predicted", *(f"AP at .{at[2:]}" for at in SHOWN), "mean AP", "accuracy", "IoU")

        def row(one: dict, members: list[dict]) -> tuple:
            pixels = (f"{np.mean([member[name] for member in members]):.3f}" for name in ("accuracy", "iou"))
            return (one["true"], one["predicted"], *(f"{one['ap'][at]:.3f}" for at in SHOWN), f"{one['mean']:.3f}",
                    *pixels)

        sets = [(name, one["images"], *row(one, [image for image in images if image["modality"] == name]))
                for name, one in _by_modality(run)]
        every = run.scores["all"]
        worst_first = sorted(images, key=lambda image: (MODALITIES.index(image["modality"]), image["mean"]))
        return ("**All held-out images.** AP = TP / (TP + FP + FN), where a predicted and a true nucleus are a pair, "
                "TP, if their intersection over union is greater than the value above the column; mean AP: over .50, "
                ".55, ... .95, as the Data Science Bowl of 2018 scored. Of a set it is the mean over its images. "
                "Accuracy and IoU are of pixels.\n\n"
                + table([("", "images", *head), *sets, ("all", every["images"], *row(every, images))])
                + "\n\n**Image by image**, the worst of each modality first.\n\n"
                + table([("", "modality", *head), *((image["image"][:12], image["modality"], *row(image, [image]))
                                                    for image in worst_first)]))

    def results(self, run: Run) -> str:
        at = run.scores["all"]
        return (f"On the held-out images the average precision, TP / (TP + FP + FN), was {at['ap']['0.50']:.3f} at an "
                f"intersection over union of .5, and {at['mean']:.3f} as the mean over .50, .55, ... .95 (the score of "
                f"the 2018 Data Science Bowl; {cited('bowl')}). Images were held out one by one: which of them are of "
                "one experiment is not known, so that like images may have trained and judged.")

    def cites(self, run: Run) -> list[str]:
        return ["bowl"]
