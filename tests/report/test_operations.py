"""Pictures of augmentation show what a run draws: one draw for image and label, in the run's own ranges."""

from dataclasses import replace

import numpy as np
import pytest

from unet.report import operations
from unet.report.by_task import pictures_of
from unet.tasks.task import Options

OPTIONS = Options()
SHOWN_WITH_LABEL = {
    "flips": lambda image, label: operations.show_flips(image, label),
    "elastic": lambda image, label: operations.show_elastic(image, label, OPTIONS, np.random.default_rng(0)),
    "crops": lambda image, label: operations.show_crops(image, label, OPTIONS),
    "pads": lambda image, label: operations.show_pads(image, label, OPTIONS),
}


def arrays(figure):
    """The arrays of a figure's panels, in order; colour bars left out."""
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


def caption(figure):
    return " ".join(figure.get_supxlabel().split())


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.images]


@pytest.mark.parametrize("name", SHOWN_WITH_LABEL)
def test_image_and_label_are_moved_by_one_draw(name):
    # an image of two levels, so wide apart that interpolation never crosses the middle but at their border
    label = np.kron(np.random.default_rng(1).integers(0, 2, (8, 8)), np.ones((16, 16), int)).astype(np.uint8) * 255
    both = arrays(SHOWN_WITH_LABEL[name](label, label))
    images, labels = both[:len(both) // 2], both[len(both) // 2:]
    assert len(images) == len(labels) >= 4
    for image, moved in zip(images, labels, strict=True):
        assert np.mean((image > 127) == (moved > 0)) > 0.98
    assert any(not np.array_equal(images[0], image) for image in images[1:])


@pytest.mark.parametrize("name", SHOWN_WITH_LABEL)
def test_labels_in_colours_are_moved_like_the_image(name, rng):
    label = np.kron(rng.integers(0, 2, (8, 8)), np.ones((16, 16), int)).astype(np.uint8) * 255
    gray = arrays(SHOWN_WITH_LABEL[name](label, label))
    colour = arrays(SHOWN_WITH_LABEL[name](np.dstack([label] * 3), np.dstack([label] * 3)))
    for one, other in zip(gray, colour, strict=True):
        np.testing.assert_array_equal(np.dstack([one] * 3), other)


def test_noise_is_what_is_drawn_and_what_is_stronger_says_so():
    gray = np.full((128, 128), 128, np.uint8)
    options = replace(OPTIONS, gaussian_sd=(2.0, 8.0), uniform_intensity=(4.0, 9.0))
    figure = operations.show_noise(gray, options, np.random.default_rng(0))
    gaussian, uniform = np.array_split(arrays(figure), 2)
    assert [array.std() for array in gaussian[1:3]] == [pytest.approx(2, rel=0.1), pytest.approx(8, rel=0.05)]
    assert [abs(array.astype(int) - 128).max() for array in uniform[1:]] == [4, 9, 72]
    assert ["stronger than in this run" in title for title in titles(figure)] == [False, False, False, True] * 2
    assert "One copy in 4 " in caption(figure)


def test_brightness_goes_as_far_as_is_drawn():
    figure = operations.show_brightness(np.full((16, 16), 100, np.uint8), OPTIONS)
    assert [array[0, 0] for array in arrays(figure)] == [100, 85, 115, 145]
    assert titles(figure)[3].endswith("stronger than in this run")


def test_elastic_deformations_are_the_ends_of_what_is_drawn(tiny_stacks):
    options = replace(OPTIONS, elastic_alpha=(1.0, 3.0), elastic_sigma=(10.0, 40.0))
    shown = titles(operations.show_elastic(tiny_stacks[0][0], tiny_stacks[1][0], options, np.random.default_rng(0)))
    assert shown[1:3] == ["alpha 1 px, sigma 40 px", "alpha 3 px, sigma 10 px"]
    assert "stronger" in shown[3]


def test_crops_say_how_often_they_are_drawn(tiny_stacks):
    figure = operations.show_crops(tiny_stacks[0][0], tiny_stacks[1][0], OPTIONS)
    assert "One copy in 10 is cropped, at a corner or anywhere, to 0.6 (shown)" in caption(figure)
    assert arrays(figure)[1].shape == (38, 38)
    never = operations.show_crops(tiny_stacks[0][0], tiny_stacks[1][0], replace(OPTIONS, crop_probability=0.0))
    assert "This run makes no crops." in caption(never)


def test_pages_are_those_of_the_file_with_the_manifests_words(runs):
    for run in runs.values():
        number = len(run.pages) - 1
        figure = operations.show_pages(run, pictures_of(run.task), [0, number])
        image, label, levels = run.page(number)
        normalised, shown = run.task.normalise(image, levels), arrays(figure)[1]
        np.testing.assert_array_equal(normalised if shown.ndim == 3 else normalised.reshape(*shown.shape, -1)[..., 0],
                                      shown)
        np.testing.assert_array_equal(arrays(figure)[3], pictures_of(run.task).label_picture(label))
        original, copy = titles(figure)[:2]
        assert "flip" not in original
        flip = run.manifest["samples"][number]["operations"][0]
        assert f"page {number}, of {run.manifest['samples'][number]['name']}\nflip: {flip['how']}\n" in copy


def test_an_operation_in_words():
    assert operations.describe_operation({"operation": "elastic", "alpha": 3.1234, "sigma": 40.0}) == \
        "elastic: alpha 3.12, sigma 40"
    assert operations.describe_operation({"operation": "crop and pad", "where": "random", "corner": [3, 4]}) == \
        "crop and pad: random, corner [3, 4]"


def test_a_batch_is_shown_as_the_network_gets_it(runs):
    images = np.linspace(-20, 300, 2 * 16 * 16, dtype=np.float32).reshape(2, 16, 16, 1)
    labels = np.zeros((2, 16, 16, 1), np.float32)
    labels[:, :8] = 1
    shown = arrays(operations.show_batch(pictures_of(runs["cells"].task), (images, labels, 2 * labels[..., 0])))
    assert (shown[0][0, 0], shown[1][-1, -1]) == (0, 255)  # clipped to be shown
    np.testing.assert_array_equal(shown[2], labels[0, ..., 0] * 255)
    np.testing.assert_array_equal(shown[4], 2 * labels[0, ..., 0])
    classes = arrays(operations.show_batch(pictures_of(runs["classes"].task), (images, 2 * labels)))
    assert classes[2][0, 0].tolist() == [0, 158, 115]
