"""Folders of images with masks: every fringe case of the real data set handled or refused by name."""

from collections import Counter

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, write_nuclei, write_png
from PIL import Image

from unet.inputs.folders import find_images, in_8_bit, instance_map, is_image_folder, modality_of, read_image
from unet.inputs.layouts import Folders
from utils import UserError, input_hash


def read_all(folder):
    """All samples with masks, and what was noticed while reading them."""
    layout = Folders(folder)
    return list(layout), layout.notes


def test_the_layout_is_recognised(nuclei_folder, tmp_path):
    assert is_image_folder(nuclei_folder)
    assert not is_image_folder(tmp_path)
    assert not is_image_folder(tmp_path / "nowhere")


def test_a_folder_is_read_as_it_was_written(nuclei_folder):
    samples, _ = read_all(nuclei_folder)
    image, labels = draw_nuclei((80, 70), seed=1)
    assert np.array_equal(samples[3].image, image)
    assert np.array_equal(samples[3].label > 0, labels > 0)
    pairs = set(zip(samples[3].label.ravel().tolist(), labels.ravel().tolist(), strict=True))
    assert len(pairs) == labels.max() + 1  # one number here for one number there


def one_image(folder, pixels, name="a"):
    """Write `pixels` (H, W[, C]) with a mask in its upper left corner, read it back."""
    labels = np.zeros(pixels.shape[:2], np.uint16)
    labels[:3, :3] = 1
    write_nuclei(folder, name, pixels, labels)
    samples, notes = read_all(folder)
    return samples[0].image, notes


def test_gray_rgb_and_rgba_become_three_channels(tmp_path, rng):
    colour = rng.integers(0, 256, (9, 8, 3), np.uint8)
    alpha = np.dstack([colour, rng.integers(0, 256, (9, 8), np.uint8)])
    assert np.array_equal(one_image(tmp_path / "rgb", colour)[0], colour)
    assert np.array_equal(one_image(tmp_path / "rgba", alpha)[0], colour)  # transparency says nothing of nuclei
    assert np.array_equal(one_image(tmp_path / "gray", colour[..., 0])[0], np.dstack([colour[..., 0]] * 3))
    assert np.array_equal(one_image(tmp_path / "ga", alpha[..., 2:])[0], np.dstack([colour[..., 2]] * 3))


def test_palette_and_one_bit_pngs_become_colours(tmp_path, rng):
    picture = Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).quantize(8)
    picture.save(tmp_path / "palette.png")
    assert np.array_equal(read_image(tmp_path / "palette.png"), np.asarray(picture.convert("RGB")))
    Image.fromarray(np.eye(9, dtype=bool)).save(tmp_path / "bits.png")
    assert np.array_equal(read_image(tmp_path / "bits.png")[..., 1], np.eye(9, dtype=np.uint8) * 255)


@pytest.mark.parametrize(("stored", "kept"), [
    ("uint8", "uint8"), ("uint16", "uint16"), ("int16", "float32"), ("float32", "float32"), ("float64", "float32"),
    ("bool", "uint8")])
def test_an_image_keeps_its_own_depth(tmp_path, stored, kept):
    pixels = (np.linspace(-100, 300, 100) if stored[0] in "if" else np.linspace(0, 2, 100)).astype(stored)
    tifffile.imwrite(tmp_path / "a.tif", pixels.reshape(10, 10))
    image = read_image(tmp_path / "a.tif")
    assert (image.shape, image.dtype) == ((10, 10, 3), kept)
    assert np.array_equal(image[..., 1].ravel(), pixels.astype(kept) * (255 if stored == "bool" else 1))


def test_to_look_at_an_image_of_more_bits_is_reduced():
    pixels = np.linspace(1000, 3000, 10_000).astype(np.uint16).reshape(100, 100)
    shown = in_8_bit(pixels)
    assert (shown.min(), shown.max(), shown.dtype) == (0, 255, np.uint8)
    assert shown[50, 50] in (128, 129)
    assert in_8_bit(shown) is shown


