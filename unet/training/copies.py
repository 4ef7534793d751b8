"""How many augmented copies training draws, and which pages of each sample are made for that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from unet.tasks.task import Task
from utils import OverlapTile

READS = 10_000  # tiles that train.py reads without options on a CPU: 25 epochs of 100 steps of 4


def tile_count(task: Task, page: Sequence[int]) -> int:
    """Return how many tiles preprocessing.py cuts from a page (H, W) without options."""
    side, margin = task.default_tile(page)
    return len(OverlapTile(tuple(page), side - 2 * margin, margin).inside())


def needed_copies(task: Task, sizes: Sequence[tuple[int, int]], tiles: int, reads: int = READS) -> float:
    """Return how many copies of each training sample, on average, give training `reads` tiles to draw, and no more.

    If the unchanged pages give fewer tiles, each page is copied until no tile has to be drawn twice. If they give
    enough, there are as many copies as pages that training reads. The task's default is the most.

    Parameters
    ----------
    sizes : (height, width) of the samples that train, pixels
    tiles : number of tiles that a page is cut into
    """
    pages = sum(task.page_count(size) for size in sizes)
    passes = math.ceil(reads / (pages * tiles))
    total = pages * (passes - 1) if passes > 1 else math.ceil(reads / tiles)
    return int_if_whole(min(total / len(sizes), task.default_copies))


class Job(NamedTuple):
    """The pages to make from a sample in one go: its unchanged pages (copy 0), or an augmented copy (1 and more)."""

    sample: int
    copy: int
    page: int  # where the first page goes


def jobs_of(counts: Sequence[tuple[int, int]]) -> list[Job]:
    """List the jobs for samples, given the number of unchanged pages and of augmented copies of each.

    In the stack the unchanged pages of all samples come first, then the first copy of each, and so on. The jobs are
    sorted by sample, so that each sample is read once.
    """
    jobs, page = [], 0
    for copy in range(max(copies for _, copies in counts) + 1):
        for sample, (pages, copies) in enumerate(counts):
            if copy <= copies:
                jobs.append(Job(sample, copy, page))
                page += 1 if copy else pages
    return sorted(jobs)


def int_if_whole(number: float) -> float:
    """Return a whole number as int, any other as it is."""
    return int(number) if number == int(number) else number


def describe_copies(copies: float, count: int, noun: str) -> str:
    """Say how many copies of `count` samples are made."""
    if copies == int(copies):
        return f"{copies:g} cop{'y' if copies == 1 else 'ies'} of each {noun}"
    return f"{round(copies * count):,} copies, spread over {count:,} {noun}s"
