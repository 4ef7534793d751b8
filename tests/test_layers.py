"""The house: imports point down only, TensorFlow stays where it belongs, nothing runs on import."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = {  # what each module may import of the project
    "utils": set(), "warping": set(), "transforms": set(), "instances": set(), "encoders": set(),
    "model": {"encoders"}, "classes": {"utils"},
    "stacks": {"utils"}, "demo": {"stacks"}, "pictures": {"utils"}, "colours": {"pictures"},
    "doctor": {"utils", "stacks"}, "nuclei": {"utils", "stacks"}, "matching": {"utils", "stacks", "nuclei"},
    "metrics": {"utils", "stacks", "warping", "matching"},
    "crests": {"metrics"}, "walls": {"crests", "metrics"},
    "datasets": {"utils", "stacks", "demo", "doctor", "nuclei", "classes"},
    "crops": {"utils", "nuclei", "transforms"},
    "augmentation": {"utils", "stacks", "datasets", "metrics", "nuclei", "transforms", "crops"},
    "preprocessing": {"utils", "crests", "stacks", "datasets", "metrics", "augmentation", "nuclei", "classes"},
    "nuclei_prediction": {"utils", "stacks", "nuclei", "crops", "instances", "matching", "pictures"},
    "feed": {"model"}, "keeper": {"utils", "model", "pictures"},
    "predict": {"utils", "crests", "walls", "stacks", "datasets", "metrics", "preprocessing", "model", "nuclei",
                "nuclei_prediction", "pictures", "classes"},
    "train": {"utils", "stacks", "datasets", "matching", "metrics", "preprocessing", "model", "feed", "keeper",
              "nuclei", "nuclei_prediction", "pictures", "predict", "classes", "encoders"},
    "lastrun": {"utils", "stacks", "datasets", "nuclei", "matching"},
    "mistakes": {"metrics", "pictures"}, "nuclei_mistakes": {"mistakes", "pictures"},
    "methods": {"lastrun", "metrics", "stacks"}, "methods_classes": {"lastrun", "methods"},
    "methods_nuclei": {"lastrun", "methods", "nuclei", "instances"},
    "show_data": {"utils", "pictures", "augmentation", "preprocessing"},
    "show_network": {"model", "pictures"},
    "show_cells": {"utils", "pictures", "colours", "metrics", "mistakes", "lastrun", "show_data"},
    "show_classes": {"utils", "pictures", "colours", "classes", "lastrun", "show_data"},
    "show_nuclei": {"pictures", "colours", "crops", "nuclei", "nuclei_mistakes", "preprocessing", "lastrun",
                    "show_data"},
    "kinds": {"lastrun", "methods", "methods_classes", "methods_nuclei", "show_cells", "show_classes", "show_nuclei"},
    "figures": {"utils", "pictures", "lastrun", "model", "show_data", "show_network", "show_cells"},
    "report": {"utils", "lastrun"},
}
HEAVY = {"tensorflow", "keras"}
MAY_BE_HEAVY = {"encoders": {"keras"}, "model": {"keras"}, "keeper": {"keras"}, "feed": HEAVY, "predict": HEAVY,
                "train": HEAVY, "show_network": {"keras"}}


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def test_every_module_is_listed():
    assert {path.stem for path in ROOT.glob("*.py")} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_down_only(name):
    found = set(imports(ast.parse((ROOT / f"{name}.py").read_text())))
    assert found & set(ORDER) <= ORDER[name]
    assert found & HEAVY <= MAY_BE_HEAVY.get(name, set())


def test_metrics_needs_numpy_scipy_and_scikit_image_alone():
    for name in ("metrics", "matching"):
        found = set(imports(ast.parse((ROOT / f"{name}.py").read_text())))
        assert found - sys.stdlib_module_names - set(ORDER) <= {"numpy", "scipy", "skimage"}


@pytest.mark.parametrize("name", ORDER)
def test_nothing_runs_on_import(name):
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    for node in tree.body:
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        # the exceptions must come before TensorFlow does, or they say nothing to it
        assert not is_call or ast.unparse(node).startswith("os.environ.setdefault(")
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try)
    stars = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
    assert not stars
