"""Prediction: stitched equals whole, one normalisation, and a final step that does what is left, and only that."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, draw_stacks, write_nuclei, write_png, write_stacks
from numpy.testing import assert_allclose, assert_array_equal

import predict
from model import Network
from predict import FinalStep, finish
from unet.engines.engines import TensorFlow
from unet.engines.predictor import Limits, Predictor
from unet.inputs.layouts import layout_of
from unet.inputs.pages import open_pages
from unet.inputs.samples import Sample
from unet.inputs.stacks import TEST, read_stack, stack_writer, write_stack
from unet.inputs.voxel import Voxel
from unet.segment.instances import from_run_lengths
from unet.segment.walls import draw_walls, number_cells
from unet.tasks.cells import Cells
from unet.tasks.nuclei import Nuclei
from unet.tasks.task import Judged
from unet.training.encoders import build
from unet.training.trained import load_model
from utils import NotLearning, UserError, read_json

SAME = Network(4, 2, dropout=(0, 0, 0))
NETWORKS = {"same": SAME, "valid": Network(4, 2, "valid", dropout=(0, 0, 0)),
            "upsample": Network(4, 2, up="upsample", dropout=(0, 0, 0)),
            "half resolution": Network(4, 2, half=True, dropout=(0, 0, 0))}
COLOUR = {"mean": 32.0, "sd": 48.0}


def random_model(network, channels=1, mean=128.0, sd=40.0):
    """Random weights whose output depends on the whole receptive field."""
    keras.utils.set_random_seed(3)
    model = build(network, channels, {"mean": mean, "sd": sd})
    for layer in model.layers:
        layer.set_weights([weight * 1.5 for weight in layer.get_weights()])
    return model


def random_engine(*arguments, **more):
    """`random_model` as an engine."""
    return TensorFlow(random_model(*arguments, **more))


class Bright:
    """In place of a network: bright pixels are cell; counts what it is asked, and stops at the call `stop`."""

    def __init__(self, stop=None, says=None):
        self.calls, self.stop, self.says, self.tiles = 0, stop, says, []

    def __call__(self, tiles):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.tiles += list(tiles)
        mean = tiles.mean(axis=-1, keepdims=True, dtype=np.float32)
        return 1 / (1 + np.exp((118 - mean) / 12)) if self.says is None else np.full(mean.shape, self.says)


# ---------------------------------------------------------------------------------------- probability of an image


@pytest.fixture(scope="module")
def same():
    return random_engine(SAME)


@pytest.mark.parametrize(("name", "shape"), [*((name, (61, 97)) for name in NETWORKS), ("same", (5, 3))])
def test_stitched_prediction_is_the_whole_images_prediction(name, shape, same, rng):
    network = NETWORKS[name]
    engine = same if network == SAME else random_engine(network)
    predictor = Predictor(engine, network, Cells(), limits=Limits(pixels=1))  # larger batches round otherwise
    image = rng.integers(0, 256, shape, np.uint8)
    whole, stitched = predictor.predict(image, core=512), predictor.predict(image, core=4 * network.stride)
    assert (whole.shape, whole.dtype) == (shape, np.float32)
    assert whole.std() > 0.01 or min(shape) < 8
    assert_allclose(stitched, whole, atol=2e-6)


def test_stitched_colour_prediction_is_the_whole_images(rng):
    predictor = Predictor(random_engine(SAME, 3, **COLOUR), SAME, Nuclei())
    image = rng.integers(0, 256, (40, 70, 3), np.uint8)
    whole = predictor.predict(image, core=512)
    assert whole.shape == (40, 70)
    assert_allclose(predictor.predict(image, core=4 * SAME.stride), whole, atol=2e-6)
    normalised = Nuclei().normalise(image, Nuclei().levels(image))
    assert_allclose(predictor(image), predictor.predict(normalised), atol=2e-6)


def test_a_margin_below_the_receptive_field_shows_seams(same, rng):
    image = rng.integers(0, 256, (61, 97), np.uint8)
    predictor = Predictor(same, SAME, Cells())
    assert np.abs(predictor.predict(image, core=16, margin=0) - predictor.predict(image)).max() > 1e-3


def test_eight_flips_give_the_same_for_a_flipped_slice(same, rng):
    image = rng.integers(0, 256, (40, 52), np.uint8)
    eight = Predictor(same, SAME, Cells(), flips=8)
    plain, turned = eight(image), eight(image[::-1].T)
    assert_allclose(turned, plain[::-1].T, atol=2e-6)
    assert np.abs(plain - Predictor(same, SAME, Cells())(image)).max() > 1e-3


@pytest.mark.parametrize("flips", range(1, 9))
def test_every_flip_is_turned_back(flips, rng):
    """Of a network that looks at one pixel alone all flips say the same."""
    image = rng.integers(0, 256, (23, 34), np.uint8)
    assert_allclose(Predictor(Bright(), SAME, Cells(), flips).predict(image),
                    Predictor(Bright(), SAME, Cells()).predict(image), atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 52), (61, 33)])
def test_a_magnified_prediction_has_the_slices_size_and_place(shape):
    image = np.full(shape, 100, np.uint8)
    image[10:20, 8:24] = 200
    probability = Predictor(Bright(), SAME, Cells(), zooms=(1.0, 1.5))(image)
    assert (probability.shape, probability.dtype) == (shape, np.float32)
    inside = np.zeros(shape, bool)
    inside[11:19, 9:23] = True
    assert probability[inside].min() > 0.9
    inside[9:21, 7:25] = True
    assert probability[~inside].max() < probability[inside].min()


def test_what_the_network_sees_is_what_it_was_trained_on(rng):
    """Neither the microscope's brightness nor padding nor depth changes it."""
    image = rng.normal(120, 20, (64, 64)).clip(60, 180).astype(np.uint8)
    seen = Cells().normalise(image, Cells().levels(image))
    for other, where in ((image, np.s_[:]), (image + np.uint8(40), np.s_[:]), (np.pad(image, ((0, 0), (0, 30))),
                                                                              np.s_[:, :64])):
        model = Bright()
        Predictor(model, replace(SAME, padding="valid"), Cells())(other)
        margin = replace(SAME, padding="valid").margin
        tile = model.tiles[0][margin:margin + 64, margin:margin + other.shape[1], 0]
        assert_array_equal(tile[where], seen)


