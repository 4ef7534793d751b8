"""Each block of commands on the pages for users runs as it stands, in a fresh clone of this project.

What trains is made short by options behind the pages' own; what cannot run here is left out, with a reason.
"""

import http.server
import os
import re
import shlex
import shutil
import site
import socket
import subprocess
import sys
import threading
import venv
import zipfile
from pathlib import Path

import pytest
import requests
import tifffile
from conftest import draw_nuclei, draw_slices, draw_stacks, write_nuclei, write_two_folders
from pages import PAGES, README, ROOT, blocks
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from unet.inputs.demo import make_demo
from unet.inputs.ome_zarr import Stack
from unet.inputs.stacks import LABELS, TEST, VOLUME
from unet.inputs.writers import page_writer

SMALL = {"augmentation.py": "--copies 1", "train.py": "--epochs 2 --steps 10 --filters 4"}
CANNOT_RUN = {
    'pip install -r requirements.txt "tensorflow[and-cuda]"': "some gigabytes, of use to a GPU alone",
    "napari prediction.tif": "napari is another program",
    "napari --layer-type labels cells.tif": "napari is another program",
    "pip install napari-tiff": "napari is another program",
    "napari --plugin napari-tiff prediction.tif cells.tif": "napari is another program",
    "python train.py --encoder resnet50": "larger than all else together; the encoders' own tests train one",
    "python train.py --encoder resnet50 --pretrained imagenet": "it downloads the weights",
    "make": "the README's first block runs it",
    'make WORK=results/paper PRESET=paper TILE="--preset paper --weights border" TRAIN="--epochs 12 --steps 10" '
    "OUT=results/paper/prediction.tif": "so large a network learns nothing in a test's time",
    "make WORK=results/fast PRESET=fast OUT=results/fast/prediction.tif": "as make does with the demo",
    "make WORK=results/best PRESET=best OUT=results/best/prediction.tif": "the same with another preset",
    "python train.py --work trial --out trial/prediction.tif --preset fast --filters 8 --epochs 2 --steps 20":
        "as short as what the three steps are made here",
    "make DATA=DIR": "the three scripts below it run",
    "python predict.py volume.zarr --out prediction.zarr --dask tcp://10.0.0.5:8786": "nobody has a scheduler there",
    "dask scheduler": "it waits for workers until it is stopped",
    "dask worker tcp://10.0.0.5:8786 --nthreads 1": "nobody has a scheduler there",
}
SERVES = "jupyter notebook jupyter.ipynb"  # ends when its user ends it
ORDER = sorted(PAGES, key=lambda page: page.stem == "troubleshooting")  # the last, as it ends with make clean
PROMISED = ("prediction.tif", "cells.tif", *(f"results/{name}" for name in (
    "holdout.png", "holdout.tif", "metrics.json", "curve.png", "history.csv", "model.keras", "config.json")))


def files_of(block):
    """What the commands of a block say that they make."""
    lines = " ".join(line for line in block.lines if line not in CANNOT_RUN)
    return re.findall(r"--(?:out|cells|walls|submission) (\S+\.(?:tif|csv))", lines)


class Place:
    """A folder in which the blocks of one page run, each once; those above it on the page come before it."""

    def __init__(self, folder, environment, stand_ins):
        self.folder, self.environment, self.stand_ins, self.finished = folder, environment, stand_ins, {}

    def run(self, block):
        """Run a block as bash would, with training made short; fails with what it said."""
        lines = [self._line(line) for line in block.lines if "git clone" in block.lines[0]
                 or line not in (*CANNOT_RUN, SERVES)]
        if block not in self.finished:
            self.finished[block] = subprocess.run(
                ["bash", "-e", "-c", "\n".join(lines)], cwd=self.folder, env=self.environment, capture_output=True,
                text=True, timeout=600)
        result = self.finished[block]
        assert result.returncode == 0, f"{lines}\n{result.stdout[-1000:]}\n{result.stderr[-3000:]}"
        return result.stdout

    def _line(self, line):
        for name, value in self.stand_ins.items():
            line = line.replace(name, value)
        if line.startswith("make") and not re.match(r"make [a-z]", line):
            for variable, script in (("AUGMENT", "augmentation.py"), ("TRAIN", "train.py")):
                line, there = re.subn(rf'{variable}="(.*?)"', rf'{variable}="\1 {SMALL[script]}"', line)
                line += "" if there else f' {variable}="{SMALL[script]}"'
        for script, options in SMALL.items():
            if line.startswith(f"python {script}") and "--work trial" not in line and "--resume" not in line:
                line += f" {options}"
        return line

    def copy(self, folder):
        """The same project and data in another folder, where nothing has run."""
        shutil.copytree(self.folder, folder, symlinks=True,
                        ignore=shutil.ignore_patterns(".git", "images", "results", "*.tif"))
        shutil.copytree(self.folder / "data", folder / "data", dirs_exist_ok=True)
        environment = {**self.environment, "PATH": self.environment["PATH"].replace(str(self.folder), str(folder))}
        return Place(folder, environment, self.stand_ins)


