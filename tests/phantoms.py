"""Seeded drawings whose background (0) is more than thin walls, and what a perfect network would predict for them."""

import numpy as np
from scipy.ndimage import center_of_mass, gaussian_filter
from scipy.spatial import cKDTree

SIDE = 320
Y, X = np.mgrid[:SIDE, :SIDE]


def strip(lines: dict[int, float], shape: tuple[int, int] = (20, 90)) -> np.ndarray:
    """Return a probability of cell, 1 except for lines of membrane at some columns, {column: probability}."""
    probability = np.ones(shape, np.float32)
    for column, value in lines.items():
        probability[:, column] = value
    return probability


def tissue(rng: np.random.Generator, spacing: float = 34.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw cells about `spacing` pixels wide, a Voronoi diagram of points on a jittered grid that exceeds the image.

    Returns the two nearest points of each pixel, int (2, SIDE, SIDE), and its distance from the middle between them.
    """
    grid = np.stack(np.mgrid[-1:SIDE // spacing + 2, -1:SIDE // spacing + 2], -1).reshape(-1, 2)
    points = (grid + rng.uniform(0.1, 0.9, grid.shape)) * spacing
    distance, nearest = cKDTree(points).query(np.stack([Y, X], -1), 2)
    apart = np.linalg.norm(points[nearest[..., 0]] - points[nearest[..., 1]], axis=-1)
    return np.moveaxis(nearest, -1, 0), (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * apart)


def disc(y: float, x: float, radius: float) -> np.ndarray:
    """Return the pixels within `radius` of a point, bool (SIDE, SIDE)."""
    return (Y - y) ** 2 + (X - x) ** 2 <= radius**2


def blur(cell: np.ndarray) -> np.ndarray:
    """Return what a network that knows the cells would predict: the cells, blurred by a pixel, float32."""
    return gaussian_filter(cell.astype(np.float32), 1)


LUMEN = disc(160, 160, 45)
OUTSIDE = disc(0, 0, 145)  # 16 % of the field


def with_lumen(rng: np.random.Generator) -> np.ndarray:
    """Draw tissue with a lumen in its middle."""
    return (tissue(rng)[1] > 2.5) & ~LUMEN


def colony(rng: np.random.Generator) -> np.ndarray:
    """Draw tissue with the outside of a colony in one corner."""
    return (tissue(rng)[1] > 2.5) & ~OUTSIDE


def two_widths(rng: np.random.Generator) -> np.ndarray:
    """Draw tissue with walls of 3 pixels and, every third one, of 14."""
    nearest, distance = tissue(rng)
    return distance > np.where(nearest.sum(axis=0) % 3 == 0, 7, 1.5)


def discs(square: bool, radius: float = 14, gap: float = 4) -> np.ndarray:
    """Draw discs with gaps of 4 pixels, in rows and columns or, denser, each over a gap of the row below."""
    step, cell = 2 * radius + gap, np.zeros((SIDE, SIDE), bool)
    for row, y in enumerate(np.arange(0, SIDE + step, step if square else step * 0.75**0.5)):
        for x in np.arange(0 if square or row % 2 else step / 2, SIDE + step, step):
            cell |= disc(y, x, radius)
    return cell


def free_ends(rng: np.random.Generator) -> np.ndarray:
    """Draw tissue with a membrane from the wall of each large cell that ends in the cell's middle."""
    (own, _), distance = tissue(rng, 80)
    cell = distance > 2.5
    for number in np.flatnonzero(np.bincount(own.ravel()) > 3500):
        y, x = center_of_mass(own == number)
        cell[(own == number) & (abs(Y - y) <= 2.5) & (x - X >= 0)] = False
    return cell


def unsure_neurites(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw thin cells; return them, a prediction that is only .88 sure of every fifth, and these; each (SIDE, SIDE)."""
    (own, _), distance = tissue(rng, 26)
    cell = distance > 2.5
    neurites = cell & (own % 5 == 0)
    return cell, blur(np.where(neurites, 0.88, cell)), neurites
