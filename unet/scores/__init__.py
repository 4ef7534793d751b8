"""Scores of predictions: ISBI, average precision, classes, warping error, mistakes."""
