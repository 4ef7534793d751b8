"""Cells between membranes: labels are 0 = membrane and 255 = cell, the network puts out the probability of cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from unet.inputs.doctor import WALLED, few, pixel_step, polarity_notes, separate_objects
from unet.inputs.layouts import Layout
from unet.inputs.stacks import format_slices
from unet.scores.isbi import format_scores, isbi_scores
from unet.segment.walls import draw_walls, find_walls, learn_cells, number_cells, thin_walls
from unet.tasks.stacks import SliceTask
from unet.tasks.task import Judged
from utils import UserError

SCORED = {"probability": "the network's probability", "walls": "with walls drawn"}  # the two sets of scores


@dataclass(frozen=True)
class Cells(SliceTask):
    """What membranes enclose."""

    name: ClassVar = "cells"
    meaning: ClassVar = "cells"
    noun: ClassVar = "slice"  # what one sample is called
    output: ClassVar = "probability of cell"
    numbers_objects: ClassVar = True
    objects_are: ClassVar = "thinned"
    varied: ClassVar = 1.0
    affinities: ClassVar = True

    def check(self, layout: Layout) -> list[str]:
        """Labels are 0 and 255, or 0 and 1; slices on which nobody drew are refused where membranes were drawn."""
        path, looks = layout.labels_path, _look(layout)
        values = [value.item() for value in np.unique(np.concatenate([look.values for look in looks]))]
        shown = ", ".join(f"{value:g}" for value in values[:6]) + (", ..." if len(values) > 6 else "")
        if len(values) == 1:
            raise UserError(f"{path}: every pixel is {shown}, expected membrane (0) and cell (255); draw the "
                            "membranes, or copy the right file")
        if len(values) > 2 or values[0] != 0 or values[1] not in (1, 255):
            several = (f"; if they are {len(values)} classes say so with 'python augmentation.py --classes "
                       f"{len(values)}'" if values == list(range(len(values))) and len(values) <= 256 else "")
            raise UserError(f"{path}: labels have {len(values)} values ({shown}), expected the two 0 = membrane and "
                            "255 = cell; in Fiji: Image > Adjust > Threshold..., Apply, then File > Save As > Tiff"
                            + several)
        blank = [number for number, look in enumerate(looks) if look.values[0] > 0]
        empty = [number for number, look in enumerate(looks) if not look.values.any()]
        others = [number for number in range(len(looks)) if number not in {*blank, *empty}]
        what = "cell" if blank else "membrane"
        # objects on background may be absent from a slice; membranes are everywhere in tissue
        if blank or (empty and thin_walls(_labels(layout, few(others, WALLED)))):
            raise UserError(f"{path}: {layout.listed(blank or empty)} is {what} everywhere, as where nobody drew; "
                            f"label it, or {layout.leave_out}")
        notes = polarity_notes([look.grey for look in looks], [look.label for look in looks], path.name)
        # their background is no membrane to be inverted
        if notes and separate_objects([label > 0 for label in _labels(layout, few(others))], thin_walls):
            notes = []
        if empty:
            notes.append(f"{path}: {layout.listed(empty)} has no object; it is not scored where it is held out")
        if values[1] == 1:
            notes.append(f"{path}: labels are 0 and 1; taken as 0 = membrane, 1 = cell")
        return notes

    def label(self, label: np.ndarray) -> np.ndarray:
        """uint8 (H, W), 0 = membrane, 255 = cell."""
        return np.where(label > 0, 255, 0).astype(np.uint8)

    def check_judges(self, layout: Layout, numbers: Sequence[int], way_out: str) -> None:
        if numbers and not any(layout[number].label.any() for number in numbers):
            raise UserError(f"{layout.labels_path}: {layout.listed(numbers)}, which would be held out, has no object; "
                            f"{way_out}")

    def target(self, label: np.ndarray) -> np.ndarray:
        return (label > 0).astype(np.uint8)

    def looked_back(self, layout: Layout, train: Sequence[int], most: int) -> list[int]:
        """The last `most` that show cells: walls are learnt on them."""
        return [number for number in train if layout[number].label.any()][-most:]

    def learn(self, outputs: Sequence[np.ndarray], labels: Sequence[np.ndarray], walls: bool) -> dict:
        """Which walls are membranes, and two thresholds: with walls drawn, and for the probability as it is."""
        return learn_cells(outputs, labels, walls)

    def together(self, learnts: Sequence[dict]) -> dict:
        """Thresholds and the walls' width are means, walls get the mean of what all judges say.

        Walls are drawn where most models draw them, as those learnt it.
        """
        drawing = [learnt for learnt in learnts if self.redraws(learnt)]
        draws = 2 * len(drawing) > len(learnts)
        beside = [learnt["walls"].get("with_neighbours") for learnt in drawing]
        walls = {"width": float(np.mean([learnt["walls"]["width"] for learnt in drawing])),
                 "judge": [learnt["walls"]["judge"] for learnt in drawing],
                 "with_neighbours": beside if all(beside) else None} if draws else None
        chosen = drawing if draws else [self.unlearnt(learnt) for learnt in learnts]
        means = {name: float(np.mean([learnt[name] for learnt in of]))
                 for name, of in (("threshold", chosen), ("plain_threshold", learnts))}
        why = None if draws else f"{len(drawing)} of {len(learnts)} models draw them"
        return {**super().together(learnts), **means, "walls": walls, "why": why}

    def redraws(self, learnt: dict) -> bool:
        return bool(learnt.get("walls"))

    def redraw(self, probability: np.ndarray, learnt: dict, beside: Sequence[np.ndarray] = ()) -> np.ndarray:
        return draw_walls(probability, learnt["walls"], beside) if self.redraws(learnt) else probability

    def unlearnt(self, learnt: dict) -> dict:
        return {**learnt, "walls": None, "threshold": learnt.get("plain_threshold", 0.5)}

    def in_words(self, learnt: dict) -> str:
        walls = "no walls drawn" + (f": {learnt['why']}" if learnt.get("why") else "")
        if self.redraws(learnt):
            walls = f"walls learnt on {self.noun}s {format_slices(learnt['on'])}"
        return f"a number for each cell, 0 = border; {walls}"

    def segment(self, redrawn: np.ndarray, learnt: dict) -> np.ndarray:
        """4-connected cells whose border is thinned to a pixel, as V_rand and V_info do; 0 = border."""
        return number_cells(redrawn, learnt.get("threshold", 0.5))

    def inside(self, redrawn: np.ndarray, learnt: dict) -> np.ndarray:
        return redrawn > learnt.get("threshold", 0.5)

    def decides(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        """Along the middle lines of the walls; everywhere where there are none."""
        walls = find_walls(probability, learnt["walls"]["width"]) if self.redraws(learnt) else None
        return super().decides(probability, learnt) if walls is None else walls.crest

    def score(self, judged: Iterable[Judged], numbers: Sequence[int], learnt: dict) -> dict:
        """`isbi_scores` of the probability and, where walls are drawn, of what they make of it."""
        slices = {number: one for number, one in zip(numbers, judged, strict=True) if one.sample.label.any()}
        labels = [self.label(one.sample.label) for one in slices.values()]

        def scores(maps: list[np.ndarray], threshold: float) -> dict:
            result = isbi_scores(maps, labels, threshold=threshold, slices=list(slices))
            result["chosen"]["how"] = "the t chosen on slices that trained"
            return result

        return {"probability": scores([one.probability for one in slices.values()], learnt["plain_threshold"]),
                "walls": (scores([one.redrawn for one in slices.values()], learnt["threshold"])
                          if self.redraws(learnt) else None)}

    def table(self, scores: dict) -> str:
        parts, summary = [], []
        for name, title in SCORED.items():
            if scores[name]:
                parts += [f"{title}:", format_scores(scores[name], curve=False), ""]
                at = scores[name]["chosen"]
                summary.append(f"hold-out, {title}, at the threshold chosen before ({at['threshold']:g}): V_rand "
                               f"{at['V_rand']:.4f}, V_info {at['V_info']:.4f}, pixel error {at['pixel_error']:.3f}, "
                               f"membrane IoU {at['membrane_iou']:.3f}, Dice {at['membrane_dice']:.3f}")
        return "\n".join([*parts, *summary])

    def summary(self, scores: dict) -> dict[str, dict[str, float]]:
        shown = {"V_rand": "V_rand", "V_info": "V_info", "pixel error": "pixel_error", "membrane IoU": "membrane_iou",
                 "membrane Dice": "membrane_dice"}
        return {title: {head: scores[name]["chosen"][key] for head, key in shown.items()}
                for name, title in SCORED.items() if scores[name]}


@dataclass(frozen=True)
class Look:
    """What the labels' check needs of a sample: the values of its label, sorted, and few pixels of both."""

    values: np.ndarray
    grey: np.ndarray
    label: np.ndarray


def _look(layout: Layout) -> list[Look]:
    step = pixel_step(sum(prod(layout.size(number)) for number in range(len(layout))))
    return [Look(np.unique(sample.label), sample.image[::step, ::step].copy(), sample.label[::step, ::step].copy())
            for sample in tqdm(layout, desc="checking the labels", unit=layout.noun, leave=False, disable=None)]


def _labels(layout: Layout, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    return (layout[number].label for number in numbers)
