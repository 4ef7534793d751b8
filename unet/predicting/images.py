"""Predict image after image: read, predict, segment, link, write; one at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from unet.inputs.layouts import Samples
from unet.predicting.ahead import ahead
from unet.predicting.kept import Kept
from unet.predicting.lock import locked
from unet.segment.linking import Linker
from unet.segment.table import table_writer
from unet.tasks.task import Judged, Outputs, Task
from utils import UserError


@dataclass(frozen=True)
class Extras:
    """What a prediction does on request, beside its outputs.

    link : one number for a cell through the stack
    table : CSV file for a row per object
    pixel_size : (y, x) of one pixel in `unit`; None where it is not known
    kept : where what is finished is kept until all is
    """

    link: bool = False
    table: Path | None = None
    pixel_size: tuple[float, float] | None = None
    unit: str = "px"
    kept: Kept | None = None


NONE = Extras()


def predictions(predictor: Callable[[np.ndarray], np.ndarray], task: Task, samples: Samples, learnt: dict,
                outputs: Outputs, title: str = "predicting", extras: Extras = NONE) -> Iterator[Judged]:
    """Yield each sample with its prediction, which is written to `outputs`; they are in their place after the last.

    Raises UserError where another process writes them, or what was kept is of something else.
    """
    kept, link = extras.kept, Linker() if extras.link else None
    files = [path for path in (outputs.out, outputs.objects, outputs.redrawn, extras.table) if path]
    with locked(files):
        if kept:
            kept.open()
        try:
            with ExitStack() as stack:
                write = stack.enter_context(task.writer(outputs, samples))
                rows = extras.table and stack.enter_context(
                    table_writer(extras.table, extras.pixel_size, extras.unit))
                # the next image is read and predicted while this one is segmented and written
                predicted = stack.enter_context(closing(ahead(
                    (number, sample, _probability(predictor, sample.image, number, kept))
                    for number, sample in enumerate(samples))))
                for number, sample, probability in tqdm(predicted, title, len(samples), unit="image", disable=None):
                    redrawn = task.redraw(probability, learnt)
                    objects = task.segment(redrawn, learnt)
                    one = Judged(sample, probability, redrawn, _linked(objects, link, sample.name))
                    write(one)
                    if rows:
                        rows(number, sample.name, one.objects, sample.image)
                    yield one
        except KeyboardInterrupt:
            if not kept:
                raise
            raise KeyboardInterrupt(f"stopped; {kept.count()} of {len(samples)} images are kept in {kept.folder}: the "
                                    "same command with --resume goes on from there, and until then no output is "
                                    "replaced") from None
        if kept:
            kept.remove()


def _probability(predictor: Callable[[np.ndarray], np.ndarray], image: np.ndarray, number: int, kept: Kept | None
                 ) -> np.ndarray:
    probability = kept.get(number, image) if kept else None
    if probability is None:
        probability = predictor(image)
        if kept:
            kept.put(number, image, probability)
    return probability


def _linked(objects: np.ndarray, link: Linker | None, name: str) -> np.ndarray:
    try:
        return link(objects) if link else objects
    except ValueError as error:
        raise UserError(f"--link: {name} is not of the size of the image before it ({error}); leave out --link, it is "
                        "for the slices of one stack") from None
