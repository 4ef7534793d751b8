"""Samples: an image and its label each, read when they are asked for, from files that stay as they are meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unet.inputs.voxel import Voxel
from utils import UserError

State = tuple[int, int, int]  # of a file: its number on the disk, bytes, time of its last change


@dataclass(frozen=True)
class Sample:
    """One image and its label.

    image : (H, W) or (H, W, 3), its own dtype
    label : (H, W) as it was drawn; None where nobody drew
    group : what the image is like; a split takes some of each group
    voxel : size of a pixel, where it is known
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None = None
    group: str = ""
    voxel: Voxel | None = None


class Samples(Sequence[Sample]):
    """Samples that are read when they are asked for; their names are known before."""

    names: list[str]
    files: list[Path]  # that they come from: no output may replace one
    states: dict[Path, State | None]  # of these, when they were opened
    voxel: Voxel | None = None  # size of their pixels; None where it is not known
    area: int  # of all images together, pixels; of many files roughly

    def __len__(self) -> int:
        return len(self.names)

    def check_apart(self, outputs: Sequence[Path]) -> None:
        """Raise UserError where one of the files or folders to be written is read from, or is meant for two outputs."""
        inputs, places = {path.resolve() for path in self.files}, [path.resolve() for path in outputs]
        above = inputs.union(*(path.parents for path in inputs))
        for place in places:
            if place in above or not inputs.isdisjoint(place.parents):
                how = "is" if place in inputs else "lies in" if place not in above else "is a folder around"
                raise UserError(f"{place} {how} an input and would be replaced; name another output")
            if places.count(place) > 1 or any(place in other.parents for other in places):
                raise UserError(f"{place} is named for two outputs; give each a name of its own")

    def watch(self, files: Sequence[Path]) -> None:
        """Name the files that the samples come from, and remember how they are now."""
        self.files, self.states = list(files), {path: state_of(path) for path in files}

    def check_unchanged(self) -> None:
        """Raise UserError where a file was replaced since it was opened: what was read is of both."""
        for path, state in self.states.items():
            if state_of(path) != state:
                raise UserError(f"{path} was replaced while it was being read; run this again")

    @contextmanager
    def unchanged(self, otherwise: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Check at the block's end, and where it fails; `otherwise` removes what was made of changed files."""
        try:
            yield
        except Exception:  # perhaps as a file has changed
            self._check_or(otherwise)
            raise
        self._check_or(otherwise)

    def _check_or(self, otherwise: Callable[[], None]) -> None:
        try:
            self.check_unchanged()
        except UserError:
            otherwise()
            raise


def state_of(path: Path) -> State | None:
    """What tells a file from the one that replaces it; None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns
