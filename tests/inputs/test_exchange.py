"""Labels from and to other programs: outlines lose no pixel, walls are as wide as is said, nothing odd is taken."""

import json
import sys

import numpy as np
import pytest
import tifffile
from conftest import write_png
from numpy.testing import assert_array_equal

from unet.inputs import rois
from unet.inputs.exchange import export_rois, import_labels, with_outlines
from unet.inputs.stacks import write_stack
from utils import UserError

roifile = pytest.importorskip("roifile", reason="roifile is not installed; requirements-labels.txt has it")


def cells():
    """Numbers uint16 (2, 20, 24): touching cells, one with a hole and a cell in it, one at the edge, one in two
    pieces that touch at a corner, one of a single pixel."""
    stack = np.zeros((2, 20, 24), np.uint16)
    stack[0, 2:14, 2:12] = 1
    stack[0, 5:11, 4:10] = 0
    stack[0, 7:9, 6:8] = 2
    stack[0, 2:9, 12:20] = 3
    stack[0, 17, 5] = 4
    stack[0, 14:19, 14:19] = 5
    stack[0, 15:18, 15:18] = 6  # fills the hole around it
    stack[1, 10:20, 0:9] = 1
    stack[1, 2:5, 2:5] = stack[1, 5:7, 5:9] = 2
    return stack


def same_partition(one, other):
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_outlines_go_out_and_come_back_without_losing_a_pixel(tmp_path):
    stack = cells()
    write_stack(tmp_path / "cells.tif", stack)
    assert export_rois(tmp_path / "cells.tif", tmp_path / "RoiSet.zip") == 11  # holes, and pieces of their own
    names = [roi.name for roi in roifile.roiread(tmp_path / "RoiSet.zip")]
    assert names[:4] == ["0001-0001", "0001-0001-hole", "0001-0002", "0001-0003"]
    assert import_labels(tmp_path / "RoiSet.zip", tmp_path / "back.tif", tmp_path / "cells.tif") == (2, 9)
    back = tifffile.imread(tmp_path / "back.tif")
    assert_array_equal(back == 0, stack == 0)
    assert same_partition(back[0], stack[0])
    stack[1, 5:7, 5:9] = 3  # pieces of one number are outlines of their own
    assert same_partition(back[1], stack[1])


def test_random_shapes_come_back_to_the_pixel(tmp_path):
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 3, (3, 30, 31)).astype(np.uint16)
    rois.write_rois(tmp_path / "r.zip", stack)
    back = rois.read_rois(tmp_path / "r.zip", stack.shape)
    assert_array_equal(back == 0, stack == 0)
    touch = (stack[:, :, 1:] != stack[:, :, :-1]) & (stack[:, :, 1:] > 0) & (stack[:, :, :-1] > 0)
    assert (back[:, :, 1:] != back[:, :, :-1])[touch].all()


def test_rectangles_ovals_and_composites_are_filled_as_imagej_does(tmp_path):
    square = roifile.ImagejRoi.frompoints([[2, 3], [8, 3], [8, 5], [2, 5]], name="0002-0003", position=None)
    rectangle = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, name="r", left=10, top=4, right=14, bottom=9)
    rectangle.position = 1
    roifile.roiwrite(tmp_path / "r.zip", [square, rectangle])
    numbers = rois.read_rois(tmp_path / "r.zip", (2, 12, 16))
    expected = np.zeros((2, 12, 16), int)
    expected[0, 4:9, 10:14] = expected[1, 3:5, 2:8] = 1
    assert_array_equal(numbers, expected)


@pytest.mark.parametrize(("points", "kind", "position", "reason"), [
    ([[1, 1], [5, 5]], "LINE", 0, "is a line, expected an outline"),
    ([[1, 1], [5, 1], [5, 5]], "POLYGON", 4, "belongs to slice 5, but the images have 2"),
    ([[1, 1], [5, 1], [5, 5]], "POLYGON", None, "belongs to no slice")])
def test_rois_that_say_nothing_are_refused(tmp_path, points, kind, position, reason):
    roi = roifile.ImagejRoi.frompoints(points, name="mine", position=position)
    roi.roitype = roifile.ROI_TYPE[kind]
    roifile.roiwrite(tmp_path / "r.zip", [roi])
    with pytest.raises(UserError, match=reason):
        rois.read_rois(tmp_path / "r.zip", (2, 12, 16))