def test_squeezed_images_are_predicted_small_and_resized_back():
    image, label = draw_nuclei((60, 90))
    model = Bright()
    probability = Predictor(model, SAME, Nuclei(resize=32))(image)
    assert (probability.shape, probability.dtype) == ((60, 90), np.float32)
    assert model.tiles[0].shape == (32, 32, 3)
    assert probability[label > 0].mean() > 2 * probability[label == 0].mean()


def test_what_is_done_is_said():
    learnt = {"walls": {}, "on": []}
    for predictor, words in ((Predictor(None, SAME, Cells()), "no flips, no walls drawn"),
                             (Predictor(None, SAME, Cells(), 8), "mean of 8 flips, no walls drawn"),
                             (Predictor(None, SAME, Nuclei(), 8, (1.0, 1.15)),
                              "mean of 8 flips at 1, 1.15 times the size"),
                             (Predictor(None, SAME, Nuclei()), "no flips")):
        assert predictor.in_words(learnt) == words
    assert Predictor(None, SAME, Cells(), 8).in_words({"walls": {"width": 4}, "on": [15, 16, 17]}) == (
        "mean of 8 flips, walls learnt on slices 15-17")


# ---------------------------------------------------------------------------------------------- the final step


def config_of(task, split, **more):
    return {"task": task.settings(), "network": asdict(SAME), "channels": task.channels,
            "normalisation": task.normalisation, "recipe": {"flips": 1, "look_back": 3, "walls": True}, "split": split,
            **more}


@pytest.fixture
def pictured_run(tmp_path):
    """A run on 6 slices, two of them held out, as training leaves it."""
    write_stacks(tmp_path / "data", *draw_stacks(), draw_stacks(slices=2, seed=1)[0])
    return trained(tmp_path, config_of(Cells(), {"train": [0, 1, 2, 3], "holdout": [4, 5]}))


@pytest.fixture
def cells_run(pictured_run, without_pictures):
    """The same, whose picture is a file without one: it is half of the final step's time."""
    return pictured_run


