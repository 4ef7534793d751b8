"""train.py's options: presets and what changes them, encoders, and a run that goes on with those it began with."""

import json
import shlex
from dataclasses import replace

import keras
import numpy as np
import pytest
from training.tiny import history, stop_at, write_patches

import train
from model import PRESETS
from train import recipe_of
from unet.engines.engines import TensorFlow
from unet.engines.predictor import make_predictor
from utils import UserError


@pytest.fixture
def work(tmp_path):
    return write_patches(tmp_path / "work")


def recipe_from(line):
    return recipe_of(train.options().parse_args(shlex.split(line)))


def test_options_change_the_preset():
    name, recipe = recipe_from("--preset keras --filters 8 --depth 3 --epochs 7 --batch 2 --lr 0.01")
    assert name == "keras"
    assert (recipe.epochs, recipe.steps, recipe.batch, recipe.lr) == (7, PRESETS["keras"].steps, 2, 0.01)
    assert recipe.network == replace(PRESETS["keras"].network, filters=8, depth=3, dropout=(0, 0, 0, 0.5))
    with pytest.raises(SystemExit):
        train.options().parse_args(["--epochs", "0"])


def test_auto_on_a_gpu_is_the_measured_network_with_larger_batches(monkeypatch):
    monkeypatch.setattr(train.tf.config, "list_physical_devices", lambda kind: ["a card"])
    assert recipe_from("") == ("cpu", replace(PRESETS["cpu"], batch=train.GPU_TILES))
    assert recipe_from("--batch 3")[1].batch == 3
    assert recipe_from("--preset gpu") == ("gpu", PRESETS["gpu"])


def test_resume_alone_takes_the_options_the_run_began_with(work, tiny_folder, monkeypatch, capsys):
    finished = []
    write_patches(work, data=str(tiny_folder))
    monkeypatch.setattr(train, "finish", lambda work, model, config, outputs, *_: finished.append(outputs.out.name))

    def command(line):
        monkeypatch.setattr("sys.argv", ["train.py", "--work", str(work), *line.split()])
        train.main()

    asked = "--preset keras --filters 4 --depth 1 --epochs 2 --steps 2 --batch 2 --seed 3 --out mine.tif"
    with monkeypatch.context() as context:
        stop_at(context, 1)
        with pytest.raises(KeyboardInterrupt):
            command(asked)
    command("--resume")
    config = json.loads((work / "config.json").read_text())
    assert [len(history(work)), config["recipe"]["seed"], config["preset"]] == [2, 3, "keras"]
    command(f"{asked} --resume")
    command("--resume --out other.tif")
    assert "2 epochs; nothing is left to train" in capsys.readouterr().out
    assert finished == ["mine.tif", "mine.tif", "other.tif"]
    with pytest.raises(UserError, match=r"differs in .*epochs"):
        command("--resume --epochs 9")
    keras.config.set_dtype_policy("float32")


def test_ctrl_c_after_training_says_how_to_go_on(work, tiny_folder, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    write_patches(work, data=str(tiny_folder))
    monkeypatch.setattr(train, "finish", stop)
    monkeypatch.setattr("sys.argv", ["train.py", "--work", str(work), "--epochs", "1", "--steps", "1", "--filters", "4",
                                     "--depth", "1", "--precision", "float32"])
    with pytest.raises(KeyboardInterrupt, match=r"model\.keras is trained; 'python train\.py --work .* --resume' "):
        train.main()


@pytest.mark.slow
def test_an_encoder_trains_for_a_step_and_predicts_from_disk(tmp_path, monkeypatch):
    _, recipe = recipe_from("--encoder mobilenetv2 --filters 4 --epochs 1 --steps 1 --batch 2")
    assert (recipe.network.encoder, recipe.network.depth, recipe.optimizer) == ("mobilenetv2", 5, "adam")
    work = write_patches(tmp_path, side=64, count=2)
    compile_model = train.compile_model
    before = []

    def compile_eagerly(model, recipe):
        compile_model(model, recipe)
        model.run_eagerly = True  # to trace so many layers takes half a minute, the step a second
        before.extend(variable.numpy() for variable in model.trainable_variables)

    monkeypatch.setattr(train, "compile_model", compile_eagerly)
    model, config = train.train(work, recipe)
    moved = [not np.array_equal(a, b) for a, b in zip(before, model.trainable_variables, strict=True)]
    assert moved[0] and moved[-1]  # the encoder's first convolution, and the last one
    image = np.load(work / "patches" / "train-images.npy")[0]
    probability = make_predictor(TensorFlow(model), config)(image)
    assert probability.shape == (64, 64)
    assert 0 <= probability.min() <= probability.max() <= 1


def test_encoder_options_that_do_not_fit_are_one_clear_line(work, monkeypatch):
    for line, said in (("--pretrained imagenet", "name one with --encoder"),
                       ("--encoder vgg16 --depth 3", "--depth is not for encoders")):
        with pytest.raises(UserError, match=said):
            recipe_from(line)

    def offline(**_):
        raise Exception("URL fetch failure on https://host/vgg16_notop.h5: None")

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    _, recipe = recipe_from("--encoder vgg16 --pretrained imagenet")
    assert (recipe.lr, recipe.average) == (3e-4, 0)
    with pytest.raises(UserError, match="--pretrained none"):
        train.train(write_patches(work, side=32), recipe)


def test_the_version_is_that_of_the_citation(command):
    done = command("train.py", "--version")
    assert (done.returncode, done.stdout) == (0, "keras-unet 1.0.0\n")
