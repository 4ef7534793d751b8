"""Prediction of nuclei images: files at the images' own sizes, run-length lines, pictures, judgement, the commands."""

import csv
import json
from dataclasses import asdict, replace

import keras
import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, write_png
from unet.tasks.crops import WindowOptions, squeeze
from unet.tasks.nuclei_prediction import (
    check_folder,
    judge_nuclei,
    predict_image,
    remove_predictions,
    write_folder,
)

import predict
from augmentation import augment
from model import PRESETS, Network, Recipe, build_unet
from predict import predict_normalised, predictor_of
from preprocessing import preprocess
from train import train
from unet.inputs.folders import find_images, kind_of, levels_of, stretch
from unet.segment.instances import from_run_lengths
from unet.training.feed import tiles, training_feed, varied
from utils import NotLearning, UserError

SMALL = Network(4, 2, dropout=(0, 0, 0))


def bright_is_nucleus(image):
    """A predictor that needs no training: after normalisation nuclei are bright."""
    assert image.dtype == np.uint8
    return (image.mean(axis=2) / 255).astype(np.float32)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_each_image_gets_its_files_at_its_own_size(nuclei_folder, tmp_path):
    out = tmp_path / "out"
    sources = find_images(nuclei_folder)
    count, notes = write_folder(sources, out, bright_is_nucleus, submission=tmp_path / "submission.csv")
    assert notes == []
    names = [source.name for source in sources]
    assert {path.name for path in out.iterdir()} == {
        f"{name}{end}" for name in names for end in (".tif", "-labels.tif")}
    write_folder(sources[-1:], out, bright_is_nucleus, panels=True)
    assert [path.name for path in out.glob("*.png")] == ["test0.png"]
    with tifffile.TiffFile(out / "test0.tif") as tiff:
        assert tiff.is_imagej
        probability = tiff.asarray()
    labels = tifffile.imread(out / "test0-labels.tif")
    assert (probability.shape, probability.dtype) == ((45, 77), np.float32)
    assert (labels.shape, labels.dtype) == ((45, 77), np.uint16)
    truth = draw_nuclei((45, 77), seed=9)[1]
    assert np.mean((labels > 0) == (truth > 0)) > 0.99
    # Kaggle's lines give the instances back
    rows = rows_of(tmp_path / "submission.csv")
    assert sorted({row["ImageId"] for row in rows}) == sorted(names)
    assert len(rows) == count
    back = from_run_lengths([row["EncodedPixels"] for row in rows if row["ImageId"] == "test0"], labels.shape)
    assert np.array_equal(back, labels)


def test_predictions_of_an_earlier_run_are_removed_and_nothing_else(tmp_path):
    for name in ("old.tif", "old-labels.tif", "old.png", "mine.tif", "mine.png", "held.tif", "held-labels.tif"):
        (tmp_path / name).write_bytes(b"")
    assert remove_predictions(tmp_path, ["old", "mine", "never"]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"mine.tif", "mine.png", "held.tif", "held-labels.tif"}


