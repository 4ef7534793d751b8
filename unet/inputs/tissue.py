"""Simulated tissue: cells that move and change through z, and the walls that a section of them shows.

Cells are chains of soft discs that push each other away through z. A pixel belongs to the nearest disc (an
additively weighted Voronoi diagram under a smooth warp): there are no gaps, and every wall is closed.
A section is thick: walls that run obliquely through it appear wide and grey, as they do in a microscope.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ndi
from scipy.special import expit

Array = np.ndarray
Rng = np.random.Generator
Discs = tuple[Array, Array, Array]  # positions (.., n, 2), radii (.., n), the cell of each (n,)


@dataclass(frozen=True)
class Section:
    """The walls of a section, each (H, W)."""

    owner: Array  # int32: the cell of each pixel, at the section's middle level
    distance: Array  # to the nearest wall, px, at the same level
    density: Array  # share of the section's thickness that is membrane


@dataclass(frozen=True)
class Look:
    """Parameters of the tissue and the microscope; lengths in pixels (ISBI: 4 nm), z in sections (50 nm)."""

    margin: int = 48  # tissue simulated beyond the image's edge, px
    thickness: int = 3  # levels averaged into one section
    radii: tuple = (8.0, 14.0, 24.0, 36.0)  # median disc radius of thin, small, middle and large cells, px
    shares: tuple = (0.11, 0.33, 0.30, 0.36)  # of the tissue's area that each kind covers
    links: tuple = ((3, 8), (1, 3), (1, 3), (1, 3))  # discs in a chain: fewest, most
    speed: float = 2.2  # how far a disc wanders from one section to the next, px
    warp: tuple = ((48.0, 9.0), (15.0, 2.8), (6.0, 0.8))  # (scale, amplitude) of the walls' waviness, px
    stretch: float = 1.6  # how far the knife and the registration displace each section, px
    shade: float = 5.0  # how the cells' brightness differs, grey levels
    half_width: float = 2.3  # of a membrane that is cut at a right angle, px
    label_density: float = 0.36  # a pixel is labelled membrane if this share of the section is membrane
    label_half_width: float = 2.9  # ... or if it is this near to a wall at the section's middle level, px
    least_cell: int = 16  # smaller pieces between membranes are labelled membrane, px
    cytoplasm: float = 157.0  # grey of a cell's inside
    membrane: float = 126.0  # darkness of a membrane, grey levels below cytoplasm
    mottle: tuple = ((1.1, 20.0), (2.4, 13.0), (9.0, 4.0))  # (scale px, grey) of the cytoplasm's texture
    drift: float = 3.0  # brightness that changes slowly over a section, grey levels
    slice_shift: float = 3.0  # brightness from section to section, grey levels
    slice_gain: float = 0.09  # contrast from section to section, relative
    noise: float = 33.0  # shot noise at mid grey before the detector's blur, grey levels
    blur: tuple = (0.45, 0.8)  # the microscope's, lowest and highest, px


def smooth_noise(shape: tuple[int, ...], scale: float | tuple[float, ...], rng: Rng) -> Array:
    """Draw a Gaussian random field, float32 of `shape`, mean 0, sd about 1; `scale` in px, one or one per axis."""
    scale = np.broadcast_to(np.asarray(scale, float), len(shape))
    # long waves are drawn on a coarser grid and interpolated: an equivalent field at a fraction of the cost
    step = np.maximum(1.0, scale / 2)
    coarse = [int(np.ceil(n / s)) + 6 for n, s in zip(shape, step, strict=True)]
    field = ndi.gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), scale / step, mode="wrap")
    field = field[tuple(slice(n if s == 1 else None) for n, s in zip(shape, step, strict=True))] / field.std()
    for axis in np.flatnonzero(step > 1):
        at = rng.uniform(2, 3) + np.arange(shape[axis]) / step[axis]  # random phase: the grid leaves no trace
        low = np.floor(at + 0.5).astype(int)
        t = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        spline = {-1: 0.5 * (0.5 - t) ** 2, 0: 0.75 - t**2, 1: 0.5 * (0.5 + t) ** 2}
        field = sum(weight * field.take(low + k, axis) for k, weight in spline.items())
    return field


def draw_cells(extent: int, look: Look, rng: Rng) -> Discs:
    """Draw overlapping discs that fill `extent`² px: positions (n, 2), radii (n,), cells (n,), chain by chain."""
    positions, radii = [], []
    for median, share, (fewest, most) in zip(look.radii, look.shares, look.links, strict=True):
        area = 0.0
        while area < share * extent**2:
            count = rng.integers(fewest, most + 1)
            chain_radii = median * np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.12, count))
            heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.4, count))
            path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], 1) * 1.1 * chain_radii[:, None], 0)
            positions.append(path - path.mean(0) + rng.uniform(0, extent, 2))
            radii.append(chain_radii)
            area += 0.8 * np.pi * (chain_radii**2).sum()  # links of a chain overlap
    cells = np.repeat(np.arange(len(radii)), [len(chain) for chain in radii])
    return np.concatenate(positions), np.concatenate(radii), cells


def settle(positions: Array, radii: Array, cells: Array, extent: int, rounds: int) -> Array:
    """Push overlapping discs apart and hold chains together; return new positions (n, 2) in px."""
    p = positions.copy()
    bonds = [(i, i + 1, 0.60) for i in np.flatnonzero(cells[1:] == cells[:-1])]
    bonds += [(i, i + 2, 1.10) for i in np.flatnonzero(cells[2:] == cells[:-2])]  # a chain bends, but does not fold
    first, second, factor = map(np.array, zip(*bonds, strict=True))
    rest = factor * (radii[first] + radii[second])
    for turn in range(rounds):
        if turn % 10 == 0:  # find the pairs of discs that can touch within the next ten rounds
            distance = np.hypot(*(p[:, None] - p).T)
            i, j = np.nonzero((distance < radii[:, None] + radii + 25) & (cells[:, None] != cells))
            touch = 0.92 * (radii[i] + radii[j])
            mobility = 0.35 * radii[j] ** 2 / (radii[i] ** 2 + radii[j] ** 2)  # the smaller one gives way
        gap = p[i] - p[j]
        push = gap * (mobility * np.maximum(touch / (np.hypot(*gap.T) + 1e-6) - 1, 0))[:, None]
        pull = p[second] - p[first]
        pull *= 0.2 * (1 - rest / (np.hypot(*pull.T) + 1e-6))[:, None]
        shift = [np.bincount(i, push[:, a], len(p)) + np.bincount(first, pull[:, a], len(p))
                 - np.bincount(second, pull[:, a], len(p)) for a in (0, 1)]
        p = np.clip(p + np.clip(np.stack(shift, 1), -4, 4), 0, extent)
    return p


def move_cells(levels: int, extent: int, look: Look, rng: Rng) -> Discs:
    """Return the discs at each level, smooth in z: positions (levels, n, 2), radii (levels, n) in px, cells (n,)."""
    p, first_radii, cells = draw_cells(extent, look, rng)
    p = settle(p, first_radii, cells, extent, 250)
    count, depth = cells[-1] + 1, 5 * look.thickness  # a disc keeps its direction for about five sections
    radii = first_radii * np.exp(0.22 * smooth_noise((levels, len(cells)), (1.6 * depth, 0.01), rng))
    # a cell moves as a whole; a few run nearly in the section's plane and so move fast
    pace = np.exp(rng.normal(0, 0.5, count)) * look.speed / look.thickness
    velocity = np.stack([pace * smooth_noise((levels, count), (depth, 0.01), rng) for _ in "yx"], -1)
    positions = []
    for step, level_radii in zip(velocity[:, cells], radii, strict=True):
        positions.append(p := settle(p + step, level_radii, cells, extent, 6))
    return np.float32(positions), np.float32(radii), cells


def partition(positions: Array, radii: Array, cells: Array, warp: Array) -> tuple[Array, Array]:
    """Return the cell of each pixel, int32 (H, W), and its distance to the nearest wall, float32 (H, W), px.

    `positions` (n, 2), `radii` (n,) in px; `warp` (2, H, W): pixel (y, x) is looked up at (y, x) + warp.
    """
    height, width = warp.shape[1:]
    rows = np.arange(height, dtype=np.float32)[:, None] + warp[0]
    columns = np.arange(width, dtype=np.float32) + warp[1]
    # the window where a disc can be nearest or second; the warp displaces it
    spots = np.clip(positions.astype(int), 0, (height - 1, width - 1))
    displaced = positions - warp[:, spots[:, 0], spots[:, 1]].T
    owner = np.full((height, width), -1, np.int32)
    nearest, runner_up = np.full((2, height, width), 1e3, np.float32)
    low = np.clip(displaced - radii[:, None] - 34, 0, (height, width)).astype(int)
    high = np.clip(displaced + radii[:, None] + 35, 0, (height, width)).astype(int)
    for i in np.flatnonzero((low < high).all(1)):
        window = slice(low[i, 0], high[i, 0]), slice(low[i, 1], high[i, 1])
        y, x, radius, cell = *positions[i], radii[i], cells[i]
        far = np.sqrt((rows[window] - y) ** 2 + (columns[window] - x) ** 2) - radius
        best, own = nearest[window], owner[window] == cell
        # the runner-up is the nearest disc of another cell: walls lie between cells, not within a chain
        second = runner_up[window]
        runner_up[window] = np.where(own, second, np.minimum(second, np.maximum(best, far)))
        owner[window][far < best] = cell
        np.minimum(best, far, out=best)
    lead = runner_up - nearest
    return owner, lead / np.clip(np.hypot(*np.gradient(lead)), 1.0, 2.5)


def label_section(section: Section, look: Look) -> Array:
    """Return labels uint8 (H, W), 0 = membrane, 255 = cell, whose membranes are closed: cells are never 4-connected."""
    membrane = (section.density > look.label_density) | (section.distance < look.label_half_width)
    wall = ndi.morphological_gradient(section.owner, footprint=ndi.generate_binary_structure(2, 1)) > 0
    membrane |= ndi.binary_dilation(wall)
    islands = ndi.label(membrane)[0]
    membrane &= (np.bincount(islands.ravel(), wall.ravel()) > 0)[islands]  # a speck within a cell is not a wall
    pieces = ndi.label(~membrane)[0]  # 4-connected
    membrane |= np.bincount(pieces.ravel())[pieces] < look.least_cell
    return np.where(membrane, 0, 255).astype(np.uint8)


def cut_section(discs: Discs, bends: Array, look: Look, rng: Rng) -> Section:
    """Return the walls of a section.

    `discs`: positions (levels, n, 2), radii (levels, n), cells (n,); `bends` (levels, 2, H, W): the warp.
    """
    shape, density, levels = bends.shape[2:], 0, []
    stretch = look.stretch * np.stack([0.7 * smooth_noise(shape, 60, rng) + rng.normal() for _ in "yx"])
    # in some places a synapse's density blackens the wall
    half_width = look.half_width + 0.25 * smooth_noise(shape, 8, rng)
    half_width += 5 * np.clip(smooth_noise(shape, 16, rng) - 1.7, 0, 1.2)
    for positions, radii, bend in zip(*discs[:2], bends, strict=True):
        levels.append(partition(positions, radii, discs[2], bend + stretch))
        density += expit((half_width - levels[-1][1]) / 0.6) / len(bends)
    return Section(*levels[len(levels) // 2], density)
