"""Stacks: what was written here is known again, and what is padding is not tissue."""

import numpy as np
import pytest
import tifffile
from conftest import write_png
from numpy.testing import assert_array_equal

from unet.inputs.stacks import is_ours, padding, require_ours, write_stack
from utils import UserError


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
    require_ours(tmp_path)  # a folder is refused elsewhere


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