@pytest.fixture
def without_pictures(monkeypatch):
    monkeypatch.setattr(predict, "pictures_of", lambda task: SimpleNamespace(holdout=lambda judged, learnt: judged))
    monkeypatch.setattr(predict, "save", lambda judged, path, dpi: path.write_bytes(bytes(len(judged))))


def trained(folder, config):
    work = folder / "results"
    work.mkdir()
    (work / "model.keras").write_bytes(b"weights")
    (work / "config.json").write_text(json.dumps({**config, "data": str(folder / "data")}))
    return work


def final(work, model=None, **changes):
    """Run what is left with a new `Bright`; gives how often that was asked, and whether anything was left."""
    config = json.loads((work / "config.json").read_text())
    layout, model = layout_of(config["data"]), model or Bright()
    task = predict.task_of(config)
    outputs = replace(task.outputs(work.parent / task.default_out), **changes)
    step = FinalStep(work, Predictor(model, SAME, task), config, layout, layout.to_predict(), outputs)
    return step.run(), model.calls


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_final_step_looks_back_judges_and_predicts(pictured_run, tmp_path):
    cells_run = pictured_run
    assert final(cells_run) == (True, 3 + 2 + 2)
    images, predictor = read_stack(tmp_path / "data" / TEST), Predictor(Bright(), SAME, Cells())
    learnt = json.loads((cells_run / "config.json").read_text())["learnt"]
    assert learnt["on"] == [1, 2, 3]
    probability = read_stack(tmp_path / "prediction.tif")
    assert_array_equal(probability, np.stack([predictor(image) for image in images]))  # the network's, nothing else
    redrawn = [draw_walls(one, learnt["walls"]) for one in probability]
    assert any((one != other).any() for one, other in zip(redrawn, probability, strict=True))
    cells = read_stack(tmp_path / "cells.tif")
    assert cells.dtype == np.uint16
    assert_array_equal(cells, [number_cells(one, learnt["threshold"]) for one in redrawn])
    held_out = layout_of(tmp_path / "data")
    assert_array_equal(read_stack(cells_run / "holdout.tif"), [predictor(held_out[number].image) for number in (4, 5)])
    scores = json.loads((cells_run / "metrics.json").read_text())
    assert [row["slice"] for row in scores["probability"]["chosen"]["per_slice"]] == [4, 5]
    assert (cells_run / "holdout.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_does_nothing(cells_run, tmp_path):
    final(cells_run)
    before = contents(tmp_path)
    assert final(cells_run) == (False, 0)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("stop", "left"), [(2, 7), (4, 4), (6, 2)], ids=["looking back", "judging", "predicting"])
def test_an_interruption_loses_no_stage_that_was_done(cells_run, tmp_path, stop, left):
    with pytest.raises(KeyboardInterrupt):
        final(cells_run, Bright(stop))
    assert not [name for name in contents(tmp_path) if name.startswith(".")]
    assert not (tmp_path / "prediction.tif").exists()
    assert (cells_run / "metrics.json").exists() == (left == 2)
    assert final(cells_run) == (True, left)
    whole = contents(tmp_path)
    for name in ("finished.json", "metrics.json", "prediction.tif"):
        (cells_run / name).unlink(missing_ok=True)
        (tmp_path / name).unlink(missing_ok=True)
    final(cells_run)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize(("name", "calls"), [("prediction.tif", 2), ("cells.tif", 2), ("results/metrics.json", 2),
                                             ("results/holdout.tif", 2), ("results/finished.json", 7)])
def test_what_is_gone_is_made_again(cells_run, tmp_path, name, calls):
    final(cells_run)
    before = contents(tmp_path)
    (tmp_path / name).unlink()
    assert final(cells_run) == (True, calls)
    assert contents(tmp_path) == before


