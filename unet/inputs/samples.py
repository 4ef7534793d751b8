"""Samples, an image and its label each, read when they are indexed; checks that their files do not change meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unet.inputs.voxel import Voxel
from utils import UserError

State = tuple[int, int, int]  # of a file: inode number, size in bytes, time of the last change in ns


@dataclass(frozen=True)
class Sample:
    """One image and its label.

    image : (H, W) or (H, W, 3), its own dtype
    label : (H, W), as the user drew it; None if there is none
    group : the kind of image; the hold-out takes some of each group
    voxel : size of a pixel, if it is known
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None = None
    group: str = ""
    voxel: Voxel | None = None


class Samples(Sequence[Sample]):
    """Samples that are read when they are indexed; their names are known before."""

    names: list[str]
    files: list[Path]  # that they come from: no output may replace one
    folders: Sequence[Path] = ()  # that are inputs as a whole, as a Zarr is: no output may lie in one
    states: dict[Path, State | None]  # of these files, when they were opened
    voxel: Voxel | None = None  # size of their pixels; None if it is not known
    area: int  # of all images together, pixels; an estimate if there are many files

    def __len__(self) -> int:
        return len(self.names)

    def check_apart(self, outputs: Sequence[Path], others: Sequence[Path] = ()) -> None:
        """Raise UserError if an output file or folder is, contains or lies in an input, or would serve two outputs.

        `others` are further files that are read.
        """
        inputs = {path.resolve() for path in (*self.files, *self.folders, *others)}
        outputs = [path.resolve() for path in outputs]
        parents = inputs.union(*(path.parents for path in inputs))
        for output in outputs:
            if output in parents or not inputs.isdisjoint(output.parents):
                how = "is" if output in inputs else "lies in" if output not in parents else "is a folder around"
                raise UserError(f"{output} {how} an input and would be replaced; name another output")
            if outputs.count(output) > 1 or any(output in other.parents for other in outputs):
                raise UserError(f"{output} is named for two outputs; give each a name of its own")

    def watch(self, files: Sequence[Path]) -> None:
        """Set the files that the samples come from, and remember their present state."""
        self.files, self.states = list(files), {path: state_of(path) for path in files}

    def check_unchanged(self) -> None:
        """Raise UserError if a file was replaced since it was opened: the pixels read may be of both versions."""
        for path, state in self.states.items():
            if state_of(path) != state:
                raise UserError(f"{path} was replaced while it was being read; run this again")

    @contextmanager
    def require_unchanged(self, otherwise: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Call `check_unchanged` when the block ends or fails; `otherwise` removes what was made from changed files."""
        try:
            yield
        except Exception:  # perhaps because a file has changed
            self._check_or(otherwise)
            raise
        self._check_or(otherwise)

    def _check_or(self, otherwise: Callable[[], None]) -> None:
        """Raise UserError if a file was replaced, after a call of `otherwise`."""
        try:
            self.check_unchanged()
        except UserError:
            otherwise()
            raise


def state_of(path: Path) -> State | None:
    """Return what differs between a file and one that replaces it; None if there is no such file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns
