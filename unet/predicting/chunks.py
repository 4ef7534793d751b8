"""Predict a Zarr in several processes or on several machines: a task for each chunk of the output, with Dask."""

from __future__ import annotations

import itertools
import logging
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
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
from unet.lock import locked
from unet.predicting.bands import Bands
from unet.predicting.images import Extras, Predicts, levels_of, segmented
from unet.predicting.kept import digest_of
from unet.segment.judge import neighbours
from unet.segment.linking import Linker
from unet.segment.table import table_writer
from unet.tasks.stacks import SliceTask
from unet.tasks.task import Judged, Outputs, channels_first, is_large, numbered
from unet.workers import signals_held
from utils import UserError, atomic_folder, atomic_path, read_json, write_json

if TYPE_CHECKING:
    from distributed import Client

AHEAD = 2  # tasks for each worker that wait at it or run: what is planned takes no memory
PATIENCE = 30  # seconds in which a scheduler answers
OUT, OBJECTS, REDRAWN = "out", "objects", "redrawn"  # images in the room, until all are whole


@dataclass(frozen=True)
class Job:
    """What every worker has to know.

    network : pickled, a function that opens it; each process calls it once
    margin : pixels around a chunk that the network looks at
    room : folder of all that is not finished yet, which every worker can write
    """

    volume: Path
    task: SliceTask
    learnt: dict
    network: bytes
    margin: int
    room: Path

    @property
    def images(self) -> Gray:
        """The pages, opened once in a process."""
        return _images(self.task, self.volume)

    def marked(self, name: str) -> bool:
        """Whether something is finished."""
        return (self.room / "marks" / name).is_file()

    def mark(self, name: str, count: int = 0) -> None:
        """Keep that something is finished, and a number."""
        with atomic_path(self.room / "marks" / name) as path:
            path.write_text(str(count))


# ------------------------------------------------------------------------------------------------ what workers do


@lru_cache(maxsize=1)
def _images(task: SliceTask, volume: Path) -> Gray:
    return task.inputs(volume).images


@lru_cache(maxsize=1)
def _network(pickled: bytes) -> Predicts:
    return pickle.loads(pickled)()


def look_at(job: Job, number: int) -> dict:
    """What `normalise` has to know of page `number`, and a digest of its pixels."""
    page = job.images[number]
    return {"levels": levels_of(job.task, page), "digest": digest_of(page)}


def predict_chunk(job: Job, number: int, y: int, x: int, levels: dict) -> None:
    """Predict the chunk of page `number` whose upper left pixel is at (y, x), and mark it.

    Beside the chunk its margin is read, as far as the page goes.
    """
    sizes = [min(CHUNK, side - start) for side, start in zip(job.images.shape[1:], (y, x), strict=True)]
    rows, columns = (slice(max(start - job.margin, 0), min(start + size + job.margin, side))
                     for start, size, side in zip((y, x), sizes, job.images.shape[1:], strict=True))
    block, corner = job.images.block(number, rows, columns), (y - rows.start, x - columns.start)
    probability = _network(job.network).block(block, levels, corner, tuple(sizes))
    array = Image.open(job.room / OUT).levels[0]
    array[..., number, y:y + sizes[0], x:x + sizes[1]] = channels_first(probability)
    job.mark(f"{number}-{y}-{x}")


def segment_page(job: Job, number: int) -> None:
    """Draw walls and number objects of page `number`, all of whose chunks are predicted; write it smaller, too."""
    out = Image.open(job.room / OUT)
    with tempfile.TemporaryDirectory(dir=job.room) as folder:
        probability = _probability(out.levels[0], number, job.task, Path(folder))
        redrawn, objects = segmented(job.task, probability, job.learnt, _beside(out.levels[0], number, job))
        out.put_page(number, channels_first(probability), begin=1)
        one = Judged(Sample(job.images.names[number], np.empty(0)), probability, redrawn, objects)
        if (job.room / OBJECTS).exists():
            Image.open(job.room / OBJECTS).put_page(number, numbered(one, job.room / OBJECTS))
        if (job.room / REDRAWN).exists():
            Image.open(job.room / REDRAWN).put_page(number, channels_first(redrawn))
        job.mark(str(number), int(objects.max()))


def _beside(array: np.ndarray, number: int, job: Job) -> list[np.ndarray]:
    """The probabilities of the pages before and after one, as `predictions` has them: not of very large ones."""
    if is_large(array.shape[-2:]) or not job.task.redraws(job.learnt):
        return []
    return [array[number] for number in neighbours(range(array.shape[-3]), number)]


def _probability(array: np.ndarray, number: int, task: SliceTask, folder: Path) -> np.ndarray | Bands:
    """Page `number` as predicting gives it: float32 (H, W[, classes]), of a very large one `Bands`."""
    size = array.shape[-2:]
    def rows(first: int, last: int) -> np.ndarray:
        part = array[..., number, first:last, :]
        return np.moveaxis(part, 0, -1) if part.ndim == 3 else part

    if not (is_large(size) and task.by_rows):
        return rows(0, size[0])
    bands = Bands(folder / "probability", (*size, *array.shape[:-3]), np.float32, ROWS)
    for first, last in bands.spans():
        bands.put(first, rows(first, last))
    return bands


# ---------------------------------------------------------------------------------------------- who gives the work