def test_what_changed_is_done_anew(cells_run, tmp_path):
    final(cells_run)
    write_stack(tmp_path / "data" / TEST, draw_stacks(slices=3, seed=2)[0])
    assert final(cells_run) == (True, 3)
    assert len(read_stack(tmp_path / "prediction.tif")) == 3
    assert final(cells_run, out=tmp_path / "other.tif") == (True, 3)
    assert final(cells_run, out=tmp_path / "other.tif", redrawn=tmp_path / "walls.tif") == (True, 3)
    learnt = json.loads((cells_run / "config.json").read_text())["learnt"]
    assert_array_equal(read_stack(tmp_path / "walls.tif"),
                       [draw_walls(one, learnt["walls"]) for one in read_stack(tmp_path / "other.tif")])
    (cells_run / "model.keras").write_bytes(b"other weights")
    assert final(cells_run) == (True, 3 + 2 + 3)


def test_a_run_trained_anew_to_the_same_weights_is_judged_anew(cells_run):
    """Training writes config.json without what was learnt after it."""
    before = (cells_run / "config.json").read_text()
    final(cells_run)
    (cells_run / "config.json").write_text(before)
    assert final(cells_run) == (True, 7)


def test_a_network_that_says_the_same_everywhere_did_not_learn(cells_run, tmp_path):
    with pytest.raises(NotLearning, match="says the same everywhere: it did not learn"):
        final(cells_run, Bright(says=0.4))
    assert not (cells_run / "finished.json").exists()
    assert not (tmp_path / "prediction.tif").exists()


def test_nothing_held_out_is_nothing_to_judge(tmp_path):
    write_stacks(tmp_path / "data", *draw_stacks(), draw_stacks(slices=2, seed=1)[0])
    work = trained(tmp_path, config_of(Cells(), {"train": list(range(6)), "holdout": []}))
    assert final(work) == (True, 3 + 2)
    assert not (work / "metrics.json").exists()
    assert not (work / "holdout.tif").exists()


def test_held_out_nuclei_lie_beside_those_without_masks(nuclei_folder, tmp_path, capsys, without_pictures):
    nuclei_folder.rename(tmp_path / "data")
    work = trained(tmp_path, config_of(Nuclei(), {"train": [1, 3, 4, 5, 7], "holdout": [0, 2, 6]}))
    out = tmp_path / "prediction"
    out.mkdir()
    for name in ("brig1.tif", "brig1-labels.tif"):  # of an earlier run, in which it was held out
        write_stack(out / name, np.zeros((1, 4, 4), np.uint16))
    assert final(work) == (True, 5 + 3 + 1)
    assert "prediction: predictions of 1 images that train now were removed" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {f"{name}{end}" for name in ("test0", "brig0", "fluo0", "hist0")
                                                     for end in (".tif", "-labels.tif")}
    scores = json.loads((work / "metrics.json").read_text())
    assert [row["image"] for row in scores["per_image"]] == ["brig0", "fluo0", "hist0"]
    assert scores["all"]["ap"]["0.50"] > 0.7
    assert final(work) == (False, 0)
    (out / "fluo0-labels.tif").unlink()
    assert final(work) == (True, 3)
    write_nuclei(tmp_path / "data", "test0", draw_nuclei((45, 77), seed=8)[0])
    assert final(work) == (True, 1)


def test_the_picture_shows_each_group_before_a_second_of_any():
    judged = [Judged(Sample(name, None, None, name[0]), None, None, None)
              for name in ("a0", "a1", "a2", "a3", "b0", "a4", "b1", "c0")]
    kept = []
    assert list(predict._kept(iter(judged), kept, most=4)) == judged
    assert [one.sample.name for one in kept] == ["a0", "a1", "b0", "c0"]


def test_the_end_says_what_came_out_and_that_nothing_is_left(cells_run, tmp_path, capsys):
    def end():
        config = json.loads((cells_run / "config.json").read_text())
        finish(cells_run, Bright(), config, Cells().outputs(tmp_path / "prediction.tif"))
        return capsys.readouterr().out

    first, second = end(), end()
    assert "held-out slices, which judged and never trained:\nthe network's probability:" in first
    assert f"{tmp_path / 'prediction.tif'}: probability of cell, no flips, walls learnt on slices 1-3" in first
    assert f"{tmp_path / 'cells.tif'}: a number for each object, 0 = none" in first
    assert second.startswith("nothing is left to do: the network is trained, judged, and everything is predicted\n")
    assert second.endswith(first)


