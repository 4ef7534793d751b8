"""Several models as one: the mean of what they say, of what they learnt, and which are refused."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, draw_stacks, write_png
from numpy.testing import assert_allclose, assert_array_equal

import predict
from unet.engines.ensemble import Ensemble, find_models, read_configs
from unet.engines.predictor import Limits, Predictor
from unet.engines.seams import Seams, seam_positions
from unet.inputs.stacks import write_stack
from unet.network import Network
from unet.segment.crests import find_walls
from unet.segment.judge import fit_judge, judge, neighbouring
from unet.segment.walls import draw_walls
from unet.tasks.cells import Cells
from unet.tasks.classes import Classes
from unet.tasks.nuclei import Nuclei
from utils import UserError

SAME = Network(4, 2, dropout=(0, 0, 0))


class Says:
    """A stand-in for a network: bright pixels are cell, each model with another middle; counts its calls."""

    def __init__(self, middle=118.0, stop=None):
        self.middle, self.stop, self.calls = middle, stop, 0

    def __call__(self, tiles):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        mean = tiles.mean(axis=-1, keepdims=True, dtype=np.float32)
        return 1 / (1 + np.exp((self.middle - mean) / 12))


def members(*networks, flips=2, task=None, core=640):
    return [Predictor(Says(100 + 10 * number), network, task or Cells(), flips, limits=Limits(core))
            for number, network in enumerate(networks)]


# ------------------------------------------------------------------------------------------------- the mean


@pytest.mark.parametrize(("task", "shape"), [(Cells(), (45, 70)), (Nuclei(), (45, 70, 3))])
def test_the_mean_of_what_all_say_is_given(rng, task, shape):
    image = rng.integers(0, 256, shape, np.uint8)
    several = members(SAME, replace(SAME, depth=1, dropout=(0, 0)), SAME, task=task)
    expected = np.mean([one(image) for one in several], axis=0)
    probability = Ensemble(several)(image)
    assert (probability.shape, probability.dtype) == (shape[:2], np.float32)
    assert_allclose(probability, expected, atol=1e-6)
    assert np.abs(expected - several[0](image)).max() > 0.1


@pytest.mark.parametrize("flips", [1, 3])
def test_the_spread_is_over_all_models_and_flips(rng, flips):
    several = members(SAME, SAME, flips=flips)
    image = rng.integers(0, 256, (45, 70), np.uint8)
    probability, spread = Ensemble(several)(image), Ensemble(several).with_spread(image)
    assert_allclose(spread[0], probability, atol=1e-6)
    assert (spread[1].shape, spread[1].dtype) == (image.shape, np.float32)
    assert_allclose(spread[1], np.std([one(image) for one in several], axis=0), atol=1e-3)  # flips agree here


def test_bands_of_networks_with_other_grids_are_those_of_the_whole(rng):
    several = Ensemble(members(SAME, Network(4, 4, dropout=(0,) * 5), core=32))
    image = rng.integers(0, 256, (150, 40), np.uint8)
    step = several.row_step(image.shape)
    assert several.by_rows and step % 16 == 0
    bands = [several.rows(image, Cells().levels(image), first, min(first + step, 150)) for first in range(0, 150, step)]
    assert len(bands) > 2
    assert_allclose(np.concatenate(bands), several(image), atol=1e-6)


def test_seam_positions_all_members_are_looked_at(rng):
    several = members(SAME, Network(4, 4, dropout=(0,) * 5), core=40)
    noise = rng.random((100, 70), np.float32)
    places = [seam_positions(one, noise.shape)[0].tolist() for one in several]
    assert places[0] != places[1]
    seams = Seams(Ensemble(several))
    seams.add(noise)
    width = 70
    assert seams.counts[1] >= len({*places[0], *places[1]}) * width


# ------------------------------------------------------------------------------------------- what they learnt


@pytest.fixture(scope="module")
def learnts():
    """Return what three models learnt on slices of their own, the last without walls."""
    found = []
    for number, walls in enumerate((True, True, False)):
        images, labels = draw_stacks(4, 128, number)
        outputs = [1 / (1 + np.exp((110 - image.astype(np.float32)) / 12)) for image in images]
        learnt = Cells().learn(outputs, labels, walls)
        if walls:  # so few are wrong here that no judge is learnt
            rng = np.random.default_rng(number)
            for name, count in (("judge", 15), ("with_neighbours", 16)):
                learnt["walls"][name] = fit_judge([(rng.normal(0, 3, (300, count)), rng.random(300) < 0.5)])
        found.append({**learnt, "on": [number, number + 5], "threshold": 0.3 + 0.1 * number})
    return found


def test_walls_are_the_mean_of_all_judges(learnts):
    one = Cells().combine_learnt(learnts)
    assert one["on"] == [0, 1, 2, 5, 6, 7]
    assert one["threshold"] == pytest.approx(0.35)  # of the two that draw walls
    assert one["plain_threshold"] == pytest.approx(np.mean([learnt["plain_threshold"] for learnt in learnts]))
    assert one["walls"]["width"] == pytest.approx(np.mean([learnt["walls"]["width"] for learnt in learnts[:2]]))
    assert json.loads(json.dumps(one)) == one
    assert Cells().describe(one) == "a number for each cell, 0 = border; walls learnt on slices 0-2, 5-7"
    image = draw_stacks(1, 128, 7)[0][0]
    probability = 1 / (1 + np.exp((110 - image.astype(np.float32)) / 12))
    walls, judges = find_walls(probability, one["walls"]["width"]), [learnt["walls"]["judge"] for learnt in learnts[:2]]
    said = judge(walls, one["walls"]["judge"])
    assert_allclose(said, (judge(walls, judges[0]) + judge(walls, judges[1])) / 2)
    assert_allclose(judge(walls, [judges[0], None]), (judge(walls, judges[0]) + walls.mean) / 2)
    assert (draw_walls(probability, one["walls"]) != probability).any()
    assert one["walls"]["with_neighbours"] == [learnt["walls"]["with_neighbours"] for learnt in learnts[:2]]
    older = {**learnts[0], "walls": {name: learnts[0]["walls"][name] for name in ("width", "judge")}}
    # one of them never learnt it
    assert Cells().combine_learnt([older, learnts[1]])["walls"]["with_neighbours"] is None


def test_where_most_draw_no_walls_none_are_drawn(learnts):
    one = Cells().combine_learnt([learnts[0], learnts[2], learnts[2]])
    assert one["walls"] is None
    assert one["threshold"] == one["plain_threshold"]
    assert Cells().describe(one) == "a number for each cell, 0 = border; no walls drawn: 1 of 3 models draw them"
    assert Classes(classes=3).combine_learnt([{"on": [1, 2]}, {"on": [2, 4]}]) == {"on": [1, 2, 4]}


# ----------------------------------------------------------------------------------------------- the command


def write_models(folder, *learnts, task=None, **more):
    """Write results/fold-1/model.keras, ..., that learnt this; return the files."""
    task, files = task or Cells(), []
    for number, learnt in enumerate(learnts, 1):
        work = folder / "results" / f"fold-{number}"
        work.mkdir(parents=True)
        (work / "model.keras").write_bytes(b"weights %d" % number)
        config = {"task": task.settings(), "network": asdict(replace(SAME, classes=task.classes)),
                  "channels": task.channels, "normalisation": task.normalisation, "recipe": {"flips": 2}, **more}
        (work / "config.json").write_text(json.dumps({**config, "learnt": learnt} if learnt else config))
        files.append(work / "model.keras")
    return files


@pytest.fixture
def run(command, monkeypatch):
    """Call predict.py with networks that find bright pixels, the k-th above another grey level."""
    engines = []

    def stub(path, name, precision):
        engines.append(Says(90 + 10 * int(path.parent.name[5:]), stops.pop() if stops else None))
        return engines[-1], "none"

    stops = []
    monkeypatch.setattr(predict, "open_engine", stub)

    def call(*arguments, stop=None):
        engines.clear()
        stops[:] = [stop] if stop else []
        return command("predict.py", "--precision", "float32", *arguments), [engine.calls for engine in engines]
    return call


def test_several_models_are_one_command_and_one_line(run, learnts, tmp_path):
    write_models(tmp_path, *learnts)
    images = draw_stacks(3, 48, 3)[0]
    write_stack(tmp_path / "in.tif", images)
    result, calls = run("in.tif", "--model", *(f"results/fold-{number}/model.keras" for number in (1, 2, 3)),
                        "--out", "p.tif", "--walls", "w.tif")
    assert result.returncode == 0, result.stderr
    assert calls == [3, 3, 3]
    assert result.stdout.splitlines()[1] == "p.tif: probability of cell of 3 images, mean of 3 models, mean of 2 flips"
    assert result.stdout.splitlines()[2].endswith("; walls learnt on slices 0-2, 5-7")
    predictors = [Predictor(Says(90 + 10 * number), SAME, Cells(), 2) for number in (1, 2, 3)]
    probability = tifffile.imread(tmp_path / "p.tif")
    assert_allclose(probability, [np.mean([one(image) for one in predictors], axis=0) for image in images], atol=1e-6)
    walls = Cells().combine_learnt(learnts)["walls"]
    assert_array_equal(tifffile.imread(tmp_path / "w.tif"), [
        draw_walls(one, walls, neighbouring(probability, number)) for number, one in enumerate(probability)])
    # a pattern, quoted for shells without one, and the input behind it
    again, _ = run("--model", "results/fold-*/model.keras", "in.tif", "--out", "q.tif")
    assert again.returncode == 0, again.stderr
    assert_array_equal(tifffile.imread(tmp_path / "q.tif"), probability)
    alone, _ = run("--model", "results/fold-2/model.keras", "in.tif", "--out", "r.tif", "--no-walls")
    assert "of 3 images, mean of 2 flips\n" in alone.stdout
    missing, _ = run("--model", "results/fold-2/model.keras")
    assert (missing.returncode, "INPUT is missing" in missing.stderr) == (2, True)


def test_a_stopped_ensemble_goes_on_with_the_same_models_only(run, learnts, tmp_path):
    write_models(tmp_path, *learnts)
    write_stack(tmp_path / "in.tif", draw_stacks(3, 48, 3)[0])
    three = ("in.tif", "--out", "p.tif", "--model", "results/fold-*/model.keras")
    run(*three)
    whole = (tmp_path / "p.tif").read_bytes()
    (tmp_path / "p.tif").unlink()
    stopped, _ = run(*three, stop=3)
    assert (stopped.returncode, "2 of 3 images are kept" in stopped.stderr) == (130, True)
    refused, _ = run(*three[:-1], "results/fold-1/model.keras", "results/fold-2/model.keras", "--resume")
    assert (refused.returncode, "another model" in refused.stderr) == (2, True)
    resumed, calls = run(*three, "--resume")
    assert (resumed.returncode, calls) == (0, [1, 1, 1])
    assert (tmp_path / "p.tif").read_bytes() == whole


def test_a_model_of_a_stopped_run_takes_what_the_others_learnt(run, learnts, tmp_path):
    write_models(tmp_path, learnts[0], None, learnts[1])
    write_stack(tmp_path / "in.tif", draw_stacks(1, 48, 3)[0])
    result, _ = run("in.tif", "--out", "p.tif", "--model", "results/fold-*/model.keras")
    [note] = [line for line in result.stdout.splitlines() if line.startswith("note")]
    assert "results/fold-2/model.keras was stopped before" in note and "those of the others are taken" in note


def test_images_in_folders_are_predicted_by_several_models(run, tmp_path):
    write_models(tmp_path, {"on": [0]}, {"on": [1]}, task=Nuclei())
    write_png(tmp_path / "in" / "a.png", draw_nuclei((45, 77), seed=9)[0])
    result, _ = run("in", "--model", "results/fold-*/model.keras", "--panels", "panels")
    assert result.returncode == 0, result.stderr
    assert "probability of nucleus of 1 image, mean of 2 models, mean of 2 flips" in result.stdout
    assert (tmp_path / "panels" / "a.png").is_file()


def test_models_come_in_order_and_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / f"fold-{number}" / "model.keras" for number in (10, 2, 1)]
    for file in files:
        file.parent.mkdir()
        file.touch()
    assert find_models([*files, files[0]]) == find_models([tmp_path / "fold-*" / "model.keras"]) == files[::-1]
    with pytest.raises(UserError, match=r"nowhere-\*\.keras matches no file"):
        find_models([tmp_path / "nowhere-*.keras"])


@pytest.mark.parametrize(("change", "what"), [
    ({"task": {"name": "classes", "classes": 3}}, "task"), ({"channels": 3}, "number of channels"),
    ({"network": {"classes": 3}}, "number of classes")])
def test_models_that_say_something_else_are_refused(tmp_path, change, what):
    files = write_models(tmp_path, {"on": []}, {"on": []})
    config = json.loads(files[1].with_name("config.json").read_text())
    files[1].with_name("config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=f"fold-2/model.keras has another {what} .* than .*fold-1/model.keras"):
        read_configs(files)


def test_squeezed_nuclei_are_not_those_at_their_own_size(tmp_path):
    first, = write_models(tmp_path / "a", {"on": []}, task=Nuclei())
    second, = write_models(tmp_path / "b", {"on": []}, task=Nuclei(resize=32))
    with pytest.raises(UserError, match="another normalisation"):
        read_configs([first, second])

