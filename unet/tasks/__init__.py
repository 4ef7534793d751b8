"""What differs by task: cells, classes, nuclei; a fourth task is one class and its row here."""

from __future__ import annotations

from dataclasses import fields

from unet.inputs.layouts import Layout
from unet.tasks.cells import Cells
from unet.tasks.classes import Classes
from unet.tasks.nuclei import Nuclei
from unet.tasks.task import Task
from utils import UserError

TASKS: dict[str, type[Task]] = {task.name: task for task in (Cells, Classes, Nuclei)}


def choose_task(layout: Layout, **settings: object) -> Task:
    """The first task that takes such a layout and these settings; those that are None were not asked for.

    Raises UserError for a setting that no task on this layout has.
    """
    asked = {name: value for name, value in settings.items() if value is not None}
    fits = [task for task in TASKS.values() if layout.name in task.layouts]
    for task in fits:
        if asked.keys() <= {field.name for field in fields(task) if field.init}:
            return task(**asked)
    known = {field.name for task in fits for field in fields(task) if field.init}
    strange = next(iter(asked.keys() - known), next(iter(asked)))
    raise UserError(f"--{strange.removesuffix('_side')} is not for {layout.folder}, {layout.what}; leave it out")


def task_of(manifest: dict) -> Task:
    """The task that a manifest, geometry.json or config.json names."""
    settings = dict(manifest["task"])
    return TASKS[settings.pop("name")](**settings)
