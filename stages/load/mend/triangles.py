"""The triangles of a scene as one table, for looking at them across objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nimbusd.stages.types import F64, BoolArray, SceneObject

IntArray = npt.NDArray[np.intp]

SAME_M = 5e-5
"""Sheets nearer to each other than this lie in each other; what is laid on a floor lies higher."""

MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64).view(np.int64)
"""Odd numbers by which the parts of a key are told apart."""


@dataclass(frozen=True, slots=True)
class Triangles:
    """All triangles of a scene. corners: (F, 3, 3). normal: (F, 3) unit, zero for slivers. area: (F,).

    owner: (F,) index of the object, ascending. material: (F,) equal for equal looks. rank: (F,) 0 for the
    one to keep of two that face opposite ways, else 1. fixed: (F,) False where the object may be moved. closed: (F,)
    True where the triangle is part of a closed body.
    """

    corners: F64
    normal: F64
    area: F64
    owner: IntArray
    material: IntArray
    rank: IntArray
    fixed: BoolArray
    closed: BoolArray

    def touch(self, one: IntArray, other: IntArray) -> BoolArray:
        """(N,) whether of each pair one is a closed body's and they face each other: they are in contact."""
        facing = np.einsum("nk,nk->n", self.normal[one], self.normal[other])
        return np.asarray((facing < 0) & (self.closed[one] | self.closed[other]))


def triangles_of(objects: Sequence[SceneObject]) -> Triangles:
    """All triangles of the objects, of which one at least has some. Needs scipy."""
    corners = np.concatenate([obj.world_vertices()[obj.faces] for obj in objects])
    owner = np.repeat(np.arange(len(objects)), [len(obj.faces) for obj in objects])
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    normal /= np.maximum(length, 1e-12)[:, None]
    looks: dict[tuple[object, ...], int] = {}
    material = np.concatenate(
        [
            np.array(
                [looks.setdefault((m.name, m.base_color, id(m.texture), m.opacity), len(looks)) for m in obj.materials],
                np.intp,
            )[obj.face_material]
            for obj in objects
        ]
    )
    down = np.array([obj.category == "ceiling" for obj in objects])[owner]
    rank = np.where(np.abs(normal[:, 2]) > 0.5, (normal[:, 2] > 0) == down, False).astype(np.intp)
    fixed = ~np.array([obj.movable for obj in objects])[owner]
    return Triangles(corners, normal, length / 2, owner, material, rank, fixed, _closed(corners, owner))


def _closed(corners: F64, owner: IntArray) -> BoolArray:
    """(F,) whether a triangle belongs to a closed body: every edge has two faces, and something is inside."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, ids = np.unique(point_ids(corners) ^ (owner[:, None] * MIX[0]), return_inverse=True)
    ids = ids.reshape(-1, 3)
    ends = np.sort(np.stack([ids, np.roll(ids, -1, axis=1)], axis=2), axis=2).reshape(-1, 2)
    count = int(ids.max()) + 1
    _, edge, uses = np.unique(ends[:, 0] * count + ends[:, 1], return_inverse=True, return_counts=True)
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    body = label[ids[:, 0]]
    open_edges = np.bincount(body, (uses[edge.ravel()].reshape(-1, 3) != 2).any(axis=1))
    local = corners - corners.mean(axis=(0, 1))
    volume = np.bincount(body, np.einsum("nk,nk->n", local[:, 0], np.cross(local[:, 1], local[:, 2])) / 6)
    area = np.bincount(body, np.linalg.norm(np.cross(local[:, 1] - local[:, 0], local[:, 2] - local[:, 0]), axis=1) / 2)
    return np.asarray(((open_edges == 0) & (np.abs(volume) > 1e-5 * area**1.5))[body])


def point_ids(corners: F64) -> npt.NDArray[np.int64]:
    """(F, 3) a number for each corner, the same for corners in the same cell of a tenth of a millimetre."""
    cells = np.rint(corners / (2 * SAME_M)).astype(np.int64)
    with np.errstate(over="ignore"):
        return np.asarray((cells * MIX).sum(axis=2) ^ (cells[..., 2] << np.int64(17)))
