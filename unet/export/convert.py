"""Conversion of a trained network for other programs: SavedModel, ONNX, OpenVINO's intermediate representation, Keras.

The input is float32 grey levels (n, H, W, C), as the task's `normalise` returns them, with any n and any H and W that
suit the network; the output is float32 probabilities (n, H', W', classes).
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
from unet.system.quiet import import_quietly
from unet.training.trained import load_model
from utils import UserError, atomic_folder, atomic_path

if TYPE_CHECKING:
    import keras

# messages of TensorFlow, h5py, Python and OpenVINO when the disk is full or its quota is reached
FULL = re.compile("No space left on device|Disk quota exceeded|iostream error")
OPSET = 17  # version of ONNX's operators that tools two years old still read


def to_saved_model(model: Path, out: Path) -> None:
    """Write a trained model.keras as a SavedModel, the folder `out`; raise UserError if there is no model."""
    with float32_network(model) as (network, _), atomic_folder(out) as folder, _check_space(model, out.parent):
        network.export(folder, format="tf_saved_model", verbose=False, input_signature=_signature(network))


def to_onnx(model: Path, out: Path) -> None:
    """Write a trained model.keras as the ONNX file `out`, opset 17.

    Its input is named 'image' and its output 'probability'; n, H and W are free. Raises UserError if there is no model,
    or if tf2onnx or onnx is not installed.
    """
    require("onnx", "tf2onnx")
    with float32_network(model) as (network, _), atomic_path(out) as path, _check_space(model, out.parent), \
            warnings.catch_warnings():
        # Keras patches, with a warning, what NumPy has removed and tf2onnx still uses
        warnings.filterwarnings("ignore", category=FutureWarning)
        logging.getLogger("tf2onnx").setLevel(logging.ERROR)  # otherwise it prints a line for each of its steps
        network.export(path, format="onnx", opset_version=OPSET, verbose=False, input_signature=_signature(network))
        _name_tensors(path)


def to_openvino(model: Path, out: Path) -> None:
    """Write a trained model.keras in OpenVINO's intermediate representation: the .xml file `out`, and a .bin beside it.

    The weights stay float32; the CPU's precision is chosen when the network is compiled. Raises UserError if there is
    no model, or if openvino is not installed.
    """
    require("openvino")
    import openvino

    out.parent.mkdir(parents=True, exist_ok=True)
    # temporary files go beside the output, where there must be space anyway
    with float32_network(model) as (network, _), TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder, \
            _check_space(model, out.parent):
        network.export(Path(folder) / "saved", format="tf_saved_model", verbose=False,
                       input_signature=_signature(network))
        openvino_model = openvino.Core().read_model(Path(folder) / "saved")
        with atomic_path(out.with_suffix(".bin")) as binary, atomic_path(out) as xml:
            openvino.serialize(openvino_model, xml, binary)


def to_keras(model: Path, out: Path) -> None:
    """Write a trained model.keras as the Keras file `out` in float32, which any Keras 3 loads without this project."""
    with float32_network(model) as (network, _), atomic_path(out) as path, _check_space(model, out.parent):
        network.save(path)


@contextmanager
def _check_space(model: Path, folder: Path) -> Iterator[None]:
    """Raise UserError if the disk of `folder` is too full for a converted model, in advance or when writing fails.

    On a full disk, each library fails with an error of its own.
    """
    size = 2 * model.stat().st_size + 4_000_000
    message = (f"{folder.resolve()} has no space for the converted network, about {math.ceil(size / 1e6)} MB; free "
               "some space, name another folder with --out, or predict with --engine tensorflow, which needs none")
    if shutil.disk_usage(folder).free < size:
        raise UserError(message)
    try:
        yield
    except Exception as error:
        if FULL.search(str(error)):
            raise UserError(message) from None
        raise


def require(*packages: str, requirements: str = "requirements-fast.txt") -> None:
    """Raise UserError, which names the requirements file, if one of these packages is not installed."""
    missing = [name for name in packages if not _is_installed(name)]
    if missing:
        raise UserError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
                        f"pip install -r {requirements}")


def _is_installed(name: str) -> bool:
    """Tell whether a package is installed; `find_spec` of a package inside a missing one would raise."""
    return all(find_spec(".".join(name.split(".")[:end])) for end in range(1, name.count(".") + 2))


@contextmanager
def float32_network(path: Path) -> Iterator[tuple[keras.Model, Network]]:
    """Yield a trained network in float32, whatever precision it was trained in or this process uses; and its shape."""
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


def _name_tensors(path: Path) -> None:
    """Give the output and the dimensions of an ONNX file the names that `to_onnx` promises; tf2onnx numbers them."""
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
