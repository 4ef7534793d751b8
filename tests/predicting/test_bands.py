"""An image by bands of rows: the same probability, walls and cells as the whole, however high the bands are."""

import numpy as np
import pytest
import tifffile
from conftest import draw_stacks
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from unet.engines.predictor import Limits, Predictor
from unet.inputs import lazy
from unet.inputs.layouts import StackSamples
from unet.inputs.stacks import read_stack, write_stack
from unet.network import Network
from unet.predicting import bands
from unet.predicting.bands import Bands, map_bands, number_by_bands, pieces_by_bands, segment_by_bands
from unet.predicting.checkpoint import Checkpoint
from unet.predicting.extras import Extras
from unet.predicting.images import predictions
from unet.scores.isbi import components
from unet.segment.instances import NUCLEUS, separate_nuclei
from unet.segment.walls import draw_walls, number_cells
from unet.tasks import task
from unet.tasks.cells import Cells
from unet.tasks.classes import Classes
from unet.tasks.nuclei import Nuclei
from unet.tasks.of_images import CellImages, ClassImages
from unet.tasks.task import Outputs

LEARNT = {"walls": {"width": 4.0, "judge": None}, "threshold": 0.5, "on": [0]}


class Bright:
    """A stand-in for an engine: the brightness within two pixels, nothing beyond the tile; stops at call `stop`."""

    def __init__(self, stop=None):
        self.calls, self.stop = 0, stop

    def __call__(self, tiles):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        height, width = tiles.shape[1:3]
        grey = np.pad(tiles.astype(np.float32), ((0, 0), (2, 2), (2, 2), (0, 0)))
        near = sum(grey[:, y:y + height, x:x + width] for y in (0, 2, 4) for x in (0, 2, 4)) / 9
        return np.clip((near - 90) / 70, 0, 1)


def stored(folder, array, step):
    """Save an array as `Bands`."""
    result = Bands(folder, array.shape, array.dtype, step)
    for first, last in result.spans():
        result.put(first, array[first:last])
    return result


def same_objects(one, other):
    """Tell whether two label maps number the same objects, except for pixels on borders and specks beside them."""
    cell = (one > 0) & (other > 0)
    pairs, shared = np.unique(np.stack([one[cell], other[cell]]), axis=1, return_counts=True)
    pairs = pairs[:, shared > 12]
    assert np.count_nonzero((one > 0) != (other > 0)) < 0.02 * one.size
    return len(pairs[0]) == len(set(pairs[0])) == len(set(pairs[1]))


@pytest.fixture
def predictor():
    """Return a predictor of eight flips with a network of stride 4, in small tiles."""
    return Predictor(Bright(), Network(4, 2), Cells(), flips=8, limits=Limits(core=40, pixels=1))


@pytest.fixture
def image():
    """Draw a slice (201, 190) of cells that a wandering membrane divides."""
    return draw_stacks(1, 201)[0][0][:, :190]


def test_bands_give_rows_as_an_array_does(tmp_path):
    array = np.arange(10 * 3).reshape(10, 3)
    rows = stored(tmp_path, array, 4)
    for part in (slice(0, 10), slice(3, 5), slice(4, 8), slice(7, 20), slice(10, 12), slice(None, 2)):
        assert_array_equal(rows[part], array[part])
    assert_array_equal(np.asarray(rows, np.uint16), array)
    assert (rows.max(), rows.ndim, len(rows), list(rows.spans())) == (29, 2, 10, [(0, 4), (4, 8), (8, 10)])
    (tmp_path / "00000004.npy").write_bytes(b"")
    assert rows.get(4) is None


@pytest.mark.parametrize("step", [24, 40, 300])
def test_rows_are_predicted_as_in_the_whole(predictor, image, step):
    levels = predictor.task.levels(image)
    whole = predictor(image)
    rows = [predictor.rows(image, levels, first, min(first + step, 201)) for first in range(0, 201, step)]
    assert_allclose(np.concatenate(rows), whole, atol=1e-6)


