"""Prediction of many images: one at a time, by one process at a time, and on from where it stopped."""
