"""Exact distances up to a limit, and the nearest pixel, in a fraction of the time of a full distance transform.

Along columns each pass doubles the distance over which values spread; along rows a pixel takes over its neighbours'
values plus 1, 3, 5, ..., which add up to squares. The shorter the distances are, the sooner that ends. No pixel is
treated by a rule of its own, which would cost more than all the sums.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_cdt

LARGEST = 181  # pixels; twice the square of this fits into 16 bits
FAR = 32  # pixels; steps are counted for all pixels at once up to nearly twice this distance
SEARCHED_PIXELS = 2**17  # pixels in the rows that are searched at once: they stay in the processor's cache


def squared_distance(binary: np.ndarray, limit: int = LARGEST) -> np.ndarray:
    """Compute each pixel's squared distance from the nearest True of bool (H, W), in pixels: uint16 or int64 (H, W).

    Pixels at a distance of `limit` or more get the square of `limit`.
    """
    dtype = np.dtype(np.uint16 if limit <= LARGEST else np.int64)
    steps = np.multiply(~binary, limit, dtype=dtype)
    _lead_down(steps, limit)
    _lead_down(steps[::-1], limit)
    return _least(np.square(steps, out=steps), limit)


def steps_from(binary: np.ndarray) -> np.ndarray:
    """Count each pixel's steps, through 4-neighbours, from the nearest True of bool (H, W); uint8 or int32 (H, W)."""
    width, none = binary.shape[1], np.uint8(255 - FAR)
    table = np.full((len(binary), width + FAR), none)  # rows follow each other, columns that lend nothing between
    np.multiply(~binary, none, out=table[:, :width])
    line, step = table.ravel(), 1
    while step <= FAR:
        for way in (table, line):  # slices run forward: backward ones take several times as long
            np.minimum(way[step:], way[:-step] + np.uint8(step), out=way[step:])
            np.minimum(way[:-step], way[step:] + np.uint8(step), out=way[:-step])
        table[:, width:] = none
        step *= 2
        if table[:, :width].max() < step:  # all distances below `step` are exact, and none is longer
            return table[:, :width]
    return distance_transform_cdt(~binary, "taxicab")


def nearest(binary: np.ndarray, pixels: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared distance of n pixels, see `squared_distance`, and the nearest True; integers (n,) each.

    `pixels` and the result give the places of pixels in the raveled image. Of several equally near ones the left one
    is returned, of these the upper one. If the nearest is `limit` pixels away or more, its place has no meaning.
    """
    base, width = 2 * limit + 1, binary.shape[1]
    dtype = np.dtype(np.uint16 if 2 * limit**2 * base < 2**16 else np.int64)
    above = np.multiply(~binary, limit, dtype=dtype)
    below = above.copy()
    _lead_down(above, limit)
    _lead_down(below[::-1], limit)
    steps = np.minimum(above, below)
    # the last digits hold the offset along the row plus `limit`: the minimum carries it along
    least = _least(steps * steps * dtype.type(base) + dtype.type(limit), limit, base, 1).ravel()[pixels]
    squared = least // dtype.type(base)
    column = pixels + (least - squared * dtype.type(base)).astype(np.int64) - limit
    down = steps.ravel()[column].astype(np.int64)
    np.negative(down, out=down, where=(above <= below).ravel()[column])
    return squared, np.clip(column + down * width, 0, binary.size - 1)


def _lead_down(steps: np.ndarray, limit: int) -> None:
    """Lower each value of `steps` (H, W) to the least of the values above it plus the steps from there, in place."""
    step = 1
    while step < min(limit, len(steps)):
        np.minimum(steps[step:], steps[:-step] + steps.dtype.type(step), out=steps[step:])
        step *= 2


def _least(squares: np.ndarray, limit: int, scale: int = 1, unit: int = 0) -> np.ndarray:
    """Return, for each pixel, the least of `squares` (H, W) in its row, each plus its squared distance times `scale`.

    For each pixel that it lies further to the right, `unit` is added, too; to the left, it is subtracted.
    """
    (height, width), scalar = squares.shape, squares.dtype.type
    least, beyond = np.empty_like(squares), scalar(limit**2 * scale + limit * unit)
    size = max(1, SEARCHED_PIXELS // (width + 1))
    for first in range(0, height, size):
        rows = squares[first:first + size]
        # rows follow each other, with a column that lends nothing between them: one shift moves all rows
        line = np.full(len(rows) * (width + 1) + 1, beyond, squares.dtype)
        table = line[1:].reshape(len(rows), width + 1)
        table[:, :-1] = rows
        larger = np.empty(line.size - 2, squares.dtype)
        for step in range(1, min(limit, width)):
            if step % 4 == 1 and step**2 * scale >= table[:, :-1].max(initial=0):  # nothing further away is less
                break
            np.minimum(np.add(line[2:], scalar(2 * unit), out=larger) if unit else line[2:], line[:-2], out=larger)
            larger += scalar((2 * step - 1) * scale - unit)
            np.minimum(line[1:-1], larger, out=line[1:-1])
            table[:, -1] = beyond
        least[first:first + size] = table[:, :-1]
    return least
