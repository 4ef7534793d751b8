"""Runs on cells between membranes, in pictures and words: merges and splits, walls before and after."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from unet.citations import cited
from unet.inputs.stacks import format_slices
from unet.report.base import CLOSE, NOT_JUDGED, Window, cut, untitled
from unet.report.colours import matched_colours, random_colours, stretched
from unet.report.paint import HARMLESS, MERGED, SPLIT, busiest, paint_membranes, places
from unet.report.pictures import BLUE, DPI, ORANGE, Panel, faded, grid, message
from unet.report.slices import SlicePictures, SliceWords
from unet.scores.isbi import THRESHOLDS, components, v_rand
from unet.scores.mistakes import MembraneMistakes, membrane_mistakes
from unet.segment.walls import OVERSURE, OVERSURE_DRAWN, find_walls, number_cells
from unet.tasks.cells import SCORED
from unet.tasks.task import Judged

if TYPE_CHECKING:
    from unet.report.run import Run

ZOOM = 96  # pixels around a mistake
LOOKS = {"probability": {"color": ORANGE, "marker": "s"}, "walls": {"color": BLUE, "marker": "o"}}
LINES = {"probability": {"color": ORANGE, "linestyle": (0, (4, 4))},  # of thresholds; where both are one, the dashes of
         "walls": {"color": BLUE, "linestyle": (4, (4, 4))}}  # each fall into the gaps of the other


class CellPictures(SlicePictures):
    """What a run on cells looks like."""

    label_means = "black = membrane, white = cell"
    advice = ("What is dark and no membrane stays white: vesicles, the insides of mitochondria.")
    object_name = "cells"
    marks = (MERGED, SPLIT, HARMLESS)
    doubt_means = "along the middle lines of predicted membranes"
    choice = "This run was stopped before a threshold was chosen: 'python train.py --resume' does what is left."
    mistakes_mean = "Few pixels decide whether cells merge or are split; those beside a true border do neither."

    def label(self, label: np.ndarray) -> np.ndarray:
        return label

    def truth(self, label: np.ndarray) -> np.ndarray:
        return components(label > 0)

    def maps(self, one: Judged, learnt: dict) -> list[Panel]:
        """The network's probability and, where any are drawn, the walls."""
        maps = [Panel(one.probability, "probability of cell", "by the network")]
        if self.task.redraws(learnt):
            maps.append(Panel(one.redrawn, "walls drawn", "as each wall was judged"))
        return maps

    def _sorted(self, one: Judged, learnt: dict) -> MembraneMistakes:
        return membrane_mistakes(one.sample.label, one.redrawn, learnt["threshold"])

    def _wrong(self, one: Judged, probability: np.ndarray, threshold: float) -> np.ndarray:
        """Where cells merge or are split, bool (H, W), at a threshold of a probability (H, W)."""
        mistakes = membrane_mistakes(one.sample.label, probability, threshold)
        return mistakes.merging | mistakes.splitting

    def mistakes(self, one: Judged, learnt: dict) -> Panel:
        mistakes = self._sorted(one, learnt)
        return Panel(paint_membranes(stretched(one.sample.image), mistakes),
                     f"merges: {mistakes.merges}, splits: {mistakes.splits}")

    def wrong(self, one: Judged, learnt: dict) -> np.ndarray:
        return self._wrong(one, one.redrawn, learnt["threshold"])

    def score(self, run: Run, one: Judged) -> tuple[float, str]:
        scores = run.scores["walls"] or run.scores["probability"]
        row = self.row_of(scores["chosen"]["per_slice"], run, one)
        return (row["V_rand"], f"V_rand {row['V_rand']:.4f}") if row else (1.0, "no cell, not scored")

    def windows(self, run: Run, one: Judged) -> list[tuple[float, str, Window]]:
        truth, parts = self.truth(one.sample.label), []
        for window in self.tiles_of(one):
            if truth[window].any():
                value = v_rand(one.objects[window], truth[window])[0]
                parts.append((value, f"y {window[0].start}, x {window[1].start}, V_rand {value:.3f}", window))
        return parts

    def errors(self, run: Run, most: int = 3) -> Figure:
        """The held-out slice with the lowest score, and a close look at places where cells merge or are split."""
        if not run.judged:
            return message(NOT_JUDGED)
        one = min(run.judged, key=lambda one: self.score(run, one)[0])
        mistakes = self._sorted(one, run.learnt)
        spots = [(*spot, word) for where, word in ((mistakes.merging, "merge"), (mistakes.splitting, "split"))
                 for spot in places(where)[:most].astype(int)]
        spots = (spots[:2] + spots[-1:])[:most] if len(spots) > most else spots
        rows = [self.row(one, run.learnt, f"{one.sample.name}, {self.score(run, one)[1]}")]
        for number, (y, x, word) in enumerate(spots, 1):
            part = _around((y, x), one.objects.shape)
            line = self.row(one, run.learnt, f"{number}: a {word}", part)
            rows.append([line[0], *untitled(line[1:])])
        noun = run.layout.noun
        caption = (f"The held-out {noun} with the lowest score, whole and close by, at the threshold "
                   f"{run.learnt['threshold']:g}, which was chosen on {noun}s that trained. {self.mistakes_mean}")
        figure, axes = grid(rows, caption, 2.6)
        beside = _places_beside([spot[:2] for spot in spots], one.objects.shape)
        for number, ((y, x, _), (down, right)) in enumerate(zip(spots, beside, strict=True), 1):
            axes[0, -1].scatter(x, y, s=220, facecolors="none", edgecolors="black", linewidths=1.5)
            axes[0, -1].text(right, down, str(number), weight="bold", ha="center", va="center")
        self.mark(figure)
        return figure

    def scores(self, run: Run) -> Figure:
        """Three scores over the threshold, of the probability and of the walls."""
        if run.scores is None:
            return message(NOT_JUDGED)
        figure = Figure(figsize=(11, 3.8), dpi=DPI, layout="constrained")
        names = {"V_rand": "V_rand", "V_info": "V_info", "membrane_dice": "Dice of the membrane"}
        for axis, (name, title) in zip(figure.subplots(1, 3), names.items(), strict=True):
            curves = []
            for part, words in SCORED.items():
                if run.scores[part]:
                    at = [point["threshold"] for point in run.scores[part]["curve"]]
                    curves.append([point[name] for point in run.scores[part]["curve"]])
                    axis.plot(at, curves[-1], label=words, markersize=4, **LOOKS[part])
                    axis.axvline(run.scores[part]["chosen"]["threshold"], **LINES[part])
            axis.set(title=title, xlabel="threshold: cell is where it is greater", ylim=_range(curves))
        figure.axes[0].set_ylabel("score, 1 = perfect")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        noun = run.layout.noun
        figure.suptitle(f"Held-out {noun}s. Vertical lines: thresholds chosen on {noun}s that trained", fontsize=11)
        return figure

    def objects(self, run: Run) -> Figure:
        """Crests, judged walls and cells, where walls change most in a held-out slice."""
        if not run.judged:
            return message(NOT_JUDGED)
        plain, threshold = (run.learnt[key] for key in ("plain_threshold", "threshold"))
        changes = [self._wrong(one, one.probability, plain) ^ self._wrong(one, one.redrawn, threshold)
                   for one in run.judged]
        place = max(range(len(changes)), key=lambda number: np.count_nonzero(changes[number]))
        one, part = run.judged[place], busiest(changes[place], CLOSE)
        truth = self.truth(one.sample.label)
        colours = random_colours(truth)

        def cells(objects: np.ndarray, title: str) -> Panel:
            return Panel(matched_colours(objects, truth, colours), title)

        words = f"No walls are drawn in this run: {run.learnt.get('why') or 'they are switched off'}."
        rows = [[Panel(stretched(one.sample.image), one.sample.name), self.maps(one, run.learnt)[0],
                 cells(number_cells(one.probability, plain), f"cells: probability > {plain:g}"),
                 Panel(self.label(one.sample.label), "truth")]]
        if self.task.redraws(run.learnt):
            crests = _crests(one, threshold, run.learnt["walls"]["width"])
            none = "; orange: none" * bool((crests[part] == to_rgb(ORANGE)).all(axis=-1).any())
            rows.append([Panel(crests, "crests"), self.maps(one, run.learnt)[1],
                         cells(one.objects, f"cells: walls > {threshold:g}"), cells(truth, "true cells")])
            judge = (f"what was learnt on {run.layout.noun}s that trained" if run.learnt["walls"]["judge"] else
                     "its mean probability")
            words = ("A watershed finds the crests of the predicted membranes. Each piece of crest between two cells "
                     f"is judged as a whole, by {judge} (black: a membrane{none}), and drawn as a wall.")
        caption = (f"From the network's probability to cells, where a held-out {run.layout.noun} changes most; each "
                   f"cell has the colour of the true one that it covers most of, light grey if of none. {words}")
        figure, _ = grid([[replace(panel, means="") for panel in cut(row, part)] for row in rows], caption, 2.8)
        return figure

    def choices(self, run: Run) -> Figure:
        """V_rand over the threshold on the slices that chose it."""
        if not run.learnt:
            return message(self.choice)
        figure = Figure(figsize=(8, 3.6), dpi=DPI, layout="constrained")
        axis = figure.subplots()
        for part, prefix in (("probability", "plain_"), ("walls", ""))[:1 + self.task.redraws(run.learnt)]:
            at = run.learnt[f"{prefix}threshold"]
            axis.plot(THRESHOLDS, run.learnt[f"{prefix}curve"], label=SCORED[part], **LOOKS[part])
            axis.axvline(at, label=f"chosen: {at:g}", **LINES[part])
        axis.set(xlabel="threshold: cell is where it is greater", ylabel="V_rand", ylim=_range([
            run.learnt[f"{prefix}curve"] for prefix in ("", "plain_")]),
            title=f"Chosen on {run.layout.noun}s {format_slices(run.learnt['on'])}, which trained: the best mean with "
                  f"its neighbours;\nof those within {OVERSURE['by_chance']:g} of it the one nearest "
                  f"{OVERSURE['usual']:g}, with walls {OVERSURE_DRAWN['usual']:g}")
        axis.legend()
        return figure


