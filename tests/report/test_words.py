"""What a paper gets: the recipe as it was, with whom to cite, from one list."""

from dataclasses import replace

import numpy as np
import pytest

from unet.citations import cite, reference, works
from unet.report.by_task import words_of
from unet.report.slices import ISBI_VOLUME
from unet.report.words import averaging, join_words, network, variation
from unet.training.feed import vary_grey_levels


def changed(run, **recipe):
    return replace(run, config={**run.config, "recipe": {**run.recipe, **recipe}})


def paragraph(run):
    return words_of(run.task).paragraph(run)


def test_every_reference_is_whole():
    assert {"U-Net", "ISBI scores", "ISBI stack", "walls", "Muon", "averaging", "bowl"} <= works().keys()
    for name in works():
        assert reference(name).count(": ") >= 1
        assert reference(name).endswith(works()[name].get("doi") or works()[name]["url"].removeprefix("https://"))
    assert reference("U-Net") == ("O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical "
                                  "Image Segmentation. MICCAI 2015. doi 10.1007/978-3-319-24574-4_28")
    assert reference("bowl").endswith("Nature Methods 16, 1247-1253, 2019. doi 10.1038/s41592-019-0612-7")
    assert cite("Muon") == "Jordan et al. 2024"


def test_all_that_is_cited_is_in_the_list(runs):
    for run in runs.values():
        text, references = paragraph(run).split("\n\n", 1)
        for name in works():
            assert (cite(name) in text) <= (reference(name) in references), name


def test_the_methods_say_how_it_was_trained(cells_run):
    text = paragraph(cells_run)
    for part in ("dropout of 0, 0, 0.2", "mean of those after each of the last 2 of 10 epochs (Izmailov et al. 2018)",
                 "Muon (Jordan et al. 2024)", "linear warm-up over 10% of the schedule",
                 "gamma (exponents of 0.87 to 1.15)", "for 50 steps of 4 tiles", "seed 7", "8 of the square's eight",
                 "augmented 2 times by flips, rotation and magnification", "Keras 3 on TensorFlow 2"):
        assert part in text, part


@pytest.mark.parametrize(("recipe", "there", "absent"), [
    ({"warmup": 0.0}, "cosine decay", "warm-up"),
    ({"average": 0.0}, "those after the last step", "Izmailov"),
    ({"patience": 4}, "had not fallen for 4 epochs", "Izmailov"),
    ({"optimizer": "adam"}, "with Adam", "Jordan"),
    ({"intensity": 0.0}, "turned and mirrored at random.", "gamma"),
    ({"flips": 1}, "whole, large ones in overlapping tiles.", "symmetries"),
    ({"zooms": [1.0, 1.15]}, "at 1 and 1.15 times the size", "at 1 times"),
])
def test_what_was_not_done_is_not_said(cells_run, recipe, there, absent):
    text = paragraph(changed(cells_run, **recipe))
    assert there in text
    assert absent not in text


def test_the_variation_is_the_feeds():
    class Extreme:
        """Draws the largest or the least of everything."""

        def __init__(self, sign):
            self.sign = sign

        def uniform(self, low, high, count):
            return np.full(count, high if self.sign > 0 else low)

        def standard_normal(self, shape, dtype):
            return np.ones(shape, dtype)

    level = np.full((1, 1, 1), 100, np.uint8)
    for sign in (1, -1):
        exponent, shift, noise = np.exp(0.35 * 0.4 * sign), 20 * 0.4 * sign, 12 * 0.4
        expected = (255 * (100.5 / 256) ** exponent - 128) * exponent + 128 + shift + noise
        assert vary_grey_levels(level, 0.4, Extreme(sign))[0, 0, 0] == pytest.approx(expected, rel=1e-5)
    words = variation({"intensity": 0.4}, 1)
    for part in (f"{np.exp(-0.14):.2f} to {np.exp(0.14):.2f}", "up to 8 of 255", "up to 4.8"):
        assert part in words


def test_what_was_learnt_beside_is_said_and_cited(cells_run):
    text = paragraph(changed(cells_run, affinities=0.5))
    assert " By an auxiliary output, whose loss had the weight 0.5, the network also learnt whether two pixels " in text
    assert "(Lee et al. 2017)" in text
    assert reference("affinities") in text
    assert "Lee et al." not in paragraph(changed(cells_run, affinities=0.0))


def test_the_isbi_stack_is_recognised_and_cited(cells_run):
    isbi = replace(cells_run, manifest={**cells_run.manifest, "inputs": {"data/train-volume.tif": ISBI_VOLUME}})
    assert "Cardona et al. 2010" in paragraph(isbi)
    assert "10.1371/journal.pbio.1000502" in paragraph(isbi)
    assert "our own stack" in paragraph(cells_run)
    demo = replace(cells_run, manifest={**cells_run.manifest, "data": "/somewhere/data/demo"})
    assert "made by a program and shows no real tissue" in paragraph(demo)


def test_a_run_without_hold_out_says_so(cells_run):
    run = replace(cells_run, scores=None, config={**cells_run.config, "split": {"train": [0, 1], "holdout": []}})
    assert "never trained on: none." in paragraph(run)


def test_encoders_are_named(cells_run):
    shape = {**cells_run.config["network"], "encoder": "resnet50", "filters": 16, "depth": 5, "dropout": [0.0] * 6}
    run = replace(changed(cells_run, pretrained="imagenet"), config={
        **changed(cells_run, pretrained="imagenet").config, "network": shape})
    assert network(run) == ("a U-Net with resnet50 (weights learnt on ImageNet) as its contracting path, with 16 to "
                            "256 filters and 5 halvings, 12,345 parameters")


def test_small_words():
    assert join_words(["a"]) == "a"
    assert join_words(["a", "b", "c"]) == "a, b and c"
    assert averaging({"patience": None, "epochs": 3, "average": 0.2}) == "those after the last step"