class Pooled:
    """A stand-in for an engine: the mean of squares of 4 x 4 pixels, as a network pools, on the grid of its tile."""

    def __call__(self, tiles):
        small = tiles.reshape(len(tiles), tiles.shape[1] // 4, 4, tiles.shape[2] // 4, 4, 1).mean(axis=(2, 4))
        return (small.repeat(4, axis=1).repeat(4, axis=2) / 255).astype(np.float32)


@pytest.mark.parametrize("flips", [1, 2, 8])
@pytest.mark.parametrize("shape", [(200, 188), (201, 190), (203, 188)], ids=str)
def test_parts_are_predicted_as_in_the_whole_by_a_network_that_pools(image, flips, shape):
    predictor = Predictor(Pooled(), Network(4, 2), Cells(), flips=flips, limits=Limits(core=40))
    image = np.pad(image, ((0, 2), (0, 0)))[:shape[0], :shape[1]]
    levels, margin = Cells().levels(image), Network(4, 2).margin + 4
    whole = predictor(image)
    rows = [predictor.rows(image, levels, first, min(first + 80, shape[0])) for first in range(0, shape[0], 80)]
    assert_allclose(np.concatenate(rows), whole, atol=1e-6)
    top, left = max(80 - margin, 0), max(120 - margin, 0)
    block = predictor.block(image[top:, left:], levels, (80 - top, 120 - left), (64, shape[1] - 120))
    assert_allclose(block, whole[80:144, 120:], atol=1e-6)


def test_rows_are_predicted_where_memory_runs_out(image):
    class Small(Bright):
        def __call__(self, tiles):
            if tiles.size > (44 + 2 * Network(4, 2).margin) ** 2:
                raise MemoryError
            return super().__call__(tiles)

    one = Predictor(Small(), Network(4, 2), Cells(), flips=2, limits=Limits(core=80))
    levels = one.task.levels(image)
    rows = one.rows(image, levels, 80, 160)
    assert one.limits.core <= 40
    assert_allclose(rows, one(image)[80:160], atol=1e-6)


@pytest.mark.parametrize("height", [16, 37, 64, 150, 400])
def test_walls_and_numbers_do_not_depend_on_the_bands(tmp_path, predictor, image, height):
    probability = predictor(image)
    whole = draw_walls(probability, LEARNT["walls"])
    redrawn = map_bands(stored(tmp_path / "p", probability, 50), lambda rows: draw_walls(rows, LEARNT["walls"]),
                        tmp_path / "r", height, overlap=120)
    assert_allclose(np.asarray(redrawn), whole, atol=1e-6)
    cells = np.asarray(number_by_bands(redrawn, lambda rows: rows > 0.5, tmp_path / "c", height, overlap=60))
    assert same_objects(cells, number_cells(whole, 0.5))
    assert sorted(np.unique(cells)) == list(range(cells.max() + 1))


def test_an_object_that_comes_and_goes_over_many_bands_is_one(tmp_path):
    """Number a comb whose teeth meet only at the bottom, an upside-down U and a dot: three objects in any bands."""
    cell = np.zeros((60, 40), np.float32)
    cell[2:58, 2:20:4] = cell[56:58, 2:20] = 1
    cell[2:4, 24:34] = cell[2:40, 24:26] = cell[2:40, 32:34] = cell[50, 30] = 1
    for height in (1, 7, 30, 60):
        cells = np.asarray(number_by_bands(stored(tmp_path / f"p{height}", cell, 9), lambda rows: rows > 0,
                                           tmp_path / f"c{height}", height, overlap=60))
        pairs = np.unique(np.stack([cells, components(cell > 0)])[:, cell > 0], axis=1)
        assert pairs.shape == (2, 3) and cells.max() == 3, height
        assert set(pairs[0]) == {1, 2, 3}


def test_a_large_image_is_predicted_by_bands_and_goes_on_where_it_was_stopped(tmp_path, image, monkeypatch):
    write_stack(tmp_path / "in.tif", np.stack([image, image[::-1]]))
    monkeypatch.setattr(bands, "OVERLAP", 120)

    def predict(name, engine, resume=False):
        outputs = Outputs(tmp_path / f"{name}.tif", tmp_path / f"{name}-cells.tif", tmp_path / f"{name}-walls.tif")
        one = Predictor(engine, Network(4, 2), Cells(), flips=2, limits=Limits(core=40, pixels=1))
        kept = None if resume is None else Checkpoint(outputs.out, {}, resume)
        for _ in predictions(one, Cells(), StackSamples(tmp_path / "in.tif"), LEARNT, outputs,
                             extras=Extras(table=tmp_path / f"{name}.csv", checkpoint=kept)):
            pass
        return engine.calls

    predict("whole", Bright())
    monkeypatch.setattr(task, "LARGE_IMAGE", 200 * 150)
    monkeypatch.setattr(bands, "BAND_PIXELS", 190 * 40)
    calls = predict("bands", Bright(), None)
    with pytest.raises(KeyboardInterrupt, match="same command with --resume"):
        predict("stopped", Bright(stop=calls - 9))
    assert predict("stopped", Bright(), resume=True) < calls / 2
    for name in ("bands", "stopped"):
        for end in (".tif", "-walls.tif"):
            assert_allclose(read_stack(tmp_path / f"{name}{end}"), read_stack(tmp_path / f"whole{end}"), atol=1e-6)
        for one, other in zip(*(read_stack(tmp_path / f"{run}-cells.tif") for run in (name, "whole")), strict=True):
            assert same_objects(one, other)
        cells = read_stack(tmp_path / f"{name}-cells.tif")
        assert len((tmp_path / f"{name}.csv").read_text().splitlines()) == 1 + sum(map(np.max, cells))
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def same_partition(one, other):
    """Tell whether two label maps have the same objects, whatever their numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(set(pairs[0])) == len(set(pairs[1])) == pairs.shape[1] and ((one > 0) == (other > 0)).all()


@pytest.fixture
def blobs():
    """Draw a probability (201, 150) of touching and faint nuclei, a ring around another, and one 155 rows long."""
    rng = np.random.default_rng(3)
    noise = gaussian_filter(rng.normal(0, 1, (201, 150)), 3)
    probability = np.clip(0.5 + 9 * noise, 0, 1).astype(np.float32)
    y, x = np.indices(probability.shape)
    away = np.hypot(y - 100, x - 50)
    probability[away < 40] = 0
    probability[(away < 36) & (away > 30) | (away < 8)] = 0.9
    probability[20:175, 120:126] = 0.9
    return probability


@pytest.mark.parametrize("height", [1, 16, 37, 64, 150, 400])
@pytest.mark.parametrize("overlap", [2, 60])
def test_nuclei_do_not_depend_on_the_bands(tmp_path, blobs, height, overlap):
    whole = separate_nuclei(blobs)
    assert whole.max() > 20
    cells = np.asarray(segment_by_bands(stored(tmp_path / "p", blobs, 50), lambda rows: rows > NUCLEUS,
                                        separate_nuclei, tmp_path / "c", height, overlap))
    assert same_partition(cells, whole)
    assert sorted(np.unique(cells)) == list(range(cells.max() + 1))


@pytest.mark.parametrize("height", [1, 16, 37, 150, 400])
def test_pieces_of_classes_do_not_depend_on_the_bands(tmp_path, blobs, height):
    three = np.stack([blobs, blobs[::-1], blobs[:, ::-1]], axis=-1)
    given = Classes(3)
    cells = np.asarray(pieces_by_bands(stored(tmp_path / "p", three, 50), lambda rows: given.inside(rows, {}),
                                       tmp_path / "c", height))
    assert same_partition(cells, given.segment(three, {}))


@pytest.mark.parametrize("one", [Classes(3), Nuclei(), ClassImages(3), CellImages()], ids=lambda one: one.name)
def test_all_tasks_predict_a_large_image_as_they_do_a_small_one(tmp_path, image, monkeypatch, one):
    tifffile.imwrite(tmp_path / "in.tif", image)
    monkeypatch.setattr(bands, "OVERLAP", 120)
    shares = np.array([0.2, 0.5, 0.3], np.float32)

    def engine(tiles):
        grey = Bright()(tiles).mean(axis=-1, keepdims=True)
        several = np.concatenate([1 - grey, grey * grey, grey - grey**2], axis=-1) * shares
        return grey**6 if one.classes == 1 else several

    network = Network(4, 2, classes=one.classes)
    levels = one.levels(image if one.channels == 1 else np.repeat(image[..., None], 3, axis=2))
    monkeypatch.setattr(type(one), "levels", lambda *_: levels)  # those of every k-th pixel are a little others

    def predict(name):
        out = one.outputs(tmp_path / (f"{name}.tif" if one.channels == 1 else name))
        predictor = Predictor(engine, network, one, flips=2, limits=Limits(core=40, pixels=1))
        for _ in predictions(predictor, one, one.inputs(tmp_path / "in.tif"), {"walls": None, "threshold": 0.5}, out,
                             extras=Extras(table=tmp_path / f"{name}.csv")):
            pass
        files = [np.squeeze(tifffile.imread(path)) for path in one.files(out, ["in"])]
        return files, (tmp_path / f"{name}.csv").read_text()

    (whole, *objects), table = predict("whole")
    monkeypatch.setattr(task, "LARGE_IMAGE", 200 * 150)
    monkeypatch.setattr(lazy, "LARGE_PAGE", 200 * 150)
    monkeypatch.setattr(bands, "BAND_PIXELS", 190 * 40)
    assert isinstance(one.inputs(tmp_path / "in.tif")[0].image, lazy.PageRows)
    (banded, *numbers), other = predict("bands")
    assert_allclose(banded, whole, atol=1e-6)
    assert banded.std() > 0.05
    for mine, theirs in zip(numbers, objects, strict=True):
        assert same_objects(mine, theirs)
        assert mine.dtype == np.uint32
    assert len(table.splitlines()) == len(other.splitlines()) > 2
