"""Prediction of a Zarr in several processes or on several machines, with Dask: one Dask task per chunk and page."""

from __future__ import annotations

import itertools
import logging
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from unet.inputs.lazy import ROWS, Gray
from unet.inputs.ome_zarr import CHUNK, Image, Stack
from unet.inputs.samples import Sample, Samples
from unet.predicting.bands import Bands
from unet.predicting.checkpoint import digest_of
from unet.predicting.extras import Extras
from unet.predicting.images import Predicts, levels_of, redraw_and_segment
from unet.segment.judge import neighbouring
from unet.segment.linking import Linker
from unet.segment.table import table_writer
from unet.system.lock import lock_outputs
from unet.system.workers import hold_signals
from unet.tasks.stacks import SliceTask
from unet.tasks.task import Outputs, Prediction, channels_first, checked_objects, is_large
from utils import UserError, atomic_folder, atomic_path, read_json, write_json

if TYPE_CHECKING:
    from distributed import Client

AHEAD = 2  # Dask tasks per worker, running or waiting there; those that are not submitted yet take no memory
SCHEDULER_WAIT = 30  # seconds to wait for the scheduler's answer
OUT, OBJECTS, REDRAWN = "out", "objects", "redrawn"  # images in the unfinished folder, until all are complete


@dataclass(frozen=True)
class Context:
    """What every worker needs to know.

    network : a pickled function that opens the network; each process calls it once
    margin : pixels around a chunk that the network looks at
    folder : where everything unfinished is kept; every worker can write there
    """

    volume: Path
    task: SliceTask
    learnt: dict
    network: bytes
    margin: int
    folder: Path

    @property
    def images(self) -> Gray:
        """The pages, opened once per process."""
        return _images(self.task, self.volume)

    def has_mark(self, name: str) -> bool:
        """Tell whether a chunk or page is finished."""
        return (self.folder / "marks" / name).is_file()

    def mark(self, name: str, count: int = 0) -> None:
        """Mark a chunk or page as finished, a page with its number of objects."""
        with atomic_path(self.folder / "marks" / name) as path:
            path.write_text(str(count))


# ------------------------------------------------------------------------------------------------ on the workers


@lru_cache(maxsize=1)
def _images(task: SliceTask, volume: Path) -> Gray:
    return task.inputs(volume).images


@lru_cache(maxsize=1)
def _network(pickled: bytes) -> Predicts:
    return pickle.loads(pickled)()


def inspect_page(context: Context, number: int) -> dict:
    """Return what `normalise` needs to know about page `number`, and a digest of its pixels."""
    page = context.images[number]
    return {"levels": levels_of(context.task, page), "digest": digest_of(page)}


def predict_chunk(context: Context, number: int, y: int, x: int, levels: dict) -> None:
    """Predict the chunk of page `number` whose upper left pixel is at (y, x), and mark it.

    The chunk is read with its margin, as far as the page goes.
    """
    sizes = [min(CHUNK, side - start) for side, start in zip(context.images.shape[1:], (y, x), strict=True)]
    rows, columns = (slice(max(start - context.margin, 0), min(start + size + context.margin, side))
                     for start, size, side in zip((y, x), sizes, context.images.shape[1:], strict=True))
    block, corner = context.images.block(number, rows, columns), (y - rows.start, x - columns.start)
    probability = _network(context.network).block(block, levels, corner, tuple(sizes))
    array = Image.open(context.folder / OUT).levels[0]
    array[..., number, y:y + sizes[0], x:x + sizes[1]] = channels_first(probability)
    context.mark(f"{number}-{y}-{x}")


