"""The folder of a run: how it is recognised, and which of its files may be removed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from unet.inputs.folders import find_sources, is_image_folder
from unet.inputs.stacks import is_ours
from unet.scores.precision import SUFFIX
from unet.system.lock import lock_run
from unet.tasks.task import Outputs
from utils import UserError, read_json

RUN_MARKS = {  # a run is recognised by any of these files, if it has these keys
    "augmented/manifest.json": ("inputs", "split", "samples"), "patches/geometry.json": ("tile", "core", "manifest"),
    ".augmented.part/about.json": ("about", "files"), ".patches.part/about.json": ("about", "files"),
    "config.json": ("network", "recipe")}
RUN_FILES = ("model.keras", "config.json", "checkpoint.npz", "history.csv", "metrics.json", "finished.json",
             "holdout.tif", "holdout.png", "curve.png", "next.csv", "report.html", "folds.json")
FOLDS_FILE = "folds.json"  # results of a cross-validation, whose folds are runs in fold-1, fold-2, ...
FOLDERS = {"augmented": ("manifest.json", "images.tif", "labels.tif"), "patches": ("geometry.json", "train-*.npy"),
           "tensorboard": ("*/events.out.tfevents.*",), "engines": ("*.xml", "*.bin", "*.onnx", "*.json"),
           **{f".{name}.part": ("about.json", "finished.jsonl", f"{name}/*") for name in ("augmented", "patches")}}
UNFINISHED = re.compile(r"\.(augmented|patches)\.(\d+\.)?[a-z0-9_]{8}(\.old)?")  # as `atomic_folder` names them


def marks(work: Path) -> set[str]:
    """Return which of RUN_MARKS a folder has; none if it is not the folder of a run."""
    return {name for name, keys in RUN_MARKS.items() if _content(work / name, *keys)}


def _content(path: Path, *keys: str) -> dict:
    """Return the content of a JSON file with these keys; {} if there is no such file or it is another program's."""
    try:
        return read_json(path, "", keys)
    except (UserError, OSError, TypeError):  # not JSON, or not of this shape
        return {}


@contextmanager
def run_folder(work: Path, whole: bool = False) -> Iterator[None]:
    """Lock the folder of a run as `lock_run` does, and remove the half-written files that killed runs left in it."""
    with lock_run(work, whole):
        for path in leftovers(work):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield


def leftovers(work: Path) -> list[Path]:
    """List what killed runs left half-written in a folder, by its hidden name; not steps that can be resumed."""
    temporary = re.compile("|".join(rf"\.{re.escape(Path(name).stem)}\.\d+{re.escape(Path(name).suffix)}"
                                    for name in RUN_FILES))
    return [path for path in (sorted(work.iterdir()) if work.is_dir() else [])
            if temporary.fullmatch(path.name) or (path.is_dir() and UNFINISHED.fullmatch(path.name))]


def check_work(work: Path) -> None:
    """Raise UserError if a run in this folder would replace what no run made."""
    found_marks = marks(work)
    others = [name for name in RUN_FILES if not found_marks and (work / name).exists()]
    for name in ("augmented", "patches"):  # replaced as a whole
        folder = work / name
        if not any(mark.startswith(name) for mark in found_marks) and folder.exists() and (
                not folder.is_dir() or any(folder.iterdir())):
            others.append(name)
    if others:
        raise UserError(f"{work} has {', '.join(others)} already, which no run of this project made; name another "
                        "folder with --work, or move that away")


def outputs(work: Path) -> list[Path]:
    """List the stacks, or the folder, that the run in this folder predicted; none if it did not come so far."""
    files = []
    for name, key in (("finished.json", "predicted"), (FOLDS_FILE, "predicted"), ("finished.json", "scored")):
        places = _content(work / name, key).get(key) or {}
        paths = [Path(places[field.name]) for field in fields(Outputs) if places.get(field.name)]
        files += [path for path in paths if key == "predicted" or path.is_dir()]  # holdout.tif is one of RUN_FILES
    return list(dict.fromkeys(files))


def folds_of(work: Path) -> list[Path]:
    """List the folders of a cross-validation's folds."""
    return sorted(path for path in work.glob("fold-*") if re.fullmatch(r"fold-\d+", path.name) and marks(path))


def predicted_files(work: Path) -> list[Path]:
    """List the files that the run in this folder predicted and that nobody has changed since."""
    manifest = _content(work / "augmented" / "manifest.json", "sources")
    names = {source["name"] for source in manifest.get("sources", [])}
    data = Path(_content(work / "config.json", "data").get("data") or manifest.get("data", "nowhere"))
    names |= {source.name for source in (find_sources(data) if is_image_folder(data) else [])}
    of_images = [f"{name}{end}" for name in sorted(names) for end in (".tif", SUFFIX)]
    files = (file for path in outputs(work)
             for file in ([path / name for name in of_images] if path.is_dir() and path.suffix != ".zarr" else [path]))
    return [path for path in files if is_ours(path)]


def remove_run(work: Path) -> list[Path]:
    """Remove what a run made: its files in `work`, its predictions, and emptied folders; return the removed files.

    Nothing is removed if the folder has none of RUN_MARKS.
    """
    if not marks(work):
        return []
    with run_folder(work):
        of_folds = [path for fold in folds_of(work) for path in remove_run(fold)]
        files = predicted_files(work)
        folders = [path for path in outputs(work) if path.is_dir() and path.suffix != ".zarr"]
        for folder, patterns in FOLDERS.items():
            files += [path for pattern in patterns for path in sorted((work / folder).glob(pattern))]
        files += [work / name for name in RUN_FILES if (work / name).is_file()]
        removed_files = of_folds + remove(files, work, *folders)
    if not work.is_symlink() and not any(work.iterdir()):  # the lock was in it until now
        work.rmdir()
    return removed_files


def remove(files: list[Path], *folders: Path) -> list[Path]:
    """Remove files, then those of `folders` and of the folders within them that are empty; return the files.

    An image that is a folder, a Zarr, counts as a file.
    """
    for path in files:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    parents = {parent for path in files for parent in path.parents
               if any(parent.is_relative_to(folder) for folder in folders)}
    for folder in sorted(parents, key=lambda path: -len(path.parts)):
        if not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    return files
