"""Fixtures and helpers of several tests: the real data if they are there, small folders like them, the command line."""

import hashlib
import importlib
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
import tifffile

import utils
from unet.inputs.demo import make_demo
from unet.inputs.stacks import LABELS, TEST, VOLUME

ROOT = Path(__file__).resolve().parent.parent
ISBI_PIXELS = "200da3d452d726e6c9ca1ce04b869d4edb727320d23b516d01cce707dc8c4760"  # SHA-256 of the images' pixels


def real_folder(fits, variable, name):
    """Return data/, the folder that an environment variable names or one beside the project: the first that `fits`."""
    for folder in (ROOT / "data", os.environ.get(variable), ROOT.parent / "shared" / "data" / name):
        if folder and fits(Path(folder)):
            return Path(folder)
    pytest.skip(f"the real data are neither in data/ nor in a folder that {variable} names")


def is_isbi(folder):
    """Tell whether a folder has the ISBI stacks, and not somebody's own data under their names."""
    if not all((folder / name).is_file() for name in (VOLUME, LABELS, TEST)):
        return False
    stack = tifffile.imread(folder / VOLUME)
    return stack.shape == (30, 512, 512) and hashlib.sha256(stack.tobytes()).hexdigest() == ISBI_PIXELS


@pytest.fixture(scope="session")
def isbi_folder():
    """Return the folder of the real ISBI stacks."""
    return real_folder(is_isbi, "ISBI_DATA", "isbi")


@pytest.fixture(scope="session")
def bowl_folder():
    """Return the folder of 120 real nuclei images of the Data Science Bowl."""
    return real_folder(lambda folder: len(list(folder.glob("*/masks"))) == 120, "NUCLEI_DATA", "nuclei")


def write_png(path, pixels):
    """Write an array (H, W[, C]) as PNG, uint8 or uint16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))


def write_nuclei(folder, name, image, labels=None):
    """Write an image, and a mask for each number in `labels` (H, W), as the Data Science Bowl lays them out."""
    write_png(folder / name / "images" / f"{name}.png", image)
    for number in np.unique(labels[labels > 0]) if labels is not None else ():
        write_png(folder / name / "masks" / f"nucleus{number}.png", (labels == number).astype(np.uint8) * 255)


def draw_nuclei(shape, modality="fluorescence", seed=0):
    """Draw an image uint8 (H, W, 3) of a modality and its nuclei uint16 (H, W): discs on a grid, two of them touch."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    labels = np.zeros(shape, np.uint16)
    grid = [(cy, cx) for cy in range(10, shape[0], 20) for cx in range(9, shape[1], 22)]
    centres = [(10, 9), (10, 20), *grid[2:]]
    for number, (cy, cx) in enumerate(centres, 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= 5.5**2] = number
    background, nucleus = {"fluorescence": ((8, 8, 8), (90, 90, 90)), "bright-field": ((210, 210, 210), (90, 90, 90)),
                           "histology": ((220, 170, 210), (100, 50, 150))}[modality]
    image = np.where(labels[..., None] > 0, nucleus, background) + rng.normal(0, 3, (*shape, 1))
    return np.clip(image, 0, 255).astype(np.uint8), labels


@pytest.fixture
def nuclei_folder(tmp_path):
    """Return a folder as `write_bowl` writes it."""
    return write_bowl(tmp_path / "bowl")


def write_bowl(folder):
    """Write images like the Data Science Bowl's: 4 fluorescence, 2 histology, 2 bright-field ones, 1 without masks."""
    sizes = {"fluorescence": [(64, 64), (80, 70), (50, 96), (64, 64)], "histology": [(64, 80)] * 2,
             "bright-field": [(130, 140), (128, 128)]}
    for modality, shapes in sizes.items():
        for number, shape in enumerate(shapes):
            write_nuclei(folder, f"{modality[:4]}{number}", *draw_nuclei(shape, modality, number))
    write_nuclei(folder, "test0", draw_nuclei((45, 77), seed=9)[0])
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "stage1_train_labels.csv").write_text("ImageId,EncodedPixels\n")
    return folder


def write_two_folders(folder, pairs, news=()):
    """Write `pairs` {name: (image, label)} into images/ and labels/, and images without labels; return the folder."""
    for name, (image, label) in pairs.items():
        write_png(folder / "images" / f"{name}.png", image)
        path = folder / "labels" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, label, photometric="minisblack")
    for name, image in dict(news).items():
        write_png(folder / "images" / f"{name}.png", image)
    return folder


def draw_slices(sizes, seed=0):
    """Draw images and labels of cells between membranes, {name: (image, label)}: parts (H, W) of `draw_stacks`."""
    images, labels = draw_stacks(len(sizes), max(map(max, sizes)), seed)
    return {f"cell{number}": (images[number, :height, :width], labels[number, :height, :width])
            for number, (height, width) in enumerate(sizes)}


