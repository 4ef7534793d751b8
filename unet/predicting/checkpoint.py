"""What a prediction keeps, image by image, so that it can be resumed after a stop."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import numpy as np

from unet.inputs.lazy import ROWS
from utils import UserError, atomic_path, read_json, write_json

SETTINGS_FILE = "about.json"


class Scratch:
    """A hidden folder beside an output for images too large for memory; created when needed, removed in the end."""

    def __init__(self, output: Path):
        self.output, self.folder = output.resolve(), None

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder:
            self.folder.cleanup()

    def get(self, number: int, image: np.ndarray) -> None:
        """Return None: probabilities that fit into memory are not kept here."""

    def put(self, number: int, image: np.ndarray, probability: np.ndarray) -> None:
        """Do nothing."""

    def folder_of(self, number: int, image: np.ndarray) -> Path:
        """Return the folder of image `number`."""
        self.folder = self.folder or tempfile.TemporaryDirectory(prefix=f".{self.output.stem}.", dir=self.output.parent)
        return Path(self.folder.name) / f"{number:07}"

    def clear(self, number: int) -> None:
        """Remove everything of image `number`."""
        shutil.rmtree(Path(self.folder.name) / f"{number:07}")


class Checkpoint:
    """The probabilities of finished images, a file each, in a folder beside the output: `<output>.part`.

    A file is identified by the image's number and pixels, so that it is never used after the image has changed.
    `about`, ready for JSON, says what else the probabilities depend on. The folder is removed once the output is
    complete.
    """

    def __init__(self, output: Path, about: dict[str, object], resume: bool = False):
        self.folder, self.about, self.resume = output.with_name(f"{output.name}.part"), about, resume

    def open(self) -> None:
        """Create the folder, or with `resume` go on with it; raise UserError if it belongs to another prediction."""
        path = self.folder / SETTINGS_FILE
        if self.folder.exists() and not path.is_file():
            raise UserError(f"{self.folder} exists already, and no stopped prediction left it; move it away, or name "
                            "another output with --out")
        if self.resume and path.is_file():
            before = read_json(path, f"leave out --resume to start again, which removes {self.folder}")
            changes = [name for name in {**before, **self.about} if before.get(name) != self.about.get(name)]
            if changes:
                raise UserError(f"{self.folder} was left by a prediction with {_describe(changes, before, self.about)}"
                                "; go on as it was started, or leave out --resume to start again")
            return
        self.remove()
        self.folder.mkdir(parents=True)
        write_json(path, self.about)

    def get(self, number: int, image: np.ndarray) -> np.ndarray | None:
        """Load the probability of image `number`, float32 (H, W[, classes]); None if it is not predicted yet.

        Raises UserError if the image had other pixels when it was predicted.
        """
        if not any(self.folder.glob(f"{number:07}-*")):  # so its pixels need no digest yet
            return None
        try:
            return np.load(self.folder_of(number, image).with_suffix(".npy"), allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):  # or the file is incomplete because of a power cut
            return None

    def put(self, number: int, image: np.ndarray, probability: np.ndarray) -> None:
        """Save the probability of image `number`, all or nothing."""
        with atomic_path(self.folder_of(number, image).with_suffix(".npy")) as temporary:
            np.save(temporary, probability, allow_pickle=False)

    def folder_of(self, number: int, image: np.ndarray) -> Path:
        """Return the folder for the bands of image `number`, if it is too large for one file; raises as `get` does."""
        folder = self.folder / f"{number:07}-{digest_of(image)}"
        if any(path.stem != folder.name for path in self.folder.glob(f"{number:07}-*")):
            raise UserError(f"image {number} of the input has changed since {self.folder} was left; leave out --resume "
                            "to start again")
        return folder

    def clear(self, number: int) -> None:
        """Remove all bands of image `number` except those of its probability: the others are quickly computed again."""
        for folder in (*self.folder.glob(f"{number:07}-*/redrawn"), *self.folder.glob(f"{number:07}-*/objects")):
            shutil.rmtree(folder)

    def count(self) -> int:
        """Count the images that are kept."""
        return len(list(self.folder.glob("[0-9]*-*")))

    def describe(self, total: int) -> str:
        """Say how many of `total` images are kept, and where."""
        return f"{self.count()} of {total} images are kept in {self.folder}"

    def remove(self) -> None:
        """Remove the folder if a prediction created it."""
        if (self.folder / SETTINGS_FILE).is_file():
            shutil.rmtree(self.folder)


def digest_of(image: np.ndarray) -> str:
    """Return a digest of an image's dtype, shape and pixels."""
    digest = hashlib.sha256(f"{image.dtype.str} {image.shape}".encode())
    for first in range(0, len(image), ROWS):  # it may be too large for memory
        digest.update(np.ascontiguousarray(image[first:first + ROWS]))
    return digest.hexdigest()[:20]


def _describe(changes: list[str], before: dict, now: dict) -> str:
    """Describe in words what has changed: options with their values, everything else by its name."""
    return ", ".join(f"{name} {before.get(name)} (now {now.get(name)})" if name.startswith("--") else f"another {name}"
                     for name in changes)
