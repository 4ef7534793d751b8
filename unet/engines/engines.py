"""Engines: the same trained weights, run by TensorFlow, OpenVINO or ONNX Runtime.

An engine is a function: tiles uint8 or float32 (n, H, W, C) of grey levels -> probability float32 (n, H', W', classes).
Only the one that is asked for is imported; TensorFlow takes seconds to start.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet.export.convert import require, to_onnx, to_openvino
from unet.training.device import cpu_precision, prepare_device
from unet.training.trained import load_model
from unet.workers import default_workers
from utils import UserError, file_hash

if TYPE_CHECKING:
    import keras
    import openvino

Engine = Callable[[np.ndarray], np.ndarray]
BATCH = 2**20  # pixels that a processor predicts at once: two flips of an ISBI slice; more are no faster
GPU_BATCH = 2**23  # all eight
STREAMS = 2  # images that a processor predicts at once
SHAPES = 8  # of tiles, for which a network is kept compiled
FOLDER = "engines"  # beside the model: converted networks, by the hash of their model


class TensorFlow:
    """A Keras model as an engine."""

    def __init__(self, model: keras.Model, batch: int = BATCH):
        self.model, self.batch = model, batch

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        return self.model.predict_on_batch(tiles)


class OpenVINO:
    """A network that `to_openvino` wrote, compiled for this machine's processor.

    It has as many streams, each on its share of the cores, as `streams` says; they don't wait for each other as the
    threads of one do. The tiles of a call are shared out among them, and several threads may call at once.
    """

    def __init__(self, path: Path, precision: str):
        import openvino

        self.streams = min(STREAMS, default_workers())
        settings = {"INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[precision],
                    "NUM_STREAMS": self.streams, "INFERENCE_NUM_THREADS": default_workers()}
        # the first array of all is made here: two threads that made it at once would wait for each other for ever
        openvino.Tensor(np.zeros(1, np.float32)).data  # noqa: B018
        core, self.one_at_a_time = openvino.Core(), threading.Lock()
        core.read_model(path)  # raises now what is wrong with it

        @lru_cache(SHAPES)
        def compiled(shape: tuple[int, ...]) -> tuple[openvino.CompiledModel, list[openvino.InferRequest]]:
            """The network for tiles of one shape, and its requests that are idle.

            Compiled in a tenth of a second, it takes three quarters of the time of a network for any shape.
            """
            network = core.read_model(path)
            network.reshape(shape)
            return core.compile_model(network, "CPU", settings), []

        self.compiled = compiled

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        parts = [part for part in np.array_split(np.ascontiguousarray(tiles, np.float32), self.streams) if len(part)]
        with self.one_at_a_time:
            homes = [self.compiled(part.shape) for part in parts]
            running = [idle.pop() if idle else model.create_infer_request() for model, idle in homes]
        for request, part in zip(running, parts, strict=True):
            request.start_async([part], share_inputs=True)
        for request in running:
            request.wait()
        probability = np.concatenate([request.get_output_tensor().data for request in running])  # copied
        for request, (_, idle) in zip(running, homes, strict=True):
            idle.append(request)
        return probability


class OnnxRuntime:
    """A network that `to_onnx` wrote, on this machine's processor."""

    def __init__(self, path: Path):
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3  # errors alone
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"image": np.ascontiguousarray(tiles, np.float32)})[0]


ENGINES = ("auto", "tensorflow", "openvino", "onnxruntime")
ARITHMETIC = {"openvino": ("bfloat16", "float32"), "onnxruntime": ("float32",)}  # TensorFlow has all


def open_engine(model: Path, name: str = "auto", precision: str = "auto") -> tuple[Engine, str]:
    """Open a trained model.keras with the engine of this name; returns it, and what was chosen, for the console.

    'auto' is OpenVINO where it is installed and there is no GPU, else TensorFlow. OpenVINO and ONNX Runtime take the
    network converted, which is done once and kept in the folder 'engines' beside the model. Raises UserError where
    something is not installed, where the engine has no such arithmetic, or where the model is broken.
    """
    if name == "auto":
        name = "openvino" if _suits_openvino(model, precision) else "tensorflow"
    if name == "tensorflow":
        device = prepare_device(precision)
        batch = BATCH if device.startswith("no GPU") else GPU_BATCH
        return TensorFlow(load_model(model)[0], batch), f"{device}, TensorFlow"
    require(name)
    if precision not in ("auto", *ARITHMETIC[name]):
        raise UserError(f"--engine {name} computes in {' or '.join(ARITHMETIC[name])}, not in {precision}; leave "
                        "--precision out, or take --engine tensorflow")
    cores = f"{os.cpu_count()} CPU cores"
    if name == "onnxruntime":
        return _converted(model, ".onnx", to_onnx, OnnxRuntime), f"{cores}, float32, ONNX Runtime"
    precision = cpu_precision() if precision == "auto" else precision
    engine = _converted(model, ".xml", to_openvino, partial(OpenVINO, precision=precision))
    return engine, f"{cores}, {precision}, OpenVINO"


def _suits_openvino(model: Path, precision: str) -> bool:
    gpu = shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()
    return (find_spec("openvino") is not None and not gpu and precision in ("auto", *ARITHMETIC["openvino"])
            and os.access(model.parent, os.W_OK))


def _converted(model: Path, suffix: str, convert: Callable[[Path, Path], None], start: Callable[[Path], Engine]
               ) -> Engine:
    """The model converted, of which one was kept before or is made now, as an engine."""
    path = model.parent / FOLDER / f"{file_hash(model)[:16]}{suffix}"
    if path.is_file():
        try:
            return start(path)
        except Exception as error:  # each engine has errors of its own
            print(f"note: {path} is damaged ({type(error).__name__}), so it is made anew")
    convert(model, path)
    return start(path)
