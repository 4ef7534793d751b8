"""Read the pages for users: their blocks of commands, their inline code, their tables."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]


@dataclass(frozen=True)
class Block:
    """An sh block of a page; `lines` are its commands without comments."""

    page: Path
    number: int
    lines: tuple[str, ...]

    def __str__(self):
        return f"{self.page.stem}-{self.number}"


def blocks(page):
    """Return the sh blocks of a page, in order."""
    texts = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return [Block(page, number, tuple(filter(None, (re.split(r"(?:^|\s)# ", line)[0].strip()
                                                    for line in text.splitlines()))))
            for number, text in enumerate(texts, 1)]


def commands():
    """Return every command of every page as a list of words; commands joined by && are separate."""
    lines = [part for page in PAGES for block in blocks(page) for line in block.lines for part in line.split(" && ")]
    return [shlex.split(line) for line in lines]


def inline_code(page):
    """Return the texts between single backticks of a page, outside of its blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))


def rows(text):
    """Return the cells of each line of a page's tables, stripped."""
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines if not set(line) <= set("|- ")]