# ------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command_of(cells_run, command, monkeypatch):
    """Call predict.py with a network that finds bright pixels, in the folder that has results/ and data/."""
    final(cells_run)
    models, stops = [], []

    def stub(path, name, precision):
        models.append(Bright(stops.pop() if stops else None))
        return models[-1], "none"

    def run(*arguments, stop=None):
        stops[:] = [stop]
        result = command("predict.py", "--precision", "float32", *arguments)
        return result, models[-1] if models else None

    monkeypatch.setattr(predict, "open_engine", stub)
    return run


def test_the_command_gives_what_the_run_gave(command_of, cells_run, tmp_path):
    result, model = command_of("data/test-volume.tif", "--out", "again.tif")
    assert result.returncode == 0, result.stderr
    assert model.calls == 2
    assert result.stdout.splitlines()[1:] == [
        "again.tif: probability of cell of 2 images, no flips, walls learnt on slices 1-3",
        f"again-cells.tif: {sum(one.max() for one in read_stack(tmp_path / 'cells.tif'))} objects, a number for each, "
        "0 = none"]
    for name, other in (("again.tif", "prediction.tif"), ("again-cells.tif", "cells.tif")):
        assert_array_equal(read_stack(tmp_path / name), read_stack(tmp_path / other))


def test_a_table_and_linked_numbers_come_on_request(command_of, tmp_path):
    result, _ = command_of("data/test-volume.tif", "--out", "p.tif", "--link", "--table", "deep/cells.csv")
    cells = read_stack(tmp_path / "p-cells.tif")
    lines = (tmp_path / "deep" / "cells.csv").read_text().splitlines()
    assert lines[0].startswith("slice,name,label,area_px,")
    assert len(lines) == 1 + sum(len(np.unique(one[one > 0])) for one in cells)
    assert result.stdout.splitlines()[-2:] == [f"p-cells.tif: {cells.max()} objects, a number for each, 0 = none",
                                              "deep/cells.csv: a row for each object"]
    refused = command_of("data/test-volume.tif", "--out", "p.tif", "--table", "p.tif")[0]
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "p.tif is named for two outputs" in refused.stderr


def test_the_size_of_a_pixel_reaches_outputs_and_another_one_is_said(command_of, cells_run, tmp_path):
    images = draw_stacks(2, 40, 1)[0]
    with stack_writer(tmp_path / "fine.tif", images.shape, np.uint8, voxel=Voxel(0.004, 0.004, 0.05)) as write:
        for image in images:
            write(image)
    result = command_of("fine.tif", "--out", "p.tif", "--table", "p.csv")[0]
    assert (result.returncode, "note" in result.stdout) == (0, False)
    for name in ("p.tif", "p-cells.tif"):
        assert open_pages(tmp_path / name).voxel == Voxel(pytest.approx(0.004), pytest.approx(0.004), 0.05)
    heads, first = ((tmp_path / "p.csv").read_text().splitlines()[line].split(",") for line in (0, 1))
    values = dict(zip(heads, first, strict=True))
    assert float(values["area_um2"]) == pytest.approx(float(values["area_px"]) * 0.004**2, rel=1e-4)

    refused = command_of("fine.tif", "--out", "p.tif", "--match-pixel-size")[0]
    assert refused.returncode == 2 and "the pixel size of the images that trained is not known" in refused.stderr
    config = read_json(cells_run / "config.json", "")
    (cells_run / "config.json").write_text(json.dumps({**config, "voxel": {"y": 0.002, "x": 0.002, "z": None}}))
    told = command_of("fine.tif", "--out", "p.tif")[0]
    assert "a pixel of fine.tif is 0.004 µm, but the network was trained on 0.002 µm; --match-pixel-size" in told.stdout
    matched = command_of("fine.tif", "--out", "p.tif", "--match-pixel-size")[0]
    assert "no flips at 2 times the size" in matched.stdout and "note" not in matched.stdout
    assert read_stack(tmp_path / "p.tif").shape == images.shape
    refused = command_of("data/test-volume.tif", "--out", "p.tif", "--match-pixel-size")[0]
    assert "the pixel size of data/test-volume.tif is not known" in refused.stderr


