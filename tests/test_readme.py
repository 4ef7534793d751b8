"""What the README says is so: its options and targets exist, its links and pictures are there."""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from unet.report.figures import ANIMATION, FIGURES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SCRIPTS = ("datasets", "augmentation", "preprocessing", "train", "predict", "metrics", "report", "figures")


def commands():
    """The commands of the README's sh blocks, a list of words each, comments left out."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def parser_of(monkeypatch):
    """Give the parser of a script, without running it."""
    class Parsed(Exception):
        """Stands in for the work that would follow."""

    def call(name):
        found = []

        def stop(parser, *_):
            found.append(parser)
            raise Parsed

        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", stop)
            with pytest.raises(Parsed):
                importlib.import_module(name).main()
        return found[0]
    return call


def options(parser):
    """Long options of a parser and of its commands."""
    found = set()
    for action in parser._actions:
        found.update(option for option in action.option_strings if option.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(options(command) for command in action.choices.values()))
    return found - {"--help"}


def test_all_options_are_in_the_readme_and_no_other(parser_of):
    rows = re.search(r"## All options\n(.*?)\n## ", README, re.DOTALL)[1]
    everywhere = {"--work", "--out", "--data"}  # said once for all scripts, above the table
    tables = dict.fromkeys(SCRIPTS, "")
    script = None
    for name, cells in re.findall(r"^\| (\w*)(?:\.py)? ?\| (`.*)$", rows, re.MULTILINE):
        script = name or script
        tables[script] += cells
    named = set()
    for name in SCRIPTS:
        known, told = options(parser_of(name)), set(re.findall(r"--[a-z][a-z-]*", tables[name]))
        assert told <= known, name
        assert known - everywhere <= told, name
        named |= known
    assert set(re.findall(r"`(--[a-z][a-z-]*)", README)) <= named


def test_make_targets_and_variables_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = [words for words in commands() if words[0] == "make"]
    named += [shlex.split(words) for words in re.findall(r"`(make[ a-zA-Z=/.]*)`", README)]
    assert len(named) > 8
    for _, *words in named:
        for word in words:
            name, is_variable, _ = word.partition("=")
            assert re.search(rf"^{name} *\?=" if is_variable else rf"^{name}:", makefile, re.MULTILINE), word


def test_links_resolve():
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
               for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}
    for page in (ROOT / "README.md", ROOT / "data" / "README.md"):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            if target.startswith("#"):
                assert target[1:] in anchors, target
            else:
                assert (page.parent / target).exists(), target


def test_pictures_are_all_drawn_by_this_project_shown_and_small():
    drawn = {*FIGURES, ANIMATION}
    there = {path.name: path.stat().st_size for path in (ROOT / "images").iterdir()}
    assert set(there) == drawn
    assert set(re.findall(r"\(images/([^)]+)\)", README)) == drawn
    assert sum(there.values()) < 4_000_000
    for name in drawn:
        with Image.open(ROOT / "images" / name) as picture:
            picture.load()
            assert picture.width >= 600, name
    with Image.open(ROOT / "images" / ANIMATION) as animation:
        assert animation.n_frames == 10
    assert there[ANIMATION] < 1_500_000


def test_pictures_are_drawn_of_the_demo_alone(tiny_run, tmp_path, monkeypatch):
    monkeypatch.delenv("DATA", raising=False)
    arguments = ["--work", str(tiny_run / "results"), "--out", str(tiny_run / "prediction.tif"), "--images"]
    done = subprocess.run([sys.executable, str(ROOT / "figures.py"), *arguments, str(tmp_path / "drawn")],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {*FIGURES, ANIMATION}
    for name in FIGURES:  # as large as those on the page: no other program's
        with Image.open(tmp_path / "drawn" / name) as new, Image.open(ROOT / "images" / name) as old:
            assert new.format == old.format
