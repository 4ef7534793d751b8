"""Write a stack in the format that its name says: TIFF, OME-TIFF, OME-Zarr, or a folder of TIFF files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from unet.inputs.ome_zarr import Stack, zarr_package, zarr_writer
from unet.inputs.stacks import OME, open_stack, require_ours, stack_writer
from utils import UserError, atomic_folder, count_of, require_space

ENDINGS = (*OME, ".ome.zarr", ".tif", ".tiff", ".zarr")


def ending_of(path: Path) -> str:
    """Return the ending that tells a name's format; '' for a folder of files. Raises UserError for other formats."""
    ending = next((end for end in ENDINGS if path.name.lower().endswith(end)), "")
    if not ending and path.suffix and not path.is_dir():
        raise UserError(f"{path}: predictions are not written as {path.suffix}; let the name end with .tif, .ome.tif "
                        "or .zarr, or give a folder a name without a dot")
    return ending


def path_beside(path: Path, what: str) -> Path:
    """Return the path of another output in the same format: p.ome.tif -> p-cells.ome.tif."""
    end = len(path.name) - len(ending_of(path))
    return path.with_name(f"{path.name[:end]}-{what}{path.name[end:]}")


def check_writable(path: Path, stack: Stack) -> None:
    """Raise UserError, before any work, if a stack cannot be written or would replace what is not ours."""
    ending, needed = ending_of(path), int(np.prod(stack.shape, dtype=np.int64)) * np.dtype(stack.dtype).itemsize
    if ending.endswith(".zarr"):
        zarr_package()
    if ending in ("", ".zarr", ".ome.zarr"):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, but the output would be a folder of this name; name another output")
        require_space(path.parent, needed)
    else:
        check_output(path, needed)
    duplicates = [name for name, count in Counter(stack.names).items() if count > 1]
    if ending == "" and duplicates:
        raise UserError(f"{path}: {count_of(len(duplicates), 'repeated image name')}, for instance {duplicates[0]}, "
                        "but each image becomes a file; name a .tif or .zarr")
    require_ours(path)


def page_writer(path: Path, stack: Stack) -> AbstractContextManager[Callable[[np.ndarray], None]]:
    """Open `path` to write a stack; the yielded function appends its pages one by one; all or nothing."""
    ending = ending_of(path)
    if ending.endswith(".zarr"):
        return zarr_writer(path, stack)
    if ending == "":
        return _folder_writer(path, stack)
    return stack_writer(path, stack.shape, stack.dtype, len(stack.shape) == 4, stack.voxel, stack.channel_names)


@contextmanager
def _folder_writer(path: Path, stack: Stack) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield `write(page)`, which writes a TIFF for each page, under its name."""
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
    """Read a page that `page_writer` wrote; None if it is not there, or belongs to another stack."""
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


def check_output(path: Path, needed: int) -> None:
    """Raise UserError before the work starts if the file `path` of `needed` bytes cannot be written."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")
    require_space(path.parent, needed)


def check_text_output(path: Path, start: str) -> None:
    """Raise UserError if the text file `path` cannot be written, or exists and does not begin with `start`."""
    check_output(path, 0)
    if path.is_file() and path.stat().st_size:
        with open(path, "rb") as file:
            if file.read(len(start)) != start.encode():
                raise UserError(f"{path} was not written by this command and would be replaced; name another file")