def test_a_tiff_is_an_image_too_and_a_stack_is_none(tmp_path, rng):
    pixels = rng.integers(0, 256, (9, 8), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., 2], pixels)
    tifffile.imwrite(tmp_path / "b.tif", np.stack([pixels] * 3), photometric="minisblack")
    with pytest.raises(UserError, match=r"b\.tif has 3 pages, expected one image"):
        read_image(tmp_path / "b.tif")


def test_masks_in_colour_with_transparency_or_faint_are_masks(tmp_path):
    folder = tmp_path / "a"
    write_png(folder / "a" / "images" / "a.png", np.zeros((6, 6), np.uint8))
    mask = np.zeros((6, 6, 4), np.uint8)
    mask[..., 3] = 255
    mask[1:3, 1:3, 0] = 255
    write_png(folder / "a" / "masks" / "1.png", mask)
    faint = np.zeros((6, 6), np.uint16)
    faint[4, 4:] = 1  # 0 and 1, of 65535
    write_png(folder / "a" / "masks" / "2.png", faint)
    labels = read_all(folder)[0][0].label
    assert np.bincount(labels.ravel()).tolist() == [30, 4, 2]


def test_overlapping_pixels_go_to_the_smaller_nucleus_and_are_counted(tmp_path):
    small, large, hidden = (np.zeros((8, 8), np.uint8) for _ in range(3))
    large[:6, :6], small[4:7, 4:7], hidden[5:, 5:] = 255, 255, 255
    folder = tmp_path / "a"
    write_png(folder / "a" / "images" / "a.png", np.zeros((8, 8), np.uint8))
    write_png(folder / "a" / "masks" / "1.png", small)
    write_png(folder / "a" / "masks" / "2.png", large)
    samples, notes = read_all(folder)
    assert np.bincount(samples[0].label.ravel()).tolist() == [64 - 36 - 5, 32, 9]  # 1 is the larger one
    assert (samples[0].label[4:7, 4:7] == 2).all()
    assert notes == ["masks overlap in 1 image (a): 4 pixels went to the smaller object"]
    # the same mask twice: of one nothing is left, and no number is missing
    write_png(folder / "a" / "masks" / "3.png", small)
    samples, notes = read_all(folder)
    assert set(np.unique(samples[0].label)) == {0, 1, 2}
    assert "a has an object that others cover completely: left out" in notes


def test_instance_maps_by_hand():
    labels, overlapping, hidden = instance_map([np.array([0, 1]), np.array([1, 2, 3]), np.array([1])], (1, 5))
    assert labels.tolist() == [[2, 3, 1, 1, 0]]
    assert (overlapping, hidden) == (1, 0)
    assert instance_map([], (2, 2))[0].tolist() == [[0, 0], [0, 0]]


def test_an_empty_mask_is_left_out_and_said(nuclei_folder):
    path = nuclei_folder / "fluo0" / "masks" / "zero.png"
    before = read_all(nuclei_folder)[0][2].label
    write_png(path, np.zeros((64, 64), np.uint8))
    samples, notes = read_all(nuclei_folder)
    assert np.array_equal(samples[2].label, before)
    assert f"{path} is an empty mask: left out" in notes


def test_what_does_not_belong_together_is_refused_by_name(nuclei_folder):
    write_png(nuclei_folder / "fluo0" / "masks" / "odd.png", np.ones((64, 63), np.uint8))
    with pytest.raises(UserError, match=r"odd\.png is 64x63 pixels but its image fluo0\.png is 64x64"):
        read_all(nuclei_folder)
    (nuclei_folder / "fluo0" / "masks" / "odd.png").unlink()
    (nuclei_folder / "fluo1" / "images" / "fluo1.png").unlink()
    with pytest.raises(UserError, match=r"fluo1/masks has \d+ masks but .*images no PNG or TIFF image"):
        read_all(nuclei_folder)


@pytest.mark.parametrize(("content", "said"), [(b"", "empty"), (b"no PNG", "cannot be read as a PNG"),
                                               (b"\x89PNG\r\n\x1a\n\0\0", "cannot be read as a PNG")])
