"""The drawn network has the sizes of the real one; overlap tiles are those that predict."""

from dataclasses import replace

import numpy as np
import pytest

from model import PRESETS, Network, build_unet
from unet.engines.windows import Windows, overlap_tiles
from unet.report.network import draw_network, draw_overlap_tiles, feature_maps


def test_feature_maps_are_those_of_the_paper():
    network = replace(PRESETS["paper"].network, filters=2)  # the sizes are the paper's, figure 1
    maps = feature_maps(build_unet(network), 572)
    assert (maps[0].side, maps[-1].side) == (572, 388)
    bottom = [one.side for one in maps if one.level == 4]
    assert bottom == [30, 28]
    joins = [one for one in maps if len(one.sources) == 2]
    assert [(one.side, one.level) for one in joins] == [(56, 3), (104, 2), (200, 1), (392, 0)]


@pytest.mark.parametrize("network", [Network(2, 2, dropout=(0, 0, 0)), Network(2, 2, dropout=(0, 0, 0), half=True),
                                     Network(2, 2, dropout=(0, 0, 0), up="upsample")])
def test_a_network_is_drawn_with_its_sizes(network):
    figure = draw_network(network, tile=64)
    sizes = {text.get_text() for text in figure.axes[0].texts}
    assert {"64²", "32²", "16²", "2", "4", "8"} <= sizes
    assert ("8²" in sizes) == network.half


@pytest.mark.parametrize("name", ["cells", "classes", "nuclei"])
def test_the_tiles_that_predict_are_drawn(runs, name):
    run = runs[name]
    one = run.predictions([0])[0]
    figure = draw_overlap_tiles(run)
    around, stitched = (np.asarray(axis.images[0].get_array()) for axis in figure.axes[:2])
    normalised = run.task.normalise(one.sample.image, run.task.levels(one.sample.image))
    np.testing.assert_array_equal(around, normalised if normalised.ndim == around.ndim else normalised[..., 0])
    np.testing.assert_array_equal(stitched, one.probability.max(axis=-1) if name == "classes" else one.probability)
    cores, tile = figure.axes[0].patches[:-1], figure.axes[0].patches[-1]
    assert len(cores) > 1  # an image of one tile is drawn as a larger one is cut
    assert tile.get_width() > cores[0].get_width()
    assert "fits into one tile" in " ".join(figure.get_supxlabel().split())


def test_large_images_are_predicted_in_as_few_tiles_as_fit():
    network = Network(2, 2, dropout=(0, 0, 0))
    assert overlap_tiles(network, (600, 512)) == Windows((600, 512), (600, 512), network.margin, 4)
    assert overlap_tiles(network, (1300, 40)) == Windows((1300, 40), (436, 40), network.margin, 4)  # three
    assert overlap_tiles(network, (20, 20), core=8) == Windows((20, 20), (8, 8), network.margin, 4)