def draw_stacks(slices=6, size=64, seed=0):
    """Draw images and labels uint8 (N, H, W): cells between closed dark membranes, four pixels thick, that wander."""
    rng = np.random.default_rng(seed)
    labels = np.full((slices, size, size), 255, np.uint8)
    for label in labels:
        for line in range(size // 4, size, size // 4):
            y, x = line + rng.integers(-4, 5, 2)
            label[y - 2:y + 2] = 0
            label[:, x - 2:x + 2] = 0
    images = np.where(labels == 0, 70.0, 150.0) + rng.normal(0, 15, labels.shape)
    return np.clip(images, 0, 255).astype(np.uint8), labels


def write_stacks(folder, images, labels, test):
    """Write three stacks (N, H, W) under ISBI's names; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, stack in ((VOLUME, images), (LABELS, labels), (TEST, test)):
        tifffile.imwrite(folder / name, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    return folder


@pytest.fixture
def tiny_folder(tmp_path):
    """Return a folder like ISBI's: 6 labelled slices of 64 x 64 and 6 to segment."""
    return write_stacks(tmp_path / "tiny", *draw_stacks(), draw_stacks(seed=1)[0])


@pytest.fixture
def tiny_stacks():
    """Return the images and labels of `tiny_folder`, uint8 (6, 64, 64)."""
    return draw_stacks()


@pytest.fixture(scope="module", autouse=True)
def random_weights():
    """Give the networks of a test file the same weights whatever ran before: rounding differs more for some weights."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture
def rng():
    """Return a generator of random numbers, the same for every test."""
    return np.random.default_rng(0)


@pytest.fixture
def script(tmp_path):
    """Return a function that runs one of the project's scripts as a user does; see `subprocess.run`."""
    def call(name, *arguments):
        return subprocess.run([sys.executable, str(ROOT / name), *map(str, arguments)], cwd=tmp_path,
                              capture_output=True, text=True, timeout=600)
    return call


def call(folder, name, *arguments):
    """Run one of the project's scripts in this process, which has TensorFlow loaded already; otherwise as `script`."""
    main, out, errors, status = importlib.import_module(name.removesuffix(".py")).main, io.StringIO(), io.StringIO(), 0
    policy = "keras" in sys.modules and sys.modules["keras"].config.dtype_policy()
    argv, previous_folder = sys.argv, Path.cwd()
    try:
        sys.argv = [name, *map(str, arguments)]
        os.chdir(folder)
        with redirect_stdout(out), redirect_stderr(errors):
            utils.run(main)
    except SystemExit as ending:
        status = ending.code
    finally:
        os.chdir(previous_folder)
        sys.argv = argv
        if policy:
            sys.modules["keras"].config.set_dtype_policy(policy)
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=errors.getvalue())


@pytest.fixture
def command(tmp_path):
    """Return a function that runs a script with `call` in the test's folder."""
    return lambda name, *arguments: call(tmp_path, name, *arguments)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Return the folder of a finished run on a small demo stack: demo/, results/, prediction.tif, each step's output.

    The three steps run as a user runs them, in a folder that isn't the project's. Tests must not change it.
    """
    folder = tmp_path_factory.mktemp("run")
    make_demo(folder / "demo", slices=6, test_slices=2, size=128)
    for command in (("augmentation.py", "--data", "demo", "--copies", "2", "--workers", "1"),
                    ("preprocessing.py", "--tile", "64", "--margin", "8", "--weights", "border"),
                    ("train.py", "--epochs", "3", "--steps", "12", "--batch", "2", "--filters", "8", "--depth", "2",
                     "--lr", "3e-3")):
        result = subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]], cwd=folder,
                                capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
        (folder / command[0]).with_suffix(".txt").write_text(result.stdout)
    return folder


@pytest.fixture
def pictured_run(tmp_path):
    """Return a run on 6 slices, two of them held out, as training leaves it."""
    from finished import config_of, trained

    from unet.tasks.cells import Cells
    write_stacks(tmp_path / "data", *draw_stacks(), draw_stacks(slices=2, seed=1)[0])
    return trained(tmp_path, config_of(Cells(), {"train": [0, 1, 2, 3], "holdout": [4, 5]}))


@pytest.fixture
def cells_run(pictured_run, without_pictures):
    """Return the same run, whose final step draws no picture, as that takes half of its time."""
    return pictured_run


@pytest.fixture
def without_pictures(monkeypatch):
    """Let the final step write a file without a picture."""
    monkeypatch.setattr("predict.pictures_of", lambda task: SimpleNamespace(holdout=lambda judged, learnt: judged))
    monkeypatch.setattr("predict.save", lambda judged, path, dpi: path.write_bytes(bytes(len(judged))))
