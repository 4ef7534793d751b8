"""Pictures and texts about runs on cells between membranes: merges and splits, before and after walls are drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from skimage import measure

from unet.citations import cite
from unet.inputs.stacks import format_slices
from unet.report.base import CLOSE_UP, NO_HOLDOUT, Window, crop_panels, only_first_title
from unet.report.colours import for_display, matched_colours, random_colours
from unet.report.paint import HARMLESS, MERGED, SPLIT, busiest, group_centres, paint_membranes
from unet.report.pictures import BLUE, DPI, ORANGE, SKY, Panel, fade, grid, message
from unet.report.slices import SlicePictures, SliceWords
from unet.report.words import join_words
from unet.scores.isbi import THRESHOLDS, components, v_rand
from unet.scores.mistakes import MembraneMistakes, membrane_mistakes
from unet.segment.crests import find_walls
from unet.segment.walls import OVERSURE, OVERSURE_WITH_WALLS, SWITCHED_OFF, number_cells
from unet.tasks.cells import SCORE_TITLES
from unet.tasks.task import Prediction

if TYPE_CHECKING:
    from unet.report.run import Run

ZOOM = 96  # side of a close-up of a mistake, pixels
SPOTS = 3  # mistakes shown in close-ups, at most
CURVE_STYLES = {"probability": {"color": ORANGE, "marker": "s"}, "walls": {"color": BLUE, "marker": "o"}}
# of chosen thresholds; if both are equal, the dashes of one line fill the gaps of the other
LINE_STYLES = {"probability": {"color": ORANGE, "linestyle": (0, (4, 4))},
               "walls": {"color": BLUE, "linestyle": (4, (4, 4))}}


class CellPictures(SlicePictures):
    """Pictures of a run on cells."""

    label_meaning = "black = membrane, white = cell"
    advice = "Dark structures that are not membranes stay white: vesicles, the insides of mitochondria."
    object_name = "cells"
    mistake_colours = (MERGED, SPLIT, HARMLESS)
    doubt_region = "along the middle lines of predicted membranes"
    choice_text = "This run was stopped before a threshold was chosen: 'python train.py --resume' does the rest."
    mistakes_caption = ("A few pixels decide whether cells are merged or split; wrong pixels beside a true border do "
                        "neither.")

    def label_picture(self, label: np.ndarray) -> np.ndarray:
        return label

    def truth(self, label: np.ndarray) -> np.ndarray:
        return components(label > 0)

    def maps(self, prediction: Prediction, learnt: dict) -> list[Panel]:
        """Return the network's probability and, if walls are drawn, the probability with them."""
        maps = [Panel(prediction.probability, "probability of cell", "by the network")]
        if self.task.redraws(learnt):
            maps.append(Panel(prediction.redrawn, "walls drawn", "the value of each wall"))
        return maps

    def _membrane_mistakes(self, prediction: Prediction, learnt: dict) -> MembraneMistakes:
        return membrane_mistakes(prediction.sample.label, prediction.redrawn, learnt["threshold"])

    def _wrong_at(self, prediction: Prediction, probability: np.ndarray, threshold: float) -> np.ndarray:
        """Return where cells are merged or split, bool (H, W), at a threshold of a probability (H, W)."""
        mistakes = membrane_mistakes(prediction.sample.label, probability, threshold)
        return mistakes.merging | mistakes.splitting

    def mistakes(self, prediction: Prediction, learnt: dict) -> Panel:
        mistakes = self._membrane_mistakes(prediction, learnt)
        return Panel(paint_membranes(for_display(prediction.sample.image), mistakes),
                     f"merges: {mistakes.merges}, splits: {mistakes.splits}")

    def wrong(self, prediction: Prediction, learnt: dict) -> np.ndarray:
        return self._wrong_at(prediction, prediction.redrawn, learnt["threshold"])

    def score(self, run: Run, prediction: Prediction) -> tuple[float, str]:
        scores = run.scores["walls"] or run.scores["probability"]
        row = self.row_of(scores["chosen"]["per_slice"], run, prediction)
        return (row["V_rand"], f"V_rand {row['V_rand']:.4f}") if row else (1.0, "no cell, not scored")

    def windows(self, run: Run, prediction: Prediction) -> list[tuple[float, str, Window]]:
        parts = []
        for window in self.tiles_of(prediction):
            truth = self.truth(prediction.sample.label[window])
            if truth.any():
                # both are numbered anew: cells that merge outside of the window are no mistake here
                value = v_rand(measure.label(prediction.objects[window], background=0, connectivity=1), truth)[0]
                parts.append((value, f"y {window[0].start}, x {window[1].start}, V_rand {value:.3f}", window))
        return parts

    def errors(self, run: Run) -> Figure:
        """Draw the held-out slice with the lowest score, and close-ups where cells are merged or split."""
        if not run.holdout_predictions:
            return message(NO_HOLDOUT)
        worst = min(run.holdout_predictions, key=lambda one: self.score(run, one)[0])
        mistakes = self._membrane_mistakes(worst, run.learnt)
        spots = [(*centre, word) for mask, word in ((mistakes.merging, "merge"), (mistakes.splitting, "split"))
                 for centre in group_centres(mask)[:SPOTS].astype(int)]
        spots = spots[:SPOTS - 1] + spots[-1:] if len(spots) > SPOTS else spots  # both merges and splits, if any
        rows = [self.row(worst, run.learnt, f"{worst.sample.name}, {self.score(run, worst)[1]}")]
        for number, (y, x, word) in enumerate(spots, 1):
            part = _window_around((y, x), worst.objects.shape)
            rows.append(only_first_title(self.row(worst, run.learnt, f"{number}: a {word}", part)))
        noun = run.layout.noun
        caption = (f"The held-out {noun} with the lowest score, whole and in close-ups, at the threshold "
                   f"{run.learnt['threshold']:g}, which was chosen on training {noun}s. {self.mistakes_caption}")
        figure, axes = grid(rows, caption, 2.6)
        places = _places_beside([spot[:2] for spot in spots], worst.objects.shape)
        for number, ((y, x, _), (text_y, text_x)) in enumerate(zip(spots, places, strict=True), 1):
            axes[0, -1].scatter(x, y, s=220, facecolors="none", edgecolors="black", linewidths=1.5)
            axes[0, -1].text(text_x, text_y, str(number), weight="bold", ha="center", va="center")
        self.add_legend(figure)
        return figure

    def scores(self, run: Run) -> Figure:
        """Draw three scores over the threshold, for the probability and with walls drawn."""
        if run.scores is None:
            return message(NO_HOLDOUT)
        figure = Figure(figsize=(11, 3.8), dpi=DPI, layout="constrained")
        names = {"V_rand": "V_rand", "V_info": "V_info", "membrane_dice": "Dice of the membrane"}
        for axis, (name, title) in zip(figure.subplots(1, 3), names.items(), strict=True):
            curves = []
            for part, label in SCORE_TITLES.items():
                if run.scores[part]:
                    thresholds = [point["threshold"] for point in run.scores[part]["curve"]]
                    curves.append([point[name] for point in run.scores[part]["curve"]])
                    axis.plot(thresholds, curves[-1], label=label, markersize=4, **CURVE_STYLES[part])
                    axis.axvline(run.scores[part]["chosen"]["threshold"], **LINE_STYLES[part])
            axis.set(title=title, xlabel="threshold above which a pixel is cell", ylim=_score_range(curves))
        figure.axes[0].set_ylabel("score, 1 = perfect")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        noun = run.layout.noun
        figure.suptitle(f"Held-out {noun}s. Vertical lines: thresholds chosen on training {noun}s", fontsize=11)
        return figure

    def objects(self, run: Run) -> Figure:
        """Draw crests, walls and cells, in the part of a held-out slice that drawing walls changes most."""
        if not run.holdout_predictions:
            return message(NO_HOLDOUT)
        plain, threshold = (run.learnt[key] for key in ("plain_threshold", "threshold"))
        changes = [self._wrong_at(one, one.probability, plain) ^ self._wrong_at(one, one.redrawn, threshold)
                   for one in run.holdout_predictions]
        place = max(range(len(changes)), key=lambda number: np.count_nonzero(changes[number]))
        prediction, part = run.holdout_predictions[place], busiest(changes[place], CLOSE_UP)
        truth = self.truth(prediction.sample.label)
        colours = random_colours(truth)

        def cells(objects: np.ndarray, title: str) -> Panel:
            return Panel(matched_colours(objects, truth, colours), title)

        explanation = f"No walls are drawn in this run: {run.learnt.get('why') or SWITCHED_OFF}."
        rows = [[Panel(for_display(prediction.sample.image), prediction.sample.name),
                 self.maps(prediction, run.learnt)[0],
                 cells(number_cells(prediction.probability, plain), f"cells: probability > {plain:g}"),
                 Panel(self.label_picture(prediction.sample.label), "truth")]]
        if self.task.redraws(run.learnt):
            crests = _crests(prediction, threshold, run.learnt["walls"]["width"])
            others = "; light blue: no membrane" * bool((crests[part] == to_rgb(SKY)).all(axis=-1).any())
            rows.append([Panel(crests, "crests"), self.maps(prediction, run.learnt)[1],
                         cells(prediction.objects, f"cells: walls > {threshold:g}"), cells(truth, "true cells")])
            judge = (f"a regression learnt on training {run.layout.noun}s" if run.learnt["walls"]["judge"] else
                     "its mean probability")
            explanation = ("A watershed finds the crests of the predicted membranes, their middle lines. Each piece of "
                           f"crest between two cells is judged as a whole, by {judge} (black: membrane{others}), and "
                           "drawn as a wall with the value at which its cells merge.")
        caption = (f"From the network's probability to cells, in the part of a held-out {run.layout.noun} that changes "
                   "most. Each cell has the colour of the true one that it covers most of, or is light grey if it "
                   f"covers none. {explanation}")
        return grid([[replace(panel, meaning="") for panel in crop_panels(row, part)] for row in rows], caption, 2.8)[0]

    def choices(self, run: Run) -> Figure:
        """Draw V_rand over the threshold, for the slices on which the threshold was chosen."""
        if not run.learnt:
            return message(self.choice_text)
        figure = Figure(figsize=(8, 3.6), dpi=DPI, layout="constrained")
        axis = figure.subplots()
        for part, prefix in (("probability", "plain_"), ("walls", ""))[:1 + self.task.redraws(run.learnt)]:
            threshold = run.learnt[f"{prefix}threshold"]
            axis.plot(THRESHOLDS, run.learnt[f"{prefix}curve"], label=SCORE_TITLES[part], **CURVE_STYLES[part])
            axis.axvline(threshold, label=f"chosen: {threshold:g}", **LINE_STYLES[part])
        rule = "the threshold with the best V_rand,\naveraged with both neighbours"
        if run.learnt.get("why") in (None, SWITCHED_OFF):
            walls = f" (with walls: {OVERSURE_WITH_WALLS['usual']:g})" * self.task.redraws(run.learnt)
            rule = (f"the threshold nearest {OVERSURE['usual']:g}{walls}\nof those whose V_rand, averaged with both "
                    f"neighbours, is within {OVERSURE['by_chance']:g} of the best")
        axis.set(xlabel="threshold above which a pixel is cell", ylabel="V_rand", ylim=_score_range([
            run.learnt[f"{prefix}curve"] for prefix in ("", "plain_")]),
            title=f"Chosen on training {run.layout.noun}s {format_slices(run.learnt['on'])}: " + rule)
        axis.legend()
        return figure


