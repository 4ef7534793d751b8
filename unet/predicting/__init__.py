"""Prediction of many images: one at a time, by one process at a time, resumed where it stopped."""