# ------------------------------------------------------------------------------------------------------- places


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository of the project as it stands, committed or not."""
    folder = tmp_path_factory.mktemp("git") / "repository"
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("git does not know this folder, so it cannot be cloned")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # else deleted, and not yet committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for command in ("init --quiet", "add .", "-c user.name=test -c user.email=test@localhost commit --quiet -m all"):
        subprocess.run(["git", "-C", str(folder), *command.split()], check=True,
                       env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})  # whoever signs commits signs none here
    return folder


@pytest.fixture(scope="module")
def isbi_url(tmp_path_factory):
    """Address of a zip with three stacks, served by this machine."""
    folder = tmp_path_factory.mktemp("web")
    write_stacks(folder, 2)
    with zipfile.ZipFile(folder / "isbi.zip", "w") as archive:
        for name in (VOLUME, LABELS, TEST):
            archive.write(folder / name, name)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *_):
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/isbi.zip"
        server.shutdown()


def write_stacks(folder, slices):
    """Three small stacks of membranes, as a user has them."""
    images, labels = draw_stacks(slices)
    for name, stack in ((VOLUME, images), (LABELS, labels), (TEST, draw_stacks(2, seed=1)[0])):
        tifffile.imwrite(folder / name, stack, photometric="minisblack", metadata={"axes": "ZYX"})


@pytest.fixture(scope="module")
def clone(repository, isbi_url, tmp_path_factory):
    """Where the README's first block has run: a clone in which the demo was made, then the reader's own stacks."""
    if not all(map(shutil.which, ("bash", "git", "make"))):
        pytest.skip("needs bash, git and make")
    home = tmp_path_factory.mktemp("home")
    installed, folder = home / "environment", home / "keras-unet"
    venv.create(installed, symlinks=True)  # in which all packages of this one are found: what 'make' would install
    packages = next(installed.glob("[Ll]ib/**/site-packages"))
    (packages / "tests.pth").write_text("\n".join([*site.getsitepackages(), site.getusersitepackages()]))
    make_demo(home / "demo", slices=6, test_slices=2, size=128)  # smaller than make's
    ready = "cp -RP {} .venv && touch .venv/installed && cp -R {} data/demo"
    ours = ("DATA", "WORK", "OUT", "PRESET", "AUGMENT", "TILE", "TRAIN", "VENV", "PYTHON")
    environment = {name: value for name, value in os.environ.items()
                   if name not in ours and not name.startswith(("MAKE", "MFLAGS"))}
    environment |= {"no_proxy": "127.0.0.1", "PIP_NO_INDEX": "1",  # all is installed: pip finds nothing to do
                    "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),
                    "JUPYTER_CONFIG_DIR": str(home / "no-configuration"),
                    "PATH": os.pathsep.join([str(folder / ".venv" / "bin"), str(Path(sys.executable).parent),
                                             environment["PATH"]])}
    place = Place(home, environment, {
        "<this repository> keras-unet && cd keras-unet":
            f"{shlex.quote(str(repository))} keras-unet && cd keras-unet && {ready.format(installed, home / 'demo')}",
        "python datasets.py isbi": f"python datasets.py isbi --data isbi --url {isbi_url}"})
    place.run(blocks(README)[0])
    place.folder = folder
    return place


@pytest.fixture(scope="module")
def finished(clone):
    """Where the three steps have run on the reader's stacks, 30 slices as ISBI's."""
    assert (clone.folder / "results" / "demo" / "prediction.tif").is_file()
    assert not (clone.folder / "prediction.tif").exists()
    write_stacks(clone.folder / "data", 30)
    for block in blocks(README):
        if "python train.py" in block.lines:
            clone.run(block)
    return clone


@pytest.fixture(scope="module")
def place_of(finished, tmp_path_factory):
    """Give the place of a page: those on a finished run share the README's, others begin without a run."""
    def draw_classes(place):
        labels = draw_stacks(30)[1] // 255
        labels[:, :, 32:] *= 2
        tifffile.imwrite(place.folder / "data" / LABELS, labels, photometric="minisblack", metadata={"axes": "ZYX"})

    def draw_images(place):
        folder = place.folder / "bowl"
        for number in range(3):
            for modality in ("fluorescence", "histology"):
                write_nuclei(folder, f"{modality[:4]}{number}", *draw_nuclei((64, 72), modality, number))
        write_nuclei(folder, "test0", draw_nuclei((45, 77), seed=9)[0])
        place.stand_ins = {"DIR": "bowl", "IMAGES": "bowl", "NAME1,NAME2": "fluo0,hist1"}

    def draw_pairs(place):
        pairs = draw_slices([(64, 64), (50, 72), (64, 64)])
        write_two_folders(place.folder / "pairs", pairs, {"new": pairs["cell1"][0]})
        shutil.copy(finished.folder / "cells.tif", place.folder)  # the page exports the outlines of a run's cells
        place.stand_ins = {"DIR": "pairs"}

    volume = draw_stacks(2)[0]
    with page_writer(finished.folder / "volume.zarr", Stack(volume.shape, volume.dtype)) as write:
        for page in volume:
            write(page)
    places = {}
    for page, prepare in (("classes", draw_classes), ("nuclei", draw_images), ("own-data", draw_pairs)):
        places[page] = finished.copy(tmp_path_factory.mktemp(page) / "keras-unet")
        prepare(places[page])
    return lambda page: places.get(page.stem, finished)


