"""Closed bodies in a scene that are inside out, so that their faces can say where inside is.

A body is a connected part of an object's mesh. Where each of its edges is passed as often one way as the other, it is
closed, and its signed volume says which way its faces look. Those of things have to look outwards, and those of a room
inwards. As large as a room, a body is one if a floor ends inside of it, and a thing if the floor goes on through it, or
if there is none: then a room's own faces are its floor, and they look the right way already. A scene in which most of
the closed things are turned over is so altogether, rooms included.
"""

from __future__ import annotations

import numpy as np

from nimbusd.stages.types import F64, I32, BoolArray

_WELD_M = 1e-4
_ROOM_M2 = 6.0
_ROOM_HIGH_M = 2.2
_ROOM_FILL = 0.5  # of its bounding box; the walls of a house are one body, too, and fill little of theirs
_BEYOND_M2 = 0.1
_FLOOR_M = 0.3
"""A floor in which something stands is not further above that thing's lowest point."""


def inside_out(corners: F64, owner: I32) -> BoolArray:
    """(N,) True for the triangles of closed bodies that have to be turned over to look outwards, or rooms inwards.

    corners: (N, 3, 3) world metres. owner: (N,) which object a triangle is of.
    """
    if not len(corners):
        return np.zeros(0, np.bool_)
    vertex = _welded(corners, owner)
    body, count = _bodies(vertex)
    closed = _closed(vertex, body, count)
    low, high = _extent(corners, body, count)
    # Volumes are measured from each body's own middle: far from the origin they would drown in rounding.
    a, b, c = np.moveaxis(corners - ((low + high) / 2)[body][:, None], 1, 0)
    volume = np.bincount(body, weights=np.einsum("ij,ij->i", a, np.cross(b, c)), minlength=count) / 6
    size = high - low
    roomy = (size[:, 0] * size[:, 1] >= _ROOM_M2) & (size[:, 2] >= _ROOM_HIGH_M)
    roomy &= np.abs(volume) >= _ROOM_FILL * size.prod(axis=1)
    inwards, thing = closed & (volume < 0), closed & ~roomy
    turned = inwards & thing
    if 2 * np.count_nonzero(turned) > np.count_nonzero(thing):
        turned |= closed & roomy
        return turned[body]
    for number in np.flatnonzero(closed & roomy):
        ends_inside, goes_on = _floor_in(corners, body, number, low, high)
        turned[number] = goes_on if inwards[number] else ends_inside
    return turned[body]


def _floor_in(corners: F64, body: I32, number: int, low: F64, high: F64) -> tuple[bool, bool]:
    """True where most of a body's footprint has a floor that is not its own: one that ends inside, one that goes on."""
    import shapely

    z_m, level = corners[:, :, 2], float(low[number, 2])
    near = (body != number) & (z_m.min(axis=1) >= level - _WELD_M) & (z_m.max(axis=1) <= level + _FLOOR_M)
    around = shapely.box(*low[number, :2], *high[number, :2])
    triangles = shapely.polygons(corners[near][:, :, :2])
    within = shapely.area(shapely.intersection(triangles, around))
    beyond = shapely.area(triangles) - within > _BEYOND_M2
    goes_on = bool(within[beyond].sum() > 0.5 * around.area)
    return not goes_on and bool(within[~beyond].sum() > 0.5 * around.area), goes_on


def _welded(corners: F64, owner: I32) -> I32:
    """(N, 3) numbers of the triangles' corners: equal where corners of one object are in one place."""
    place = np.round((corners - corners.reshape(-1, 3).min(axis=0)) / _WELD_M).astype(np.int64).reshape(-1, 3)
    order = np.lexsort((place[:, 2], place[:, 1], place[:, 0], np.repeat(owner, 3)))
    sorted_owner, place = np.repeat(owner, 3)[order], place[order]
    new = np.append(True, (np.diff(place, axis=0) != 0).any(axis=1) | (np.diff(sorted_owner) != 0))
    number = np.empty(len(order), np.int32)
    number[order] = np.cumsum(new) - 1
    return number.reshape(-1, 3)


def _bodies(vertex: I32) -> tuple[I32, int]:
    """(N,) the body of each triangle, and how many there are."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = int(vertex.max()) + 1
    joined = np.concatenate([vertex[:, :2], vertex[:, 1:]])
    graph = coo_array((np.ones(len(joined), np.bool_), (joined[:, 0], joined[:, 1])), shape=(size, size))
    count, of_vertex = connected_components(graph, directed=False)
    return np.asarray(of_vertex[vertex[:, 0]], np.int32), int(count)


def _closed(vertex: I32, body: I32, count: int) -> BoolArray:
    """(B,) True for the bodies of which every edge is passed as often one way as the other."""
    tail, head = vertex.ravel(), np.roll(vertex, -1, axis=1).ravel()
    edge = np.minimum(tail, head).astype(np.int64) * (int(vertex.max()) + 1) + np.maximum(tail, head)
    order = np.argsort(edge, kind="stable")
    edge, way = edge[order], np.sign(head.astype(np.int64) - tail)[order]
    begins = np.flatnonzero(np.append(True, np.diff(edge) != 0))
    unbalanced = np.add.reduceat(way, begins) != 0
    closed = np.ones(count, np.bool_)
    closed[np.repeat(body, 3)[order[begins[unbalanced]]]] = False
    return closed


def _extent(corners: F64, body: I32, count: int) -> tuple[F64, F64]:
    """(B, 3) lowest and highest corner of each body."""
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, body, corners.min(axis=1))
    np.maximum.at(high, body, corners.max(axis=1))
    return low, high
