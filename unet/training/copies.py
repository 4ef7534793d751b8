"""How many augmented copies training draws, and how they are spread over what trains."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unet.tasks.task import Task
from utils import OverlapTile

READS = 10_000  # tiles that train.py reads without options: 25 epochs of 100 steps of 4
TILE, MARGIN = 256, 32  # of the tiles that preprocessing.py cuts without options, pixels


def tiles_of(task: Task, page: Sequence[int]) -> int:
    """How many tiles preprocessing.py cuts of a page (H, W) without options; a window is one."""
    return 1 if task.windowed else len(OverlapTile(tuple(page), TILE - 2 * MARGIN, MARGIN).inside())


def needed_copies(task: Task, sizes: Sequence[tuple[int, int]], tiles: int, reads: int = READS) -> float:
    """Copies of each training sample, on average, that give training `reads` tiles to draw, and no more.

    Where the unchanged pages give fewer, each is copied until all have been drawn once; where they are more, so many
    pages are made as would be drawn. The task's default at most.

    Parameters
    ----------
    sizes : (height, width) of the samples that train, pixels
    tiles : that a page is cut into
    """
    pages = sum(task.page_count(size) for size in sizes)
    passes = math.ceil(reads / (pages * tiles))
    total = pages * (passes - 1) if passes > 1 else math.ceil(reads / tiles)
    return whole(min(total / len(sizes), task.default_copies))


def whole(number: float) -> float:
    """A whole number as int."""
    return int(number) if number == int(number) else number


def in_words(copies: float, count: int, noun: str) -> str:
    """Say how many copies of `count` samples are made."""
    if copies == int(copies):
        return f"{copies:g} cop{'y' if copies == 1 else 'ies'} of each {noun}"
    return f"{round(copies * count):,} copies, spread over {count:,} {noun}s"
