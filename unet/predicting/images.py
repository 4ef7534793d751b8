"""Prediction of image after image: read, predict, segment, link, write; only a few images are in memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from unet.inputs.samples import Sample, Samples
from unet.predicting.bands import NUMBERING, Bands, band_height, map_bands
from unet.predicting.checkpoint import Checkpoint, Scratch
from unet.predicting.extras import NO_EXTRAS, Extras
from unet.predicting.prefetch import prefetch
from unet.segment.linking import Linker
from unet.segment.table import table_writer
from unet.system.lock import lock_outputs
from unet.tasks.task import Outputs, Prediction, Task, is_large
from utils import UserError

NetworkOutput = tuple[int, Sample, np.ndarray | Bands, np.ndarray | None]  # number, sample, probability, spread
# one thread at a time reads, and one at a time holds a very large image
READ_LOCK, LARGE_LOCK = threading.Lock(), threading.Lock()
STATISTICS_PIXELS = 16_000_000  # of a very large image, from which its mean and deviation are computed


class Predicts(Protocol):
    """A trained network as a function of an image (H, W[, C]); `Predictor` is one."""

    best_threads: int  # the best number of images to predict at the same time, in threads
    by_rows: bool  # whether it can predict rows of an image on their own

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the probability, float32 (H, W[, classes])."""

    def with_spread(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the probability, and how far flips disagree, float32 (H, W), None if there is only one."""

    def rows(self, image: np.ndarray, levels: dict, first: int, last: int) -> np.ndarray:
        """Return the probability of rows `first` to `last` - 1."""

    def block(self, image: np.ndarray, levels: dict, corner: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """Return the probability of a part of `shape` (height, width) at `corner` (y, x) of an image or a crop."""

    def row_step(self, shape: tuple[int, int]) -> int:
        """Return the best number of rows of an image of `shape` to predict at once."""


def predictions(predictor: Predicts, task: Task, samples: Samples, learnt: dict, outputs: Outputs,
                extras: Extras = NO_EXTRAS) -> Iterator[Prediction]:
    """Yield each sample with its prediction, which is written to `outputs`; they are in place after the last one.

    Very large images, see `is_large`, are processed by bands of rows if task and predictor can do so. Their probability
    and objects are `Bands`, whose files exist until the next sample.
    Raises UserError if another process writes the outputs, or if the kept files belong to another prediction.
    """
    checkpoint, link = extras.checkpoint, Linker() if extras.link else None
    files = [path for path in (outputs.out, outputs.objects, outputs.redrawn, extras.table) if path]
    with lock_outputs(files):
        if checkpoint:
            checkpoint.open()
        try:
            with ExitStack() as stack:
                write = stack.enter_context(task.writer(outputs, samples))
                store = checkpoint or stack.enter_context(Scratch(outputs.out))
                stack.enter_context(samples.require_unchanged(checkpoint.remove if checkpoint else lambda: None))
                size = samples.voxel and (samples.voxel.y, samples.voxel.x)
                write_rows = extras.table and stack.enter_context(table_writer(extras.table, size, "um"))
                # the next images are read and predicted while this one is segmented and written
                images = stack.enter_context(closing(prefetch((
                    partial(_predict, predictor, task, samples, number, store, extras.spread)
                    for number in range(len(samples))), predictor.best_threads, predictor.best_threads)))
                with_neighbours = _with_neighbours(images) if task.redraws(learnt) else ((one, []) for one in images)
                for (number, sample, probability, spread), neighbours in tqdm(
                        with_neighbours, extras.title, len(samples), unit="image", disable=None):
                    redrawn, objects = redraw_and_segment(task, probability, learnt, neighbours)
                    result = Prediction(sample, probability, redrawn, _link(objects, link, sample.name), spread)
                    write(result)
                    if write_rows:
                        write_rows(number, sample.name, result.objects, sample.image)
                    yield result
                    if isinstance(probability, Bands):
                        store.clear(number)
        except KeyboardInterrupt:
            if not checkpoint:
                raise
            raise KeyboardInterrupt(f"stopped; {checkpoint.describe(len(samples))}: the same command with --resume "
                                    "goes on from there, and until then no output is replaced") from None
        except Exception:
            if checkpoint and checkpoint.count():
                tqdm.write(f"note: {checkpoint.describe(len(samples))}: once the error is fixed, the same command with "
                           "--resume goes on from there")
            elif checkpoint:
                checkpoint.remove()
            raise
        if checkpoint:
            checkpoint.remove()


def _with_neighbours(images: Iterable[NetworkOutput]) -> Iterator[tuple[NetworkOutput, list[np.ndarray]]]:
    """Yield each prediction with the probabilities of the images before and after it, without very large ones."""
    before = current = None
    for after in chain(images, [None]):
        if current:
            yield current, [one[2] for one in (before, after) if one and isinstance(one[2], np.ndarray)]
        before, current = current, after


def _predict(predictor: Predicts, task: Task, samples: Samples, number: int, store: Checkpoint | Scratch,
             wants_spread: bool) -> NetworkOutput:
    """Read and predict an image, or load its kept probability; the spread is None if it is not wanted or not known."""
    with READ_LOCK:
        sample = samples[number]
    image = sample.image
    if is_large(image.shape) and predictor.by_rows:
        with LARGE_LOCK:
            return number, sample, _predict_by_bands(predictor, task, image, store.folder_of(number, image)), None
    with READ_LOCK:
        image = np.asarray(image)
    probability, spread = store.get(number, image), None
    if probability is None:
        probability, spread = predictor.with_spread(image) if wants_spread else (predictor(image), None)
        store.put(number, image, probability)
    return number, sample, probability, spread


def _predict_by_bands(predictor: Predicts, task: Task, image: np.ndarray, folder: Path) -> Bands:
    """Predict the bands that are not kept in `folder` yet."""
    levels, step = levels_of(task, image), predictor.row_step(image.shape[:2])
    channels = (task.classes,) if task.classes > 1 else ()
    bands = Bands(folder / f"probability-{step}", (*image.shape[:2], *channels), np.float32, step)
    for first, last in tqdm(list(bands.spans()), "bands", unit="band", leave=False, disable=None):
        if bands.get(first) is None:
            bands.put(first, predictor.rows(image, levels, first, last))
    return bands


def levels_of(task: Task, image: np.ndarray) -> dict:
    """Compute what `normalise` needs to know about an image; from every k-th pixel if it is processed by bands."""
    if not (is_large(image.shape) and task.by_rows):
        return task.levels(np.asarray(image))
    step = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / STATISTICS_PIXELS))
    return task.levels(image[::step, ::step])


def redraw_and_segment(task: Task, probability: np.ndarray | Bands, learnt: dict, neighbours: Sequence[np.ndarray] = ()
                       ) -> tuple[np.ndarray | Bands, ...]:
    """Return redrawn probability and objects; `neighbours` are the probabilities before and after (not for `Bands`)."""
    redraw, inside, segment = (partial(call, learnt=learnt) for call in (task.redraw, task.inside, task.segment))
    if not isinstance(probability, Bands):
        redrawn = redraw(probability, neighbours=neighbours)
        return redrawn, segment(redrawn)
    folder, height = probability.folder.parent, band_height(probability.shape[1])
    redrawn = map_bands(probability, redraw, folder / "redrawn", height) if task.redraws(learnt) else probability
    return redrawn, NUMBERING[task.objects_are](redrawn, inside, segment, folder / "objects", height)


def _link(objects: np.ndarray | Bands, link: Linker | None, name: str) -> np.ndarray | Bands:
    try:
        return link(np.asarray(objects)) if link else objects
    except ValueError as error:
        raise UserError(f"--link: {name} does not have the size of the image before it ({error}); leave out --link, "
                        "which is for the slices of one stack") from None
