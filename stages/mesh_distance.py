"""The distance of points from a mesh's surface, as the bound of a simplification asks."""

from __future__ import annotations

import numpy as np

from nimbusd.stages.types import F64

_SAMPLE_M, _NEAREST = 0.004, 16
"""The spacing of samples that find the triangles near a point, and the number of samples that are looked at."""


def surface_distances(points: F64, triangles: F64) -> F64:
    """(N,) distance of points (N, 3) from the nearest of triangles (M, 3, 3); never too small.

    Exact among the triangles that have one of the nearest samples: centres, and random points on the larger ones.
    """
    from scipy.spatial import cKDTree

    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1) / 2
    owner = np.repeat(np.arange(len(triangles)), 1 + np.minimum(area / _SAMPLE_M**2, 2000).astype(np.int64))
    weights = np.random.default_rng(0).dirichlet((1.0, 1.0, 1.0), len(owner))
    weights[np.unique(owner, return_index=True)[1]] = 1 / 3
    samples = np.einsum("ij,ijk->ik", weights, triangles[owner])
    near = owner[cKDTree(samples).query(points, k=min(_NEAREST, len(samples)))[1].reshape(len(points), -1)]
    best = np.full(len(points), np.inf)
    for k in range(near.shape[1]):
        best = np.minimum(best, _to_triangle(points, triangles[near[:, k]]))
    return best


def _to_triangle(p: F64, t: F64) -> F64:
    """Distance of each point (N, 3) from its triangle (N, 3, 3): to the plane inside it, else to the nearest edge."""
    a, edges = t[:, 0], np.roll(t, -1, axis=1) - t
    normal = np.cross(edges[:, 0], -edges[:, 2])
    size = np.linalg.norm(normal, axis=1)
    flat = np.maximum(size, 1e-18)
    height = np.abs(np.einsum("ij,ij->i", p - a, normal)) / flat
    inside = size > 0
    nearest = np.full(len(p), np.inf)
    for k in range(3):
        start, edge = t[:, k], edges[:, k]
        along = np.einsum("ij,ij->i", p - start, edge) / np.maximum(np.einsum("ij,ij->i", edge, edge), 1e-18)
        nearest = np.minimum(nearest, np.linalg.norm(p - start - np.clip(along, 0, 1)[:, None] * edge, axis=1))
        inside &= np.einsum("ij,ij->i", np.cross(edge, p - start), normal) >= 0
    return np.where(inside, height, nearest)
