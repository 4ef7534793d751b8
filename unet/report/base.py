"""Pictures of a run, whatever its task: what goes in, what comes out, what is wrong; what a task adds is abstract."""

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
from unet.report.colours import coloured, matched_colours, random_colours, stretched
from unet.report.paint import busiest, legend
from unet.report.pictures import SKY, YELLOW, Panel, frame, grid, message, middle
from unet.scores.doubt import entropy
from unet.tasks.nuclei import separated
from unet.tasks.task import Judged, Task
from utils import OverlapTile, counted

if TYPE_CHECKING:
    from unet.report.run import Run

NOT_JUDGED = ("Nothing was held out of this run (--holdout none), or it was stopped before it was judged, or the "
              "prediction is not where it was written: there is nothing to compare.")
NOT_PREDICTED = ("There was nothing to predict, or the prediction is not where it was written: 'python predict.py' "
                 "makes it, and out= or --out names it.")
NO_INSTANCES = "Classes are kinds of pixels, and nothing in them is counted: there are no instances to colour."
CLOSE = 160  # pixels of a close look
LOOKED_AT = 60  # pages of step 1 among which the one to be shown is chosen
GREY = "grey level, stretched"
CIVIDIS = {"cmap": "cividis"}
Window = tuple[slice, slice]


class Pictures(ABC):
    """The pictures of a task's runs: each a figure, which says so where the run did not come so far."""

    label_means: ClassVar[str]  # what a label's colours mean
    advice: ClassVar[str]  # how labels are drawn, a sentence
    object_name: ClassVar[str]  # what is counted, plural; nothing where objects mean nothing
    marks: ClassVar[tuple[str, ...]]  # colours of mistakes, those of `paint.MEANING`
    mistakes_mean: ClassVar[str]  # what mistakes are, for captions
    follows: ClassVar[str]  # how objects follow from the probability, for captions
    doubt_means: ClassVar[str]  # where doubt is counted, for captions
    choice: ClassVar[str]  # what is chosen after training, where it is nothing to be drawn
    side: ClassVar[int] = 4096  # at most of the part of an image that is shown, pixels

    def __init__(self, task: Task):
        self.task = task

    # ---------------------------------------------------------------------------- what each task answers

    @abstractmethod
    def label(self, label: np.ndarray) -> np.ndarray:
        """A label (H, W) as it is shown: uint8 (H, W) or (H, W, 3)."""

    @abstractmethod
    def maps(self, one: Judged, learnt: dict) -> list[Panel]:
        """What the network says, and what was drawn into it, as it is shown."""

    @abstractmethod
    def mistakes(self, one: Judged, learnt: dict) -> Panel:
        """What is wrong in a labelled sample, painted over it, and counted in the title."""

    @abstractmethod
    def wrong(self, one: Judged, learnt: dict) -> np.ndarray:
        """Where it is wrong, bool (H, W)."""

    @abstractmethod
    def score(self, run: Run, one: Judged) -> tuple[float, str]:
        """A held-out sample's score, greater is better, as a number and in words."""

    @abstractmethod
    def windows(self, run: Run, one: Judged) -> list[tuple[float, str, Window]]:
        """Parts of a held-out sample: the score of each, greater is better, in words, and where it lies."""

    @abstractmethod
    def scores(self, run: Run) -> Figure:
        """The hold-out's scores as curves or bars."""

    def truth(self, label: np.ndarray) -> np.ndarray:
        """The true objects of a label (H, W): int (H, W), 0 = none."""
        return label.astype(np.int32)

    def mark(self, figure: Figure) -> None:
        """Say above the panels what colours mean."""
        legend(figure, *self.marks)

    # -------------------------------------------------------------------------------------- what goes in

    def example(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """A training page as the network sees it, uint8 (H, W[, 3]), and its label as it is shown."""
        image, label, levels = run.page(self._telling_page(run))
        return plain(self.task.normalise(image, levels)), self.label(label)

    def _telling_page(self, run: Run) -> int:
        """Which page that trains shows most: where the target differs most from the label, else the first."""
        pages = [page for source in run.train[:LOOKED_AT] for page in run.originals(source)][:LOOKED_AT]

        def differs(page: int) -> int:
            label = np.asarray(run.labels[page])
            return np.count_nonzero((label > 0) & (self.task.target(label) == 0))

        return max(pages, key=differs)

    def images(self, run: Run, most: int = 5) -> Figure:
        """Some labelled samples of each group with their labels; held-out ones are framed."""
        groups = list(dict.fromkeys(run.layout.groups))
        numbers = [number for group in groups
                   for number in spread([n for n, its in enumerate(run.layout.groups) if its == group],
                                         max(2, most // len(groups)))]
        rows = []
        for number in numbers:
            sample = run.layout[number]
            label = self.task.label(sample.label)
            part = busiest(label > 0, self.side)
            words = f"{sample.group or sample.name}, {'held out' if number in run.holdout else 'trains'}"
            rows.append([Panel(stretched(sample.image)[part], words, GREY, pixel=side_of(sample)),
                         Panel(self.label(label)[part], pixel=side_of(sample))])
        shown = {number in run.holdout for number in numbers}
        figure, axes = grid(rows, f"{len(run.layout)} labelled {run.layout.noun}s: {len(run.train)} train, "
                            f"{len(run.holdout)} judge and never train"
                            + " (framed)" * (True in shown) + f". Below each its label: {self.label_means}. "
                            + self.advice, 2.4, ("image", "label"))
        for number, axis in zip(numbers, axes[0], strict=True):
            if number in run.holdout:
                for side in axis.spines.values():
                    side.set(color=SKY, linewidth=4)
        return figure

    def tiles(self, run: Run) -> Figure:
        """The tiles that step 2 cuts of a training sample, and one of them as the network gets it."""
        tiling, size = Tiling(*(run.geometry[key] for key in ("tile", "margin", "valid"))), run.manifest["shape"][1:3]
        corners = tile_corners(tiling, size, self.task.windowed)
        counts = {source: len(run.originals(source)) for source in run.train}
        source = max(run.train, key=lambda number: (counts[number] <= 12, counts[number]))  # not of hundreds of windows
        pages = [run.manifest["samples"][page] for page in run.originals(source)]
        several, page, sample = len(pages) > 1, pages[len(pages) // 2], run.layout[source]
        image, label, levels = run.page(page["page"])

        def tile(array: np.ndarray) -> np.ndarray:
            return OverlapTile(tuple(size), tiling.tile).cut_at(array, corners[-1:])[0]

        where = "whole pages" if len(corners) == 1 else f"{len(corners)} a page, overlapping"
        title = f"{sample.name[:20]}: {counted(len(pages), 'page')} of {size[0]} x {size[1]} pixels"
        figure, axes = grid([[
            Panel(stretched(sample.image if several else image), title),
            Panel(plain(tile(run.content.arrays(image, label, levels)["images"])), "one tile, as training gets it"),
            Panel(self.label(tile(label)), f"its label: {self.label_means}")]],
            f"Tiles to train on, {tiling.tile} pixels each: {where}, of each {run.layout.noun} that trains (frames; "
            f"the blue one is shown beside) and of its {run.manifest['sources'][source]['copies']} augmented copies. "
            "The network gets them with grey levels normalised.", 3.6)

        def place(page: dict, corner: tuple[int, int]) -> tuple[int, int]:
            return tuple(np.add(page["corner"], corner)) if several else corner  # of a single page the page is shown

        for one in pages:
            for corner in corners:
                frame(axes[0, 0], place(one, corner), (tiling.tile,) * 2, YELLOW, 1.5, linestyle="--")
        frame(axes[0, 0], place(page, corners[-1]), (tiling.tile,) * 2, SKY, 3)
        if tiling.valid:
            edge = (tiling.tile - tiling.label) // 2
            frame(axes[0, 2], (edge, edge), (tiling.label,) * 2, SKY)
        return figure

    def weights(self, run: Run) -> Figure:
        """The parts of the weight map, in the middle of a training page."""
        label = middle(run.page(self._telling_page(run))[1])
        target, several = self.task.target(label), self.task.classes > 1
        row = [Panel(self.label(label), f"label: {self.label_means}")]
        if ((label > 0) != (target > 0)).any():
            row.append(Panel(target * np.uint8(255), f"what the network should say: white = {self.object_name}"))
        weights = {"balance": balance_weights(target, run.geometry["shares"])}
        words = [f"balance: {'all classes count' if several else 'both kinds of pixels count'} the same in all"]
        if "border" in self.task.weights:
            weights["border"] = border_weights(self.task.regions(label))
            words.append(f"border, added to it: up to {weights['border'].max():.1f} here, more where two "
                         f"{self.object_name} are nearer ({BORDER_W0:g} if nothing were between; sigma "
                         f"{BORDER_SIGMA:g} pixels)")
        row += [Panel(array, name, "weight", {**CIVIDIS, "vmax": max(array.max(), 1e-6)})
                for name, array in weights.items()]
        figure, _ = grid([row], f"Weights of the loss; this run: --weights {run.geometry['weights']}. "
                         f"{'; '.join(words).capitalize()}.", 3.2)
        return figure

    # -------------------------------------------------------------------------------------- what came out

    def row(self, one: Judged, learnt: dict, title: str = "", part: Window | None = None) -> list[Panel]:
        """A sample from left to right: image, truth, what the network says, mistakes; without a label its objects."""
        line = [Panel(stretched(one.sample.image), title or one.sample.name[:20], GREY)]
        if one.sample.label is None:
            line += self.maps(one, learnt)
            if self.object_name:
                line.append(Panel(coloured(one.objects), f"{one.objects.max()} {self.object_name}"))
        else:
            line += [Panel(self.label(self.task.label(one.sample.label)), f"truth: {self.label_means}"),
                     *self.maps(one, learnt), self.mistakes(one, learnt)]
        line = [replace(panel, pixel=side_of(one.sample)) for panel in line]
        return line if part is None else cut(line, part)

    def layers(self, one: Judged, learnt: dict) -> list[Panel]:
        """All pictures of a sample but its objects, for the viewer: image, what the network says, doubt, truth."""
        known = one.sample.label is not None
        line = self.row(one, learnt)
        maps = self.maps(one, learnt)
        return [replace(line[0], title="image"), *maps,
                Panel(entropy(one.probability), "doubt: entropy of the probability, white = knows nothing"),
                *([line[1], replace(line[-1], title=f"mistakes: {line[-1].title}")] if known else [])]

    def palettes(self, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Colours of the objects of each label map (H, W): float (count + 1, 3) each."""
        return [random_colours(objects) for objects in samples]

    def holdout(self, judged: Sequence[Judged], learnt: dict, most: int = 5) -> Figure:
        """Some samples and what was predicted of them; with a label what is wrong."""
        known = judged[0].sample.label is not None
        rows = [self.row(one, learnt, part=busiest(self.wrong(one, learnt) if known else one.objects > 0, self.side))
                for one in spread(judged, most)]
        figure, _ = grid(rows, f"Held out: these judged and never trained. {self.mistakes_mean}" if known else
                         "Predicted.", 3.2)
        if known:
            self.mark(figure)
        return figure

    def typical(self, run: Run, most: int = 3) -> list[Judged]:
        """Of each group the held-out samples whose scores are in the middle, `most` in all."""
        groups: dict[str, list[Judged]] = {}
        for one in sorted(run.judged, key=lambda one: self.score(run, one)[0]):
            groups.setdefault(one.sample.group, []).append(one)
        each = max(1, most // max(1, len(groups)))
        return [one for members in groups.values() for one in members[max(0, (len(members) - each) // 2):][:each]]

    def choices(self, run: Run) -> Figure:
        """What was chosen after training, on samples that trained: thresholds."""
        return message(self.choice)

    def objects(self, run: Run) -> Figure:
        """How objects follow from the probability, in a part of held-out samples."""
        rows = []
        for one in self.typical(run):
            line = [*self.row(replace(one, sample=replace(one.sample, label=None)), run.learnt, self._name(run, one)),
                    Panel(self.label(self.task.label(one.sample.label)), f"truth: {self.label_means}")]
            rows.append(cut(line, busiest(one.objects > 0, CLOSE)))
        if not rows:
            return message(NOT_JUDGED)
        counts = " Counts are of whole images, of which parts are shown." * bool(self.object_name)
        return grid(rows, f"From what the network says to the result: {self.follows}{counts}", 2.6)[0]

    def errors(self, run: Run) -> Figure:
        """Held-out samples whose scores are in the middle, and what is wrong with them."""
        if not run.judged:
            return message(NOT_JUDGED)
        rows = [self.row(one, run.learnt, f"{self._name(run, one)}\n{self.score(run, one)[1]}",
                         busiest(self.wrong(one, run.learnt), self.side)) for one in self.typical(run)]
        figure, _ = grid(rows, f"Held-out {run.layout.noun}s whose scores are in the middle. {self.mistakes_mean}", 2.8)
        self.mark(figure)
        return figure

    def _name(self, run: Run, one: Judged) -> str:
        name = one.sample.name
        return f"{name if len(name) < 15 else name[:10] + '...'}{', ' * bool(one.sample.group)}{one.sample.group}"

    def worst(self, run: Run, most: int = 4) -> Figure:
        """The parts of held-out samples with the lowest scores, worst first."""
        parts = sorted(((score, words, place, window) for place, one in enumerate(run.judged)
                        for score, words, window in self.windows(run, one)), key=lambda part: part[0])[:most]
        if not parts:
            return message(NOT_JUDGED)
        columns = [self.row(run.judged[place], run.learnt, f"{self._name(run, run.judged[place])}\n{words}", window)
                   for _, words, place, window in parts]
        names = [panel.title for panel in columns[0]]
        caption = (f"The parts of held-out {run.layout.noun}s with the lowest scores: where to look first. Sometimes "
                   f"the label itself is in doubt. {self.mistakes_mean}")
        figure, _ = grid([[line[0], *untitled(line[1:])] for line in columns], caption, 2.6,
                         ("image", *names[1:-1], "mistakes"))
        self.mark(figure)
        return figure

    def instances(self, run: Run) -> Figure:
        """Held-out samples and their objects, each in a colour of its own, as they are in truth and as predicted."""
        if not self.object_name:
            return message(NO_INSTANCES)
        rows = []
        for one in self.typical(run, max(2, len(set(run.layout.groups)))):
            truth, part = self.truth(one.sample.label), busiest(self.wrong(one, run.learnt), self.side)
            colours = random_colours(truth)
            side = side_of(one.sample)
            rows.append([Panel(stretched(one.sample.image)[part], self._name(run, one), GREY, pixel=side), *(
                Panel(apart(matched_colours(objects, truth, colours), objects)[part],
                      f"{words}: {objects.max()} {self.object_name}", pixel=side)
                for objects, words in ((truth, "truth"), (one.objects, "predicted")))])
        if not rows:
            return message(NOT_JUDGED)
        caption = (f"{self.object_name.capitalize()} in random colours: each predicted one has the colour of the true "
                   "one that it covers most of, light grey where it covers none. Where one colour fills two true ones, "
                   "they merged; where a black line runs through one colour, it was split.")
        figure, _ = grid(rows, caption, 3.2)
        return figure

    def prediction(self, run: Run, most: int = 5) -> Figure:
        """What nobody labelled, from the first to the last: image, what the network says, the objects."""
        count = len(run.to_predict)
        shown = run.predicted(spread(range(count), most)) if count else []
        if not shown:
            return message(NOT_PREDICTED)
        rows = [self.row(one, run.learnt, part=busiest(one.objects > 0, self.side)) for one in shown]
        names = ["image", *(panel.title for panel in self.maps(shown[0], run.learnt)), self.object_name]
        caption = (f"Predicted, {count} {run.layout.noun}s in all. Large ones are predicted in tiles: no seam "
                   "should be visible.")
        figure, _ = grid([[line[0], *(panel if panel.title not in names else replace(panel, title="")
                                      for panel in line[1:])] for line in rows], caption, 2.4, [*filter(None, names)])
        return figure


def side_of(sample: Sample) -> float | None:
    """Side of a sample's pixels, µm, where it is known and they are square, as the bars of scale need them."""
    voxel = sample.voxel
    return voxel.x if voxel and math.isclose(voxel.x, voxel.y, rel_tol=0.01) else None


def cut(row: Sequence[Panel], part: Window) -> list[Panel]:
    """A part of each panel."""
    return [replace(panel, array=panel.array[part]) for panel in row]


def untitled(row: Sequence[Panel]) -> list[Panel]:
    """The same panels without titles."""
    return [replace(panel, title="") for panel in row]


def plain(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) as (H, W) where all its channels are alike."""
    return image[..., 0] if image.ndim == 3 and (image == image[..., :1]).all() else image


def apart(colours: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) with a black line where two objects of a label map (H, W) touch."""
    return np.where(((objects == 0) | separated(objects))[..., np.newaxis], colours, 0)


def spread(things: Sequence, most: int) -> list:
    """At most so many things, evenly from the first to the last."""
    return [things[place] for place in np.unique(np.linspace(0, len(things) - 1, most).astype(int))] if things else []
