"""Training: the schedule, stopping and going on, what a run writes, and what one that cannot work says."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from training.tiny import history, stop_at, write_patches

import train
from model import PRESETS, Network, Recipe
from train import Keeper, recipe_of
from unet.engines.engines import TensorFlow
from unet.engines.predictor import make_predictor
from unet.tasks import task_of
from unet.training.device import prepare_device
from unet.training.feed import Feed
from unet.training.parts import InParts
from unet.training.trained import load_model
from utils import NotLearning, UserError, file_hash

TINY = Recipe(Network(4, 1, dropout=(0, 0)), epochs=3, steps=3, batch=2, lr=3e-3)


@pytest.fixture
def work(tmp_path):
    return write_patches(tmp_path / "work")


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    folder = write_patches(tmp_path_factory.mktemp("once") / "work")
    train.train(folder, TINY, seed=1)
    return folder


@pytest.fixture
def trained(run_once, tmp_path):
    """A folder of its own with the finished run of TINY, seed 1."""
    return Path(shutil.copytree(run_once, tmp_path / "trained"))


@pytest.fixture
def feeds(monkeypatch):
    """The feeds that a run opens, in their order."""
    opened = []

    class Spy(Feed):
        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            opened.append(self)

    monkeypatch.setattr(train, "Feed", Spy)
    return opened


def weights_of(work):
    return load_model(work / "model.keras")[0].get_weights()


def losses(work):
    return [float(row["loss"]) for row in history(work)]


# ----------------------------------------------------------------------------------------------- a run and its files


def test_a_run_writes_its_files_and_the_mean_of_the_schedules_end(work, monkeypatch):
    weights = []
    original = Keeper.on_epoch_end

    def spy(self, epoch, logs=None):
        weights.append(self.model.get_weights())
        original(self, epoch, logs)

    monkeypatch.setattr(Keeper, "on_epoch_end", spy)
    recipe = replace(TINY, network=Network(8, 1, dropout=(0, 0)), epochs=4, lr=3e-2, average=0.5, optimizer="muon")
    model, config = train.train(work, recipe, seed=1, notes={"preset": "mine", "device": "a machine"})
    mean = [np.mean(pair, axis=0) for pair in zip(*weights[-2:], strict=True)]
    saved = keras.models.load_model(work / "model.keras")
    assert getattr(saved, "optimizer", None) is None  # nothing but the network: no custom object, a third of the size
    for expected, here, on_disk in zip(mean, model.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_allclose(here, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(here, on_disk)
    assert [(row["epoch"], row["step"]) for row in history(work)] == [("1", "3"), ("2", "6"), ("3", "9"), ("4", "12")]
    assert {path.name for path in work.iterdir()} == {"augmented", "patches", "checkpoint.npz", "model.keras",
                                                      "config.json", "history.csv", "curve.png"}
    assert config == json.loads((work / "config.json").read_text())
    assert config["parameters"] == model.count_params()
    assert (config["preset"], config["device"], config["data"]) == ("mine", "a machine", "data")
    assert (config["recipe"]["epochs"], config["recipe"]["seed"], config["network"]["filters"]) == (4, 1, 8)
    assert config["seconds"] == pytest.approx(sum(float(row["seconds"]) for row in history(work)), abs=0.051)


def test_the_same_seed_gives_the_same_weights(work, trained):
    for a, b in zip(train.train(work, TINY, seed=1)[0].get_weights(), weights_of(trained), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------- stopping, going on


def test_ctrl_c_while_a_step_is_traced_waits_for_its_end(tmp_path, monkeypatch):
    """TensorFlow may not survive it otherwise."""
    step, traced = InParts.train_step, []

    def interrupted(self, data):
        signal.raise_signal(signal.SIGINT)
        logs = step(self, data)
        traced.append(logs)
        return logs

    monkeypatch.setattr(InParts, "train_step", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
    try:
        with pytest.raises(KeyboardInterrupt, match=r"model\.keras is as it was; "):
            train.train(write_patches(tmp_path), TINY)
    finally:
        signal.signal(signal.SIGINT, before)
    assert traced


def test_ctrl_c_says_what_the_file_has_and_resume_goes_on(work, run_once, monkeypatch):
    stop_at(monkeypatch, 0, "on_train_batch_end")
    with pytest.raises(KeyboardInterrupt, match=r"model\.keras is as it was; 'python train\.py --work .* --resume' "):
        train.train(work, TINY, seed=1)
    assert not (work / "model.keras").exists()
    monkeypatch.undo()
    stop_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt, match=r"model\.keras has the weights of epoch 2; "):
        train.train(work, TINY, seed=1, resume=True)
    before = losses(work)
    monkeypatch.undo()
    with pytest.raises(UserError, match="differs in seed"):
        train.train(work, TINY, seed=2, resume=True)
    train.train(work, TINY, seed=1, resume=True)
    assert losses(work)[:2] == before
    assert [row["epoch"] for row in history(work)] == ["1", "2", "3"]
    assert losses(work) == pytest.approx(losses(run_once), rel=1e-5)  # of a run that nobody stopped
    for one, other in zip(weights_of(work), weights_of(run_once), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_finished_run_is_only_read(trained, capsys):
    (trained / "curve.png").unlink()
    config = json.loads((trained / "config.json").read_text()) | {"learnt": {}}  # after training
    (trained / "config.json").write_text(json.dumps(config))
    before = {path: file_hash(path) for path in trained.iterdir() if path.is_file()}
    capsys.readouterr()
    model, read = train.train(trained, TINY, seed=1, resume=True)
    assert capsys.readouterr().out == f"{trained / 'model.keras'} is trained, 3 epochs; nothing is left to train\n"
    assert read == config
    assert (trained / "curve.png").is_file()
    assert before == {path: file_hash(path) for path in before}
    for a, b in zip(model.get_weights(), weights_of(trained), strict=True):
        np.testing.assert_array_equal(a, b)


def test_resume_without_a_run_begins_one_and_says_so(work, capsys):
    train.train(work, replace(TINY, epochs=1, steps=1), resume=True)
    assert f"note: {work} has no run that was stopped; training from the beginning" in capsys.readouterr().out


def test_a_new_run_is_the_one_that_resume_goes_on_with(trained, monkeypatch):
    """The weights of the finished run stay until the new one has some; its checkpoint goes at once."""
    before, weights = (trained / "model.keras").read_bytes(), weights_of(trained)
    (trained / "metrics.json").write_text("{}")
    stop_at(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt, match="is as it was"):
        train.train(trained, TINY, seed=2)
    monkeypatch.undo()
    assert (trained / "model.keras").read_bytes() == before
    assert (trained / "metrics.json").exists()
    with pytest.raises(UserError, match="differs in seed"):
        train.train(trained, TINY, seed=1, resume=True)
    train.train(trained, TINY, seed=2, resume=True)
    assert not np.allclose(weights[0], weights_of(trained)[0], atol=1e-2)
    assert not (trained / "metrics.json").exists()  # it judged the other


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(work, monkeypatch):
    stop_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train.train(work, TINY)
    before = (work / "checkpoint.npz").read_bytes()
    monkeypatch.undo()
    (work / ".checkpoint.123.npz").write_bytes(b"half")  # as a killed run leaves it

    def half(path, **_):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(OSError, match="no space"):
        train.train(work, TINY, resume=True)
    assert (work / "checkpoint.npz").read_bytes() == before
    assert not list(work.glob(".checkpoint*"))


def test_a_loss_that_is_no_number_leaves_the_last_good_model(trained):
    before = (trained / "model.keras").read_bytes()
    with pytest.raises(NotLearning, match=r"step 2: .* tenth of it with --lr\), or a very rare class"):
        train.train(trained, replace(TINY, lr=float("inf")), seed=3)
    assert (trained / "model.keras").read_bytes() == before


def test_weights_of_a_very_rare_class_keep_the_loss_finite(tmp_path):
    work = write_patches(tmp_path, weights=np.float32(166_667))  # .5 / 3e-6, beyond float16
    train.train(work, replace(TINY, epochs=1, lr=1e-6))
    assert 1e4 < losses(work)[0] < 1e6


@pytest.mark.parametrize(("task", "channels", "intensity", "drawn"), [
    ("cells", 1, 0.8, 0.8), ("nuclei", 3, 0.8, 0.4), ("nuclei", 3, 0.3, 0.3)])
def test_nuclei_are_not_varied_as_much_as_cells(tmp_path, feeds, task, channels, intensity, drawn):
    work = write_patches(tmp_path / "work", task={"name": task}, channels=channels,
                         normalisation=task_of({"task": {"name": task}}).normalisation)
    _, config = train.train(work, replace(TINY, epochs=1, steps=1, intensity=intensity))
    assert (feeds[0].intensity, config["recipe"]["intensity"]) == (drawn, drawn)


# --------------------------------------------------------------------------------------------------- early stopping


def test_early_stopping_looks_at_training_slices_alone_and_resume_keeps_its_patience(work, feeds, monkeypatch):
    # steps as long as this end far from where they began: the loss of some epoch is the least
    recipe = replace(TINY, epochs=30, lr=0.3, warmup=0)
    model, _ = train.train(work, replace(recipe, patience=2))
    assert [feed.tiles.tolist() for feed in feeds] == [[4, 9], [0, 1, 2, 3, 5, 6, 7, 8]]  # tile i is of slice i % 5
    whole = history(work)
    values = [float(row["val_loss"]) for row in whole]
    best = values.index(min(values))
    assert len(values) == best + 3 < 30
    images, labels = feeds[0].plain_tiles()
    model.compile(loss="binary_crossentropy")
    assert model.evaluate(images, labels, batch_size=2, verbose=0) == pytest.approx(min(values), rel=1e-4)

    stop_at(monkeypatch, len(whole) - 1)  # one epoch before patience ends
    with pytest.raises(KeyboardInterrupt, match=f"epoch {best + 1} of {best + 2}, with the least loss on the valid"):
        train.train(work, replace(recipe, patience=2))
    monkeypatch.undo()
    train.train(work, replace(recipe, patience=2), resume=True)
    for name in ("epoch", "loss", "val_loss", "learning_rate"):
        np.testing.assert_allclose(*([float(row[name]) for row in rows] for rows in (history(work), whole)), rtol=1e-4)


def test_the_validation_curve_is_of_slices_that_train_nothing_and_changes_no_schedule(work, feeds):
    recipe = replace(TINY, epochs=4, steps=10)
    train.train(work, replace(recipe, validation=True))
    assert [feed.tiles.tolist() for feed in feeds] == [[4, 9], [0, 1, 2, 3, 5, 6, 7, 8]]  # tile i is of slice i % 5
    rows = history(work)
    assert len(rows) == 4  # the whole schedule, whatever the curve says
    assert all(0 < float(row["val_loss"]) < 2 for row in rows)
    assert [image.shape for image in feeds[0].plain_tiles(1)] == [(1, 16, 16, 1)] * 2  # of 20 tiles an epoch
    with pytest.raises(UserError, match="differs in validation"):
        train.train(work, recipe, resume=True)
    assert recipe_of(train.options().parse_args([]))[1].batch == PRESETS["cpu"].batch


def test_early_stopping_needs_two_slices(tmp_path):
    with pytest.raises(UserError, match="two or more"):
        train.train(write_patches(tmp_path, slices=1), replace(TINY, patience=2))


# ------------------------------------------------------------------------------------------- tiles and arithmetics


def test_a_valid_network_trains_with_weights(tmp_path):
    """As the paper does: unpadded convolutions, border weights, momentum; here at one halving."""
    network = Network(4, 1, "valid", dropout=(0.2, 0.5))
    work = write_patches(tmp_path, side=32, label=16, margin=8, core=16, weights=np.float32(1.5))
    assert network.shrinkage == 8
    recipe = Recipe(network, epochs=2, steps=2, batch=1, lr=1e-3, optimizer="sgd", intensity=0.5)
    train.train(work, recipe, notes={"command": {"tensorboard": True}})
    assert len(losses(work)) == 2
    assert list((work / "tensorboard").rglob("events*"))


def test_weights_change_what_is_learnt(run_once, tmp_path):
    train.train(write_patches(tmp_path, weights=np.float32(2)), TINY, seed=1)
    assert losses(tmp_path)[0] == pytest.approx(2 * losses(run_once)[0], rel=0.05)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_model_of_one_arithmetic_predicts_in_the_other(work, precision):
    other = {"bfloat16": "float32", "float32": "bfloat16"}[precision]
    image = np.load(work / "patches" / "train-images.npy")[0]
    try:
        prepare_device(precision)
        model, config = train.train(work, replace(TINY, epochs=1))
        here = make_predictor(TensorFlow(model), config)(image)
        prepare_device(other)
        there = make_predictor(TensorFlow(load_model(work / "model.keras")[0]), config)(image)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.abs(here - there).max() < 0.05


def test_tiles_of_another_kind_are_refused(work):
    with pytest.raises(UserError, match=r"preprocessing\.py --preset paper"):
        train.train(work, PRESETS["paper"])
    with pytest.raises(UserError, match="multiple of 64"):
        train.train(work, Recipe(Network(2, 6, dropout=(0,) * 7)))
    write_patches(work, label=8)
    with pytest.raises(UserError, match="again without --preset"):
        train.train(work, TINY)
    write_patches(work, count=0)
    with pytest.raises(UserError, match="no tiles"):
        train.train(work, TINY)
