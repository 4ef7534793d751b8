"""Damaged files are read, or refused in one line: no traceback, no hang, whatever happened to their bytes."""

import io
import time

import imagecodecs
import numpy as np
import pytest
import tifffile
from conftest import draw_slices, draw_stacks, write_two_folders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unet.inputs.layouts import layout_of
from unet.inputs.pages import open_pages
from unet.tasks.cells import Cells
from unet.tasks.of_images import CellImages
from utils import UserError

PATIENCE = 10.0  # seconds of a processor for one file
IMAGE = draw_stacks(3, 48)[0]


def tiff(stack=IMAGE, **options):
    """Bytes of a TIFF."""
    file = io.BytesIO()
    tifffile.imwrite(file, stack, **{"photometric": "minisblack", **options})
    return file.getvalue()


TIFFS = {
    "plain": tiff(), "one page": tiff(IMAGE[0]), "BigTIFF": tiff(bigtiff=True), "16 bit": tiff(IMAGE.astype(">u2")),
    "float": tiff(IMAGE.astype(np.float32)), "bool": tiff(IMAGE > 99), "tiles": tiff(tile=(16, 16)),
    "strips": tiff(rowsperstrip=5), "LZW": tiff(compression="lzw", predictor=True), "deflate": tiff(compression="zlib"),
    "zstd tiles": tiff(compression="zstd", tile=(32, 32)), "JPEG": tiff(compression="jpeg", rowsperstrip=16),
    "ImageJ": tiff(imagej=True, metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"}, resolution=(4.0, 4.0)),
    "OME": tiff(ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}),
    "colours": tiff(np.stack([IMAGE] * 4, axis=-1), photometric="rgb", extrasamples=["unassalpha"]),
    "planes": tiff(np.stack([IMAGE] * 3, axis=1), photometric="rgb", planarconfig="separate", rowsperstrip=16,
                   compression="zlib")}
COLOURED = np.stack([IMAGE[0]] * 4, axis=-1)
IMAGES = {
    "grey.png": imagecodecs.png_encode(IMAGE[0]), "16 bit.png": imagecodecs.png_encode(IMAGE[0].astype(np.uint16) * 99),
    "colours.png": imagecodecs.png_encode(COLOURED[..., :3].copy()), "RGBA.png": imagecodecs.png_encode(COLOURED),
    "grey.tif": TIFFS["one page"], "zstd.tif": tiff(IMAGE[0], compression="zstd"),
    "colours.tif": tiff(COLOURED, photometric="rgb", extrasamples=["unassalpha"]),
    "planes.tif": tiff(np.stack([IMAGE[0]] * 3), photometric="rgb", planarconfig="separate")}

DRAWN = {"grey.png": IMAGES["grey.png"], "label.png": imagecodecs.png_encode(draw_stacks(1, 48)[1][0]),
         "label.tif": tiff(draw_stacks(1, 48)[1][0])}
ARRAY = io.BytesIO()
np.save(ARRAY, IMAGE)
FILES = {"a.npy": ARRAY.getvalue(), "a.jpg": imagecodecs.jpeg_encode(IMAGE[0]), "a.png": IMAGES["grey.png"],
         "b.png": IMAGES["16 bit.png"]}
EDITS = st.tuples(
    st.sampled_from(["flip", "cut", "insert", "remove", "0", "-1", "2**31 - 1", "1", "-2**31"]),
    st.one_of(st.floats(0, 1), st.integers(0, 400)),  # a share of the file, or a byte of its head
    st.integers(1, 50))
NUMBERS = {"0": b"\0\0\0\0", "-1": b"\xff\xff\xff\xff", "2**31 - 1": b"\xff\xff\xff\x7f", "1": b"\1\0\0\0",
           "-2**31": b"\0\0\0\x80"}


def damaged(files):
    """Which of the files, and what happens to its bytes, up to four times."""
    return st.tuples(st.sampled_from(sorted(files)), st.lists(EDITS, min_size=1, max_size=4))


def damage(content, edits):
    """The bytes of a file after all that."""
    content = bytearray(content)
    for what, where, size in edits:
        place = int(where * (len(content) - 1)) if isinstance(where, float) else min(where, len(content) - 1)
        if what == "flip" and content:
            content[place] ^= 1 << size % 8
        elif what == "cut":
            del content[place:]
        elif what == "insert":
            content[place:place] = bytes(range(size))
        elif what == "remove":
            del content[place:place + size]
        elif what in NUMBERS:
            content[place:place + 4] = NUMBERS[what]
    return bytes(content)


