"""What comes in: the ISBI stacks, read and checked; the hold-out; the command that makes, downloads or examines data.

    python datasets.py demo             make the demo stack in data/demo
    python datasets.py isbi             download the ISBI 2012 stacks into data
    python datasets.py check DIR        examine a folder and say in plain words what is found
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from unet.inputs import doctor
from unet.inputs.demo import make_demo
from unet.inputs.folders import describe, is_nuclei_folder
from unet.inputs.stacks import LABELS, TEST, VOLUME, parse_slices, read_stack
from unet.tasks.classes import MOST, check_labels
from utils import UserError, at_least, file_hash, run

ISBI_URL = "https://downloads.imagej.net/ISBI-2012-challenge.zip"
ISBI_MAX_BYTES = 200_000_000  # the three stacks together are 24 MB; a larger zip is not the challenge's
ISBI_FILES = (VOLUME, LABELS, TEST)
HOLDOUT = 5  # slices at the end of the stack that judge and never train: 25-29 of ISBI's 30
GET_DATA = ("'python datasets.py isbi' downloads the ISBI stacks into data/, 'python datasets.py demo' makes a demo "
            "stack, --data names another folder")
EIGHT_BIT = "in Fiji: Image > Type > 8-bit, then File > Save As > Tiff"


@dataclass(frozen=True)
class Dataset:
    """Labelled images and the images to segment.

    images : uint8 (N, H, W)
    labels : uint8 (N, H, W), 0 = membrane, 255 = cell; of several classes 0, 1, 2, ...
    files : what the images and labels were read from
    notes : what the user should know of the data, a sentence each
    """

    images: np.ndarray
    labels: np.ndarray
    files: list[Path]
    notes: list[str] = field(default_factory=list)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file, by its absolute path."""
        return {str(path.resolve()): file_hash(path) for path in self.files}


def read_dataset(folder: str | Path, classes: int = 1) -> Dataset:
    """Read and check `train-volume.tif` and `train-labels.tif` of a folder; the test stack only has to be there.

    With more than one of `classes`, labels are of 0 .. classes - 1. Raises UserError, with the way out, where a file is
    missing, unreadable or does not fit the others.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; {GET_DATA}")
    notes: list[str] = []
    images = read_images(folder / VOLUME, notes)
    labels = read_labels(folder / LABELS, notes, classes)
    if len(images) != len(labels):
        raise UserError(f"{folder / VOLUME} has {len(images)} slices but {LABELS} has {len(labels)}; every image needs "
                        "its label, in the same order")
    if images.shape != labels.shape:
        raise UserError(f"{folder / VOLUME} is {images.shape[1]}x{images.shape[2]} pixels but {LABELS} is "
                        f"{labels.shape[1]}x{labels.shape[2]}; image and label must lie on the same pixels")
    if not (folder / TEST).is_file():
        raise UserError(f"{folder / TEST} not found: it is the stack that is segmented into prediction.tif; put yours "
                        f"there, or a copy of {VOLUME}")
    if classes == 1:
        notes += doctor.polarity_notes(images, labels)
    return Dataset(images, labels, [folder / VOLUME, folder / LABELS], notes)


def read_images(path: str | Path, notes: list[str] | None = None, way_out: str = GET_DATA) -> np.ndarray:
    """Read a stack of gray images as uint8 (N, H, W); `way_out` is what to do where the file is missing.

    16-bit and float stacks are reduced to 8 bit, between the 0.1 and 99.9 percentile of the whole stack; `notes`, where
    given, says so. Raises UserError for colour images and for pixels that are not numbers.
    """
    stack = read_stack(path, way_out)
    if stack.ndim == 4:
        raise UserError(f"{path} has {stack.shape[3]} channels, expected gray images of one; {EIGHT_BIT}")
    if stack.dtype == bool:
        stack = stack.astype(np.uint8) * 255
    if stack.dtype == np.uint8:
        return stack
    if not np.isfinite(stack).all():
        raise UserError(f"{path} has pixels that are not numbers (NaN or infinite); {EIGHT_BIT}")
    low, high = (float(value) for value in np.percentile(stack, (0.1, 99.9)))
    if notes is not None:
        notes.append(f"{path}: {stack.dtype} values were reduced to 8 bit: {low:g} became 0, {high:g} became 255")
    scaled = (stack.astype(np.float32) - low) * (255 / max(high - low, 1e-6))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def read_labels(path: str | Path, notes: list[str] | None = None, classes: int = 1) -> np.ndarray:
    """Read a label stack as uint8 (N, H, W) of 0 = membrane and 255 = cell; {0, 1} is accepted, `notes` says so.

    With more than one of `classes`, of 0 .. classes - 1 as they are. Raises UserError where the labels are not
    two-valued, or not of these classes, or a slice has one value only, as where nobody drew.
    """
    stack = read_stack(path, GET_DATA)
    if stack.ndim == 4:
        raise UserError(f"{path} has {stack.shape[3]} channels, expected labels of one; {EIGHT_BIT}")
    if classes > 1:
        return check_labels(stack, classes, path, notes)
    values = [value.item() for value in np.unique(stack)]
    shown = ", ".join(f"{value:g}" for value in values[:6]) + (", ..." if len(values) > 6 else "")
    if len(values) == 1:
        raise UserError(f"{path}: every pixel is {shown}, expected membrane (0) and cell (255); draw the membranes, "
                        "or copy the right file")
    if len(values) > 2 or values[0] != 0 or values[1] not in (1, 255):
        several = (f"; if they are {len(values)} classes say so with 'python augmentation.py --classes {len(values)}'"
                   if values == list(range(len(values))) and len(values) <= MOST else "")
        raise UserError(f"{path}: labels have {len(values)} values ({shown}), expected the two 0 = membrane and 255 = "
                        f"cell; in Fiji: Image > Adjust > Threshold..., Apply, then File > Save As > Tiff{several}")
    for what, empty in (("membrane", [number for number, label in enumerate(stack) if not label.any()]),
                        ("cell", [number for number, label in enumerate(stack) if label.all()])):
        if empty:
            raise UserError(f"{path}: slice {', '.join(map(str, empty[:8]))} is {what} everywhere, as where "
                            "nobody drew; label it, or take it out of both stacks in Fiji with Image > Stacks > "
                            "Delete Slice")
    if values[1] == 1 and notes is not None:
        notes.append(f"{path}: labels are 0 and 1; taken as 0 = membrane, 1 = cell")
    return np.where(stack == values[1], 255, 0).astype(np.uint8)


def choose_holdout(count: int, text: str | None = None) -> list[int]:
    """Slices that judge and never train: `text` like '25-29' or 'none'; without it the last 5, of short stacks fewer.

    Raises UserError where no slice would be left to train on.
    """
    if text is None:
        return list(range(count - min(HOLDOUT, max(count // 6, int(count > 1))), count))
    chosen = parse_slices(text, count)
    if len(chosen) == count:
        raise UserError(f"--holdout {text} holds out all {count} slices; leave some to train on")
    return chosen


# ---------------------------------------------------------------------------------------------------- download


def download_isbi(folder: str | Path, url: str = ISBI_URL) -> list[Path]:
    """Download the challenge's zip and put its three stacks into `folder`; returns their paths.

    Each request is tried four times, at most `ISBI_MAX_BYTES` are taken, and of the zip only the three expected
    members. Files of other content are never replaced: then, and where the server cannot be reached or sends something
    else, it raises UserError.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as room:
        archive = Path(room) / "isbi.zip"
        try:
            _fetch(url, archive)
        except requests.RequestException as error:
            answer = getattr(error.response, "status_code", None)
            reason = f"the server answers {answer}" if answer else type(error).__name__
            raise UserError(f"{url} cannot be downloaded ({reason}); check the connection, or download "
                            "it in a browser and put its three .tif files into an empty folder") from error
        _unpack(archive, Path(room), url)
        others = [name for name in ISBI_FILES if (folder / name).exists()
                  and not filecmp.cmp(Path(room) / name, folder / name, shallow=False)]
        if others:  # somebody's own labels may be weeks of work
            raise UserError(f"{folder} has another {' and '.join(others)} already, and nothing was replaced; move what "
                            "is there away, or name another folder with --data")
        # all three are whole before the first takes its place: a broken zip leaves the folder as it was
        return [(Path(room) / name).replace(folder / name) for name in ISBI_FILES]


