"""The notebook runs top to bottom on what a run left; its report is one file that a browser opens without an error."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from report import code_hash, execute

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "jupyter.ipynb"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def code_cells(path):
    """The code cells of a notebook."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def code(path):
    """The code of a notebook, but for the values of its parameters."""
    return [cell.source for cell in code_cells(path) if "parameters" not in cell.metadata.get("tags", ())]


@pytest.fixture(scope="module")
def reported(tiny_run, tmp_path_factory):
    """Copy of a tiny run with results/report.html and the executed notebook, made as a user makes them."""
    folder = tmp_path_factory.mktemp("reported")
    shutil.copytree(tiny_run, folder, dirs_exist_ok=True)  # other tests look at what a run leaves
    done = subprocess.run([sys.executable, str(ROOT / "report.py"), "--notebook", "executed.ipynb"], cwd=folder,
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_cell_passes_on_a_tiny_run(reported):
    executed = code_cells(reported / "executed.ipynb")
    assert code(reported / "executed.ipynb") == code(NOTEBOOK)
    assert [cell.execution_count for cell in executed] == list(range(1, len(executed) + 1))
    assert executed[0].source.splitlines()[0] == f"work = {str(reported / 'results')!r}"
    for cell in executed[3:]:
        wanted = "text/markdown" if "Markdown" in cell.source else "image/jpeg"
        assert [wanted in output.data for output in cell.outputs] == [True], cell.source


def test_the_committed_notebook_was_executed_as_it_is():
    cells, node = code_cells(NOTEBOOK), nbformat.read(NOTEBOOK, as_version=4)
    assert node.metadata["executed"] == code_hash(node)
    assert cells[0].metadata["tags"] == ["parameters"]
    assert 'work = "results"' in cells[0].source
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells[3:]:
        assert [output.output_type for output in cell.outputs] == ["execute_result"], cell.source
    text = NOTEBOOK.read_text()
    assert NOTEBOOK.stat().st_size < 4_000_000
    assert "synthetic demo stack" in text
    assert not re.search(r"/(tmp|home|root|Users)/", text)


def test_the_notebook_has_short_cells_without_logic():
    for cell in code_cells(NOTEBOOK):
        assert len(cell.source.splitlines()) <= (14 if "import" in cell.source else 3)
        assert not re.search(r"^\s*(def|class|for|while|if|with) ", cell.source, re.MULTILINE)


@pytest.mark.slow
def test_the_report_is_one_file_with_all_that_was_asked_of_it(reported):
    html = (reported / "results" / "report.html").read_text()
    assert not re.search(r"<script src|<link|<iframe|(src|href)=[\"']?(https?:)?//|@import|url\(", html)
    assert len(re.findall(r"<img[^>]+src=\"?data:image/jpeg;base64", html)) == html.count("<img") >= 14
    assert len(html) < 15e6
    for words in ("seed of the training", "keras 3.", "tensorflow 2.", "CPU cores", "slice 5",
                  "held-out slices, for scoring only", "10.3389/fnana.2015.00142",
                  "made by a program and shows no real tissue", "For the methods section",
                  "Look through the slices", "What to label next"):
        assert words in html, words
    assert "last_run" not in html  # code is hidden


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium")
def test_the_report_opens_in_a_browser_without_a_script_error(reported, tmp_path):
    def opened(page, picture):
        done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                               f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
                               "--window-size=1280,3000", f"--screenshot={picture}", page.as_uri()],
                              capture_output=True, text=True, timeout=600)
        assert picture.is_file(), done.stderr[-2000:]
        return re.findall(r"CONSOLE.*", done.stderr)

    wrong = tmp_path / "wrong.html"
    wrong.write_text("<script>nowhere.defined()</script>")
    assert opened(wrong, tmp_path / "wrong.png")  # an error would be heard
    assert opened(reported / "results" / "report.html", tmp_path / "report.png") == []
    shown = np.asarray(Image.open(tmp_path / "report.png").convert("L"))
    assert shown.std(axis=1)[1500:].max() > 30  # pictures, not a blank page


def test_a_run_that_is_not_there_is_one_clear_line(command):
    done = command("report.py", "--work", "nowhere")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "run 'make'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classes", "nuclei"])
def test_every_cell_passes_on_other_tasks(runs, name):
    run = runs[name]
    places = {"work": run.work, "data": run.layout.folder, "out": run.outputs.out}
    node = execute({key: str(place) for key, place in places.items()})
    for cell in [cell for cell in node.cells if cell.cell_type == "code"][3:]:
        wanted = "text/markdown" if "Markdown" in cell.source else "image/jpeg"
        assert [wanted in output.data for output in cell.outputs] == [True], cell.source