def segment_page(context: Context, number: int) -> None:
    """Draw walls and number objects on page `number`, all of whose chunks are predicted; write its smaller levels."""
    out = Image.open(context.folder / OUT)
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        probability = _read_probability(out.levels[0], number, context.task, Path(folder))
        redrawn, objects = redraw_and_segment(context.task, probability, context.learnt,
                                              _neighbouring_pages(out.levels[0], number, context))
        out.put_page(number, channels_first(probability), begin=1)
        result = Prediction(Sample(context.images.names[number], np.empty(0)), probability, redrawn, objects)
        if (context.folder / OBJECTS).exists():
            Image.open(context.folder / OBJECTS).put_page(number, checked_objects(result, context.folder / OBJECTS))
        if (context.folder / REDRAWN).exists():
            Image.open(context.folder / REDRAWN).put_page(number, channels_first(redrawn))
        context.mark(str(number), int(objects.max()))


def _neighbouring_pages(array: np.ndarray, number: int, context: Context) -> list[np.ndarray]:
    """Read the probabilities of the pages before and after one; as in `predictions`, none if pages are very large."""
    if is_large(array.shape[-2:]) or not context.task.redraws(context.learnt):
        return []
    return [array[neighbour] for neighbour in neighbouring(range(array.shape[-3]), number)]


def _read_probability(array: np.ndarray, number: int, task: SliceTask, folder: Path) -> np.ndarray | Bands:
    """Read page `number` as a prediction returns it: float32 (H, W[, classes]), as `Bands` if it is very large."""
    size = array.shape[-2:]

    def read_rows(first: int, last: int) -> np.ndarray:
        rows = array[..., number, first:last, :]
        return np.moveaxis(rows, 0, -1) if rows.ndim == 3 else rows

    if not (is_large(size) and task.by_rows):
        return read_rows(0, size[0])
    bands = Bands(folder / "probability", (*size, *array.shape[:-3]), np.float32, ROWS)
    for first, last in bands.spans():
        bands.put(first, read_rows(first, last))
    return bands


# ---------------------------------------------------------------------------------------------- on the client


def predict_by_chunks(client: Client, context: Context, outputs: Outputs, samples: Samples, extras: Extras) -> int:
    """Predict all chunks, segment all pages, then move the outputs, Zarrs, into place; return the number of objects.

    Numbers through the stack and the table follow here, slice by slice. What is marked is not computed again; if a
    worker dies, another one takes over its Dask task. Raises UserError if another process writes the outputs, if the
    kept files belong to another prediction, or if workers keep dying.
    """
    # the probability comes last: the others are computed from it
    files = {OBJECTS: outputs.objects, REDRAWN: outputs.redrawn, OUT: outputs.out}
    files, stacks = {name: path for name, path in files.items() if path}, context.task.stacks(outputs, samples)
    checkpoint = extras.checkpoint
    with lock_outputs([*files.values(), *([extras.table] if extras.table else [])]):
        checkpoint.open()
        try:
            with samples.require_unchanged(checkpoint.remove):
                _compute(client, context, {name: stacks[path] for name, path in files.items()}, len(samples))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped; finished chunks are kept in {checkpoint.folder}: the same command with "
                                    "--resume goes on from there, and until then no output is replaced") from None
        count = sum(int((context.folder / "marks" / str(number)).read_text()) for number in range(len(samples)))
        if extras.link or extras.table:
            greatest = link_and_measure(context, samples, extras)
            count = greatest if extras.link else count
        for name, path in files.items():
            with atomic_folder(path) as folder:
                folder.rmdir()
                shutil.move(context.folder / name, folder)
        checkpoint.remove()
    return count


def link_and_measure(context: Context, samples: Samples, extras: Extras) -> int:
    """Number cells through the stack, and write the table of objects, as `extras` say; return the greatest number.

    Slices that are linked already keep their numbers, so this may be stopped and started again.
    """
    link, image, greatest = Linker() if extras.link else None, Image.open(context.folder / OBJECTS), 0
    size = samples.voxel and (samples.voxel.y, samples.voxel.x)
    with table_writer(extras.table, size, "um") if extras.table else nullcontext() as write_rows:
        for number, name in enumerate(tqdm(samples.names, "measuring", disable=None)):
            objects = image.levels[0][number]
            if link:
                objects = link(objects)
                result = Prediction(Sample(name, np.empty(0)), objects, objects, objects)
                image.put_page(number, checked_objects(result, context.folder / OBJECTS))
            if write_rows:
                write_rows(number, name, objects, context.images[number])
            greatest = max(greatest, int(objects.max()))
    return greatest


