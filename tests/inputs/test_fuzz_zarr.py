"""Damaged Zarrs, their descriptions or their chunks, are read, or refused in one line."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs.test_fuzz import EDITS, IMAGE, damage, fuzzed, read_all
from inputs.test_zarrs import FORMATS, write_array, write_ome

from unet.inputs.zarrs import ZARR_MARKS
from unet.tasks.cells import Cells

COMPRESSED = ("zlib", "lzma", "bz2", "gzip", "lz4", "zstd", "blosc")


@pytest.fixture(scope="module")
def zarrs(tmp_path_factory):
    """A folder of Zarrs that are read."""
    import numcodecs
    folder = tmp_path_factory.mktemp("zarrs")
    for kind in FORMATS:
        write_array(folder / f"array{kind}.zarr", IMAGE, (2, 24, 48), kind)
        write_array(folder / f"float{kind}.zarr", IMAGE.astype(np.float32), (1, 48, 48), kind)
        write_ome(folder / f"ome{kind}.zarr", IMAGE[None, None], scale=[1, 1, 50, 4, 5], kind=kind)
    for name in COMPRESSED:
        write_array(folder / f"{name}.zarr", IMAGE, (2, 48, 48), compressor=numcodecs.get_codec({"id": name}))
    write_array(folder / "plain.zarr", IMAGE, (2, 48, 48), compressor=None)
    write_array(folder / "filtered.zarr", IMAGE.astype(np.int16), (2, 48, 48),
                filters=[numcodecs.Delta("<i2"), numcodecs.Shuffle(2)])
    return folder


def files_of(folder):
    """All files of all Zarrs, in order."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@fuzzed
@given(st.data())
def test_a_damaged_zarr(tmp_path, zarrs, data):
    name = data.draw(st.sampled_from(sorted(path.name for path in zarrs.iterdir())))
    path = data.draw(st.sampled_from(files_of(zarrs / name)))
    edits = data.draw(st.lists(EDITS, min_size=1, max_size=4))
    shutil.rmtree(tmp_path / "in.zarr", ignore_errors=True)
    shutil.copytree(zarrs / name, tmp_path / "in.zarr")
    (tmp_path / "in.zarr" / path).write_bytes(damage((zarrs / name / path).read_bytes(), edits))
    read_all(lambda: Cells().inputs(tmp_path / "in.zarr"))


WORDS = st.sampled_from(["0", "-1", "1e400", "NaN", "null", "[]", "{}", '""', '"x"', "true", "[1]", "99999999999999",
                         '"<f8"', '"|O"', '"<U9"', '"C"', "3", '"/"', '[["a", "<i4"]]', '"../../x"'])


@pytest.mark.slow
@fuzzed
@given(st.data())
def test_other_values_in_the_description(tmp_path, zarrs, data):
    """One value of the JSON is another one: what bits that flip hardly make."""
    name = data.draw(st.sampled_from(sorted(path.name for path in zarrs.iterdir())))
    path = data.draw(st.sampled_from([path for path in files_of(zarrs / name) if path.name in ZARR_MARKS]))
    text = (zarrs / name / path).read_text()
    places = [at for at, sign in enumerate(text) if sign == ":" or sign == "["]
    if not places:
        return
    at = data.draw(st.sampled_from(places)) + 1
    ends = [end for end in range(at, len(text)) if text[end] in ",}]"]
    shutil.rmtree(tmp_path / "in.zarr", ignore_errors=True)
    shutil.copytree(zarrs / name, tmp_path / "in.zarr")
    (tmp_path / "in.zarr" / path).write_text(f"{text[:at]} {data.draw(WORDS)}{text[ends[0]:]}")
    read_all(lambda: Cells().inputs(tmp_path / "in.zarr"))


def test_all_are_read_where_nothing_happened_to_them(zarrs):
    for path in zarrs.iterdir():
        assert read_all(lambda path=path: Cells().inputs(path)), path
