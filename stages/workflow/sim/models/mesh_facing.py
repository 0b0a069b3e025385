"""Faces that look outwards, whatever a file's winding: inside out, mirrored, mixed, or of an open shell.

Grasps close on opposite sides, which normals tell; on a mesh that is inside out there are none. Faces that share an
edge are first made to agree. A closed body then looks outwards by the sign of its volume (one inside another keeps the
opposite sense, where the file gave it one: a cavity); of open patches, rays from either side say where outside is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nimbusd.stages.types import F64, I32, BoolArray

_WELD = 1e-6
"""Of the size: corners nearer than this are one."""

_RAY_PAIRS = 20_000_000
_RAYS = (3, 32)
"""Rays from a patch of an open mesh, least and most; how many pairs of rays and faces are looked at in all."""

_CONTAINED_RAYS = 5


def turned_faces(points: F64, faces: I32) -> BoolArray:
    """(F,) True for the faces of a mesh, (V, 3) and (F, 3), that have to be turned over to look outwards.

    Nothing is said of patches that look the same from both sides, such as a flat sheet.
    """
    if not len(faces):
        return np.zeros(0, np.bool_)
    edges = _Edges(faces)
    if not edges.closed:
        edges = _Edges(_welded(points, faces))
    turn, patch = edges.agreeing()
    count = int(patch.max()) + 1
    closed = np.ones(count, np.bool_)
    closed[patch[edges.at_border]] = False
    corners = points[faces] - points.mean(axis=0)
    corners[turn] = corners[turn][:, ::-1]
    volume = np.asarray(np.bincount(patch, weights=np.linalg.det(corners) / 6, minlength=count), np.float64)
    wrong = np.zeros(count, np.bool_)
    wrong[closed] = _wrong_bodies(corners, patch, volume, np.flatnonzero(closed))
    for number, answer in _wrong_patches(corners, patch, np.flatnonzero(~closed)):
        wrong[number] = answer
    return np.asarray(turn ^ wrong[patch])


class _Edges:
    """Pairs of faces that share edges, by the numbers of their corners.

    at_border: faces with an edge that is not shared by exactly two.
    """

    def __init__(self, faces: I32) -> None:
        self._count = len(faces)
        tail, head = faces.ravel().astype(np.int64), np.roll(faces, -1, axis=1).ravel().astype(np.int64)
        key = np.minimum(tail, head) * (int(faces.max()) + 1) + np.maximum(tail, head)
        order = np.argsort(key, kind="stable")
        begins = np.flatnonzero(np.append(True, np.diff(key[order]) != 0))
        sizes = np.diff(np.append(begins, len(order)))
        first, second = order[begins[sizes == 2]], order[begins[sizes == 2] + 1]
        shared = np.zeros(len(order), np.bool_)
        shared[first] = shared[second] = True
        self._one, self._other = first // 3, second // 3
        self._against = (tail[first] < head[first]) == (tail[second] < head[second])
        self.at_border = np.unique(np.flatnonzero(~shared) // 3)

    @property
    def closed(self) -> bool:
        return not len(self.at_border)

    def agreeing(self) -> tuple[BoolArray, I32]:
        """(F,) which faces to turn so that neighbours agree, and (F,) numbers of the patches that hang together.

        Patches in which they cannot (a Möbius strip) stay as they are.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        n, against = self._count, self._against
        # Every face twice, as it is and turned over; what hangs together there agrees.
        a = np.concatenate([self._one, self._one + n])
        b = np.concatenate(
            [np.where(against, self._other + n, self._other), np.where(against, self._other, self._other + n)]
        )
        graph = coo_array((np.ones(len(a), np.bool_), (a, b)), shape=(2 * n, 2 * n))
        side = connected_components(graph, directed=False)[1]
        as_is, over = side[:n], side[n:]
        # Of the two ways in which a patch may agree, the one that leaves more faces as they are.
        pair, patch = np.unique(np.minimum(as_is, over), return_inverse=True)
        patch = patch.reshape(-1)
        low = as_is == pair[patch]
        most = 2 * np.bincount(patch, weights=low, minlength=len(pair)) >= np.bincount(patch, minlength=len(pair))
        return np.asarray((low != most[patch]) & (as_is != over)), np.asarray(patch, np.int32)


