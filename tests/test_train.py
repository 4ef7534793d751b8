"""Training: the feed, the schedule, stopping and going on, and what a run that cannot work says."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

import predict
import train
from augmentation import augment
from model import PRESETS, Network, Recipe, build_unet, compile_model
from predict import judge, load_model, predict_slices, prepare_device
from preprocessing import Tiling, preprocess
from train import Keeper, recipe_of
from unet.training.feed import tiles, training_feed, varied
from utils import NotLearning, UserError

TINY = Recipe(Network(4, 2, dropout=(0, 0, 0)), epochs=3, steps=4, batch=2, lr=3e-3)


@pytest.fixture
def work(tiny_folder, tmp_path):
    """Tiles of the tiny folder: 4 slices to train on, 2 copies each, 2 held out."""
    augment(tiny_folder, tmp_path / "work", copies=2, holdout="4,5", workers=1)
    preprocess(tmp_path / "work", Tiling(32, 8))
    return tmp_path / "work"


def geometry_of(work):
    return json.loads((work / "patches" / "geometry.json").read_text())


def test_tiles_read_without_python_are_the_arrays_on_disk(work):
    geometry = geometry_of(work)
    images, labels = (np.load(work / "patches" / f"train-{name}.npy") for name in ("images", "labels"))
    read = list(tiles(work, geometry, "train", ("images", "labels"), None).as_numpy_iterator())
    assert np.array_equal([image[..., 0] for image, _ in read], images)
    assert np.array_equal([label[..., 0] for _, label in read], labels)


def test_tiles_of_some_slices_only(work):
    sources = np.load(work / "patches" / "train-sources.npy")
    images = np.load(work / "patches" / "train-images.npy")
    kept = [image[..., 0] for image, in tiles(work, geometry_of(work), "train", ("images",), [1, 3])]
    assert 0 < len(kept) < len(images)
    assert np.array_equal(kept, images[np.isin(sources, [1, 3])])


def test_feed_turns_image_and_label_alike(work):
    """Write the label as the image: whatever is drawn, both arrive the same; same seed, same batches."""
    geometry = geometry_of(work)
    labels = np.load(work / "patches" / "train-labels.npy", mmap_mode="r")
    images = np.load(work / "patches" / "train-images.npy", mmap_mode="r+")
    images[:] = labels
    images.flush()
    batches = [list(training_feed(work, geometry, TINY, seed, None).take(6).as_numpy_iterator()) for seed in (1, 1, 2)]
    for image, label in batches[0]:
        assert image.shape == label.shape == (2, 32, 32, 1)
        assert np.array_equal(image, label)
    first, again, other = (np.concatenate([image for image, _ in part]) for part in batches)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    known = {label.tobytes() for label in labels}
    assert any(image.astype(np.uint8)[..., 0].tobytes() not in known for image in first)  # some were turned


def test_intensity_varies_within_its_strength():
    image = np.full((64, 64, 1), 128, np.float32)
    draws = [varied(image, 1.0, [seed, 7]).numpy() for seed in range(40)]
    means, spreads = [draw.mean() for draw in draws], [draw.std() for draw in draws]
    assert np.std(means) > 10  # brightness and gamma
    assert 6 < max(spreads) < 13  # noise
    assert np.array_equal(varied(image, 1.0, [3, 7]), draws[3])
    assert np.abs(varied(image, 0.0, [1, 1]).numpy() - image).max() < 1


def test_a_run_writes_its_files_and_the_mean_of_the_schedules_end(work, monkeypatch):
    seen = []
    original = Keeper.on_epoch_end

    def spy(self, epoch, logs=None):
        seen.append(self.model.get_weights())
        original(self, epoch, logs)

    monkeypatch.setattr(Keeper, "on_epoch_end", spy)
    recipe = Recipe(TINY.network, epochs=4, steps=3, batch=2, lr=3e-2, average=0.5, optimizer="muon")
    model, config = train.train(work, recipe, seed=1)
    mean = [np.mean(pair, axis=0) for pair in zip(*seen[-2:], strict=True)]
    saved = keras.models.load_model(work / "model.keras")
    assert getattr(saved, "optimizer", None) is None  # nothing but the network: no custom object, a third of the size
    for expected, here, on_disk in zip(mean, model.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_allclose(here, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(here, on_disk)
    rows = (work / "history.csv").read_text().splitlines()
    assert len(rows) == 5
    assert config["recipe"]["epochs"] == 4
    assert json.loads((work / "config.json").read_text())["network"]["filters"] == 4


def test_same_seed_same_weights(work):
    one, two = (train.train(work, TINY, seed=5)[0].get_weights() for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_ctrl_c_saves_and_resume_goes_on(work, monkeypatch):
    original = Keeper.on_epoch_begin

    def interrupt(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt
        original(self, epoch, logs)

    monkeypatch.setattr(Keeper, "on_epoch_begin", interrupt)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        train.train(work, TINY, seed=1)
    stopped = keras.models.load_model(work / "checkpoint" / "last.keras")
    assert int(stopped.optimizer.iterations) == 2 * TINY.steps
    assert (work / "model.keras").is_file()
    monkeypatch.setattr(Keeper, "on_epoch_begin", original)
    with pytest.raises(UserError, match="other settings"):
        train.train(work, TINY, seed=2, resume=True)
    train.train(work, TINY, seed=1, resume=True)
    rows = (work / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]


def test_resume_without_a_stopped_run_says_so(work):
    with pytest.raises(UserError, match="no stopped run"):
        train.train(work, TINY, resume=True)
    train.train(work, TINY)
    with pytest.raises(UserError, match="is finished"):
        train.train(work, TINY, resume=True)


def test_a_loss_that_is_no_number_leaves_the_last_good_model(work, monkeypatch):
    train.train(work, TINY)
    before = (work / "model.keras").read_bytes()
    original = Keeper.on_epoch_end
    monkeypatch.setattr(Keeper, "on_epoch_end", lambda self, epoch, logs: original(self, epoch, {"loss": np.nan}))
    with pytest.raises(NotLearning, match="smaller --lr"):
        train.train(work, TINY, seed=3)
    assert (work / "model.keras").read_bytes() == before


def test_a_valid_network_trains_with_weights_and_judges(work):
    """As the paper does: unpadded convolutions, border weights, momentum; here at two halvings."""
    network = Network(4, 2, "valid", dropout=(0, 0.2, 0.5))
    assert network.shrinkage == 20
    preprocess(work, Tiling(60, 20, valid=True), weights="border")
    recipe = Recipe(network, epochs=2, steps=4, batch=1, lr=1e-3, optimizer="sgd", intensity=0.5, flips=2)
    model, config = train.train(work, recipe, patience=3, tensorboard=True)
    scores = judge(work, model, config)
    assert 0 <= scores["chosen"]["V_rand"] <= 1
    assert list((work / "tensorboard").rglob("events*"))
    rows = (work / "history.csv").read_text().splitlines()
    assert "val_loss" in rows[0]


def test_weights_change_what_is_learnt(work):
    plain, _ = train.train(work, TINY, seed=1)
    preprocess(work, Tiling(32, 8), weights="border")
    weighted, _ = train.train(work, TINY, seed=1)
    assert any(not np.allclose(a, b, atol=1e-4)
               for a, b in zip(plain.get_weights(), weighted.get_weights(), strict=True))


def test_nothing_held_out_trains_and_judges_nothing(tiny_folder, tmp_path):
    augment(tiny_folder, tmp_path / "all", copies=1, holdout="none", workers=1)
    preprocess(tmp_path / "all", Tiling(32, 8))
    model, config = train.train(tmp_path / "all", Recipe(TINY.network, epochs=2, steps=20, batch=4, lr=1e-2))
    assert judge(tmp_path / "all", model, config) is None
    assert not (tmp_path / "all" / "metrics.json").exists()
    assert 0 <= json.loads((tmp_path / "all" / "config.json").read_text())["threshold"] < 1


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_model_of_one_arithmetic_predicts_in_the_other(work, precision):
    other = {"bfloat16": "float32", "float32": "bfloat16"}[precision]
    try:
        prepare_device(precision)
        model, config = train.train(work, TINY)
        image = np.load(work / "patches" / "holdout-images.npy")[0]
        here = next(predict_slices(model, [image], config))
        prepare_device(other)
        there = next(predict_slices(load_model(work / "model.keras")[0], [image], config))
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.abs(here - there).max() < 0.05


def test_early_stopping_looks_at_training_slices_alone_and_trains_on_the_others(work, monkeypatch):
    used = {}
    feed, validation = train.training_feed, train.validation_tiles

    def spy_feed(work_, geometry, recipe, seed, keep):
        used["keep"] = keep
        return feed(work_, geometry, recipe, seed, keep)

    def spy_validation(work_, block):
        used["block"] = block
        return validation(work_, block)

    monkeypatch.setattr(train, "training_feed", spy_feed)
    monkeypatch.setattr(train, "validation_tiles", spy_validation)
    recipe = Recipe(TINY.network, epochs=30, steps=2, batch=2, lr=1e-9)  # such a rate learns nothing: it must stop
    model, _ = train.train(work, recipe, patience=2)
    assert used == {"keep": [0, 1, 2], "block": [3]}
    rows = [row.split(",") for row in (work / "history.csv").read_text().splitlines()]
    assert 3 <= len(rows) - 1 < 30
    saved = keras.models.load_model(work / "model.keras")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), saved.get_weights(), strict=True))


def test_judge_scores_the_holdout_and_refuses_a_constant_prediction(work, monkeypatch):
    learnt_on = []
    monkeypatch.setattr(predict, "learn_walls", lambda *pairs: learnt_on.append([*map(len, pairs)]))
    recipe = Recipe(TINY.network, epochs=6, steps=30, batch=4, lr=1e-2, crests=True, seen=3)
    model, config = train.train(work, recipe)
    scores = judge(work, model, config)
    assert learnt_on == [[3, 3]]
    assert scores["best"]["V_rand"]["V_rand"] > 0.8
    assert [row["slice"] for row in scores["chosen"]["per_slice"]] == [4, 5]
    assert json.loads((work / "metrics.json").read_text()) == scores
    assert scores["chosen"]["threshold"] == config["threshold"]
    before = (work / "metrics.json").read_bytes()
    model.set_weights([weight * 0 for weight in model.get_weights()])
    with pytest.raises(NotLearning, match="did not learn"):
        judge(work, model, config)
    assert (work / "metrics.json").read_bytes() == before


def test_tiles_of_another_kind_are_refused(work):
    with pytest.raises(UserError, match=r"preprocessing\.py --preset paper"):
        train.train(work, PRESETS["paper"])
    with pytest.raises(UserError, match="multiple of 64"):
        train.train(work, Recipe(Network(2, 6, dropout=(0,) * 7)))
    preprocess(work, Tiling(60, 8, valid=True))
    with pytest.raises(UserError, match="again without --preset"):
        train.train(work, TINY)


def test_options_change_the_preset():
    args = train.options().parse_args(["--preset", "keras", "--filters", "8", "--depth", "3", "--epochs", "7",
                                       "--batch", "2", "--lr", "0.01"])
    name, recipe = recipe_of(args)
    assert name == "keras"
    assert (recipe.epochs, recipe.batch, recipe.lr) == (7, 2, 0.01)
    assert (recipe.network.filters, recipe.network.depth, recipe.network.up) == (8, 3, "upsample")
    assert len(recipe.network.dropout) == 4
    with pytest.raises(SystemExit):
        train.options().parse_args(["--epochs", "0"])


def test_an_encoder_trains_for_a_step_and_predicts_from_disk(work, monkeypatch):
    args = train.options().parse_args(["--encoder", "mobilenetv2", "--filters", "4", "--epochs", "1", "--steps", "1"])
    _, recipe = recipe_of(args)
    assert (recipe.network.encoder, recipe.network.depth, recipe.optimizer) == ("mobilenetv2", 5, "adam")
    preprocess(work, Tiling(64, 16))
    def compile_eagerly(model, recipe):
        compile_model(model, recipe)
        model.run_eagerly = True  # to trace so many layers takes half a minute, the step a second

    monkeypatch.setattr(train, "compile_model", compile_eagerly)
    trained, _ = train.train(work, replace(recipe, flips=1))
    keras.utils.set_random_seed(0)  # as the run began
    start = build_unet(recipe.network, 1).trainable_weights
    assert len(start) == len(trained.trainable_weights)
    moved = [not np.array_equal(a, b) for a, b in zip(start, trained.trainable_weights, strict=True)]
    assert moved[0] and moved[-1]  # the encoder's first convolution, and the last one
    model, config = load_model(work / "model.keras")
    image = np.load(work / "patches" / "holdout-images.npy")[0]
    probability = next(predict_slices(model, [image], config))
    assert probability.shape == (64, 64)
    assert 0 <= probability.min() <= probability.max() <= 1


def test_encoder_options_that_do_not_fit_are_one_clear_line(work, monkeypatch):
    for options, said in ((["--weights", "imagenet"], "name one with --encoder"),
                          (["--encoder", "vgg16", "--depth", "3"], "--depth is not for encoders")):
        with pytest.raises(UserError, match=said):
            recipe_of(train.options().parse_args(options))

    def offline(**_):
        raise Exception("URL fetch failure on https://host/vgg16_notop.h5: None")

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    _, recipe = recipe_of(train.options().parse_args(["--encoder", "vgg16", "--weights", "imagenet"]))
    with pytest.raises(UserError, match="--weights none"):
        train.train(work, recipe)
