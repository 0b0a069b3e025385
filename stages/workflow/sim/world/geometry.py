"""Triangle meshes of a world's bodies, points on their surfaces, and where lines leave them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.types import F64, I32
from nimbusd.stages.workflow.sim.models.mesh_shape import mesh_shape
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.world.bodies import VISIBLE_GROUP
from nimbusd.stages.workflow.sim.world.world import World

_ROUND = 32
_PAIRS = 200_000
"""Of rays and faces that are looked at at once."""


@dataclass(frozen=True)
class TriangleMesh:
    """vertices: (V, 3) float64 metres. faces: (F, 3), counter-clockwise from outside."""

    vertices: F64
    faces: I32

    def moved(self, T: F64) -> TriangleMesh:
        """The mesh in the parent frame of `T`."""
        return TriangleMesh(self.vertices @ T[:3, :3].T + T[:3, 3], self.faces)


def joined(meshes: list[TriangleMesh]) -> TriangleMesh:
    """One mesh of several. Raises ValueError for none."""
    offsets = np.cumsum([0, *[len(mesh.vertices) for mesh in meshes[:-1]]])
    return TriangleMesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=True)]).astype(np.int32),
    )


def geom_mesh(model: Any, geom: int) -> TriangleMesh:
    """A geom's surface in its own frame. Raises ValueError for kinds that no world of ours holds."""
    kinds = import_mujoco().mjtGeom
    kind, size = model.geom_type[geom], model.geom_size[geom]
    if kind == kinds.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        v0, vn = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        f0, fn = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        return TriangleMesh(model.mesh_vert[v0 : v0 + vn].astype(np.float64), model.mesh_face[f0 : f0 + fn].copy())
    if kind == kinds.mjGEOM_BOX:
        return _box(size)
    if kind == kinds.mjGEOM_CYLINDER:
        return _cylinder(float(size[0]), float(size[1]))
    raise ValueError(f"geom {model.geom(geom).name!r} is of kind {kind}, which has no triangle mesh here")


def object_mesh(world: World, name: str, qpos: F64 | None = None) -> TriangleMesh:
    """The visible surface of an object in its own frame, its joint as in the state `qpos`, or at the start value.

    Of a mesh with very many triangles, the coarse one that it also collides as.
    """
    entry = world.layout.object(name)
    model = entry.definition
    if model.shape == "mesh" and (coarse := mesh_shape(model.mesh, model.unit_m, model.up).coarse) is not None:
        return TriangleMesh(coarse[0] * entry.scale, coarse[1])
    mujoco = import_mujoco()
    data = mujoco.MjData(world.model)
    data.qpos[:] = world.start if qpos is None else qpos
    mujoco.mj_kinematics(world.model, data)
    index = world.objects[name]
    R, p = data.xmat[index.body].reshape(3, 3), data.xpos[index.body]
    meshes = []
    for geom in range(world.model.ngeom):
        if int(world.model.geom_bodyid[geom]) in index.bodies and world.model.geom_group[geom] == VISIBLE_GROUP:
            T = np.eye(4)
            T[:3, :3] = R.T @ data.geom_xmat[geom].reshape(3, 3)
            T[:3, 3] = R.T @ (data.geom_xpos[geom] - p)
            meshes.append(geom_mesh(world.model, geom).moved(T))
    return joined(meshes)


def _box(half: F64) -> TriangleMesh:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64) * half
    faces = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
             [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]  # fmt: skip
    return TriangleMesh(corners, np.array(faces, np.int32))


def _cylinder(radius: float, half: float) -> TriangleMesh:
    angle = np.arange(_ROUND) * (2 * np.pi / _ROUND)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    low, high = np.c_[ring, np.full(_ROUND, -half)], np.c_[ring, np.full(_ROUND, half)]
    vertices = np.concatenate([low, high, [[0, 0, -half], [0, 0, half]]])
    i = np.arange(_ROUND)
    j = (i + 1) % _ROUND
    n = _ROUND
    faces = np.concatenate(
        [
            np.stack([i, j, j + n], axis=1),
            np.stack([i, j + n, i + n], axis=1),
            np.stack([j, i, np.full(n, 2 * n)], axis=1),
            np.stack([i + n, j + n, np.full(n, 2 * n + 1)], axis=1),
        ]
    )
    return TriangleMesh(vertices, faces.astype(np.int32))


def sample_surface(mesh: TriangleMesh, count: int, rng: np.random.Generator) -> tuple[F64, F64]:
    """Points evenly over the surface, (count, 3), and the outward normals there, (count, 3)."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    cross = np.cross(b - a, c - a)
    double = np.linalg.norm(cross, axis=1)
    face = rng.choice(len(double), count, p=double / double.sum())
    u, v = rng.random((2, count))
    outside = u + v > 1
    u[outside], v[outside] = 1 - u[outside], 1 - v[outside]
    points = a[face] + u[:, None] * (b - a)[face] + v[:, None] * (c - a)[face]
    return points, cross[face] / double[face][:, None]


def farthest_hit(mesh: TriangleMesh, origins: F64, directions: F64) -> tuple[F64, I32]:
    """Distance at which each ray leaves the mesh, (N,), and the face there, (N,); 0 and -1 for a ray that misses it."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    far, face = np.zeros(len(origins)), np.full(len(origins), -1, np.int32)
    rows = max(1, _PAIRS // max(1, len(a)))
    for first in range(0, len(origins), rows):
        some = slice(first, first + rows)
        far[some], face[some] = _last_hits(a, b - a, c - a, origins[some], directions[some])
    return far, face


def _last_hits(a: F64, e1: F64, e2: F64, origins: F64, directions: F64) -> tuple[F64, I32]:
    """`farthest_hit` by Möller–Trumbore, all rays and faces at once. a, e1, e2: a corner and two edges of each face."""
    p = np.cross(directions[:, None], e2[None])
    det = np.einsum("nfk,fk->nf", p, e1)
    ok = np.abs(det) > 1e-14
    inverse = np.where(ok, 1 / np.where(ok, det, 1), 0)
    s = origins[:, None] - a[None]
    u = np.einsum("nfk,nfk->nf", s, p) * inverse
    q = np.cross(s, e1[None])
    v = np.einsum("nk,nfk->nf", directions, q) * inverse
    t = np.einsum("fk,nfk->nf", e2, q) * inverse
    hit = ok & (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (t > 1e-6)
    distance = np.where(hit, t, 0.0)
    face = distance.argmax(axis=1)
    far = distance[np.arange(len(face)), face]
    return far, np.where(far > 0, face, -1).astype(np.int32)
