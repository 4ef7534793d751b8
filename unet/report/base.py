"""Pictures of a run: its data, its results, its mistakes. What differs from task to task is abstract."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from matplotlib.figure import Figure

from preprocessing import BORDER_SIGMA, BORDER_W0, Tiling, balance_weights, border_weights, tile_corners
from unet.inputs.samples import Sample
from unet.report.colours import colour_objects, for_display, matched_colours, random_colours, squeeze_grey
from unet.report.paint import busiest, legend
from unet.report.pictures import SKY, YELLOW, Panel, frame, grid, message, middle
from unet.scores.doubt import entropy
from unet.tasks.nuclei import separate_touching
from unet.tasks.task import Prediction, Task
from utils import OverlapTile, count_of

if TYPE_CHECKING:
    from unet.report.run import Run

NO_HOLDOUT = ("Nothing was held out in this run (--holdout none), or it was stopped before it was scored, or its "
              "prediction was moved: there is nothing to compare.")
NO_PREDICTION = ("There was nothing to predict, or the prediction was moved: 'python predict.py' makes it; out= or "
                 "--out says where it is.")
NO_INSTANCES = "Classes are kinds of pixels, not countable objects: there are no instances to colour."
CLOSE_UP = 160  # side of a close-up, pixels
CANDIDATES = 60  # training pages among which the one to show is chosen
STRETCHED_GREY = "grey level, stretched"
Window = tuple[slice, slice]


class Pictures(ABC):
    """The pictures of a task's runs, each a figure. If a run was stopped too early for one, the figure says so."""

    label_meaning: ClassVar[str]  # what a label's colours mean
    advice: ClassVar[str]  # how to draw labels, a sentence
    object_name: ClassVar[str]  # what is counted, plural; empty if there are no objects
    mistake_colours: ClassVar[tuple[str, ...]]  # keys of `paint.MEANING`
    mistakes_caption: ClassVar[str]  # which mistakes matter
    method: ClassVar[str]  # how objects are made from the probability, for captions
    doubt_region: ClassVar[str]  # where doubt is averaged, for captions
    choice_text: ClassVar[str]  # what is chosen after training, shown if there is nothing to draw
    side: ClassVar[int] = 4096  # the part of an image that is shown is at most so high and wide, pixels

    def __init__(self, task: Task):
        self.task = task

    # ------------------------------------------------------------------------------ what each task defines

    @abstractmethod
    def label_picture(self, label: np.ndarray) -> np.ndarray:
        """Return a label (H, W) as it is shown: uint8 (H, W) or (H, W, 3)."""

    def target_picture(self, target: np.ndarray) -> np.ndarray:
        """Return a target of the network (H, W) as it is shown: uint8 (H, W) or (H, W, 3)."""
        return target * np.uint8(255)

    @abstractmethod
    def maps(self, prediction: Prediction, learnt: dict) -> list[Panel]:
        """Return the network's output and, if the task draws walls, the output with walls drawn."""

    @abstractmethod
    def mistakes(self, prediction: Prediction, learnt: dict) -> Panel:
        """Paint what is wrong over a labelled sample, and count it in the title."""

    @abstractmethod
    def wrong(self, prediction: Prediction, learnt: dict) -> np.ndarray:
        """Return where the prediction of a labelled sample is wrong, bool (H, W)."""

    @abstractmethod
    def score(self, run: Run, prediction: Prediction) -> tuple[float, str]:
        """Return the score of a held-out sample (greater is better) and its text."""

    @abstractmethod
    def windows(self, run: Run, prediction: Prediction) -> list[tuple[float, str, Window]]:
        """Return parts of a held-out sample, each with its score (greater is better), its text and its window."""

    @abstractmethod
    def scores(self, run: Run) -> Figure:
        """Draw the scores of the held-out samples as curves or bars."""

    def truth(self, label: np.ndarray) -> np.ndarray:
        """Return the true objects of a label (H, W): int (H, W), 0 = none."""
        return label.astype(np.int32)

    def add_legend(self, figure: Figure) -> None:
        """Explain the colours of mistakes above the panels."""
        legend(figure, *self.mistake_colours)

    # ------------------------------------------------------------------------------------------ the input

    def example(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """Return a training page as the network sees it, uint8 (H, W[, 3]), and its label as it is shown."""
        image, label, levels = run.page(self._instructive_page(run))
        return squeeze_grey(self.task.normalise(image, levels)), self.label_picture(label)

    def _instructive_page(self, run: Run) -> int:
        """Return the number of the training page whose target differs most from its label, or the first one."""
        pages = [page for source in run.train[:CANDIDATES] for page in run.originals(source)][:CANDIDATES]

        def count_differences(page: int) -> int:
            label = np.asarray(run.labels[page])
            return np.count_nonzero((label > 0) & (self.task.target(label) == 0))

        return max(pages, key=count_differences)

    def images(self, run: Run, most: int = 5) -> Figure:
        """Draw some labelled samples of each group with their labels; frame those that are held out."""
        groups = list(dict.fromkeys(run.layout.groups))
        numbers = [number for group in groups
                   for number in pick_evenly([n for n, its_group in enumerate(run.layout.groups) if its_group == group],
                                             max(2, most // len(groups)))]
        rows = []
        for number in numbers:
            sample = run.layout[number]
            label = self.task.label(sample.label)
            part = busiest(label > 0, self.side)
            title = f"{sample.group or sample.name}, {'held out' if number in run.holdout else 'training'}"
            rows.append([Panel(for_display(sample.image)[part], title, STRETCHED_GREY, pixel=side_of(sample)),
                         Panel(self.label_picture(label)[part], pixel=side_of(sample))])
        frames = " (framed)" * any(number in run.holdout for number in numbers)
        figure, axes = grid(rows, f"{len(run.layout)} labelled {run.layout.noun}s: {len(run.train)} for training, "
                            f"{len(run.holdout)} held out for scoring and never trained on{frames}. Each label is "
                            f"below its image: {self.label_meaning}. {self.advice}", 2.4, ("image", "label"))
        for number, axis in zip(numbers, axes[0], strict=True):
            if number in run.holdout:
                for side in axis.spines.values():
                    side.set(color=SKY, linewidth=4)
        return figure

    def tiles(self, run: Run) -> Figure:
        """Draw the tiles that step 2 cuts from a training sample, and one of them as the network gets it."""
        tiling, size = Tiling(*(run.geometry[key] for key in ("tile", "margin", "valid"))), run.manifest["shape"][1:3]
        corners = tile_corners(tiling, size, self.task.windowed)
        counts = {source: len(run.originals(source)) for source in run.train}
        source = max(run.train, key=lambda number: (counts[number] <= 12, counts[number]))  # hundreds are unreadable
        pages = [run.manifest["samples"][page] for page in run.originals(source)]
        several, page, sample = len(pages) > 1, pages[len(pages) // 2], run.layout[source]
        image, label, levels = run.page(page["page"])

        def tile(array: np.ndarray) -> np.ndarray:
            return OverlapTile(tuple(size), tiling.tile).cut_at(array, corners[-1:])[0]

        where = "whole pages" if len(corners) == 1 else f"{len(corners)} per page, overlapping"
        title = f"{sample.name[:20]}: {count_of(len(pages), 'page')} of {size[0]} x {size[1]} pixels"
        figure, axes = grid([[
            Panel(for_display(sample.image if several else image), title),
            Panel(squeeze_grey(tile(run.training_arrays.arrays(image, label, levels)["images"])),
                  "one tile, as the network sees it"),
            Panel(self.label_picture(tile(label)), f"its label: {self.label_meaning}")]],
            f"Training tiles, {tiling.tile} pixels each: {where}, cut from each training {run.layout.noun} (frames; "
            "the tile in the blue frame is shown on the right) and from its "
            f"{run.manifest['sources'][source]['copies']} augmented copies. The network sees normalised grey levels.",
            3.6)

        def place(page: dict, corner: tuple[int, int]) -> tuple[int, int]:
            return tuple(np.add(page["corner"], corner)) if several else corner  # a single page is shown by itself

        for one in pages:
            for corner in corners:
                frame(axes[0, 0], place(one, corner), (tiling.tile,) * 2, YELLOW, 1.5, linestyle="--")
        frame(axes[0, 0], place(page, corners[-1]), (tiling.tile,) * 2, SKY, 3)
        if tiling.valid:
            edge = (tiling.tile - tiling.label_side) // 2
            frame(axes[0, 2], (edge, edge), (tiling.label_side,) * 2, SKY)
        return figure

    def weights(self, run: Run) -> Figure:
        """Draw the parts of the weight map, in the middle of a training page."""
        label = middle(run.page(self._instructive_page(run))[1])
        target, several = self.task.target(label), self.task.classes > 1
        row = [Panel(self.label_picture(label), f"label: {self.label_meaning}")]
        if ((label > 0) != (target > 0)).any():
            row.append(Panel(self.target_picture(target), f"target of the network: white = {self.object_name}"))
        weights = {"balance": balance_weights(target, run.geometry["shares"])}
        parts = [f"balance: {'all classes' if several else 'foreground and background'} have the same total weight"]
        if "border" in self.task.weights:
            weights["border"] = border_weights(self.task.regions(label))
            parts.append(f"border, added to it: up to {weights['border'].max():.1f} here, more if two "
                         f"{self.object_name} are closer together ({BORDER_W0:g} without a gap; sigma {BORDER_SIGMA:g} "
                         "pixels)")
        row += [weight_panel(array, array.max(), name) for name, array in weights.items()]
        return grid([row], f"Weights of the loss (this run: --weights {run.geometry['weights']}). "
                    f"{'; '.join(parts).capitalize()}.", 3.2)[0]

    # ----------------------------------------------------------------------------------------- the results

    def row(self, prediction: Prediction, learnt: dict, title: str = "", part: Window | None = None) -> list[Panel]:
        """Return the panels of a sample: image, truth, output, mistakes; without a label: image, output, objects."""
        sample = prediction.sample
        panels = [Panel(for_display(sample.image), title or sample.name[:20], STRETCHED_GREY)]
        if sample.label is None:
            panels += self.maps(prediction, learnt)
            if self.object_name:
                panels.append(Panel(colour_objects(prediction.objects),
                                    f"{prediction.objects.max()} {self.object_name}"))
        else:
            panels += [Panel(self.label_picture(self.task.label(sample.label)), f"truth: {self.label_meaning}"),
                       *self.maps(prediction, learnt), self.mistakes(prediction, learnt)]
        panels = [replace(panel, pixel=side_of(sample)) for panel in panels]
        return panels if part is None else crop_panels(panels, part)

    def layers(self, prediction: Prediction, learnt: dict) -> list[Panel]:
        """Return all pictures of a sample but its objects, for the viewer: image, output, doubt, truth, mistakes."""
        panels = self.row(prediction, learnt)
        truth = ([] if prediction.sample.label is None else
                 [panels[1], replace(panels[-1], title=f"mistakes: {panels[-1].title}")])
        return [replace(panels[0], title="image"), *self.maps(prediction, learnt),
                Panel(entropy(prediction.probability), "doubt: entropy of the probability, white = undecided"), *truth]

    def palettes(self, label_maps: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the colours of the objects of each label map (H, W): float (count + 1, 3) each."""
        return [random_colours(objects) for objects in label_maps]

    def holdout(self, predictions: Sequence[Prediction], learnt: dict, most: int = 5) -> Figure:
        """Draw some samples and their predictions; if they have labels, also their mistakes."""
        labelled = predictions[0].sample.label is not None
        rows = [self.row(one, learnt, part=busiest(self.wrong(one, learnt) if labelled else one.objects > 0, self.side))
                for one in pick_evenly(predictions, most)]
        figure, _ = grid(rows, f"Held out for scoring and never trained on. {self.mistakes_caption}" if labelled else
                         "Predicted.", 3.2)
        if labelled:
            self.add_legend(figure)
        return figure

    def typical(self, run: Run, most: int = 3) -> list[Prediction]:
        """Return held-out samples whose scores are in the middle, from each group: `most` in all, at least one each."""
        groups: dict[str, list[Prediction]] = {}
        for prediction in sorted(run.holdout_predictions, key=lambda one: self.score(run, one)[0]):
            groups.setdefault(prediction.sample.group, []).append(prediction)
        each = max(1, most // max(1, len(groups)))
        return [one for members in groups.values() for one in members[max(0, (len(members) - each) // 2):][:each]]

    def choices(self, run: Run) -> Figure:
        """Draw what was chosen after training, on training samples: thresholds."""
        return message(self.choice_text)

    def objects(self, run: Run) -> Figure:
        """Draw how objects are made from the probability, in parts of held-out samples."""
        rows = []
        for one in self.typical(run):
            unlabelled = replace(one, sample=replace(one.sample, label=None))
            panels = [*self.row(unlabelled, run.learnt, _short_name(one)),
                      Panel(self.label_picture(self.task.label(one.sample.label)), f"truth: {self.label_meaning}")]
            rows.append(crop_panels(panels, busiest(one.objects > 0, CLOSE_UP)))
        if not rows:
            return message(NO_HOLDOUT)
        counts = " Counts are for whole images; only parts of them are shown." * bool(self.object_name)
        return grid(rows, f"From the network's output to the result: {self.method}{counts}", 2.6)[0]

    def errors(self, run: Run) -> Figure:
        """Draw held-out samples whose scores are in the middle, and their mistakes."""
        rows = [self.row(one, run.learnt, f"{_short_name(one)}\n{self.score(run, one)[1]}",
                         busiest(self.wrong(one, run.learnt), self.side)) for one in self.typical(run)]
        if not rows:
            return message(NO_HOLDOUT)
        figure, _ = grid(rows, f"Typical held-out {run.layout.noun}s: their scores are in the middle. "
                         f"{self.mistakes_caption}", 2.8)
        self.add_legend(figure)
        return figure

    def worst(self, run: Run, most: int = 4) -> Figure:
        """Draw the parts of held-out samples with the lowest scores, worst first."""
        parts = sorted(((score, text, one, window) for one in run.holdout_predictions
                        for score, text, window in self.windows(run, one)), key=lambda part: part[0])[:most]
        if not parts:
            return message(NO_HOLDOUT)
        columns = [self.row(one, run.learnt, f"{_short_name(one)}\n{text}", window) for _, text, one, window in parts]
        names = [panel.title for panel in columns[0]]
        caption = (f"The parts of held-out {run.layout.noun}s with the lowest scores: look here first. Sometimes the "
                   f"label itself is doubtful. {self.mistakes_caption}")
        figure, _ = grid([*map(only_first_title, columns)], caption, 2.6, ("image", *names[1:-1], "mistakes"))
        self.add_legend(figure)
        return figure

    def instances(self, run: Run) -> Figure:
        """Draw the true and the predicted objects of held-out samples, each in its own colour."""
        if not self.object_name:
            return message(NO_INSTANCES)
        rows = []
        for one in self.typical(run, max(2, len(set(run.layout.groups)))):
            truth, part = self.truth(one.sample.label), busiest(self.wrong(one, run.learnt), self.side)
            colours, side = random_colours(truth), side_of(one.sample)
            rows.append([Panel(for_display(one.sample.image)[part], _short_name(one), STRETCHED_GREY, pixel=side), *(
                Panel(outline_touching(matched_colours(objects, truth, colours), objects)[part],
                      f"{name}: {objects.max()} {self.object_name}", pixel=side)
                for objects, name in ((truth, "truth"), (one.objects, "predicted")))])
        if not rows:
            return message(NO_HOLDOUT)
        return grid(rows, f"{self.object_name.capitalize()} in random colours. Each predicted one has the colour of "
                    "the true one that it covers most of, or is light grey if it covers none. If one colour fills two "
                    "true ones, they were merged; if a black line runs through one colour, it was split.", 3.2)[0]

    def prediction(self, run: Run, most: int = 5) -> Figure:
        """Draw predictions of unlabelled samples, from the first to the last: image, network output, objects."""
        count = len(run.to_predict)
        predictions = run.predictions(pick_evenly(range(count), most))
        if not predictions:
            return message(NO_PREDICTION)
        rows = [self.row(one, run.learnt, part=busiest(one.objects > 0, self.side)) for one in predictions]
        names = ["image", *(panel.title for panel in self.maps(predictions[0], run.learnt)), self.object_name]
        caption = (f"Predictions of unlabelled {run.layout.noun}s, {count} in all. Large ones are predicted in "
                   "overlapping tiles; no seam should be visible.")
        return grid([[panels[0], *(panel if panel.title not in names else replace(panel, title="")
                                   for panel in panels[1:])] for panels in rows], caption, 2.4,
                    [*filter(None, names)])[0]


def _short_name(prediction: Prediction) -> str:
    """Return the name of a sample, shortened, with its group."""
    name, group = prediction.sample.name, prediction.sample.group
    return f"{name if len(name) < 15 else name[:10] + '...'}{', ' * bool(group)}{group}"


def side_of(sample: Sample) -> float | None:
    """Return the side of a sample's pixels, µm, for scale bars; None if it is unknown or they are not square."""
    voxel = sample.voxel
    return voxel.x if voxel and math.isclose(voxel.x, voxel.y, rel_tol=0.01) else None


def weight_panel(weights: np.ndarray, largest: float, title: str = "") -> Panel:
    """Return the panel of a weight map (H, W), in colours from 0 to `largest`."""
    return Panel(weights, title, "weight", {"cmap": "cividis", "vmax": max(largest, 1e-6)})


def crop_panels(panels: Sequence[Panel], part: Window) -> list[Panel]:
    """Return the same part of each panel."""
    return [replace(panel, array=panel.array[part]) for panel in panels]


def only_first_title(panels: Sequence[Panel]) -> list[Panel]:
    """Return the panels without titles, except that of the first."""
    return [panels[0], *(replace(panel, title="") for panel in panels[1:])]


def outline_touching(colours: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Draw a black line into colours (H, W, 3) where two objects of a label map (H, W) touch."""
    return np.where(((objects == 0) | separate_touching(objects))[..., np.newaxis], colours, 0)


def pick_evenly(items: Sequence, most: int) -> list:
    """Return at most `most` items, evenly spaced from the first to the last."""
    return [items[place] for place in np.unique(np.linspace(0, len(items) - 1, most).astype(int))] if items else []
