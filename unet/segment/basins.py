"""A watershed that goes uphill: each pixel joins its highest neighbour, and so, step by step, the cell it leads to.

The basins are those of a flood from the cells (Cousty et al., IEEE TPAMI 31(8), 1362, 2009), in a fraction of the time:
there is no queue, and all pixels are processed at once. Pixels that lead to a top that is no cell continue over the
highest pass around it.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from unet.segment.distance import steps_from

SLOPE = np.float32(1e-6)  # how far flat ground falls per pixel of distance from a cell, so that it joins the nearest


def basins(height: np.ndarray | float, seeds: np.ndarray, within: np.ndarray | None = None) -> np.ndarray:
    """Let numbered cells (H, W), 0 = none, grow downhill until only a line of one pixel (0) parts them; int32 (H, W).

    They grow through 4-neighbours over `height`, float32 (H, W) or one number for all pixels, 0 to 1, and only inside
    `within`, bool (H, W), if it is given; pixels that no cell reaches are 0, too. Where pixels of two cells lie side by
    side, the lower one becomes line; of equally high ones the left or upper one.
    """
    if not seeds.any():
        return np.zeros(seeds.shape, np.int32)
    is_cell, shape = seeds > 0, (seeds.shape[0] + 2, seeds.shape[1] + 2)  # with a frame that no pixel leads to
    cells, ground, free = np.zeros(shape, np.int32), np.full(shape, -np.inf, np.float32), np.zeros(shape, bool)
    inner = (slice(1, -1), slice(1, -1))
    cells[inner], free[inner] = seeds, ~is_cell if within is None else within & ~is_cell
    np.add(SLOPE * _below(is_cell), height, out=ground[inner])
    if within is not None:
        ground[inner][~within] = -np.inf
    ground[inner][is_cell] = np.inf
    steps = (-shape[1], -1, 1, shape[1])
    ground, flat, at = ground.ravel(), cells.ravel(), np.flatnonzero(free)  # `flat` is a view of `cells`
    goal = _uphill(ground, at, steps)
    goal_cell = flat[goal]
    flat[at] = goal_cell
    unassigned = np.flatnonzero(goal_cell == 0)
    if unassigned.size:
        ties = at[unassigned][_over_passes(flat, ground, at[unassigned], goal[unassigned], steps)]
        if ties.size:  # pixels to which several cells have an equal claim join the nearest one
            flat[ties] = 0
            ground[ties] = _below(cells > 0).ravel()[ties]
            flat[ties] = flat[_uphill(ground, ties, steps)]
    _draw_line(flat, ground, free.ravel(), steps)
    return np.ascontiguousarray(cells[inner])


def _below(is_cell: np.ndarray) -> np.ndarray:
    """Return the steps from the nearest cell, bool (H, W), to each pixel, as negative numbers: float32 (H, W)."""
    return -steps_from(is_cell).astype(np.float32)


def _uphill(ground: np.ndarray, at: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
    """Return the pixel that each of the pixels `at` (n,) leads to: the first that is a top, or that is not in `at`.

    A top is a pixel that has no higher neighbour.
    """
    top, which, before = ground[at], np.zeros(len(at), np.uint8), at + steps[0]
    for number, step in enumerate(steps, 1):
        height = ground[step - steps[0]:][before]
        np.maximum(which, (height > top) * np.uint8(number), out=which)  # the last one that leads higher than before
        np.maximum(top, height, out=top)
    target = at + np.array((0, *steps))[which]
    number = np.full(ground.size, -1, np.int32)
    number[at] = np.arange(len(at))
    last = number[target].astype(np.int64)  # place in `at` of the path's last pixel there
    leaving = np.flatnonzero(last < 0)
    last[leaving] = leaving
    while True:
        twice_as_far = last[last]
        if np.array_equal(twice_as_far, last):
            return target[last]
        last = twice_as_far


def _over_passes(flat: np.ndarray, ground: np.ndarray, at: np.ndarray, goal: np.ndarray, steps: tuple[int, ...]
                 ) -> np.ndarray:
    """Assign pixels `at` (n,), which lead to tops at `goal` (n,), to the cells that they reach over the highest passes.

    The tree that connects all tops and cells with the greatest sum of passes is divided into one part for each cell.
    Returns for which pixels equally high passes lead from their top to several cells, bool (n,).
    """
    first = int(flat.max()) + 1
    tops, number = np.unique(goal, return_inverse=True)
    flat[at], count = first + number, first + len(tops)
    links = []
    for step in steps:
        differs = (flat[at + step] != flat[at]) & (flat[at + step] > 0)
        here, there = at[differs], at[differs] + step
        links.append((flat[here].astype(np.int64) * count + flat[there], 2 - np.minimum(ground[here], ground[there])))
    pairs, costs = (np.concatenate(parts) for parts in zip(*links, strict=True))
    order = np.argsort(costs, kind="stable")
    pairs, cheapest = np.unique(pairs[order], return_index=True)
    (source, target), cost = np.divmod(pairs, count), costs[order][cheapest]
    # 0 is linked to each cell at a lower cost than any pass has: so a path over tops never joins two cells
    row, column = np.append(np.zeros(first - 1, int), source), np.append(np.arange(1, first), target)
    ends = row.astype(np.int32), column.astype(np.int32)  # older versions of scipy build trees of int32 only
    tree = minimum_spanning_tree(coo_array((np.append(np.full(first - 1, 0.5), cost), ends), (count, count)))
    tree = tree.tocoo()
    inner = (tree.row > 0) & (tree.col > 0)
    _, part = connected_components(coo_array((tree.data[inner], (tree.row[inner], tree.col[inner])), (count, count)))
    cell = np.zeros(count, np.int32)
    cell[part[1:first]] = np.arange(1, first)
    cell = cell[part]

    best, lowest, highest = np.full(count, np.inf), cell.copy(), cell.copy()
    np.minimum.at(best, source, cost)
    as_good = cost == best[source]
    np.minimum.at(lowest, source[as_good], cell[target[as_good]])
    np.maximum.at(highest, source[as_good], cell[target[as_good]])
    several = (lowest != highest)[flat[at]]
    flat[at] = cell[flat[at]]
    return several


def _draw_line(flat: np.ndarray, ground: np.ndarray, free: np.ndarray, steps: tuple[int, ...]) -> None:
    """Set pixels that are `free`, bool (n,), to 0 where two cells meet, no more than are needed to separate them."""
    line = np.zeros(flat.size, bool)
    for step in steps[2:]:
        pixel = np.flatnonzero(flat[:-step] != flat[step:])
        is_lower = ground[pixel] <= ground[pixel + step]
        lower, higher = np.where(is_lower, pixel, pixel + step), np.where(is_lower, pixel + step, pixel)
        line[lower[flat[higher] > 0]] = True
    here = np.flatnonzero(line & free)
    flat[here] = 0
    around = np.stack([flat[here + step] for step in steps])
    most = around.max(axis=0)
    back = np.zeros_like(flat)  # the cell to which a pixel of the line goes back: the only one that is beside it
    back[here] = np.where(((around == most) | (around == 0)).all(axis=0), most, 0)
    for step in steps[:2]:  # of two such pixels side by side, which two cells claim, one remains line
        beside = back[here + step]
        back[here[(beside > 0) & (beside != back[here])]] = 0
    flat[here] = back[here]
