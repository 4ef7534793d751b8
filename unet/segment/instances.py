"""From the probability of nucleus to nuclei with a number each: touching ones come apart; Kaggle's run-length lines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

# by cross-validation on 120 images of the Data Science Bowl, with networks that are made to see the gaps between nuclei
NUCLEUS = 0.6  # probability from which on a pixel may belong to a nucleus
CORE = 0.7  # and to the inside of one
SURE = 0.8  # mean probability of an object's pixels; what is less sure is more often none
EDGE = 0.75  # of that mean: where the probability is less, the nucleus as it was drawn ends
SMALLEST = 20  # pixels of the smallest object kept


def separate_nuclei(probability: np.ndarray, smallest: int = SMALLEST) -> np.ndarray:
    """Number the nuclei of a probability float32 (H, W): int32 (H, W), 1, 2, ...; 0 = background.

    Nuclei are where the probability is > `NUCLEUS`. Each 4-connected piece where it is > `CORE` grows into one of
    them, by a watershed on the falling probability, so that nuclei come apart along the valley between them. Objects
    with a mean probability under `SURE` are dropped. The others end where it is under `EDGE` times their mean: a
    threshold for all draws sure nuclei too large, and faint ones too small. Holes are filled, and what is under
    `smallest` pixels then is dropped, too. Raises ValueError where the probability has other than two axes.
    """
    if probability.ndim != 2:
        raise ValueError(f"the probability is {probability.shape}, expected one (height, width)")
    # a pixel or two above the threshold by noise is no seed
    seeds, count = ndimage.label(probability > CORE)
    sizes = np.bincount(seeds.ravel(), minlength=count + 1)
    seeds[(sizes < max(1, smallest // 4))[seeds]] = 0
    labels = watershed(-probability, seeds, mask=probability > NUCLEUS, connectivity=1)
    pixels = np.maximum(np.bincount(labels.ravel()), 1)
    mean = np.bincount(labels.ravel(), probability.ravel()) / pixels
    labels[(mean < SURE)[labels] | (probability < EDGE * mean[labels])] = 0
    return _whole(labels, smallest)


def _whole(labels: np.ndarray, smallest: int) -> np.ndarray:
    """Fill each object's holes, drop those under `smallest` pixels, number the others 1, 2, ...; int32 (H, W)."""
    out = np.zeros(labels.shape, np.int32)
    number = 0
    for value, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        filled = ndimage.binary_fill_holes(labels[box] == value)
        filled &= (labels[box] == value) | (labels[box] == 0)  # another nucleus inside a ring stays itself
        if np.count_nonzero(filled) >= smallest:
            number += 1
            out[box][filled & (out[box] == 0)] = number
    return out


# ------------------------------------------------------------------------------------------ run-length lines


def run_lengths(labels: np.ndarray) -> Iterator[str]:
    """Yield Kaggle's run-length line of each nucleus of integer (H, W), by rising number; 0 = background.

    'start length start length ...': pixels are numbered from 1, down each column first, then from left to right.
    """
    columns = np.asarray(labels).ravel(order="F").astype(np.int64)
    edges = np.flatnonzero(np.diff(columns, prepend=0, append=0) != 0)  # starts of runs, and the last one's end
    starts, ends = edges[:-1], edges[1:]
    values = columns[starts] if starts.size else starts
    for value in np.unique(values[values != 0]):
        mine = values == value
        yield " ".join(f"{start + 1} {end - start}" for start, end in zip(starts[mine], ends[mine], strict=True))
