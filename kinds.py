"""Which pictures and words go with a run: those for stacks of cells, for several classes, or for nuclei images."""

from __future__ import annotations

from types import ModuleType

import methods
import methods_classes
import methods_nuclei
import show_cells
import show_classes
import show_nuclei
from lastrun import Run

PICTURES = {"cells": show_cells, "classes": show_classes, "nuclei": show_nuclei}
WORDS = {"cells": methods, "classes": methods_classes, "nuclei": methods_nuclei}


def pictures_of(run: Run) -> ModuleType:
    """The module that draws such a run: example, show_images, show_tiles, ... show_prediction."""
    return PICTURES[run.kind]


def words_of(run: Run) -> ModuleType:
    """The module that tells of such a run, in Markdown: settings, scores, paragraph."""
    return WORDS[run.kind]
