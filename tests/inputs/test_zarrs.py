"""Zarr and OME-Zarr are read as they were written, a page or some rows at a time, or one line says why not."""

import json
import pickle
import shutil
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from unet.inputs import lazy, zarrs
from unet.inputs.layouts import StackSamples, images_of
from unet.inputs.lazy import Gray, PageRows
from unet.inputs.ome_zarr import Stack, zarr_writer
from unet.inputs.pages import open_pages
from unet.inputs.voxel import Voxel
from utils import UserError

zarr = pytest.importorskip("zarr", reason="zarr is not installed; requirements-zarr.txt has it")
FORMATS = [2, 3] if zarr.__version__ >= "3" else [2]
STACK = np.random.default_rng(0).integers(0, 256, (5, 40, 33)).astype(np.uint8)


def write_array(path, array, chunks=(2, 16, 20), kind=2, **options):
    """Write an array in a format of Zarr, 2 or 3."""
    if zarr.__version__ >= "3":
        options = {"zarr_format": kind, "config": {"write_empty_chunks": True}, **options}
    made = zarr.create(shape=array.shape, chunks=chunks[-array.ndim:], dtype=array.dtype, store=str(path), **options)
    made[...] = array


def write_ome(path, array, axes="tczyx", scale=None, unit="nanometer", kind=2):
    """Write an image as other programs do: OME-Zarr 0.4, or 0.5 in Zarr's format 3."""
    path.mkdir(parents=True)
    write_array(path / "0", array, (1,) * (array.ndim - 2) + (16, 16), kind)
    described = [{"name": axis, **({"type": "space", "unit": unit} if axis in "zyx" else {})}
                 for axis in axes[-array.ndim:]]
    transforms = [{"type": "scale", "scale": scale or [1.0] * array.ndim}]
    multiscales = [{"version": "0.4", "axes": described,
                    "datasets": [{"path": "0", "coordinateTransformations": transforms}]}]
    if kind == 2:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": multiscales}))
    else:
        (path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {
            "ome": {"version": "0.5", "multiscales": multiscales}}}))


