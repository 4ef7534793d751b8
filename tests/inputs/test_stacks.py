"""TIFF stacks: read whole or refused in one line, written page by page or not at all, slices named in a list."""

import numpy as np
import pytest
import tifffile
from conftest import write_png
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from unet.inputs.stacks import (
    format_slices,
    is_ours,
    open_stack,
    padding,
    parse_slices,
    read_stack,
    require_ours,
    stack_writer,
    write_stack,
)
from unet.inputs.voxel import Voxel, voxel_of_tiff
from utils import UserError


def image_of(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def names(folder):
    """What lies in a folder, temporary files too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("shape", "dtype"), [((5, 9, 7), np.uint8), ((5, 9, 7), np.uint16), ((5, 9, 7), np.float32),
                                              ((1, 9, 7), np.uint8), ((3, 9, 7), np.uint8), ((5, 9, 7, 3), np.uint8)])
def test_stacks_come_back_and_imagej_reads_them(tmp_path, shape, dtype):
    stack = (image_of(shape).astype(dtype) * (257 if dtype == np.uint16 else 1)).astype(dtype)
    write_stack(tmp_path / "a.tif", stack)
    back = read_stack(tmp_path / "a.tif")
    assert back.dtype == dtype
    assert_array_equal(back, stack)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_imagej
        told = tiff.imagej_metadata
        assert told.get("images", 1) == shape[0]
        assert told.get("slices", told.get("frames", 1)) == shape[0] and "channels" not in told


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_colours_are_an_ome_tiff_with_the_size_of_a_pixel(tmp_path, dtype):
    stack, voxel = image_of((2, 9, 7, 3)).astype(dtype), Voxel(0.004, 0.005, 0.05)
    with stack_writer(tmp_path / "a.tif", stack.shape, dtype, voxel=voxel) as write:
        for page in stack:
            write(page)
    assert_array_equal(open_stack(tmp_path / "a.tif", list(stack.shape)), stack)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert (tiff.is_ome, tiff.series[0].axes, voxel_of_tiff(tiff)) == (True, "TYXS", voxel)


def test_pages_are_written_as_they_come(tmp_path):
    stack = image_of((4, 8, 8))
    with stack_writer(tmp_path / "a.tif", stack.shape, stack.dtype) as write:
        for page in stack:
            write(page)
            assert names(tmp_path) != ["a.tif"]  # not in its place before it is whole
    assert_array_equal(read_stack(tmp_path / "a.tif"), stack)


@pytest.mark.parametrize("fault", ["fails", "too few", "too many", "other shape"])
def test_a_stack_that_fails_midway_leaves_the_old_one(tmp_path, fault):
    old, new = image_of((4, 8, 8)), image_of((4, 8, 8), seed=1)
    write_stack(tmp_path / "a.tif", old)
    with pytest.raises((RuntimeError, ValueError)), stack_writer(tmp_path / "a.tif", new.shape, new.dtype) as write:
        for page in new[:2] if fault == "too few" else np.concatenate([new, new]):
            write(page[1:] if fault == "other shape" else page)
            if fault == "fails":
                raise RuntimeError
    assert_array_equal(read_stack(tmp_path / "a.tif"), old)
    assert names(tmp_path) == ["a.tif"]


def test_a_page_becomes_a_stack_of_one_and_colours_are_kept_apart(tmp_path):
    tifffile.imwrite(tmp_path / "grey.tif", image_of((6, 7)))
    tifffile.imwrite(tmp_path / "colour.tif", image_of((6, 7, 3)), photometric="rgb")
    assert read_stack(tmp_path / "grey.tif").shape == (1, 6, 7)
    assert read_stack(tmp_path / "colour.tif").shape == (1, 6, 7, 3)


def test_pages_appended_one_by_one_are_one_stack(tmp_path):
    stack = image_of((4, 9, 7))
    for page in stack:
        tifffile.imwrite(tmp_path / "a.tif", page, append=True)
    assert_array_equal(read_stack(tmp_path / "a.tif"), stack)
    tifffile.imwrite(tmp_path / "a.tif", stack[0, 1:], append=True)
    with pytest.raises(UserError, match="images of different sizes, expected one stack"):
        read_stack(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{"imagej": True}, {}, {"compression": "zlib"}, {"metadata": None}],
                         ids=["imagej", "plain", "compressed", "pages"])
def test_a_stack_cut_short_anywhere_is_never_taken_for_a_smaller_one(tmp_path, options, capfd):
    """tifffile itself reads the slices that are left and only logs that pages are missing."""
    stack = image_of((6, 32, 32))
    with tifffile.TiffWriter(tmp_path / "a.tif", imagej=options.get("imagej", False)) as writer:
        for page in stack if "metadata" in options else [stack]:
            writer.write(page, contiguous=False, **{key: value for key, value in options.items() if key != "imagej"})
    whole = (tmp_path / "a.tif").read_bytes()
    refused = 0
    for length in range(1, len(whole), 97):
        (tmp_path / "a.tif").write_bytes(whole[:length])
        try:
            assert_array_equal(read_stack(tmp_path / "a.tif"), stack)  # only what lies behind the pixels was cut off
        except UserError as error:
            refused += 1
            assert "a.tif cannot be read as a TIFF stack" in str(error) and "\n" not in str(error)
    assert refused > 40
    assert capfd.readouterr().err == ""


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.integers(0, 700), st.integers(0, 255), min_size=1, max_size=4))
def test_damaged_files_are_refused_in_one_line_or_read(tmp_path_factory, damage):
    path = tmp_path_factory.getbasetemp() / "damaged.tif"
    tifffile.imwrite(path, image_of((3, 16, 16)), compression="zlib")
    content = bytearray(path.read_bytes())
    for place, value in damage.items():
        content[place] = value
    path.write_bytes(content)
    try:
        assert read_stack(path).ndim in (3, 4)
    except UserError as error:
        assert "damaged.tif" in str(error) and "\n" not in str(error)


def test_missing_and_empty_files_say_the_way_out(tmp_path):
    with pytest.raises(UserError, match=r"a\.tif not found; run it again$"):
        read_stack(tmp_path / "a.tif", "run it again")
    (tmp_path / "a.tif").touch()
    with pytest.raises(UserError, match=r"a\.tif is empty \(0 bytes\); copy it again"):
        read_stack(tmp_path / "a.tif")


def test_five_dimensions_are_no_stack(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", image_of((2, 3, 4, 5)), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(UserError, match=r"4 dimensions \(TZYX, \(2, 3, 4, 5\)\), expected one stack"):
        read_stack(tmp_path / "a.tif")


@pytest.mark.parametrize("axes", ["CYX", "ZCYX"])
def test_channels_that_are_planes_are_refused_and_many_of_them_are_slices(tmp_path, axes):
    shape = (3, 8, 9) if axes == "CYX" else (5, 3, 8, 9)
    tifffile.imwrite(tmp_path / "a.tif", image_of(shape), imagej=True, metadata={"axes": axes})
    with pytest.raises(UserError, match="has 3 channels"):
        read_stack(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", image_of((6, 8, 9)), imagej=True, metadata={"axes": "CYX"})
    assert read_stack(tmp_path / "a.tif").shape == (6, 8, 9)


# ------------------------------------------------------------------------------------------------ lists of slices


@pytest.mark.parametrize(("text", "chosen"), [("25-29", [25, 26, 27, 28, 29]), ("7, 3,3", [3, 7]), ("0", [0]),
                                              ("none", []), (" NONE ", []), ("28 - 29,1-2,2", [1, 2, 28, 29])])
def test_slices_are_parsed(text, chosen):
    assert parse_slices(text, 30) == chosen


@pytest.mark.parametrize(("text", "reason"), [
    ("", "no list"), ("a", "no list"), ("1-2-3", "no list"), ("-3", "no list"), ("1,,2", "no list"), ("1.5", "no list"),
    ("30", "has 30, numbered 0 to 29"), ("28-31", "has 30"), ("0-999999999999", "has 30"), ("5-3", "backwards"),
    ("1,5-3", "backwards")])
def test_texts_that_are_no_slices_are_refused(text, reason):
    with pytest.raises(UserError, match=reason):
        parse_slices(text, 30)


def test_slices_are_listed_by_their_runs():
    assert format_slices([0, 1, 2, 7, 9, 10]) == "0-2, 7, 9-10"
    assert format_slices([]) == "none"


# ------------------------------------------------------------------------ what was written here, what is padding


@pytest.mark.parametrize("stack", [np.zeros((3, 8, 9), np.uint16), np.ones((1, 8, 9), np.float32),
                                   np.zeros((2, 8, 9, 3), np.uint8)], ids=["stack", "page", "colours"])
def test_what_was_written_here_may_be_replaced(tmp_path, stack):
    write_stack(tmp_path / "a.tif", stack)
    assert is_ours(tmp_path / "a.tif")
    require_ours(tmp_path / "a.tif")


def test_what_another_program_saved_may_not(tmp_path):
    path = tmp_path / "cells.tif"
    write_stack(path, np.zeros((3, 8, 9), np.uint16))
    tifffile.imwrite(path, tifffile.imread(path), imagej=True)  # corrected by hand and saved, as napari does
    assert not is_ours(path)
    with pytest.raises(UserError, match=r"cells\.tif is there already, and was not written .* move it away, or name"):
        require_ours(path)


def test_what_is_no_tiff_is_not_ours_and_what_is_not_there_is_in_nobodys_way(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"")
    (tmp_path / "b.tif").write_bytes(b"II*\0 and so on")
    write_png(tmp_path / "c.png", np.zeros((4, 4), np.uint8))
    assert not any(is_ours(tmp_path / name) for name in ("a.tif", "b.tif", "c.png", "nowhere.tif"))
    require_ours(tmp_path / "nowhere.tif")
    with pytest.raises(UserError, match="is there already"):
        require_ours(tmp_path)


def test_padding_touches_the_border_and_is_large():
    image = np.full((20, 20), 100, np.uint8)
    image[:, :5] = 0  # 25 %: filled up
    image[10:13, 10:13] = 0  # as black, but in the middle: tissue
    image[0, 19] = 255  # one bright pixel at the border
    expected = np.zeros((20, 20), bool)
    expected[:, :5] = True
    assert_array_equal(padding(image), expected)
    assert_array_equal(padding(255 - image), expected)  # filled up with white
    assert not padding(np.zeros((9, 9), np.uint8)).any()  # of one value: nothing to tell it from
