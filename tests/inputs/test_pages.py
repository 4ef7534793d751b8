"""Whatever the format, pages are read one at a time and are the pixels that were written, or one line says why not."""

import os
import pickle

import imagecodecs
import numpy as np
import pytest
import tifffile
from conftest import write_png
from numpy.testing import assert_array_equal
from PIL import Image

from unet.inputs import lazy
from unet.inputs.folders import image_files
from unet.inputs.lazy import ConvertedPages, Gray, mean_and_sd, tally
from unet.inputs.pages import open_pages, read_pixels
from unet.inputs.stacks import stack_writer
from unet.inputs.voxel import Voxel, voxel_of_tiff
from utils import UserError

STACK = np.random.default_rng(0).integers(0, 256, (5, 40, 33)).astype(np.uint8)


@pytest.mark.parametrize("options", [
    {"imagej": True}, {}, {"compression": "zlib"}, {"compression": "lzw", "predictor": True}, {"rowsperstrip": 7},
    {"tile": (16, 16)}, {"tile": (16, 16), "compression": "zstd"}, {"bigtiff": True}, {"byteorder": ">"}, {"ome": True},
    {"metadata": None}], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_tiffs_are_read_page_by_page(tmp_path, options, dtype):
    if options.get("imagej") and dtype == np.int16:
        return  # ImageJ has no such pixels
    stack = STACK.astype(dtype) * dtype(100)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", **options)
    pages = pickle.loads(pickle.dumps(open_pages(tmp_path / "a.tif")))
    assert (pages.shape, pages.dtype, len(pages)) == (stack.shape, dtype, 5)
    for number in (3, 0, -1):
        assert pages[number].dtype == dtype
        assert_array_equal(pages[number], stack[number])
    with pytest.raises(IndexError):
        pages[5]


@pytest.mark.parametrize("options", [
    {"compression": "zlib"}, {"compression": "zlib", "predictor": True}, {"compression": "lzw", "bigtiff": True},
    {"compression": "zstd", "tile": (16, 16)}, {"compression": "lzw", "predictor": True, "tile": (32, 16)},
    {"tile": (16, 16), "byteorder": ">"}, {"compression": "packbits", "byteorder": ">"}, {"compression": "deflate",
                                                                                         "ome": True}], ids=str)
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint16, 1), (np.float32, 1), (np.uint8, 3)])
def test_rows_of_compressed_strips_and_tiles_are_those_of_the_whole_page(tmp_path, monkeypatch, rng, options, dtype,
                                                                         channels):
    stack = (rng.random((5, 70, 45, 3)) * 200).astype(dtype)
    stack = stack if channels == 3 else stack[..., 0]
    strips = {} if "tile" in options else {"rowsperstrip": 9}
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb" if channels == 3 else "minisblack", **options,
                     **strips)
    monkeypatch.setattr(lazy, "LARGE_PAGE", 100)
    pages = pickle.loads(pickle.dumps(open_pages(tmp_path / "a.tif")))
    for number in (2, 0):
        page = pages[number]
        assert isinstance(page, lazy.PageRows) and page.dtype == dtype
        assert_array_equal(np.asarray(page), stack[number])
        for first, last in rng.integers(0, 71, (20, 2)):
            assert_array_equal(page[first:last], stack[number, first:last])
        assert_array_equal(page[3:66:5, 7:40], stack[number, 3:66:5, 7:40])


@pytest.mark.parametrize("options", [
    {"rowsperstrip": 9}, {"rowsperstrip": 9, "compression": "zlib", "predictor": True}, {"tile": (16, 16)}, {},
    {"tile": (32, 16), "compression": "lzw", "byteorder": ">"}, {"metadata": None, "byteorder": ">"}], ids=str)
