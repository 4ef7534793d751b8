"""What is found in a user's data, and how it is said: the gravest last, and a verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unet.inputs.stacks import format_slices
from utils import counted

TITLES = {"ok": "In order", "note": "Good to know", "warning": "Worth a look", "problem": "To be fixed first"}


@dataclass(frozen=True)
class Finding:
    """One thing found; `level` is ok, note, warning, or problem: training would be refused or learn nonsense."""

    level: str
    what: str
    meaning: str = ""
    remedy: str = ""


def listed(numbers: Iterable[int]) -> str:
    """Slice numbers as text, at most 12 runs of them: [3, 4, 5, 9] gives '3-5, 9'."""
    return shorten(format_slices(sorted(numbers)).split(", "), 12)


def shorten(words: list[str], most: int, between: str = ", ") -> str:
    """The first words, joined, and '...' for the others."""
    return between.join(words[:most] + ["..."] * (len(words) > most))


def span(values: list) -> str:
    """The first and the last of sorted values, in words; one where they are equal."""
    return " to ".join(map(str, dict.fromkeys((values[0], values[-1]))))


def report(folder: Path, findings: list[Finding]) -> str:
    """What was found in a folder as text of 80 columns, the gravest last, and a verdict."""
    lines = [f"{folder}"]
    for level, title in TITLES.items():
        chosen = [finding for finding in findings if finding.level == level]
        lines += ["", f"{title}:"] if chosen else []
        for finding in chosen:
            lines.append(textwrap.fill(finding.what, 80, initial_indent="- ", subsequent_indent="  "))
            advice = f"{finding.meaning} -> {finding.remedy}" if finding.remedy else finding.meaning
            lines += textwrap.wrap(advice, 80, initial_indent="    ", subsequent_indent="    ")
    grave, looks = (sum(finding.level == level for finding in findings) for level in ("problem", "warning"))
    verdict = "Ready to train."
    if grave:
        verdict = f"{counted(grave, 'problem')} must be fixed first."
    elif looks:
        verdict = f"Ready to train; {looks} thing{'s are' if looks > 1 else ' is'} worth a look first."
    return "\n".join([*lines, "", verdict])
