"""predict.py: what the command writes, says and refuses."""

import json

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, draw_stacks, write_png
from finished import Bright, config_of, final, trained
from helpers import of_run_lengths
from numpy.testing import assert_array_equal

import predict
from unet.inputs.pages import open_pages
from unet.inputs.stacks import read_stack, stack_writer
from unet.inputs.voxel import Voxel
from unet.segment.judge import neighbouring
from unet.segment.walls import draw_walls, number_cells
from unet.tasks.nuclei import Nuclei
from utils import read_json


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
        "again.tif: probability of cell of 2 images, no flips",
        f"again-cells.tif: {sum(one.max() for one in read_stack(tmp_path / 'cells.tif'))} objects, a number for each "
        "cell, 0 = border; walls learnt on slices 1-3"]
    for name, other in (("again.tif", "prediction.tif"), ("again-cells.tif", "cells.tif")):
        assert_array_equal(read_stack(tmp_path / name), read_stack(tmp_path / other))


def test_a_table_and_linked_numbers_come_on_request(command_of, tmp_path):
    result, _ = command_of("data/test-volume.tif", "--out", "p.tif", "--link", "--table", "deep/cells.csv")
    cells = read_stack(tmp_path / "p-cells.tif")
    lines = (tmp_path / "deep" / "cells.csv").read_text().splitlines()
    assert lines[0].startswith("slice,name,label,area_px,")
    assert len(lines) == 1 + sum(len(np.unique(one[one > 0])) for one in cells)
    *_, numbered, last = result.stdout.splitlines()
    assert numbered.startswith(f"p-cells.tif: {cells.max()} objects, a number for each cell, 0 = border; ")
    assert last == "deep/cells.csv: a row for each object"
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
    assert refused.returncode == 2 and "the pixel size of the training images is not known" in refused.stderr
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
    assert "mean of 3 flips at 1, 1.5 times the size\n" in result.stdout
    assert command_of("data/test-volume.tif", "--flips", 9)[0].returncode == 2
    assert command_of("data/test-volume.tif", "--zooms", 0)[0].returncode == 2


def test_seams_are_looked_for_on_request(command_of):
    result, _ = command_of("data/test-volume.tif", "--check-seams", "--out", "a.tif")
    assert "seams: none, or nothing to compare them with" in result.stdout.splitlines()
    refused, _ = command_of("data/test-volume.tif", "--check-seams", "--zooms", 1.5, "--out", "a.tif")
    assert (refused.returncode, "predict with --zooms 1" in refused.stderr) == (2, True)


def test_cells_and_walls_go_where_they_are_wanted(command_of, cells_run, tmp_path):
    command_of("data/test-volume.tif", "--out", "p.tif", "--cells", "deep/c.tif", "--walls", "w.tif")
    learnt = read_json(cells_run / "config.json", "")["learnt"]
    probability, walls = read_stack(tmp_path / "p.tif"), read_stack(tmp_path / "w.tif")
    assert_array_equal(walls, [draw_walls(one, learnt["walls"], neighbouring(probability, number))
                               for number, one in enumerate(probability)])
    cells = read_stack(tmp_path / "deep" / "c.tif")
    assert_array_equal(cells, [number_cells(one, learnt["threshold"]) for one in walls])
    assert not (tmp_path / "p-cells.tif").exists()


def test_without_walls_cells_are_those_of_the_probability(command_of, cells_run, tmp_path):
    result, _ = command_of("data/test-volume.tif", "--out", "p.tif", "--no-walls")
    assert result.stdout.endswith("; no walls drawn\n")
    assert "no flips\n" in result.stdout
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
    assert done.stdout.splitlines()[1:] == ["prediction: probability of nucleus of 3 images, no flips; 8 objects, a "
                                            "number for each object, 0 = none",  # 1, 0 and 7
                                            "panels: a picture of each image", "s.csv: Kaggle's run-length lines",
                                            "t.csv: a row for each object"]
    rows = [line.split(",") for line in (tmp_path / "t.csv").read_text().splitlines()[1:]]
    assert [row[:4] for row in rows[:2]] == [["0", "a", "1", "36"], ["2", "c", "1", rows[1][3]]]
    assert (len(rows), rows[0][-1]) == (8, "200")
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[:3] == ["ImageId,EncodedPixels", "a,22 6 32 6 42 6 52 6 62 6 72 6", "b,"]  # none is a line, too
    labels = tifffile.imread(tmp_path / "prediction" / "c-labels.tif")
    assert_array_equal(of_run_lengths([line.partition(",")[2] for line in lines[3:]], labels.shape), labels)
    assert {path.name for path in (tmp_path / "panels").iterdir()} == {"a.png", "b.png", "c.png"}


def test_wrong_commands_are_one_clear_line_before_the_work(command_of, tmp_path):
    write_png(tmp_path / "plain" / "x.png", np.zeros((20, 20), np.uint8))
    (tmp_path / "notes.csv").write_text("what I saw\n")
    for arguments, reason in (
            ("data", "data is a folder of stacks; name one of them, for instance data/test-volume.tif"),
            ("nowhere.tif", "nowhere.tif not found; name the stack"),
            ("data/test-volume.tif --out data/test-volume.tif", "test-volume.tif is an input and would be replaced"),
            ("data/test-volume.tif --out plain", "name another output, for instance plain/prediction.tif"),
            ("data/test-volume.tif --out a.tif --cells a.tif", "a.tif is named for two outputs"),
            ("data/test-volume.tif --out a.tif --table a-cells.tif", "a-cells.tif is named for two outputs"),
            ("data/test-volume.tif --out a.tif --submission a.tif", "a.tif is named for two outputs"),
            ("data/test-volume.tif --table a.csv --submission a.csv", "a.csv is named for two outputs"),
            ("data/test-volume.tif --table results/model.keras", "model.keras is an input and would be replaced"),
            ("data/test-volume.tif --submission results/config.json", "config.json is an input and would be replaced"),
            ("data/test-volume.tif --table notes.csv", "notes.csv was not written by this command and would be"),
            ("data/test-volume.tif --out slices --panels slices", "slices is named for two outputs"),
            ("data/test-volume.tif --zooms inf", "inf is not a number of 0.1 or more"),
            (f"data/test-volume.tif --out {'n' * 250}.tif", "cannot be written or read (File name too long)"),
            ("data/test-volume.tif --table a.xlsx", "tables are CSV, which spreadsheets open; end the name with"),
            ("data/test-volume.tif --model .", ". is a folder; name the model in it, for instance model.keras"),
            ("data/test-volume.tif --panels plain/x.png", "x.png is not a folder that can be written"),
            ("data/test-volume.tif --model nowhere.keras", "nowhere.keras not found; run 'python train.py' first")):
        result, model = command_of(*arguments.split())
        assert (result.returncode, model) == (2, None), result.stdout
        assert reason in result.stderr
        assert len(result.stderr.splitlines()) == 1