def test_run_length_lines_by_hand(tmp_path):
    """Pixels count from 1, down the columns; an image without nuclei has a line with nothing in it."""
    image = np.full((10, 12), 5, np.uint8)
    image[1:7, 2:8] = 200  # pixels 2 to 7 of the columns 3 to 8: from 2 * 10 + 2 on
    write_png(tmp_path / "in" / "a.png", image)
    write_png(tmp_path / "in" / "b.png", np.zeros((9, 9), np.uint8))
    write_folder(find_images(tmp_path / "in"), tmp_path / "out", bright_is_nucleus, submission=tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "ImageId,EncodedPixels\na,22 6 32 6 42 6 52 6 62 6 72 6\nb,\n"


def test_squeezed_images_are_predicted_small_and_resized_back():
    image, labels = draw_nuclei((60, 90))
    seen = []

    def predictor(small):
        seen.append(small)
        return bright_is_nucleus(small)

    probability = predict_image(image, predictor, 32)
    assert np.array_equal(seen[0], squeeze(image, 32))
    assert (probability.shape, probability.dtype) == ((60, 90), np.float32)
    assert probability[labels > 0].mean() > 2 * probability[labels == 0].mean()


@pytest.mark.parametrize("shape", [(96, 96), (61, 97), (40, 130), (5, 3)])
def test_stitched_colour_prediction_is_the_whole_images(shape, rng):
    keras.utils.set_random_seed(3)
    model = build_unet(SMALL, 3, 32.0, 48.0)
    for layer in model.layers:
        layer.set_weights([weight * 1.5 for weight in layer.get_weights()])
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    whole = predict_normalised(model, image, SMALL, core=512)
    assert whole.shape == shape
    np.testing.assert_allclose(predict_normalised(model, image, SMALL, core=4 * SMALL.stride), whole, atol=2e-6)
    config = {"network": asdict(SMALL), "recipe": {"flips": 1}}
    np.testing.assert_allclose(predict_image(image, predictor_of(model, config)),
                               predict_normalised(model, stretch(image, levels_of(image, kind_of(image))), SMALL),
                               atol=2e-6)


# ------------------------------------------------------------------------------------------ feed and judgement


@pytest.fixture
def work(nuclei_folder, tmp_path):
    """Tiles of 64 x 64 of the nuclei folder, with two copies."""
    augment(nuclei_folder, tmp_path / "work", copies=2, workers=1, options=WindowOptions(side=64))
    preprocess(tmp_path / "work")
    return tmp_path / "work"


def test_colour_tiles_are_fed_with_labels_and_weights(work):
    geometry = json.loads((work / "patches" / "geometry.json").read_text())
    images = np.load(work / "patches" / "train-images.npy")
    read = list(tiles(work, geometry, "train", ("images", "weights"), None).as_numpy_iterator())
    assert np.array_equal([image for image, _ in read], images)
    recipe = Recipe(SMALL, batch=2, intensity=1.0)
    image, label, weight = next(iter(training_feed(work, geometry, recipe, 1, None)))
    assert (image.shape, label.shape, weight.shape) == ((2, 64, 64, 3), (2, 64, 64, 1), (2, 64, 64))


def test_colours_vary_each_for_itself():
    image = np.full((8, 8, 3), 128, np.float32)
    means = np.array([varied(image, 1.0, np.array([seed, 7], np.int32)).numpy().mean((0, 1)) for seed in range(30)])
    between = means - means.mean(axis=1, keepdims=True)
    assert 5 < between.std() < 40
    gray = varied(image[..., :1], 1.0, np.array([3, 7], np.int32)).numpy()
    assert gray.shape == (8, 8, 1)


def test_held_out_images_are_judged_one_by_one(work, nuclei_folder, tmp_path):
    manifest = json.loads((work / "augmented" / "manifest.json").read_text())
    scores = judge_nuclei(work, nuclei_folder, manifest, bright_is_nucleus, tmp_path / "out")
    held_out = [manifest["images"][number]["name"] for number in manifest["split"]["holdout"]]
    assert [row["image"] for row in scores["per_image"]] == held_out
    assert set(scores["modalities"]) == {"fluorescence", "histology", "bright-field"}
    assert scores["all"]["ap"]["0.50"] > 0.7
    assert scores["all"]["iou"] > 0.8
    assert json.loads((work / "metrics.json").read_text()) == scores
    assert (work / "holdout.png").is_file()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{name}{end}" for name in held_out for end in (".tif", "-labels.tif")}
    with pytest.raises(NotLearning, match="did not learn"):
        judge_nuclei(work, nuclei_folder, manifest, lambda image: np.zeros(image.shape[:2], np.float32), tmp_path)
    manifest["split"]["holdout"] = []
    assert judge_nuclei(work, nuclei_folder, manifest, bright_is_nucleus, tmp_path) is None


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="go into a folder"):
        check_folder(tmp_path / "file")


