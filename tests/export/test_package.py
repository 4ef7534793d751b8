"""The package passes bioimageio.core's own test, offline, and gives what predict.py gives; the command says what it
did."""

import json
import os
import socket
import zipfile
from dataclasses import asdict
from importlib.util import find_spec
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tifffile
from conftest import call, draw_nuclei, draw_stacks, write_stacks
from numpy.testing import assert_allclose
from training.tiny import write_patches

from unet.engines.engines import TensorFlow
from unet.engines.predictor import Predictor
from unet.export import formats
from unet.export.package import apply_steps, sides, write_package
from unet.inputs.stacks import VOLUME, stack_writer
from unet.inputs.voxel import Voxel
from unet.network import Network
from unet.tasks.cells import Cells
from unet.tasks.nuclei import Nuclei
from unet.tasks.of_images import ClassImages
from unet.training.encoders import build
from unet.training.trained import load_model
from utils import UserError

SMALL = {"filters": 4, "depth": 2, "dropout": (0, 0, 0)}
needs = pytest.mark.skipif(any(find_spec(name) is None for name in ("bioimageio", "onnx", "tf2onnx", "onnxruntime"))
                           or find_spec("bioimageio.core") is None, reason="tests/requirements.txt is not installed")


def gray(side):
    return draw_stacks(1, side)[0][0]


MODELS = {"cells": (Cells(), Network(**SMALL, half=True), gray(160)),
          "valid": (Cells(), Network(**SMALL, padding="valid"), gray(160)),
          "nuclei": (Nuclei(), Network(**SMALL), draw_nuclei((160, 160))[0]),
          "squeezed": (Nuclei(resize=128), Network(**SMALL), draw_nuclei((90, 160))[0]),
          "classes": (ClassImages(3), Network(**SMALL, classes=3), np.stack([gray(160)] * 3, axis=-1))}


def write_model(folder, task, network, data="nowhere"):
    """Write a model.keras of random weights, and its config.json."""
    folder.mkdir()
    keras.utils.set_random_seed(1)
    build(network, task.channels, task.normalisation).save(folder / "model.keras")
    (folder / "config.json").write_text(json.dumps({
        "task": task.settings(), "network": asdict(network), "channels": task.channels, "data": str(data),
        "normalisation": task.normalisation, "recipe": {"flips": 8}, "split": {"train": [0, 1], "holdout": [2]}}))
    return folder / "model.keras"


@pytest.fixture
def core(monkeypatch):
    """Return bioimageio.core on TensorFlow, without access to the network."""
    def refuse(*_):
        raise AssertionError("something asks the network")

    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    import bioimageio.core

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return bioimageio.core


