"""The classes that draw and describe the runs of each task; a new task adds two classes and a row here."""

from __future__ import annotations

from unet.report.base import Pictures
from unet.report.cells import CellPictures, CellWords
from unet.report.classes import ClassPictures, ClassWords
from unet.report.images import CellImageWords, ClassImageWords
from unet.report.nuclei import NucleiPictures, NucleiWords
from unet.report.words import Words
from unet.tasks.task import Task

OF_TASK: dict[str, tuple[type[Pictures], type[Words]]] = {
    "cells": (CellPictures, CellWords), "classes": (ClassPictures, ClassWords),
    "nuclei": (NucleiPictures, NucleiWords), "cells of images": (CellPictures, CellImageWords),
    "classes of images": (ClassPictures, ClassImageWords)}


def pictures_of(task: Task) -> Pictures:
    """Return the object that draws a task's runs and predictions."""
    return OF_TASK[task.name][0](task)


def words_of(task: Task) -> Words:
    """Return the object that describes a task's runs, in Markdown."""
    return OF_TASK[task.name][1](task)
