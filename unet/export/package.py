"""A package for bioimage.io: model description 0.5, weights of Keras and ONNX, test tensors, a cover, documentation."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from unet.citations import about, reference, works
from unet.export.card import card, purpose, title
from unet.export.convert import OPSET, float32_network, to_keras, to_onnx
from unet.inputs.folders import stretch
from unet.inputs.layouts import layout_of
from unet.network import Network
from unet.tasks import task_of
from unet.tasks.task import Task
from unet.training.trained import read_config
from utils import OverlapTile, UserError, atomic_path

if TYPE_CHECKING:
    from bioimageio.spec.model import v0_5

TEST_SIDE = 256  # of the test image, pixels, or the network's smallest if that is larger
FEWEST = 2  # side of the smallest core of a tile, in strides of the network


def load_sample(config: dict, path: Path | None) -> np.ndarray:
    """Read an image (H, W[, C]) for test tensors and cover: `path`, by default a held-out one of the run's data.

    Raises UserError if it cannot be read.
    """
    if path:
        return np.asarray(task_of(config).inputs(path)[0].image)
    try:
        split = config["split"]
        return layout_of(config["data"])[(split["holdout"] or split["train"])[0]].image
    except (UserError, FileNotFoundError, IndexError) as error:
        raise UserError(f"the data of this run cannot be read any more ({error}); name an image for the package's test "
                        "and cover with --sample, or leave bioimageio out of --format") from None


def write_package(model: Path, out: Path, image: np.ndarray) -> None:
    """Write a trained model.keras as the zip `out`, with test tensors from a raw image (H, W[, C])."""
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as name:
        folder = Path(name)
        config = read_config(model)
        to_keras(model, folder / "model.keras")
        to_onnx(model, folder / "model.onnx")
        (folder / "README.md").write_text(card(model, config), encoding="utf-8")
        task, network = task_of(config), Network(**config["network"])
        part = _crop(task, network, image)
        with float32_network(model) as (keras_model, _):
            output = keras_model.predict_on_batch(apply_steps(task, part))
        np.save(folder / "input.npy", part)
        np.save(folder / "output.npy", output)
        (folder / "cover.png").write_bytes(imagecodecs.png_encode(_cover(part[0], output[0])))
        _save(_description(folder, task, network, config), out)


def sides(network: Network) -> tuple[int, int]:
    """Return the smallest side of a tile, margins included, and the step by which sides grow, both in pixels."""
    return 2 * network.margin + FEWEST * network.stride, network.stride


def apply_steps(task: Task, part: np.ndarray) -> np.ndarray:
    """Normalise images (n, H, W, C) for the network, by the very steps that the package names; float32."""
    spatial = (1, 2, 3) if part.shape[-1] == 1 else (1, 2)
    result = part.astype(np.float32)
    for name, values in task.portable()[0]:
        if name == "zero_mean_unit_variance":
            mean, sd = result.mean(axis=(1, 2, 3), keepdims=True), result.std(axis=(1, 2, 3), keepdims=True)
            result = (result - mean) / (sd + 1e-6)
        elif name == "scale_range":
            low, high = (np.percentile(result, values[end], axis=spatial, keepdims=True)
                         for end in ("min_percentile", "max_percentile"))
            result = (result - low) / (high - low + 1e-6)
        elif name == "scale_linear":
            result = result * values["gain"] + values["offset"]
        elif name == "clip":
            result = result.clip(values["min"], values["max"])
        else:
            result = result.astype(values["dtype"])
    return result.astype(np.float32)


def _crop(task: Task, network: Network, image: np.ndarray) -> np.ndarray:
    """Crop the middle of an image, with its mirror image around if it is small; (1, side, side, C) in its own dtype."""
    if getattr(task, "resize", None):
        image = task.normalise(image, task.levels(image))  # it resizes, and leaves grey levels as they are
    least, step = sides(network)
    side = least + max(0, -(-(TEST_SIDE - least) // step)) * step
    corner = [(size - side) // 2 for size in image.shape[:2]]
    part = OverlapTile(image.shape[:2], side).cut_at(image, [tuple(corner)])
    return part if part.ndim == 4 else part[..., np.newaxis]


def _cover(part: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Draw the image and, beside it, the probability or the likeliest of several classes; uint8 (side, 2 * side, 3)."""
    image = stretch(part) / 255
    prediction = output if output.shape[-1] == 1 else \
        (output.argmax(axis=-1, keepdims=True) / (output.shape[-1] - 1)).astype(np.float32)
    edge = (len(part) - len(prediction)) // 2
    prediction = np.pad(prediction, ((edge, edge), (edge, edge), (0, 0)))
    halves = [np.broadcast_to(one, (*one.shape[:2], 3)) for one in (image, prediction)]
    return (255 * np.concatenate(halves, axis=1)).round().astype(np.uint8)


