"""The distance of splats from their proxy mesh, in pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nimbusd.renderers.raycast import pixel_rays
from nimbusd.stages.types import F32, F64, BoolArray, Camera

_REACH = 3
"""Pixels around a point's own in which its match is looked for."""

_FLAT_REACH = 8
_FLAT_BEND = 0.004
_FEWEST_POINTS = 30

IntArray = npt.NDArray[np.intp]


def misalignment_px(camera: Camera, mesh_depth_m: F32, splat_depth_m: F32, points: int = 2000) -> F64:
    """For points of the mesh, the distance to the nearest point of the splats' depth, in pixels at that depth.

    mesh_depth_m, splat_depth_m: (H, W) metres along the optical axis, 0 = nothing. About `points` pixels are taken,
    evenly spread over those where the mesh is flat enough to be known: not beside its silhouettes and folds, where
    splats are soft. Where the splats show nothing around a point, its distance is that to the edge of the search,
    _REACH pixels. Returns (P,) float64. A distance in space counts as it does sideways: depths that differ by d metres
    at z metres are d * fx / z pixels apart.
    """
    rows, columns = _known_pixels(mesh_depth_m, points)
    return _apart(camera, mesh_depth_m, splat_depth_m, rows, columns)


def worst_side_px(camera: Camera, T_world_camera: F64, mesh_depth_m: F32, splat_depth_m: F32) -> float:
    """The median of `misalignment_px` over the known points that face along one world axis; the largest of the three.

    A cloud that is shifted along an axis moves away from the surfaces across it only, and floors may be few in a
    view. Axes that less than _FEWEST_POINTS points face do not count; 0 where none does.
    """
    rows, columns = _known_pixels(mesh_depth_m, 2000)
    apart = _apart(camera, mesh_depth_m, splat_depth_m, rows, columns)
    rays = pixel_rays(camera).reshape(camera.height, camera.width, 3)
    points = rays * mesh_depth_m[..., None]
    normals = np.cross(
        points[rows, columns + 1] - points[rows, columns - 1], points[rows + 1, columns] - points[rows - 1, columns]
    )
    axis = np.abs(normals @ T_world_camera[:3, :3].T).argmax(axis=1)
    sides = [apart[axis == k] for k in range(3) if np.count_nonzero(axis == k) >= _FEWEST_POINTS]
    return max((float(np.median(side)) for side in sides), default=0.0)


def _known_pixels(mesh_depth_m: F32, points: int) -> tuple[IntArray, IntArray]:
    """Rows and columns of about `points` pixels, evenly spread over those where the mesh is flat."""
    rows, columns = np.nonzero(_flat(mesh_depth_m))
    step = max(1, len(rows) // points)
    return rows[step // 2 :: step], columns[step // 2 :: step]


def _apart(camera: Camera, mesh_depth_m: F32, splat_depth_m: F32, rows: IntArray, columns: IntArray) -> F64:
    shape = (camera.height, camera.width)
    rays = pixel_rays(camera).reshape(*shape, 3)
    z = mesh_depth_m[rows, columns].astype(np.float64)
    known = rays[rows, columns] * z[:, None]
    nearest = np.full(len(rows), np.inf)
    for down in range(-_REACH, _REACH + 1):
        for right in range(-_REACH, _REACH + 1):
            r, c = np.clip(rows + down, 0, shape[0] - 1), np.clip(columns + right, 0, shape[1] - 1)
            depth = splat_depth_m[r, c].astype(np.float64)
            apart = np.linalg.norm(rays[r, c] * depth[:, None] - known, axis=1) * camera.fx / z
            nearest = np.minimum(nearest, np.where(depth > 0, apart, np.inf))
    return np.where(np.isfinite(nearest), nearest, float(_REACH))


def _flat(depth_m: F32) -> BoolArray:
    """(H, W) True where the surface is flat over _FLAT_REACH pixels around: its inverse depth is linear there."""
    inverse = np.divide(1.0, depth_m, out=np.zeros(depth_m.shape), where=depth_m > 0)
    flat = depth_m > 0
    for axis in (0, 1):
        for reach in range(1, _FLAT_REACH + 1):
            before, after = np.roll(inverse, reach, axis), np.roll(inverse, -reach, axis)
            bend = np.abs(before + after - 2 * inverse)
            flat &= (before > 0) & (after > 0) & (bend < _FLAT_BEND * inverse)
    flat[:_FLAT_REACH] = flat[-_FLAT_REACH:] = False
    flat[:, :_FLAT_REACH] = flat[:, -_FLAT_REACH:] = False
    return np.asarray(flat)
