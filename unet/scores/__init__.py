"""How good a prediction is: ISBI, average precision, classes, warping error, mistakes."""