@needs
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_both_weights_pass_and_give_what_predict_gives(name, core, tmp_path):
    task, network, image = MODELS[name]
    model = write_model(tmp_path / "run", task, network)
    write_package(model, tmp_path / "package.zip", image)
    seen = task.normalise(image, task.levels(image))
    wanted = Predictor(TensorFlow(load_model(model)[0]), network, task).predict(seen)
    part = (seen if name == "squeezed" else image).reshape(1, *seen.shape[:2], task.channels)
    for weights in ("keras_v3", "onnx"):
        summary = core.test_model(tmp_path / "package.zip", weight_format=weights)
        assert summary.status == "passed", summary.details
        if network.padding == "same":
            description = core.load_description(tmp_path / "package.zip")
            pipeline = core.create_prediction_pipeline(description, weight_format=weights)
            sample = core.digest_spec.create_sample_for_model(description, inputs=part)
            found = pipeline.predict_sample_without_blocking(sample, skip_input_padding=True, skip_output_cropping=True)
            inner = (slice(network.margin, -network.margin),) * 2  # beyond it the network sees the image's edge
            probability = np.asarray(found.members["probability"].data)[0][inner].reshape(wanted[inner].shape)
            assert probability.size
            # the two count percentiles a little differently: some grey levels round to the next
            assert_allclose(probability, wanted[inner], atol=2e-2 if name == "nuclei" else 1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_steps_of_the_package_are_the_tasks_normalisation(name):
    task, _, image = MODELS[name]
    squeezed = task.normalise(image, task.levels(image)) if name == "squeezed" else image
    part = squeezed[np.newaxis, ..., np.newaxis] if image.ndim == 2 else squeezed[np.newaxis]
    wanted = task.normalise(image, task.levels(image)).reshape(part.shape)
    difference = np.abs(apply_steps(task, part) - wanted)
    assert difference.max() <= 1
    assert difference.mean() < 0.05


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Export a model of cells in all formats into out/; return the folder and what the command printed."""
    folder = tmp_path_factory.mktemp("exported")
    task, network, _ = MODELS["cells"]
    config = write_model(folder / "run", task, network).with_name("config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "voxel": {"y": 0.004, "x": 0.005}}))
    tifffile.imwrite(folder / "image.tif", gray(64)[np.newaxis], photometric="minisblack")  # less than a tile: mirrored
    done = call(folder, "model.py", "export", "run/model.keras", "--out", "out", "--sample", "image.tif")
    assert (done.returncode, done.stderr) == (0, "")
    return SimpleNamespace(folder=folder, stdout=done.stdout)


@needs
def test_what_the_package_says(exported):
    import yaml

    _, network, _ = MODELS["cells"]
    with zipfile.ZipFile(exported.folder / "out" / "bioimageio.zip") as archive:
        content = yaml.safe_load(archive.read("rdf.yaml"))
        documentation = archive.read("README.md").decode()
    least, step = sides(network)
    assert (least, step) == (2 * network.margin + 16, 8)
    axes = {axis.get("id", axis["type"]): axis for axis in content["inputs"][0]["axes"]}
    assert axes["y"]["size"] == axes["x"]["size"] == {"min": least, "step": 8}
    assert (axes["y"]["scale"], axes["x"]["scale"], axes["x"]["unit"]) == (0.004, 0.005, "micrometer")
    assert content["outputs"][0]["axes"][1]["halo"] == network.margin
    assert content["weights"]["onnx"]["opset_version"] == 17
    assert content["weights"]["onnx"]["parent"] == "keras_v3"
    assert content["format_version"].startswith("0.5") and content["license"] == "MIT"
    assert "10.1007/978-3-319-24574-4_28" in [work.get("doi") for work in content["cite"]]
    assert "## Validation" in documentation and "there are no scores" in documentation
    assert not any(value.startswith("http") for value in content.values() if isinstance(value, str))


@needs
def test_the_command(exported):
    assert "ONNX Runtime and Keras differ by" in exported.stdout
    names = {path.name for path in (exported.folder / "out").iterdir()}
    assert names == {"bioimageio.zip", "model.onnx", "savedmodel", "model.xml", "model.bin", "README.md",
                     formats.EXPORT_MARK}
    again = call(exported.folder, "model.py", "export", "run/model.keras", "--out", "out", "--format", "savedmodel")
    assert again.returncode == 0  # ours: replaced


@needs
@pytest.mark.slow
def test_the_size_of_a_pixel_goes_from_the_images_into_the_package(core, command, monkeypatch, tmp_path):
    images, labels = draw_stacks()
    write_stacks(tmp_path / "data", images, labels, images)
    with stack_writer(tmp_path / "data" / VOLUME, images.shape, np.uint8, voxel=Voxel(0.004, 0.005, 0.05)) as write:
        for image in images:
            write(image)
    write_patches(tmp_path / "run", data=str(tmp_path / "data"))
    monkeypatch.setattr("train.finish", lambda *_: None)
    trained = command("train.py", "--work", "run", "--epochs", 1, "--steps", 1, "--batch", 2, "--filters", 4,
                      "--depth", 1)
    assert trained.returncode == 0, trained.stderr
    done = command("model.py", "export", "run/model.keras", "--out", "out", "--format", "bioimageio")
    assert done.returncode == 0, done.stderr
    assert "pixel size, here 0.004 x 0.005 µm." in (tmp_path / "out" / "README.md").read_text()
    package = core.load_description(tmp_path / "out" / "bioimageio.zip")
    for tensor in (package.inputs[0], package.outputs[0]):
        found = {axis.id: (axis.unit, axis.scale) for axis in tensor.axes if axis.type == "space"}
        assert found == {"y": ("micrometer", pytest.approx(0.004)), "x": ("micrometer", pytest.approx(0.005))}
    for weights in ("keras_v3", "onnx"):
        summary = core.test_model(tmp_path / "out" / "bioimageio.zip", weight_format=weights)
        assert summary.status == "passed", summary.details


def test_what_is_wrong_is_said_in_a_line(command, monkeypatch, tmp_path):
    task, network, _ = MODELS["cells"]
    model = write_model(tmp_path / "run", task, network)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    for words, message in ((("--format", "torch"), "there is no format torch"),
                           (("--out", "mine", "--format", "savedmodel"), "mine exists already, and no export"),
                           (("--format", "bioimageio"), "name an image for the package's test")):
        done = command("model.py", "export", model, *words)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    monkeypatch.setattr("unet.export.convert.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^bioimageio\.spec and onnx and tf2onnx are not installed; pip install -r "
                                        r"requirements-export\.txt$"):
        list(formats.export(model, tmp_path / "out", "bioimageio"))
