"""Nuclei: windows that cover all and move by one draw, levels of whole images, rare modalities seen often, files."""

import json
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import tifffile
from conftest import draw_nuclei, write_png
from numpy.testing import assert_array_equal

from augmentation import Settings, augment, augment_pair
from preprocessing import preprocess
from unet.inputs import pages
from unet.inputs.layouts import Subset, layout_of
from unet.inputs.samples import Sample
from unet.segment.instances import separate_nuclei
from unet.tasks import images
from unet.tasks.nuclei import LEAST_SPAN, Nuclei, separate_touching, squeeze
from unet.tasks.task import Options, Outputs, Prediction
from utils import UserError

NUCLEI = Nuclei(window_side=48)


def sample(shape=(64, 64), modality="fluorescence", seed=0):
    return Sample(f"{modality}{seed}", *draw_nuclei(shape, modality, seed), modality)


# ----------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("shape", [(48, 48), (64, 64), (49, 130), (20, 90), (7, 5)])
def test_windows_cover_every_pixel_at_its_own_resolution(shape):
    one = sample(shape)
    covered = np.zeros(shape, int)
    for image, label, where in NUCLEI.pages(one):
        y, x = where["corner"]
        assert (image.shape, label.shape, label.dtype) == ((48, 48, 3), (48, 48), np.uint16)
        inside = np.s_[max(0, -y):min(48, shape[0] - y), max(0, -x):min(48, shape[1] - x)]
        there = np.s_[max(0, y):y + 48, max(0, x):x + 48]
        assert_array_equal(image[inside], one.image[there])
        assert_array_equal(label[inside], one.label[there])
        covered[there] += 1
    assert covered.min() >= 1
    assert covered.max() <= 2 ** sum(side > 48 for side in shape)


def test_a_small_image_lies_in_the_middle_of_its_mirror_image():
    image = np.arange(1, 4, dtype=np.uint8).reshape(1, 3, 1).repeat(3, axis=2)
    [(page, _, where)] = Nuclei(window_side=7).pages(Sample("a", image, image[..., 0]))
    assert where == {"corner": [-3, -2]}
    assert page[..., 0].tolist() == [[3, 2, 1, 2, 3, 2, 1]] * 7


def test_around_a_window_is_the_image_and_beyond_it_its_mirror_image():
    one = sample((200, 100))
    for seed in range(5):
        image, label, where = NUCLEI.window(one, np.random.default_rng(seed))
        y, x = where["corner"]
        assert 0 <= y <= 200 - 48
        assert 0 <= x <= 100 - 48
        context = (len(image) - 48) // 2
        assert context >= 48 * (2**0.5 / NUCLEI.options.zoom[0] - 1) / 2  # what the largest turn looks at
        whole = np.pad(one.label, 200, mode="reflect")  # the edge pixel is not repeated
        assert_array_equal(label, whole[y + 200 - context:, x + 200 - context:][:48 + 2 * context, :48 + 2 * context])
        assert_array_equal(image[context:-context, context:-context], one.image[y:y + 48, x:x + 48])


def test_image_and_label_of_a_window_move_by_one_draw():
    """The label goes in as the image: wherever linear interpolation mixes nothing, both come out alike."""
    quiet = replace(NUCLEI.options, turn_probability=1, elastic_probability=1, brightness=0, noise_probability=0)
    for seed in range(20):
        label = draw_nuclei((70, 52), seed=seed)[1]
        as_image = np.repeat((label[..., None] > 0) * np.uint8(200), 3, axis=2)
        rng = np.random.default_rng(seed)
        image, moved, _ = NUCLEI.window(Sample("a", as_image, label), rng)
        image, moved, record = augment_pair(image, moved, rng, quiet, (48, 48))
        assert image.shape == (48, 48, 3)
        assert (moved.shape, moved.dtype) == ((48, 48), np.uint16)
        assert set(np.unique(moved)) <= set(np.unique(label))
        pure = (image[..., 0] == 0) | (image[..., 0] == 200)
        assert pure.mean() > 0.5
        assert_array_equal(image[pure][:, 0] > 0, moved[pure] > 0)
        assert [step["operation"] for step in record[:3]] == ["flip", "turn and zoom", "elastic"]


