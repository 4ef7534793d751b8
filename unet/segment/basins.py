"""A watershed that goes uphill: each pixel joins its highest neighbour, and so, step by step, the cell it leads to.

The basins are those of a flood from the cells (Cousty et al., IEEE TPAMI 31(8), 1362, 2009), in a fraction of the time:
there is no queue, all pixels go at once. What leads to a top that is no cell goes on over the highest pass around it.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from unet.segment.distance import steps_from

SLOPE = np.float32(1e-6)  # how far the flat falls away from cells, a pixel: so that it goes to the nearest


def basins(height: np.ndarray | float, seeds: np.ndarray, within: np.ndarray | None = None) -> np.ndarray:
    """Let numbered cells (H, W), 0 = none, grow downhill until two meet; int32 (H, W), 0 = a line of a pixel there.

    `height`, float32 (H, W) or one for all, 0 to 1, is what they grow over, through 4-neighbours, and `within` bool
    (H, W) alone; 0 is also what no cell reaches. Of two cells' pixels side by side the one of less height is line, of
    equal ones the left or upper one.
    """
    if not seeds.any():
        return np.zeros(seeds.shape, np.int32)
    is_cell, shape = seeds > 0, (seeds.shape[0] + 2, seeds.shape[1] + 2)  # a frame that nothing leads to
    cells, ground, free = np.zeros(shape, np.int32), np.full(shape, -np.inf, np.float32), np.zeros(shape, bool)
    inner = (slice(1, -1), slice(1, -1))
    cells[inner], free[inner] = seeds, ~is_cell if within is None else within & ~is_cell
    np.add(SLOPE * _below(is_cell), height, out=ground[inner])
    if within is not None:
        ground[inner][~within] = -np.inf
    ground[inner][is_cell] = np.inf
    steps = (-shape[1], -1, 1, shape[1])
    ground, flat, at = ground.ravel(), cells.ravel(), np.flatnonzero(free)  # `flat` writes into `cells`
    goal = _uphill(ground, at, steps)
    found = flat[goal]
    flat[at] = found
    alone = np.flatnonzero(found == 0)
    if alone.size:
        level = at[alone][_over_passes(flat, ground, at[alone], goal[alone], steps)]
        if level.size:  # what several cells have an equal claim to is shared out between them
            flat[level] = 0
            ground[level] = _below(cells > 0).ravel()[level]
            flat[level] = flat[_uphill(ground, level, steps)]
    _draw_line(flat, ground, free.ravel(), steps)
    return np.ascontiguousarray(cells[inner])


def _below(is_cell: np.ndarray) -> np.ndarray:
    """Steps from a cell, bool (H, W), to each pixel, below 0: float32 (H, W)."""
    return -steps_from(is_cell).astype(np.float32)


def _uphill(ground: np.ndarray, at: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
    """Where each of the pixels `at` (n,) leads to: one of them that has no higher neighbour, or any other pixel."""
    top, which, before = ground[at], np.zeros(len(at), np.uint8), at + steps[0]
    for number, step in enumerate(steps, 1):
        height = ground[step - steps[0]:][before]
        np.maximum(which, (height > top) * np.uint8(number), out=which)  # the last one that is higher than all before
        np.maximum(top, height, out=top)
    further = at + np.array((0, *steps))[which]
    number = np.full(ground.size, -1, np.int32)
    number[at] = np.arange(len(at))
    last = number[further].astype(np.int64)  # of `at`, before the way ends or leaves it
    leaves = np.flatnonzero(last < 0)
    last[leaves] = leaves
    while True:
        twice = last[last]  # as far
        if np.array_equal(twice, last):
            return further[last]
        last = twice


def _over_passes(flat: np.ndarray, ground: np.ndarray, at: np.ndarray, goal: np.ndarray, steps: tuple[int, ...]
                 ) -> np.ndarray:
    """Give pixels `at` (n,), each of which leads to a top at `goal` (n,), the cell that is over the highest passes.

    A tree of all tops and cells, in which the sum of the passes is the greatest, falls into a part for each cell.
    Returns of which pixels' tops equally high passes lead to several cells, bool (n,).
    """
    first = int(flat.max()) + 1
    tops, number = np.unique(goal, return_inverse=True)
    flat[at], count = first + number, first + len(tops)
    links = []
    for step in steps:
        other = (flat[at + step] != flat[at]) & (flat[at + step] > 0)
        here, there = at[other], at[other] + step
        links.append((flat[here].astype(np.int64) * count + flat[there], 2 - np.minimum(ground[here], ground[there])))
    pairs, costs = (np.concatenate(parts) for parts in zip(*links, strict=True))
    order = np.argsort(costs, kind="stable")
    pairs, least = np.unique(pairs[order], return_index=True)
    (one, other), cost = np.divmod(pairs, count), costs[order][least]
    # 0 is linked to each cell, at a lower cost than any pass has: no two cells are joined over a top
    row, column = np.append(np.zeros(first - 1, int), one), np.append(np.arange(1, first), other)
    ends = row.astype(np.int32), column.astype(np.int32)  # older scipy's trees take no others
    tree = minimum_spanning_tree(coo_array((np.append(np.full(first - 1, 0.5), cost), ends), (count, count)))
    tree = tree.tocoo()
    kept = (tree.row > 0) & (tree.col > 0)
    _, part = connected_components(coo_array((tree.data[kept], (tree.row[kept], tree.col[kept])), (count, count)))
    cell = np.zeros(count, np.int32)
    cell[part[1:first]] = np.arange(1, first)
    cell = cell[part]

    best, lowest, highest = np.full(count, np.inf), cell.copy(), cell.copy()
    np.minimum.at(best, one, cost)
    as_good = cost == best[one]
    np.minimum.at(lowest, one[as_good], cell[other[as_good]])
    np.maximum.at(highest, one[as_good], cell[other[as_good]])
    several = (lowest != highest)[flat[at]]
    flat[at] = cell[flat[at]]
    return several


def _draw_line(flat: np.ndarray, ground: np.ndarray, free: np.ndarray, steps: tuple[int, ...]) -> None:
    """Set pixels that are `free`, bool (n,), to 0 where two cells meet, no more than it takes to part them."""
    line = np.zeros(flat.size, bool)
    for step in steps[2:]:
        one = np.flatnonzero(flat[:-step] != flat[step:])
        first = ground[one] <= ground[one + step]
        lower, higher = np.where(first, one, one + step), np.where(first, one + step, one)
        line[lower[flat[higher] > 0]] = True
    here = np.flatnonzero(line & free)
    flat[here] = 0
    around = np.stack([flat[here + step] for step in steps])
    most = around.max(axis=0)
    back = np.zeros_like(flat)  # what one cell alone is beside goes back to it
    back[here] = np.where(((around == most) | (around == 0)).all(axis=0), most, 0)
    for step in steps[:2]:  # but of two side by side, beside two cells, one
        beside = back[here + step]
        back[here[(beside > 0) & (beside != back[here])]] = 0
    flat[here] = back[here]
