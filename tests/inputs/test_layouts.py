"""Whatever comes in, the user gets either samples or one line that names the file, the fault and the way out."""

import re

import numpy as np
import pytest
import tifffile
from conftest import draw_stacks, write_nuclei, write_png, write_two_folders
from numpy.testing import assert_array_equal
from PIL import Image

from unet.inputs import lazy
from unet.inputs.folders import find_images
from unet.inputs.layouts import Folders, Stacks, images_of, layout_of
from unet.inputs.stacks import LABELS, TEST, VOLUME
from unet.inputs.tiffs import voxel_of
from unet.inputs.voxel import Voxel
from unet.tasks import choose_task
from utils import UserError, file_hash, input_hash


@pytest.mark.parametrize("kept", ["a.npy", "a.tif", "a.zarr"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_pages_of_one_file_are_images_by_their_number(tmp_path, kept, dtype):
    stack = np.random.default_rng(0).integers(0, 2, (11, 12, 10)).astype(dtype)
    for array in (stack, stack[0]):
        path = tmp_path / str(array.ndim) / kept
        path.parent.mkdir()
        if kept == "a.npy":
            np.save(path, array)
        elif kept == "a.tif":
            save(path, array)
        else:
            zarr = pytest.importorskip("zarr", reason="zarr is not installed; requirements-zarr.txt has it")
            zarr.save_array(str(path), array + dtype(1))  # no chunk of zeros, which is left out
            array = array + dtype(1)
        samples = images_of(path)
        assert samples.names == ([f"{number:02}" for number in range(11)] if array.ndim == 3 else ["a"])
        last = samples[len(samples) - 1].image
        assert (last.shape, last.dtype) == ((12, 10, 3), np.uint8 if dtype is bool else dtype)
        assert_array_equal(last[..., 1] > 0, (array[-1] if array.ndim == 3 else array) > 0)
        samples.check_unchanged()


def test_images_to_predict_may_be_a_pattern_and_jpegs(tmp_path, rng):
    for name in ("b.jpg", "a.jpeg"):
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(tmp_path / name)
    write_png(tmp_path / "c.png", np.zeros((4, 4), np.uint8))
    assert images_of(tmp_path).names == ["a", "b", "c"]
    assert images_of(tmp_path / "*.jp*").names == ["a", "b"]
    assert images_of(tmp_path / "b.jpg")[0].image.shape == (9, 8, 3)
    with pytest.raises(UserError, match="has no PNG, JPEG or TIFF image"):
        images_of(tmp_path / "*.gif")
    with pytest.raises(UserError, match="not found; name an image"):
        images_of(tmp_path / "d.png")


def save(path, stack, **options):
    tifffile.imwrite(path, stack, photometric="minisblack", **options)


# ------------------------------------------------------------------------------------------------ stacks


def test_a_good_folder_is_read_as_it_is(tiny_folder):
    layout = layout_of(tiny_folder)
    images, labels = draw_stacks()
    assert isinstance(layout, Stacks) and len(layout) == 6
    assert_array_equal(layout.images, images)
    assert_array_equal(layout.labels, labels)
    assert (layout[4].name, layout[4].group) == ("slice 4", "")
    assert_array_equal(layout[4].image, images[4])
    assert_array_equal(layout[4].label, labels[4])
    assert layout.notes == []
    assert layout.hashes() == {str((tiny_folder / name).resolve()): file_hash(tiny_folder / name)
                               for name in (VOLUME, LABELS)}
    test = layout.to_predict()
    assert_array_equal(np.stack([sample.image for sample in test]), draw_stacks(seed=1)[0])
    assert test[0].label is None
    assert layout.hash_to_predict() == file_hash(tiny_folder / TEST)


@pytest.mark.parametrize(("given", "kept"), [(np.uint8, np.uint8), (np.uint16, np.uint16), (np.float32, np.float32),
                                             (np.int16, np.float32), (np.float64, np.float32)])
def test_images_keep_their_depth(tiny_folder, given, kept):
    ramp = np.linspace(0, 250, 6 * 64 * 64).reshape(6, 64, 64).astype(given)
    save(tiny_folder / VOLUME, ramp)
    image = layout_of(tiny_folder)[3].image
    assert image.dtype == kept
    assert_array_equal(image, ramp[3].astype(kept))


def test_two_valued_images_become_black_and_white(tiny_folder):
    save(tiny_folder / VOLUME, np.stack([np.eye(64, dtype=bool)] * 6))
    assert_array_equal(layout_of(tiny_folder)[0].image, 255 * np.eye(64, dtype=np.uint8))


def test_a_single_page_is_a_stack_of_one(tiny_folder):
    for name in (VOLUME, LABELS):
        save(tiny_folder / name, tifffile.imread(tiny_folder / name)[0])
    assert [sample.image.shape for sample in layout_of(tiny_folder)] == [(64, 64)]


def test_a_missing_folder_names_the_commands_that_make_one(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder; 'python datasets.py isbi' .* datasets.py demo'"):
        layout_of(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "reason"), [
    (VOLUME, "not found; 'python datasets.py isbi' downloads"),
    (LABELS, "not found; draw the labels of train-volume.tif as docs/own-data.md says: 0 = membrane, 255 = cell"),
    (TEST, "not found; it is the stack that is segmented into prediction.tif: put yours there")])
def test_a_missing_file_is_named(tiny_folder, name, reason):
    (tiny_folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} {reason}"):
        layout_of(tiny_folder)


def test_a_folder_of_something_else_is_told_how_data_lie(tmp_path):
    (tmp_path / "README.md").touch()
    with pytest.raises(UserError, match=r"datasets\.py isbi"):
        layout_of(tmp_path)
    write_png(tmp_path / "1.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match=r"has 1\.png, but neither the three stacks nor folders named images and l"):
        layout_of(tmp_path)


@pytest.mark.parametrize(("name", "near"), [
    (LABELS, "train-labels.tiff"), (LABELS, "Train-Labels.TIF"), (LABELS, "train-labels.jpg"), (LABELS, "labels.tif"),
    (VOLUME, "train_volume.tif"), (TEST, "test-volume.tif.tif")])
def test_a_file_whose_name_is_nearly_right_is_named(tiny_folder, name, near):
    (tiny_folder / name).rename(tiny_folder / near)
    with pytest.raises(UserError, match=f"{name} not found; rename {re.escape(near)}, or save it as TIFF from Fiji"):
        layout_of(tiny_folder)




@pytest.mark.parametrize(("change", "reason"), [
    (lambda labels: labels[:5], f"{VOLUME} has 6 slices but {LABELS} has 5; add or delete slices in Fiji"),
    (lambda labels: labels[:, :32], f"{VOLUME} is 64x64 pixels but {LABELS} is 32x64"),
    (lambda labels: np.where(labels == 0, 3, labels), r"labels have 2 values \(3, 255\), expected the two 0 = m"),
    (lambda labels: np.where(labels == 0, 0, 7), r"labels have 2 values \(0, 7\).*Adjust > Threshold"),
    (lambda labels: labels // 255 + np.arange(64) % 9, r"labels have 10 values \(0, 1, 2, 3, 4, 5, \.\.\.\)"),
    (lambda labels: np.where(np.arange(6)[:, None, None] > 3, 255, labels),
     "nothing was drawn on slices 4-5, where the label is cell everywhere"),
    (lambda labels: np.where(np.arange(6)[:, None, None] == 2, 0, labels),
     "on slice 2, where the label is membrane everywhere; label it"),
    (np.zeros_like, r"every pixel is 0, expected membrane \(0\) and cell \(255\)"),
    (lambda labels: np.full_like(labels, 255), "every pixel is 255"),
    (lambda labels: np.stack([labels] * 3, axis=-1), "has 3 channels, expected grey slices of one; in Fiji: Image > "),
    (lambda labels: np.where(labels == 0, np.nan, 255), r"labels have 2 values \(255, nan\)"),
])
def test_labels_that_cannot_be_used_are_refused(tiny_folder, change, reason):
    changed = change(tifffile.imread(tiny_folder / LABELS))
    changed = changed.astype(np.float32 if changed.dtype.kind == "f" else np.uint8)
    tifffile.imwrite(tiny_folder / LABELS, changed, photometric="rgb" if changed.ndim == 4 else "minisblack")
    with pytest.raises(UserError, match=reason) as error:
        layout = layout_of(tiny_folder)
        choose_task(layout).check(layout)
    assert "\n" not in str(error.value) and LABELS in str(error.value)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("name", [VOLUME, TEST])
def test_images_with_pixels_that_are_not_numbers_are_refused(tiny_folder, name, value):
    images = tifffile.imread(tiny_folder / name).astype(np.float32)
    images[3, 5, 5] = value
    save(tiny_folder / name, images)
    with pytest.raises(UserError, match=f"{name} has pixels that are not numbers .NaN or infinite.* in slice 3; "):
        list(layout_of(tiny_folder))
        layout_of(tiny_folder).to_predict()


def test_colour_images_are_refused(tiny_folder):
    stack = np.stack([tifffile.imread(tiny_folder / VOLUME)] * 3, axis=-1)
    tifffile.imwrite(tiny_folder / VOLUME, stack, photometric="rgb")
    with pytest.raises(UserError, match=f"{VOLUME} has 3 channels, expected grey slices of one; in Fiji: Image > Type"):
        layout_of(tiny_folder)


@pytest.mark.parametrize("name", [VOLUME, LABELS])
@pytest.mark.parametrize(("damage", "reason"), [
    (lambda content: content[:-3000], "cannot be read as a TIFF stack"), (lambda content: b"", "is empty .0 bytes."),
    (lambda content: b"membranes, drawn by hand\n", "cannot be read as a TIFF stack"), (None, "not found")],
    ids=["cut short", "empty", "text", "folder"])
def test_files_that_are_no_stack_are_refused(tiny_folder, name, damage, reason):
    path = tiny_folder / name
    content = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(content))
    else:
        path.mkdir()
    with pytest.raises(UserError, match=f"{name} {reason}") as error:
        layout_of(tiny_folder)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", [VOLUME, LABELS])
def test_isbis_own_files_cut_short_are_refused(isbi_folder, tmp_path, name, share):
    for other in (VOLUME, LABELS, TEST):
        (tmp_path / other).symlink_to((isbi_folder / other).resolve())
    content = (isbi_folder / name).read_bytes()
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(content[:int(len(content) * share)])
    with pytest.raises(UserError, match=f"{name} cannot be read as a TIFF stack"):
        layout_of(tmp_path)


@pytest.mark.slow
def test_isbi_is_read(isbi_folder):
    layout = layout_of(isbi_folder)
    assert layout.images.shape == layout.labels.shape == (30, 512, 512)
    assert choose_task(layout).check(layout) == []


# ------------------------------------------------------------------------------------------------ folders


def test_a_folder_of_images_is_recognised(nuclei_folder, tiny_folder):
    assert isinstance(layout_of(nuclei_folder), Folders)
    (tiny_folder / "old" / "images").mkdir(parents=True)
    assert isinstance(layout_of(tiny_folder), Stacks)  # its stacks are there


def test_images_with_masks_are_samples_and_others_are_predicted(nuclei_folder):
    layout = layout_of(nuclei_folder)
    assert layout.names == ["brig0", "brig1", "fluo0", "fluo1", "fluo2", "fluo3", "hist0", "hist1"]
    assert layout.groups == ["bright-field"] * 2 + ["fluorescence"] * 4 + ["histology"] * 2
    assert [sample.name for sample in layout] == layout.names
    assert [sample.name for sample in layout.to_predict()] == ["test0"]
    assert layout.notes == ["test0 has no masks: it is predicted, not trained on"]
    one = layout[3]
    assert (one.image.shape, one.image.dtype) == ((80, 70, 3), np.uint8)
    assert (one.label.shape, one.label.dtype, one.group) == ((80, 70), np.uint16, "fluorescence")
    assert layout.hashes()[str((nuclei_folder / "fluo1").resolve())] == input_hash(nuclei_folder / "fluo1")


def test_what_is_predicted_is_read_before_the_training(nuclei_folder):
    (nuclei_folder / "test0" / "images" / "test0.png").write_bytes(b"no PNG")
    with pytest.raises(UserError, match=r"test0\.png cannot be read as a PNG"):
        layout_of(nuclei_folder).to_predict()


def test_without_any_masks_there_is_nothing_to_learn_from(tmp_path):
    write_nuclei(tmp_path, "a", np.zeros((5, 5), np.uint8))
    (tmp_path / "a" / "masks").mkdir()
    with pytest.raises(UserError, match="no image has masks"):
        layout_of(tmp_path)


@pytest.mark.parametrize("kept", ["a.tif", "a.npy", "a.zarr", "stack.tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_large_images_are_read_by_rows(tmp_path, monkeypatch, kept, channels, dtype):
    image = (np.random.default_rng(0).random((40, 30, channels)) * 200).astype(dtype)
    image = image[..., 0] if channels == 1 else image
    if kept == "a.zarr":
        pytest.importorskip("zarr", reason="zarr is not installed; requirements-zarr.txt has it"
                            ).save_array(str(tmp_path / kept), image)
    elif kept == "a.npy":
        np.save(tmp_path / kept, image)
    else:
        tifffile.imwrite(tmp_path / kept, np.stack([image] * 2) if kept == "stack.tif" else image,
                         photometric="minisblack" if channels == 1 else "rgb")
    whole = images_of(tmp_path / kept)[0].image
    monkeypatch.setattr(lazy, "LARGE_PAGE", 100)
    rows = images_of(tmp_path / kept)[0].image
    assert isinstance(rows, lazy.PageRows) and (rows.shape, rows.ndim, rows.dtype) == ((40, 30, 3), 3, whole.dtype)
    assert_array_equal(np.asarray(rows), whole)
    assert_array_equal(rows[5:30:3, 2:9], whole[5:30:3, 2:9])
    assert_array_equal(rows.take(np.array([7, 3, 7]), 0), whole[[7, 3, 7]])
    assert rows[3:3].shape == (0, 30, 3)


def test_images_say_the_size_of_their_pixels_and_all_of_them_one_size_where_they_agree(tmp_path):
    image, label = np.full((20, 24), 90, np.uint8), np.eye(20, 24, dtype=np.uint8)
    folder = write_two_folders(tmp_path, {})
    for name in ("labels", "images"):
        (folder / name).mkdir()
    for name, resolution in (("a", 20_000), ("b", 20_000), ("c", 40_000)):
        tifffile.imwrite(folder / "images" / f"{name}.tif", image, resolution=(resolution,) * 2,
                         resolutionunit="CENTIMETER", photometric="minisblack")
        tifffile.imwrite(folder / "labels" / f"{name}.tif", label)
    (folder / "images" / "c.tif").rename(folder / "images" / "c.ome.tif")
    assert layout_of(folder).voxel is None
    assert layout_of(folder).names == [source.name for source in find_images(folder / "images")] == ["a", "b", "c"]
    assert [sample.voxel for sample in layout_of(folder)] == [Voxel(0.5, 0.5), Voxel(0.5, 0.5), Voxel(0.25, 0.25)]
    (folder / "labels" / "c.tif").unlink()  # it is predicted then
    layout = layout_of(folder)
    assert (layout.voxel, layout.to_predict().voxel) == (Voxel(0.5, 0.5), Voxel(0.25, 0.25))
    write_png(folder / "images" / "d.png", image)
    assert layout_of(folder).to_predict().voxel is None
    tifffile.imwrite(folder / "images" / "e.tif", image)
    (folder / "images" / "e.tif").write_bytes(b"II*\0 no TIFF")
    assert voxel_of(folder / "images" / "e.tif") is None
