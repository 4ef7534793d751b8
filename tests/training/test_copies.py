"""How many copies are made: what training draws, and no more."""

import pytest

from model import PRESETS
from preprocessing import Tiling, tile_corners
from unet.tasks.cells import Cells
from unet.tasks.nuclei import Nuclei
from unet.tasks.task import MARGIN, TILE
from unet.training.copies import READS, describe_copies, int_if_whole, needed_copies, tile_count


def test_what_training_reads_by_default_is_its_schedule():
    recipe = PRESETS["cpu"]
    assert recipe.epochs * recipe.steps * recipe.batch == READS
    assert Tiling() == Tiling(TILE, MARGIN)
    for shape in ((512, 512), (64, 300), (2048, 2048)):
        assert tile_count(Cells(), shape) == len(tile_corners(Tiling(), shape, windowed=False))
    assert tile_count(Nuclei(), (256, 256)) == 1


@pytest.mark.parametrize(("count", "side", "reads", "expected"), [
    (25, 512, READS, 30),  # ISBI: 10,000 / (25 x 9) = 44.4 pages a slice, the default at most
    (25, 512, 2000, 8),  # 8.9 pages a slice, the original among them
    (95, 2048, READS, 83 / 95),  # 121 tiles a page: 83 pages, of slices that have 11,495 tiles unchanged
    (1995, 2048, READS, 83 / 1995),
    (60, 2048, READS, 1),  # 1.4 pages a slice
    (7, 256, 7, 1), (7, 256, 6, 6 / 7), (7, 256, 8, 1), (7, 256, 15, 2)])
def test_copies_of_slices_by_hand(count, side, reads, expected):
    copies = needed_copies(Cells(), [(side, side)] * count, tile_count(Cells(), (side, side)), reads)
    assert copies == pytest.approx(expected)
    each = Cells().copies([(side, side)] * count, [""] * count, copies)
    assert sum(each) == round(expected * count)
    assert max(each) - min(each) <= 1


def test_copies_of_windows_by_hand():
    four, nuclei = [(512, 512)] * 10, Nuclei()  # windows of 256: 40 pages as they are
    assert needed_copies(nuclei, four, 1, 100) == 8  # each of the 40 copied twice, 80 of 10 images
    assert needed_copies(nuclei, four, 1, 20) == 2
    assert needed_copies(nuclei, four, 1, READS) == 30
    assert needed_copies(Nuclei(resize=64), four, 1) == 0


def test_fewer_copies_than_slices_lie_far_from_each_other():
    assert Cells().copies([(9, 9)] * 10, [""] * 10, 0.3) == [0, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert Cells().copies([(9, 9)] * 4, [""] * 4, 1.5) == [1, 2, 1, 2]
    assert sum(Nuclei().copies([(300, 300)] * 1000, ["fluorescence"] * 1000, 0.083)) == 83
    assert describe_copies(0.3, 1000, "slice") == "300 copies, spread over 1,000 slices"
    assert describe_copies(1, 9, "slice") == "1 copy of each slice"
    assert (repr(int_if_whole(3.0)), repr(int_if_whole(0.5))) == ("3", "0.5")


def test_the_command_says_what_it_makes_and_what_disk_it_takes(command, tiny_folder):
    """5 slices of one tile each: 10,000 tiles would be 2,000 copies of each, so 30 are made."""
    done = command("augmentation.py", "--data", tiny_folder, "--workers", 1)
    assert done.stdout.splitlines()[0] == "30 copies of each slice: 156 pairs including the originals, 1.3 MB on disk"
    done = command("augmentation.py", "--data", tiny_folder, "--workers", 1, "--copies", 0.4)
    assert done.stdout.splitlines()[0].startswith("2 copies, spread over 5 slices: 8 pairs including the originals, ")
