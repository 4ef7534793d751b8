"""Convert a trained network into the formats that others run: SavedModel, ONNX, OpenVINO's intermediate representation.

All of them take float32 grey levels (n, H, W, C), as the task's `normalise` gives them, of any n, H and W that the
network fits, and put out float32 probabilities (n, H', W', classes).
"""

from __future__ import annotations

import logging
import math
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from unet.network import Network
from unet.quiet import import_quietly
from unet.training.trained import load_model
from utils import UserError, atomic_folder, atomic_path

if TYPE_CHECKING:
    import keras

# what TensorFlow, h5py, Python and OpenVINO say where the disk is full or its quota reached
FULL = re.compile("No space left on device|Disk quota exceeded|iostream error")
OPSET = 17  # of ONNX: what tools that are two years old still read


def to_saved_model(model: Path, out: Path) -> None:
    """Write the SavedModel of a trained model.keras as the folder `out`; raises UserError where there is none."""
    with float32_network(model) as (network, _), atomic_folder(out) as folder, _room(model, out.parent):
        network.export(folder, format="tf_saved_model", verbose=False, input_signature=_signature(network))


def to_onnx(model: Path, out: Path) -> None:
    """Write the ONNX file `out` of a trained model.keras, opset 17.

    Its input is named 'image' and its output 'probability'; n, H and W are free. Raises UserError where there
    is no model or where tf2onnx and onnx are missing.
    """
    require("onnx", "tf2onnx")
    with float32_network(model) as (network, _), atomic_path(out) as path, _room(model, out.parent), \
            warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # Keras helps tf2onnx over what NumPy took out
        logging.getLogger("tf2onnx").setLevel(logging.ERROR)  # else a line for each of its steps
        network.export(path, format="onnx", opset_version=OPSET, verbose=False, input_signature=_signature(network))
        _name_parts(path)


def to_openvino(model: Path, out: Path) -> None:
    """Write OpenVINO's intermediate representation of a trained model.keras: `out`.xml and, beside it, the .bin.

    The weights stay float32; the processor's own arithmetic is chosen when it is compiled. Raises UserError where there
    is no model or where openvino is missing.
    """
    require("openvino")
    import openvino

    out.parent.mkdir(parents=True, exist_ok=True)
    # beside the output, where there has to be room anyway
    with float32_network(model) as (network, _), TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder, \
            _room(model, out.parent):
        network.export(Path(folder) / "saved", format="tf_saved_model", verbose=False,
                       input_signature=_signature(network))
        converted = openvino.Core().read_model(Path(folder) / "saved")
        weights = out.with_suffix(".bin")
        with atomic_path(weights) as binary, atomic_path(out) as xml:  # the .xml, by which it is known, comes last
            openvino.serialize(converted, xml, binary)


def to_keras(model: Path, out: Path) -> None:
    """Write a trained model.keras as the Keras file `out` in float32, which any Keras 3 loads without this project."""
    with float32_network(model) as (network, _), atomic_path(out) as path, _room(model, out.parent):
        network.save(path)


@contextmanager
def _room(model: Path, folder: Path) -> Iterator[None]:
    """Raise UserError where the disk of `folder` is too full for the network of a model, ahead or when writing fails.

    Each library that writes it fails in a way of its own then.
    """
    needed = 2 * model.stat().st_size + 4_000_000
    message = (f"{folder.resolve()} has no room for the converted network, some {math.ceil(needed / 1e6)} MB; free "
               "some space, name another folder with --out, or predict with --engine tensorflow, which needs none")
    if shutil.disk_usage(folder).free < needed:
        raise UserError(message)
    try:
        yield
    except Exception as error:
        if FULL.search(str(error)):
            raise UserError(message) from None
        raise


def require(*packages: str, where: str = "requirements-fast.txt") -> None:
    """Raise UserError, which names the requirements file `where`, if one of these packages is not installed."""
    missing = [name for name in packages if not _is_there(name)]
    if missing:
        raise UserError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
                        f"pip install -r {where}")


def _is_there(name: str) -> bool:
    """Whether a package is installed; of one inside another, too, where the other is missing."""
    return all(find_spec(".".join(name.split(".")[:end])) for end in range(1, name.count(".") + 2))


@contextmanager
def float32_network(path: Path) -> Iterator[tuple[keras.Model, Network]]:
    """A trained network built anew in float32, whatever it trained in and this process computes in; and its shape."""
    import_quietly()
    import keras

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        model, config = load_model(path)
        yield model, Network(**config["network"])
    finally:
        keras.config.set_dtype_policy(policy)


def _signature(network: keras.Model) -> list:
    import keras

    return [keras.InputSpec("float32", (None, None, None, network.input_shape[-1]), name="image")]


def _name_parts(path: Path) -> None:
    """Give output and dimensions of an ONNX file the names that `to_onnx` promises; tf2onnx numbers them."""
    import onnx

    content = onnx.load(path)
    graph = content.graph
    old = graph.output[0].name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["probability" if name == old else name for name in names]
    graph.output[0].name = "probability"
    for value, sizes in ((graph.input[0], ("n", "height", "width")), (graph.output[0], ("n", "rows", "columns"))):
        for dimension, size in zip(value.type.tensor_type.shape.dim, sizes, strict=False):  # the fourth is fixed
            dimension.dim_param = size
    onnx.checker.check_model(content)
    onnx.save(content, path)
