"""What differs by task: cells, classes, nuclei. A new task is a class and its entry in TASKS."""

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
MEANINGS = tuple(dict.fromkeys(task.meaning for task in TASKS.values()))  # what labels may mean


def choose_task(layout: Layout, task: str | None = None, **settings: object) -> Task:
    """Return the first task that takes this layout and these settings; settings that are None do not count.

    `task` is what the labels mean, one of MEANINGS; without it, what they seem to mean is tried first.
    Raises UserError for a task that is not for this layout, or a setting that none of its tasks has.
    """
    options = {name: value for name, value in settings.items() if value is not None}
    candidates = [one for one in TASKS.values() if layout.name in one.layouts and task in (None, one.meaning)]
    if not candidates:
        raise UserError(f"--task {task} is not for {layout.folder}, {layout.what}; leave it out")
    for one in sorted(candidates, key=lambda one: one.meaning != layout.meaning):
        if options.keys() <= {field.name for field in fields(one) if field.init}:
            return one(**options)
    known = {field.name for one in candidates for field in fields(one) if field.init}
    unknown = next(iter(options.keys() - known), next(iter(options)))
    raise UserError(f"--{unknown.removesuffix('_side')} is not for {layout.folder}, {layout.what}; leave it out")


def task_of(manifest: dict) -> Task:
    """Return the task that a manifest, geometry.json or config.json names."""
    settings = dict(manifest["task"])
    return TASKS[settings.pop("name")](**settings)