def predict_by_chunks(client: Client, job: Job, outputs: Outputs, samples: Samples, extras: Extras) -> int:
    """Predict all chunks, then segment all pages; the outputs, Zarrs, are in their place after that. Counts objects.

    Numbers through the stack and the table follow here, slice by slice. What is marked is not done again; a task whose
    worker dies is done by another one. Raises UserError where another process writes the outputs, where what was kept
    is of something else, or where workers keep dying.
    """
    files = {OBJECTS: outputs.objects, REDRAWN: outputs.redrawn, OUT: outputs.out}
    files, stacks = {name: path for name, path in files.items() if path}, job.task.stacks(outputs, samples)
    kept = extras.kept
    with locked([*files.values(), *([extras.table] if extras.table else [])]):
        kept.open()
        try:
            with samples.unchanged(kept.remove):
                _work(client, job, {name: stacks[path] for name, path in files.items()}, len(samples))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped; chunks that are finished are kept in {kept.folder}: the same command "
                                    "with --resume goes on from there, and until then no output is replaced") from None
        count = sum(int((job.room / "marks" / str(number)).read_text()) for number in range(len(samples)))
        if extras.link or extras.table:
            greatest = link_and_measure(job, samples, extras)
            count = greatest if extras.link else count
        for name, path in files.items():  # the probability comes last: the others are made of it
            with atomic_folder(path) as folder:
                folder.rmdir()
                shutil.move(job.room / name, folder)
        kept.remove()
    return count


def link_and_measure(job: Job, samples: Samples, extras: Extras) -> int:
    """Give cells one number through the stack, and write the table of objects, as asked for; gives the greatest number.

    Of slices that are linked already the numbers stay what they are, so it may be stopped and begun anew.
    """
    link, image, greatest = Linker() if extras.link else None, Image.open(job.room / OBJECTS), 0
    size = samples.voxel and (samples.voxel.y, samples.voxel.x)
    with table_writer(extras.table, size, "um") if extras.table else nullcontext() as rows:
        for number, name in enumerate(tqdm(samples.names, "measuring", disable=None)):
            objects = image.levels[0][number]
            if link:
                objects = link(objects)
                one = Judged(Sample(name, np.empty(0)), objects, objects, objects)
                image.put_page(number, numbered(one, job.room / OBJECTS))
            if rows:
                rows(number, name, objects, np.asarray(job.images[number]))
            greatest = max(greatest, int(objects.max()))
    return greatest


def _work(client: Client, job: Job, stacks: dict[str, Stack], count: int) -> None:
    """Do what is not marked: all chunks, then all pages."""
    _make_room(job, stacks)
    pages = _looked_at(client, job, count)
    height, width = job.images.shape[1:]
    chunks = [(number, y, x, page["levels"]) for number, page in enumerate(pages)
              for y in range(0, height, CHUNK) for x in range(0, width, CHUNK)
              if not job.marked(f"{number}-{y}-{x}")]
    _all(client, predict_chunk, job, chunks, "predicting")
    _all(client, segment_page, job, [(number,) for number in range(count) if not job.marked(str(number))], "segmenting")


def _make_room(job: Job, stacks: dict[str, Stack]) -> None:
    """Make the images that are not there yet; what was marked of one that is gone is to be done again."""
    for name, stack in stacks.items():
        if not (job.room / name).exists():
            for mark in (job.room / "marks").glob("[0-9]*"):
                if name == OUT or mark.name.isdecimal():
                    mark.unlink()
            with atomic_folder(job.room / name) as folder:
                Image.create(folder, stack)


def _looked_at(client: Client, job: Job, count: int) -> list[dict]:
    """`look_at` all pages; raises UserError where one is not what it was when chunks of it were kept."""
    there, pages = job.room / "pages.json", [{} for _ in range(count)]
    for (number,), page in _all(client, look_at, job, [(number,) for number in range(count)], "reading"):
        pages[number] = page
    if there.is_file() and read_json(there, "leave out --resume to begin anew")["pages"] != pages:
        raise UserError(f"the pixels of {job.volume} have changed since {job.room} was left; leave out --resume to "
                        "begin anew")
    write_json(there, {"pages": pages})
    return pages


def _all(client: Client, call: Callable, job: Job, tasks: Iterable[tuple], title: str) -> list[tuple[tuple, object]]:
    """Let workers `call` with the job and each of the tasks; returns tasks with results, in the order they came."""
    from distributed import KilledWorker, as_completed

    tasks, results = list(tasks), []
    waiting, running, given = iter(tasks), as_completed(), {}

    def fill() -> None:
        """Hand out as many as are to be under way, with the workers that there are now."""
        most = AHEAD * max(1, sum(client.nthreads().values()))
        for task in itertools.islice(waiting, max(0, most - len(given))):
            future = client.submit(call, job, *task, pure=False)
            given[future] = task
            running.add(future)

    try:
        fill()
        for future in tqdm(running, title, len(tasks), disable=None):
            results.append((given.pop(future), future.result()))
            fill()
    except KilledWorker as error:
        raise UserError(f"several workers died one after the other at the same task ({error}); most likely memory ran "
                        "out: take fewer --workers, or machines with more memory, and add --resume") from None
    finally:
        client.cancel(list(given))  # nobody wants them any more
    return results


@contextmanager
def connected(address: str, workers: int) -> Iterator[Client]:
    """A client of the scheduler at `address`, or, where that is 'local', of one with so many processes here.

    Raises UserError where Dask is not installed or nobody answers.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise UserError("--dask needs the package distributed, which is not installed: pip install -r "
                        "requirements-zarr.txt") from None
    if address == "local":
        with signals_held():  # and workers never hear Ctrl-C: it is answered here
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=None, dashboard_address=None,
                                   silence_logs=logging.CRITICAL)
        with cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise UserError(f"--dask {address}: no scheduler answers there ({str(error)[:90]}); start one with 'dask "
                        "scheduler', and name the address that it prints, like tcp://10.0.0.5:8786") from None
    with client:
        yield client
