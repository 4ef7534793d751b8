"""Which pictures and words go with a run: those for stacks of cells, for several classes, or for nuclei images."""

from __future__ import annotations

from types import ModuleType

from unet.report import methods, methods_classes, methods_nuclei, show_cells, show_classes, show_nuclei
from unet.report.lastrun import Run

PICTURES = {"cells": show_cells, "classes": show_classes, "nuclei": show_nuclei}
WORDS = {"cells": methods, "classes": methods_classes, "nuclei": methods_nuclei}


def pictures_of(run: Run) -> ModuleType:
    """The module that draws such a run: example, show_images, show_tiles, ... show_prediction."""
    return PICTURES[run.kind]


def words_of(run: Run) -> ModuleType:
    """The module that tells of such a run, in Markdown: settings, scores, paragraph."""
    return WORDS[run.kind]
