"""The training data feed, the files of a run, the optimizer, encoders."""
