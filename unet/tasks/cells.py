"""Cells between membranes: labels are 0 = membrane and 255 = cell; the network outputs the probability of cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from unet.inputs.doctor import WALL_SLICES, are_separate_objects, pixel_step, polarity_notes, sample_evenly
from unet.inputs.layouts import Layout
from unet.inputs.stacks import format_slices
from unet.scores.isbi import format_scores, isbi_scores
from unet.segment.crests import find_walls
from unet.segment.walls import draw_walls, learn_cells, number_cells, thin_walls
from unet.tasks.stacks import SliceTask
from unet.tasks.task import Prediction
from utils import UserError

SCORE_TITLES = {"probability": "the network's probability", "walls": "with walls drawn"}  # the two sets of scores


@dataclass(frozen=True)
class Cells(SliceTask):
    """The task of segmenting what membranes enclose."""

    name: ClassVar = "cells"
    meaning: ClassVar = "cells"
    noun: ClassVar = "slice"  # what one sample is called
    output: ClassVar = "probability of cell"
    numbers_objects: ClassVar = True
    objects_are: ClassVar = "thinned"
    max_intensity: ClassVar = 1.0
    affinities: ClassVar = True

    def check(self, layout: Layout) -> list[str]:
        """Check that labels are 0 and 255, or 0 and 1; no slice may be all cell, nor all membrane if walls are thin."""
        path = layout.labels_path
        values_by_sample, greys, labels = zip(*_summaries(layout), strict=True)
        values = [value.item() for value in np.unique(np.concatenate(values_by_sample))]
        value_text = ", ".join(f"{value:g}" for value in values[:6]) + (", ..." if len(values) > 6 else "")
        if len(values) == 1:
            raise UserError(f"{path}: every pixel is {value_text}, expected membrane (0) and cell (255); draw the "
                            "membranes, or copy the right file")
        if len(values) > 2 or values[0] != 0 or values[1] not in (1, 255):
            classes = (f"; if they are {len(values)} classes say so with 'python augmentation.py --classes "
                       f"{len(values)}'" if values == list(range(len(values))) and len(values) <= 256 else "")
            raise UserError(f"{path}: labels have {len(values)} values ({value_text}), expected the two 0 = membrane "
                            "and 255 = cell; in Fiji: Image > Adjust > Threshold..., Apply, then File > Save As > Tiff"
                            + classes)
        blank = [number for number, its_values in enumerate(values_by_sample) if its_values[0] > 0]
        empty = [number for number, its_values in enumerate(values_by_sample) if not its_values.any()]
        others = [number for number in range(len(layout)) if number not in {*blank, *empty}]
        what = "cell" if blank else "membrane"
        # objects on background may be absent from a slice; membranes are everywhere in tissue
        if blank or (empty and thin_walls(_labels(layout, sample_evenly(others, WALL_SLICES)))):
            raise UserError(f"{path}: nothing was drawn on {layout.name_samples(blank or empty)}, where the label is "
                            f"{what} everywhere; label it, or {layout.leave_out}")
        notes = polarity_notes(greys, labels, path.name)
        # separate objects have a background and no membranes, so that labels are not inverted
        if notes and are_separate_objects([label > 0 for label in _labels(layout, sample_evenly(others))], thin_walls):
            notes = []
        if empty:
            notes.append(f"{path}: no object on {layout.name_samples(empty)}, so no score if held out")
        if values[1] == 1:
            notes.append(f"{path}: labels are 0 and 1; taken as 0 = membrane, 1 = cell")
        return notes

    def label(self, label: np.ndarray) -> np.ndarray:
        """Return a label as uint8 (H, W), 0 = membrane, 255 = cell."""
        return np.where(label > 0, 255, 0).astype(np.uint8)

    def check_holdout(self, layout: Layout, numbers: Sequence[int], way_out: str) -> None:
        if numbers and not any(layout[number].label.any() for number in numbers):
            raise UserError(f"{layout.labels_path}: no object on {layout.name_samples(numbers)} to score the network "
                            f"on; {way_out}")

    def target(self, label: np.ndarray) -> np.ndarray:
        return (label > 0).astype(np.uint8)

    def lookback_samples(self, layout: Layout, train: Sequence[int], most: int) -> list[int]:
        """Return the last samples that show cells, `most` at most: walls are learnt on them."""
        return [number for number in train if layout[number].label.any()][-most:]

    def learn(self, outputs: Sequence[np.ndarray], labels: Sequence[np.ndarray], walls: bool) -> dict:
        """Learn which walls are membranes, and two thresholds: with walls drawn, and for the unchanged probability."""
        return learn_cells(outputs, labels, walls)

    def combine_learnt(self, learnts: Sequence[dict]) -> dict:
        """Average the thresholds and the walls' width, and keep all judges: `redraw` averages their scores of a wall.

        Walls are drawn if most models draw them, by what those models learnt.
        """
        with_walls = [learnt for learnt in learnts if self.redraws(learnt)]
        draws = 2 * len(with_walls) > len(learnts)
        beside = [learnt["walls"].get("with_neighbours") for learnt in with_walls]
        walls = {"width": float(np.mean([learnt["walls"]["width"] for learnt in with_walls])),
                 "judge": [learnt["walls"]["judge"] for learnt in with_walls],
                 "with_neighbours": beside if all(beside) else None} if draws else None
        voters = with_walls if draws else [self.without_walls(learnt) for learnt in learnts]
        means = {name: float(np.mean([learnt[name] for learnt in group]))
                 for name, group in (("threshold", voters), ("plain_threshold", learnts))}
        why = None if draws else f"{len(with_walls)} of {len(learnts)} models draw them"
        return {**super().combine_learnt(learnts), **means, "walls": walls, "why": why}

    def redraws(self, learnt: dict) -> bool:
        return bool(learnt.get("walls"))

    def redraw(self, probability: np.ndarray, learnt: dict, neighbours: Sequence[np.ndarray] = ()) -> np.ndarray:
        return draw_walls(probability, learnt["walls"], neighbours) if self.redraws(learnt) else probability

    def without_walls(self, learnt: dict) -> dict:
        return {**learnt, "walls": None, "threshold": learnt.get("plain_threshold", 0.5)}

    def describe(self, learnt: dict) -> str:
        walls = "no walls drawn" + (f": {learnt['why']}" if learnt.get("why") else "")
        if self.redraws(learnt):
            walls = f"walls learnt on {self.noun}s {format_slices(learnt['on'])}"
        return f"a number for each cell, 0 = border; {walls}"

    def segment(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        """Number 4-connected cells, with borders thinned to a pixel as for V_rand and V_info; 0 = border."""
        return number_cells(probability, learnt.get("threshold", 0.5))

    def inside(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        return probability > learnt.get("threshold", 0.5)

    def decisive_pixels(self, probability: np.ndarray, learnt: dict) -> np.ndarray:
        """Return the middle lines of the walls; True everywhere if there are no walls."""
        walls = find_walls(probability, learnt["walls"]["width"]) if self.redraws(learnt) else None
        return super().decisive_pixels(probability, learnt) if walls is None else walls.crest

    def score(self, predictions: Iterable[Prediction], numbers: Sequence[int], learnt: dict) -> dict:
        """Return `isbi_scores` for the probability and, if walls are drawn, for the probability with them."""
        slices = {number: one for number, one in zip(numbers, predictions, strict=True) if one.sample.label.any()}
        labels = [self.label(one.sample.label) for one in slices.values()]

        def scores(maps: list[np.ndarray], threshold: float) -> dict:
            result = isbi_scores(maps, labels, threshold=threshold, slices=list(slices))
            result["chosen"]["how"] = "the t chosen on training slices"
            return result

        return {"probability": scores([one.probability for one in slices.values()], learnt["plain_threshold"]),
                "walls": (scores([one.redrawn for one in slices.values()], learnt["threshold"])
                          if self.redraws(learnt) else None)}

    def table(self, scores: dict) -> str:
        parts, summary = [], []
        for name, title in SCORE_TITLES.items():
            if scores[name]:
                parts += [f"{title}:", format_scores(scores[name], curve=False), ""]
                at = scores[name]["chosen"]
                summary.append(f"hold-out, {title}, at the threshold chosen before ({at['threshold']:g}): V_rand "
                               f"{at['V_rand']:.4f}, V_info {at['V_info']:.4f}, pixel error {at['pixel_error']:.3f}, "
                               f"membrane IoU {at['membrane_iou']:.3f}, Dice {at['membrane_dice']:.3f}")
        return "\n".join([*parts, *summary])

    def summary(self, scores: dict) -> dict[str, dict[str, float]]:
        keys = {"V_rand": "V_rand", "V_info": "V_info", "pixel error": "pixel_error", "membrane IoU": "membrane_iou",
                "membrane Dice": "membrane_dice"}
        return {title: {head: scores[name]["chosen"][key] for head, key in keys.items()}
                for name, title in SCORE_TITLES.items() if scores[name]}


def _summaries(layout: Layout) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return for each sample the sorted values of its label, and a subset of the image's and of the label's pixels."""
    step = pixel_step(sum(prod(layout.size(number)) for number in range(len(layout))))
    return [(np.unique(sample.label), sample.image[::step, ::step].copy(), sample.label[::step, ::step].copy())
            for sample in tqdm(layout, desc="checking the labels", unit=layout.noun, leave=False, disable=None)]


def _labels(layout: Layout, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    return (layout[number].label for number in numbers)
