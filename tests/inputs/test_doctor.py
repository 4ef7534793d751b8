"""The doctor finds what is wrong, says how to fix it, and is silent on good data."""

import numpy as np
import pytest
import tifffile
from conftest import draw_stacks
from helpers import two_rooms
from scipy import ndimage as ndi
from skimage.measure import label

from unet.inputs import doctor
from unet.inputs.findings import Finding, format_findings
from unet.inputs.stacks import LABELS, TEST, VOLUME
from utils import UserError


def save(path, stack, **options):
    tifffile.imwrite(path, stack, photometric="minisblack", **options)


def faults(findings):
    """Level and text of what is not in order."""
    return [(finding.level, finding.what) for finding in findings if finding.level in ("warning", "problem")]


def assert_only(findings, level, text):
    """The single fault, of this level, whose text contains `text`."""
    assert [level for level, _ in faults(findings)] == [level], faults(findings)
    fault = next(finding for finding in findings if finding.level == level)
    assert text in fault.what
    assert fault.meaning and fault.remedy
    return fault


def walls(labels):
    """What the doctor is told: that 0 is a membrane between cells."""
    return True


def ground(labels):
    """What the doctor is told: that 0 is the ground between separate objects."""
    return False


def check(folder, thin_walls=walls):
    return format_findings(folder, doctor.examine_stacks(folder, thin_walls))


# ------------------------------------------------------------------------------------------------ good data


def test_a_good_folder_is_ready(tiny_folder):
    text = check(tiny_folder)
    size = (tiny_folder / VOLUME).stat().st_size / 1e6
    assert text.endswith("\nReady to train.")
    assert f"{VOLUME} ({size:.3g} MB): 6 slices of 64 x 64 pixels (y, x), uint8" in text
    assert "0 = membrane and 255 = cell" in text
    assert max(map(len, text.splitlines()[1:])) <= 80


@pytest.mark.slow
def test_isbi_raises_no_false_alarm(isbi_folder):
    findings = doctor.examine_stacks(isbi_folder, walls)
    assert faults(findings) == []
    assert [finding.what for finding in findings if finding.level == "note"] == [
        "Slices are counted from 0, as --holdout counts them; Fiji counts from 1"]
    assert any("membrane is 22.0% of all pixels, by slice 16.8% to 27.0%" in finding.what for finding in findings)


# ------------------------------------------------------------------------------------------------ images


def test_pixels_tell_size_type_and_range():
    stack = np.zeros((2, 3, 4), np.uint16)
    stack[1, 2, 3] = 999
    [finding] = doctor.check_pixels("a.tif", stack)
    assert finding == Finding("ok", "a.tif: 2 slices of 3 x 4 pixels (y, x), uint16, values 0 to 999")


def test_colours_are_a_problem():
    colours = np.zeros((2, 8, 8, 3), np.uint8)
    assert "8-bit" in assert_only(doctor.check_pixels("a.tif", colours), "problem", "3 colour").remedy


def test_not_a_number_is_a_problem_with_its_slice():
    stack = np.ones((5, 8, 8), np.float32)
    stack[3, 0, 0] = np.nan
    assert_only(doctor.check_pixels("a.tif", stack), "problem", "not numbers, in slices 3")


@pytest.mark.parametrize(("factor", "bits"), [(16, 12), (1, 8)])
def test_the_bits_that_16_bit_files_use_are_noted(tiny_stacks, factor, bits):
    images = tiny_stacks[0].astype(np.uint16) * factor
    images[0, 0, 0] = 255 * factor
    findings = doctor.check_images(VOLUME, images)
    [note] = [finding for finding in findings if finding.level == "note"]
    assert note.what == f"{VOLUME}: uint16, of which {bits} bits are used"
    assert "at its full bit depth" in note.meaning
    assert faults(findings) == []


def test_padding_is_noted(tiny_stacks):
    images = tiny_stacks[0]
    images[2:4, :, :16] = 0
    [note] = [finding for finding in doctor.check_images(VOLUME, images) if finding.level == "note"]
    assert note.what == f"{VOLUME}: slices 2-3 are padded at their border, up to 25% of a slice"