def test_a_window_without_geometry_is_a_part_of_the_image():
    still = Options(turn_probability=0, elastic_probability=0, crop_probability=0, brightness=0, noise_probability=0)
    one, rng = sample((90, 120)), np.random.default_rng(2)
    image, label, where = NUCLEI.window(one, rng)
    image, label, record = augment_pair(image, label, rng, still, (48, 48))
    y, x = where["corner"]
    turn = {"none": np.s_[:, :], "vertical": np.s_[::-1], "horizontal": np.s_[:, ::-1], "both": np.s_[::-1, ::-1]}
    assert_array_equal(image, one.image[y:y + 48, x:x + 48][turn[record[0]["how"]]])
    assert_array_equal(label, one.label[y:y + 48, x:x + 48][turn[record[0]["how"]]])


def test_rare_modalities_are_seen_often():
    sizes = [sample().image.shape[:2]] * 19 + [(96, 96)]
    groups = ["fluorescence"] * 15 + ["histology"] * 4 + ["bright-field"]
    copies = NUCLEI.copies(sizes, groups, 10)
    assert sum(copies) == pytest.approx(200, rel=0.06)
    sums = sum(copies[:15]), sum(copies[15:19]), copies[19]
    assert sums[1] == pytest.approx(sums[0] * 2 / 15**0.5, rel=0.1)
    assert sums[2] == pytest.approx(sums[0] / 15**0.5, rel=0.1)
    assert NUCLEI.copies(sizes, groups, 0) == [0] * 20
    assert sum(NUCLEI.copies(sizes, groups, 0.25)) == 5
    larger = NUCLEI.copies([(48, 48), (192, 192)], ["", ""], 20)
    assert larger[1] == 4 * larger[0]  # sixteen windows


# ------------------------------------------------------------------------------------------------------ levels


@pytest.mark.parametrize("modality", ["fluorescence", "histology", "bright-field"])
def test_nuclei_are_bright_after_normalisation(modality):
    image, label = draw_nuclei((64, 64), modality)
    normal = NUCLEI.normalise(image, NUCLEI.levels(image))
    assert normal[label > 0].mean() > 180
    assert normal[label == 0].mean() < 60


def test_levels_are_percentiles_of_the_whole_image_by_hand():
    ramp = np.repeat(np.arange(100, 200, dtype=np.uint8)[:, None, None], 3, axis=2)
    dark = np.concatenate([ramp, np.full((3, 1, 3), 100, np.uint8)])  # the median nearer to the darkest
    levels = NUCLEI.levels(dark)
    assert levels == {"inverted": False, "low": [100] * 3, "high": [199] * 3}
    assert NUCLEI.normalise(dark, levels)[[0, 33, 99], 0, 0].tolist() == [0, 85, 255]
    crop = dark[40:60]  # the image's levels, not the crop's
    assert_array_equal(NUCLEI.normalise(crop, levels), NUCLEI.normalise(dark, levels)[40:60])
    bright = np.concatenate([ramp, np.full((3, 1, 3), 199, np.uint8)])
    levels = NUCLEI.levels(bright)
    assert levels == {"inverted": True, "low": [56] * 3, "high": [155] * 3}
    assert NUCLEI.normalise(bright, levels)[[0, 99], 0, 0].tolist() == [255, 0]


def test_an_empty_image_stays_quiet(rng):
    image = rng.integers(3, 6, (40, 40, 1), np.uint8).repeat(3, axis=2)
    levels = NUCLEI.levels(image)
    assert levels["high"][0] - levels["low"][0] == LEAST_SPAN
    assert NUCLEI.normalise(image, levels).max() < 64


# ------------------------------------------------------------------------------------------------------ targets