def _fetch(url: str, archive: Path) -> None:
    retry = Retry(total=3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
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
    try:
        with zipfile.ZipFile(archive) as members:
            found = {Path(info.filename).name: info for info in members.infolist() if not info.is_dir()}
            missing = [name for name in ISBI_FILES if name not in found]
            if missing:
                raise UserError(f"the zip of {url} has no {', '.join(missing)}; it is not the challenge's")
            if any(found[name].file_size > ISBI_MAX_BYTES for name in ISBI_FILES):
                raise UserError(f"the zip of {url} unpacks to more than the challenge's stacks; nothing was kept")
            for name in ISBI_FILES:  # written under our names: a member's own path is never used
                with members.open(found[name]) as source, open(folder / name, "wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: needs a password
        raise UserError(f"{url} did not send a whole zip file ({error}); try again") from error


# ------------------------------------------------------------------------------------------------ command line


def main() -> None:
    parser = argparse.ArgumentParser(description="Get or examine data.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="make a synthetic stack that looks like ssTEM; no network needed")
    demo.add_argument("--data", type=Path, default=Path("data/demo"), help="folder to write (default %(default)s)")
    demo.add_argument("--seed", type=at_least(0), default=0, help="same seed, same bytes (default %(default)s)")
    isbi = commands.add_parser("isbi", help="download the ISBI 2012 stacks, 24 MB unpacked")
    isbi.add_argument("--data", type=Path, default=Path("data"), help="folder to write (default %(default)s)")
    isbi.add_argument("--url", default=ISBI_URL, help="where the zip is (default %(default)s)")
    check = commands.add_parser("check", help="examine a folder and say in plain words what is found")
    check.add_argument("data", type=Path, nargs="?", default=Path("data"), metavar="DIR")
    args = parser.parse_args()
    if args.command == "demo":
        make_demo(args.data, seed=args.seed)
        print(f"{args.data}: made the demo stack ({VOLUME}, {LABELS}, {TEST}); it is synthetic, not real tissue")
    elif args.command == "isbi":
        files = download_isbi(args.data, args.url)
        print(f"{args.data}: {', '.join(path.name for path in files)}. Please cite what data/README.md names")
    elif is_nuclei_folder(args.data):
        print(describe(args.data))
    else:
        findings = doctor.examine(args.data)
        print(doctor.report(args.data, findings))
        if any(finding.level == "problem" for finding in findings):
            sys.exit(2)


if __name__ == "__main__":
    run(main)
