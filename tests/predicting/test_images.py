"""Prediction image by image: a stopped one goes on and gives the very same, linked and with its table, or refuses."""

import csv
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from conftest import draw_stacks
from numpy.testing import assert_array_equal

from unet.inputs.layouts import StackSamples
from unet.inputs.stacks import read_stack, write_stack
from unet.predicting.checkpoint import Checkpoint
from unet.predicting.extras import Extras
from unet.predicting.images import predictions
from unet.segment.judge import fit_judge, neighbouring
from unet.segment.linking import Linker
from unet.segment.walls import draw_walls
from unet.system.lock import lock_outputs
from unet.tasks.cells import Cells
from unet.tasks.task import Outputs
from utils import UserError

LEARNT = {"walls": None, "threshold": 0.5}
ABOUT = {"model": "m", "--flips": "1"}


class Bright:
    """A stand-in for a network: bright pixels are cell; stops at call `stop`."""

    best_threads = 1

    def __init__(self, stop=None):
        self.calls, self.stop = 0, stop

    def __call__(self, image):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        return np.clip((image.astype(np.float32) - 60) / 100, 0, 1)


@pytest.fixture
def stack(tmp_path):
    """Write a stack of five slices whose membranes stay where they are."""
    images, _ = draw_stacks(1)
    noise = np.random.default_rng(0).normal(0, 4, (5, *images[0].shape))
    write_stack(tmp_path / "in.tif", np.clip(images + noise, 0, 255).astype(np.uint8))
    return tmp_path / "in.tif"


def predict(stack, stop=None, about=ABOUT, resume=False, name="p", link=True):
    """Predict a stack; return the number of images that the network predicted."""
    folder, model = stack.parent, Bright(stop)
    outputs = Outputs(folder / f"{name}.tif", folder / f"{name}-cells.tif")
    extras = Extras(link, folder / f"{name}.csv", checkpoint=Checkpoint(outputs.out, about, resume))
    for _ in predictions(model, Cells(), StackSamples(stack), LEARNT, outputs, extras=extras):
        pass
    return model.calls


def contents(folder, name):
    return {path.name.removeprefix(name): path.read_bytes() for path in folder.glob(f"{name}[.-]*") if path.is_file()}


def test_what_was_stopped_goes_on_and_gives_the_same_to_the_byte(stack):
    folder = stack.parent
    assert predict(stack) == 5
    with pytest.raises(KeyboardInterrupt, match=r"stopped; 3 of 5 images are kept in .*q\.tif\.part: the same command"):
        predict(stack, stop=4, name="q")
    assert {path.name for path in folder.glob("*q*")} == {"q.tif.part"}  # nothing in its place, nobody locked out
    with pytest.raises(KeyboardInterrupt, match="4 of 5"):
        predict(stack, stop=2, name="q", resume=True)
    assert predict(stack, name="q", resume=True) == 1
    assert set(contents(folder, "q")) == {".tif", "-cells.tif", ".csv"}
    assert contents(folder, "q") == contents(folder, "p")
    assert not list(folder.glob("*.part"))


def test_walls_are_judged_by_the_images_before_and_after(stack):
    judged = fit_judge([(np.random.default_rng(0).normal(0, 3, (300, 16)), np.arange(300) % 2 == 0)])
    learnt = {"walls": {"width": 4.0, "judge": None, "with_neighbours": judged}, "threshold": 0.5, "on": [0]}
    outputs = Outputs(stack.parent / "p.tif", stack.parent / "c.tif", stack.parent / "w.tif")
    shown = list(predictions(Bright(), Cells(), StackSamples(stack), learnt, outputs))
    probabilities = [one.probability for one in shown]
    assert [one.sample.name for one in shown] == list(StackSamples(stack).names)
    assert_array_equal(probabilities, read_stack(outputs.out))
    drawn = [draw_walls(one, learnt["walls"], neighbouring(probabilities, number))
             for number, one in enumerate(probabilities)]
    assert_array_equal(read_stack(outputs.redrawn), drawn)
    assert any((draw_walls(one.probability, learnt["walls"]) != one.redrawn).any() for one in shown)


