"""Runs on nuclei: nuclei at the left edge are missed, in pictures and words."""

import numpy as np
import pytest

from unet.inputs.folders import MODALITIES
from unet.report.by_task import pictures_of, words_of
from unet.scores.mistakes import object_mistakes


def test_missed_nuclei_are_shown(nuclei_run):
    pictures, one = pictures_of(nuclei_run.task), nuclei_run.holdout_predictions[0]
    mistakes = object_mistakes(one.objects, one.sample.label)
    assert mistakes.missed
    wrong = pictures.wrong(one, nuclei_run.learnt)
    np.testing.assert_array_equal(wrong, mistakes.wrong_pixels(one.objects, one.sample.label))
    assert wrong[:, :12].any()
    assert pictures.mistakes(one, nuclei_run.learnt).title == mistakes.describe()


def test_one_of_each_modality_is_typical(nuclei_run):
    assert {one.sample.group for one in pictures_of(nuclei_run.task).typical(nuclei_run)} == set(MODALITIES)


def test_counts_are_said_to_be_of_whole_images(nuclei_run):
    caption = " ".join(pictures_of(nuclei_run.task).objects(nuclei_run).get_supxlabel().split())
    assert caption.endswith("are dropped. Counts are for whole images; only parts of them are shown.")


def test_curves_are_of_each_modality_and_of_all(nuclei_run):
    axis = pictures_of(nuclei_run.task).scores(nuclei_run).axes[0]
    assert [line.get_label().split(",")[0] for line in axis.lines] == [*MODALITIES, "all 3"]
    np.testing.assert_allclose(axis.lines[-1].get_ydata(), list(nuclei_run.scores["all"]["ap"].values()))


def test_words_of_nuclei(nuclei_run):
    words = words_of(nuclei_run.task)
    assert "| training images | 2 fluorescence, 1 histology, 1 bright-field |" in words.settings(nuclei_run)
    for name in MODALITIES:
        assert f"{name}, 1 image" in words.scores(nuclei_run)
    text = words.paragraph(nuclei_run)
    for part in ("cut into windows of 64 pixels", "held-out images may resemble training images",
                 "10.1038/s41592-019-0612-7", "narrow gaps between nuclei", "each colour channel by 0.92 to 1.09",
                 "50 x 96 to 130 x 70 pixels"):
        assert part in text, part
    assert "mean over .50, .55, ... .95" in text
    assert f"{nuclei_run.scores['all']['mean']:.3f} as the mean" in text


@pytest.mark.parametrize("name", ["tiles", "weights"])
def test_touching_nuclei_are_told_apart_in_the_target(nuclei_run, name):
    figure = getattr(pictures_of(nuclei_run.task), name)(nuclei_run)
    assert figure.axes[0].images
