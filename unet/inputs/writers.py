"""A stack is written in the format that its name says: TIFF, OME-TIFF, OME-Zarr, or a folder of TIFF files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from unet.inputs.ome_zarr import Stack, zarr_package, zarr_writer
from unet.inputs.stacks import OME, open_stack, require_ours, stack_writer
from utils import UserError, atomic_folder, check_output, require_space

ENDINGS = (*OME, ".ome.zarr", ".tif", ".tiff", ".zarr")


def ending_of(path: Path) -> str:
    """By what a name says its format; '' is a folder of files. Raises UserError for an ending of another format."""
    ending = next((end for end in ENDINGS if path.name.lower().endswith(end)), "")
    if not ending and path.suffix and not path.is_dir():
        raise UserError(f"{path}: {path.suffix} is no format that predictions are written in; let the name end with "
                        ".tif, .ome.tif or .zarr, or give a folder a name without a dot")
    return ending


def beside(path: Path, what: str) -> Path:
    """The path of another output in the same format: p.ome.tif -> p-cells.ome.tif."""
    end = len(path.name) - len(ending_of(path))
    return path.with_name(f"{path.name[:end]}-{what}{path.name[end:]}")


def check_writable(path: Path, stack: Stack) -> None:
    """Raise UserError where a stack cannot be written, or would replace what is not ours, ahead of the work."""
    ending, needed = ending_of(path), int(np.prod(stack.shape, dtype=np.int64)) * np.dtype(stack.dtype).itemsize
    if ending.endswith(".zarr"):
        zarr_package()
    if ending in ("", ".zarr", ".ome.zarr"):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, and a folder of this name is to be written; name another output")
        require_space(path.parent, needed)
    else:
        check_output(path, needed)
    twice = [name for name, count in Counter(stack.names).items() if count > 1]
    if ending == "" and twice:
        raise UserError(f"{path}: {len(twice)} names of images are there twice, for instance {twice[0]}, and each is "
                        "to be a file; name a .tif or .zarr")
    require_ours(path)


def page_writer(path: Path, stack: Stack) -> AbstractContextManager[Callable[[np.ndarray], None]]:
    """Open `path` for the pages of a stack, which the yielded function appends one by one; all or nothing."""
    ending = ending_of(path)
    if ending.endswith(".zarr"):
        return zarr_writer(path, stack)
    if ending == "":
        return _folder_writer(path, stack)
    return stack_writer(path, stack.shape, stack.dtype, len(stack.shape) == 4, stack.voxel, stack.called)


@contextmanager
def _folder_writer(path: Path, stack: Stack) -> Iterator[Callable[[np.ndarray], None]]:
    """A TIFF for each page, under its name."""
    with atomic_folder(path) as folder:
        names = iter(stack.names)

        def write(page: np.ndarray) -> None:
            with stack_writer(folder / f"{next(names)}.tif", (1, *page.shape), stack.dtype, page.ndim == 3, stack.voxel
                              ) as append:
                append(page)

        yield write
        if next(names, None) is not None:
            raise ValueError(f"{path}: {len(stack.names)} pages were announced, fewer were written")


def read_page(path: Path, stack: Stack, number: int) -> np.ndarray | None:
    """A page as `page_writer` wrote it; None where it is not there, or of another stack."""
    ending = ending_of(path)
    try:
        if ending.endswith(".zarr"):
            array = zarr_package().open_array(str(path / "0"), mode="r")
            page = array[..., number, :, :]
            return page if page.shape == tuple(stack.shape[1:]) and array.shape[-3] == stack.shape[0] else None
        if ending == "":
            return open_stack(path / f"{stack.names[number]}.tif", [1, *stack.shape[1:]])[0]
        return open_stack(path, list(stack.shape))[number]
    except (OSError, LookupError, ValueError):
        return None