def test_a_stopped_prediction_goes_on_where_it_stood(command_of, tmp_path):
    whole = command_of("data/test-volume.tif", "--out", "p.tif")[0]
    before = {name: (tmp_path / name).read_bytes() for name in ("p.tif", "p-cells.tif")}
    for name in before:
        (tmp_path / name).unlink()
    stopped = command_of("data/test-volume.tif", "--out", "p.tif", stop=2)[0]
    assert stopped.returncode == 130
    assert "stopped; 1 of 2 images are kept in p.tif.part: the same command with --resume goes on" in stopped.stderr
    refused = command_of("data/test-volume.tif", "--out", "p.tif", "--resume", "--flips", 2)[0]
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "--flips None (now 2)" in refused.stderr
    resumed, model = command_of("data/test-volume.tif", "--out", "p.tif", "--resume")
    assert (model.calls, resumed.stdout) == (1, whole.stdout)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not (tmp_path / "p.tif.part").exists()


def test_flips_and_zooms_are_those_asked_for(command_of):
    result, model = command_of("data/test-volume.tif", "--flips", 3, "--zooms", 1, 1.5, "--out", "a.tif")
    assert model.calls == 2 * 2  # the flips of a square slice are one batch
    assert len(model.tiles) == 2 * 3 * 2
    assert "mean of 3 flips at 1, 1.5 times the size, walls" in result.stdout
    assert command_of("data/test-volume.tif", "--flips", 9)[0].returncode == 2
    assert command_of("data/test-volume.tif", "--zooms", 0)[0].returncode == 2


def test_seams_are_looked_for_on_request(command_of):
    result, _ = command_of("data/test-volume.tif", "--check-seams", "--out", "a.tif")
    assert "seams: none, each image was predicted in one tile" in result.stdout.splitlines()
    refused, _ = command_of("data/test-volume.tif", "--check-seams", "--zooms", 1.5, "--out", "a.tif")
    assert (refused.returncode, "add --zooms 1" in refused.stderr) == (2, True)


def test_cells_and_walls_go_where_they_are_wanted(command_of, cells_run, tmp_path):
    command_of("data/test-volume.tif", "--out", "p.tif", "--cells", "deep/c.tif", "--walls", "w.tif")
    learnt = read_json(cells_run / "config.json", "")["learnt"]
    walls = read_stack(tmp_path / "w.tif")
    assert_array_equal(walls, [draw_walls(one, learnt["walls"]) for one in read_stack(tmp_path / "p.tif")])
    cells = read_stack(tmp_path / "deep" / "c.tif")
    assert_array_equal(cells, [number_cells(one, learnt["threshold"]) for one in walls])
    assert not (tmp_path / "p-cells.tif").exists()


def test_without_walls_cells_are_those_of_the_probability(command_of, cells_run, tmp_path):
    result, _ = command_of("data/test-volume.tif", "--out", "p.tif", "--no-walls")
    assert "no flips, no walls drawn" in result.stdout
    threshold = read_json(cells_run / "config.json", "")["learnt"]["plain_threshold"]
    assert_array_equal(read_stack(tmp_path / "p-cells.tif"),
                       [number_cells(one, threshold) for one in read_stack(tmp_path / "p.tif")])
    refused = command_of("data/test-volume.tif", "--no-walls", "--walls", "w.tif")[0]
    assert "not allowed with" in refused.stderr.splitlines()[-1]


def test_a_run_that_learnt_nothing_yet_says_so_in_one_line(command_of, cells_run, tmp_path):
    config = read_json(cells_run / "config.json", "")
    del config["learnt"]
    (cells_run / "config.json").write_text(json.dumps(config))
    result, _ = command_of("data/test-volume.tif", "--out", "p.tif")
    [note] = [line for line in result.stdout.splitlines() if line.startswith("note")]
    assert "stopped before thresholds and walls were learnt, so .5 is taken; 'python train.py --work results" in note
    assert_array_equal(read_stack(tmp_path / "p-cells.tif"),
                       [number_cells(one, 0.5) for one in read_stack(tmp_path / "p.tif")])
    refused = command_of("data/test-volume.tif", "--walls", "w.tif")[0]
    assert (refused.returncode, refused.stderr) == (2, "predict.py: --walls w.tif: results/model.keras draws no walls; "
                                                       "leave it out\n")


