"""What a prediction keeps on its way, image by image, so that a stopped one goes on from there."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import numpy as np

from unet.inputs.lazy import ROWS
from utils import UserError, atomic_path, read_json, write_json

ABOUT = "about.json"


class Room:
    """A hidden folder beside an output for what is too large for memory; made when it is needed, gone in the end."""

    def __init__(self, output: Path):
        self.output, self.made = output.resolve(), None

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None:
        if self.made:
            self.made.cleanup()

    def get(self, number: int, image: np.ndarray) -> None:
        """Nothing: what fits into memory is not kept here."""

    def put(self, number: int, image: np.ndarray, probability: np.ndarray) -> None:
        """Do nothing."""

    def folder_of(self, number: int, image: np.ndarray) -> Path:
        """The folder of image `number`."""
        self.made = self.made or tempfile.TemporaryDirectory(prefix=f".{self.output.stem}.", dir=self.output.parent)
        return Path(self.made.name) / f"{number:07}"

    def clear(self, number: int) -> None:
        """Remove all of image `number`."""
        shutil.rmtree(Path(self.made.name) / f"{number:07}")


class Kept:
    """The probabilities of images that are finished, a file each, in a folder beside the output: `<output>.part`.

    Each is known by its place and by the pixels that it was made of, so one of an image that has changed is never
    taken. `about`, ready for JSON, says what else it depends on. The folder goes once the output is whole.
    """

    def __init__(self, output: Path, about: dict[str, object], resume: bool = False):
        self.folder, self.about, self.resume = output.with_name(f"{output.name}.part"), about, resume

    def open(self) -> None:
        """Begin anew, or with `resume` with what is kept; raises UserError where that is of something else."""
        there = self.folder / ABOUT
        if self.folder.exists() and not there.is_file():
            raise UserError(f"{self.folder} is there already, and no stopped prediction left it; move it away, or name "
                            "another output with --out")
        if self.resume and there.is_file():
            before = read_json(there, f"leave out --resume to begin anew, which removes {self.folder}")
            changed = [name for name in {**before, **self.about} if before.get(name) != self.about.get(name)]
            if changed:
                raise UserError(f"{self.folder} was left by a prediction with {_other(changed, before, self.about)}; "
                                "go on as it was begun, or leave out --resume to begin anew")
            return
        self.remove()
        self.folder.mkdir(parents=True)
        write_json(there, self.about)

    def get(self, number: int, image: np.ndarray) -> np.ndarray | None:
        """The probability of image `number`, float32 (H, W[, classes]); None where it is still to be predicted.

        Raises UserError where it was predicted of other pixels.
        """
        if not any(self.folder.glob(f"{number:07}-*")):  # nothing was kept: its pixels need no digest yet
            return None
        try:
            return np.load(self._place(number, image).with_suffix(".npy"), allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):  # or a power cut came before its bytes were on the disk
            return None

    def put(self, number: int, image: np.ndarray, probability: np.ndarray) -> None:
        """Keep the probability of image `number`; all or nothing."""
        with atomic_path(self._place(number, image).with_suffix(".npy")) as temporary:
            np.save(temporary, probability, allow_pickle=False)

    def folder_of(self, number: int, image: np.ndarray) -> Path:
        """The folder of the bands of image `number`, which is too large for a file; raises as `get`."""
        return self._place(number, image)

    def clear(self, number: int) -> None:
        """Keep the probability of image `number` and nothing else: all else is made again in little time."""
        for folder in (*self.folder.glob(f"{number:07}-*/redrawn"), *self.folder.glob(f"{number:07}-*/objects")):
            shutil.rmtree(folder)

    def count(self) -> int:
        """How many images are kept."""
        return len(list(self.folder.glob("[0-9]*-*")))

    def remove(self) -> None:
        """Remove the folder: it holds nothing but what was kept here."""
        if (self.folder / ABOUT).is_file():
            shutil.rmtree(self.folder)

    def _place(self, number: int, image: np.ndarray) -> Path:
        place = self.folder / f"{number:07}-{digest_of(image)}"
        if any(path.stem != place.name for path in self.folder.glob(f"{number:07}-*")):
            raise UserError(f"image {number} of the input has changed since {self.folder} was left; leave out --resume "
                            "to begin anew")
        return place


def digest_of(image: np.ndarray) -> str:
    """By what an image is known: a digest of its type, shape and pixels."""
    digest = hashlib.sha256(f"{image.dtype.str} {image.shape}".encode())
    for first in range(0, len(image), ROWS):  # of one too large for memory
        digest.update(np.ascontiguousarray(image[first:first + ROWS]))
    return digest.hexdigest()[:20]


def _other(changed: list[str], before: dict, now: dict) -> str:
    """What has changed, in words: options with their values, all else by its name."""
    return ", ".join(f"{name} {before.get(name)} (now {now.get(name)})" if name.startswith("--") else f"another {name}"
                     for name in changed)