def test_touching_nuclei_come_apart_by_hand():
    label = np.array([[1, 1, 2, 2, 0], [1, 1, 0, 2, 0], [0, 0, 0, 0, 3], [0, 4, 4, 0, 0]], np.uint16)
    apart = [[1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0]]
    assert separate_touching(label).astype(int).tolist() == NUCLEI.target(label).tolist() == apart
    assert_array_equal(NUCLEI.regions(label), np.where(apart, label, 0))
    assert not separate_touching(np.zeros((3, 3), np.uint16)).any()
    assert separate_touching(np.full((3, 3), 7, np.uint16)).all()
    assert NUCLEI.target(label).dtype == np.uint8
    assert_array_equal(Nuclei(resize=4).target(label), label > 0)


# ------------------------------------------------------------------------------------------------------ the split


@dataclass
class Named:
    """As much of a layout as a split looks at."""

    names: list
    groups: list

    def __len__(self):
        return len(self.names)


def test_the_split_takes_a_tenth_of_each_modality():
    groups = ["fluorescence"] * 98 + ["histology"] * 19 + ["bright-field"] * 3
    layout = Named([f"{number:03}" for number in range(120)], groups)
    held_out = NUCLEI.split(layout, None, 0)
    assert Counter(groups[number] for number in held_out) == {"fluorescence": 10, "histology": 2, "bright-field": 1}
    assert held_out == NUCLEI.split(layout, None, 0) == sorted(set(held_out))
    assert held_out != NUCLEI.split(layout, None, 1)
    assert NUCLEI.split(Named(["a"], ["histology"]), None, 0) == []
    assert len(NUCLEI.split(Named(["a", "b"], ["histology"] * 2), None, 0)) == 1


def test_the_split_by_name():
    layout = Named(["ab1", "ab2", "cd", "cde"], ["fluorescence"] * 4)
    assert NUCLEI.split(layout, "none", 0) == []
    assert NUCLEI.split(layout, "ab2, cd", 0) == [1, 2]  # cd is one's whole name
    for wrong, reason in (("ab", "2 labelled"), ("x", "0 labelled"), ("", "0 labelled"),
                          ("ab1,ab2,cd,cde", "all 4"), ("25-29", "0 labelled images' names")):
        with pytest.raises(UserError, match=reason):
            NUCLEI.split(layout, wrong, 0)


# -------------------------------------------------------------------------------------------------- step 1 and 2


def test_windows_come_first_and_the_holdout_is_never_copied(nuclei_folder, tmp_path):
    manifest = augment(nuclei_folder, tmp_path, Settings(copies=3, workers=1, window=48))
    on_disk = json.loads((tmp_path / "augmented" / "manifest.json").read_text())
    assert {key: on_disk[key] for key in manifest} == json.loads(json.dumps(manifest))
    assert (on_disk["layout"], on_disk["task"]) == ("folders", {"name": "nuclei", "window_side": 48, "resize": None})
    images, labels = (tifffile.imread(tmp_path / "augmented" / f"{name}.tif") for name in ("images", "labels"))
    assert images.shape == tuple(manifest["shape"]) == (*labels.shape, 3)
    assert labels.dtype == np.uint16
    sources = manifest["sources"]
    assert [source["name"] for source in sources] == ["brig0", "brig1", "fluo0", "fluo1", "fluo2", "fluo3", "hist0",
                                                      "hist1"]
    held_out = manifest["split"]["holdout"]
    assert {sources[number]["group"] for number in held_out} == {"bright-field", "fluorescence", "histology"}
    originals = [page for page in on_disk["samples"] if not page["operations"]]
    assert [page["page"] for page in originals] == list(range(len(originals)))
    assert {page["source"] for page in originals} == set(range(8))
    copies = Counter(page["source"] for page in on_disk["samples"][len(originals):])
    assert copies == {number: source["copies"] for number, source in enumerate(sources) if number not in held_out}
    # the manifest's seed makes the page again
    page, layout = on_disk["samples"][len(originals) + 5], layout_of(nuclei_folder)
    rng, one = np.random.default_rng(page["seed"]), layout[page["source"]]
    image, label, where = NUCLEI.window(one, rng)
    image, label, record = augment_pair(image, label, rng, NUCLEI.options, (48, 48),
                                        NUCLEI.grey_level(sources[page["source"]]["levels"]))
    assert (where["corner"], record, one.name) == (page["corner"], page["operations"], page["name"])
    assert_array_equal(image, images[page["page"]])
    assert_array_equal(label, labels[page["page"]])


