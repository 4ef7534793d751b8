"""The works to cite and this project's version, from CITATION.cff."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

CITATIONS = Path(__file__).resolve().parents[1] / "CITATION.cff"


@cache
def about() -> dict:
    """Read CITATION.cff: title, version, license, authors, references."""
    return yaml.safe_load(CITATIONS.read_text(encoding="utf-8"))


def version() -> str:
    """Return this project's name and version, as `--version` prints them."""
    return f"{about()['title']} {about()['version']}"


def works() -> dict[str, dict]:
    """Return the references of CITATION.cff by their abbreviations."""
    return {work["abbreviation"]: work for work in about()["references"]}


def cite(name: str) -> str:
    """Return the citation of a work in a text, such as 'Ronneberger et al. 2015'."""
    work = works()[name]
    return f"{work['authors'][0]['family-names']} et al. {work['year']}"


def reference(name: str) -> str:
    """Return the entry of a work in a list of references."""
    work = works()[name]
    authors = ", ".join(author.get("name") or f"{author['given-names']} {author['family-names']}"
                        for author in work["authors"])
    issue = f"({work['issue']})" if "issue" in work else ""
    pages = f", {work['start']}{'-' + str(work['end']) if 'end' in work else ''}" if "start" in work else ""
    place = f"{work['journal']} {work['volume']}{issue}{pages}, " if "journal" in work else \
        f"{work['collection-title']} " if "collection-title" in work else ""
    address = f"doi {work['doi']}" if "doi" in work else work["url"].removeprefix("https://")  # no link in Markdown
    return f"{authors}: {work['title']}. {place}{work['year']}. {address}"