def test_labels_in_place_of_images_are_a_problem(tiny_stacks):
    assert_only(doctor.check_images(VOLUME, tiny_stacks[1]), "problem", "only two values")
    assert_only(doctor.check_images(VOLUME, np.full((2, 8, 8), 7, np.uint8)), "problem", "only one value")


def test_brightness_of_each_slice_is_told():
    images = np.array([[[10, 30]], [[20, 20]]], np.uint8)
    assert "mean±sd: 20±10 20±0" in doctor.check_brightness("a.tif", images)[0].what


def test_slices_that_stand_out_are_named(tiny_stacks):
    images = tiny_stacks[0].astype(float)
    images[2] += 60
    images[4] = images[4].mean() + (images[4] - images[4].mean()) / 4
    images[5] /= 4
    assert_only(doctor.check_brightness(VOLUME, images), "warning",
         "slice 2 (brightness), slice 4 (contrast), slice 5 (brightness and contrast); the median is")


def test_slices_that_drift_a_little_do_not_stand_out(tiny_stacks):
    images = tiny_stacks[0] + np.arange(6)[:, None, None] * 4.0
    assert faults(doctor.check_brightness(VOLUME, images)) == []


def test_empty_slices_are_named(tiny_stacks):
    images = tiny_stacks[0]
    images[[1, 2, 5]] = 7
    assert_only(doctor.check_slices(VOLUME, images), "warning", "of only one value: 1-2, 5")


def test_identical_slices_are_named(tiny_stacks):
    images = tiny_stacks[0]
    images[4] = images[1]
    assert_only(doctor.check_slices(VOLUME, images), "warning", "identical slices: 1, 4")


# ------------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize("one", [1, 255])
def test_labels_of_0_and_1_or_255_are_in_order(tiny_stacks, one):
    findings = doctor.check_labels((tiny_stacks[1] == 255) * np.uint8(one), walls)
    assert faults(findings) == []
    assert f"0 = membrane and {one} = cell" in findings[0].what


def test_share_of_membrane_is_exact():
    labels = np.full((2, 10, 10), 255, np.uint8)
    labels[0, :, :2] = 0
    labels[1, :, :4] = 0
    assert "membrane is 30.0% of all pixels, by slice 20.0% to 40.0%" in doctor.check_labels(labels, walls)[1].what


def test_labels_of_one_value_are_a_problem():
    assert_only(doctor.check_labels(np.full((2, 8, 8), 255, np.uint8), walls), "problem", "every pixel is 255")


@pytest.mark.parametrize("value", [0, 255])
def test_slices_on_which_nobody_drew_are_a_problem(tiny_stacks, value):
    labels = tiny_stacks[1].copy()
    labels[[1, 3]] = value
    problem, = (finding for finding in doctor.check_labels(labels, walls) if finding.level == "problem")
    assert problem.what == f"{LABELS}: slices of only one value: 1, 3"


def test_separate_objects_may_be_absent_from_a_slice(tiny_stacks):
    labels = tiny_stacks[1].copy()
    labels[[1, 3]] = 0
    findings = doctor.check_labels(labels, ground)
    assert faults(findings) == []
    assert f"{LABELS}: no object in slices 1, 3" in [finding.what for finding in findings if finding.level == "note"]
    labels[2] = 255  # an object all over is still one that nobody drew
    assert_only(doctor.check_labels(labels, ground), "problem", "slices of only one value: 2")


def test_slices_that_are_all_empty_or_full_are_a_problem():
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[2:] = 255
    assert ("problem", f"{LABELS}: slices of only one value: 0-3") in faults(doctor.check_labels(labels, ground))
    assert not doctor.are_separate_objects(labels > 0, ground)


def test_separate_objects_are_no_inverted_membranes(tiny_folder):
    """Dark objects on bright ground that covers most of the slice: both signs of inverted labels."""
    y, x = np.indices((64, 64))
    objects = np.stack([(y % 32 - 16) ** 2 + (x % 32 - 10 - number) ** 2 < 64 for number in range(6)])
    save(tiny_folder / LABELS, np.where(objects, 255, 0).astype(np.uint8))
    noise = np.random.default_rng(0).normal(0, 5, objects.shape)
    save(tiny_folder / VOLUME, (np.where(objects, 70, 180) + noise).astype(np.uint8))
    said = [finding.what for finding in doctor.examine_stacks(tiny_folder, ground)]
    assert not [what for what in said if "inverted" in what]
    said = [finding.what for finding in doctor.examine_stacks(tiny_folder, walls)]
    assert [what for what in said if "inverted" in what]


