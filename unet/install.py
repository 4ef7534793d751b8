"""Install a file of requirements into an environment, which is made where it isn't there yet.

    python3 -m unet.install .venv/installed requirements.txt    the first file is touched when all is installed

Any Python from 3.6 on runs this, without a package: one that TensorFlow doesn't know is answered with a sentence.
"""

import signal
import subprocess
import sys
from pathlib import Path

MINORS = range(10, 14)  # of Python 3, that TensorFlow has packages for


def install(stamp: Path, requirements: str) -> int:
    """Install into the folder that `stamp` lies in, and touch it; gives the exit status of what failed, else 0."""
    python = str(stamp.parent / "bin" / "python")
    commands = [[python, "-m", "pip", "install", "--disable-pip-version-check", "-r", requirements]]
    if not stamp.with_name("installed").exists():  # else its own Python installs, whichever runs this
        if sys.version_info.minor not in MINORS:
            print(f"TensorFlow needs Python 3.{MINORS[0]} to 3.{MINORS[-1]}; name one with make PYTHON=python3.12",
                  file=sys.stderr)
            return 2
        print(f"Installing into {stamp.parent}, once, about 2 GB", flush=True)
        commands.insert(0, [sys.executable, "-m", "venv", str(stamp.parent)])
    signal.signal(signal.SIGINT, lambda *_: None)  # what is called answers Ctrl-C, and this one waits for it
    for command in commands:
        status = subprocess.call(command)
        if status:
            return status
    stamp.touch()
    return 0


if __name__ == "__main__":
    sys.exit(install(Path(sys.argv[1]), sys.argv[2]))
