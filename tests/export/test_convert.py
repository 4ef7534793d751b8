"""Converted networks say what the trained one says, whatever arithmetic they trained in, at any size."""

import json
from dataclasses import asdict
from importlib.util import find_spec
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from unet.export import convert
from unet.network import Network
from unet.tasks.cells import Cells
from unet.training.encoders import build
from utils import UserError

NETWORKS = {"same": Network(4, 2, dropout=(0, 0, 0)), "valid": Network(4, 2, "valid", dropout=(0, 0, 0)),
            "half resolution, dropout": Network(4, 2, dropout=(0, 0, 0.2), half=True)}
SIZES = ((1, 60, 44), (3, 44, 60))  # a valid network of two halvings takes them as they are
needs = pytest.mark.skipif(None in (find_spec("onnx"), find_spec("tf2onnx"), find_spec("openvino"),
                                    find_spec("onnxruntime")), reason="requirements-fast.txt is not installed")


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request, tmp_path_factory):
    """Write a model.keras of random weights in mixed bfloat16; return it, the same in float32, and its stride."""
    folder, network = tmp_path_factory.mktemp("model"), NETWORKS[request.param]
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        build(network, 1, Cells.normalisation).save(folder / "model.keras")
    finally:
        keras.config.set_dtype_policy(policy)
    (folder / "config.json").write_text(json.dumps({
        "task": Cells().settings(), "network": asdict(network), "channels": 1, "normalisation": Cells.normalisation,
        "recipe": {"flips": 8}}))
    model = build(network, 1, Cells.normalisation)
    model.load_weights(folder / "model.keras")
    return folder / "model.keras", model, 1 if network.padding == "valid" else network.stride


def images(rng, stride):
    """Draw batches of both sizes, their sides cut down to multiples of `stride`."""
    for n, height, width in SIZES:
        yield rng.integers(0, 256, (n, height - height % stride, width - width % stride, 1)).astype(np.float32)


def test_saved_model(trained, tmp_path, rng):
    path, model, stride = trained
    convert.to_saved_model(path, tmp_path / "saved")
    layer = keras.layers.TFSMLayer(tmp_path / "saved", call_endpoint="serve")
    for batch in images(rng, stride):
        assert_allclose(np.asarray(layer(batch)), model.predict_on_batch(batch), atol=1e-6)
    assert keras.config.dtype_policy().name == "float32"


@needs
def test_onnx(trained, tmp_path, rng):
    import onnx
    import onnxruntime

    path, model, stride = trained
    convert.to_onnx(path, tmp_path / "model.onnx")
    content = onnx.load(tmp_path / "model.onnx")
    assert {entry.domain: entry.version for entry in content.opset_import}[""] == 17
    shape = content.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in shape] == ["n", "height", "width", 1]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for batch in images(rng, stride):
        [found] = session.run(["probability"], {"image": batch})
        assert_allclose(found, model.predict_on_batch(batch), atol=2e-6)


@needs
def test_openvino(trained, tmp_path, rng):
    import openvino

    path, model, stride = trained
    convert.to_openvino(path, tmp_path / "model.xml")
    assert {file.name for file in tmp_path.iterdir()} == {"model.xml", "model.bin"}
    compiled = openvino.compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in images(rng, stride):
        assert_allclose(compiled(batch)[0], model.predict_on_batch(batch), atol=2e-6)


@pytest.mark.parametrize("convert_to", ["to_saved_model", "to_keras", pytest.param("to_onnx", marks=needs),
                                        pytest.param("to_openvino", marks=needs)])
@pytest.mark.parametrize("when", ["ahead", "meanwhile"])
def test_a_full_disk_is_one_clear_sentence(trained, tmp_path, monkeypatch, convert_to, when):
    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, f"{tmp_path}/x; No space left on device")

    if when == "ahead":
        monkeypatch.setattr(convert.shutil, "disk_usage", lambda _: SimpleNamespace(free=3_000_000))
    else:
        monkeypatch.setattr(keras.Model, "export", full)
        monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(UserError, match=rf"^{tmp_path} has no space for the converted network, about 5 MB; free"):
        getattr(convert, convert_to)(trained[0], tmp_path / "out.xml")
    assert not any(tmp_path.iterdir())


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(convert, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^onnx and tf2onnx are not installed; pip install -r requirements-fast\.txt"):
        convert.to_onnx(tmp_path / "model.keras", tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"^openvino is not installed"):
        convert.to_openvino(tmp_path / "model.keras", tmp_path / "model.xml")
    assert not any(tmp_path.iterdir())
