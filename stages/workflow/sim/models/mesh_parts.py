"""Convex pieces of a hollow thing, so that fingers find room in it: a mesh is cut until its pieces' hulls waste little.

The piece whose hull encloses most that is not the thing is cut next, by the plane across an axis that leaves its halves
the smallest hulls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nimbusd.stages.types import F64, I32, BoolArray

MOST_PARTS = 32
_WASTE = 0.04
"""Of the volume of the whole hull: what all pieces together may enclose in vain."""

_PLANES = 6
_CELLS = 64
"""Along the longest edge: how finely what is inside is counted."""

_LEAST_M3 = 1e-10


def convex_parts(points: F64, faces: I32) -> tuple[F64, ...]:
    """The corners (K, 3) of each convex piece. points: (V, 3) metres. faces: (F, 3), outwards. Needs scipy."""
    return _parts(np.ascontiguousarray(points).tobytes(), np.ascontiguousarray(faces, np.int32).tobytes())


@dataclass
class _Piece:
    """triangles: (N, 3, 3) of the surface, cut at the piece's planes. inside: (M, 3) points of the thing in it.

    corners: of its hull, volume: of that. whole: it can't be cut any more.
    """

    triangles: F64
    inside: F64
    corners: F64
    volume: float
    whole: bool = False

    def waste(self, cell_m3: float) -> float:
        return self.volume - len(self.inside) * cell_m3


@lru_cache(maxsize=16)
def _parts(points: bytes, faces: bytes) -> tuple[F64, ...]:
    triangles = np.frombuffer(points, np.float64).reshape(-1, 3)[np.frombuffer(faces, np.int32).reshape(-1, 3)]
    inside, cell_m3 = _cells_inside(triangles)
    pieces = [_piece(triangles, inside)]
    allowed = _WASTE * pieces[0].volume
    while len(pieces) < MOST_PARTS and sum(piece.waste(cell_m3) for piece in pieces) > allowed:
        rest = [number for number, piece in enumerate(pieces) if not piece.whole]
        if not rest:
            break
        worst = max(rest, key=lambda k: pieces[k].waste(cell_m3))
        halves = min(_cuts(pieces[worst]), key=lambda cut: cut[0], default=None)
        if halves is None:
            pieces[worst].whole = True
            continue
        pieces[worst : worst + 1] = halves[1]
    return tuple(piece.corners for piece in pieces if piece.volume > _LEAST_M3)


def _cuts(piece: _Piece) -> Iterator[tuple[tuple[float, float], list[_Piece]]]:
    """Ways to cut a piece in two, with what to compare them by: volume of the hulls, then distance from the middle."""
    low, high = piece.corners.min(axis=0), piece.corners.max(axis=0)
    longest = float((high - low).max())
    for axis in range(3):
        for number in range(1, _PLANES):
            level = float(low[axis] + (high[axis] - low[axis]) * number / _PLANES)
            below, above = _clipped(piece.triangles, axis, level)
            if not len(below) or not len(above):
                continue
            under = piece.inside[:, axis] < level
            halves = [_piece(below, piece.inside[under]), _piece(above, piece.inside[~under])]
            off = abs(number / _PLANES - 0.5) + (longest - float(high[axis] - low[axis])) / longest
            volume = sum(half.volume for half in halves)
            # Halves of a ring enclose as much as the ring: among equals, the middle of the longest edge.
            yield (round(volume / piece.volume, 2), off), halves


def _clipped(triangles: F64, axis: int, level: float) -> tuple[F64, F64]:
    """The triangles below and above a plane; those that it crosses, cut."""
    side = triangles[:, :, axis] - level
    below, above = (side <= 0).all(axis=1), (side >= 0).all(axis=1)
    crossed = ~below & ~above
    parts: dict[bool, list[F64]] = {True: [triangles[below]], False: [triangles[above & ~below]]}
    for triangle, height in zip(triangles[crossed], side[crossed], strict=True):
        for lower in (True, False):
            kept = []
            for k in range(3):
                a, b, ha, hb = triangle[k], triangle[(k + 1) % 3], height[k], height[(k + 1) % 3]
                if (ha <= 0) == lower or ha == 0:
                    kept.append(a)
                if ha * hb < 0:
                    kept.append(a + (b - a) * (ha / (ha - hb)))
            fan = [[kept[0], kept[k], kept[k + 1]] for k in range(1, len(kept) - 1)]
            parts[lower].append(np.array(fan).reshape(-1, 3, 3))
    return np.concatenate(parts[True]), np.concatenate(parts[False])


def _piece(triangles: F64, inside: F64) -> _Piece:
    from scipy.spatial import ConvexHull, QhullError

    corners = np.unique(triangles.reshape(-1, 3), axis=0)
    try:
        hull = ConvexHull(corners)
    except (QhullError, ValueError):  # flat
        return _Piece(triangles, inside, corners, 0.0)
    return _Piece(triangles, inside, corners[hull.vertices], float(hull.volume))


def _cells_inside(triangles: F64) -> tuple[F64, float]:
    """Middles (M, 3) of the cells of a grid that lie inside of the mesh, and the volume of a cell."""
    low, high = triangles.reshape(-1, 3).min(axis=0), triangles.reshape(-1, 3).max(axis=0)
    edge = float((high - low).max()) / _CELLS
    xs, ys, zs = (np.arange(low[k] + edge / 2, high[k], edge) for k in range(3))
    x, y = (grid.ravel() for grid in np.meshgrid(xs, ys, indexing="ij"))
    winding = np.zeros((len(x), len(zs)), np.int32)
    for a, b, c in triangles:
        near = np.flatnonzero(_over(x, y, a, b, c))
        if not len(near):
            continue
        normal = np.cross(b - a, c - a)
        height = a[2] - ((x[near] - a[0]) * normal[0] + (y[near] - a[1]) * normal[1]) / normal[2]
        winding[near] += np.where(zs[None] < height[:, None], int(np.sign(normal[2])), 0)
    column, level = np.nonzero(winding > 0)
    return np.stack([x[column], y[column], zs[level]], axis=1), edge**3


def _over(x: F64, y: F64, a: F64, b: F64, c: F64) -> BoolArray:
    """True where upright lines at x, y go through a triangle."""
    sides = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
    left, right = np.ones(len(x), np.bool_), np.ones(len(x), np.bool_)
    for side in sides:
        left &= side > 0
        right &= side < 0
    return np.asarray(left | right)