def test_what_is_kept_when_an_image_is_bad_is_said(stack, capsys, monkeypatch):
    class Fails(Bright):
        """Fails at a call as if an image were bad."""

        def __call__(self, image):
            try:
                return super().__call__(image)
            except KeyboardInterrupt:
                raise UserError("a bad image") from None

    monkeypatch.setattr(sys.modules[__name__], "Bright", Fails)
    with pytest.raises(UserError, match="a bad image"):
        predict(stack, stop=4)
    assert "note: 3 of 5 images are kept in" in capsys.readouterr().out
    assert predict(stack, resume=True) == 2
    with pytest.raises(UserError, match="a bad image"):
        predict(stack, stop=1)
    assert "note" not in capsys.readouterr().out
    assert not (stack.parent / "p.tif.part").exists()


def test_without_resume_it_begins_anew_and_with_nothing_kept_too(stack):
    with pytest.raises(KeyboardInterrupt):
        predict(stack, stop=4)
    assert predict(stack) == 5
    assert predict(stack, resume=True) == 5


def test_what_changed_is_refused_by_name(stack):
    with pytest.raises(KeyboardInterrupt):
        predict(stack, stop=4)
    with pytest.raises(UserError, match=r"--flips 1 \(now 8\); go on as it was started, or leave out --resume"):
        predict(stack, about={**ABOUT, "--flips": "8"}, resume=True)
    with pytest.raises(UserError, match="a prediction with another model"):
        predict(stack, about={**ABOUT, "model": "other"}, resume=True)
    images = read_stack(stack)
    images[1, 5, 5] ^= 1
    write_stack(stack, images)
    with pytest.raises(UserError, match=r"image 1 of the input has changed since .*p\.tif\.part was left"):
        predict(stack, resume=True)
    assert not (stack.parent / "p.tif").exists()


def test_a_file_that_a_power_cut_emptied_is_predicted_again(stack):
    with pytest.raises(KeyboardInterrupt):
        predict(stack, stop=4)
    next((stack.parent / "p.tif.part").glob("0000001-*.npy")).write_bytes(b"")
    assert predict(stack, resume=True) == 3


def test_somebodys_folder_is_left_alone(stack):
    (stack.parent / "p.tif.part").mkdir()
    with pytest.raises(UserError, match="no stopped prediction left it"):
        predict(stack)


def test_two_into_one_output_are_refused(stack):
    with lock_outputs([stack.parent / "p-cells.tif"]), pytest.raises(UserError, match="is being written by process"):
        predict(stack)
    assert not (stack.parent / "p.tif.part").exists()


def test_linked_cells_are_in_the_file_and_in_the_table(stack):
    predict(stack)
    predict(stack, name="apart", link=False)
    linked, apart = (read_stack(stack.parent / f"{name}-cells.tif") for name in ("p", "apart"))
    link = Linker()
    assert_array_equal(linked, [link(one) for one in apart])
    assert (linked[0] == linked[4]).mean() > 0.95  # all the way through
    assert linked[linked > 0].max() >= 16
    rows = list(csv.DictReader((stack.parent / "p.csv").open(encoding="utf-8")))
    assert {(int(row["slice"]), int(row["label"])) for row in rows} == {
        (number, label) for number, one in enumerate(linked) for label in np.unique(one[one > 0])}


def test_images_of_two_sizes_cannot_be_linked(stack):
    samples = StackSamples(stack)
    samples.images = [samples.images[0], samples.images[1][:50]]
    samples.names = samples.names[:2]

    class Loose(Cells):
        """Cells that writes nothing: files do not matter here."""

        def writer(self, outputs, samples):
            return nullcontext(lambda judged: None)

    with pytest.raises(UserError, match="--link: slice 1 does not have the size of the image before it"):
        list(predictions(Bright(), Loose(), samples, LEARNT, Outputs(stack.parent / "p.tif"), extras=Extras(link=True)))
