"""Fewer triangles to plan with and to collide as: scans have hundreds of thousands, a gripper feels none of them."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import numpy as np

from nimbusd.stages.mesh_distance import surface_distances
from nimbusd.stages.types import F64, I32

FINE_FACES = 5000
"""Meshes with fewer triangles stay as they are."""

BOUND_M = 0.001
"""No point of either surface is farther from the other."""

_TARGETS = (2000, 6000, 20_000, 60_000)
_KEPT = 16

_known: OrderedDict[bytes, tuple[F64, I32] | None] = OrderedDict()


def coarse_mesh(points: F64, faces: I32) -> tuple[F64, I32] | None:
    """The mesh, (V, 3) metres and (F, 3), with fewer triangles within BOUND_M; None where it has few, or needs all."""
    if len(faces) < FINE_FACES:
        return None
    key = blake2b(repr(points.shape).encode() + points.tobytes() + faces.tobytes(), digest_size=16).digest()
    if key not in _known:
        _known[key] = _simplified(points, faces)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    return _known[key]


def _simplified(points: F64, faces: I32) -> tuple[F64, I32] | None:
    import fast_simplification

    # Files repeat a vertex for each of its normals; a surface in pieces could not be simplified.
    joined, place = np.unique(points.astype(np.float32), axis=0, return_inverse=True)
    triangles = place.reshape(-1)[faces].astype(np.int32)
    for target in _TARGETS:
        if target > len(faces) / 2:
            break
        found = fast_simplification.simplify(np.ascontiguousarray(joined), triangles, target_count=target, agg=3.0)
        coarse, kept = np.asarray(found[0], np.float64), np.asarray(found[1], np.int32)
        if 0 < len(kept) < len(faces) / 2 and _within(points, faces, coarse, kept):
            return coarse, kept
    return None


def _within(fine: F64, fine_faces: I32, coarse: F64, coarse_faces: I32) -> bool:
    """True where the vertices and the triangles' centres of either mesh lie within the bound of the other."""
    back = np.concatenate([coarse, coarse[coarse_faces].mean(axis=1)])
    if surface_distances(back, fine[fine_faces]).max() > BOUND_M:
        return False
    probes = np.unique(fine, axis=0)
    # A few first: most that are too coarse are seen to be so by them.
    return all(surface_distances(some, coarse[coarse_faces]).max() <= BOUND_M for some in (probes[::50], probes))
