"""Single images of 16 bits or floats: what the network sees is normalised from their own depth, in one step."""

import json

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei
from numpy.testing import assert_array_equal

from augmentation import Settings, augment
from preprocessing import Tiling, preprocess
from unet.tasks.nuclei import Nuclei
from unet.tasks.of_images import CellImages

NUCLEI = Nuclei(window_side=48)


def faint(shape=(64, 64), modality="fluorescence", dtype=np.uint16):
    """An image of 16 bits whose nuclei have 300 grey levels, with a few very bright pixels; and its label."""
    image, label = draw_nuclei(shape, modality)
    light = np.random.default_rng(1).uniform(0, 130, (*shape, 1))
    deep = np.repeat(np.rint(image[..., :1] * (170 / 255) + light + 4000), 3, axis=2)
    deep[5, 5:8] = 65535
    return (deep * 0.001 if dtype == np.float32 else deep).astype(dtype), label


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("modality", ["fluorescence", "bright-field"])
@pytest.mark.parametrize("task", [NUCLEI, CellImages(window_side=48), Nuclei(resize=64)])
def test_few_levels_of_a_deep_image_are_all_seen(task, modality, dtype):
    image, label = faint(modality=modality, dtype=dtype)
    levels = task.levels(image)
    normal = task.normalise(image, json.loads(json.dumps(levels)))
    assert normal.dtype == np.uint8
    assert len(np.unique(normal[..., 0])) > (100 if isinstance(task, CellImages) else 180)
    crop = task.normalise(image[10:40], levels) if task.by_rows else None
    assert crop is None or np.array_equal(crop, normal[10:40])
    if task is NUCLEI:
        assert normal[label > 0].mean() > 60 + normal[label == 0].mean()
        brighter = task.normalise(copy := image * 2 if dtype == np.float32 else image - 1000, task.levels(copy))
        assert np.abs(brighter.astype(int) - normal)[normal > 0].max() <= 1


def test_8_bits_are_seen_alike_in_whatever_type_they_lie():
    """As those of a folder with images of 16 bits, too, do after step 1."""
    for modality in ("fluorescence", "bright-field"):
        image, _ = draw_nuclei((64, 64), modality)
        levels = NUCLEI.levels(image)
        assert "white" not in levels
        assert_array_equal(NUCLEI.normalise(image.astype(np.uint16), levels), NUCLEI.normalise(image, levels))


def test_deep_images_are_quantised_once_in_training(tmp_path):
    """Beside images of 8 bits, whose pages are what they were without."""
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    deep, label = faint((64, 96))
    shallow, other = draw_nuclei((64, 96), seed=3)
    for name, pixels, numbers in (("a", deep, label), ("b", shallow, other), ("c", deep, label)):
        tifffile.imwrite(tmp_path / "data" / "images" / f"{name}.tif", pixels, photometric="rgb")
        tifffile.imwrite(tmp_path / "data" / "labels" / f"{name}.tif", numbers)
    augment(tmp_path / "data", tmp_path / "run", Settings(copies=1, holdout="c", workers=1, window=48, task="nuclei"))
    manifest = json.loads((tmp_path / "run" / "augmented" / "manifest.json").read_text())
    pages = tifffile.imread(tmp_path / "run" / "augmented" / "images.tif")
    assert pages.dtype == np.uint16
    of = {name: [page for page, sample in zip(pages, manifest["samples"], strict=True) if sample["name"] == name]
          for name in "ab"}
    assert_array_equal(of["a"][0], deep[:48, :48])
    preprocess(tmp_path / "run", Tiling(48, 0))
    tiles, sources = (np.load(tmp_path / "run" / "patches" / f"train-{what}.npy") for what in ("images", "sources"))
    assert min(len(np.unique(tile)) for tile in tiles[sources == 0]) > 150
    alone = NUCLEI.normalise(shallow, NUCLEI.levels(shallow))[:48, :48]
    assert any(np.array_equal(tile, alone) for tile in tiles)
