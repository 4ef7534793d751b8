"""The scores against arithmetic by hand, against their laws, and against known figures of the ISBI stack."""

import json

import numpy as np
import pytest
import skimage.metrics
import tifffile
from helpers import noisy_stack
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from unet.inputs.stacks import LABELS, VOLUME
from unet.scores import isbi
from unet.scores.warping import warping_error

quick = settings(max_examples=60, deadline=None)
binary_images = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
pairs_of_maps = st.integers(1, 20).flatmap(
    lambda n: st.tuples(*[arrays(np.int64, n, elements=st.integers(1, 4))] * 2))


def image(*rows: str) -> np.ndarray:
    """Bool image of rows like "..##": # = cell, . = membrane."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


# ------------------------------------------------------------------------------------------------ segments


def test_components_connect_four_neighbours():
    assert isbi.components(image("#.", ".#")).max() == 2


def test_thin_leaves_a_border_of_one_pixel():
    assert_array_equal(isbi.thin(image("##...##", "##...##")), image("###.###", "###.###"))
    assert_array_equal(isbi.thin(image("##.....", "##.....")), image("#######", "#######"))


def test_thin_keeps_an_image_without_border_or_without_cell():
    assert isbi.thin(np.ones((4, 5), bool)).all()
    assert not isbi.thin(np.zeros((4, 5), bool)).any()


@quick
@given(binary_images)
def test_thin_adds_to_the_cells_and_joins_none(binary):
    seeds, thinned, parts = isbi.components(binary), isbi.thin(binary), isbi.segments(binary)
    assert thinned[binary].all()
    assert_array_equal(parts, isbi.components(thinned))
    grown = {(seed, part) for seed, part in zip(seeds[binary].tolist(), parts[binary].tolist(), strict=True)}
    assert len(grown) == seeds.max() == len({part for _, part in grown})


# ------------------------------------------------------------------------------- agreement of two label maps

TRUTH = np.array([1, 1, 1, 1, 2, 2, 2, 2])


def test_merge_by_hand():
    # p = 1/2, 1/2; s = 1; t = 1/2, 1/2: sums of squares 1/2, 1, 1/2. V = 1/2 / (1/2 + 1/4) = 2/3; I = 0
    merged = np.ones(8, int)
    assert_allclose(isbi.v_rand(merged, TRUTH), (2 / 3, 1, 1 / 2))
    assert_allclose(isbi.v_info(merged, TRUTH), (0, 1, 0))
    assert_allclose(isbi.variation_of_information(merged, TRUTH), (0, 1))  # H(T|S) = H(T) = 1 bit


def test_split_by_hand():
    # p = s = 1/4, 1/4, 1/2: squares 3/8; t: 1/2. V = 3/8 / (3/16 + 1/4) = 6/7, split 3/4
    # H(S) = 3/2, H(T) = I = 1 bit: V = 1 / (5/4), split 2/3
    split = np.array([1, 1, 2, 2, 3, 3, 3, 3])
    assert_allclose(isbi.v_rand(split, TRUTH), (6 / 7, 3 / 4, 1))
    assert_allclose(isbi.v_info(split, TRUTH), (4 / 5, 2 / 3, 1))
    assert_allclose(isbi.variation_of_information(split, TRUTH), (1 / 2, 0))


def test_each_border_pixel_in_a_true_cell_is_its_own_segment():
    # p = s = 1/4, 1/8, 1/8, 1/2: squares 11/32; t: 1/2. V = 11/32 / (11/64 + 1/4) = 22/27, split 11/16
    border = np.array([1, 1, 0, 0, 2, 2, 2, 2])
    assert_allclose(isbi.v_rand(border, TRUTH), (22 / 27, 11 / 16, 1))
    assert isbi.v_rand(border, TRUTH) == isbi.v_rand(np.array([1, 1, 3, 4, 2, 2, 2, 2]), TRUTH)


def test_true_border_is_left_out():
    labels, truth = np.array([1, 1, 1, 2, 2, 9]), np.array([1, 1, 0, 2, 2, 0])
    assert isbi.v_rand(labels, truth) == isbi.v_info(labels, truth) == (1, 1, 1)


def test_overlap_refuses_what_has_no_score():
    with pytest.raises(ValueError, match="no cell"):
        isbi.v_rand(TRUTH, np.zeros(8, int))
    with pytest.raises(ValueError, match=r"\(8,\)"):
        isbi.v_info(np.ones(7, int), TRUTH)


@quick
@given(pairs_of_maps)
def test_rand_is_a_share_of_pairs(maps):
    labels, truth = maps
    same_labels, same_truth = (np.equal.outer(x, x) for x in maps)  # pairs of pixels, each with itself too
    both = np.count_nonzero(same_labels & same_truth)
    score, split, merge = isbi.v_rand(labels, truth)
    assert_allclose(split, both / np.count_nonzero(same_truth))
    assert_allclose(merge, both / np.count_nonzero(same_labels))
    assert_allclose(score, 2 * split * merge / (split + merge))  # their harmonic mean


@quick
@given(pairs_of_maps, st.permutations(range(1, 5)))
def test_laws_of_both_scores(maps, order):
    labels, truth = maps
    renamed = np.array([0, *order])[labels]
    same = np.array_equal(np.equal.outer(labels, labels), np.equal.outer(truth, truth))
    for score in (isbi.v_rand, isbi.v_info):
        value, split, merge = score(labels, truth)
        assert 0 <= value <= 1 + 1e-12
        assert_allclose(score(truth, labels), (value, merge, split), atol=1e-9)  # their splits are merges
        assert_allclose(score(renamed, truth), (value, split, merge), atol=1e-9)
        assert (value > 1 - 1e-9) == same


def test_adapted_rand_error_counts_missed_background_as_singletons():
    # a cell of 4 pixels, called background: p = s = 4 times 1/4, squares 1/4; t: 1. V = 1/4 / (5/8) = 2/5
    missed, cell = np.zeros(4, int), np.ones(4, int)
    assert_allclose(isbi.adapted_rand_error(missed, cell), (3 / 5, 1, 1 / 4))


@quick
@given(pairs_of_maps)
def test_instance_scores_equal_scikit_image_without_background(maps):
    labels, truth = (np.repeat(x, 1000) for x in maps)  # theirs leaves out pairs of a pixel with itself
    error, precision, recall = isbi.adapted_rand_error(labels, truth)
    assert_allclose(skimage.metrics.adapted_rand_error(truth, labels), (error, recall, precision), atol=1e-3)
    assert_allclose(isbi.variation_of_information(labels, truth),
                    skimage.metrics.variation_of_information(truth, labels), atol=1e-9)


# -------------------------------------------------------------------------------------------------- pixels


def test_pixel_scores_by_hand():
    # membrane: both 4, union 6, sizes 5 and 5: IoU 4/6, Dice 8/10; 6 of 8 pixels right
    # cells: both 2 of 3 and 3: F = 4/6
    prediction, truth = image("##..", "#..."), image("###.", "....")
    at = isbi.isbi_scores(prediction[None] * 0.45, truth[None])["best"]["pixel_error"]
    assert_allclose([at[name] for name in ("membrane_iou", "membrane_dice", "accuracy", "pixel_error")],
                    (4 / 6, 8 / 10, 6 / 8, 1 - 4 / 6))


def test_pixel_error_takes_the_best_threshold_and_pools_slices():
    probabilities = np.array([[[0.95, 0.65, 0.45, 0.05]], [[0.95, 0.95, 0.95, 0.95]]])
    labels = np.array([[[1, 1, 0, 0]], [[1, 1, 1, 1]]])
    assert isbi.isbi_scores(probabilities[:1], labels[:1])["best"]["pixel_error"]["threshold"] == 0.5
    labels[0] = 1, 0, 1, 0
    best = isbi.isbi_scores(probabilities, labels)["best"]["pixel_error"]
    assert best["threshold"] == 0.1
    assert_allclose(best["pixel_error"], 1 / 13)  # F = 12 / 13: 6 right, 1 invented
    assert_allclose([at["pixel_error"] for at in best["per_slice"]], [1 / 5, 0])


# --------------------------------------------------------------------------------------- scores of a stack


def test_curve_is_the_mean_over_slices_and_best_its_best():
    probabilities, labels = noisy_stack()
    scores = isbi.isbi_scores(probabilities, labels)
    assert json.loads(json.dumps(scores)) == scores
    for point in scores["curve"]:
        binary = probabilities > np.float32(point["threshold"])
        pairs = list(zip(binary, labels > 0, strict=True))
        for name, score in (("V_rand", isbi.v_rand), ("V_info", isbi.v_info)):
            expected = np.mean([score(isbi.segments(b), isbi.components(c)) for b, c in pairs], axis=0)
            assert_allclose([point[name], point[f"{name}_split"], point[f"{name}_merge"]], expected)
        assert_allclose(point["warping_error"], np.mean([warping_error(b, c) for b, c in pairs]))
        wall, true = ~binary, labels == 0
        assert_allclose(point["membrane_iou"], np.sum(wall & true) / np.sum(wall | true))
        assert_allclose(point["accuracy"], np.mean(binary == (labels > 0)))
    for name, best in (("V_rand", max), ("V_info", max), ("pixel_error", min)):
        assert scores["best"][name][name] == best(point[name] for point in scores["curve"])
        assert scores["best"][name]["threshold"] == next(
            point["threshold"] for point in scores["curve"] if point[name] == scores["best"][name][name])
    assert scores["chosen"] is None


def test_the_threshold_for_elsewhere_is_no_lucky_one(monkeypatch):
    lucky = np.array([0.1, 0.9, 0.2, 0.6, 0.7, 0.6])
    assert_allclose(isbi._with_neighbours(lucky), [1.1 / 3, 0.4, 1.7 / 3, 0.5, 1.9 / 3, 1.9 / 3])
    table = np.zeros((2, 6, 11))
    table[..., 0] = lucky
    monkeypatch.setattr(isbi, "_table", lambda *_, **__: table)
    assert isbi.best_threshold(None, None, np.arange(6) / 10) == 0.5  # as good as 0.4, and in the middle
    chosen = isbi.isbi_scores(*noisy_stack(2), thresholds=np.arange(6) / 10, threshold="others")["chosen"]
    assert chosen["threshold"] == 0.5


def test_a_threshold_chosen_elsewhere_is_used_as_it_is():
    probabilities, labels = noisy_stack()
    scores = isbi.isbi_scores(probabilities, labels, threshold=0.35, slices=[7, 8, 9])
    alone = isbi.isbi_scores(probabilities, labels, thresholds=[0.35])["curve"][0]
    assert {name: scores["chosen"][name] for name in alone} == alone
    assert [at["slice"] for at in scores["chosen"]["per_slice"]] == [7, 8, 9]
    assert len(scores["curve"]) == 10
    assert_allclose(np.mean([at["V_rand"] for at in scores["chosen"]["per_slice"]]), alone["V_rand"])


def test_others_means_each_slice_at_the_threshold_of_the_others():
    probabilities, labels = noisy_stack()
    probabilities[0] **= 4  # its own best threshold is far lower than the others'
    chosen = isbi.isbi_scores(probabilities, labels, threshold="others")["chosen"]
    for k, at in enumerate(chosen["per_slice"]):
        rest = [j for j in range(3) if j != k]
        assert at["threshold"] == isbi.best_threshold(probabilities[rest], labels[rest])
    assert chosen["threshold"] is None  # as they differ
    assert isbi.isbi_scores(probabilities[:1], labels[:1], threshold="others")["chosen"] is None


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_a_constant_prediction_has_scores(value):
    labels = noisy_stack()[1]
    scores = isbi.isbi_scores(np.full(labels.shape, value, np.float32), labels, threshold="others")
    n = np.count_nonzero(labels[0])  # four cells
    if value:  # one segment: nothing is split, no information
        assert scores["best"]["V_rand"]["V_rand_split"] == 1
        assert scores["curve"][0]["V_info"] == 0
    else:  # every pixel alone: p = s = 1/n, n times
        sizes = 11 * 9, 11 * 13, 11 * 9, 11 * 13
        assert_allclose(scores["best"]["V_rand"]["V_rand_split"], (1 / n) / np.sum(np.square(sizes) / n**2))
    assert "chosen t" in isbi.format_scores(scores)


@pytest.mark.parametrize(("change", "message"), [
    (lambda p, y: (p[:2], y), "the labels are"), (lambda p, y: (p[0], y[0]), "expected"),
    (lambda p, y: (p * 255, y), "0 to 1"),
    (lambda p, y: (p * np.nan, y), "nan"), (lambda p, y: (p, y * 0), "no cell")])
def test_isbi_scores_refuse(change, message):
    with pytest.raises(ValueError, match=message):
        isbi.isbi_scores(*change(*noisy_stack()))


def test_instances_are_scored_as_they_are():
    truth = np.array([[[255, 255, 0, 255, 255]]], np.uint8)
    right, merged = np.array([[[1, 1, 0, 2, 2]]], np.uint16), np.array([[[1, 1, 1, 1, 1]]], np.uint16)
    perfect = isbi.instance_scores(right, truth)
    assert perfect["mean"] == {"V_rand": 1, "V_info": 1, "adapted_rand_error": 0, "variation": 0}
    scores = isbi.instance_scores(merged, truth, slices=[7])
    # 4 pixels in one segment, truth 2 + 2: p = 4 + 4, s = 16, t = 4 + 4, V = 8 / (8 + 4)
    assert scores["per_slice"][0]["slice"] == 7
    assert scores["mean"]["V_rand"] == pytest.approx(8 / 12)
    assert scores["mean"]["variation"] == pytest.approx(1)  # one bit: which of the two cells
    assert isbi.instance_scores(right, right)["mean"]["V_rand"] == 1
    assert isbi.format_instances(scores).splitlines()[-1] == (
        "V_rand, V_info: 1 = perfect; adapted Rand error and variation of information (bits): 0 = perfect")


# -------------------------------------------------------------------------- known figures of the ISBI stack


@pytest.fixture(scope="module")
def slices(isbi_folder):
    """Raw slices uint8 and cells bool, (30, 512, 512) both."""
    return tifffile.imread(isbi_folder / VOLUME), tifffile.imread(isbi_folder / LABELS) > 0


def test_truth_against_itself_is_perfect(slices):
    cells = slices[1][::6]
    scores = isbi.isbi_scores(cells.astype(np.float32), cells)
    for at in scores["best"]["V_rand"]["per_slice"]:
        assert_allclose([at[name] for name in isbi.SCORE_NAMES], [1] * 6 + [0, 0] + [1] * 3, rtol=0, atol=1e-12)


def two_large_neighbours(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the pair of cells across one border whose smaller cell is largest, then its larger."""
    parts = isbi.segments(cells)
    area = np.bincount(parts[cells], minlength=parts.max() + 1)
    pairs = set()
    for across in (parts, parts.T):
        one, border, other = across[:-2], across[1:-1], across[2:]
        met = (border == 0) & (one > 0) & (other > 0) & (one != other)
        pairs |= set(zip(one[met].tolist(), other[met].tolist(), strict=True))
    pair = max(pairs, key=lambda pair: (min(area[list(pair)]), max(area[list(pair)])))
    return tuple(cells & (parts == k) for k in pair)


