"""Pictures of a run on nuclei images: examples, windows, weights, scores, what was right, missed, merged, split.

Each takes a run as `lastrun` reads it and returns a figure; where the run did not come so far, the figure says so.
show_cells.py and show_classes.py have functions of the same names for other runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from preprocessing import (
    BORDER_SIGMA,
    BORDER_W0,
    Content,
    Tiling,
    balance_weights,
    border_weights,
    separated,
    tile_corners,
)
from unet.inputs.folders import KINDS, read_image
from unet.report.colours import brightened, drawn_instances, matched_colours, random_colours
from unet.report.lastrun import NucleiRun
from unet.report.paint import INVENTED, MERGED, MISSED, RIGHT, SPLIT, busiest, legend, paint_objects
from unet.report.pictures import BLUE, DPI, GREEN, ORANGE, VERMILION, colour_bar, message, panels, show
from unet.report.show_data import frame, middle, show_pairs
from unet.scores.mistakes import ObjectMistakes, object_mistakes
from unet.tasks.crops import enlarged, window_corners

NOT_JUDGED = ("No image was held out of this run (--holdout none), or it was stopped before it was judged, or its "
              "predictions are not there (name their folder with OUT): there is nothing to compare.")
NOT_PREDICTED = ("Every image of this run has masks, so there is none that was only predicted; or its prediction is "
                 "not there: name its folder with OUT.")
SIDE = 256  # of the part of an image that is shown, pixels: nuclei have some twenty
LOOKED_AT = 60  # windows of training images among which the one to be shown is chosen
NUCLEI_SHOWN = 30  # at most, where there is a choice: so few can be told apart


def _short(name: str) -> str:
    """A name that fits above a picture: those of the Data Science Bowl have 64 letters."""
    return name if len(name) <= 14 else f"{name[:10]}..."


# ------------------------------------------------------------------------------------------- what goes in


def _content(run: NucleiRun) -> Content:
    """How a window became image and target of the network."""
    return Content(run.manifest, run.geometry["weights"], run.geometry["cell_share"])


def _most_touching(run: NucleiRun, pages: list[dict]) -> dict:
    """The record of the window in which the most pixels of nuclei became background, to take touching ones apart."""
    content = _content(run)

    def cut(page: dict) -> int:
        labels = np.asarray(run.labels[page["page"]])
        return np.count_nonzero((labels > 0) & ~content.target(labels))

    return max(pages[:LOOKED_AT], key=cut)


def example(run: NucleiRun) -> tuple[np.ndarray, np.ndarray]:
    """A window of a training image, uint8 (H, W[, 3]), and its nuclei in random colours, to show augmentations on.

    Of a gray image where there is one; filled with nuclei, but not with hundreds.
    """
    gray = [number for number in run.train if run.kind_of(number) == KINDS[0]]
    pages = [page["page"] for page in run.pages(gray or run.train)[:LOOKED_AT]]

    def merit(page: int) -> tuple[bool, int]:
        return np.unique(run.labels[page]).size <= NUCLEI_SHOWN, np.count_nonzero(run.labels[page])

    page = max(pages, key=merit)
    return brightened(run.windows[page]), drawn_instances(np.asarray(run.labels[page]))


def show_images(run: NucleiRun, most: int = 2) -> Figure:
    """Training images of each kind, at most `most`, and their nuclei in random colours."""
    columns = []
    for kind in KINDS:
        numbers = [number for number in run.train if run.kind_of(number) == kind]
        for number in numbers[:most - 1] + numbers[-1:] if len(numbers) >= most else numbers:
            one = run.read(number)
            height, width = one.labels.shape
            part = busiest(one.labels > 0, SIDE)
            columns.append((f"{kind}\n{height} x {width} px, {one.labels.max()} nuclei",
                            brightened(one.image)[part], drawn_instances(one.labels)[part]))
    return show_pairs(columns, f"What the network learns from: {len(run.train)} images and, below each, its nuclei in "
                      f"random colours. Of large images the {SIDE} pixels with the most nuclei are shown, and faint "
                      "ones brighter than they are. Touching nuclei should have two colours.")[0]


def show_tiles(run: NucleiRun) -> Figure:
    """The windows over an image, and one of them as the network gets it."""
    sizes = {number: run.manifest["images"][number]["shape"] for number in run.train}
    side, resize = run.manifest["shape"][1], run.manifest["resize"]
    covering = {number: len(window_corners(sizes[number], side)) for number in run.train}
    # an image of several windows, but not of hundreds
    number = max(run.train, key=lambda one: (covering[one] <= 12, covering[one]))
    one, content, pages = run.read(number), _content(run), run.pages([number])
    figure, axes = panels(1, 3, f"Each image is squeezed to {side} x {side} pixels as a whole, its grey levels stay "
                          "what they are. So the network gets it, and the label beside it." if resize else
                          f"Windows of {side} pixels (blue) cover each image, at the size the microscope gave it; they "
                          "overlap where they have to. The orange one is shown beside it as the network gets it: "
                          "nuclei bright, grey levels stretched to the image's own range, touching nuclei apart.",
                          size=3.4)
    page = _most_touching(run, pages)
    grey = show(axes[0, 0], brightened(one.image if resize else enlarged(one.image, side)),
                f"{_short(one.name)}, {one.kind}")
    if not resize:
        for other in pages:
            frame(axes[0, 0], tuple(other["corner"]), (side, side), BLUE, linewidth=2)
        frame(axes[0, 0], tuple(page["corner"]), (side, side), ORANGE, linewidth=3)
    normalised = content.image(np.asarray(run.windows[page["page"]]), number)
    show(axes[0, 1], normalised, "squeezed" if resize else "this window: grey levels normalised")
    show(axes[0, 2], content.target(np.asarray(run.labels[page["page"]])).astype(np.uint8) * 255,
         "its label: white = nucleus")
    tiling = Tiling(run.geometry["tile"], run.geometry["margin"], run.geometry["valid"])
    if tiling.tile < side:  # step 2 was told to
        for corner in tile_corners(tiling, (side, side), inside=True)["train"]:
            frame(axes[0, 1], corner, (tiling.tile, tiling.tile), VERMILION, linewidth=1)
    colour_bar(figure, grey, axes, "grey level")
    return figure


def show_weights(run: NucleiRun) -> Figure:
    """A window with touching nuclei, the target in which they are apart, the two parts of the weight map."""
    content = _content(run)
    labels = np.asarray(run.labels[_most_touching(run, run.pages(run.train))["page"]])
    target = content.target(labels)
    apart = "" if run.manifest["resize"] else (" Where two touch, the pixels on both sides of the border become "
                                               "background; these gaps should be brightest.")
    figure, axes = panels(1, 4, f"Weights of the loss (--weights {content.weights} in this run): balance makes nuclei "
                          f"and background count the same in all, border adds up to {BORDER_W0:g} where two nuclei lie "
                          f"close (sigma {BORDER_SIGMA:g} pixels).{apart}", size=3)
    show(axes[0, 0], drawn_instances(labels), "nuclei")
    show(axes[0, 1], target.astype(np.uint8) * 255, "target: white = nucleus")
    for axis, weights, title in ((axes[0, 2], balance_weights(target, content.share), "balance"),
                                 (axes[0, 3], border_weights(np.where(target, labels, 0)), "border, added to it")):
        drawn = show(axis, weights, title, cmap="cividis", vmax=max(weights.max(), 1e-6))
        colour_bar(figure, drawn, [axis], "weight", "bottom")
    return figure


# ------------------------------------------------------------------------------------------ what came out


def show_scores(run: NucleiRun) -> Figure:
    """Average precision over the intersection over union that is asked of a pair, by kind."""
    if run.scores is None:
        return message(NOT_JUDGED)
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    looks = dict(zip(KINDS, ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^")), strict=True))
    for kind in (kind for kind in KINDS if kind in run.scores["modalities"]):
        (colour, marker), row = looks[kind], run.scores["modalities"][kind]
        axis.plot([float(at) for at in row["ap"]], list(row["ap"].values()), color=colour, marker=marker,
                  label=f"{kind}, {row['images']} image{'s' * (row['images'] > 1)}")
    row = run.scores["all"]
    axis.plot([float(at) for at in row["ap"]], list(row["ap"].values()), color="black", linestyle="--",
              label=f"all {row['images']}, mean {row['mean']:.3f}")
    axis.set(xlabel="intersection over union from which on a nucleus counts as found",
             ylabel="average precision, 1 = perfect", ylim=(0, 1.02),
             title="Held-out images: on the left, whether nuclei are found; on the right, how well they are outlined")
    axis.title.set_fontsize(10)
    figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)  # curves may be anywhere
    return figure


@dataclass(frozen=True)
class _Judged:
    """A held-out image, uint8 (H, W[, 3]), a part of it, and what became of its nuclei, label maps (H, W)."""

    title: str
    image: np.ndarray
    probability: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray
    mistakes: ObjectMistakes
    part: tuple[slice, slice]


def _judged(run: NucleiRun, rows: list[dict]) -> list[_Judged]:
    """The held-out images of these rows of the scores, as far as their predictions are there."""
    numbers = {run.manifest["images"][number]["name"]: number for number in run.holdout}
    found = []
    for row in rows:
        one = run.read(numbers[row["image"]])
        predicted = run.predicted(one.name, one.labels.shape)
        if predicted:
            mistakes = object_mistakes(predicted[1], one.labels)
            part = busiest(mistakes.where(predicted[1], one.labels), SIDE)
            found.append(_Judged(f"{_short(one.name)}, {one.kind}\nmean AP {row['mean']:.3f}", brightened(one.image),
                                 *predicted, one.labels, mistakes, part))
    return found


def _of_each_kind(run: NucleiRun, most: int) -> list[dict]:
    """The scores' rows of at most `most` images, each in the middle of its kind's ranking, kind by kind."""
    by_kind = [sorted((row for row in run.scores["per_image"] if row["modality"] == kind), key=lambda row: row["mean"])
               for kind in KINDS]
    share = max(1, most // max(1, sum(map(bool, by_kind))))
    return [row for rows in by_kind for row in rows[max(0, (len(rows) - share) // 2):][:share]][:most]


def _grey_bar(figure: Figure, images: list[AxesImage], axes: Axes | np.ndarray, where: str = "bottom") -> None:
    """Say what grey levels mean, where one of the images is gray; coloured ones have no scale."""
    colour_bar(figure, min(images, key=lambda image: image.get_array().ndim), axes, "grey level, brightened", where)


def show_errors(run: NucleiRun, most: int = 3) -> Figure:
    """Held-out images, typical ones of each kind: image, truth, probability, what was found and what was not."""
    judged = _judged(run, _of_each_kind(run, most)) if run.scores else []
    if not judged:
        return message(NOT_JUDGED)
    figure, axes = panels(len(judged), 4, "Held-out images, of each kind one whose score is in the middle. Right: more "
                          "than half of true and predicted nucleus together is common to both. Merged: one predicted "
                          "nucleus takes the place of several. Split: several take the place of one. Black: outlines "
                          f"of the prediction. Of large images the {SIDE} pixels with the most mistakes are shown; "
                          "the numbers are of the whole.",
                          size=3)
    images = []
    for row, one in zip(axes, judged, strict=True):
        images.append(show(row[0], one.image[one.part], one.title))
        show(row[1], drawn_instances(one.truth)[one.part], f"truth: {one.truth.max()} nuclei")
        drawn = show(row[2], one.probability[one.part], f"probability of nucleus\n{one.predicted.max()} predicted")
        painted = paint_objects(one.image, one.predicted, one.truth, one.mistakes)
        show(row[3], painted[one.part], one.mistakes.in_words())
    _grey_bar(figure, images, axes[-1, 0])
    colour_bar(figure, drawn, axes[-1, 2], "probability of nucleus", "bottom")
    legend(figure, RIGHT, MISSED, MERGED, SPLIT, INVENTED)
    return figure


def show_worst(run: NucleiRun, most: int = 4) -> Figure:
    """The held-out images with the lowest mean average precision, worst first: image, probability, mistakes."""
    rows = sorted(run.scores["per_image"], key=lambda row: row["mean"])[:most] if run.scores else []
    judged = _judged(run, rows)
    if not judged:
        return message(NOT_JUDGED)
    figure, axes = panels(3, len(judged), "The worst held-out images, by mean average precision: where to look first. "
                          f"Of large ones the {SIDE} pixels with the most mistakes. Images unlike all others want "
                          "company among those to train on.", size=2.8)
    images = []
    for column, one in zip(axes.T, judged, strict=True):
        images.append(show(column[0], one.image[one.part], one.title))
        drawn = show(column[1], one.probability[one.part])
        show(column[2], paint_objects(one.image, one.predicted, one.truth, one.mistakes)[one.part],
             one.mistakes.in_words())
    for axis, what in zip(axes[:, 0], ("image", "probability of nucleus", "mistakes"), strict=True):
        axis.set_ylabel(what, fontsize=9)
    _grey_bar(figure, images, axes[0], "right")
    colour_bar(figure, drawn, axes[1], "probability of nucleus")
    legend(figure, RIGHT, MISSED, MERGED, SPLIT, INVENTED)
    return figure


def show_instances(run: NucleiRun, most: int = 3) -> Figure:
    """Held-out images and their nuclei, each in a colour of its own, as they are in truth and as predicted."""
    judged = _judged(run, _of_each_kind(run, most)) if run.scores else []
    if not judged:
        return message(NOT_JUDGED)
    figure, axes = panels(len(judged), 3, "Instances in random colours: each predicted nucleus has the colour of the "
                          "true one that it covers most of, light grey where it covers none. Where one colour fills "
                          "two true nuclei, they merged; where a black line runs through one colour, a nucleus was "
                          "split.", size=3)
    images = []
    for row, one in zip(axes, judged, strict=True):
        colours = random_colours(one.truth)
        images.append(show(row[0], one.image[one.part], one.title))
        for axis, labels, title in ((row[1], one.truth, "truth"), (row[2], one.predicted, "predicted")):
            coloured = matched_colours(labels, one.truth, colours)
            coloured[~separated(labels)] = 0  # a line between those that touch, be they of one colour
            show(axis, coloured[one.part], f"{title}: {labels.max()} nuclei")
    _grey_bar(figure, images, axes[-1, 0])
    return figure


def show_prediction(run: NucleiRun, most: int = 4) -> Figure:
    """Images without masks, from the first to the last: image, probability, nuclei in random colours."""
    sources = run.others
    chosen = [sources[number] for number in np.unique(np.linspace(0, len(sources) - 1, most).astype(int))] \
        if sources else []
    shown = [(source, image, predicted) for source in chosen
             if (predicted := run.predicted(source.name, (image := read_image(source.image)).shape[:2]))]
    if not shown:
        return message(NOT_PREDICTED)
    figure, axes = panels(3, len(shown), f"Images without masks, {len(sources)} in all: the image, below it the "
                          "probability of nucleus, below this the nuclei that follow from it, in random colours. Of "
                          f"large images the middle {SIDE} pixels.", size=2.8)
    images = []
    for column, (source, image, (probability, nuclei)) in zip(axes.T, shown, strict=True):
        images.append(show(column[0], middle(brightened(image), SIDE),
                           f"{_short(source.name)}\n{len(image)} x {image.shape[1]} px"))
        drawn = show(column[1], middle(probability, SIDE))
        show(column[2], middle(drawn_instances(nuclei), SIDE), f"{nuclei.max()} nuclei")
    for axis, what in zip(axes[:, 0], ("image", "probability of nucleus", "nuclei"), strict=True):
        axis.set_ylabel(what, fontsize=9)
    _grey_bar(figure, images, axes[0], "right")
    colour_bar(figure, drawn, axes[1], "probability of nucleus")
    return figure
