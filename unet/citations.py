"""Whom to cite, and which version of this project it is: what CITATION.cff says."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

CITATIONS = Path(__file__).resolve().parents[1] / "CITATION.cff"


@cache
def about() -> dict:
    """All of CITATION.cff: title, version, license, authors, references."""
    return yaml.safe_load(CITATIONS.read_text(encoding="utf-8"))


def version() -> str:
    """This project's name and version, as `--version` prints them."""
    return f"{about()['title']} {about()['version']}"


def works() -> dict[str, dict]:
    """The references of CITATION.cff by their abbreviations."""
    return {work["abbreviation"]: work for work in about()["references"]}


def cited(name: str) -> str:
    """A work in the text, as 'Ronneberger et al. 2015'."""
    return f"{works()[name]['authors'][0]['family-names']} et al. {works()[name]['year']}"


def reference(name: str) -> str:
    """A work in the list of references."""
    work = works()[name]
    authors = ", ".join(one.get("name") or f"{one['given-names']} {one['family-names']}" for one in work["authors"])
    issue = f"({work['issue']})" if "issue" in work else ""
    pages = f", {work['start']}{'-' + str(work['end']) if 'end' in work else ''}" if "start" in work else ""
    place = f"{work['journal']} {work['volume']}{issue}{pages}, " if "journal" in work else \
        f"{work['collection-title']} " if "collection-title" in work else ""
    where = f"doi {work['doi']}" if "doi" in work else work["url"].removeprefix("https://")  # Markdown makes no link
    return f"{authors}: {work['title']}. {place}{work['year']}. {where}"
