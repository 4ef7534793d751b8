"""Merge cells that walls divide, the least likely membrane first, so that a wall's value takes account of the others.

Judged one by one, walls contradict each other: a small piece between two cells may seem to belong to both, though the
wall between the two is a sure membrane. So pieces are merged one after the other, and all that then lies between two
merged pieces counts as one wall, whose value is the mean over its pixels. In the terms of Bailoni et al.
(arXiv:1906.11713) this is agglomeration with average linkage; the connected pieces above a threshold would
be single linkage.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numpy as np

from unet.segment.crests import Walls


def merge_values(walls: Walls, values: np.ndarray) -> np.ndarray:
    """Return the value at which the cells on both sides of each wall merge, float64 (n,); `values` (n,) are the walls'.

    Above a threshold t, cells are joined exactly as merging joins them until no wall has a value over t.
    """
    merge_at, lengths = np.array(values, float), np.bincount(walls.wall_of).tolist()
    # of each cell: its neighbours, and of what lies between them the value, the length in pixels, and the walls
    around: list[dict[int, tuple[float, int, list[int]]]] = [{} for _ in range(walls.cells.max() + 1)]
    for wall, (one, other) in enumerate(walls.sides.tolist()):
        if one != other:  # not a crest that ends within a cell
            around[one][other] = around[other][one] = merge_at[wall], lengths[wall], [wall]
    waiting = [(-value, one, other) for one, neighbours in enumerate(around)
               for other, (value, *_) in neighbours.items() if one < other]
    heapify(waiting)
    while waiting:
        value, one, other = heappop(waiting)
        if around[one].get(other, (None,))[0] != -value:  # it has been merged, or lengthened
            continue
        merge_at[around[one][other][2]] = -value
        if len(around[one]) < len(around[other]):
            one, other = other, one
        del around[one][other], around[other][one]
        for third, (its_value, its_length, its_walls) in around[other].items():
            del around[third][other]
            if third in around[one]:
                own_value, own_length, own_walls = around[one][third]
                its_value = (own_value * own_length + its_value * its_length) / (own_length + its_length)
                its_length, its_walls = own_length + its_length, own_walls + its_walls
            around[one][third] = around[third][one] = its_value, its_length, its_walls
            heappush(waiting, (-its_value, min(one, third), max(one, third)))
        around[other] = {}
    return merge_at
