"""The line after twenty steps: what it is made of, and that it comes once."""

import re

import numpy as np
import psutil
import pytest
from training.tiny import write_patches

import train
from model import Network, Recipe
from unet.training.feed import READERS, Feed
from unet.training.pace import Pace, duration, peak_memory


@pytest.fixture
def feed(tmp_path):
    return Feed(write_patches(tmp_path) / "patches", 2)


def line(feed, capsys, ahead, left=120, steps=30):
    pace = Pace(feed, left)
    for step in range(1, steps + 1):
        feed.batches = step + ahead
        pace.on_train_batch_end(step)
    return capsys.readouterr().out


def test_who_waits_is_told_by_the_batches_that_lie_ready(feed, capsys):
    assert "the network waits for its tiles" in line(feed, capsys, ahead=1)
    assert "tiles are ready before the network asks" in line(feed, capsys, ahead=READERS)
    assert line(feed, capsys, ahead=1, steps=19) == ""


def test_the_time_left_is_that_of_the_steps_after_the_twenty(feed):
    pace = Pace(feed, 620)
    pace.ahead = [0] * 10
    assert pace.describe(0.5).startswith("5 min of training left at 0.5 s a step; ")


def test_times_as_people_say_them():
    assert [duration(seconds) for seconds in (3.4, 89, 91, 5300, 5500)] == ["3 s", "89 s", "2 min", "88 min",
                                                                            "1 h 32 min"]


def test_the_peak_is_what_was_held_and_given_back():
    before, held = peak_memory(), psutil.Process().memory_info().rss
    np.ones((before - held + 80_000_000) // 8)
    after = peak_memory()
    assert after > before + 40_000_000 > 40_000_000
    assert peak_memory() == after


def test_a_run_says_it_once(tmp_path, capsys):
    train.train(write_patches(tmp_path), Recipe(Network(2, 1, dropout=(0, 0)), epochs=2, steps=25, batch=2))
    lines = [text for text in capsys.readouterr().out.splitlines() if "of training left" in text]
    assert len(lines) == 1
    assert re.match(r"\d+ s of training left at [\d.e-]+ s a step; \d+\.\d GB of memory at most so far; ", lines[0])
