"""What differs by task: cells, classes, nuclei; one more is one class and its row here."""

from __future__ import annotations

from dataclasses import fields

from unet.inputs.layouts import Layout
from unet.tasks.cells import Cells
from unet.tasks.classes import Classes
from unet.tasks.nuclei import Nuclei
from unet.tasks.of_images import CellImages, ClassImages
from unet.tasks.task import Task
from utils import UserError

TASKS: dict[str, type[Task]] = {task.name: task for task in (Cells, Classes, Nuclei, CellImages, ClassImages)}
MEANINGS = tuple(dict.fromkeys(task.meaning for task in TASKS.values()))  # what labels may say


def choose_task(layout: Layout, task: str | None = None, **settings: object) -> Task:
    """The first task that takes such a layout and these settings; those that are None were not asked for.

    `task` is what the labels say, one of MEANINGS; without it what they seem to say comes first.
    Raises UserError for a setting that no task on this layout has.
    """
    asked = {name: value for name, value in settings.items() if value is not None}
    fits = [one for one in TASKS.values() if layout.name in one.layouts and task in (None, one.meaning)]
    if not fits:
        raise UserError(f"--task {task} is not for {layout.folder}, {layout.what}; leave it out")
    for one in sorted(fits, key=lambda one: one.meaning != layout.meaning):
        if asked.keys() <= {field.name for field in fields(one) if field.init}:
            return one(**asked)
    known = {field.name for one in fits for field in fields(one) if field.init}
    strange = next(iter(asked.keys() - known), next(iter(asked)))
    raise UserError(f"--{strange.removesuffix('_side')} is not for {layout.folder}, {layout.what}; leave it out")


def task_of(manifest: dict) -> Task:
    """The task that a manifest, geometry.json or config.json names."""
    settings = dict(manifest["task"])
    return TASKS[settings.pop("name")](**settings)
