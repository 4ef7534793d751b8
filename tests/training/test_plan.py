"""What step 1 is going to make is known before it begins; workers are told by name what to read."""

import json
import pickle

import numpy as np
import pytest
from conftest import draw_stacks, write_stacks

from augmentation import Pairs
from unet.inputs.layouts import layout_of
from unet.tasks import choose_task
from unet.training.plan import Settings, announce, plan, stacks_of, write_manifest


@pytest.fixture
def planned(tmp_path):
    """Layout, task and manifest of 8 slices of 256 x 256, of which 7 train, with half a copy each."""
    layout = layout_of(write_stacks(tmp_path, *draw_stacks(8, 256), draw_stacks()[0]))
    task = choose_task(layout)
    return layout, task, plan(layout, task, Settings(copies=0.5))


def test_the_plan_counts_pages_and_bytes(planned, capsys):
    layout, task, manifest = planned
    assert [source["copies"] for source in manifest["sources"]] == [0, 1, 0, 1, 0, 1, 1, 0]
    assert manifest["shape"] == [12, 256, 256]
    stacks = stacks_of(manifest, layout, task)
    assert stacks == {"images": ([12, 256, 256], np.uint8), "labels": ([12, 256, 256], np.uint8)}
    assert announce(manifest, task, stacks, by_default=False) == 12 * 256 * 256 * 2
    assert capsys.readouterr().out == ("4 copies, spread over 7 slices: 12 pairs including the originals, 1.6 MB on "
                                       "disk\n")
    announce({**manifest, "copies": 3}, task, stacks, by_default=True)
    assert capsys.readouterr().out.startswith("3 copies of each slice, as many as training draws: ")


def test_a_manifest_has_a_line_for_each_page(planned, tmp_path):
    records = [{"page": 0, "source": 0}, {"page": 1, "source": 3}]
    write_manifest(tmp_path / "manifest.json", planned[2], iter(records))
    text = (tmp_path / "manifest.json").read_text()
    assert json.loads(text) == json.loads(json.dumps({**planned[2], "samples": records}))
    assert '\n  {"page": 1, "source": 3}\n' in text


def test_workers_are_sent_names_and_not_pixels(planned):
    layout, task, manifest = planned
    assert layout[7].image.size > 10 * len(pickle.dumps(Pairs(layout, task, manifest, {})))