def test_other_two_values_are_a_problem(tiny_stacks):
    assert_only(doctor.check_labels(np.where(tiny_stacks[1] == 255, 2, 1), walls), "problem", "2 values (1, 2)")


def test_softened_labels_are_told_from_numbered_cells(tiny_stacks):
    soft = ndi.gaussian_filter(tiny_stacks[1], (0, 0.6, 0.6))
    assert_only(doctor.check_labels(soft, walls), "problem", "edges were softened, as JPEG or scaling does")
    np.testing.assert_array_equal(doctor.as_cells(soft), tiny_stacks[1] == 255)
    numbered = np.stack([label(cell, connectivity=1) for cell in tiny_stacks[1] == 255])
    assert_only(doctor.check_labels(numbered, walls), "problem", "every cell has its own number")
    np.testing.assert_array_equal(doctor.as_cells(numbered), tiny_stacks[1] == 255)


def test_thin_membranes_are_told():
    labels = np.full((2, 100, 100), 255, np.uint8)
    labels[:, 50] = 0
    assert_only(doctor.check_labels(labels, walls), "warning", "membrane is 1.0% of all pixels")


def test_inverted_labels_are_a_problem(tiny_stacks):
    images, labels = tiny_stacks
    fault = assert_only(doctor.check_polarity(images, labels == 0), "problem", "look inverted")
    assert "Edit > Invert" in fault.remedy
    assert doctor.check_polarity(images, labels == 255) == []


def test_bright_membranes_alone_are_a_warning(tiny_stacks):
    images, labels = tiny_stacks
    assert_only(doctor.check_polarity(255 - images, labels == 255), "warning", "brighter pixels than the cells")


def test_polarity_notes_are_one_sentence_with_the_way_out(tiny_stacks):
    images, labels = tiny_stacks
    assert doctor.polarity_notes(images, labels) == []
    [note] = doctor.polarity_notes(images, 255 - labels)
    assert "look inverted" in note and "Edit > Invert" in note and "\n" not in note


def test_a_slice_whose_labels_do_not_fit_is_named(tiny_stacks):
    images, labels = tiny_stacks
    cells = labels == 255
    cells[3] = ~cells[3]
    assert_only(doctor.check_pairs(images, cells), "warning", "do not fit their image: 3")
    assert doctor.check_pairs(images, labels == 255) == []


def test_labels_beside_the_membranes_are_told(tiny_stacks):
    shuffled = np.random.default_rng(0).permuted(tiny_stacks[1] == 255, axis=2)
    shuffled = np.random.default_rng(1).permuted(shuffled, axis=1)
    assert_only(doctor.check_pairs(tiny_stacks[0], shuffled), "warning", "membranes are as bright as cells")


# ------------------------------------------------------------------------------------------------ closed cells


def test_gaps_are_reported_with_slice_and_position():
    cells = np.stack([two_rooms(), two_rooms(gap=2)])
    images = np.stack([np.where(two_rooms(), 150, 70)] * 2)
    findings = doctor.check_cells(cells, images)
    gaps = [finding for finding in findings if "gaps" in finding.what]
    assert "slice 1 at y 20, x 32" in gaps[0].what and "slice 0 at" not in gaps[0].what


def test_one_piece_over_most_of_a_slice_is_told(tiny_stacks):
    cells = tiny_stacks[1] == 255
    cells[2, :, 8::16] = cells[2, :, 9::16] = cells[2, :, 10::16] = True  # doors of three pixels
    cells[2, 8::16] = cells[2, 9::16] = cells[2, 10::16] = True
    assert_only(doctor.check_cells(cells), "warning", "in slices 2")


# ------------------------------------------------------------------------------------------------ several stacks