def test_walls_are_as_wide_as_is_said_and_never_narrower_than_drawn():
    numbers = np.zeros((9, 30), int)
    numbers[:, :6], numbers[:, 6:13], numbers[:, 14:20], numbers[:, 27:] = 1, 2, 3, 4  # touching, a pixel, seven apart

    def walls(width):
        row = with_outlines(numbers, width)[4]
        runs = np.flatnonzero(np.diff(np.concatenate([[255], row, [255]]).astype(int)))
        return (runs[1::2] - runs[::2]).tolist()

    assert walls(1) == [1, 1, 7]
    assert walls(3) == [3, 3, 7]
    assert walls(5) == [5, 5, 7]
    assert set(np.unique(with_outlines(numbers, 3))) == {0, 255}


def test_coco_becomes_a_folder_of_labels_or_a_stack(tmp_path):
    counts = [3, 2, 20 - 5]  # column by column
    content = {"images": [{"id": 7, "file_name": "sub/b.png", "height": 5, "width": 4},
                          {"id": 8, "file_name": "a.png", "height": 5, "width": 4}],
               "annotations": [
                   {"image_id": 8, "segmentation": [[0, 0, 4, 0, 4, 5, 0, 5]]},
                   {"image_id": 8, "segmentation": [[1, 1, 3, 1, 3, 2, 1, 2]]},
                   {"image_id": 8, "iscrowd": 1, "segmentation": {"counts": "xyz", "size": [5, 4]}},
                   {"image_id": 7, "segmentation": {"counts": counts, "size": [5, 4]}}]}
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    assert import_labels(path, tmp_path / "labels") == (2, 3)
    a, b = (tifffile.imread(tmp_path / "labels" / f"{name}.tif") for name in "ab")
    assert a.tolist() == [[1] * 4, [1, 2, 2, 1], *[[1] * 4] * 3]
    assert b.T.ravel().tolist() == [0] * 3 + [1] * 2 + [0] * 15
    import_labels(path, tmp_path / "stack.tif", outline=1)
    assert tifffile.imread(tmp_path / "stack.tif").shape == (2, 5, 4)
    content["annotations"][0]["segmentation"] = {"counts": "a1b2", "size": [5, 4]}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"image a cannot be read \(its run lengths are compressed\); export polygons"):
        import_labels(path, tmp_path / "labels")
    path.write_text("{}")
    with pytest.raises(UserError, match="cannot be read as COCO's JSON"):
        import_labels(path, tmp_path / "labels")


def test_numbered_masks_become_membrane_and_cell(tmp_path):
    page = np.zeros((8, 10), np.uint8)
    page[:, :5], page[:, 5:] = 1, 2
    write_png(tmp_path / "masks" / "a.png", page)
    import_labels(tmp_path / "masks", tmp_path / "labels.tif", outline=3)
    assert (tifffile.imread(tmp_path / "labels.tif") == 0).sum(axis=-1).tolist() == [3] * 8


def test_what_is_there_is_not_replaced_and_what_is_missing_is_said(tmp_path, monkeypatch):
    write_stack(tmp_path / "cells.tif", cells())
    tifffile.imwrite(tmp_path / "mine.tif", cells())
    with pytest.raises(UserError, match=r"mine\.tif is there already"):
        import_labels(tmp_path / "cells.tif", tmp_path / "mine.tif")
    (tmp_path / "RoiSet.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"RoiSet\.zip is there already"):
        export_rois(tmp_path / "cells.tif", tmp_path / "RoiSet.zip")
    with pytest.raises(UserError, match="does not say how large its images are; name them with --like"):
        import_labels(tmp_path / "RoiSet.zip", tmp_path / "labels.tif")
    with pytest.raises(UserError, match="cannot be read as ImageJ's ROIs"):
        import_labels(tmp_path / "RoiSet.zip", tmp_path / "labels.tif", tmp_path / "cells.tif")
    with pytest.raises(UserError, match=r"nowhere\.json not found"):
        import_labels(tmp_path / "nowhere.json", tmp_path / "labels.tif")
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(UserError, match=r"roifile, which is not installed: pip install -r requirements-labels\.txt"):
        export_rois(tmp_path / "cells.tif", tmp_path / "other.zip")
    assert not (tmp_path / "labels.tif").exists()


def test_the_commands_say_what_they_did(script, tmp_path):
    write_stack(tmp_path / "cells.tif", cells())
    done = script("datasets.py", "export")
    assert (done.returncode, done.stdout[:28]) == (0, "RoiSet.zip: 11 outlines; in ")
    done = script("datasets.py", "import", "RoiSet.zip", "--like", "cells.tif", "--outline", 5)
    assert done.stdout == ("train-labels.tif: 9 objects in 2 images, cells = 255, membranes = 0 and at least 5 "
                           "pixels wide\n")