def test_pictures_and_kaggles_lines_are_written_on_request(nuclei_folder, tmp_path, command, monkeypatch):
    nuclei_folder.rename(tmp_path / "data")
    trained(tmp_path, config_of(Nuclei(), {"train": [], "holdout": []}, learnt={"on": []}))
    image = np.full((10, 12), 5, np.uint8)
    image[1:7, 2:8] = 200  # pixels 2 to 7 of the columns 3 to 8: from 2 * 10 + 2 on
    write_png(tmp_path / "in" / "a.png", image)
    write_png(tmp_path / "in" / "b.png", np.zeros((9, 9), np.uint8))
    write_png(tmp_path / "in" / "c.png", draw_nuclei((45, 77), seed=9)[0])
    monkeypatch.setattr(predict, "open_engine", lambda path, name, precision: (Bright(), "none"))
    done = command("predict.py", "in", "--submission", "s.csv", "--panels", "panels", "--precision", "float32",
                   "--table", "t.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["prediction: probability of nucleus of 3 images, no flips",
                                            "prediction: 8 objects, a number for each, 0 = none",  # 1, 0 and 7
                                            "t.csv: a row for each object"]
    rows = [line.split(",") for line in (tmp_path / "t.csv").read_text().splitlines()[1:]]
    assert [row[:4] for row in rows[:2]] == [["0", "a", "1", "36"], ["2", "c", "1", rows[1][3]]]
    assert (len(rows), rows[0][-1]) == (8, "200")
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[:3] == ["ImageId,EncodedPixels", "a,22 6 32 6 42 6 52 6 62 6 72 6", "b,"]  # none is a line, too
    labels = tifffile.imread(tmp_path / "prediction" / "c-labels.tif")
    assert_array_equal(from_run_lengths([line.partition(",")[2] for line in lines[3:]], labels.shape), labels)
    assert {path.name for path in (tmp_path / "panels").iterdir()} == {"a.png", "b.png", "c.png"}


def test_wrong_commands_are_one_clear_line_before_the_work(command_of, tmp_path):
    write_png(tmp_path / "plain" / "x.png", np.zeros((20, 20), np.uint8))
    for arguments, reason in (
            ("data", "pages, expected one image"), ("nowhere.tif", "nowhere.tif not found; name the stack"),
            ("data/test-volume.tif --out data/test-volume.tif", "test-volume.tif is an input and would be replaced"),
            ("data/test-volume.tif --out plain", "name another output, for instance plain/prediction.tif"),
            ("data/test-volume.tif --out a.tif --cells a.tif", "a.tif is named for two outputs"),
            ("data/test-volume.tif --submission plain", "plain is a folder"),
            ("data/test-volume.tif --panels plain/x.png", "x.png is no folder that can be written"),
            ("data/test-volume.tif --model nowhere.keras", "nowhere.keras not found; run 'python train.py' first")):
        result, model = command_of(*arguments.split())
        assert (result.returncode, model) == (2, None), result.stdout
        assert reason in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_missing_broken_or_strange_model_says_what_to_do(same, tmp_path, rng):
    path = tmp_path / "model.keras"
    same.model.save(path)
    config = config_of(Cells(), {"train": [], "holdout": []})
    path.with_name("config.json").write_text(json.dumps(config))
    model, _ = load_model(path)
    image = rng.integers(0, 256, (30, 40), np.uint8)
    expected = Predictor(same, SAME, Cells())(image)
    assert_allclose(Predictor(TensorFlow(model), SAME, Cells())(image), expected, atol=1e-6)
    with pytest.raises(UserError, match=r"other\.keras not found; run 'python train\.py'"):
        load_model(path.with_name("other.keras"))
    path.with_name("config.json").write_text(json.dumps({**config, "normalisation": {"mean": 0, "sd": 1}}))
    with pytest.raises(UserError, match=r"this version brings them to .*; predict with the version that trained it"):
        load_model(path)
    path.with_name("config.json").write_text(json.dumps(config))
    path.write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read as a model"):
        load_model(path)
    path.with_name("config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json not found"):
        load_model(path)
