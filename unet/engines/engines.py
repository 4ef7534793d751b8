"""Engines: the same trained weights, run by TensorFlow, OpenVINO or ONNX Runtime.

An engine is a function: tiles uint8 or float32 (n, H, W, C) of grey levels -> probability float32 (n, H', W', classes).
Only the requested one is imported; TensorFlow takes seconds to start.
"""

from __future__ import annotations

import json
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
from unet.system.workers import default_workers
from unet.training.device import cpu_precision, prepare_device
from unet.training.trained import load_model
from utils import UserError, file_hash, write_json

if TYPE_CHECKING:
    import keras
    import openvino

Engine = Callable[[np.ndarray], np.ndarray]
BATCH = 2**20  # pixels in a batch on a CPU: two flips of an ISBI slice; larger batches are no faster
GPU_BATCH = 2**23  # pixels in a batch on a GPU: all eight flips
STREAMS = 2  # images that a CPU predicts at the same time
SHAPES = 8  # tile shapes for which a compiled network is kept
FOLDER = "engines"  # beside the model: converted networks, named after the hash of their model


class TensorFlow:
    """A Keras model as an engine."""

    def __init__(self, model: keras.Model, batch: int = BATCH):
        self.model, self.batch = model, batch

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        return self.model.predict_on_batch(tiles)


class OpenVINO:
    """A network that `to_openvino` wrote, compiled for this machine's CPU.

    It runs in `streams` streams, each on its share of the cores. Unlike the threads of one stream, they don't wait for
    each other. The tiles of a call are distributed over the streams, and several threads may call at the same time.
    """

    def __init__(self, path: Path, precision: str):
        import openvino

        self.streams = min(STREAMS, default_workers())
        settings = {"INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[precision],
                    "NUM_STREAMS": self.streams, "INFERENCE_NUM_THREADS": default_workers()}
        # once in this thread: two threads that access their first array at the same time would deadlock
        openvino.Tensor(np.zeros(1, np.float32)).data  # noqa: B018
        core, self.lock = openvino.Core(), threading.Lock()
        core.read_model(path)  # raises here if the file is damaged

        @lru_cache(SHAPES)
        def compile_for(shape: tuple[int, ...]) -> tuple[openvino.CompiledModel, list[openvino.InferRequest]]:
            """Compile the network for tiles of one shape; return it with the list of its idle requests.

            This takes a tenth of a second, and saves a quarter of the time that a network for any shape takes.
            """
            network = core.read_model(path)
            network.reshape(shape)
            return core.compile_model(network, "CPU", settings), []

        self.compile_for = compile_for

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        parts = [part for part in np.array_split(np.ascontiguousarray(tiles, np.float32), self.streams) if len(part)]
        with self.lock:
            networks = [self.compile_for(part.shape) for part in parts]
            requests = [idle.pop() if idle else network.create_infer_request() for network, idle in networks]
        for request, part in zip(requests, parts, strict=True):
            request.start_async([part], share_inputs=True)
        for request in requests:
            request.wait()
        # a copy, as requests are used again
        probability = np.concatenate([request.get_output_tensor().data for request in requests])
        for request, (_, idle) in zip(requests, networks, strict=True):
            idle.append(request)
        return probability


class OnnxRuntime:
    """A network that `to_onnx` wrote, run on this machine's CPU."""

    def __init__(self, path: Path):
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3  # errors only
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"image": np.ascontiguousarray(tiles, np.float32)})[0]


ENGINES = ("auto", "tensorflow", "openvino", "onnxruntime")
ARITHMETIC = {"openvino": ("bfloat16", "float32"), "onnxruntime": ("float32",)}  # TensorFlow supports all


def open_engine(model: Path, name: str = "auto", precision: str = "auto") -> tuple[Engine, str]:
    """Open a trained model.keras with the engine of this name; return the engine and its description for the console.

    'auto' is OpenVINO if it is installed and fits the precision, the model's folder can be written and there is no GPU,
    otherwise TensorFlow. For OpenVINO and ONNX Runtime, the network is converted once and kept in the folder 'engines'
    beside the model. Raises UserError if a package is not installed, if the engine does not support the precision, or
    if the model is damaged.
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
                        "out --precision, or use --engine tensorflow")
    cores = f"{os.cpu_count()} CPU cores"
    if name == "onnxruntime":
        return _open_converted(model, ".onnx", to_onnx, OnnxRuntime), f"{cores}, float32, ONNX Runtime"
    precision = cpu_precision() if precision == "auto" else precision
    engine = _open_converted(model, ".xml", to_openvino, partial(OpenVINO, precision=precision))
    return engine, f"{cores}, {precision}, OpenVINO"


def _suits_openvino(model: Path, precision: str) -> bool:
    gpu = shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()
    return (find_spec("openvino") is not None and not gpu and precision in ("auto", *ARITHMETIC["openvino"])
            and os.access(model.parent, os.W_OK))


def _open_converted(model: Path, suffix: str, convert: Callable[[Path, Path], None], start: Callable[[Path], Engine]
                    ) -> Engine:
    """Start an engine on the converted model; convert it first if no intact conversion is there."""
    path = model.parent / FOLDER / f"{file_hash(model)[:16]}{suffix}"
    record = path.with_name(f"{path.name}.json")  # hashes: a damaged file may start, and predict anything
    if path.is_file() and record.is_file():
        try:
            if json.loads(record.read_text()) == _hashes(path):
                return start(path)
            print(f"note: {path} is not as it was written, so the model is converted again")
        except Exception as error:  # each engine has errors of its own
            print(f"note: {path} is damaged ({type(error).__name__}), so the model is converted again")
    convert(model, path)
    write_json(record, _hashes(path))
    return start(path)


def _hashes(path: Path) -> dict[str, str]:
    """Return the hash of each file of a converted model, by name: OpenVINO's are .xml and .bin."""
    files = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return {file.name: file_hash(file) for file in files if file.is_file()}
