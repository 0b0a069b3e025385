"""Fewer triangles where no camera can tell: finely tessellated meshes of a compiled MuJoCo model are simplified.

Robots come with meshes made for close-ups: a Franka arm has 135,000 visible triangles, drawn four times per frame
(colour, shadow map, shadowed colour, ids), most of them far smaller than a pixel. A software rasterizer spends most of
its time on them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from nimbusd.stages.mesh_distance import surface_distances
from nimbusd.stages.types import F32, F64, I32

FINE_FACES = 1000
"""Meshes with fewer triangles stay as they are."""

_SHARES = (0.08, 0.16, 0.33)
"""Shares of its triangles that a mesh is tried with, coarsest first."""

_WITHIN = 0.999
"""Share of a mesh that must be within the tolerance: the inside of a hinge or a screw's thread may go."""

_ALIKE = 0.75
"""Cosine of the angle between a triangle and the normal of a corner beyond which an edge is sharp."""

_KEPT = 256
"""Simplified meshes that a process remembers: layouts change with every episode, robots do not."""

_known: OrderedDict[bytes, _Coarse | None] = OrderedDict()


@dataclass(frozen=True)
class _Coarse:
    """vertices: (V, 3). faces: (F, 3). normals: (3F, 3), one for every corner."""

    vertices: F32
    faces: I32
    normals: F32


def simplify_visible(model: Any, group: int, tolerance_m: float) -> int:
    """Simplify the meshes of a compiled model's geoms of a group, in place; returns how many triangles are left out.

    model: MjModel, whose mesh arrays must not be used for physics afterwards. tolerance_m: how far the vertices of the
    fine mesh may be from the coarse surface and the reverse, all but one in a thousand; 0 changes nothing. Meshes with
    a texture keep their triangles, as do those that get no coarser within the tolerance. To be called before a
    rendering context takes the meshes over.
    """
    if tolerance_m <= 0:
        return 0
    saved = 0
    for number in sorted(_plain_meshes(model, group)):
        first, count = int(model.mesh_faceadr[number]), int(model.mesh_facenum[number])
        if count < FINE_FACES:
            continue
        vertex, normal = int(model.mesh_vertadr[number]), int(model.mesh_normaladr[number])
        room, normals = int(model.mesh_vertnum[number]), int(model.mesh_normalnum[number])
        coarse = _remembered(
            model.mesh_vert[vertex : vertex + room],
            model.mesh_face[first : first + count],
            model.mesh_normal[normal : normal + normals],
            model.mesh_facenormal[first : first + count],
            tolerance_m,
        )
        if coarse is None or len(coarse.vertices) > room or len(coarse.normals) > normals:
            continue
        faces = len(coarse.faces)
        model.mesh_vert[vertex : vertex + len(coarse.vertices)] = coarse.vertices
        model.mesh_face[first : first + faces] = coarse.faces
        model.mesh_normal[normal : normal + len(coarse.normals)] = coarse.normals
        model.mesh_facenormal[first : first + faces] = np.arange(3 * faces, dtype=np.int32).reshape(-1, 3)
        model.mesh_facenum[number] = faces
        saved += count - faces
    return saved


def _plain_meshes(model: Any, group: int) -> set[int]:
    """Meshes that geoms of the group show, less those that any geom shows with a texture."""
    plain, textured = set(), set()
    for geom in np.flatnonzero(model.geom_dataid >= 0):
        material = int(model.geom_matid[geom])
        has_texture = material >= 0 and (model.mat_texid[material] >= 0).any()
        if has_texture:
            textured.add(int(model.geom_dataid[geom]))
        elif model.geom_group[geom] == group:
            plain.add(int(model.geom_dataid[geom]))
    return plain - textured


def _remembered(vertices: F32, faces: I32, normals: F32, face_normals: I32, tolerance_m: float) -> _Coarse | None:
    digest = blake2b(repr((vertices.shape, faces.shape, tolerance_m)).encode(), digest_size=16)
    for array in (vertices, faces, normals, face_normals):
        digest.update(np.ascontiguousarray(array).data)
    key = digest.digest()
    if key not in _known:
        _known[key] = _simplified(vertices, faces, normals[face_normals], tolerance_m)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    return _known[key]


def _simplified(vertices: F32, faces: I32, corner_normals: F32, tolerance_m: float) -> _Coarse | None:
    """The coarsest of a few simplifications that is within the tolerance; None where none is."""
    import fast_simplification

    # Files repeat a vertex for each of its normals; a surface in pieces could not be simplified.
    points, place = np.unique(vertices, axis=0, return_inverse=True)
    joined = place.reshape(-1)[faces].astype(np.int32)
    fine = points.astype(np.float64)
    for share in _SHARES:
        new_points, new_faces = fast_simplification.simplify(
            np.ascontiguousarray(points), joined, target_count=max(4, int(share * len(faces))), agg=2.0
        )[:2]
        coarse = np.asarray(new_points, np.float64)
        if 0 < len(new_faces) < 0.8 * len(faces) and _near(fine, joined, coarse, new_faces, tolerance_m):
            triangles = coarse[new_faces]
            facing = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
            normals = _corner_normals(fine[joined].reshape(-1, 3), corner_normals.reshape(-1, 3), triangles, facing)
            return _Coarse(coarse.astype(np.float32), np.asarray(new_faces, np.int32), normals)
    return None


def _near(fine: F64, fine_faces: I32, coarse: F64, coarse_faces: I32, tolerance_m: float) -> bool:
    """True where vertices and triangles' centres of either mesh lie within the tolerance of the other."""
    for points, faces, other, other_faces in (
        (fine, fine_faces, coarse, coarse_faces),
        (coarse, coarse_faces, fine, fine_faces),
    ):
        probes = np.concatenate([points, points[faces].mean(axis=1)])
        if np.quantile(surface_distances(probes, other[other_faces]), _WITHIN) > tolerance_m:
            return False
    return True


def _corner_normals(corners: F64, normals: F32, triangles: F64, facing: F64) -> F32:
    """Normals (3M, 3) for coarse triangles (M, 3, 3): of the nearest of the fine mesh's corners that faces alike.

    So sharp edges stay sharp and round surfaces round, whatever smoothing the file asked for.
    """
    from scipy.spatial import cKDTree

    around = (
        cKDTree(corners).query(triangles.reshape(-1, 3), k=min(24, len(corners)))[1].reshape(3 * len(triangles), -1)
    )
    facing = facing / np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-18)
    alike = np.einsum("ijk,ik->ij", normals[around], np.repeat(facing, 3, axis=0))
    # The first that is alike enough; where none is, the one that is most.
    best = np.where((alike > _ALIKE).any(axis=1), (alike > _ALIKE).argmax(axis=1), alike.argmax(axis=1))
    return np.asarray(normals[around[np.arange(len(around)), best]], np.float32)