def _score_range(curves: list[list[float]]) -> tuple[float, float]:
    """Return limits of a score axis: a little below the least score at the middle thresholds, and above the best."""
    least, most = min(min(curve[3:8]) for curve in curves), max(map(max, curves))
    space = 0.2 * max(most - least, 0.01)
    return least - space, min(most + space, 1)


def _window_around(spot: tuple[int, int], shape: tuple[int, int]) -> Window:
    """Return the window of ZOOM pixels around (y, x), shifted to lie inside an image of `shape`."""
    sides = [min(ZOOM, full) for full in shape]
    corner = [int(np.clip(at - side // 2, 0, full - side)) for at, side, full in zip(spot, sides, shape, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))


def _places_beside(spots: list[tuple[int, int]], shape: tuple[int, int]) -> list[tuple[float, float]]:
    """Return where (y, x) to write the number of each circled spot of an image (H, W): beside it, far from others."""
    away = 0.09 * max(shape)
    places = []
    for here in spots:
        around = [(here[0] + away * np.sin(angle), here[1] + away * np.cos(angle))
                  for angle in np.pi * np.array([-1, 1, -3, 3]) / 4]
        inside = [place for place in around if all(0.03 * full < at < 0.97 * full
                                                   for at, full in zip(place, shape, strict=True))]
        others = [spot for spot in spots if spot != here] + places
        places.append(max(inside or around, key=lambda place: min((np.hypot(*np.subtract(place, other))
                                                                   for other in others), default=0)))
    return places


def _crests(prediction: Prediction, threshold: float, width: float) -> np.ndarray:
    """Draw crests over the faded image, float (H, W, 3): black if they were judged a membrane, else light blue."""
    overlay, walls = fade(for_display(prediction.sample.image)), find_walls(prediction.probability, width)
    if walls is not None:
        overlay[walls.crest] = to_rgb(SKY)
        overlay[walls.crest & (prediction.redrawn <= threshold)] = 0
    return overlay


class CellWords(SliceWords):
    """Texts about a run on cells."""

    aim = "Membranes were segmented"
    loss = "binary cross-entropy"

    def postprocessing(self, run: Run) -> list[str]:
        learnt = run.learnt
        if not learnt:
            return ["the run was stopped before thresholds and walls were learnt"]
        sentences, slices = [], f"training {run.layout.noun}s {format_slices(learnt['on'])}"
        if self.task.redraws(learnt):
            features = ["its length", "the sizes of the cells on both sides", "the probabilities along it"]
            if learnt["walls"].get("with_neighbours"):  # missing in runs of earlier versions
                features.append("whether the same cell lies on both sides in the slices before and after")
            value = (f"the probability that it is not a membrane, by a logistic regression on {join_words(features)}, "
                     f"fitted to walls of {slices} (after {cite('walls')})" if learnt["walls"]["judge"] else
                     "the mean probability along its crest")
            sentences.append("a seeded watershed on the probability found the crests of the predicted membranes; each "
                             f"piece of crest between two cells is a wall with a single value, {value}; cells were "
                             "merged in the order of these values, with the mean over the pixels of all that lies "
                             f"between two merged cells (average linkage, {cite('merging')}), and each wall was "
                             "redrawn with the value at which its cells merged")
        cross_fit = ", with the walls of each judged by what was learnt on the others" * self.task.redraws(learnt)
        sentences.append(f"cells are the pixels over {learnt['threshold']:g}, after border thinning; this threshold "
                         f"was chosen on {slices}{cross_fit}")
        return sentences

    def results(self, run: Run) -> str:
        parts = []
        for part, name in SCORE_TITLES.items():
            scores = run.scores[part]
            if scores:
                best, at_chosen = scores["best"], scores["chosen"]
                parts.append(f"{name}: V_rand {best['V_rand']['V_rand']:.4f} and V_info "
                             f"{best['V_info']['V_info']:.4f} at the best threshold, {at_chosen['V_rand']:.4f} and "
                             f"{at_chosen['V_info']:.4f} at {at_chosen['threshold']:g}, chosen without these "
                             f"{run.layout.noun}s")
        error = run.scores["probability"]["best"]["pixel_error"]["pixel_error"]
        return (f"On the held-out {run.layout.noun}s, the scores after border thinning ({cite('ISBI scores')}) were, "
                f"for {'; '.join(parts)}; the pixel error of the probability was {error:.4f}.")
