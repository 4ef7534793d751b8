"""What README and docs say is so: options, targets, presets, links and pictures exist, and none is left out."""

import argparse
import importlib
import re
import shlex

import pytest
from pages import DOCS, PAGES, README, ROOT, blocks, commands, inline_code, rows
from PIL import Image

from model import PRESETS
from unet.report.figures import ANIMATION, FIGURES, OTHERS
from unet.training.encoders import ENCODERS

SCRIPTS = ("datasets", "augmentation", "preprocessing", "train", "predict", "model", "metrics", "report")
OPTIONS = ROOT / "docs" / "options.md"
VARIABLES = {"AUGMENT": "augmentation", "TILE": "preprocessing", "TRAIN": "train"}  # options behind make's commands


@pytest.fixture(scope="module")
def parsers():
    """The parser of each script, by its name."""
    class Parsed(Exception):
        """Stands in for the work that would follow."""

    def stop(parser, *_):
        parsers[name] = parser
        raise Parsed

    parsers = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        for name in SCRIPTS:
            with pytest.raises(Parsed):
                importlib.import_module(name).main()
    return parsers


def actions(parser):
    """Options of a parser and of its commands, with the name that the page of all options gives them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, inner in action.choices.items():
                yield from ((f"{command} {name}", one) for name, one in actions(inner))
        elif "--help" not in action.option_strings:
            yield (action.option_strings or [action.metavar or action.dest.upper()])[-1], action


# ------------------------------------------------------------------------------------------------------ options


def documented():
    """By script: each option that the page of all options has, and its default there."""
    tables = {}
    for title, text in re.findall(r"^## (\w+)\.py\n(.*?)(?=^## |\Z)", OPTIONS.read_text(), re.MULTILINE | re.DOTALL):
        tables[title] = {}
        for option, _, default in rows(text)[1:]:
            words = option.strip("`").split()
            name = " ".join(words[:2] if words[0].islower() and words[0].isalpha() else words[:1])
            tables[title][name] = default.strip("`")
    return tables


def test_the_page_of_options_has_all_and_no_other(parsers):
    tables = documented()
    assert set(tables) == set(SCRIPTS)
    for script, parser in parsers.items():
        assert set(tables[script]) == {name for name, _ in actions(parser)}, script


def test_defaults_are_those_of_the_parsers(parsers):
    tables = documented()
    for script, parser in parsers.items():
        for name, action in actions(parser):
            if action.default not in (None, False, argparse.SUPPRESS) and "url" not in name:
                assert tables[script][name] == str(action.default), f"{script} {name}"


def test_every_script_is_on_the_page_of_options():
    with_options = {path.stem for path in ROOT.glob("*.py") if "= Parser(" in path.read_text()}
    assert with_options == set(SCRIPTS)


def test_commands_are_what_the_scripts_take(parsers):
    checked = 0
    for words in commands():
        lines = []
        if words[0] == "python" and words[1].endswith(".py"):
            lines = [(words[1].removesuffix(".py"), words[2:])]
        elif words[0] == "make":
            pairs = [word.partition("=") for word in words if "=" in word]
            lines = [(VARIABLES[name], shlex.split(value)) for name, _, value in pairs if name in VARIABLES]
            lines += [("train", ["--preset", value]) for name, _, value in pairs if name == "PRESET"]
        for script, options in lines:
            parsers[script].parse_args(options)  # leaves with a message where it does not know one
            checked += 1
    assert checked > 30


def test_options_in_the_text_exist(parsers):
    known = {option for parser in parsers.values() for name, _ in actions(parser) for option in name.split()}
    known |= {"--help"}
    for page in PAGES:
        for code in inline_code(page):
            assert set(re.findall(r"--[a-z][a-z-]*", code)) <= known, f"{page.name}: {code}"


def test_make_targets_and_variables_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = [words for words in commands() if words[0] == "make"]
    named += [shlex.split(code) for page in PAGES for code in inline_code(page) if code.split()[0] == "make"]
    for _, *words in named:
        for word in words:
            name, is_variable, _ = word.partition("=")
            place = rf"^{name} *\?=|\$\${{?{name}\b" if is_variable else rf"^[a-z -]*\b{name}\b[a-z -]*:"
            assert re.search(place, makefile, re.MULTILINE), word
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()) - {"run"}
    assert targets == {word for _, *words in named for word in words if "=" not in word}


# ------------------------------------------------------------------------------------------------------ figures


def test_no_figure_is_still_to_be_measured():
    for page in PAGES:
        assert not re.findall(r"@@\w+@@", page.read_text()), page.name


def test_presets_and_encoders_are_those_there_are():
    described = {name.strip("`"): meaning for name, meaning, *_ in rows(README.read_text())
                 if name.strip("`") in PRESETS and name.startswith("`")}
    assert set(described) == set(PRESETS)
    for name, meaning in described.items():
        recipe = PRESETS[name]
        steps = re.search(r"([\d,]+) steps", meaning)
        assert steps is None or int(steps[1].replace(",", "")) == recipe.epochs * recipe.steps, name
        filters = re.search(r"(\d+) to (\d+) filters", meaning)
        first = recipe.network.filters
        assert filters is None or filters.groups() == (str(first), str(first * 2**recipe.network.depth)), name
        at_once = re.search(r"on (\d+) slices in place of (\d+)", meaning)
        if at_once:
            assert [int(number) for number in at_once.groups()] == [recipe.look_back, PRESETS["cpu"].look_back]
    page = inline_code(ROOT / "docs" / "classes.md")
    assert set(ENCODERS) == {code for code in page if re.fullmatch(r"[a-z]+\d*(v2)?", code) and code in ENCODERS}


# ---------------------------------------------------------------------------------------------- links and pictures


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= 1800


def test_every_page_is_linked_from_the_readme():
    linked = re.findall(r"\]\((docs/[^)#]+)", README.read_text())
    assert {path.relative_to(ROOT).as_posix() for path in DOCS} == set(linked)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "data" / "README.md"],
                         ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page):
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
               for title in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (page.parent / target).exists(), target


def test_files_that_commands_name_exist():
    for words in commands():
        for word in words:
            if word.endswith((".py", ".txt", ".ipynb")):
                assert (ROOT / word).is_file(), word


def test_pictures_are_all_drawn_by_this_project_shown_and_small():
    ours = {*FIGURES, *OTHERS, ANIMATION}
    there = {path.name: path.stat().st_size for path in (ROOT / "images").iterdir()}
    assert set(there) == ours
    assert {name for page in PAGES for name in re.findall(r"\((?:\.\./)?images/([^)]+)\)", page.read_text())} == ours
    assert sum(there.values()) < 4_000_000
    for name in ours:
        with Image.open(ROOT / "images" / name) as picture:
            picture.load()
            assert picture.width >= 600, name


def test_pages_have_blocks_that_can_be_copied():
    for page in PAGES:
        for block in blocks(page):
            assert block.lines, f"{block} has no command"
            assert all(len(line) < 160 for line in block.lines), block
