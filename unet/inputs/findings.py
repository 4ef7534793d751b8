"""Findings about a user's data and their report as text: the most serious last, and a verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unet.inputs.stacks import format_slices
from utils import count_of

TITLES = {"ok": "In order", "note": "Good to know", "warning": "Worth a look", "problem": "To be fixed first"}


@dataclass(frozen=True)
class Finding:
    """A finding; `level` is ok, note, warning, or problem: training would be refused or learn nonsense."""

    level: str
    what: str
    meaning: str = ""
    remedy: str = ""


def list_slices(numbers: Iterable[int]) -> str:
    """Return slice numbers as text, at most 12 runs of them: [3, 4, 5, 9] gives '3-5, 9'."""
    return shorten(format_slices(sorted(numbers)).split(", "), 12)


def shorten(words: list[str], most: int, between: str = ", ") -> str:
    """Join the first `most` words; '...' stands for the others."""
    return between.join(words[:most] + ["..."] * (len(words) > most))


def span(values: list) -> str:
    """Return the first and the last of sorted values as 'a to b'; a single one if they are equal."""
    return " to ".join(map(str, dict.fromkeys((values[0], values[-1]))))


def format_findings(folder: Path, findings: list[Finding]) -> str:
    """Return the findings about a folder as text of 80 columns, the most serious last, and a verdict."""
    lines = [f"{folder}"]
    for level, title in TITLES.items():
        group = [finding for finding in findings if finding.level == level]
        lines += ["", f"{title}:"] if group else []
        for finding in group:
            lines.append(textwrap.fill(finding.what, 80, initial_indent="- ", subsequent_indent="  "))
            advice = f"{finding.meaning} -> {finding.remedy}" if finding.remedy else finding.meaning
            lines += textwrap.wrap(advice, 80, initial_indent="    ", subsequent_indent="    ")
    problems, warnings = (sum(finding.level == level for finding in findings) for level in ("problem", "warning"))
    verdict = "Ready to train."
    if problems:
        verdict = f"{count_of(problems, 'problem')} must be fixed first."
    elif warnings:
        verdict = f"Ready to train; {warnings} thing{'s are' if warnings > 1 else ' is'} worth a look first."
    return "\n".join([*lines, "", verdict])
