"""Two devices take the steps of one: losses, weights, files; so a run goes on with either."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from training.tiny import write_patches

from model import Network, Recipe
from unet.training.feed import Feed, in_shares
from unet.training.strategy import open_strategy, process_place
from utils import UserError

RECIPE = Recipe(Network(8, 1, dropout=(0, 0)), epochs=3, steps=3, batch=4, lr=0.02, optimizer="muon", average=0.7,
                intensity=0.5)


def rows(work):
    with (work / "history.csv").open() as file:
        return list(csv.DictReader(file))


def arrays(work, without=()):
    with np.load(work / "checkpoint.npz") as file:
        return {name: file[name] for name in file.files if name not in ("state", *without)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of the runs that this file makes as a script, on two logical processors."""
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True, timeout=1800,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "out.txt").write_text(done.stdout)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("found", "expected"), [("two", "one"), ("one-two", "one"), ("two-one", "one"),
                                                 ("parts", "one"), ("half-two", "half-one"),
                                                 ("half-resumed", "half-one"), ("sgd-two", "sgd-one")])
def test_two_devices_take_the_steps_of_one(runs, found, expected):
    """From the start, resumed with another number of devices, after memory ran out, in float16, without a limit."""
    tolerance = 2e-2 if "half" in found else 1e-5
    for one, other in zip(rows(runs / found), rows(runs / expected), strict=True):
        for name in ("loss", "val_loss"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=tolerance / 10), name
    there, here = arrays(runs / expected), arrays(runs / found)
    assert there.keys() == here.keys()
    for name, array in there.items():
        np.testing.assert_allclose(here[name], array, atol=tolerance, err_msg=name)


@pytest.mark.slow
def test_what_one_device_cannot_hold_in_float16_is_no_step_of_any(runs):
    """The loss scale falls, and all weights are numbers."""
    assert all(np.isfinite(array).all() for array in arrays(runs / "steep").values())
    assert min(float(row["loss"]) for row in rows(runs / "steep")) > 100
    scales = [array for array in arrays(runs / "steep").values() if array.shape == () and 0 < array < 2**15]
    assert scales


@pytest.mark.slow
def test_the_model_is_the_same_file(runs):
    import keras
    one, two = (keras.models.load_model(runs / name / "model.keras") for name in ("one", "two"))
    assert one.get_config() == two.get_config()
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_dropout_draws_apart_and_batch_normalisation_together(runs):
    report = json.loads((runs / "out.txt").read_text().splitlines()[-1])
    assert report["same without dropout"]
    assert not report["same with dropout"]
    assert "3 tiles cannot be shared evenly by 2 devices" in report["refused"]
    assert report["states"][0] == report["kept"]
    assert report["means"] == [[2.0], [2.0]]


# ------------------------------------------------------------------------------------------- who takes part


def config(index=0, kind="worker", **cluster):
    cluster = cluster or {"worker": ["a:1", "b:2"]}
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(("text", "expected"), [
    (config(), (0, 2)), (config(1), (1, 2)), (config(worker=["a:1"]), (0, 1)),
    (config(0, "chief", chief=["a:1"], worker=["b:2", "c:3"]), (0, 3)),
    (config(1, chief=["a:1"], worker=["b:2", "c:3"]), (2, 3))])
def test_the_place_among_the_processes_is_tf_configs(monkeypatch, text, expected):
    monkeypatch.setenv("TF_CONFIG", text)
    assert process_place("multiworker") == expected
    assert process_place("auto") == (0, 1)


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "{}", config(2), config(0, "chief"), config(worker=["a"]),
                                  config(ps=["a:1"], worker=["b:2"]), config(worker="a:1"), config("x")])
def test_a_wrong_tf_config_is_one_sentence(tmp_path, monkeypatch, command, text):
    monkeypatch.setenv("TF_CONFIG", text)
    done = command("train.py", "--strategy", "multiworker", "--work", tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"train.py: .*TF_CONFIG.*; it has to be like .*|train.py: .* needs TF_CONFIG, .*",
                        done.stderr.strip())
    assert list(tmp_path.iterdir()) == []


def test_one_process_alone_waits_for_nobody(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config(worker=["a:1"]))
    assert open_strategy("multiworker", 3) is tf.distribute.get_strategy()


def test_an_address_that_is_taken_is_one_sentence(monkeypatch):
    def taken():
        raise tf.errors.UnknownError(None, None, "Could not start gRPC server\nmore of it")

    monkeypatch.setenv("TF_CONFIG", config())
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", taken)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(UserError, match=r"cannot begin \(Could not start gRPC server\); each process needs an address"):
        open_strategy("multiworker", 4)
    assert signal.getsignal(signal.SIGINT) is before


class Place:
    """A strategy of two machines with two devices each, seen from one of them."""

    num_replicas_in_sync = 4

    def __init__(self, machine):
        self.context = tf.distribute.InputContext(2, machine, 4)

    def distribute_datasets_from_function(self, make):
        return make(self.context)