@pytest.mark.parametrize("mapped", [100, lazy.LARGE_PAGE])
@pytest.mark.parametrize("count", [1, 3])
def test_colours_that_lie_one_after_the_other_are_those_of_pixels(tmp_path, monkeypatch, rng, options, mapped, count):
    stack = rng.integers(0, 2**16, (count, 3, 70, 45), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb", planarconfig="separate", **options)
    monkeypatch.setattr(lazy, "LARGE_PAGE", mapped)
    pages = pickle.loads(pickle.dumps(open_pages(tmp_path / "a.tif")))
    assert (pages.shape, pages.dtype) == ((count, 70, 45, 3), np.uint16)
    assert_array_equal(np.asarray(pages), np.moveaxis(stack, 1, -1))
    assert isinstance(pages[0], lazy.PageRows) == (mapped == 100)
    assert_array_equal(pages[count - 1][13:50, 7:40], stack[-1, :, 13:50, 7:40].transpose(1, 2, 0))
    with pytest.raises(UserError, match=r"has 3 channels, expected grey slices of one"):
        Gray(pages)


def test_a_jpeg_in_a_tiff_is_read_by_rows(tmp_path, monkeypatch):
    image = np.add.outer(np.arange(96), np.arange(80)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, compression="jpeg", tile=(32, 32), photometric="minisblack")
    whole = open_pages(tmp_path / "a.tif")[0]
    monkeypatch.setattr(lazy, "LARGE_PAGE", 100)
    rows = open_pages(tmp_path / "a.tif")[0]
    assert isinstance(rows, lazy.PageRows)
    assert_array_equal(rows[40:90], whole[40:90])


def test_only_strips_that_are_asked_for_are_decoded_and_each_once(tmp_path, monkeypatch):
    """So that rows of a page take no more memory than they and two strips do."""
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], compression="zlib", rowsperstrip=8, photometric="minisblack")
    monkeypatch.setattr(lazy, "LARGE_PAGE", 100)
    page, decoded = open_pages(tmp_path / "a.tif")[0], []
    decode = tifffile.TiffPage.decode.func
    monkeypatch.setattr(tifffile.TiffPage, "decode", property(
        lambda self: lambda data, index, **more: decoded.append(index) or decode(self)(data, index, **more)))
    page[9:23], page[20:30], page[39:]
    assert decoded == [1, 2, 3, 4]
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], compression="zlib", rowsperstrip=40, photometric="minisblack")
    assert isinstance(open_pages(tmp_path / "a.tif")[0], np.ndarray)  # a single strip: it is decoded once, whole


@pytest.mark.parametrize("fault", ["bytes", "end"])
def test_a_damaged_strip_is_one_line_when_its_rows_are_read(tmp_path, monkeypatch, rng, fault):
    image = rng.integers(0, 256, (400, 330), np.uint8)  # more than what is read ahead
    tifffile.imwrite(tmp_path / "a.tif", image, compression="zlib", rowsperstrip=8, photometric="minisblack")
    monkeypatch.setattr(lazy, "LARGE_PAGE", 100)
    page = open_pages(tmp_path / "a.tif")[0]
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        start = tiff.pages[0].dataoffsets[30]
    with open(tmp_path / "a.tif", "r+b") as file:
        if fault == "end":
            file.truncate(start + 9)
        else:
            file.seek(start)
            file.write(bytes(20))
    assert_array_equal(page[:240], image[:240])
    with pytest.raises(UserError, match=r"a\.tif cannot be read as a TIFF stack at slice 0") as caught:
        page[230:250]
    assert len(str(caught.value).splitlines()) == 1


def test_what_workers_get_is_a_name_and_not_pixels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 400, 300), np.uint8), imagej=True)
    assert len(pickle.dumps(open_pages(tmp_path / "a.tif"))) < 3000


