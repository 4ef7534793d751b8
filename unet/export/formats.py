"""Export of a trained network for other programs: a folder with the requested formats and a README on their use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from unet.export.card import card
from unet.export.convert import float32_network, require, to_onnx, to_openvino, to_saved_model
from unet.export.package import load_sample, write_package
from unet.training.trained import read_config
from utils import UserError, atomic_path, file_hash, require_space, write_json

EXTRA = "requirements-export.txt"
EXPORT_MARK = "export.json"  # the file by which a folder of an export is recognised
NEEDS = {"bioimageio": ("bioimageio.spec", "onnx", "tf2onnx"), "onnx": ("onnx", "tf2onnx"), "savedmodel": (),
         "openvino": ("openvino",)}
OUTPUTS = {"bioimageio": "bioimageio.zip", "onnx": "model.onnx", "savedmodel": "savedmodel", "openvino": "model.xml"}
TILE_STRIDES = (1, 3)  # sides of the tiles on which ONNX Runtime is compared with Keras, in strides of the network


def export(model: Path, out: Path, formats: str | None = None, sample: Path | None = None) -> Iterator[str]:
    """Write a trained model.keras in these formats (default: all) to the folder `out`; yield a line about each.

    `sample` is the image for bioimage.io's test tensors (default: a held-out one of the run's data). Raises UserError
    if there is no model, a format is unknown, a package is missing, or `out` has files that no export wrote.
    """
    names = _parse_formats(formats)
    config = read_config(model)
    for name in names:
        require(*NEEDS[name], requirements=EXTRA)
    image = load_sample(config, sample) if "bioimageio" in names else None
    _check_folder(out)
    require_space(out, 10 * model.stat().st_size + 10_000_000)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / EXPORT_MARK, {"model": file_hash(model), "formats": names})
    with atomic_path(out / "README.md") as path:
        path.write_text(card(model, config), encoding="utf-8")
    writers: dict[str, Callable[[Path, Path], None]] = {
        "onnx": to_onnx, "savedmodel": to_saved_model, "openvino": to_openvino,
        "bioimageio": lambda model, path: write_package(model, path, image)}
    for name in names:
        path = out / OUTPUTS[name]
        writers[name](model, path)
        yield f"{path}: {name}{compare_with_keras(model, path) if name == 'onnx' else ''}"
    yield f"{out / 'README.md'}: input, output, scores, whom to cite"


def compare_with_keras(model: Path, onnx: Path) -> str:
    """Compare an ONNX file with its model on noise of two tile sizes; describe the greatest difference.

    Without ONNX Runtime, say that they were not compared. Raises UserError if the difference is large.
    """
    try:
        import onnxruntime
    except ImportError:
        return ", not compared: onnxruntime is not installed"
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    rng, greatest = np.random.default_rng(0), 0.0
    with float32_network(model) as (network, shape):
        for times in TILE_STRIDES:
            side = times * shape.stride + (2 * shape.margin if shape.padding == "valid" else 0)
            tile = rng.integers(0, 256, (1, side, side, network.input_shape[-1])).astype(np.float32)
            output = session.run(None, {"image": tile})[0]
            greatest = max(greatest, float(np.abs(output - network.predict_on_batch(tile)).max()))
    if greatest > 1e-3:
        raise UserError(f"{onnx}: ONNX Runtime and Keras differ by {greatest:.3g}, so the conversion is wrong; try the "
                        f"versions of tf2onnx and onnx in {EXTRA}")
    return f", ONNX Runtime and Keras differ by {greatest:.1g} at most"


def _parse_formats(formats: str | None) -> list[str]:
    names = [name.strip() for name in formats.split(",")] if formats is not None else list(NEEDS)
    for name in names:
        if name not in NEEDS:
            raise UserError(f"--format {formats}: there is no format {name or 'without a name'}; choose from "
                            f"{', '.join(NEEDS)}")
    return names


def _check_folder(out: Path) -> None:
    """Raise UserError if an export would replace files that no export wrote."""
    if out.exists() and not (out.is_dir() and ((out / EXPORT_MARK).is_file() or not any(out.iterdir()))):
        raise UserError(f"{out} exists already, and no export wrote it; name a new folder with --out")