def edit(path, **changes):
    """Change some values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.int16, np.float32, bool], ids=str)
def test_arrays_are_read_page_by_page(tmp_path, kind, dtype):
    stack = STACK.astype(dtype)
    write_array(tmp_path / "a", stack, kind=kind)
    pages = pickle.loads(pickle.dumps(open_pages(tmp_path / "a")))
    assert (pages.shape, pages.dtype, pages.voxel) == (stack.shape, stack.dtype.newbyteorder("="), None)
    for number in (3, 0, -1):
        assert pages[number].dtype.isnative
        assert_array_equal(pages[number], stack[number])
    assert_array_equal(np.asarray(pages), stack)
    write_array(tmp_path / "b.zarr", stack[0], kind=kind)
    assert_array_equal(np.asarray(open_pages(tmp_path / "b.zarr")), stack[:1])


@pytest.mark.parametrize("kind", FORMATS)
def test_omes_image_has_a_size(tmp_path, kind):
    write_ome(tmp_path / "a.zarr", STACK[None, None], scale=[1, 1, 50, 4, 5], kind=kind)
    pages = open_pages(tmp_path / "a.zarr")
    assert (pages.shape, pages.names[1]) == (STACK.shape, "slice 1")
    assert list(pages.voxel.as_json().values()) == pytest.approx([0.004, 0.005, 0.05])
    assert_array_equal(np.asarray(pages), STACK)
    write_ome(tmp_path / "b", STACK[:1], axes="cyx", unit=None, kind=kind)
    assert open_pages(tmp_path / "b").voxel is None
    assert_array_equal(np.asarray(open_pages(tmp_path / "b")), STACK[:1])


def test_what_is_written_here_is_read(tmp_path):
    with zarr_writer(tmp_path / "a.zarr", Stack(STACK.shape, np.uint8, Voxel(0.004, 0.005, 0.05))) as write:
        for page in STACK:
            write(page)
    pages = Gray(open_pages(tmp_path / "a.zarr"))
    assert pages.voxel == Voxel(0.004, 0.005, 0.05)
    assert_array_equal(np.asarray(pages), STACK)
    assert len(pickle.dumps(pages)) < 3000


def test_pages_of_one_chunk_are_unpacked_together(tmp_path, monkeypatch):
    write_array(tmp_path / "a", STACK, (4, 40, 33))
    pages, calls = open_pages(tmp_path / "a"), []
    block = zarrs.ZarrPages.block
    monkeypatch.setattr(zarrs.ZarrPages, "block", lambda *given: calls.append(given[1]) or block(*given))
    assert_array_equal(np.asarray(pages), STACK)
    assert calls == [slice(0, 4), slice(4, 5)]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_of_a_large_page_only_the_rows_that_are_asked_for_are_read(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(lazy, "LARGE_PAGE", 1000)
    write_array(tmp_path / "a", STACK.astype(dtype), (1, 8, 33))
    for name in ("0.0.0", "1.2.0"):
        (tmp_path / "a" / name).unlink()
    page = Gray(open_pages(tmp_path / "a"))[1]
    assert isinstance(page, PageRows) and page.dtype == (np.uint16 if dtype == np.uint16 else np.float32)
    assert_array_equal(page[3:16], STACK[1, 3:16])
    assert_array_equal(page[0:15:4, ::3], STACK[1, 0:15:4, ::3])
    rows = np.array([2, 1, 0, 1, 2, 3])
    assert_array_equal(page.take(rows, axis=0), STACK[1][rows])
    with pytest.raises(UserError, match=r"a: the chunk 1\.2\.0 is missing; copy it again"):
        page[15:17]
    monkeypatch.setattr(lazy, "ROWS", 6)  # fewer than the longest step
    page = Gray(open_pages(tmp_path / "a"))[2]
    assert_array_equal(np.asarray(page), STACK[2])
    for step in (1, 4, 7):
        assert_array_equal(page[::step, ::step], STACK[2, ::step, ::step])


@pytest.mark.parametrize("kind", FORMATS)
def test_colours_are_the_last_axis_of_a_page(tmp_path, kind):
    colours = np.stack([STACK, 255 - STACK, STACK // 2], axis=-1)
    write_array(tmp_path / "pages", colours, (2, 16, 20, 3), kind)
    write_array(tmp_path / "page", colours[0], (16, 20, 3), kind)
    write_array(tmp_path / "clear", np.concatenate([colours, colours[..., :1]], axis=-1), (2, 16, 20, 4), kind)
    write_ome(tmp_path / "ome", np.moveaxis(colours, -1, 0)[None], scale=[1, 1, 50, 4, 5], kind=kind)
    for name, expected in (("pages", colours), ("page", colours[:1]), ("ome", colours), ("clear", colours)):
        pages = pickle.loads(pickle.dumps(open_pages(tmp_path / name)))
        assert pages.shape[:3] == expected.shape[:3]
        assert_array_equal(np.asarray(pages)[..., :3], expected)
        with pytest.raises(UserError, match="channels, expected grey slices of one"):
            Gray(pages)
        images = images_of(tmp_path / name)
        assert images.names == (list("01234") if len(expected) > 1 else [name])
        assert_array_equal(images[len(expected) - 1].image, expected[-1])
    assert images_of(tmp_path / "ome").voxel == Voxel(0.004, 0.005, 0.05)


def test_what_is_no_image_is_refused_in_one_line(tmp_path):
    write_ome(tmp_path / "group" / "a", STACK)
    (tmp_path / "group" / ".zgroup").write_text('{"zarr_format": 2}')
    write_ome(tmp_path / "two.zarr", np.stack([STACK, STACK])[None])
    write_ome(tmp_path / "turned.zarr", STACK, axes="xyz")
    write_array(tmp_path / "line", STACK[0, 0])
    write_array(tmp_path / "empty", STACK[:0])
    write_array(tmp_path / "complex", STACK.astype(np.complex64))
    for name in ("codec", "chunk", "type", "grid"):
        write_array(tmp_path / name, STACK)
    edit(tmp_path / "codec" / ".zarray", compressor={"id": "unheard-of"})
    edit(tmp_path / "type" / ".zarray", dtype="<q9")
    edit(tmp_path / "grid" / ".zarray", chunks=[0, 16, 20])
    (tmp_path / "chunk" / "2.0.0").write_bytes(b"\2\1")
    (tmp_path / "plain.zarr").mkdir()
    (tmp_path / "file.zarr").write_text("")
    for name, reason in (
            ("group", r"group is a Zarr group without an image of its own \(multiscales\); name .*group/a$"),
            ("two.zarr", r"has the axes t, c, z, y, x .* at most one time and one channel"),
            ("turned.zarr", "expected z, y, x"), ("line", "has no|holds no pages"), ("empty", "holds no pages"),
            ("complex", "expected grey levels"), ("codec", "its compression is not supported"),
            ("type", "cannot be read as Zarr"), ("grid", "cannot be read as Zarr"), ("chunk", "cannot be read as Zarr"),
            ("plain.zarr", "cannot be read as Zarr"), ("file.zarr", "is a file"),
            ("nowhere.zarr", "not found; way out")):
        with pytest.raises(UserError, match=reason) as error:
            np.asarray(Gray(open_pages(tmp_path / name, "way out")))
        assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(UserError, match=r"zarr, which is not installed: pip install -r requirements-zarr\.txt"):
        open_pages(tmp_path / "a.zarr")


def test_a_lost_chunk_is_not_taken_for_zeros(tmp_path):
    write_ome(tmp_path / "a.zarr", STACK)
    shutil.move(tmp_path / "a.zarr" / "0" / "3.1.1", tmp_path / "elsewhere")
    pages = open_pages(tmp_path / "a.zarr")
    assert_array_equal(pages[2], STACK[2])
    with pytest.raises(UserError, match=r"a\.zarr/0: the chunk 3\.1\.1 is missing"):
        pages[3]


def test_no_output_may_lie_in_a_zarr_that_is_read(tmp_path):
    write_array(tmp_path / "a.zarr", STACK)
    samples = StackSamples(tmp_path / "a.zarr")
    samples.check_apart([tmp_path / "p.tif"])
    for inside in ("p.tif", "deeper/p.tif"):
        with pytest.raises(UserError, match=r"p\.tif lies in an input and would be replaced"):
            samples.check_apart([tmp_path / "a.zarr" / inside])