@pytest.mark.parametrize("name", ["a.tif", "big.tif", "a.npy", "big.npy"])
@pytest.mark.parametrize("large", [False, True])
def test_a_file_that_is_cut_short_while_it_is_read_is_refused(tmp_path, monkeypatch, name, large):
    """A map of it would end the process."""
    monkeypatch.setattr(lazy, "LARGE_PAGE", 1000 if large else 10**9)
    stack = STACK.astype(">u2" if "big" in name else "<u2") * 100
    if name.endswith(".npy"):
        np.save(tmp_path / name, stack)
    else:
        tifffile.imwrite(tmp_path / name, stack, photometric="minisblack", byteorder=stack.dtype.byteorder)
    pages = Gray(open_pages(tmp_path / name))
    page = pages[3]
    assert isinstance(page, lazy.PageRows if large else np.ndarray) and not isinstance(page, np.memmap)
    assert page.dtype == np.uint16
    assert_array_equal(np.asarray(page), STACK[3].astype(np.uint16) * 100)
    if large:
        assert_array_equal(page[::7, 3:9], STACK[3, ::7, 3:9].astype(np.uint16) * 100)
    with open(tmp_path / name, "r+b") as file:
        file.truncate(STACK.nbytes)  # half of it
    assert_array_equal(np.asarray(pages[1]), STACK[1].astype(np.uint16) * 100)
    with pytest.raises(UserError, match=rf"{name} was cut short while it was being read"):
        np.asarray(pages[3])


def test_arrays_are_read_page_by_page_whatever_their_order(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(STACK))
    assert_array_equal(np.asarray(open_pages(tmp_path / "a.npy")), STACK)
    np.save(tmp_path / "a.npy", STACK)
    pages = open_pages(tmp_path / "a.npy")
    assert_array_equal(np.asarray(pages), STACK)
    np.save(tmp_path / "a.npy", STACK[0])
    assert_array_equal(np.asarray(open_pages(tmp_path / "a.npy")), STACK[:1])
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read as a NumPy array"):
        open_pages(tmp_path / "a.npy")


def test_a_folder_or_a_pattern_is_a_stack_in_the_order_of_its_numbers(tmp_path):
    for number, page in zip((2, 10, 1), STACK, strict=False):
        write_png(tmp_path / "in" / f"s{number}.png", page)
    for path in (tmp_path / "in", tmp_path / "in" / "s*.png"):
        pages = open_pages(path)
        assert pages.names == ["s1", "s2", "s10"]
        assert_array_equal(np.asarray(pages), STACK[[2, 0, 1]])
    write_png(tmp_path / "in" / "s11.png", STACK[0, 1:])
    with pytest.raises(UserError, match=r"s11\.png is 39x33 pixels but s1\.png is 40x33"):
        open_pages(tmp_path / "in")
    with pytest.raises(UserError, match="has no PNG, JPEG or TIFF image"):
        open_pages(tmp_path / "in" / "*.gif")
    write_png(tmp_path / "two" / "images" / "a.png", STACK[0])
    with pytest.raises(UserError, match=r"two has no .*; name a folder of images, or one file, for instance .*images$"):
        open_pages(tmp_path / "two")


def test_gray_pages_have_a_depth_that_networks_take(tmp_path):
    for given, kept in ((bool, np.uint8), (np.int16, np.float32), (np.float64, np.float32), (np.uint16, np.uint16)):
        np.save(tmp_path / "a.npy", (STACK > 9).astype(given))
        pages = Gray(open_pages(tmp_path / "a.npy"))
        assert pages.dtype == pages[0].dtype == kept
        assert_array_equal(pages[2] > 0, STACK[2] > 9)
    np.save(tmp_path / "a.npy", np.where(np.arange(5)[:, None, None] == 4, np.inf, STACK))
    pages = Gray(open_pages(tmp_path / "a.npy"))
    assert_array_equal(pages[3], STACK[3])
    with pytest.raises(UserError, match=r"a\.npy has pixels that are not numbers .* in slice 4"):
        pages[4]


def test_a_page_that_does_not_unpack_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        start = tiff.pages[3].dataoffsets[0]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[start:start + 20] = bytes(20)
    (tmp_path / "a.tif").write_bytes(content)
    pages = open_pages(tmp_path / "a.tif")
    assert_array_equal(pages[2], STACK[2])
    with pytest.raises(UserError, match=r"a\.tif cannot be read as a TIFF stack at slice 3"):
        pages[3]