# -------------------------------------------------------------------------------------------------- the commands


def test_the_same_three_commands(script, nuclei_folder, tmp_path):
    for arguments in (("augmentation.py", "--data", nuclei_folder, "--copies", 3, "--workers", 1, "--window", 64),
                      ("preprocessing.py",)):
        result = script(*arguments)
        assert result.returncode == 0, result.stderr
    trained = script("train.py", "--epochs", 2, "--steps", 30, "--batch", 4, "--filters", 8, "--depth", 2)
    assert trained.returncode == 0, trained.stderr
    assert "AP@0.50" in trained.stdout
    manifest = json.loads((tmp_path / "results" / "augmented" / "manifest.json").read_text())
    held_out = [manifest["images"][number]["name"] for number in manifest["split"]["holdout"]]
    assert {path.name for path in (tmp_path / "prediction").iterdir()} == {
        f"{name}{end}" for name in ("test0", *held_out) for end in (".tif", "-labels.tif")}
    config = json.loads((tmp_path / "results" / "config.json").read_text())
    assert (config["kind"], config["channels"], config["resize"]) == ("nuclei", 3, None)

    # the final step alone: a plain folder, pictures and Kaggle's table
    write_png(tmp_path / "plain" / "x.png", draw_nuclei((45, 77), seed=9)[0])
    again = script("predict.py", "plain", "--out", "again", "--panels", "--submission", "s.csv")
    assert again.returncode == 0, again.stderr
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"x.tif", "x-labels.tif", "x.png"}
    np.testing.assert_allclose(tifffile.imread(tmp_path / "again" / "x.tif"),
                               tifffile.imread(tmp_path / "prediction" / "test0.tif"), atol=2e-2)  # bfloat16
    assert rows_of(tmp_path / "s.csv")
    for name in ("test0.tif", "test0-labels.tif"):
        (tmp_path / "prediction" / name).unlink()
    scored = script("metrics.py", "prediction", nuclei_folder, "--json", "scores.json")
    assert scored.returncode == 0, scored.stderr
    assert (json.loads((tmp_path / "scores.json").read_text())["all"]["ap"]
            == json.loads((tmp_path / "results" / "metrics.json").read_text())["all"]["ap"])


def test_the_recipe_on_squeezed_images(nuclei_folder, tmp_path):
    augment(nuclei_folder, tmp_path, workers=1, resize=32)
    preprocess(tmp_path)
    model, config = train(tmp_path, replace(PRESETS["nuclei"], epochs=1, steps=3, batch=4))
    assert config["parameters"] == 1_941_105
    assert config["resize"] == 32
    probability = predict_image(draw_nuclei((30, 140))[0], predictor_of(model, config), config["resize"])
    assert probability.shape == (30, 140)


def test_wrong_commands_are_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = build_unet(SMALL, 1, 128.0, 40.0)
    (tmp_path / "results").mkdir()
    model.save(tmp_path / "results" / "model.keras")
    config = {"network": asdict(SMALL), "channels": 1, "normalisation": {"mean": 128.0, "sd": 40.0},
              "recipe": {"flips": 1}}
    (tmp_path / "results" / "config.json").write_text(json.dumps(config))
    write_png(tmp_path / "plain" / "x.png", np.zeros((20, 20), np.uint8))
    for arguments, said in (("plain", "trained on stacks of slices"), ("nowhere.tif --panels", "for models of nuclei"),
                            ("plain --instances i.tif", "is for stacks of cells"),
                            ("plain --out plain/x.png", "go into a folder"),
                            ("plain --submission plain", "is a folder")):
        monkeypatch.setattr("sys.argv", ["predict.py", "--precision", "float32", *arguments.split()])
        with pytest.raises(UserError, match=said):
            predict.main()