def _compute(client: Client, context: Context, stacks: dict[str, Stack], count: int) -> None:
    """Compute what is not marked: all chunks, then all pages."""
    _create_images(context, stacks)
    pages = _inspect_pages(client, context, count)
    height, width = context.images.shape[1:]
    chunks = [(number, y, x, page["levels"]) for number, page in enumerate(pages)
              for y in range(0, height, CHUNK) for x in range(0, width, CHUNK)
              if not context.has_mark(f"{number}-{y}-{x}")]
    _run_tasks(client, predict_chunk, context, chunks, "predicting")
    page_tasks = [(number,) for number in range(count) if not context.has_mark(str(number))]
    _run_tasks(client, segment_page, context, page_tasks, "segmenting")


def _create_images(context: Context, stacks: dict[str, Stack]) -> None:
    """Create the images that are missing, and remove their marks, so that they are computed again."""
    for name, stack in stacks.items():
        if not (context.folder / name).exists():
            for mark in (context.folder / "marks").glob("[0-9]*"):
                if name == OUT or mark.name.isdecimal():
                    mark.unlink()
            with atomic_folder(context.folder / name) as folder:
                Image.create(folder, stack)


def _inspect_pages(client: Client, context: Context, count: int) -> list[dict]:
    """Inspect all pages; raise UserError if one has changed since its first chunks were predicted."""
    path, pages = context.folder / "pages.json", [{} for _ in range(count)]
    for (number,), page in _run_tasks(client, inspect_page, context, [(number,) for number in range(count)], "reading"):
        pages[number] = page
    if path.is_file() and read_json(path, "leave out --resume to start again")["pages"] != pages:
        raise UserError(f"the pixels of {context.volume} have changed since {context.folder} was left; leave out "
                        "--resume to start again")
    write_json(path, {"pages": pages})
    return pages


def _run_tasks(client: Client, call: Callable, context: Context, tasks: Sequence[tuple], title: str
               ) -> list[tuple[tuple, object]]:
    """Let workers `call` with the context and each task; return tasks with results, in the order of completion."""
    from distributed import KilledWorker, as_completed

    waiting, results = iter(tasks), []
    running, pending = as_completed(), {}

    def submit() -> None:
        """Submit as many tasks as the workers that there are now should have."""
        most = AHEAD * max(1, sum(client.nthreads().values()))
        for task in itertools.islice(waiting, max(0, most - len(pending))):
            future = client.submit(call, context, *task, pure=False)
            pending[future] = task
            running.add(future)

    try:
        submit()
        for future in tqdm(running, title, len(tasks), disable=None):
            results.append((pending.pop(future), future.result()))
            submit()
    except KilledWorker as error:
        raise UserError(f"several workers died one after the other at the same task ({error}); most likely memory ran "
                        "out: use fewer --workers, or machines with more memory, and add --resume") from None
    finally:
        client.cancel(list(pending))  # after an error nobody needs them
    return results


@contextmanager
def dask_client(address: str, workers: int) -> Iterator[Client]:
    """Connect to the scheduler at `address`, or if that is 'local', to a new one with so many processes here.

    Raises UserError if Dask is not installed or no scheduler answers.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise UserError("--dask needs the package distributed, which is not installed: pip install -r "
                        "requirements-zarr.txt") from None
    if address == "local":
        with hold_signals():  # workers inherit the mask: Ctrl-C is handled here, never there
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=None, dashboard_address=None,
                                   silence_logs=logging.CRITICAL)
        with cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(address, timeout=SCHEDULER_WAIT)
    except (OSError, ValueError) as error:
        raise UserError(f"--dask {address}: no scheduler answers there ({str(error)[:90]}); start one with 'dask "
                        "scheduler', and name the address that it prints, like tcp://10.0.0.5:8786") from None
    with client:
        yield client
