"""The feed: every tile once a pass, image and label alike, the same at a step wherever a run begins."""

import numpy as np
import pytest
from training.tiny import write_patches

from unet.training import feed as feed_module
from unet.training.feed import Feed, apply_symmetry, shuffled, vary_grey_levels


@pytest.fixture
def patches(tmp_path):
    """Ten tiles, each of one grey level, its own number, in the corner of an otherwise empty image."""
    folder = write_patches(tmp_path) / "patches"
    for name in ("images", "labels"):
        tiles = np.load(folder / f"train-{name}.npy", mmap_mode="r+")
        tiles[:] = 0
        tiles[:, 0, 1] = np.arange(1, 11)
        tiles.flush()
    return folder


def test_each_pass_takes_every_tile_once_in_an_order_of_its_own(patches):
    feed = Feed(patches, 4, seed=3)
    numbers = [image.max() for step in range(5) for image in feed[step][0]]  # 20 samples: two passes
    assert numbers == [*shuffled(10, 3, 0) + 1, *shuffled(10, 3, 1) + 1]
    assert sorted(numbers[:10]) == sorted(numbers[10:]) == list(range(1, 11))
    assert numbers[:10] != numbers[10:]


def test_image_and_label_are_turned_alike_in_all_eight_ways(patches):
    feed = Feed(patches, 8)
    corners = set()
    for step in range(10):
        images, labels = feed[step]
        assert (images.shape, labels.shape, images.dtype) == ((8, 16, 16, 1), (8, 16, 16, 1), np.float32)
        np.testing.assert_array_equal(images, labels)
        corners |= {tuple(np.argwhere(image)[0][:2]) for image in images}
    assert corners == {(0, 1), (1, 0), (0, 14), (1, 15), (14, 0), (15, 1), (14, 15), (15, 14)}


def test_a_feed_from_any_step_goes_on_as_the_one_from_the_first(patches):
    feed = Feed(patches, 3, seed=5, intensity=0.5)
    batches = list(feed.from_step(0, 9).as_numpy_iterator())
    assert len(batches) == 9
    for step, later in enumerate(Feed(patches, 3, seed=5, intensity=0.5).from_step(4, 9).as_numpy_iterator(), 4):
        for array, expected, direct in zip(later, batches[step], feed[step], strict=True):
            np.testing.assert_array_equal(array, expected)
            np.testing.assert_array_equal(array, direct)
    assert not np.array_equal(Feed(patches, 3, seed=6, intensity=0.5)[4][0], batches[4][0])


@pytest.mark.parametrize("readers", [1, 3, 16])
def test_batches_are_the_same_and_in_order_whatever_the_number_of_readers(patches, readers, monkeypatch):
    monkeypatch.setattr(feed_module, "READERS", readers)
    feed = Feed(patches, 3, seed=5, intensity=0.5)
    batches = list(feed.from_step(0, 40).as_numpy_iterator())
    assert len(batches) == 40
    for step, batch in enumerate(batches):
        for array, expected in zip(batch, feed[step], strict=True):
            np.testing.assert_array_equal(array, expected)


def test_only_tiles_of_the_sources_that_are_kept(patches):
    feed = Feed(patches, 4, keep=[1, 3])  # tile i is of source i % 5
    assert {image.max() for image in feed[0][0]} == {1 + 1, 3 + 1, 6 + 1, 8 + 1}
    images, labels = Feed(patches, 4, keep=[0, 4]).plain_tiles(most=3)
    assert images.max(axis=(1, 2, 3)).tolist() == labels.max(axis=(1, 2, 3)).tolist() == [1, 5, 6]
    assert (images.shape, images.dtype, labels.dtype) == ((3, 16, 16, 1), np.uint8, np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_come_in_the_type_they_were_written_in(tmp_path, dtype):
    value = dtype(6e4 if dtype is np.float16 else 166_667.0)  # of a class of 3 in a million, beyond float16
    folder = write_patches(tmp_path, side=20, label=12, channels=3, weights=value) / "patches"
    images, labels, weights = next(Feed(folder, 2).from_step(0, 1).as_numpy_iterator())
    assert (images.shape, labels.shape, weights.shape) == ((2, 20, 20, 3), (2, 12, 12, 1), (2, 12, 12))
    assert weights.dtype == np.float32
    assert (weights == value).all()


def test_a_turn_by_hand():
    square = np.array([[1, 2], [3, 4]])
    assert apply_symmetry(square, 0).tolist() == [[1, 2], [3, 4]]
    assert apply_symmetry(square, 1).tolist() == [[2, 4], [1, 3]]
    assert apply_symmetry(square, 4).tolist() == [[2, 1], [4, 3]]
    assert len({apply_symmetry(square, turn).tobytes() for turn in range(8)}) == 8


class Draws:
    """A generator whose uniform draws are named beforehand, and whose normal ones are all 1."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def uniform(self, low, high, count):
        return np.array([self.draws.pop(0) for _ in range(count)])

    def standard_normal(self, shape, dtype):
        return np.ones(shape, dtype)


def test_intensity_by_hand():
    image = np.array([[[0], [127]], [[200], [255]]], np.uint8)
    scaled = (image + 0.5) / 256
    for draws, expected in (((0, 0, 0, 0), 255 * scaled),
                            ((1, 0, 0, 0), 255 * scaled ** np.exp(0.35)),  # gamma
                            ((0, -1, 0, 0), (255 * scaled - 128) * np.exp(-0.35) + 128),  # contrast
                            ((0, 0, 1, 0), 255 * scaled + 20),  # brightness
                            ((0, 0, 0, -0.5), 255 * scaled + 6)):  # noise
        changed = vary_grey_levels(image, 1.0, Draws(*draws))
        np.testing.assert_allclose(changed, expected, rtol=1e-6)
        assert changed.dtype == np.float32
    colours = vary_grey_levels(np.repeat(image, 3, axis=2), 1.0, Draws(0, 0, 0, 0, -1, 0, 1))
    np.testing.assert_allclose(colours, 255 * scaled * np.exp([-0.22, 0, 0.22]), rtol=1e-6)


def test_intensity_stays_within_its_strength():
    image = np.full((64, 64, 1), 128, np.uint8)
    for seed in range(20):
        changed = vary_grey_levels(image, 0.4, np.random.default_rng(seed))
        assert abs(changed.mean() - 128) < 25
        assert changed.std() < 0.4 * 12 * 1.1
