"""Exact distances of pixels that are near, and which pixel is the nearest, in a fraction of the time of all of them.

Along columns, and then along rows as a minimum over shifted copies of the image: what is k pixels away is k squared
more. The nearer all is, the sooner that ends.
"""

from __future__ import annotations

import numpy as np

LARGEST = 181  # pixels; twice the square of this fits 16 bit
FEW = 32  # pixels; up to here columns, too, are searched faster by shifting
NOWHERE = 2**29  # a row that is far from all


def squared_distance(binary: np.ndarray, most: int = LARGEST) -> np.ndarray:
    """Squared distance of each pixel from the nearest True of bool (H, W), uint16 or int64 (H, W), pixels.

    What is `most` pixels away and more has the square of `most`.
    """
    dtype = np.uint16 if most <= LARGEST else np.int64
    if most > FEW:
        columns = _squares(_nearest_rows(binary), most).astype(dtype)
    else:
        columns = _least(np.where(binary, dtype(0), dtype(most**2)).T, most).T
    return _least(columns, most)


def nearest(binary: np.ndarray, pixels: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """As `squared_distance`, and which True that is, its place in the raveled image; integers (n,) each.

    Of the n `pixels`, bool (H, W), alone. Of several as near it is the left one, of these the upper one. Where the
    nearest is `most` pixels away or more, the place says nothing.
    """
    rows, sides = _nearest_rows(binary), 2 * most + 1
    dtype = np.uint16 if 2 * most**2 * sides < 2**16 else np.int64
    # how far along the row, and `most`, is in the last digits: the minimum carries it along
    least = _least(_squares(rows, most).astype(dtype) * dtype(sides) + dtype(most), most, sides, 1)
    squared, along = np.divmod(least[pixels], dtype(sides))
    y, x = np.nonzero(pixels)
    x += along.astype(np.int64) - most
    return squared, np.clip(rows[y, x], 0, len(rows) - 1) * np.int64(binary.shape[1]) + x


def _nearest_rows(binary: np.ndarray) -> np.ndarray:
    """The row of the nearest True in each pixel's column, of two the upper one, int32 (H, W)."""
    rows = np.arange(len(binary), dtype=np.int32)[:, np.newaxis]
    above = np.maximum.accumulate(np.where(binary, rows, np.int32(-NOWHERE)), axis=0)
    below = np.minimum.accumulate(np.where(binary, rows, np.int32(NOWHERE))[::-1], axis=0)[::-1]
    return np.where(rows - above <= below - rows, above, below)


def _squares(rows: np.ndarray, most: int) -> np.ndarray:
    """Squared distance along the column of what `_nearest_rows` found, of `most` pixels at most; int32 (H, W)."""
    return np.minimum(np.abs(rows - np.arange(len(rows), dtype=np.int32)[:, np.newaxis]), most)**2


def _least(squares: np.ndarray, most: int, scale: int = 1, unit: int = 0) -> np.ndarray:
    """The least of `squares` (H, W) in each row, raised by the squared distance times `scale`, and by `unit`s along it.
    """
    squares = np.ascontiguousarray(squares.T)  # columns are shifted faster than rows
    least, raised = squares.copy(), np.empty_like(squares)
    for step in range(1, min(most, len(squares))):
        cost = step**2 * scale
        if step % 4 == 1 and cost >= least.max(initial=0):  # nothing is less from further away
            break
        for here, there, offset in ((slice(None, -step), slice(step, None), unit * step),
                                    (slice(step, None), slice(None, -step), -unit * step)):
            np.add(squares[there], cost + offset, out=raised[here])
            np.minimum(least[here], raised[here], out=least[here])
    return least.T
