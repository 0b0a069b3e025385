"""Faces with more than three corners, cut into triangles that cover what the polygon covers."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nimbusd.stages.types import F64

I64: TypeAlias = npt.NDArray[np.int64]


def triangulate_polygons(points: F64, counts: npt.ArrayLike) -> tuple[I64, I64]:
    """Triangles of many polygons at once.

    points: (C, 3) float64 corners of all polygons, one polygon after the other. counts: (P,) corners of each, >= 3.
    Returns corners (T, 3) int64 into `points`, in the polygons' order and winding, and the polygon of each triangle,
    (T,) int64. A polygon is seen along its own normal (Newell's, so it need not be flat). Where all triangles of the
    fan around its first corner look the same way, that fan is right and taken; the others, which are concave, are cut
    by ear clipping. A hole is walked as part of the outline, over a bridge of two edges that lie on each other, as
    files without a word for holes have it. Raises ValueError for a polygon with fewer than three corners.
    """
    sizes = np.asarray(counts, np.int64)
    if len(sizes) and sizes.min() < 3:
        raise ValueError("a face needs three corners")
    first = np.cumsum(sizes) - sizes
    triangles, owners = [], []
    for size in np.unique(sizes):
        polygons = np.flatnonzero(sizes == size)
        corners = first[polygons, None] + np.arange(size)
        fans, is_right = _fans(points[corners]) if size > 3 else (_fan(3), np.ones(len(polygons), bool))
        triangles.append(corners[is_right][:, fans].reshape(-1, 3))
        owners.append(np.repeat(polygons[is_right], len(fans)))
        for polygon, own in zip(polygons[~is_right], corners[~is_right], strict=True):
            found = _ear_clip(points[own])
            triangles.append(own[found])
            owners.append(np.full(len(found), polygon))
    if not triangles:
        return np.zeros((0, 3), np.int64), np.zeros(0, np.int64)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.concatenate(triangles)[order], owner[order]


def newell_normals(polygons: F64) -> F64:
    """(P, 3) normals of polygons (P, N, 3), as long as twice their areas. Source: Newell; Tampieri 1992."""
    middle = polygons - polygons[:, :1]  # far from the origin, products would lose the digits that matter
    return np.asarray(np.cross(middle, np.roll(middle, -1, axis=1)).sum(axis=1))


def _fan(size: int) -> I64:
    return np.array([(0, k, k + 1) for k in range(1, size - 1)], np.int64)


def _fans(polygons: F64) -> tuple[I64, npt.NDArray[np.bool_]]:
    """The fan of polygons (P, N, 3), and for which of them none of its triangles lies the wrong way round."""
    normals = newell_normals(polygons)
    edges = polygons[:, 1:] - polygons[:, :1]
    along = np.einsum("pkc,pc->pk", np.cross(edges[:, :-1], edges[:, 1:]), normals)
    tolerance = 1e-9 * np.einsum("pc,pc->p", normals, normals)
    return _fan(polygons.shape[1]), (along >= -tolerance[:, None]).all(axis=1)


def _ear_clip(polygon: F64) -> I64:
    """Triangles (T, 3) of one polygon (N, 3), wound as it is; the fan where it has no area."""
    import mapbox_earcut

    normal = newell_normals(polygon[None])[0]
    fan = _fan(len(polygon))
    if not np.isfinite(normal).all() or not np.linalg.norm(normal) > 0:
        return fan
    # An orthonormal basis of its plane, the axis furthest from the normal first, so that it never degenerates.
    normal = normal / np.linalg.norm(normal)
    right = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    right /= np.linalg.norm(right)
    flat = np.ascontiguousarray((polygon - polygon[0]) @ np.stack([right, np.cross(normal, right)], axis=1))
    found = mapbox_earcut.triangulate_float64(flat, np.array([len(flat)], np.uint32)).reshape(-1, 3).astype(np.int64)
    if not len(found):
        return fan
    a, b, c = (flat[found[:, k]] for k in range(3))
    clockwise = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] < 0
    found[clockwise] = found[clockwise][:, ::-1]
    return _with_every_corner(found, len(flat))


def _with_every_corner(triangles: I64, size: int) -> I64:
    """The triangles, those along which ear clipping left corners out split there.

    Seen along the normal such a corner lies on an edge. The face beside it has it all the same, and the polygon
    may be bent there.
    """
    present = set(triangles.ravel().tolist())
    made = [tuple(triangle) for triangle in triangles.tolist()]
    for corner in range(size):
        if corner in present:
            continue
        before = next(k % size for k in range(corner - 1, corner - size, -1) if k % size in present)
        after = next(k % size for k in range(corner + 1, corner + size) if k % size in present)
        for number, triangle in enumerate(made):
            for turn in range(3):
                a, b, opposite = (triangle[(turn + k) % 3] for k in range(3))
                if (a, b) == (before, after):
                    made[number : number + 1] = [(a, corner, opposite), (corner, b, opposite)]
                    present.add(corner)
                    break
            if corner in present:
                break
    return np.array(made, np.int64)