def test_the_shares_of_all_devices_are_the_batch(tmp_path):
    feed = Feed(write_patches(tmp_path, weights=np.float32(1)) / "patches", 8, seed=2, intensity=0.5)
    shares = [list(feed.from_step(3, 5, Place(machine)).as_numpy_iterator()) for machine in (0, 1)]
    for step in (0, 1):
        parts = [shares[machine][2 * step + device] for machine in (0, 1) for device in (0, 1)]
        assert {len(part[0]) for part in parts} == {2}
        for array, expected in zip(map(np.concatenate, zip(*parts, strict=True)), feed[3 + step], strict=True):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(("count", "expected"), [(14, [*range(12)]), (3, [0, 1, 2, 0])])
def test_the_shares_of_a_validation_block(count, expected):
    """Of 14 tiles 8 and 4, as each device has to have as many; too few come twice."""
    datasets = [in_shares((np.arange(count),), 8, Place(machine)) for machine in (0, 1)]
    steps = datasets[0][1]
    shares = [list(data.take(4 * steps).as_numpy_iterator()) for data, _ in datasets]
    parts = [shares[machine][2 * step + device][0] for step in range(steps) for machine in (0, 1) for device in (0, 1)]
    assert np.concatenate(parts).tolist() == expected
    for one in shares:  # over and over
        np.testing.assert_array_equal(one[0][0], one[2 * steps][0])


# ------------------------------------------------------------------------------------------- the script


def normalised(strategy):
    """Means that batch normalisation keeps on each device, where they see 0 and 4."""
    import keras

    from unet.training.parts import InParts
    from unet.training.strategy import prepare_model

    with strategy.scope():
        image = keras.Input((2, 2, 1))
        model = InParts(image, keras.layers.BatchNormalization(momentum=0.0)(image))
        model.compile("sgd", "mse")
        model.optimizer.build(model.trainable_variables)
    prepare_model(model)

    def shares(context):
        tiles = np.full((2, 1, 2, 2, 1), [[[[[0.0]]]], [[[[4.0]]]]], np.float32)
        return tf.data.Dataset.from_tensor_slices((tiles, tiles)).repeat()

    model.fit(strategy.distribute_datasets_from_function(shares), steps_per_epoch=1, verbose=0)
    kept = next(variable for variable in model.variables if variable.name == "moving_mean")
    return [value.numpy().tolist() for value in strategy.experimental_local_results(kept.value)]


def run(folder, strategy, recipe=RECIPE, resume=False, weight=50):
    """Train in a folder of its own on tiles whose weights are up to `weight`."""
    import train

    work = write_patches(folder, weights=np.float32(0))
    weights = np.random.default_rng(1).random((10, 16, 16), np.float32) * np.float32(weight)
    np.save(work / "patches" / "train-weights.npy", weights)
    train.train(work, replace(recipe, validation=True), 1, resume, None, strategy)


def stopped(folder, strategy, weight=50):
    """The same, until the second epoch begins."""
    from unet.training.keeper import Keeper

    def begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        original(self, epoch, logs)

    original, Keeper.on_epoch_begin = Keeper.on_epoch_begin, begin
    try:
        run(folder, strategy, weight=weight)
    except KeyboardInterrupt:
        Keeper.on_epoch_begin = original


def run_all(folder, one, two):
    """Make the runs that the tests compare."""
    import keras

    from unet.training.parts import InParts

    run(folder / "one", one)
    run(folder / "two", two)
    stopped(folder / "one-two", one)
    run(folder / "one-two", two, resume=True)
    stopped(folder / "two-one", two)
    run(folder / "two-one", one, resume=True)
    InParts.parts = 2
    run(folder / "parts", two)
    InParts.parts = 1
    for name, strategy in (("sgd-one", one), ("sgd-two", two)):
        run(folder / name, strategy, replace(RECIPE, optimizer="sgd", lr=1e-2))
    keras.config.set_dtype_policy("mixed_float16")
    for name, strategy in (("half-one", one), ("half-two", two)):
        run(folder / name, strategy, weight=3)
    stopped(folder / "half-resumed", one, weight=3)
    run(folder / "half-resumed", two, resume=True, weight=3)
    run(folder / "steep", two, weight=[[[1e5 if tile == 3 else 1]] for tile in range(10)])


def differences(two):
    """What the devices do alike, and what apart."""
    import keras

    from unet.training.strategy import draw_apart

    found = {"means": normalised(two)}
    try:
        open_strategy("mirrored", 3)
    except UserError as error:
        found["refused"] = str(error)
    with two.scope():
        image = keras.Input((16, 16, 1))
        model = keras.Model(image, keras.layers.Dropout(0.5)(image))
    state = next(variable for variable in model.variables if variable.path.endswith("seed_generator_state"))
    found["kept"] = state.numpy().tolist()
    draw_apart(model)
    found["states"] = [value.numpy().tolist() for value in two.experimental_local_results(state.value)]
    for name, training in (("same with dropout", True), ("same without dropout", False)):
        call = partial(model, np.ones((1, 16, 16, 1)), training=training)
        outputs = two.experimental_local_results(two.run(call))
        found[name] = bool((outputs[0].numpy() == outputs[1].numpy()).all())
    return found


def main(folder):
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                               [tf.config.LogicalDeviceConfiguration()] * 2)
    one, two = (open_strategy(name, 4) for name in ("auto", "mirrored"))
    assert (one.num_replicas_in_sync, two.num_replicas_in_sync) == (1, 2)
    report = differences(two)  # in float32, as long as nobody asked for anything else
    run_all(folder, one, two)
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