def read_all(open_samples):
    """Read all samples; whether they were read, or refused in one line. Fails where that takes too long."""
    began = time.process_time()
    try:
        samples = list(open_samples())
        read = True
    except UserError as error:
        samples, read = [], False
        assert "\n" not in str(error) and len(str(error)) < 600, error
    assert time.process_time() - began < PATIENCE
    for sample in samples:
        assert sample.image.size > 0 and np.isfinite(sample.image).all()
    return read


fuzzed = settings(max_examples=1000, deadline=None, database=None, derandomize=True,
                  suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.mark.slow
@fuzzed
@given(damaged(TIFFS))
def test_a_damaged_stack(tmp_path, file):
    path = tmp_path / "in.tif"
    path.write_bytes(damage(TIFFS[file[0]], file[1]))
    read_all(lambda: Cells().inputs(path))


@pytest.mark.slow
@fuzzed
@given(damaged(FILES))
def test_a_damaged_array_or_picture(tmp_path, file):
    path = tmp_path / file[0]
    path.write_bytes(damage(FILES[file[0]], file[1]))
    read_all(lambda: Cells().inputs(path))


def test_stacks_images_and_labels_are_read_where_nothing_happened_to_them(tmp_path):
    pairs = write_two_folders(tmp_path / "pairs", draw_slices([(48, 48), (48, 48)]))
    readers = [(TIFFS, tmp_path, lambda path: Cells().inputs(path)),
               (DRAWN, pairs / "labels", lambda _: layout_of(pairs)),
               (IMAGES, tmp_path / "images", lambda path: CellImages(window_side=32).inputs(path.parent))]
    (tmp_path / "images").mkdir()
    for files, folder, read in readers:
        for name, content in files.items():
            for old in folder.glob("cell0.*"):
                old.unlink()
            path = folder / f"cell0{name[-4:] if '.' in name else '.tif'}"
            path.write_bytes(content)
            taken = read_all(lambda read=read, path=path: read(path))
            assert taken == (name not in ("colours", "planes")), name  # they make no stack


@pytest.mark.parametrize("name", sorted(FILES))
def test_arrays_and_pictures_are_read_where_nothing_happened_to_them(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    pages = open_pages(tmp_path / name)
    assert pages.shape == (3 if name == "a.npy" else 1, 48, 48)
    pixels = np.asarray(pages, int) // (99 if name == "b.png" else 1)
    assert np.abs(pixels - IMAGE[:len(pages)]).mean() <= (8 if name == "a.jpg" else 0)  # a JPEG is not to the bit


@pytest.mark.slow
@fuzzed
@given(damaged(IMAGES), st.sampled_from([None, ".png", ".tif"]))
def test_a_damaged_image_in_a_folder_even_one_called_what_it_is_not(tmp_path, file, suffix):
    name, edits = file
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / f"a{suffix or name[name.rindex('.'):]}").write_bytes(damage(IMAGES[name], edits))
    read_all(lambda: CellImages(window_side=32).inputs(tmp_path))


@pytest.mark.slow
@fuzzed
@given(damaged(DRAWN))
def test_a_damaged_label(tmp_path, file):
    folder = tmp_path / "pairs"
    if not folder.exists():
        write_two_folders(folder, draw_slices([(48, 48), (48, 48)]))
    for old in folder.glob("labels/cell0.*"):
        old.unlink()
    (folder / "labels" / f"cell0{file[0][-4:]}").write_bytes(damage(DRAWN[file[0]], file[1]))
    read_all(lambda: layout_of(folder))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "LZW", "ImageJ"])
def test_cut_and_flipped_at_every_hundredth_byte(tmp_path, name):
    content, path = TIFFS[name], tmp_path / "in.tif"
    for place in range(0, len(content), 100):
        for bytes_left in (content[:place], content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1:]):
            path.write_bytes(bytes_left)
            read = read_all(lambda: Cells().inputs(path))
            assert not (read and len(bytes_left) < 100)


@pytest.mark.parametrize("stack", [
    np.zeros((0, 5, 5), np.uint8), np.full((2, 5, 5), np.nan, np.float32), np.full((5, 5), -np.inf, np.float32),
    np.zeros((2, 5, 5), np.complex64)], ids=["no slices", "NaN", "infinite", "complex"])
def test_pixels_that_are_none(tmp_path, stack):
    if stack.size:
        tifffile.imwrite(tmp_path / "in.tif", stack, photometric="minisblack")
    else:
        (tmp_path / "in.tif").write_bytes(b"II*\0\0\0\0\0")
    assert not read_all(lambda: Cells().inputs(tmp_path / "in.tif"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (3, 1, 1)])
def test_absurd_but_readable_shapes(tmp_path, shape):
    tifffile.imwrite(tmp_path / "in.tif", np.zeros(shape, np.uint8), photometric="minisblack")
    assert read_all(lambda: Cells().inputs(tmp_path / "in.tif"))
