"""Two folders of equal names: what is paired, what a label may be, what its numbers seem to say."""

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, draw_slices, write_png, write_two_folders
from numpy.testing import assert_array_equal

from unet.inputs.layouts import Stacks, TwoFolders, layout_class, layout_of
from unet.tasks import choose_task
from unet.tasks.nuclei import Nuclei
from unet.tasks.of_images import CellImages, ClassImages
from utils import UserError

PAIRS = draw_slices([(64, 64), (50, 70)])


@pytest.fixture
def folder(tmp_path):
    return write_two_folders(tmp_path / "data", PAIRS, {"new": PAIRS["cell0"][0]})


def test_files_of_equal_names_are_pairs_and_the_others_are_predicted(folder):
    (folder / "labels" / "other.tif").write_bytes((folder / "labels" / "cell0.tif").read_bytes())
    layout = layout_of(folder)
    assert (type(layout), layout.names, layout.to_predict().names) == (TwoFolders, ["cell0", "cell1"], ["new"])
    for sample in layout:
        image, label = PAIRS[sample.name]
        assert_array_equal(sample.image, np.repeat(image[..., None], 3, axis=2))
        assert_array_equal(sample.label, label)
    assert sorted(layout.hashes()) == sorted(str(path) for path in layout.files if path.stem != "new")
    assert layout.notes == ["1 label has no image of the same name, for instance other.tif: left out",
                            "new has no label: it is predicted, not trained on"]


def test_masks_is_another_name_for_labels_and_both_are_one_too_many(folder):
    (folder / "labels").rename(folder / "masks")
    assert len(layout_of(folder)) == 2
    (folder / "labels").mkdir()
    with pytest.raises(UserError, match="has images/ and both labels/ and masks/"):
        layout_of(folder)
    (folder / "labels").rmdir()
    (folder / "masks").rename(folder / "truth")
    with pytest.raises(UserError, match="has images/ and neither labels/ nor masks/"):
        layout_of(folder)


def test_an_empty_folder_of_images_is_named(folder):
    for path in (folder / "images").iterdir():
        path.rename(path.with_suffix(".bmp"))
    assert layout_class(folder) is TwoFolders
    with pytest.raises(UserError, match=r"images has no PNG or TIFF files; expected images/<name>\.png"):
        layout_of(folder)


@pytest.mark.parametrize(("inside", "harm"), [("images", "changes grey levels"), ("labels", "softens the edges")])
def test_jpeg_is_refused_by_its_name(folder, inside, harm):
    for path in (folder / inside).iterdir():
        path.rename(path.with_suffix(".jpg"))
    with pytest.raises(UserError, match=rf"{inside} has JPEG files, for instance \w+\.jpg, and JPEG {harm}.*originals"):
        layout_of(folder)


def test_without_any_label_there_is_nothing_to_learn_from(folder):
    for path in (folder / "labels").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no image has labels, so there is nothing to learn from"):
        layout_of(folder)


def test_a_folder_of_stacks_stays_one(folder, tiny_folder):
    (folder / "images").rename(tiny_folder / "images")
    assert layout_class(tiny_folder) is Stacks


@pytest.mark.parametrize(("name", "label", "reason"), [
    ("cell0.tif", np.zeros((64, 63), np.uint8), "cell0.tif is 64x63 pixels but its image cell0.png is 64x64"),
    ("cell0.tif", np.full((64, 64), 0.5, np.float32), "cell0.tif has values from 0.5 to 0.5, expected whole numbers"),
    ("cell0.tif", np.full((64, 64), 70_000, np.uint32), "values from 70000 to 70000, expected whole numbers from 0"),
    ("cell0.png", np.zeros((64, 64), np.uint8), "labels has cell0.png and cell0.tif, expected one file of each name")])
def test_labels_that_are_none_are_refused(folder, name, label, reason):
    path = folder / "labels" / name
    (write_png if name.endswith("png") else tifffile.imwrite)(path, label)
    with pytest.raises(UserError, match=reason):
        list(layout_of(folder))


def test_a_coloured_label_and_labels_of_other_names_are_refused(folder):
    (folder / "labels" / "cell0.tif").unlink()
    write_png(folder / "labels" / "cell0.png", np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
    with pytest.raises(UserError, match=r"cell0\.png is a colour image, expected a label of one channel"):
        list(layout_of(folder))
    for path in (folder / "labels").iterdir():
        path.rename(path.with_stem(f"label-{path.stem}"))
    with pytest.raises(UserError, match="no label has the name of an image, for instance label-cell0"):
        layout_of(folder)


def test_labels_say_what_they_mean_and_the_user_may_know_better(tmp_path, folder):
    image, numbers = draw_nuclei((64, 80))
    classes = np.kron(np.arange(20).reshape(4, 5) % 3, np.ones((16, 16), int)).astype(np.uint8)
    numbered, several = (layout_of(write_two_folders(tmp_path / name, {"a": (image, label)}))
                         for name, label in (("numbered", numbers), ("several", classes)))
    cells = layout_of(folder)
    assert (cells.meaning, numbered.meaning, several.meaning) == ("cells", "nuclei", "cells")
    assert choose_task(cells) == CellImages()
    assert choose_task(cells, classes=2, window_side=64) == ClassImages(window_side=64, classes=2)
    assert choose_task(cells, resize=32) == Nuclei(resize=32)
    assert choose_task(numbered) == choose_task(cells, "nuclei") == Nuclei()
    assert choose_task(numbered, "cells") == CellImages()
    assert Nuclei().check(numbered) == []
    with pytest.raises(UserError, match=r"no label has more than one number.*--task cells"):
        Nuclei().check(cells)
    with pytest.raises(UserError, match=r"labels have 3 values.*--classes 3"):
        choose_task(several).check(several)
    assert choose_task(several, classes=3).check(several) == []
    with pytest.raises(UserError, match=r"--resize is not for .*, a folder of images and labels; leave it out"):
        choose_task(cells, "cells", resize=32)


def test_cells_are_named_by_their_image_where_nobody_drew(tmp_path):
    pairs = {**PAIRS, "blank": (PAIRS["cell0"][0], np.full((64, 64), 255, np.uint8))}
    with pytest.raises(UserError, match=r"labels: nothing was drawn on image blank, where the label is cell "
                                        "everywhere; label it, or take its label file away"):
        CellImages().check(layout_of(write_two_folders(tmp_path, pairs)))
