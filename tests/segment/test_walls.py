"""Walls: six drawings that hold more than walls, the width of walls, and which walls are membranes."""

import json

import numpy as np
import pytest
from phantoms import (
    LUMEN,
    OUTSIDE,
    blur,
    colony,
    discs,
    free_ends,
    two_widths,
    unsure_neurites,
    with_lumen,
)

from unet.inputs.demo import demo_stack
from unet.scores.isbi import components, pick_threshold, threshold_curve
from unet.segment import walls
from unet.segment.judge import judge, neighbour_votes, neighbouring, within_one_cell
from unet.segment.merging import merge_values
from unet.segment.walls import (
    OVERSURE,
    OVERSURE_WITH_WALLS,
    draw_walls,
    find_walls,
    learn_cells,
    number_cells,
    thin_walls,
    wall_width,
)

# -------------------------------------------------------------------------- six drawings that hold more than walls


def agreement(cell, probability):
    """Return the IoU of true and redrawn background, the redrawn probability, and "why"; learnt on the drawing."""
    learnt = learn_cells(probability[None], cell[None])
    redrawn = draw_walls(probability, learnt["walls"]) if learnt["walls"] else probability
    background = redrawn <= learnt["threshold"]
    return np.count_nonzero(background & ~cell) / np.count_nonzero(background | ~cell), redrawn, learnt["why"]


@pytest.mark.parametrize(("draw", "thick"), [(with_lumen, LUMEN), (colony, OUTSIDE)])
def test_a_lumen_and_the_outside_of_a_colony_stay(rng, draw, thick):
    cell = draw(rng)
    iou, redrawn, why = agreement(cell, blur(cell))
    assert why is None
    assert iou > 0.98  # 0.81 and 0.57 where all that is no wall is cell
    assert np.mean(redrawn[thick] <= 0.5) > 0.99  # 0.3


def test_walls_of_3_and_14_pixels_keep_their_widths(rng):
    cell = two_widths(rng)
    iou, _, why = agreement(cell, blur(cell))
    assert why is None
    assert iou > 0.95  # 0.53 with one width for all


def test_discs_that_nearly_touch_keep_their_shape_or_are_known_for_what_they_are():
    packed, rows = discs(square=False), discs(square=True)
    iou, _, why = agreement(packed, blur(packed))
    assert why is None
    assert iou > 0.98  # 0.83 with one width for all
    iou, _, why = agreement(rows, blur(rows))
    assert iou > 0.98  # 0.7
    assert why == ("the cells of the labels are not separated by thin walls: a quarter of what separates them is over "
                   "12 pixels wide, and a cell measures 24")


def test_a_membrane_with_a_free_end_is_not_cut_back(rng):
    cell = free_ends(rng)
    iou, _, why = agreement(cell, blur(cell))
    assert why is None
    assert iou > 0.98  # 0.68


def test_a_neurite_whose_inside_is_less_than_sure_keeps_its_membrane(rng):
    cell, probability, neurites = unsure_neurites(rng)
    iou, redrawn, why = agreement(cell, probability)
    assert why is None
    assert iou > 0.97  # 0.83
    truth, cells = components(cell), number_cells(redrawn, 0.5)
    inside = [number for number, size in enumerate(np.bincount(truth[neurites])) if size > 60]
    assert len(inside) > 20
    for number in inside:
        most = np.bincount(cells[truth == number]).argmax()
        assert most > 0
        assert np.count_nonzero(cells == most) < 2 * np.count_nonzero(truth == number)  # no neighbour swallowed it


# ------------------------------------------------------------------------------------------------- thin walls


def test_width_of_walls_by_hand():
    label = np.full((40, 60), 255, np.uint8)
    label[:, 18:23] = 0
    assert wall_width([label]) == (5, None)
    label[:, 40:43] = 0
    assert wall_width([label]) == (4, None)  # as much of either
    label[:, 50:53] = 0
    assert wall_width([label, label]) == (3, None)
    assert thin_walls([label])


def test_tissue_has_thin_walls_whatever_its_slices():
    for one in demo_stack(2, 256, 1)[1]:
        assert thin_walls([one])


def test_ground_between_scattered_objects_is_no_wall():
    label = np.zeros((60, 60), np.uint8)
    for y in (5, 35):
        for x in (5, 35):
            label[y:y + 15, x:x + 15] = 255
    assert not thin_walls([label])
    for nothing in (np.full((20, 20), 255, np.uint8), np.zeros((20, 20), np.uint8)):  # one cell, no cell
        assert wall_width([nothing]) == (0, "no two cells of the labels have a wall between them")


# --------------------------------------------------------------------------------------- which are membranes


def slices_with_short_false_walls(rng, count=40):
    """Draw doubtful walls of one probability: true ones across the narrow strip, false ones across the wide one."""
    probabilities, labels = np.ones((count, 60, 120), np.float32), np.full((count, 60, 120), 255, np.uint8)
    for probability, label in zip(probabilities, labels, strict=True):
        probability[20], label[19:22] = 0.05, 0  # a sure membrane along the slice
        for row, true in ((slice(0, 20), True), (slice(21, 60), False)):
            for column in rng.choice(np.arange(20, 100, 20), 2, replace=False):
                probability[row, column] = rng.uniform(0.4, 0.6)
                if true:
                    label[row, column - 1:column + 2] = 0
    return probabilities, labels