def with_gap(cells: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cells with a gap 3 pixels wide drawn along the shortest line between two of them."""
    distance, nearest = ndimage.distance_transform_edt(~one, return_indices=True)
    end = np.array(np.unravel_index(np.where(other, distance, np.inf).argmin(), cells.shape))
    line = np.zeros_like(cells)
    line[tuple(np.rint(np.linspace(nearest[(slice(None), *end)], end, 100)).astype(int).T)] = True
    return cells | ndimage.binary_dilation(line, np.ones((3, 3)))


@pytest.mark.parametrize(("number", "expected"), [(0, 0.892), (10, 0.873), (29, 0.930)])
def test_one_gap_costs_v_rand_much_and_pixels_nothing(slices, number, expected):
    cells = slices[1][number]
    gap = with_gap(cells, *two_large_neighbours(cells))
    scores = isbi.isbi_scores(gap[None].astype(np.float32), cells[None])["curve"][0]
    assert_allclose(scores["V_rand"], expected, atol=0.005)
    assert scores["V_rand_split"] > 0.999
    assert scores["pixel_error"] < 1e-3
    assert 0 < scores["warping_error"] < 1e-4


@pytest.mark.slow
def test_a_blur_and_a_threshold_get_the_known_scores(slices):
    raw, cells = slices
    blurred = np.stack([ndimage.gaussian_filter(slice_ / 255, 3) for slice_ in raw[25:]])
    best = isbi.isbi_scores(blurred, cells[25:])["best"]
    assert_allclose((best["V_rand"]["V_rand"], best["V_info"]["V_info"]), (0.888, 0.922), atol=0.003)
    assert best["V_rand"]["threshold"] == best["V_info"]["threshold"] == 0.5
