"""What several tests share: the ISBI stacks where they are, a small folder like theirs, the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from demo import make_demo
from stacks import LABELS, TEST, VOLUME

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def isbi_folder():
    """Folder of the real ISBI stacks; without them the test is skipped."""
    folder = Path(os.environ.get("ISBI_DATA", ROOT.parent / "shared/data/isbi"))
    if not all((folder / name).is_file() for name in (VOLUME, LABELS, TEST)):
        pytest.skip(f"no ISBI stacks in {folder}; ISBI_DATA names the folder, 'python datasets.py isbi' gets them")
    return folder


def draw_stacks(slices=6, size=64, seed=0):
    """Images and labels (N, H, W) uint8: cells between closed dark membranes, four pixels thick, that wander."""
    rng = np.random.default_rng(seed)
    labels = np.full((slices, size, size), 255, np.uint8)
    for label in labels:
        for line in range(size // 4, size, size // 4):
            y, x = line + rng.integers(-4, 5, 2)
            label[y - 2:y + 2] = 0
            label[:, x - 2:x + 2] = 0
    images = np.where(labels == 0, 70.0, 150.0) + rng.normal(0, 15, labels.shape)
    return np.clip(images, 0, 255).astype(np.uint8), labels


@pytest.fixture
def tiny_folder(tmp_path):
    """A folder like ISBI's: 6 labelled slices of 64 x 64 and 6 to segment."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    images, labels = draw_stacks()
    for name, stack in ((VOLUME, images), (LABELS, labels), (TEST, draw_stacks(seed=1)[0])):
        tifffile.imwrite(folder / name, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    return folder


@pytest.fixture
def tiny_stacks():
    """The images and labels of `tiny_folder`, uint8 (6, 64, 64)."""
    return draw_stacks()


@pytest.fixture
def rng():
    """A generator of random numbers, the same for every test."""
    return np.random.default_rng(0)


@pytest.fixture
def script(tmp_path):
    """Run one of the project's scripts as a user does; gives its exit status and what it printed."""
    def call(name, *arguments):
        return subprocess.run([sys.executable, str(ROOT / name), *map(str, arguments)], cwd=tmp_path,
                              capture_output=True, text=True, timeout=300)
    return call


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Folder of a finished run on a small demo stack: demo/, results/, prediction.tif."""
    folder = tmp_path_factory.mktemp("run")
    make_demo(folder / "demo", slices=6, test_slices=2, size=128)
    for command in (("augmentation.py", "--data", "demo", "--copies", "2", "--workers", "2"),
                    ("preprocessing.py", "--tile", "64", "--margin", "8", "--weights", "border"),
                    ("train.py", "--epochs", "3", "--steps", "12", "--batch", "2", "--filters", "8", "--depth", "2",
                     "--lr", "3e-3")):
        subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]], cwd=folder, check=True,
                       capture_output=True, timeout=120)
    return folder
