"""Plan what step 1 makes: which samples train and which are held out, and how many copies."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import numpy as np
from tqdm import tqdm

from unet.inputs.layouts import LAYOUTS, Layout
from unet.tasks import choose_task
from unet.tasks.task import Task
from unet.training.copies import describe_copies, int_if_whole, needed_copies, tile_count


@dataclass(frozen=True)
class Settings:
    """The options of the command line; None is the task's own default."""

    copies: float | None = None  # augmented copies of each sample to train on, on average
    holdout: str | tuple[int, ...] | None = None  # the user's list, or numbers of samples
    seed: int = 0
    workers: int | None = None
    task: str | None = None  # meaning of the labels
    classes: int | None = None
    window: int | None = None
    resize: int | None = None


def task_for(layout: Layout, settings: Settings) -> Task:
    """Return the task that suits a layout and the user's settings; raise UserError if none does."""
    return choose_task(layout, settings.task, classes=settings.classes, window_side=settings.window,
                       resize=settings.resize)


def plan(layout: Layout, task: Task, settings: Settings) -> dict:
    """Return the manifest, all but the records of its pages; reads every sample and prints notes about the data."""
    notes = task.check(layout)
    if layout.if_mistaken:
        notes.append(f"labels are taken as {task.meaning}; {layout.if_mistaken}")
    # split first: copies of one sample must not reach the hold-out
    held_out = (list(settings.holdout) if isinstance(settings.holdout, tuple)
                else task.split(layout, settings.holdout, settings.seed))
    task.check_holdout(layout, held_out, "hold out others with --holdout")
    train = [number for number in range(len(layout)) if number not in held_out]
    sources = [{"name": sample.name, "group": sample.group, "shape": list(sample.image.shape[:2]), "copies": 0,
                "levels": task.levels(sample.image)}
               for sample in tqdm(layout, desc="looking at the data", unit=layout.noun, leave=False, disable=None)]
    for note in [*layout.notes, *notes]:
        print(f"note: {note}")
    size, sizes = task.page_shape(layout), [tuple(sources[number]["shape"]) for number in train]
    copies = (needed_copies(task, sizes, tile_count(task, size[:2])) if settings.copies is None
              else int_if_whole(settings.copies))
    for number, count in zip(train, task.copies(sizes, [sources[number]["group"] for number in train], copies),
                             strict=True):
        sources[number]["copies"] = count
    pages = sum(task.page_count(source["shape"]) + source["copies"] for source in sources)
    return {"layout": layout.name, "task": task.settings(), "data": str(Path(layout.folder).resolve()),
            "inputs": layout.hashes(), "shape": [pages, *size], "seed": settings.seed, "copies": copies,
            "split": {"train": train, "holdout": held_out}, "options": asdict(task.options), "sources": sources}


def stacks_of(manifest: dict, layout: Layout, task: Task) -> dict[str, tuple[list[int], np.dtype]]:
    """Return shape and dtype of the stacks that step 1 writes: images (N, H, W[, C]) and labels (N, H, W)."""
    shape = manifest["shape"]
    return {"images": (shape, layout.dtype), "labels": (shape[:3], task.label(layout[0].label).dtype)}


def announce(manifest: dict, task: Task, stacks: dict[str, tuple[list[int], np.dtype]], by_default: bool) -> int:
    """Print how many copies and pairs there will be; return their bytes. `by_default` if the user gave no number."""
    copies, noun = manifest["copies"], LAYOUTS[manifest["layout"]].noun
    enough = ", as many as training draws" if by_default and copies < task.default_copies else ""
    size = sum(prod(shape) * dtype.itemsize for shape, dtype in stacks.values())
    volume = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
    print(f"{describe_copies(copies, len(manifest['split']['train']), noun)}{enough}: {manifest['shape'][0]:,} pairs "
          f"including the originals, {volume} on disk", flush=True)
    return size


def write_manifest(path: Path, manifest: dict, records: Iterable[dict]) -> None:
    """Write a manifest as JSON with the records of all pages, one per line."""
    with open(path, "w") as file:
        file.write(json.dumps(manifest, indent=1)[:-2] + ',\n "samples": [')
        for record in records:
            file.write(("," if record["page"] else "") + "\n  " + json.dumps(record))
        file.write("\n ]\n}\n")
