"""Exact distances of pixels that are near, and which pixel is the nearest, in a fraction of the time of all of them.

Along columns, and then along rows as a minimum over shifted copies of the image: what is k pixels away is k squared
more. The nearer all is, the sooner that ends.
"""

from __future__ import annotations

import numpy as np

LARGEST = 181  # pixels; twice the square of this fits 16 bit
NOWHERE = 2**29  # a row that is far from all


def squared_distance(binary: np.ndarray, most: int = LARGEST) -> np.ndarray:
    """Squared distance of each pixel from the nearest True of bool (H, W), uint16 or int64 (H, W), pixels.

    What is `most` pixels away and more has the square of `most`.
    """
    return _least(_squares(_nearest_rows(binary), most).astype(np.uint16 if most <= LARGEST else np.int64), most)


def nearest(binary: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """As `squared_distance`, and which True that is: its place in the raveled image, integers (H, W) each.

    Of several as near it is the left one, of these the upper one. Where the nearest is `most` pixels away or more, the
    place says nothing.
    """
    (height, width), rows, bits = binary.shape, _nearest_rows(binary), int(2 * most).bit_length()
    dtype = np.int32 if 2 * most**2 + 1 << bits < 2**31 else np.int64
    # how far along the row, and `most`, is in the last bits: the minimum carries it along
    least = _least((_squares(rows, most).astype(dtype) << bits) + most, most, bits, 1)
    place = np.arange(binary.size).reshape(binary.shape) + (least & (1 << bits) - 1) - most
    return least >> bits, np.clip(rows, 0, height - 1).ravel()[place] * width + place % width


def _nearest_rows(binary: np.ndarray) -> np.ndarray:
    """The row of the nearest True in each pixel's column, of two the upper one, int32 (H, W)."""
    rows = np.arange(len(binary), dtype=np.int32)[:, np.newaxis]
    above = np.maximum.accumulate(np.where(binary, rows, np.int32(-NOWHERE)), axis=0)
    below = np.minimum.accumulate(np.where(binary, rows, np.int32(NOWHERE))[::-1], axis=0)[::-1]
    return np.where(rows - above <= below - rows, above, below)


def _squares(rows: np.ndarray, most: int) -> np.ndarray:
    """Squared distance along the column of what `_nearest_rows` found, of `most` pixels at most; int32 (H, W)."""
    return np.minimum(np.abs(rows - np.arange(len(rows), dtype=np.int32)[:, np.newaxis]), most)**2


def _least(squares: np.ndarray, most: int, bits: int = 0, unit: int = 0) -> np.ndarray:
    """The least of `squares` (H, W) in each row, raised by the squared distance, shifted by `bits`, and `unit`s."""
    squares = squares.T.copy()  # columns are shifted faster than rows
    least, raised = squares.copy(), np.empty_like(squares)
    for step in range(1, min(most, len(squares))):
        cost = step**2 << bits
        if step % 4 == 1 and cost >= least.max(initial=0):  # nothing is less from further away
            break
        for here, there, offset in ((slice(None, -step), slice(step, None), unit * step),
                                    (slice(step, None), slice(None, -step), -unit * step)):
            np.add(squares[there], cost + offset, out=raised[here])
            np.minimum(least[here], raised[here], out=least[here])
    return least.T
