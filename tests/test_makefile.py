"""What the Makefile calls, with a stand-in for Python."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


@pytest.fixture
def environment(tmp_path):
    """An installation in which Python is a stand-in that writes down its arguments, a line each; and what it wrote."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{tmp_path}/asked"\n')
    python.chmod(0o755)
    for name in ("installed", "installed-tests"):
        (venv / name).touch()
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    for name in ("DATA", "WORK", "OUT", "PRESET", "AUGMENT", "TILE", "TRAIN"):
        keep.pop(name, None)
    return {**keep, "VENV": str(venv)}, tmp_path / "asked"


def make_target(environment, *words, **more):
    base, asked = environment
    done = subprocess.run(["make", "-C", str(ROOT), *words], env={**base, **more}, capture_output=True, text=True,
                          timeout=600)
    assert done.returncode == 0, done.stderr
    return asked.read_text().splitlines() if asked.exists() else [], done.stdout


def test_makes_variables_arrive_whole(environment):
    asked, _ = make_target(environment, "DATA=my data", "AUGMENT=--holdout \"3, 5\" --seed '1'", "TRAIN=--resume",
                           OUT="o.tif")
    assert asked == ["-m", "unet.pipeline", "run", "--data=my data", "--work=", "--out=o.tif", "--preset=",
                     "--augment=--holdout \"3, 5\" --seed '1'", "--tile=", "--train=--resume"]


def test_clean_takes_no_folder_from_the_environment(environment, tmp_path):
    asked, _ = make_target(environment, "clean", WORK=str(tmp_path), OUT=str(tmp_path / "o.tif"), DATA=str(tmp_path))
    assert asked == ["-m", "unet.pipeline", "clean"]


@pytest.mark.parametrize(("target", "chosen"), [("test", ["-m", "not slow"]), ("test-all", [])])
def test_the_quick_tests_and_all(environment, target, chosen):
    asked, _ = make_target(environment, target)
    assert asked == ["-m", "ruff", "check", ".", "-m", "pytest", "-q", "--durations=10", "-n", "2", "--dist",
                     "loadfile", "--no-loadscope-reorder", *chosen]


@pytest.mark.parametrize("target", ["report", "images"])
def test_a_runs_report_and_pictures(environment, target):
    asked, _ = make_target(environment, target, WORK="my run")
    assert asked == ["-m", "unet.pipeline", target, "--data=", "--work=my run", "--out=", "--preset=", "--augment=",
                     "--tile=", "--train="]


def test_the_help_names_every_target(environment):
    _, text = make_target(environment, "help")
    targets = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert [target for target in targets if target not in ("run", "help") and f"make {target}" not in text] == []


def test_a_python_that_is_not_there_is_said(environment):
    base, _ = environment
    done = subprocess.run(["make", "-C", str(ROOT), "PYTHON=python3.99", f"VENV={base['VENV']}-other"], env=base,
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert "There is no python3.99" in done.stdout