def test_counts_and_sizes_must_agree(tiny_stacks):
    images, labels = tiny_stacks
    assert_only(doctor.check_counts(images, labels[:5]), "problem", "6 slices of 64 x 64 pixels but")
    assert_only(doctor.check_counts(images, labels[:, :32]), "problem", "6 slices of 32 x 64")
    assert_only(doctor.check_counts(images[:2], labels[:2]), "warning", "2 slices are few")


def test_a_test_stack_of_other_brightness_or_contrast_is_told(tiny_stacks):
    images = tiny_stacks[0]
    assert_only(doctor.check_test(images, draw_stacks(seed=1)[0] // 2), "warning", "looks different from")
    flat = (images.mean() + (draw_stacks(seed=1)[0] - images.mean()) / 3).astype(np.uint8)
    assert_only(doctor.check_test(images, flat), "warning", "looks different from")


def test_training_images_in_the_test_stack_are_named(tiny_stacks):
    test = draw_stacks(seed=1)[0]
    test[[2, 3]] = tiny_stacks[0][[0, 5]]
    assert_only(doctor.check_test(tiny_stacks[0], test), "warning", "also training images: 2-3")


# ------------------------------------------------------------------------------------------------ the folder


def test_everything_is_reported_at_once(tiny_folder):
    """A broken file does not hide what is wrong with the others."""
    (tiny_folder / VOLUME).write_bytes((tiny_folder / VOLUME).read_bytes()[:9000])
    labels = tifffile.imread(tiny_folder / LABELS)
    save(tiny_folder / LABELS, np.where(labels == 255, 200, 100).astype(np.uint8))
    (tiny_folder / TEST).rename(tiny_folder / "test_volume.tiff")
    (tiny_folder / "notes.txt").write_text("drawn by hand")
    text = check(tiny_folder)
    assert f"- {VOLUME} cannot be read as a TIFF stack" in text
    assert "2 values (100, 200)" in text
    assert f"{TEST} is missing" in text and "Rename test_volume.tiff" in text
    assert "not read: notes.txt, test_volume.tiff" in text
    assert text.endswith("\n3 problems must be fixed first.")


@pytest.mark.parametrize("content", [b"", b"plain text", b"\x89PNG\r\n\x1a\n and so on", b"II*\0"])
def test_files_that_are_no_tiff_are_a_problem(tiny_folder, content):
    (tiny_folder / TEST).write_bytes(content)
    fault = assert_only(doctor.examine_stacks(tiny_folder, walls), "problem", TEST)
    assert str(tiny_folder) not in fault.what


def test_colour_stacks_are_still_examined(tiny_folder):
    images = tifffile.imread(tiny_folder / VOLUME)
    images[5] = images[0]
    tifffile.imwrite(tiny_folder / VOLUME, np.stack([images] * 3, axis=-1), photometric="rgb")
    levels = [level for level, _ in faults(doctor.examine_stacks(tiny_folder, walls))]
    assert levels == ["problem", "warning", "warning"]  # colour; slices 0 and 5 alike; 5's label does not fit


def test_infinite_pixels_do_not_stop_the_other_checks(tiny_folder):
    images = tifffile.imread(tiny_folder / VOLUME).astype(np.float32)
    images[1, 0, 0] = np.inf
    save(tiny_folder / VOLUME, images)
    assert_only(doctor.examine_stacks(tiny_folder, walls), "problem", "not numbers, in slices 1")


def test_a_missing_folder_names_the_commands_that_make_one(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder; 'python datasets.py isbi' .* demo"):
        check(tmp_path / "nowhere")


def test_an_empty_folder_misses_all_three(tmp_path):
    assert check(tmp_path).endswith("3 problems must be fixed first.")


@pytest.mark.parametrize("name", ["test-volume.tiff", "Test-Volume.tif", "TEST-VOLUME.TIF", "test_volume.tif"])
def test_a_misnamed_file_is_named(tiny_folder, name):
    (tiny_folder / TEST).rename(tiny_folder / name)
    fault = assert_only(doctor.examine_stacks(tiny_folder, walls), "problem", f"{TEST} is missing")
    assert fault.remedy.startswith(f"Rename {name},")
