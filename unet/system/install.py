"""Install a file of requirements into an environment, and make the environment first if there is none.

    python3 -m unet.system.install .venv/installed requirements.txt    the first file is touched when all is installed

This needs only Python 3.6 or later and no packages; a Python without TensorFlow packages gets an error message.
"""

import signal
import subprocess
import sys
from pathlib import Path

MINORS = range(10, 14)  # minor versions of Python 3 for which there are TensorFlow packages


def install(stamp: Path, requirements: str) -> int:
    """Install into the folder of `stamp`, and touch `stamp`; return 0, or the exit status of the failed command."""
    python = str(stamp.parent / "bin" / "python")
    commands = [[python, "-m", "pip", "install", "--disable-pip-version-check", "-r", requirements]]
    if not stamp.with_name("installed").exists():  # otherwise the environment's Python installs, whichever runs this
        if sys.version_info.minor not in MINORS:
            print(f"TensorFlow needs Python 3.{MINORS[0]} to 3.{MINORS[-1]}; name one with make PYTHON=python3.12",
                  file=sys.stderr)
            return 2
        print(f"Installing into {stamp.parent}, once, about 2 GB", flush=True)
        commands.insert(0, [sys.executable, "-m", "venv", str(stamp.parent)])
    signal.signal(signal.SIGINT, lambda *_: None)  # the called program handles Ctrl-C, and this process waits for it
    for command in commands:
        status = subprocess.call(command)
        if status:
            return status
    stamp.touch()
    return 0


if __name__ == "__main__":
    sys.exit(install(Path(sys.argv[1]), sys.argv[2]))