def _range(curves: list[list[float]]) -> tuple[float, float]:
    """The range of an axis on which curves over thresholds differ: what they reach at the middle ones, up to 1."""
    least = min(min(curve[3:8]) for curve in curves)
    return least - 0.2 * max(1 - least, 0.01), 1


def _around(spot: tuple[int, int], shape: tuple[int, int]) -> Window:
    """The window of ZOOM pixels around (y, x) inside an image of `shape`."""
    sides = [min(ZOOM, full) for full in shape]
    corner = [int(np.clip(at - side // 2, 0, full - side)) for at, side, full in zip(spot, sides, shape, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))


def _places_beside(spots: list[tuple[int, int]], shape: tuple[int, int]) -> list[tuple[float, float]]:
    """Where (y, x) the number of each circled spot of an image (H, W) stands: beside it, far from the others."""
    away = 0.09 * max(shape)
    beside = []
    for here in spots:
        around = [(here[0] + away * np.sin(angle), here[1] + away * np.cos(angle))
                  for angle in np.pi * np.array([-1, 1, -3, 3]) / 4]
        inside = [place for place in around if all(0.03 * full < at < 0.97 * full
                                                   for at, full in zip(place, shape, strict=True))]
        others = [spot for spot in spots if spot != here] + beside
        beside.append(max(inside or around, key=lambda place: min((np.hypot(*np.subtract(place, other))
                                                                   for other in others), default=0)))
    return beside


def _crests(one: Judged, threshold: float, width: float) -> np.ndarray:
    """The faded image, float (H, W, 3), with the crests: black where a membrane was drawn, orange where none."""
    overlay, walls = faded(stretched(one.sample.image)), find_walls(one.probability, width)
    if walls is not None:
        crest = walls.crest
        overlay[crest] = to_rgb(ORANGE)
        overlay[crest & (one.redrawn <= threshold)] = 0
    return overlay


class CellWords(SliceWords):
    """What is to be said of a run on cells."""

    aim = "Membranes were segmented"
    loss = "binary cross-entropy"

    def after(self, run: Run) -> list[str]:
        learnt = run.learnt
        if not learnt:
            return ["stopped before thresholds and walls were learnt"]
        noun = run.layout.noun
        sentences, slices = [], f"{noun}s {format_slices(learnt['on'])}, which trained"
        if self.task.redraws(learnt):
            others = (", and whether one cell lies on both sides in the slices before and after,"
                      if learnt["walls"].get("with_neighbours") else "")  # runs of an earlier version have none
            value = (f"the probability that it is none, by a logistic regression on its length, the sizes of the cells "
                     f"beside it and the probabilities along it{others or ','} fitted to walls of "
                     f"{slices} (after {cited('walls')})" if learnt["walls"]["judge"] else
                     "the mean probability along its crest")
            sentences.append("a seeded watershed on the probability then found the crests of the predicted membranes; "
                             f"each piece between two cells was redrawn as a wall with one value, {value}")
        crossed = ", with walls judged by what was learnt on others of these" * self.task.redraws(learnt)
        sentences.append(f"cells are what is over {learnt['threshold']:g}, after border thinning; this threshold was "
                         f"chosen on {slices}{crossed}")
        return sentences

    def results(self, run: Run) -> str:
        parts = []
        for part, words in SCORED.items():
            scores = run.scores[part]
            if scores:
                best, at = scores["best"], scores["chosen"]
                parts.append(f"{words}: V_rand {best['V_rand']['V_rand']:.4f} and V_info "
                             f"{best['V_info']['V_info']:.4f} at the best threshold, {at['V_rand']:.4f} and "
                             f"{at['V_info']:.4f} at {at['threshold']:g}, chosen without these {run.layout.noun}s")
        error = run.scores["probability"]["best"]["pixel_error"]["pixel_error"]
        return (f"On the held-out {run.layout.noun}s the scores after border thinning ({cited('ISBI scores')}) were, "
                f"of {'; '.join(parts)}; the pixel error of the probability was {error:.4f}.")
