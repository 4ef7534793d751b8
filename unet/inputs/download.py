"""Download the ISBI 2012 stacks from the challenge's server: all three complete, or none."""

from __future__ import annotations

import filecmp
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from unet.inputs.stacks import LABELS, TEST, VOLUME
from utils import UserError

ISBI_URL = "https://downloads.imagej.net/ISBI-2012-challenge.zip"
ISBI_MAX_BYTES = 200_000_000  # the three stacks together are 24 MB; a larger zip is not the challenge's
PAUSE = 0.5  # before the first retry of a request, seconds; it doubles with each
ISBI_FILES = (VOLUME, LABELS, TEST)


def download_isbi(folder: str | Path, url: str = ISBI_URL) -> list[Path]:
    """Download the challenge's zip and put its three stacks into `folder`; return their paths.

    Each request is tried four times. At most `ISBI_MAX_BYTES` are read, and only the three expected members are
    unpacked. Raises UserError if the server cannot be reached or sends something else, or if `folder` has files of
    these names with other content: they are never replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as name:
        temporary = Path(name)
        archive = temporary / "isbi.zip"
        try:
            _fetch(url, archive)
        except requests.RequestException as error:
            answer = getattr(error.response, "status_code", None)
            reason = f"the server answers {answer}" if answer else type(error).__name__
            raise UserError(f"{url} cannot be downloaded ({reason}); check the connection, or download "
                            "it in a browser and put its three .tif files into an empty folder") from error
        _unpack(archive, temporary, url)
        others = [name for name in ISBI_FILES if (folder / name).exists()
                  and not filecmp.cmp(temporary / name, folder / name, shallow=False)]
        if others:  # the user's own labels may be weeks of work
            raise UserError(f"{folder} has another {' and '.join(others)} already, and nothing was replaced; move what "
                            "is there away, or name another folder with --data")
        # all three are complete before the first is moved: a broken zip leaves the folder as it was
        return [(temporary / name).replace(folder / name) for name in ISBI_FILES]


def _fetch(url: str, archive: Path) -> None:
    """Download a file to `archive`; raise UserError if it is larger than `ISBI_MAX_BYTES`."""
    retry = Retry(total=3, backoff_factor=PAUSE, status_forcelist=(429, 500, 502, 503, 504))
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        with session.get(url, stream=True, timeout=60) as answer, open(archive, "wb") as file:
            answer.raise_for_status()
            expected = int(answer.headers.get("Content-Length", 0)) or None
            with tqdm(total=expected, unit="B", unit_scale=True, desc="download", disable=None) as bar:
                for block in answer.iter_content(1 << 16):
                    bar.update(len(block))
                    file.write(block)
                    if file.tell() > ISBI_MAX_BYTES:
                        raise UserError(f"{url} is larger than {ISBI_MAX_BYTES / 1e6:.0f} MB, which is not the "
                                        "challenge's zip; nothing was kept")


def _unpack(archive: Path, folder: Path, url: str) -> None:
    """Unpack the three stacks of a zip into a folder; raise UserError if it lacks one, is too large or is broken."""
    try:
        with zipfile.ZipFile(archive) as members:
            infos = {Path(info.filename).name: info for info in members.infolist() if not info.is_dir()}
            missing = [name for name in ISBI_FILES if name not in infos]
            if missing:
                raise UserError(f"the zip of {url} has no {', '.join(missing)}; it is not the challenge's")
            if any(infos[name].file_size > ISBI_MAX_BYTES for name in ISBI_FILES):
                raise UserError(f"the zip of {url} unpacks to more than the challenge's stacks; nothing was kept")
            for name in ISBI_FILES:  # a member's own path is never used to write
                with members.open(infos[name]) as source, open(folder / name, "wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: needs a password
        raise UserError(f"{url} did not send a complete zip file ({error}); try again") from error
