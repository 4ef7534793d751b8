"""The house: imports point down only, TensorFlow stays where networks run, nothing runs on import."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = (  # from the ground up; a file imports from its own room and from the floors below its own
    ("utils", "unet.network", "unet.citations"), ("unet.system",), ("model",), ("unet.inputs",), ("unet.scores",),
    ("unet.segment",), ("unet.tasks",), ("unet.predicting",), ("unet.training",), ("unet.export",), ("unet.engines",),
    ("augmentation",), ("preprocessing",), ("predict",), ("unet.folds",), ("train", "datasets", "metrics"),
    ("report", "unet.pipeline"))
BESIDE = "unet.report"  # imports from any floor; of the pipeline, only the scripts draw the few pictures of a run
SCRIPTS = {name for names in FLOORS for name in names if not name.startswith("unet.")}
HEAVY = {"tensorflow", "keras"}
# docstrings of functions begin with a verb, so with none of these
NO_VERBS = ("a", "all", "an", "any", "as", "at", "before", "both", "by", "each", "every", "for", "from", "how", "if",
            "in", "its", "least", "mean", "most", "no", "none", "nothing", "of", "on", "one", "only", "other", "some",
            "such", "that", "the", "them", "these", "they", "this", "those", "to", "two", "what", "when", "where",
            "whether", "which", "who", "whole", "with", "without")
AT_ONCE = ("augmentation", "preprocessing", "datasets", "metrics", "predict")  # start without TensorFlow


def module(path):
    """A file's name as it is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module(path): ast.parse(path.read_text()) for path in (*ROOT.glob("*.py"), *ROOT.glob("unet/**/*.py"))}


def imports(nodes):
    """Names that statements import: files of this project as they are called here, of others the first part."""
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            ours = [file for file in FILES if name == file or name.startswith(f"{file}.")]
            yield max(ours, key=len, default=name.split(".")[0])


def room(name):
    """The room that a file of this project lies in; a script is one by itself, the package itself none."""
    parts = name.split(".")
    return None if name not in FILES or name == "unet" else ".".join(parts[:2])


def test_the_top_shows_the_pipeline_and_nothing_else():
    rooms = {room(name) for name in FILES} - {None}
    assert {path.stem for path in ROOT.glob("*.py")} == SCRIPTS
    assert rooms - SCRIPTS <= {name for names in (*FLOORS, (BESIDE,)) for name in names}


def test_what_is_committed_are_plain_files():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "--stage"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("git does not know this folder")
    modes = {line.split("\t")[1]: line.split()[0] for line in listed.stdout.splitlines()}
    assert "utils.py" in modes
    # a link leads nowhere on another machine
    assert {name: mode for name, mode in modes.items() if mode not in ("100644", "100755")} == {}


@pytest.mark.parametrize("name", sorted(FILES))
def test_imports_point_down_only(name):
    floor = {place: number for number, names in enumerate(FLOORS) for place in names}
    here = room(name)
    # the networks lie at the bottom; the command behind them, which a user calls, stands above all
    body = [node for node in FILES[name].body if (name, getattr(node, "name", "")) != ("model", "main")]
    for there in filter(None, map(room, imports(part for node in body for part in ast.walk(node)))):
        if BESIDE in (here, there):
            assert here in (BESIDE, *SCRIPTS), f"{name} imports {there}"
        else:
            assert here == there or floor[there] < floor[here], f"{name} imports {there}"


@pytest.mark.parametrize("name", AT_ONCE)
def test_scripts_that_run_no_network_start_without_tensorflow(name):
    known, waiting = set(), [name]
    while waiting:
        here = waiting.pop()
        if here not in known:
            known.add(here)
            waiting += imports(FILES[here].body) if here in FILES else []  # not what a function imports when called
            waiting += [here.rpartition(".")[0]] if "." in here else []  # a file's room comes in with it
    assert not known & HEAVY


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_runs_on_import(name):
    for node in FILES[name].body:
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        # the exceptions must come before TensorFlow does, or they say nothing to it
        assert not is_call or ast.unparse(node).startswith("os.environ.setdefault(")
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try)
    stars = [node for node in ast.walk(FILES[name]) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
    assert not stars


def test_a_name_in_capitals_means_one_thing_in_the_whole_house():
    values = {}
    for name, tree in FILES.items():
        for node in (node for node in tree.body if isinstance(node, ast.Assign)):
            target, value = node.targets[0], node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple):  # several at once, from a tuple or from a call
                pairs = zip(target.elts, getattr(value, "elts", [value] * len(target.elts)), strict=True)
            for target, value in pairs:
                if target.id.isupper():
                    values.setdefault(target.id, {}).setdefault(ast.unparse(value), []).append(name)
    assert {name: places for name, places in values.items() if len(places) > 1} == {}


@pytest.mark.parametrize("name", sorted(FILES))
def test_docstrings_of_functions_begin_with_a_verb(name):
    for node in ast.walk(FILES[name]):
        text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if text and not any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
            first = text.split()[0].strip("`.,:;()")
            assert first[:1].isupper() and first.lower() not in NO_VERBS, f"{node.name}: {text.splitlines()[0]}"


def test_no_file_is_over_350_lines_and_no_function_over_50_or_with_seven_arguments():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("unet/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert path.is_relative_to(ROOT / "tests") or node.end_lineno - node.lineno < 50, f"{path}: {node.name}"
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                assert len([name for name in names if name not in ("self", "cls")]) < 7, f"{path}: {node.name}"
