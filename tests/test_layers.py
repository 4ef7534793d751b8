"""The house: imports point down only, TensorFlow stays where it belongs, nothing runs on import."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = (  # from the ground up; a file imports from its own room and from the floors below its own
    ("utils", "model"), ("unet.inputs",), ("unet.scores",), ("unet.segment",), ("unet.tasks",), ("unet.training",),
    ("augmentation",), ("preprocessing",), ("predict",), ("train", "datasets", "metrics"), ("report", "unet.pipeline"))
BESIDE = "unet.report"  # imports from any floor; of the pipeline, only the scripts draw the few pictures of a run
TOP = {name for names in FLOORS for name in names if not name.startswith("unet.")}
HEAVY = {"tensorflow", "keras"}
MAY_BE_HEAVY = {"model", "train", "predict", "unet.training", "unet.pipeline", BESIDE}
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
           for path in (*ROOT.glob("*.py"), *ROOT.glob("unet/**/*.py"))}


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name):
    """The room of a module of this project, or None."""
    first, *others = name.split(".")
    if first == "unet":
        return ".".join([first, *others[:1]]) if len(others) > 1 or others[:1] != ["__init__"] else None
    return first if first in TOP else None


def floor(place):
    return next((number for number, names in enumerate(FLOORS) if place in names), None)


def test_the_top_shows_the_pipeline_and_nothing_else():
    assert {path.stem for path in ROOT.glob("*.py")} == TOP
    assert {path.stem for path in ROOT.glob("unet/*/") if (path / "__init__.py").exists()} | {"pipeline"} == {
        name.partition(".")[2] for names in (*FLOORS, (BESIDE,)) for name in names if "." in name}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down_only(name):
    here = room(name)
    for target in filter(None, map(room, imports(MODULES[name]))):
        if BESIDE in (here, target):
            assert here in (BESIDE, target, *TOP), f"{name} imports {target}"
        else:
            assert here == target or floor(target) < floor(here), f"{name} imports {target}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_tensorflow_stays_where_networks_run(name):
    found = {target.split(".")[0] for target in imports(MODULES[name])} & HEAVY
    through = {target for target in map(room, imports(MODULES[name])) if target == "model"}
    assert room(name) in MAY_BE_HEAVY or not found | through


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_runs_on_import(name):
    tree = MODULES[name]
    for node in tree.body:
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        # the exceptions must come before TensorFlow does, or they say nothing to it
        assert not is_call or ast.unparse(node).startswith("os.environ.setdefault(")
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try)
    stars = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
    assert not stars