# -------------------------------------------------------------------------------------------------------- tests


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for page in ORDER for block in blocks(page)
                                   if set(block.lines) - {*CANNOT_RUN, SERVES}], ids=str)
def test_a_block_runs(block, place_of):
    place = place_of(block.page)
    for before in blocks(block.page)[:block.number - 1] if block.page != README else ():
        place.run(before)
    place.run(block)
    made = [*files_of(block), *(PROMISED if "python train.py" in block.lines and block.page == README else ())]
    assert [name for name in made if not (place.folder / name).is_file()] == []
    if block.lines == ("make clean",):
        assert not (place.folder / "results" / "model.keras").exists()
        assert not (place.folder / "prediction.tif").exists()
        assert (place.folder / "data" / LABELS).is_file()


@pytest.mark.slow
def test_the_notebook_opens(finished):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*SERVES.split(), "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    with subprocess.Popen(command, cwd=finished.folder, env=finished.environment, stderr=subprocess.PIPE,
                          text=True) as server:
        try:
            lines = iter(server.stderr.readline, "")  # to its end, should it end without an address
            address = next((match[0] for line in lines if (match := re.search(r"http://127\.0\.0\.1\S+", line))), None)
            assert address, "the notebook's server named no address"
            with requests.Session() as browser:  # the address is said a moment before it answers
                browser.trust_env = False  # this machine's own address is never asked through a proxy
                browser.mount(address, HTTPAdapter(max_retries=Retry(connect=8, backoff_factor=0.1)))
                assert browser.get(address, timeout=60).status_code == 200
        finally:
            server.terminate()
            server.stderr.read()


def test_what_is_left_out_is_still_on_the_pages():
    lines = {line for page in PAGES for block in blocks(page) for line in block.lines}
    assert {*CANNOT_RUN, SERVES} <= lines
