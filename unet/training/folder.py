"""The folder of a run: by what it is known as one, and what of it may go, file by file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from unet.inputs.folders import find_sources, is_image_folder
from unet.inputs.stacks import is_ours
from unet.lock import working
from unet.scores.precision import SUFFIX
from unet.tasks.task import Outputs
from utils import UserError, read_json

MARKS = {  # what a run is known by: a file that has these keys
    "augmented/manifest.json": ("inputs", "split", "samples"), "patches/geometry.json": ("tile", "core", "manifest"),
    ".augmented.part/about.json": ("about", "files"), ".patches.part/about.json": ("about", "files"),
    "config.json": ("network", "recipe")}
FILES = ("model.keras", "config.json", "checkpoint.npz", "history.csv", "metrics.json", "finished.json", "holdout.tif",
         "holdout.png", "curve.png", "next.csv", "report.html", "folds.json")
FOLDS = "folds.json"  # of a cross-validation, whose folds are runs in fold-1, fold-2, ...
FOLDERS = {"augmented": ("manifest.json", "images.tif", "labels.tif"), "patches": ("geometry.json", "train-*.npy"),
           "tensorboard": ("*/events.out.tfevents.*",), "engines": ("*.xml", "*.bin", "*.onnx"),
           **{f".{name}.part": ("about.json", "finished.jsonl", f"{name}/*") for name in ("augmented", "patches")}}
UNFINISHED = re.compile(r"\.(augmented|patches)\.(\d+\.)?[a-z0-9_]{8}(\.old)?")  # as `atomic_folder` names them


def marks(work: Path) -> set[str]:
    """Which of MARKS a folder carries; none where it is not a run's."""
    return {name for name, keys in MARKS.items() if _content(work / name, *keys)}


def _content(path: Path, *keys: str) -> dict:
    """A JSON file of ours, or {} where there is none, or another's."""
    try:
        return read_json(path, "", keys)
    except (UserError, OSError, TypeError):  # not JSON, or not of this shape
        return {}


@contextmanager
def run_folder(work: Path, whole: bool = False) -> Iterator[None]:
    """Hold the folder of a run as `working` does, rid of what killed runs left half-written in it."""
    with working(work, whole):
        for path in leftovers(work):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield


def leftovers(work: Path) -> list[Path]:
    """What killed runs left half-written in a folder, by its hidden name; an unfinished step is none of it."""
    temporary = re.compile("|".join(rf"\.{re.escape(Path(name).stem)}\.\d+{re.escape(Path(name).suffix)}"
                                    for name in FILES))
    return [path for path in (sorted(work.iterdir()) if work.is_dir() else [])
            if temporary.fullmatch(path.name) or (path.is_dir() and UNFINISHED.fullmatch(path.name))]


def check_work(work: Path) -> None:
    """Raise UserError where a run in this folder would replace what no run made."""
    ours = marks(work)
    others = [name for name in FILES if not ours and (work / name).exists()]
    for name in ("augmented", "patches"):  # replaced as a whole
        folder = work / name
        if not any(mark.startswith(name) for mark in ours) and folder.exists() and (
                not folder.is_dir() or any(folder.iterdir())):
            others.append(name)
    if others:
        raise UserError(f"{work} has {', '.join(others)} already, which no run of this project made; name another "
                        "folder with --work, or move that away")


def outputs(work: Path) -> list[Path]:
    """The stacks, or the folder, that the run in this folder predicted; none where it did not come so far."""
    files = []
    for name, key in (("finished.json", "predicted"), (FOLDS, "predicted"), ("finished.json", "judged")):
        places = _content(work / name, key).get(key) or {}
        paths = [Path(places[field.name]) for field in fields(Outputs) if places.get(field.name)]
        files += [path for path in paths if key == "predicted" or path.is_dir()]  # holdout.tif is one of FILES
    return list(dict.fromkeys(files))


def folds_of(work: Path) -> list[Path]:
    """The folders of the folds of a cross-validation."""
    return sorted(path for path in work.glob("fold-*") if re.fullmatch(r"fold-\d+", path.name) and marks(path))


def predictions(work: Path) -> list[Path]:
    """The files that the run in this folder predicted and nobody changed since."""
    manifest = _content(work / "augmented" / "manifest.json", "sources")
    names = {source["name"] for source in manifest.get("sources", [])}
    data = Path(_content(work / "config.json", "data").get("data") or manifest.get("data", "nowhere"))
    names |= {source.name for source in (find_sources(data) if is_image_folder(data) else [])}
    inside = [f"{name}{end}" for name in sorted(names) for end in (".tif", SUFFIX)]
    files = (file for path in dict.fromkeys(outputs(work))
             for file in ([path / name for name in inside] if path.is_dir() and path.suffix != ".zarr" else [path]))
    return [path for path in files if is_ours(path)]


def remove_run(work: Path) -> list[Path]:
    """Remove what a run made: its files in `work`, its predictions, and folders left empty; returns what went.

    Nothing goes where the folder carries no mark of a run.
    """
    if not marks(work):
        return []
    with run_folder(work):
        removed = _remove_run(work)
    if not work.is_symlink() and not any(work.iterdir()):  # until now it had the lock
        work.rmdir()
    return removed


def _remove_run(work: Path) -> list[Path]:
    folds = [path for fold in folds_of(work) for path in remove_run(fold)]
    ours, folders = predictions(work), [path for path in outputs(work) if path.is_dir() and path.suffix != ".zarr"]
    for folder, patterns in FOLDERS.items():
        ours += [path for pattern in patterns for path in sorted((work / folder).glob(pattern))]
    ours += [work / name for name in FILES if (work / name).is_file()]
    return folds + remove(ours, work, *folders)


def remove(files: list[Path], *folders: Path) -> list[Path]:
    """Remove files, and of `folders` and what lies in them those where nothing is left; returns the files.

    An image that is a folder, a Zarr, counts as a file.
    """
    for path in files:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    inside = {parent for path in files for parent in path.parents
              if any(parent.is_relative_to(folder) for folder in folders)}
    for folder in sorted(inside, key=lambda path: -len(path.parts)):
        if not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    return files