def test_squeezed_images_are_the_recipes_own(nuclei_folder, tmp_path):
    manifest = augment(nuclei_folder, tmp_path, Settings(workers=1, resize=32))
    assert manifest["shape"] == [8, 32, 32, 3]  # as they are, without copies
    geometry = preprocess(tmp_path)
    assert (geometry["weights"], geometry["normalisation"]) == ("none", {"mean": 0.0, "sd": 255.0})
    images, labels = (tifffile.imread(tmp_path / "augmented" / f"{name}.tif") for name in ("images", "labels"))
    tiles = np.load(tmp_path / "patches" / "train-images.npy")
    assert {tile.tobytes() for tile in tiles} == {images[number].tobytes() for number in manifest["split"]["train"]}
    targets = np.load(tmp_path / "patches" / "train-labels.npy")
    assert targets.sum() == (labels[manifest["split"]["train"]] > 0).sum()
    layout = layout_of(nuclei_folder)
    assert set(np.unique(labels[2])) == set(np.unique(layout[2].label))
    assert_array_equal(images[2], squeeze(layout[2].image, 32))
    assert_array_equal(squeeze(np.full((50, 30, 3), 77, np.uint8), 16), np.full((16, 16, 3), 77, np.uint8))


# -------------------------------------------------------------------------------------------------- afterwards


def judged(layout, numbers):
    """Predictions that need no training: after normalisation nuclei are bright."""
    for one in Subset(layout, numbers):
        probability = (NUCLEI.normalise(one.image, NUCLEI.levels(one.image)).mean(axis=2) / 255).astype(np.float32)
        yield Prediction(one, probability, probability, separate_nuclei(probability))


def test_held_out_images_are_scored_one_by_one(nuclei_folder):
    read = []

    class Counted(type(layout_of(nuclei_folder))):
        def __getitem__(self, number):
            read.append(number)
            return super().__getitem__(number)

    def watched(predictions):
        for count, one in enumerate(predictions, 1):
            assert len(read) == count  # none is read ahead
            yield one

    scores = NUCLEI.score(watched(judged(Counted(nuclei_folder), [0, 4, 7])), [0, 4, 7], {})
    assert json.loads(json.dumps(scores)) == scores
    assert [row["image"] for row in scores["per_image"]] == ["brig0", "fluo2", "hist1"]
    assert scores["all"]["ap"]["0.50"] > 0.7
    assert scores["all"]["iou"] > 0.8
    assert scores["all"]["accuracy"] == pytest.approx(np.mean([row["accuracy"] for row in scores["per_image"]]))
    assert "pixels at probability .5: accuracy" in NUCLEI.table(scores).splitlines()[-1]


def test_each_image_gets_its_files_at_its_own_size(nuclei_folder, tmp_path):
    outputs, layout = NUCLEI.outputs(tmp_path / "out"), layout_of(nuclei_folder)
    with NUCLEI.writer(outputs, layout) as write:
        for one in judged(layout, [2, 3]):
            write(one)
    assert sorted(outputs.out.iterdir()) == sorted(NUCLEI.files(outputs, ["fluo0", "fluo1"]))
    with tifffile.TiffFile(outputs.out / "fluo1.tif") as tiff:
        assert tiff.is_imagej
        assert (tiff.asarray().shape, tiff.asarray().dtype) == ((80, 70), np.float32)
    labels = tifffile.imread(outputs.out / "fluo1-labels.tif")
    assert (labels.shape, labels.dtype) == ((80, 70), np.uint16)
    assert np.mean((labels > 0) == (layout[3].label > 0)) > 0.99


