"""TensorFlow's greeting stays off the screen; what else is said while it comes in does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from unet.system.quiet import import_quietly

ROOT = Path(__file__).resolve().parent.parent.parent
SPEAKER = """
import os
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n"
            b"I0000 00:00:1.5 7 port.cc:153] oneDNN custom operations are on.\\nE0000 00:00:1.6 7 no libcuda\\n")
"""


@pytest.fixture
def speaker(tmp_path, monkeypatch):
    """A module that writes as TensorFlow's C++ code does, once."""
    (tmp_path / "speaker.py").write_text(SPEAKER)
    monkeypatch.syspath_prepend(tmp_path)
    yield "speaker"
    sys.modules.pop("speaker", None)


def test_the_greeting_alone_is_held_back(speaker, capfd):
    import_quietly(speaker)
    assert capfd.readouterr().err == "E0000 00:00:1.6 7 no libcuda\n"


def test_it_is_shown_on_request(speaker, capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    import_quietly(speaker)
    assert len(capfd.readouterr().err.splitlines()) == 3


def test_an_import_that_fails_says_so(capfd):
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        import_quietly("no_such_package")
    print("heard", file=sys.stderr, flush=True)
    assert capfd.readouterr().err == "heard\n"


def test_a_script_says_nothing_of_its_libraries():
    told = subprocess.run([sys.executable, "train.py", "--prset", "cpu"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 2
    assert told.stderr == ("train.py: unrecognized arguments: --prset cpu; did you mean --preset? --help "
                           "lists all options\n")
