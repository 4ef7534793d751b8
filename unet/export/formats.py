"""A trained network for other programs: a folder with the formats that were asked for, and a page that says how to use
them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from unet.export.card import card
from unet.export.convert import float32_network, require, to_onnx, to_openvino, to_saved_model
from unet.export.package import sample_of, write_package
from unet.training.trained import read_config
from utils import UserError, atomic_path, file_hash, require_space, write_json

EXTRA = "requirements-export.txt"
MARK = "export.json"  # what a folder of ours is known by
NEEDS = {"bioimageio": ("bioimageio.spec", "onnx", "tf2onnx"), "onnx": ("onnx", "tf2onnx"), "savedmodel": (),
         "openvino": ("openvino",)}
NAMES = {"bioimageio": "bioimageio.zip", "onnx": "model.onnx", "savedmodel": "savedmodel", "openvino": "model.xml"}
TILES = (1, 3)  # sizes of tiles on which ONNX Runtime is compared, in times the least that the network takes


def export(model: Path, out: Path, formats: str | None = None, sample: Path | None = None) -> Iterator[str]:
    """Write the folder `out` with a trained model.keras in these formats, all by default; yields a line about each.

    `sample` is the image of bioimage.io's test tensors, by default a held-out one of the run's data. Raises UserError
    where there is no model, a format is unknown, a package is missing, or `out` has what no export made.
    """
    chosen = _chosen(formats)
    config = read_config(model)
    for name in chosen:
        require(*NEEDS[name], where=EXTRA)
    image = sample_of(config, sample) if "bioimageio" in chosen else None
    _check_folder(out)
    require_space(out, 10 * model.stat().st_size + 10_000_000)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / MARK, {"model": file_hash(model), "formats": chosen})
    with atomic_path(out / "README.md") as path:
        path.write_text(card(model, config), encoding="utf-8")
    writers: dict[str, Callable[[Path, Path], None]] = {
        "onnx": to_onnx, "savedmodel": to_saved_model, "openvino": to_openvino,
        "bioimageio": lambda model, path: write_package(model, path, image)}
    for name in chosen:
        path = out / NAMES[name]
        writers[name](model, path)
        yield f"{path}: {name}{compared(model, path) if name == 'onnx' else ''}"
    yield f"{out / 'README.md'}: what goes in, what comes out, scores, whom to cite"


def compared(model: Path, onnx: Path) -> str:
    """How far ONNX Runtime and Keras are apart on noise of two tile sizes, in words; says so where it isn't there."""
    try:
        import onnxruntime
    except ImportError:
        return ", not compared: onnxruntime is not installed"
    session, rng, most = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]), \
        np.random.default_rng(0), 0.0
    with float32_network(model) as (network, shape):
        for times in TILES:
            side = times * shape.stride + (2 * shape.shrinkage + 4 if shape.padding == "valid" else 0)
            tile = rng.integers(0, 256, (1, side, side, network.input_shape[-1])).astype(np.float32)
            there = session.run(None, {"image": tile})[0]
            most = max(most, float(np.abs(there - network.predict_on_batch(tile)).max()))
    if most > 1e-3:
        raise UserError(f"{onnx}: ONNX Runtime and Keras differ by {most:.3g}, so it was converted wrongly; try the "
                        f"versions of tf2onnx and onnx in {EXTRA}")
    return f", ONNX Runtime and Keras differ by {most:.1g} at most"


def _chosen(formats: str | None) -> list[str]:
    chosen = [word.strip() for word in formats.split(",")] if formats is not None else list(NEEDS)
    for word in chosen:
        if word not in NEEDS:
            raise UserError(f"--format {formats}: there is no format {word or 'without a name'}; choose "
                            f"{', '.join(NEEDS)}")
    return chosen


def _check_folder(out: Path) -> None:
    """Raise UserError where an export would replace what no export made."""
    if out.exists() and not (out.is_dir() and ((out / MARK).is_file() or not any(out.iterdir()))):
        raise UserError(f"{out} is there already, and no export made it; name a new folder with --out")