def test_predictions_of_what_trains_now_are_removed_and_nothing_else(nuclei_folder, tmp_path):
    outputs, layout = NUCLEI.outputs(tmp_path / "out"), layout_of(nuclei_folder)
    with NUCLEI.writer(outputs, layout) as write:
        for one in judged(layout, [2, 3]):
            write(one)
    for name in ("fluo0.png", "mine.tif"):
        (outputs.out / name).write_bytes(b"")
    assert NUCLEI.remove_stale(outputs, ["fluo0", "mine", "never"]) == 1
    assert {path.name for path in outputs.out.iterdir()} == {"fluo0.png", "mine.tif", "fluo1.tif", "fluo1-labels.tif"}


def test_the_disk_has_room_for_all_images_ahead(tmp_path, monkeypatch):
    for number, shape in enumerate([(20, 30), (40, 50)]):
        write_png(tmp_path / "in" / f"{number}.png", np.zeros(shape, np.uint8))
    needed = []
    monkeypatch.setattr(images, "require_space", lambda folder, size: needed.append(size - images.SPARE))
    outputs = NUCLEI.outputs(tmp_path / "out")
    NUCLEI.check_outputs(outputs, NUCLEI.inputs(tmp_path / "in"))
    np.save(tmp_path / "stack.npy", np.zeros((3, 20, 10), np.uint8))
    NUCLEI.check_outputs(outputs, NUCLEI.inputs(tmp_path / "stack.npy"))
    assert needed == [(600 + 2000) * (4 + 2), 3 * 200 * (4 + 2)]
    monkeypatch.setattr(pages, "SAMPLE_FILES", 1)
    assert NUCLEI.inputs(tmp_path / "in").area == 2 * 600  # as if all were as large as the first


def test_what_cannot_be_predicted_or_written_is_said_before(nuclei_folder, tmp_path):
    write_png(tmp_path / "plain" / "x.png", np.zeros((20, 20), np.uint8))
    samples = NUCLEI.inputs(tmp_path / "plain")
    assert (samples.names, samples[0].image.shape) == (["x"], (20, 20, 3))
    outputs = NUCLEI.outputs(tmp_path / "out")
    NUCLEI.check_outputs(outputs, samples)
    assert NUCLEI.holdout_outputs(tmp_path, outputs) == outputs == Outputs(tmp_path / "out", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file; predictions of images go into a folder"):
        NUCLEI.check_outputs(replace(outputs, out=tmp_path / "file"), samples)
    for name in ("p.tif", "p.zarr"):
        with pytest.raises(UserError, match=rf"{name}: predictions of images go into a folder with files for"):
            NUCLEI.check_outputs(replace(outputs, out=tmp_path / name), samples)
    with pytest.raises(UserError, match="--cells and --walls are for stacks of cells"):
        NUCLEI.outputs(None, tmp_path / "cells.tif")
    tifffile.imwrite(tmp_path / "plain" / "y.tif", np.zeros((20, 20), np.uint8))
    with pytest.raises(UserError, match=r"y\.tif is an input and would be replaced"):
        NUCLEI.check_outputs(NUCLEI.outputs(tmp_path / "plain"), NUCLEI.inputs(tmp_path / "plain"))
    layout = layout_of(nuclei_folder)
    before = layout.hash_to_predict()
    (nuclei_folder / "test0").rename(nuclei_folder / "test1")
    assert layout_of(nuclei_folder).hash_to_predict() != before


def test_the_real_images_have_levels_and_windows(bowl_folder):
    layout = layout_of(bowl_folder)
    held_out = Nuclei().split(layout, None, 0)
    assert Counter(layout.groups[number] for number in held_out) == {"fluorescence": 10, "histology": 2,
                                                                     "bright-field": 1}
    for number in held_out[:3]:
        one = layout[number]
        normal = Nuclei().normalise(one.image, Nuclei().levels(one.image))
        assert normal[one.label > 0].mean() > normal[one.label == 0].mean() + 40
