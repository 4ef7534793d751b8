"""Doubt is entropy where labels decide something; what is least sure comes first."""

import numpy as np
import pytest

from unet.scores.doubt import doubt_of, entropy, read_doubts, write_doubts


def test_entropy_by_hand():
    np.testing.assert_allclose(entropy(np.array([[0.0, 0.5, 1.0, 0.25]])), [[0, 1, 0, 0.811278]], atol=1e-6)
    np.testing.assert_allclose(entropy(np.array([[[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]])),
                               [[0, 1, np.log(2) / np.log(3)]])


def test_a_tile_counts_what_lies_in_it():
    probability = np.zeros((8, 8))
    probability[0, 0] = 0.5  # of the four pixels that count one is in doubt, all in one of four tiles
    where = np.zeros((8, 8), bool)
    where[:2, :2] = True
    one = doubt_of("slice 3", probability, where, top=2)
    assert one.doubt == pytest.approx(0.25)
    assert (one.tiles[0].y, one.tiles[0].x, one.tiles[0].height) == (0, 0, 4)
    assert [tile.doubt for tile in one.tiles] == pytest.approx([1, 0])  # the mean of all four tiles is the slice's


def test_the_disagreement_of_flips_stands_beside_and_ranks_nothing(tmp_path):
    where, spread = np.zeros((8, 8), bool), np.zeros((8, 8), np.float32)
    where[:2, :2] = True
    spread[0, 0], spread[5, 5] = 0.2, 0.5  # nothing counts at the second
    sure, unsure = np.zeros((8, 8)), np.full((8, 8), 0.5)
    one = doubt_of("slice 3", sure, where, spread, top=2)
    assert one.disagreement == pytest.approx(0.05)
    assert [tile.disagreement for tile in one.tiles] == pytest.approx([0.2, 0])
    write_doubts(tmp_path / "next.csv", [one, doubt_of("slice 4", unsure, where)])
    again = read_doubts(tmp_path / "next.csv")
    assert [one.name for one in again] == ["slice 4", "slice 3"]
    assert [one.disagreement for one in again] == [None, pytest.approx(0.05)]
    assert again[0].tiles[0].disagreement is None


def test_a_table_of_an_earlier_run_is_read(tmp_path):
    (tmp_path / "next.csv").write_text("rank,name,doubt,tile,y,x,height,width,tile_doubt\n1,slice 3,.5,1,0,4,8,8,.7\n")
    one, = read_doubts(tmp_path / "next.csv")
    assert (one.doubt, one.disagreement, one.tiles[0].doubt, one.tiles[0].disagreement) == (0.5, None, 0.7, None)


def test_where_nothing_counts_nothing_is_in_doubt_and_it_is_listed(tmp_path):
    one = doubt_of("slice 0", np.full((8, 8), 0.5), np.zeros((8, 8), bool))
    assert one.doubt == 0
    write_doubts(tmp_path / "next.csv", [one])
    assert read_doubts(tmp_path / "next.csv") == [one]


def test_the_least_sure_come_first_and_are_read_as_written(tmp_path):
    where = np.ones((8, 8), bool)
    doubts = [doubt_of(f"slice {n}", np.full((8, 8), p), where) for n, p in enumerate((0.1, 0.5, 0.9, 0.3))]
    write_doubts(tmp_path / "next.csv", doubts)
    again = read_doubts(tmp_path / "next.csv")
    assert [one.name for one in again] == ["slice 1", "slice 3", "slice 0", "slice 2"]
    assert again[0] == doubts[1]
    assert read_doubts(tmp_path / "nothing.csv") == []
