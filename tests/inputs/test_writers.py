"""Whatever format a name says, pages come back as they were written, with the size of a pixel, or nothing is there."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal

from unet.inputs.ome_zarr import Image, Stack, halve
from unet.inputs.stacks import is_ours
from unet.inputs.voxel import Voxel, voxel_of_tiff
from unet.inputs.writers import check_writable, ending_of, page_writer, path_beside, read_page
from utils import UserError

VOXEL = Voxel(0.004, 0.005, 0.05)
NAMES = ("p.tif", "p.ome.tif", "p", "p.zarr", "p.ome.zarr")


def stack_of(pages, voxel=VOXEL):
    """What an array (N, H, W) or (N, C, H, W) is to be written as."""
    channels = pages.shape[1] if pages.ndim == 4 else 1
    return Stack(pages.shape, pages.dtype, voxel, [f"s{number}" for number in range(len(pages))],
                 [f"class {number}" for number in range(channels)])


def write(path, pages, voxel=VOXEL):
    """Write an array; gives what it was written as."""
    if path.name.endswith(".zarr"):
        pytest.importorskip("zarr", reason="zarr is not installed; requirements-zarr.txt has it")
    stack = stack_of(pages, voxel)
    check_writable(path, stack)
    with page_writer(path, stack) as append:
        for page in pages:
            append(page)
    return stack


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 70, 61), (1, 9, 8), (2, 3, 20, 30)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint32])
def test_pages_come_back(tmp_path, rng, name, shape, dtype):
    pages = (rng.random(shape) * 99).astype(dtype)
    stack = write(tmp_path / name, pages)
    for number, page in enumerate(pages):
        assert_array_equal(read_page(tmp_path / name, stack, number), page)
    assert read_page(tmp_path / name, stack_of(pages[..., 1:]), 0) is None
    assert read_page(tmp_path / f"no{name}", stack, 0) is None
    assert [path.name for path in tmp_path.iterdir()] == [name]
    write(tmp_path / name, pages)  # ours may be replaced


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_there_before_all_is(tmp_path, name):
    pages = np.zeros((2, 20, 30), np.float32)
    stack = write(tmp_path / name, pages)
    with pytest.raises(ValueError, match="were written"), page_writer(tmp_path / name, stack) as append:
        append(pages[0] + 1)
    assert_array_equal(read_page(tmp_path / name, stack, 0), pages[0])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_ome_tiff_says_what_it_shows(tmp_path):
    write(tmp_path / "a.ome.tif", np.zeros((2, 3, 8, 9), np.float32))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        assert (tiff.series[0].axes, voxel_of_tiff(tiff)) == ("ZCYX", VOXEL)
    assert [channel["Name"] for channel in pixels["Channel"]] == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(("name", "pages", "magic"), [("a.tif", 2, b"II*\0"), ("a.tif", 3, b"II+\0"),
                                                      ("a.ome.tif", 3, b"II+\0")])
def test_a_tiff_above_4_gb_is_a_bigtiff(tmp_path, name, pages, magic):
    stack = Stack((pages, 20000, 20000), np.float32, VOXEL)
    with pytest.raises(ValueError, match="were written"), page_writer(tmp_path / name, stack):
        file = next(tmp_path.iterdir())
        begin = file.open("rb").read(4)  # of nothing but holes so far
        with tifffile.TiffFile(file) as tiff:
            assert (tiff.series[0].shape, voxel_of_tiff(tiff)) == (stack.shape, VOXEL)
    assert begin == magic


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_an_ome_zarr_says_what_it_shows_and_has_a_pyramid(tmp_path, rng, dtype):
    pages = (rng.random((2, 1500, 1033)) * 9).astype(dtype)
    write(tmp_path / "a.zarr", pages)
    attributes = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    multiscales = attributes["multiscales"][0]
    assert multiscales["version"] == "0.4"
    assert [(axis["name"], axis["unit"]) for axis in multiscales["axes"]] == [(axis, "micrometer") for axis in "zyx"]
    scales = [level["coordinateTransformations"][0]["scale"] for level in multiscales["datasets"]]
    assert_allclose(scales, [[0.05, 0.004 * times, 0.005 * times] for times in (1, 2, 4)])
    assert ("image-label" in attributes) == (dtype == np.uint16)
    image = Image.open(tmp_path / "a.zarr")
    assert [array.shape for array in image.levels] == [(2, 1500, 1033), (2, 750, 517), (2, 375, 259)]
    for level in image.levels:
        assert_array_equal(level[1], pages[1])
        pages = halve(pages, dtype == np.uint16)


def test_halves_worked_by_hand():
    page = np.array([[1, 3, 5], [1, 3, 7]], np.float32)
    assert_array_equal(halve(page, False), [[2, 6]])
    assert_array_equal(halve(page, True), [[1, 5]])


def test_chunks_of_zeros_are_written(tmp_path):
    write(tmp_path / "a.zarr", np.zeros((2, 600, 600), np.uint16))
    assert sorted(path.name for path in (tmp_path / "a.zarr" / "0" / "1").rglob("?") if path.is_file()) == ["0", "0",
                                                                                                        "1", "1"]


def test_names_say_the_format():
    paths = {"a.tif": "a-cells.tif", "a.b.OME.tif": "a.b-cells.OME.tif", "a": "a-cells", "a.zarr": "a-cells.zarr"}
    assert {name: str(path_beside(Path(name), "cells")) for name in paths} == paths
    with pytest.raises(UserError, match=r"a\.png: predictions are not written as \.png"):
        ending_of(Path("a.png"))


def test_what_others_made_is_not_replaced(tmp_path):
    (tmp_path / "file.zarr").write_text("")
    (tmp_path / "folder" / "notes").mkdir(parents=True)
    (tmp_path / "their.zarr").mkdir()
    (tmp_path / "their.zarr" / ".zattrs").write_text('{"multiscales": []}')
    stack = stack_of(np.zeros((2, 5, 5), np.float32))
    write(tmp_path / "ours.zarr", np.zeros((2, 5, 5), np.float32))
    assert is_ours(tmp_path / "ours.zarr")
    (tmp_path / "ours.zarr" / "labels").mkdir()  # which somebody drew
    for name, reason in (("file.zarr", "is a file"), ("folder", "is there already"), ("their.zarr", "is there already"),
                         ("ours.zarr", "is there already")):
        with pytest.raises(UserError, match=reason):
            check_writable(tmp_path / name, stack)
    write(tmp_path / "ours", np.zeros((2, 5, 5), np.float32))
    assert is_ours(tmp_path / "ours")
    (tmp_path / "ours" / "notes.txt").write_text("")
    assert not is_ours(tmp_path / "ours")


def test_two_pages_of_one_name_are_no_files(tmp_path):
    stack = Stack((2, 5, 5), np.float32, names=["a", "a"])
    with pytest.raises(UserError, match="1 repeated image name, for instance a"):
        check_writable(tmp_path / "p", stack)
