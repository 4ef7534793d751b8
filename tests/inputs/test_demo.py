"""The demo stack: its laws (same seed same bytes, closed walls), as varied and hard as tissue is."""

from itertools import pairwise

import numpy as np
import pytest
import tifffile
from scipy import ndimage as ndi
from skimage.morphology import skeletonize

from unet.inputs import demo
from unet.inputs.tissue import Look
from unet.scores import isbi as metrics
from utils import UserError, file_hash

LEAST = Look().least_cell


@pytest.fixture(scope="session")
def sections():
    """Three sections of 256 px: instance maps, labels, tissue."""
    each = demo.demo_sections(3, 256, np.random.default_rng(5), Look())
    return [np.array(part) for part in zip(*each, strict=True)]


@pytest.fixture(scope="session")
def stack(sections):
    """Images and labels of the same sections, as the camera sees them."""
    rng = np.random.default_rng(6)
    return np.array([demo.expose(tissue, Look(), rng) for tissue in sections[2]]), sections[1]


@pytest.fixture
def small(monkeypatch):
    """Demo stacks of noise, in no time: who may write them where is another matter than how they look."""
    monkeypatch.setattr(demo, "demo_stack", lambda slices, size, seed: tuple(
        np.random.default_rng(seed).integers(0, 256, (3, slices, size, size), np.uint8)))


def test_shape_dtype_values():
    images, labels, cells = demo.demo_stack(2, 96, seed=3)
    assert images.shape == labels.shape == (2, 96, 96)
    assert images.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 255}
    assert len(np.unique(images)) > 100
    assert cells.dtype == np.uint16
    np.testing.assert_array_equal(cells > 0, labels == 255)
    assert len(np.intersect1d(cells[0], cells[1])) > 0.5 * len(np.unique(cells[0]))  # they go on through the stack


def test_same_seed_same_bytes():
    first, again, other = (demo.demo_stack(2, 96, seed=s) for s in (1, 1, 2))
    for a, b, c in zip(first, again, other, strict=True):
        assert a.tobytes() == b.tobytes()
        assert a.tobytes() != c.tobytes()


def test_global_seed_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    demo.demo_stack(1, 64)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_make_demo_writes_five_stacks_and_their_mark(tmp_path):
    paths = demo.make_demo(tmp_path / "demo", slices=2, test_slices=1, size=96, seed=4)
    names = {"train-volume.tif": 2, "train-labels.tif": 2, "test-volume.tif": 1, "test-labels.tif": 1,
             "test-cells.tif": 1}
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {*names, demo.DEMO_MARK}
    assert demo.demo_files(tmp_path / "demo") == paths
    images, labels, cells = demo.demo_stack(3, 96, seed=4)
    for name, count in names.items():
        with tifffile.TiffFile(tmp_path / "demo" / name) as file:
            assert file.is_imagej
            assert len(file.pages) == count or file.imagej_metadata["images"] == count
        whole = images if "volume" in name else cells if "cells" in name else labels
        cut = whole[:2] if "train" in name else whole[2:]
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "demo" / name).reshape(cut.shape), cut)


def test_a_demo_replaces_a_demo(tmp_path, small):
    first = [file_hash(path) for path in demo.make_demo(tmp_path, 2, 1, 32)]
    again = [file_hash(path) for path in demo.make_demo(tmp_path, 2, 1, 32, seed=1)]
    assert not set(first) & set(again)
    assert len(demo.demo_files(tmp_path)) == 5


@pytest.mark.parametrize("mark", ["none", "ours", "another's"])
def test_a_demo_never_replaces_somebodys_stacks(tmp_path, small, mark):
    if mark == "ours":
        demo.make_demo(tmp_path, 2, 1, 32)
    elif mark == "another's":
        (tmp_path / demo.DEMO_MARK).write_text("a recording of somebody who demonstrated")
    (tmp_path / "train-labels.tif").write_bytes(b"drawn by hand")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"has train-labels.tif already, not made by .* nothing was replaced; move"):
        demo.make_demo(tmp_path, 2, 1, 32, seed=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert tmp_path / "train-labels.tif" not in demo.demo_files(tmp_path)


def test_a_demo_stopped_between_two_files_is_made_anew(tmp_path, small):
    demo.make_demo(tmp_path, 2, 1, 32)
    (tmp_path / "test-labels.tif").unlink()
    assert len(demo.demo_files(tmp_path)) == 4
    demo.make_demo(tmp_path, 2, 1, 32)
    assert len(demo.demo_files(tmp_path)) == 5


def test_walls_are_closed(sections):
    owners, labels, _ = sections
    for owner, label in zip(owners, labels, strict=True):
        for axis in (0, 1):
            a, b = owner.swapaxes(0, axis), label.swapaxes(0, axis) == 255
            assert not ((a[1:] != a[:-1]) & b[1:] & b[:-1]).any()
        pieces, count = ndi.label(label)
        assert count >= len(np.unique(owner[label == 255]))  # no component holds two cells
        assert np.bincount(pieces.ravel())[1:].min() >= LEAST


def test_every_pixel_belongs_to_a_cell(sections):
    assert sections[0].min() >= 0


def test_membrane_share_and_width(sections):
    labels = sections[1]
    assert 0.15 < (labels == 0).mean() < 0.30  # ISBI: 0.22
    widths = np.concatenate([2 * ndi.distance_transform_edt(x == 0)[skeletonize(x == 0)] for x in labels])
    assert 4 <= np.median(widths) <= 8
    assert np.mean((widths >= 4) & (widths <= 8.5)) > 0.8


def test_membrane_is_darker_than_cell(stack):
    for image, label in zip(*stack, strict=True):
        assert image[label == 255].mean() - image[label == 0].mean() > 30


def test_sizes_vary(stack):
    sizes = np.concatenate([np.bincount(ndi.label(label)[0].ravel())[1:] for label in stack[1]])
    assert np.percentile(sizes, 98) > 20 * np.percentile(sizes, 10)
    assert sizes.max() < 0.4 * 256**2


def test_grey_levels_are_like_isbi(stack):
    assert 110 < stack[0].mean() < 145  # ISBI: 126
    assert 35 < stack[0].std() < 55  # ISBI: 44
    assert np.mean((stack[0] == 0) | (stack[0] == 255)) < 0.02


def test_cells_move_smoothly(stack):
    cells = stack[1] == 255
    for one, following in pairwise(cells):
        iou = (one & following).sum() / (one | following).sum()
        assert 0.6 < iou < 0.95


def test_sections_are_followed_by_their_neighbours(sections):
    """A pixel mostly keeps its cell into the next section, less so over two."""
    owners = sections[0]
    one, two = (owners[0] == owners[1]).mean(), (owners[0] == owners[2]).mean()
    assert 0.7 < two < one < 1


def test_blur_is_no_way_out(stack):
    """sigma 3 and the best threshold: below .90, but above chance: the walls can be seen."""
    images, labels = stack
    blurred = [ndi.gaussian_filter(image / 255, 3) for image in images]
    truth = [ndi.label(label)[0] for label in labels]
    best = max(np.mean([metrics.v_rand(metrics.segments(image > t), cells)[0]
                        for image, cells in zip(blurred, truth, strict=True)]) for t in np.arange(10) / 10)
    assert 0.5 < best < 0.90
