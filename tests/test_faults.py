"""A few of the faults of faults.py: what the documented command makes of each are the undisturbed run's files."""

import os
import signal

import faults
import pytest
from faults import STEPS, Harness, Step

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX systems")


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """A small run, and its folder as it was before each step."""
    folder = tmp_path_factory.mktemp("faults")
    one = Harness(folder / "place", folder / "copies")
    one.prepare()
    return one


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS, ids=[step.name for step in STEPS])
@pytest.mark.parametrize("fault", [
    lambda harness, step: faults.kill(harness, step, signal.SIGKILL, "kill -9"),
    lambda harness, step: faults.kill(harness, step, signal.SIGTERM, "SIGTERM"),
    lambda harness, step: faults.full_disk(harness, step, 0.3),
    faults.replace_input,
    faults.two_at_once], ids=["kill", "terminate", "full disk", "replaced", "two at once"])
def test_a_fault_is_survived(harness, step, fault):
    before = sum(harness.counts.values())
    fault(harness, step)
    assert sum(harness.counts.values()) == before + 1
    assert harness.failures == []


def test_the_harness_tells_a_file_that_differs_or_is_left(tmp_path):
    step = Step("augmentation", (), (), ("augmented/manifest.json",))
    harness = Harness(tmp_path / "place", tmp_path / "copies")
    for folder, text in ((harness.place, "one"), (harness.copies / "end", "other")):
        (folder / "work" / "augmented").mkdir(parents=True)
        (folder / "work" / "augmented" / "manifest.json").write_text(text)
    assert harness.difference(step) == "augmented/manifest.json is not the undisturbed run's"
    (harness.place / "work" / "augmented" / "manifest.json").unlink()
    assert harness.difference(step) == "augmented/manifest.json is missing"
    (harness.place / "work" / ".augmented.abcdefgh").mkdir()
    assert harness.leftover() == "work/.augmented.abcdefgh is left"
    harness.note(step, "kill -9", "it is lost")
    harness.note(step, "kill -9", None)
    assert "2 injected, 1 survived, 1 lost" in faults.table(harness)
    assert "1 of 2" in faults.table(harness)
