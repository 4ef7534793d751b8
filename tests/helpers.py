"""Functions that tests of several rooms call by name."""

import numpy as np
from scipy import ndimage


def noisy_stack(count=3):
    """Return probabilities float32 and labels uint8 (count, 24, 24): four cells, their borders blurred and noisy."""
    rng = np.random.default_rng(1)
    labels = np.full((count, 24, 24), 255, np.uint8)
    labels[:, 11:13] = labels[:, :, 9:11] = 0
    probabilities = ndimage.gaussian_filter(labels / 255, (0, 1, 1)) + rng.normal(0, 0.12, labels.shape)
    return np.clip(probabilities, 0, 1).astype(np.float32), labels


def two_rooms(width=64, gap=0, thick=5):
    """Return two cells and a wall of `thick` pixels between them, at x = 30, open for `gap` pixels at y = 20."""
    cell = np.ones((width, width), bool)
    cell[:, 30:30 + thick] = False
    cell[20:20 + gap, 30:30 + thick] = True
    return cell


def of_run_lengths(lines, shape):
    """Return an instance map of `shape` (H, W) from Kaggle's run-length lines, numbered 1, 2, ... in their order."""
    flat = np.zeros(shape[0] * shape[1], np.int32)
    for number, line in enumerate(lines, 1):
        for start, length in np.array(line.split(), int).reshape(-1, 2):
            flat[start - 1:start - 1 + length] = number
    return flat.reshape(shape, order="F")
