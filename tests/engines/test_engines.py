"""Engines say the same; each converts a model once and imports what it needs alone."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from unet.engines import engines
from unet.engines.engines import TensorFlow, open_engine
from unet.engines.predictor import Limits, Predictor, limits_of, make_predictor
from unet.engines.windows import overlap_tiles
from unet.network import Network
from unet.tasks.cells import Cells
from unet.training.encoders import build
from unet.training.trained import read_config
from utils import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
SAME = Network(4, 2, dropout=(0, 0, 0))
needs = pytest.mark.skipif(None in (find_spec("onnx"), find_spec("tf2onnx"), find_spec("openvino"),
                                    find_spec("onnxruntime")), reason="requirements-fast.txt is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Write a model.keras of random weights whose output depends on the whole receptive field, and its config.json."""
    folder = tmp_path_factory.mktemp("model")
    keras.utils.set_random_seed(3)
    network = build(SAME, 1, Cells.normalisation)
    for layer in network.layers:
        layer.set_weights([weight * 1.5 for weight in layer.get_weights()])
    network.save(folder / "model.keras")
    (folder / "config.json").write_text(json.dumps({
        "task": Cells().settings(), "network": asdict(SAME), "channels": 1, "normalisation": Cells.normalisation,
        "recipe": {"flips": 8}}))
    return folder / "model.keras"


@needs
@pytest.mark.parametrize(("name", "precision", "tolerance"), [("openvino", "float32", 2e-6), ("openvino", "auto", 0.01),
                                                              ("onnxruntime", "auto", 2e-6)])
