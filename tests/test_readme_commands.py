"""README followed to the letter, top to bottom: each command of its sh blocks runs in a fresh clone of this project.

What trains is made short by options behind the README's own; what cannot run here is left out, with a reason.
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
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from unet.inputs.demo import make_demo
from unet.inputs.stacks import LABELS, TEST, VOLUME

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
OURS = ("*.py", "*.md", "*.txt", "*.toml", "*.ipynb", "Makefile", "LICENSE", ".gitignore", "data/README.md", "images/*",
        "tests/*.py", "tests/*.txt")
SMALL = {"augmentation.py": "--copies 1", "train.py": "--epochs 2 --steps 20 --filters 4"}
CANNOT_RUN = {
    "make test": "it is what runs this test",
    "pip install -r requirements.txt 'tensorflow[and-cuda]'": "some gigabytes, of use to a GPU alone",
}
SERVES = "jupyter notebook jupyter.ipynb"  # ends when its user ends it
PROMISED = ("trial/again.tif", "trial/cells.tif", "trial/scores.json", "trial/holdout.png", "prediction.tif",
            "results/holdout.png", "results/holdout.tif", "results/metrics.json", "results/curve.png",
            "results/history.csv", "results/model.keras", "results/config.json", "results/report.html")


@pytest.fixture
def repository(tmp_path):
    """A git repository of the project as it stands, committed or not."""
    folder = tmp_path / "repository"
    for path in (path for pattern in OURS for path in ROOT.glob(pattern)):
        (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.relative_to(ROOT))
    for command in ("init --quiet", "add .", "-c user.name=test -c user.email=test@localhost commit --quiet -m all"):
        subprocess.run(["git", "-C", str(folder), *command.split()], check=True,
                       env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})  # whoever signs commits signs none here
    return folder


@pytest.fixture
def installed(tmp_path):
    """A virtual environment in which all packages of this one are found: what 'make' would have installed."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("[Ll]ib/**/site-packages"))
    (packages / "tests.pth").write_text("\n".join([*site.getsitepackages(), site.getusersitepackages()]))
    return folder


@pytest.fixture
def isbi_url(tmp_path):
    """Address of a zip with three stacks, served by this machine."""
    make_demo(tmp_path / "web", slices=2, test_slices=1, size=64)
    with zipfile.ZipFile(tmp_path / "web" / "isbi.zip", "w") as archive:
        for name in (VOLUME, LABELS, TEST):
            archive.write(tmp_path / "web" / name, name)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path / "web")

        def log_message(self, *_):
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/isbi.zip"
        server.shutdown()


def made_small(line):
    """The README's command with options behind it that make training short; the trial run is short by itself."""
    if line.startswith("make"):
        for variable, script in (("AUGMENT", "augmentation.py"), ("TRAIN", "train.py")):
            line, there = re.subn(rf'{variable}="(.*?)"', rf'{variable}="\1 {SMALL[script]}"', line)
            line += "" if there else f' {variable}="{SMALL[script]}"'
    for script, options in SMALL.items():
        if line.startswith(f"python {script}") and "--work trial" not in line:
            line += f" {options}"
    return line


def starts(line, folder, environment):
    """Start the notebook's server, and get the page that it names."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([*line.split(), "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"],
                          cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = iter(server.stderr.readline, "")  # to its end, should it end without an address
            address = next((found[0] for line in said if (found := re.search(r"http://127\.0\.0\.1\S+", line))), None)
            assert address, "the notebook's server named no address"
            with requests.Session() as browser:  # the address is said a moment before it answers
                browser.trust_env = False  # this machine's own address is never asked through a proxy
                browser.mount(address, HTTPAdapter(max_retries=Retry(connect=8, backoff_factor=0.1)))
                assert browser.get(address, timeout=60).status_code == 200
        finally:
            server.terminate()
            server.stderr.read()


@pytest.mark.skipif(not all(map(shutil.which, ("bash", "git", "make"))), reason="needs bash, git and make")
def test_the_readme_can_be_followed_to_the_letter(repository, installed, isbi_url, nuclei_folder, tmp_path):
    clone = tmp_path / "keras-unet"
    source, images = shlex.quote(str(repository)), shlex.quote(str(nuclei_folder))
    stand_ins = {"<this repository>": source, " DIR": f" {images}", " IMAGES": f" {images}"}
    behind = {"git clone": f"&& for name in .venv .venv312; do cp -RP {shlex.quote(str(installed))} $name && "
                           "touch $name/installed; done",
              "python datasets.py isbi": f"--data isbi --url {isbi_url}"}
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("DATA", "WORK", "OUT", "PRESET", "AUGMENT", "TILE", "TRAIN", "VENV", "PYTHON")
                   and not name.startswith(("MAKE", "MFLAGS"))}
    environment |= {"no_proxy": "127.0.0.1", "PIP_NO_INDEX": "1",  # all is installed: pip finds nothing to do
                    "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),
                    "JUPYTER_CONFIG_DIR": str(tmp_path / "no-configuration"),
                    "PATH": os.pathsep.join([str(clone / ".venv" / "bin"), str(Path(sys.executable).parent),
                                             environment["PATH"]])}
    left = {*CANNOT_RUN, SERVES}
    for block in BLOCKS:
        lines = []
        for line in filter(None, (line.split("  #")[0].strip() for line in block.splitlines())):
            if line in left:
                left.remove(line)
                if line == SERVES:
                    starts(line, clone, environment)
                continue
            for name, value in stand_ins.items():
                line = line.replace(name, str(value))
            line = made_small(line)
            lines.append(" ".join([line, *(more for start, more in behind.items() if line.startswith(start))]))
        done = subprocess.run(["bash", "-ex", "-c", "\n".join(lines)], cwd=clone if clone.is_dir() else tmp_path,
                              env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{block}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        if "git clone" in block:  # the demo is seen; now the reader's own stacks
            make_demo(tmp_path / "own", slices=6, test_slices=2, size=128)
            for name in (VOLUME, LABELS, TEST):
                shutil.move(tmp_path / "own" / name, clone / "data" / name)
        elif "make report" in block:
            assert [name for name in PROMISED if not (clone / name).is_file()] == []
        elif "--panels" in block:
            assert (clone / "submission.csv").is_file() and any((clone / "nuclei-prediction").iterdir())
    assert not left, f"not in the README any more: {left}"
    assert not (clone / "results").exists()  # make clean
    assert (clone / "data" / LABELS).exists()
