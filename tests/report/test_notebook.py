"""The notebook runs top to bottom on what a run left; its report is one file that a browser opens without an error."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import code_cells, every_cell_passed
from PIL import Image
from unet.report.lastrun import last_run

from unet.inputs.stacks import format_slices
from unet.report import methods
from utils import UserError

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "jupyter.ipynb"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def reported(tiny_run):
    """Folder of a tiny run with results/report.html and the executed notebook, made as a user makes them."""
    done = subprocess.run([sys.executable, str(ROOT / "report.py"), "--notebook", "executed.ipynb"], cwd=tiny_run,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return tiny_run


def test_every_cell_passes_on_a_tiny_run(reported):
    every_cell_passed(reported / "executed.ipynb")


def test_the_committed_notebook_is_whole_small_and_of_the_demo():
    text = NOTEBOOK.read_text()
    assert NOTEBOOK.stat().st_size < 3_000_000
    assert "synthetic demo stack" in text
    assert not re.search(r"/(tmp|home|root|Users)/", text)
    for cell in code_cells(NOTEBOOK)[1:]:
        assert len(cell.outputs) == 1
        assert cell.outputs[0].output_type in ("execute_result", "display_data")


def test_the_notebook_has_short_cells_without_logic():
    for cell in code_cells(NOTEBOOK):
        assert len(cell.source.splitlines()) <= 12
        assert not re.search(r"^\s*(def|class|for|while|if|with) ", cell.source, re.MULTILINE)


def test_the_report_is_one_file_with_all_that_was_asked_of_it(reported):
    html = (reported / "results" / "report.html").read_text()
    assert not re.search(r"<script|<link|<iframe|(src|href)=[\"']?(https?:)?//|@import|url\(", html)
    assert len(re.findall(r"<img[^>]+src=\"?data:image/jpeg;base64", html)) == html.count("<img") >= 14
    for words in ("seed of the training", "keras 3.", "tensorflow 2.", "CPU cores", "slices that judged", "slice 5",
                  "10.3389/fnana.2015.00142", "made by a program and shows no real tissue", "For the methods section"):
        assert words in html, words
    assert "last_run()" not in html  # code is hidden


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium")
def test_the_report_opens_in_a_browser_without_a_script_error(reported, tmp_path):
    def opened(page, picture):
        done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                               f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
                               "--window-size=1280,3000", f"--screenshot={picture}", page.as_uri()],
                              capture_output=True, text=True, timeout=120)
        assert picture.is_file(), done.stderr[-2000:]
        return re.findall(r"CONSOLE.*", done.stderr)

    wrong = tmp_path / "wrong.html"
    wrong.write_text("<script>nowhere.defined()</script>")
    assert opened(wrong, tmp_path / "wrong.png")  # an error would be heard
    assert opened(reported / "results" / "report.html", tmp_path / "report.png") == []
    shown = np.asarray(Image.open(tmp_path / "report.png").convert("L"))
    assert shown.std(axis=1)[1500:].max() > 30  # pictures, not a blank page


def test_a_run_that_is_not_there_is_one_clear_line(script):
    done = script("report.py", "--work", "nowhere")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "run 'make'" in done.stderr


def test_the_environment_names_the_run(tiny_run, monkeypatch):
    for name, value in (("WORK", "results"), ("OUT", "prediction.tif"), ("DATA", "")):
        monkeypatch.setenv(name, value and str(tiny_run / value))
    run = last_run()
    assert run.images.shape == run.labels.shape == (6, 128, 128)
    assert run.prediction.shape == run.test.shape == (2, 128, 128)
    assert run.is_demo
    monkeypatch.setenv("OUT", str(tiny_run / "results" / "holdout.tif"))
    assert last_run().prediction is None  # of other slices
    monkeypatch.setenv("DATA", str(tiny_run))
    assert last_run().test is None
    monkeypatch.setenv("WORK", str(tiny_run / "demo"))
    with pytest.raises(UserError, match="run 'make'"):
        last_run()


def test_another_augmentation_than_the_model_was_trained_on_is_refused(tiny_run, tmp_path):
    for name in ("augmented/manifest.json", "patches/geometry.json", "config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(tiny_run / "results" / name, tmp_path / name)
    manifest = json.loads((tmp_path / "augmented/manifest.json").read_text())
    manifest["split"]["holdout"] = [0]
    (tmp_path / "augmented/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="another split"):
        last_run(tmp_path)


def test_a_paper_gets_the_right_citations(tiny_run):
    run = last_run(tiny_run / "results", out=tiny_run / "prediction.tif")
    text = methods.paragraph(run)
    assert "synthetic" in text
    assert "pbio.1000502" not in text
    assert "slices 5 (numbered from 0) were held out" in text
    isbi = {**run.manifest, "inputs": {"data/train-volume.tif": methods.ISBI_VOLUME}, "data": "data"}
    text = methods.paragraph(replace(run, manifest=isbi))
    assert "Cardona et al. 2010" in text
    assert "10.1371/journal.pbio.1000502" in text
    unjudged = replace(run, scores=None, judged=None,
                       config={**run.config, "split": {"train": [0, 1, 2], "holdout": []}})
    assert "no slice was held out" in methods.paragraph(unjudged)
    assert "no scores" in methods.scores(unjudged)
    assert "own stack" in methods.paragraph(replace(run, manifest={**run.manifest, "data": "mine"}))
    assert format_slices([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