def test_a_broken_png_is_one_clear_line(nuclei_folder, content, said):
    path = nuclei_folder / "hist1" / "images" / "hist1.png"
    before = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"hist1\.png.*{said}"):
        read_all(nuclei_folder)
    path.write_bytes(before)
    mask = next((nuclei_folder / "fluo2" / "masks").iterdir())
    mask.write_bytes(content)
    with pytest.raises(UserError, match=mask.name):
        read_all(nuclei_folder)


def test_several_images_need_a_name_to_choose_by(nuclei_folder):
    extra = nuclei_folder / "fluo0" / "images" / "other.png"
    write_png(extra, np.zeros((5, 5), np.uint8))
    assert read_all(nuclei_folder)[0][2].image.shape == (64, 64, 3)  # fluo0.png is the one
    extra.with_name("fluo0.png").rename(extra.with_name("another.png"))
    with pytest.raises(UserError, match=r"has 2 images.*name the right one fluo0\.png"):
        read_all(nuclei_folder)


def test_stray_files_and_folders_are_tolerated(nuclei_folder):
    (nuclei_folder / "__MACOSX" / "masks").mkdir(parents=True)
    write_png(nuclei_folder / "__MACOSX" / "masks" / "m.png", np.ones((3, 3), np.uint8))
    (nuclei_folder / "empty").mkdir()
    (nuclei_folder / "fluo0" / "masks" / ".DS_Store").write_bytes(b"\0")
    (nuclei_folder / "fluo0" / "masks" / "Thumbs.db").write_bytes(b"\0")
    assert len(read_all(nuclei_folder)[0]) == 8


def test_images_to_predict_may_lie_side_by_side(tmp_path, nuclei_folder):
    assert len(find_images(nuclei_folder)) == 9
    folder = tmp_path / "plain"
    for name in ("b.png", "a.PNG", "c.tif"):
        write_png(folder / name, np.zeros((5, 5), np.uint8))
    assert [source.name for source in find_images(folder)] == ["a", "b", "c"]
    assert [source.name for source in find_images(folder / "b.png")] == ["b"]
    write_png(folder / "b.tif", np.zeros((5, 5), np.uint8))
    with pytest.raises(UserError, match="several images named b"):
        find_images(folder)
    with pytest.raises(UserError, match="not found"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no PNG, JPEG or TIFF image"):
        find_images(tmp_path)


def test_modalities_are_told_by_pixels():
    for modality in ("fluorescence", "histology", "bright-field"):
        assert modality_of(draw_nuclei((64, 64), modality)[0]) == modality
    faint = draw_nuclei((64, 64))[0] // 5
    assert modality_of(faint) == "fluorescence"
    assert modality_of(faint + 150) == "fluorescence"  # a camera's offset is no bright background
    green = draw_nuclei((64, 64))[0] * np.array([0, 1, 0], np.uint8)
    assert modality_of(green) == "fluorescence"
    assert modality_of(np.zeros((8, 8, 3), np.uint8)) == "fluorescence"


def test_a_hash_for_image_and_masks(nuclei_folder):
    before = input_hash(nuclei_folder / "fluo0")
    (nuclei_folder / "fluo0" / ".DS_Store").write_bytes(b"\0")
    assert input_hash(nuclei_folder / "fluo0") == before
    mask = next((nuclei_folder / "fluo0" / "masks").iterdir())
    mask.rename(mask.with_name("z.png"))
    assert input_hash(nuclei_folder / "fluo0") != before


@pytest.mark.slow
def test_the_real_images(bowl_folder):
    samples, notes = read_all(bowl_folder)
    assert Counter(one.group for one in samples) == {"fluorescence": 98, "histology": 19, "bright-field": 3}
    assert len(notes) == 1
    assert "overlap in 1 image" in notes[0]
    shapes = {one.label.shape for one in samples}
    assert {(256, 256), (603, 1272), (1024, 1024)} <= shapes
    assert max(int(one.label.max()) for one in samples) == 289
