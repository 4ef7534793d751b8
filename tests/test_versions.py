"""Requirements, from the lowest versions on the oldest Python to the newest on the newest: installed, and run.

What is installed is what pip finds; without a network, or without such a Python on this machine, nothing can be said,
and the tests are skipped with their reason.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tifffile

from unet.inputs.demo import make_demo
from unet.system.install import MINORS

ROOT = Path(__file__).resolve().parent.parent
FILES = [ROOT / "requirements.txt", *sorted(ROOT.glob("requirements-*.txt"))]
BOUNDS = re.compile(r"([A-Za-z0-9_.-]+)>=([\w.]+),<([\w.]+)")
OFFLINE = ("Temporary failure in name resolution", "Network is unreachable", "NewConnectionError",
           "ConnectTimeoutError")  # what pip says
STEPS = (("augmentation.py", "--data", "demo", "--copies", "2", "--workers", "1"),
         ("preprocessing.py", "--tile", "64", "--margin", "8", "--weights", "border"),
         ("train.py", "--preset", "fast", "--filters", "4", "--depth", "2", "--epochs", "2", "--steps", "20"),
         ("predict.py", "demo/test-volume.tif", "--flips", "1", "--out", "again.tif", "--table", "again.csv"),
         ("report.py", "--notebook", "executed.ipynb"))


def lines(path):
    """The requirements of a file, without comments and what it takes from others."""
    for line in path.read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line and not line.startswith("-r"):
            yield line


def pythons():
    """Pythons that the project takes and this machine has, by their minor version; on PATH, or pyenv's."""
    found = {}
    pyenv = shutil.which("pyenv")
    asked = pyenv and subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True)
    listed = asked.stdout.split() if asked else []
    for minor in MINORS:
        places = [shutil.which(f"python3.{minor}"), sys.executable if sys.version_info[1] == minor else None]
        for version in listed:
            if version.startswith(f"3.{minor}."):
                prefix = subprocess.run([pyenv, "prefix", version], capture_output=True, text=True).stdout.strip()
                places.append(str(Path(prefix, "bin", "python")))
        works = "import ensurepip, sys, venv; print(sys.version_info[1])"  # a shim of pyenv's may lead nowhere
        for place in filter(None, places):
            asked = subprocess.run([place, "-c", works], capture_output=True, text=True)
            if asked.stdout.strip() == str(minor):
                found.setdefault(minor, place)
    return found


def test_every_requirement_has_a_lowest_and_a_highest_version():
    assert len(FILES) > 1
    for path in FILES:
        for line in lines(path):
            assert BOUNDS.fullmatch(line), f"{path.name}: {line}"


def install_and_run(python, folder):
    """Install `folder`/requirements.txt into an environment there, and run the pipeline on a small part of the demo.

    Gives what each step printed; None where pip reaches nothing.
    """
    here = folder / "venv" / "bin" / "python"
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True, env=env)
    # nothing is compiled but what is imported: half a minute less
    pip = subprocess.run([here, "-m", "pip", "install", "--quiet", "--no-compile", "--retries", "2", "-r",
                          folder / "requirements.txt"], capture_output=True, text=True, env=env)
    if pip.returncode and any(words in pip.stderr for words in OFFLINE):
        return None
    assert pip.returncode == 0, pip.stderr

    def call(script, *words):
        done = subprocess.run([here, ROOT / script, *words], cwd=folder, capture_output=True, text=True, env=env)
        assert done.returncode == 0, f"{folder.name} versions, {script}: {done.stderr}"
        return done.stdout

    make_demo(folder / "demo", slices=8, test_slices=8, size=128)
    return {step[0]: call(*step) for step in STEPS}


@pytest.mark.slow
def test_the_lowest_and_the_newest_versions_run(tmp_path):
    there = pythons()
    if len(there) < 2:
        pytest.skip(f"Python 3.{', 3.'.join(map(str, MINORS))} are not installed here, but for 3.{[*there]}")
    lowest = "\n".join(BOUNDS.sub(r"\1==\2", line) for line in lines(FILES[0]))
    newest = "\n".join(lines(FILES[0]))
    folders = [tmp_path / "lowest", tmp_path / "newest"]
    for folder, wanted in zip(folders, (lowest, newest), strict=True):
        folder.mkdir()
        (folder / "requirements.txt").write_text(wanted)
    try:
        with ThreadPoolExecutor(2) as both:  # each waits for processes of its own
            results = list(both.map(install_and_run, (there[min(there)], there[max(there)]), folders))
    finally:
        for folder in folders:
            shutil.rmtree(folder / "venv", ignore_errors=True)  # 2 GB each, and pytest keeps folders
    if None in results:
        pytest.skip("pip reaches nothing here")
    for folder, said in zip(folders, results, strict=True):
        assert "hold-out, the network's probability" in said["train.py"]
        probability, cells = tifffile.imread(folder / "prediction.tif"), tifffile.imread(folder / "cells.tif")
        assert probability.shape == cells.shape == tifffile.imread(folder / "again.tif").shape == (8, 128, 128)
        assert 0 <= probability.min() < 0.4 < 0.6 < probability.max() <= 1
        assert all(one.max() > 3 for one in cells)
        assert json.loads((folder / "results" / "metrics.json").read_text())["probability"]
        again = tifffile.imread(folder / "again-cells.tif")
        assert len((folder / "again.csv").read_text().splitlines()) == 1 + sum(one.max() for one in again)
        assert "<h2>Look through the slices</h2>" in (folder / "results" / "report.html").read_text()
