"""Engines that run a trained network, and prediction of an image in tiles, flips and magnifications."""