def test_what_the_probability_cannot_tell_is_learnt_from_the_shape(rng):
    learnt = json.loads(json.dumps(learn_cells(*slices_with_short_false_walls(rng))))
    (probability,), (label,) = slices_with_short_false_walls(rng, 1)
    cut = find_walls(probability, learnt["walls"]["width"])
    same, known = within_one_cell(cut, label)
    judged = judge(cut, learnt["walls"]["judge"])
    assert known.all()
    assert same.any()
    assert not same.all()
    assert judged[same].min() > 0.5 > judged[~same].max()
    redrawn = draw_walls(probability, learnt["walls"])
    assert np.array_equal(np.unique(redrawn[redrawn < 1]), np.unique(merge_values(cut, judged).astype(np.float32)))
    assert number_cells(redrawn, 0.5).max() == 4  # three in the narrow strip, one in the wide


def test_too_few_walls_teach_nothing(rng):
    learnt = learn_cells(*slices_with_short_false_walls(rng, 10))
    assert learnt["walls"] == {"width": 3, "judge": None, "with_neighbours": None}


def test_every_slice_is_judged_by_what_was_learnt_on_others(rng, monkeypatch):
    outputs, labels = slices_with_short_false_walls(rng, 80)
    learnt_on, judged_by = [], []
    monkeypatch.setattr(walls, "fit_judges", lambda examples: learnt_on.append([len(one[2]) for one in examples]) or
                        {"judge": {"number": len(learnt_on)}, "with_neighbours": None})
    monkeypatch.setattr(walls, "judge", lambda cut, learnt: judged_by.append(learnt["number"]) or cut.mean)
    learnt = learn_cells(outputs, labels, thresholds=(0.3, 0.5))
    assert [len(one) for one in learnt_on] == [64] * 5 + [80]  # five parts of sixteen each, then all
    assert judged_by == [part for part in range(1, 6) for _ in range(16)]
    assert learnt["walls"]["judge"] == {"number": 6}
    assert learnt["threshold"] in (0.3, 0.5)


def test_what_a_slice_cannot_tell_its_neighbours_do(rng):
    outputs, labels = slices_of_which_neighbours_tell(rng)
    learnt = json.loads(json.dumps(learn_cells(outputs, labels)))
    probabilities, (_, label, _) = slices_of_which_neighbours_tell(rng, 3)
    cut = find_walls(probabilities[1], learnt["walls"]["width"])
    same, known = within_one_cell(cut, label)
    assert 0 < same.sum() < len(same)

    alone, with_others = judge(cut, learnt["walls"]["judge"]), judge(
        cut, learnt["walls"]["with_neighbours"], neighbour_votes(cut, probabilities[1], neighbouring(probabilities, 1)))
    assert ((alone > 0.5) != same)[known].any()
    assert ((with_others > 0.5) == same)[known].all()

    drawn = draw_walls(probabilities[1], learnt["walls"], neighbouring(probabilities, 1))
    assert number_cells(drawn, 0.5).max() == number_cells(label / 255, 0.5).max()
    older = {"width": learnt["walls"]["width"], "judge": learnt["walls"]["judge"]}  # of runs before there were any
    np.testing.assert_array_equal(draw_walls(probabilities[1], older, neighbouring(probabilities, 1)),
                                  draw_walls(probabilities[1], learnt["walls"]))


def slices_of_which_neighbours_tell(rng, count=40):
    """Draw doubtful walls of one probability in strips: a true one is sure in the next slice, a false one is absent."""
    probabilities, labels = np.ones((count, 60, 120), np.float32), np.full((count, 60, 120), 255, np.uint8)
    probabilities[:, 19::20] = 0.05
    labels[:, 18::20] = labels[:, 19::20] = 0
    true = rng.random((3, 4)) < 0.5
    true[0, :2] = True, False
    for number in range(count):
        for band, row in enumerate((0, 20, 40)):
            for place, column in enumerate(range(20, 100, 20)):
                doubtful = number % 2 == 1
                if doubtful or true[band, place]:
                    probabilities[number, row:row + 19, column] = rng.uniform(0.4, 0.6) if doubtful else 0.05
                if true[band, place]:
                    labels[number, row:row + 19, column - 1:column + 2] = 0
    return probabilities, labels


def test_without_walls_the_threshold_alone_is_chosen(rng):
    outputs, labels = slices_with_short_false_walls(rng, 2)
    learnt, curve = learn_cells(outputs, labels, walls=False), threshold_curve(outputs, labels)
    assert learnt == {"threshold": learnt["plain_threshold"], "curve": curve, "plain_curve": curve, "walls": None,
                      "plain_threshold": pick_threshold(curve, **OVERSURE), "why": "they are switched off"}


def test_of_thresholds_that_differ_by_chance_the_usual_is_taken_where_walls_are_thin():
    curve = [0.9, 0.96, 0.972, 0.975, 0.974, 0.974, 0.973, 0.972, 0.97, 0.969]
    assert pick_threshold(curve) == 0.4
    assert pick_threshold(curve, **OVERSURE) == 0.8
    assert pick_threshold(curve, **OVERSURE_WITH_WALLS) == 0.5
    assert pick_threshold([*curve[:6], 0.95, 0.94, 0.93, 0.92], **OVERSURE) == 0.4
    packed, objects = discs(square=False), discs(square=True)
    assert learn_cells(blur(packed)[None], packed[None])["plain_threshold"] == 0.8
    assert learn_cells(blur(objects)[None], objects[None])["plain_threshold"] == 0.5


def test_cells_are_numbered_by_hand():
    probability = np.full((3, 7), 0.9, np.float32)
    probability[:, 2:5] = 0.4
    np.testing.assert_array_equal(number_cells(probability, 0.5), [[1, 1, 1, 0, 2, 2, 2]] * 3)
    np.testing.assert_array_equal(number_cells(probability, 0.3), np.ones((3, 7)))