def _welded(points: F64, faces: I32) -> I32:
    """The faces with corners in one place numbered alike."""
    size = float((points.max(axis=0) - points.min(axis=0)).max()) or 1.0
    place = np.round((points - points.min(axis=0)) / (size * _WELD)).astype(np.int64)
    return np.asarray(np.unique(place, axis=0, return_inverse=True)[1].reshape(-1)[faces], np.int32)


def _wrong_bodies(corners: F64, patch: I32, volume: F64, bodies: I32) -> BoolArray:
    """Mark closed bodies that look inwards and should not, or the reverse, for bodies inside others."""
    sign = np.where(volume[bodies] < 0, -1, 1)
    if len(bodies) == 1:
        return np.asarray(sign < 0)
    order = np.argsort(-np.abs(volume[bodies]), kind="stable")
    low, high = np.full((len(bodies), 3), np.inf), np.full((len(bodies), 3), -np.inf)
    place = np.full(int(patch.max()) + 1, -1)
    place[bodies] = np.arange(len(bodies))
    mine = place[patch] >= 0
    np.minimum.at(low, place[patch[mine]], corners[mine].min(axis=1))
    np.maximum.at(high, place[patch[mine]], corners[mine].max(axis=1))
    right = np.ones(len(bodies), np.int64)
    for rank, body in enumerate(order):
        for around in order[:rank][::-1]:  # the smallest first
            if (low[around] < low[body]).all() and (high[around] > high[body]).all():
                within = corners[patch == bodies[body]].mean(axis=1)
                start = within[np.linspace(0, len(within) - 1, min(len(within), _CONTAINED_RAYS)).astype(np.int64)]
                if (
                    _crossings(start, np.tile(_ASKEW, (len(start), 1)), corners[patch == bodies[around]]) % 2 == 1
                ).all():
                    right[body] = right[around] * sign[around] * sign[body]
                    break
    return np.asarray(sign != right)


_ASKEW = np.array([0.83205, 0.27735, 0.48038])


def _wrong_patches(corners: F64, patch: I32, patches: I32) -> Iterator[tuple[int, bool]]:
    """Open patches, largest first, and whether most rays from them say that they look inwards."""
    if not len(patches):
        return
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    size = np.bincount(patch, weights=area)
    per_patch = _RAY_PAIRS // (2 * len(corners) * len(patches))
    rays = int(np.clip(per_patch, *_RAYS))
    affordable = max(1, _RAY_PAIRS // (2 * rays * len(corners)))
    for number in patches[np.argsort(-size[patches], kind="stable")][:affordable]:
        mine = np.flatnonzero((patch == number) & (area > 0))
        some = mine[np.linspace(0, len(mine) - 1, min(len(mine), rays)).astype(np.int64)]
        normal = cross[some] / area[some][:, None]
        # A little askew: rays along an axis of a mesh meet its edges.
        before = normal + 0.05 * _ASKEW
        start = corners[some].mean(axis=1)
        outside, inside = (_crossings(start, way, corners, some) % 2 == 0 for way in (before, -before))
        votes = int(np.count_nonzero(inside & ~outside)) - int(np.count_nonzero(outside & ~inside))
        yield int(number), votes > 0


def _crossings(start: F64, way: F64, corners: F64, own: I32 | None = None) -> I32:
    """(N,) how many triangles (F, 3, 3) a ray from each point goes through; not the ray's own."""
    a, e1, e2 = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    counts = np.zeros(len(start), np.int32)
    for ray, (origin, direction) in enumerate(zip(start, way, strict=True)):
        p = np.cross(direction, e2)
        det = np.einsum("ij,ij->i", e1, p)
        with np.errstate(divide="ignore", invalid="ignore"):
            s = origin - a
            u = np.einsum("ij,ij->i", s, p) / det
            q = np.cross(s, e1)
            v = q @ direction / det
            t = np.einsum("ij,ij->i", e2, q) / det
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        if own is not None:
            hit[own[ray]] = False
        counts[ray] = np.count_nonzero(hit)
    return counts
