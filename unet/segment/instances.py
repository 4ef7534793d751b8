"""From the probability of nucleus to numbered nuclei, touching ones separated; and Kaggle's run-length lines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

# by cross-validation on 120 images of the Data Science Bowl, with networks trained to see the gaps between nuclei
NUCLEUS = 0.6  # a pixel with a greater probability may belong to a nucleus
INSIDE = 0.7  # a pixel with a greater probability may belong to the inside of a nucleus
LEAST_MEAN = 0.8  # least mean probability of an object: objects below it are more often no nuclei
EDGE = 0.75  # of that mean: pixels with a lower probability do not belong to the nucleus
SMALLEST = 20  # least size of an object, pixels


def separate_nuclei(probability: np.ndarray, smallest: int = SMALLEST) -> np.ndarray:
    """Number the nuclei of a probability float32 (H, W): int32 (H, W), 1, 2, ...; 0 = background.

    Pixels with a probability > `NUCLEUS` are nuclei. Each 4-connected piece with a probability > `INSIDE` grows into a
    nucleus, by a watershed down the probability, so that nuclei are separated along the valley between them. Objects
    with a mean probability below `LEAST_MEAN` are dropped. The others lose the pixels with less than `EDGE` times their
    mean: one threshold for all nuclei makes sure ones too large and faint ones too small. Then holes are filled, and
    objects of less than `smallest` pixels are dropped, too. Raises ValueError unless the probability has two axes.
    """
    if probability.ndim != 2:
        raise ValueError(f"the probability is {probability.shape}, expected one (height, width)")
    # a pixel or two that are above the threshold by noise are no seed
    seeds, count = ndimage.label(probability > INSIDE)
    sizes = np.bincount(seeds.ravel(), minlength=count + 1)
    seeds[(sizes < max(1, smallest // 4))[seeds]] = 0
    labels = watershed(-probability, seeds, mask=probability > NUCLEUS, connectivity=1)
    pixels = np.maximum(np.bincount(labels.ravel()), 1)
    mean = np.bincount(labels.ravel(), probability.ravel()) / pixels
    labels[(mean < LEAST_MEAN)[labels] | (probability < EDGE * mean[labels])] = 0
    return _whole(labels, smallest)


def _whole(labels: np.ndarray, smallest: int) -> np.ndarray:
    """Fill each object's holes, drop objects below `smallest` pixels, number the others 1, 2, ...; int32 (H, W)."""
    out = np.zeros(labels.shape, np.int32)
    number = 0
    for value, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        nucleus = ndimage.binary_fill_holes(labels[box] == value)
        nucleus &= (labels[box] == value) | (labels[box] == 0)  # another nucleus inside a ring stays separate
        if np.count_nonzero(nucleus) >= smallest:
            number += 1
            out[box][nucleus & (out[box] == 0)] = number
    return out


# ------------------------------------------------------------------------------------------ run-length lines


def run_lengths(labels: np.ndarray) -> Iterator[str]:
    """Yield Kaggle's run-length line of each nucleus of a label map (H, W), by rising number; 0 = background.

    A line is 'start length start length ...'. Pixels are numbered from 1, down each column, columns from left to right.
    """
    columns = np.asarray(labels).ravel(order="F").astype(np.int64)
    edges = np.flatnonzero(np.diff(columns, prepend=0, append=0) != 0)  # starts of runs, and the last one's end
    starts, ends = edges[:-1], edges[1:]
    values = columns[starts] if starts.size else starts
    for value in np.unique(values[values != 0]):
        runs = values == value
        yield " ".join(f"{start + 1} {end - start}" for start, end in zip(starts[runs], ends[runs], strict=True))
