"""The folder of a run: by what it is known as one, and what of it may go, file by file."""

from __future__ import annotations

from pathlib import Path

from unet.inputs.folders import find_sources
from unet.inputs.stacks import is_ours
from unet.scores.precision import SUFFIX
from unet.tasks import task_of
from utils import UserError, read_json

MARKS = {  # what a run is known by: a file that has these keys
    "augmented/manifest.json": ("inputs", "split", "samples"), "patches/geometry.json": ("tile", "core", "manifest"),
    "config.json": ("network", "recipe")}
FILES = ("model.keras", "config.json", "checkpoint.npz", "history.csv", "metrics.json", "finished.json", "holdout.tif",
         "holdout.png", "curve.png", "report.html")
FOLDERS = {"augmented": ("manifest.json", "images.tif", "labels.tif"), "patches": ("geometry.json", "train-*.npy"),
           "tensorboard": ("*/events.out.tfevents.*",)}


def marks(work: Path) -> set[str]:
    """Which of MARKS a folder carries; none where it is not a run's."""
    return {name for name, keys in MARKS.items() if _content(work / name, *keys)}


def _content(path: Path, *keys: str) -> dict:
    """A JSON file of ours, or {} where there is none, or another's."""
    try:
        return read_json(path, "", keys)
    except (UserError, OSError, TypeError):  # not JSON, or not of this shape
        return {}


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


def predicted_to(work: Path) -> Path | None:
    """The stack or folder that the run in this folder predicted; None where it did not come so far."""
    finished = _content(work / "finished.json", "predicted")
    return Path(finished["predicted"]["out"]) if finished else None


def predictions(work: Path) -> list[Path]:
    """The files that the run in this folder predicted and nobody changed since."""
    out, config = predicted_to(work), _content(work / "config.json", *MARKS["config.json"])
    if not out or not config:
        return []
    if not out.is_dir():
        outputs = task_of(config).outputs(out)
        return [path for path in (outputs.out, outputs.objects) if path and is_ours(path)]
    manifest = _content(work / "augmented" / "manifest.json", "sources")
    names = {source["name"] for source in manifest.get("sources", [])}
    if Path(config["data"]).is_dir():
        names |= {source.name for source in find_sources(Path(config["data"]))}
    return [path for name in sorted(names) for end in (".tif", SUFFIX) if is_ours(path := out / f"{name}{end}")]


def remove_run(work: Path) -> list[Path]:
    """Remove what a run made: its files in `work`, its predictions, and folders left empty; returns what went.

    Nothing goes where the folder carries no mark of a run.
    """
    if not marks(work):
        return []
    out, ours = predicted_to(work), predictions(work)
    for folder, patterns in FOLDERS.items():
        ours += [path for pattern in patterns for path in sorted((work / folder).glob(pattern))]
    ours += [work / name for name in FILES if (work / name).is_file()]
    return remove(ours, work, *([out] if out and out.is_dir() else []))


def remove(files: list[Path], *folders: Path) -> list[Path]:
    """Remove files, and of `folders` and what lies in them those where nothing is left; returns the files."""
    for path in files:
        path.unlink()
    inside = {parent for path in files for parent in path.parents
              if any(parent.is_relative_to(folder) for folder in folders)}
    for folder in sorted(inside, key=lambda path: -len(path.parts)):
        if not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    return files
