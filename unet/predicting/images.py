"""Predict image after image: read, predict, segment, link, write; few at a time are in memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from unet.inputs.samples import Sample, Samples
from unet.lock import locked
from unet.predicting.ahead import ahead
from unet.predicting.bands import NUMBERING, Bands, height_of, redraw_by_bands
from unet.predicting.kept import Kept, Room
from unet.segment.linking import Linker
from unet.segment.table import table_writer
from unet.tasks.task import Judged, Outputs, Task, is_large
from utils import UserError


@dataclass(frozen=True)
class Extras:
    """What a prediction does on request, beside its outputs.

    link : one number for a cell through the stack
    table : CSV file for a row per object
    kept : where what is finished is kept until all is
    title : what the progress bar says
    spread : how far flips disagree, too; of images worked on by bands, or kept before, it is not known
    """

    link: bool = False
    table: Path | None = None
    kept: Kept | None = None
    title: str = "predicting"
    spread: bool = False


Item = tuple[int, Sample, np.ndarray | Bands, np.ndarray | None]  # what `_predicted` gives
NONE = Extras()
READING, LARGE = threading.Lock(), threading.Lock()  # one thread reads at a time, and one has a very large image
SAMPLED = 16_000_000  # pixels of a very large image from which its mean and deviation are taken


class Predicts(Protocol):
    """A trained network as a function of an image (H, W[, C]); `Predictor` is one."""

    at_once: int  # how many images it predicts best at the same time, in threads
    by_rows: bool  # whether it predicts some rows of an image for themselves

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Probability, float32 (H, W[, classes])."""

    def with_spread(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Probability, and how far flips disagree, float32 (H, W); None where there is one."""

    def rows(self, image: np.ndarray, levels: dict, first: int, last: int) -> np.ndarray:
        """Probability of rows `first` to `last` - 1."""

    def block(self, image: np.ndarray, levels: dict, corner: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """Probability of `shape` (height, width) at `corner` (y, x) of an image, perhaps cut out of a larger one."""

    def row_step(self, shape: tuple[int, int]) -> int:
        """How many rows of an image of `shape` it predicts best at once."""


def predictions(predictor: Predicts, task: Task, samples: Samples, learnt: dict, outputs: Outputs,
                extras: Extras = NONE) -> Iterator[Judged]:
    """Yield each sample with its prediction, which is written to `outputs`; they are in their place after the last.

    An image of `LARGE` pixels and more is worked on by bands of rows, where task and predictor can; its probability
    and objects are `Bands` then, of files that last until the next sample.
    Raises UserError where another process writes the outputs, or what was kept is of something else.
    """
    kept, link = extras.kept, Linker() if extras.link else None
    files = [path for path in (outputs.out, outputs.objects, outputs.redrawn, extras.table) if path]
    with locked(files):
        if kept:
            kept.open()
        try:
            with ExitStack() as stack:
                write = stack.enter_context(task.writer(outputs, samples))
                room = kept or stack.enter_context(Room(outputs.out))
                stack.enter_context(samples.unchanged(kept.remove if kept else lambda: None))
                size = samples.voxel and (samples.voxel.y, samples.voxel.x)
                rows = extras.table and stack.enter_context(table_writer(extras.table, size, "um"))
                # the next images are read and predicted while this one is segmented and written
                predicted = stack.enter_context(closing(ahead((
                    partial(_predicted, predictor, task, samples, number, room, extras.spread)
                    for number in range(len(samples))), predictor.at_once, predictor.at_once)))
                placed = _with_neighbours(predicted) if task.redraws(learnt) else ((one, []) for one in predicted)
                for (number, sample, probability, spread), beside in tqdm(placed, extras.title, len(samples),
                                                                          unit="image", disable=None):
                    redrawn, objects = segmented(task, probability, learnt, beside)
                    one = Judged(sample, probability, redrawn, _linked(objects, link, sample.name), spread)
                    write(one)
                    if rows:
                        rows(number, sample.name, np.asarray(one.objects), np.asarray(sample.image))
                    yield one
                    if isinstance(probability, Bands):
                        room.clear(number)
        except KeyboardInterrupt:
            if not kept:
                raise
            raise KeyboardInterrupt(f"stopped; {kept.count()} of {len(samples)} images are kept in {kept.folder}: the "
                                    "same command with --resume goes on from there, and until then no output is "
                                    "replaced") from None
        except Exception:
            if kept and kept.count():
                tqdm.write(f"note: {kept.count()} of {len(samples)} images are kept in {kept.folder}: once that is put "
                           "right, the same command with --resume goes on from there")
            elif kept:
                kept.remove()
            raise
        if kept:
            kept.remove()


def _with_neighbours(predicted: Iterable[Item]) -> Iterator[tuple[Item, list[np.ndarray]]]:
    """Yield what `_predicted` gave, each with the probabilities before and after it; of very large images without."""
    before = here = None
    for after in chain(predicted, [None]):
        if here:
            yield here, [one[2] for one in (before, after) if one and isinstance(one[2], np.ndarray)]
        before, here = here, after


def _predicted(predictor: Predicts, task: Task, samples: Samples, number: int, room: Room, wants_spread: bool
               ) -> Item:
    """Number, sample, its probability, and how far flips disagree, where that is wanted and known."""
    with READING:
        sample = samples[number]
    image = sample.image
    if is_large(image.shape) and predictor.by_rows:
        with LARGE:
            return number, sample, _by_bands(predictor, task, image, room.folder_of(number, image)), None
    with READING:
        image = np.asarray(image)
    probability, spread = room.get(number, image), None
    if probability is None:
        probability, spread = predictor.with_spread(image) if wants_spread else (predictor(image), None)
        room.put(number, image, probability)
    return number, sample, probability, spread


def _by_bands(predictor: Predicts, task: Task, image: np.ndarray, folder: Path) -> Bands:
    """Predict what is not kept in `folder` yet."""
    levels, step = levels_of(task, image), predictor.row_step(image.shape[:2])
    channels = (task.classes,) if task.classes > 1 else ()
    bands = Bands(folder / f"probability-{step}", (*image.shape[:2], *channels), np.float32, step)
    for first, last in tqdm(list(bands.spans()), "bands", unit="band", leave=False, disable=None):
        if bands.get(first) is None:
            bands.put(first, predictor.rows(image, levels, first, last))
    return bands


def levels_of(task: Task, image: np.ndarray) -> dict:
    """What `normalise` has to know of an image; of one that is worked on by bands, from every k-th pixel."""
    if not (is_large(image.shape) and task.by_rows):
        return task.levels(np.asarray(image))
    every = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / SAMPLED))
    return task.levels(image[::every, ::every])


def segmented(task: Task, probability: np.ndarray | Bands, learnt: dict, beside: Sequence[np.ndarray] = ()
              ) -> tuple[np.ndarray | Bands, ...]:
    """Redrawn probability and objects; `beside` are the probabilities before and after, which `Bands` do without."""
    redraw, inside, segment = (partial(call, learnt=learnt) for call in (task.redraw, task.inside, task.segment))
    if not isinstance(probability, Bands):
        redrawn = redraw(probability, beside=beside)
        return redrawn, segment(redrawn)
    folder, height = probability.folder.parent, height_of(probability.shape[1])
    redrawn = (redraw_by_bands(probability, redraw, folder / "redrawn", height) if task.redraws(learnt)
               else probability)
    return redrawn, NUMBERING[task.objects_are](redrawn, inside, segment, folder / "objects", height)


def _linked(objects: np.ndarray | Bands, link: Linker | None, name: str) -> np.ndarray | Bands:
    try:
        return link(np.asarray(objects)) if link else objects
    except ValueError as error:
        raise UserError(f"--link: {name} is not of the size of the image before it ({error}); leave out --link, it is "
                        "for the slices of one stack") from None