# ------------------------------------------------------------------------------------------------ the description


def _description(folder: Path, task: Task, network: Network, config: dict) -> v0_5.ModelDescr:
    import keras
    import tensorflow
    from bioimageio.spec.model import v0_5

    keras_weights = v0_5.KerasV3WeightsDescr(
        source=folder / "model.keras", keras_version=v0_5.Version(keras.__version__),
        backend=("tensorflow", v0_5.Version(tensorflow.__version__)))
    onnx_weights = v0_5.OnnxWeightsDescr(source=folder / "model.onnx", opset_version=OPSET, parent="keras_v3")
    file = v0_5.FileDescr
    return v0_5.ModelDescr(
        name=title(task), description=purpose(task, config), license=about()["license"], version=about()["version"],
        authors=[v0_5.Author(name=author["name"]) for author in about()["authors"]],
        cite=[v0_5.CiteEntry(text=reference(name), doi=work["doi"])  # a URL instead would be looked up over the network
              for name, work in works().items() if "doi" in work],
        tags=["unet", "2d", "semantic-segmentation", "keras", task.meaning], covers=[file(source=folder / "cover.png")],
        documentation=file(source=folder / "README.md"),
        inputs=[_input(folder, task, network, config)], outputs=[_output(folder, task, network, config)],
        weights=v0_5.WeightsDescr(keras_v3=keras_weights, onnx=onnx_weights))


def _pixel_size(config: dict, axis: str) -> dict:
    """Return unit and size of a pixel along 'y' or 'x'; {} if the run does not know it."""
    voxel = config.get("voxel") or {}
    return {"unit": "micrometer", "scale": voxel[axis]} if voxel.get(axis) else {}


def _input(folder: Path, task: Task, network: Network, config: dict) -> v0_5.InputTensorDescr:
    from bioimageio.spec.model import v0_5

    least, step = sides(network)
    size = v0_5.ParameterizedSize(min=least, step=step)
    names = ["red", "green", "blue"] if config["channels"] == 3 else ["gray"]
    axes = [v0_5.BatchAxis(), *(v0_5.SpaceInputAxis(id=axis, size=size, **_pixel_size(config, axis)) for axis in "yx"),
            v0_5.ChannelAxis(channel_names=names)]
    steps, limits = task.portable()
    step_axes = {"zero_mean_unit_variance": {"axes": ["channel", "y", "x"]}, "scale_range": {"axes": ["y", "x"]}}
    processing = [{"id": name, "kwargs": {**values, **step_axes.get(name, {})}} for name, values in steps]
    return v0_5.InputTensorDescr(
        id="image", description=limits[:128], axes=axes, data=v0_5.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=v0_5.FileDescr(source=folder / "input.npy"), pad=v0_5.ReflectPadding(),
        preprocessing=[*processing, {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}])


def _output(folder: Path, task: Task, network: Network, config: dict) -> v0_5.OutputTensorDescr:
    from bioimageio.spec.model import v0_5

    valid = network.padding == "valid"
    axes = []
    for axis in "yx":
        size = v0_5.SizeReference(tensor_id="image", axis_id=axis, offset=-2 * network.shrinkage if valid else 0)
        values = {"id": axis, "size": size, **_pixel_size(config, axis)}
        axes.append(v0_5.SpaceOutputAxis(**values) if valid else
                    v0_5.SpaceOutputAxisWithHalo(halo=network.margin, **values))
    names = [f"class{number}" for number in range(network.classes)] if network.classes > 1 else [
        task.output.rsplit(" ", 1)[-1]]
    return v0_5.OutputTensorDescr(
        id="probability", description=task.output, test_tensor=v0_5.FileDescr(source=folder / "output.npy"),
        axes=[v0_5.BatchAxis(), *axes, v0_5.ChannelAxis(channel_names=names)],
        data=v0_5.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)))


def _save(description: v0_5.ModelDescr, out: Path) -> None:
    """Write the zip without log messages: the remarks of its checks are for those who publish it."""
    from bioimageio.spec import save_bioimageio_package
    from loguru import logger

    logger.disable("bioimageio")
    try:
        with atomic_path(out) as path:
            save_bioimageio_package(description, output_path=path)
    finally:
        logger.enable("bioimageio")
