"""The part of the report that one can use: a slider, linked zoom, a table of cells, in a real browser."""

import json
import re

import numpy as np
import pytest
from browser import CHROMIUM, Browser

from report import PAGE
from unet.report.by_task import pictures_of
from unet.report.viewer import viewer
from unet.scores.doubt import doubt_of, write_doubts

VIEWS = "[...document.querySelectorAll('#viewer canvas')].map(one => one.dataset.view)"
SHOWN = "document.getElementById('viewer').dataset.shown"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium")


@pytest.fixture(params=["cells", "classes", "nuclei", "cells of images", "classes of images"])
def viewed(request, runs, tmp_path):
    """A run of each task, and the page with its viewer alone."""
    run = runs[request.param]
    write_doubts(run.work / "next.csv", [
        doubt_of(one.sample.name, one.probability, run.task.decisive_pixels(one.probability, run.learnt),
                 np.full(one.objects.shape, 0.125)) for one in run.predictions(range(len(run.to_predict)))])
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(title="viewer", body=viewer(run, pictures_of(run.task))), encoding="utf-8")
    yield run, page
    (run.work / "next.csv").unlink()


def content(page):
    return json.loads(re.search(r'id="viewer-data">(.*?)</script>', page.read_text())[1])


def test_samples_come_with_all_their_pictures_and_objects(viewed):
    run, page = viewed
    samples = content(page)["samples"]
    assert [one["name"] for one in samples] == [*(f"{one.sample.name}, held out" for one in run.holdout_predictions),
                                                *run.to_predict.names]
    for one, sample in zip(run.holdout_predictions, samples, strict=False):
        kinds = [picture["kind"] for picture in sample["pictures"]]
        assert kinds[0] == "image"
        assert {"truth", "mistakes", "doubt"} <= set(kinds)
        assert sample["size"] == list(one.objects.shape)
        if pictures_of(run.task).object_name:
            assert sum(row["area"] for row in sample["objects"]) == (one.objects > 0).sum()
    assert "<th>disagreement</th>" in page.read_text() and "<td>0.125</td>" in page.read_text()
    assert "http" not in page.read_text()


@needs_browser
def test_slider_zoom_and_next_work_for_every_task(viewed, tmp_path):
    run, page = viewed
    samples = content(page)["samples"]
    last = len(samples) - 1
    with Browser(tmp_path / "profile") as browser:
        browser.open(page)
        browser.wait(f"{SHOWN} === '0'")
        browser.run("document.getElementById('viewer-slider').focus()")
        browser.key("ArrowRight")
        browser.wait(f"{SHOWN} === '1'")
        browser.run(f"(() => {{const one = document.getElementById('viewer-slider'); one.value = {last}; "
                    f"{SHOWN} = ''; one.dispatchEvent(new Event('input'))}})()")  # it may be shown already
        browser.wait(f"{SHOWN} === '{last}'")
        assert browser.run("document.getElementById('viewer-name').textContent") == run.to_predict.names[-1]
        browser.click("#viewer canvas")
        x, y = browser.middle("#viewer canvas")
        browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
        browser.wait(f"Number({VIEWS}[0].split(' ')[2]) > 2")
        views = browser.run(VIEWS)
        assert len(views) >= 2
        assert len(set(views)) == 1  # all follow
        browser.key("ArrowRight")
        moved = browser.run(VIEWS)
        assert float(moved[0].split()[0]) > float(views[0].split()[0])
        browser.key("0")
        assert set(browser.run(VIEWS)) == {"0.5 0.5 1"}
        number, *box = json.loads(browser.run(f"{SHOWN} = ''; document.querySelector('[data-tile]').dataset.tile"))
        browser.click("button[data-tile]")
        browser.wait(f"{SHOWN} === '{number}'")
        share = max((box[side + 2] - box[side]) / samples[number]["size"][side] for side in (0, 1))
        assert float(browser.run(VIEWS)[0].split()[2]) == pytest.approx(max(0.5 / share, 1))
        assert browser.complaints == []


@needs_browser
@pytest.mark.parametrize("viewed", ["cells"], indirect=True)
def test_a_click_on_a_row_shows_the_cell_and_one_on_a_cell_its_row(viewed, tmp_path):
    chosen = ("[...document.querySelectorAll('#viewer-scroll tbody tr[aria-selected=true]')]"
              ".map(one => one.object.number)")
    with Browser(tmp_path / "profile") as browser:
        browser.open(viewed[1])
        browser.wait(f"{SHOWN} === '0'")
        cells = {one["number"]: one for one in content(viewed[1])["samples"][0]["objects"]}
        assert browser.run("document.querySelectorAll('#viewer-scroll tbody tr').length") == len(cells)
        assert browser.run("document.querySelectorAll('#viewer-histogram rect').length") == 24
        before = browser.run("document.querySelector('#viewer canvas').toDataURL()")
        browser.click("#viewer-scroll tbody tr:nth-child(3)")
        number, = browser.run(chosen)
        top, left, bottom, right = cells[number]["box"]
        x, y, zoom = map(float, browser.run(VIEWS)[0].split())
        assert zoom > 1
        assert abs(x - (left + right) / 2 / 128) <= 0.5 / zoom
        assert abs(y - (top + bottom) / 2 / 128) <= 0.5 / zoom
        assert browser.run("document.querySelector('#viewer canvas').toDataURL()") != before
        browser.key("ArrowDown")  # from row to row, and choose, by keys alone
        browser.key("Enter")
        assert browser.run(chosen) == [4]
        browser.click("#viewer-whole")
        one, width = cells[2], browser.run("document.querySelector('#viewer canvas').clientWidth")
        browser.click("#viewer canvas", *((one[side] / 128 - 0.5) * width for side in "xy"))
        assert browser.run(chosen) == [2]
        browser.click("#viewer-scroll thead th:nth-child(2) button")
        areas = browser.run("[...document.querySelectorAll('#viewer-scroll tbody tr')].map(one => one.object.area)")
        assert areas == sorted(areas, reverse=True)
        browser.run("document.querySelector('#viewer canvas').focus()")
        for number in (1, 2):  # the picture stays the one that hears keys
            browser.key("PageDown")
            browser.wait(f"{SHOWN} === '{number}'")
        assert browser.complaints == []


@needs_browser
def test_a_script_error_would_be_heard(tmp_path):
    (tmp_path / "wrong.html").write_text("<script>nowhere.defined()</script>")
    with Browser(tmp_path / "profile") as browser:
        browser.open(tmp_path / "wrong.html")
        assert browser.complaints
