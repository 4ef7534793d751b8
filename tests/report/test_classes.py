"""Runs on classes: one square of sixteen is wrong, in pictures and words."""

import numpy as np

from unet.report.by_task import pictures_of, words_of


def test_the_wrong_square_is_found(classes_run):
    pictures, one = pictures_of(classes_run.task), classes_run.holdout_predictions[0]
    wrong = pictures.wrong(one, classes_run.learnt)
    assert wrong[:16, :16].all()
    assert wrong.sum() == 256
    assert pictures.mistakes(one, classes_run.learnt).title == "6.2% of the pixels are wrong"
    score, words, window = min(pictures.windows(classes_run, one), key=lambda part: part[0])
    assert (score, words, window) == (0.75, "y 0, x 0, 25.0% wrong", (slice(0, 32), slice(0, 32)))
    assert pictures.score(classes_run, one) == (0.9375, "93.8% right")


def test_what_is_shown_is_the_most_probable_class_and_its_probability(classes_run):
    pictures, one = pictures_of(classes_run.task), classes_run.holdout_predictions[0]
    given, sure = pictures.maps(one, classes_run.learnt)
    np.testing.assert_array_equal(given.array, pictures.label_picture(one.probability.argmax(axis=-1).astype(np.uint8)))
    np.testing.assert_array_equal(sure.array, np.ones((64, 64)))


def test_there_are_no_instances_and_nothing_is_chosen(classes_run):
    pictures = pictures_of(classes_run.task)
    assert "no instances" in pictures.instances(classes_run).texts[0].get_text()
    assert "most probable class" in pictures.choices(classes_run).texts[0].get_text().replace("\n", " ")


def test_words_of_classes(classes_run):
    words = words_of(classes_run.task)
    assert "probability of 3 classes" in words.settings(classes_run)
    assert "accuracy 0.9375" in words.scores(classes_run)
    text = words.paragraph(classes_run)
    assert "the most probable of 3 classes" in text
    assert "The loss was cross-entropy. The network was trained for" in text
    assert "Arganda" not in text