@pytest.mark.parametrize(("options", "size"), [
    ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "um", "spacing": 3}}, Voxel(0.5, 0.25, 3.0)),
    ({"imagej": True, "resolution": (72, 72), "metadata": {"unit": "inch"}}, None),
    ({"resolution": (20000, 10000), "resolutionunit": "CENTIMETER"}, Voxel(1.0, 0.5)),
    ({"resolution": (72, 72), "resolutionunit": "INCH"}, None), ({}, None),
    ({"ome": True, "metadata": {"PhysicalSizeX": 5, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 6,
                                "PhysicalSizeYUnit": "nm"}}, Voxel(0.006, 0.005))], ids=str)
def test_the_size_of_a_pixel_is_known_in_micrometres(tmp_path, options, size):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", **options)
    voxel = open_pages(tmp_path / "a.tif").voxel
    assert (voxel is None) == (size is None)
    if size:
        assert list(voxel.as_json().values()) == pytest.approx(list(size.as_json().values()))


@pytest.mark.parametrize(("dtype", "channels"), [(np.float32, False), (np.uint16, False), (np.uint32, False),
                                                 (np.float32, True)])
def test_what_is_written_keeps_the_size(tmp_path, dtype, channels):
    shape = (3, 2, 8, 9) if channels else (3, 8, 9)
    with stack_writer(tmp_path / "a.tif", shape, dtype, channels, Voxel(0.004, 0.005, 0.05)) as write:
        for _ in range(3):
            write(np.zeros(shape[1:], dtype))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        voxel = voxel_of_tiff(tiff)
        assert (tiff.series[0].axes, tiff.is_ome) == ("ZCYX" if channels else "ZYX", dtype == np.uint32)
    assert (voxel.y, voxel.x) == pytest.approx((0.004, 0.005), rel=1e-4)
    assert voxel.z == pytest.approx(0.05)
    assert Voxel(0.008, 0.008).times(Voxel(0.004, 0.016)) == pytest.approx(1)
    assert Voxel(0.008, 0.008).times(Voxel(0.004, 0.004)) == pytest.approx(2)


def test_counts_and_moments_over_pages_are_those_of_the_whole(rng):
    stack = rng.integers(0, 9, (5, 7, 11), np.uint16)
    for part in (stack, stack[:1], stack / 4):
        pages = ConvertedPages(list(part), lambda page: page + 1, part.dtype)
        assert pages.shape == part.shape
        for array, expected in zip(tally(pages), np.unique(part + 1, return_counts=True), strict=True):
            assert_array_equal(array, expected)
        assert mean_and_sd(pages) == pytest.approx(((part + 1).mean(), part.std()))
    assert len(tally(ConvertedPages(list(stack), lambda page: page, np.uint16), 2)[0]) > 2


def test_a_jpeg_that_is_cut_short_is_refused_wherever(tmp_path, rng):
    content = imagecodecs.jpeg_encode(rng.integers(0, 256, (64, 64), np.uint8))
    for length in range(1, len(content), 97):
        (tmp_path / "a.jpg").write_bytes(content[:length])
        with pytest.raises(UserError, match="cut short"):
            read_pixels(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(content + b"more after the end")
    assert read_pixels(tmp_path / "a.jpg").shape == (64, 64, 1)


def test_a_jpeg_in_four_inks_is_no_picture_with_transparency(tmp_path):
    Image.new("CMYK", (20, 10), (255, 255, 255, 100)).save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"has four channels \(CMYK\), expected a grey or RGB image"):
        read_pixels(tmp_path / "a.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_folders_with_names_of_images_are_left_alone(tmp_path, rng):
    write_png(tmp_path / "a.png", rng.integers(0, 256, (9, 9), np.uint8))
    os.mkfifo(tmp_path / "b.png")  # to open it would take for ever
    (tmp_path / "c.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.png"]