def test_engines_say_the_same(model, name, precision, tolerance, rng):
    image = rng.integers(0, 256, (61, 97), np.uint8)
    config = read_config(model)
    expected = make_predictor(open_engine(model, "tensorflow", "float32")[0], config)(image)
    engine, words = open_engine(model, name, precision)
    assert words.endswith({"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}[name])
    assert expected.std() > 0.01
    # the mean: of such weights one output in a thousand goes another way for the last digit of a sum
    assert np.abs(make_predictor(engine, config)(image) - expected).mean() < tolerance


@needs
def test_a_model_is_converted_once_and_anew_when_it_changed(model, tmp_path, monkeypatch):
    for path in (model, model.with_name("config.json")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    here = tmp_path / model.name
    converted = []
    convert = engines.to_openvino
    monkeypatch.setattr(engines, "to_openvino", lambda *paths: (converted.append(paths), convert(*paths)))
    open_engine(here, "openvino")
    open_engine(here, "openvino")
    assert len(converted) == 1
    keras.models.clone_model(build(SAME, 1, Cells.normalisation)).save(here)
    open_engine(here, "openvino")
    assert len(converted) == 2
    assert len(list((tmp_path / "engines").glob("*.xml"))) == 2


@needs
@pytest.mark.parametrize("damage", [lambda content: content[:len(content) // 2],
                                    lambda content: content[:-64] + bytes(64)], ids=["cut short", "changed"])
@pytest.mark.parametrize("conversion", [("openvino", ".xml"), ("openvino", ".bin"), ("onnxruntime", ".onnx")])
def test_a_converted_network_that_is_damaged_is_made_anew(model, tmp_path, capsys, rng, conversion, damage):
    name, ending = conversion
    for path in (model, model.with_name("config.json")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tiles = rng.integers(0, 256, (1, 64, 64, 1), np.uint8)
    whole = open_engine(tmp_path / model.name, name)[0](tiles)
    file = next((tmp_path / "engines").glob(f"*{ending}"))
    content = file.read_bytes()
    file.unlink()  # it may still be mapped
    file.write_bytes(damage(content))
    np.testing.assert_array_equal(open_engine(tmp_path / model.name, name)[0](tiles), whole)
    assert "is not as it was written, so the model is converted again" in capsys.readouterr().out
    open_engine(tmp_path / model.name, name)
    assert "again" not in capsys.readouterr().out


@needs
def test_conversions_for_several_engines_lie_side_by_side(model, tmp_path, capsys):
    for path in (model, model.with_name("config.json")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for name in ("onnxruntime", "openvino", "onnxruntime", "openvino"):
        open_engine(tmp_path / model.name, name)
    assert "converted again" not in capsys.readouterr().out


@needs
def test_a_network_is_compiled_for_each_shape_of_tiles_once_and_few_are_kept(model, rng):
    engine, _ = open_engine(model, "openvino", "float32")
    kept = [rng.integers(0, 256, (1, side, 2 * side, 1), np.uint8) for side in 8 * np.arange(1, 3 + engines.SHAPES)]
    first = [engine(tiles) for tiles in kept]
    last = engine.compile_for.cache_info()
    assert (last.misses, last.currsize) == (len(kept), engines.SHAPES)
    for tiles, expected in zip(kept[::-1], first[::-1], strict=True):
        np.testing.assert_array_equal(engine(tiles), expected)
    assert engine.compile_for.cache_info().misses == len(kept) + len(kept) - engines.SHAPES


@needs
def test_openvinos_first_array_is_made_before_threads_ask_for_one(tmp_path, monkeypatch):
    """Check the order: on Python 3.12 two threads that made it at the same time deadlocked once, but not again."""
    import openvino
    from openvino import opset13

    image, order = opset13.parameter([-1, 4, 4, 1], np.float32), []
    openvino.save_model(openvino.Model([opset13.relu(image)], [image]), tmp_path / "model.xml")

    class Noted(openvino.Tensor):
        @property
        def data(self):
            order.append("array")
            return super().data

    core = openvino.Core
    monkeypatch.setattr(openvino, "Tensor", Noted)
    monkeypatch.setattr(openvino, "Core", lambda: (order.append("core"), core())[1])
    engine = engines.OpenVINO(tmp_path / "model.xml", "float32")
    assert order == ["array", "core"]
    tiles = np.random.default_rng(0).normal(size=(6, 3, 4, 4, 1)).astype(np.float32)
    with ThreadPoolExecutor(2) as pool:
        for output, given in zip(pool.map(engine, tiles), tiles, strict=True):
            np.testing.assert_array_equal(output, np.maximum(given, 0))


@needs
@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_an_engine_starts_without_tensorflow(model, name):
    open_engine(model, name)  # converted
    code = ("import sys, predict; from pathlib import Path; "
            f"predict.open_engine(Path({str(model)!r}), {name!r}); print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not {"tensorflow", "keras"} & set(done.stdout.split())


def test_auto_is_openvino_on_processors_where_it_is_installed(model, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: object())
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    assert engines._suits_openvino(model, "auto")
    assert not engines._suits_openvino(model, "float16")
    monkeypatch.setattr(engines.shutil, "which", lambda name: "nvidia-smi")
    assert not engines._suits_openvino(model, "auto")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert "TensorFlow" in open_engine(model, "auto", "float32")[1]


@needs
def test_an_arithmetic_that_an_engine_has_not_is_refused(model):
    with pytest.raises(UserError, match=r"--engine onnxruntime computes in float32, not in bfloat16; leave"):
        open_engine(model, "onnxruntime", "bfloat16")


# ----------------------------------------------------------------------------------------- tiles, batches, memory


class Recorder:
    """An engine that predicts .5 everywhere, records the shapes of its tiles, and has memory for `most` pixels."""

    def __init__(self, most=10**9, error=MemoryError):
        self.shapes, self.most, self.error = [], most, error

    def __call__(self, tiles):
        if tiles[..., 0].size > self.most:
            raise self.error("OOM when allocating tensor")
        self.shapes.append(tiles.shape[:3])
        return np.full((*tiles.shape[:3], 1), 0.5, np.float32)


def test_flips_are_batches_and_tiles_fit_the_image():
    square, long, few = Recorder(), Recorder(), Recorder()
    Predictor(square, SAME, Cells(), flips=8).predict(np.zeros((64, 64), np.uint8))
    assert square.shapes == [(8, 64, 64)]  # no margin where the image ends
    Predictor(long, SAME, Cells(), flips=8).predict(np.zeros((100, 600), np.uint8))
    assert long.shapes == [(4, 100, 600), (4, 600, 100)]
    Predictor(few, SAME, Cells(), 8, limits=Limits(640, 2 * 64**2)).predict(np.zeros((64, 64), np.uint8))
    assert few.shapes == [(2, 64, 64)] * 4


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, type("ResourceExhaustedError", (Exception,), {})])
def test_out_of_memory_halves_the_tiles_and_says_so(error, capsys):
    engine = Recorder((128 + 2 * SAME.margin) ** 2, error)
    predictor = Predictor(engine, SAME, Cells())
    for _ in range(2):
        probability = predictor.predict(np.zeros((512, 512), np.uint8))
        assert probability.shape == (512, 512, 1) and (probability == 0.5).all()
    assert "note: memory ran out; going on with tiles of 128 pixels and their margins" in "".join(capsys.readouterr())
    assert len(engine.shapes) == 2 * 16  # the second image does not try the larger ones again
    with pytest.raises(MemoryError, match="tiles of 32 pixels and their margins are too large"):
        Predictor(Recorder(10, error), SAME, Cells()).predict(np.zeros((512, 512), np.uint8))


def test_other_errors_are_not_taken_for_want_of_memory():
    def engine(tiles):
        raise RuntimeError("unsupported shape")

    with pytest.raises(RuntimeError, match="unsupported"):
        Predictor(engine, SAME, Cells()).predict(np.zeros((64, 64), np.uint8))


def test_the_tile_follows_the_memory_there_is():
    network = Network(24, 3, half=True)
    much, little = limits_of(network, free=8 * 10**9), limits_of(network, free=200 * 10**6)
    assert much == Limits()
    assert 64 <= little.core < 640
    assert little.pixels * 100 < 200 * 10**6
    assert (little.core + 2 * network.margin) ** 2 <= little.pixels


def test_a_tile_reaches_no_further_than_its_image_needs():
    tiles, margin = overlap_tiles(SAME, (100, 600)), SAME.margin
    assert (tiles.cores, len(tiles), tiles.window((0, 0))) == ((100, 600), 1, ((0, 0), (100, 600)))
    tiles = overlap_tiles(SAME, (101, 1300))
    assert tiles.cores == (104, 436)
    assert [tiles.window(corner) for corner in tiles.corners()] == [
        ((0, 0), (104, 436 + margin)), ((0, 436 - margin), (104, 436 + 2 * margin)),
        ((0, 872 - margin), (104, 1300 - 872 + margin))]
    valid = replace(SAME, padding="valid")
    assert overlap_tiles(valid, (100, 600)).window((0, 0)) == ((-valid.margin,) * 2, (
        100 + 2 * valid.margin, 600 + 2 * valid.margin))  # its output would be smaller than the image


def test_tensorflow_takes_a_keras_model(model, rng):
    network = keras.models.load_model(model)
    tiles = rng.integers(0, 256, (2, 32, 48, 1), np.uint8)
    assert_allclose(TensorFlow(network)(tiles), network.predict_on_batch(tiles))
