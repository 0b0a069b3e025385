"""Scenes that lie far from their origin (georeferenced ones): moved to it, or refused where nothing is left to move.

A 32-bit number holds 24 bits: 500 km from the origin, neighbours are 3 cm apart, and meshes, cameras and stored states
all are 32-bit numbers in the end. So a loader moves its scene near the origin while everything is still 64-bit, and
`provenance["origin_m"]` says where the world's origin lies in the file's frame (after units and axes):
file = world + origin_m. What a file itself holds as coarse 32-bit numbers cannot be brought back, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh.part import MeshPart
from nimbusd.stages.types import F32, F64, Scene, SceneObject, Splats

FAR_M = 1000.0
"""Coordinates up to this stay as they are: there, 32-bit numbers are 0.06 mm apart."""

_STEP_M = 100.0
_COARSEST_M = 1e-3
"""The coarsest 32-bit vertices that are taken."""

_COARSEST_SHARE = 0.5
"""The coarsest 32-bit centres of Gaussians that are taken, in sizes of a Gaussian."""

_COARSE_FROM_M = 8192.0
"""From here on, 32-bit numbers are a millimetre apart."""

_LARGEST_M = 65_536.0
"""A scene that reaches further than this from its middle is none: there, 32-bit numbers are 8 mm apart."""

_MOST = (1, 99)
"""Percentiles between which a capture lies: its last Gaussians lie anywhere."""

_LARGE_ITSELF = 0.25
"""A part as large as this share of its distance from the origin is a landscape, not a part that lies far away."""


def near_origin(points: npt.NDArray[np.float64]) -> tuple[F32, F64]:
    """Points as 32-bit numbers near their own origin, and where that is.

    points: (N, 3) float64. Returns (N, 3) float32 and the shift (3,) float64 such that points = result + shift. The
    shift is zero for points that lie within FAR_M of the origin already.
    """
    if not len(points) or not np.isfinite(points).all():
        return np.asarray(points, np.float32), np.zeros(3)
    shift = _origin(points.min(axis=0), points.max(axis=0))
    return np.asarray(points - shift, np.float32), shift


def part_near_origin(points: npt.NDArray[np.float64]) -> tuple[F32, F64]:
    """Do as `near_origin`, the shift being (4, 4) T_file_part of a part with these vertices."""
    vertices, shift = near_origin(points)
    T_file_part = np.eye(4)
    T_file_part[:3, 3] = shift
    return vertices, T_file_part


def cloud_near_origin(points: npt.NDArray[np.float64]) -> tuple[F32, F64]:
    """Do as `near_origin` for the centres of Gaussians, some of which lie anywhere: most of them decide."""
    if not len(points) or not np.isfinite(points).all():
        return np.asarray(points, np.float32), np.zeros(3)
    shift = _origin(*_most(points))
    return np.asarray(points - shift, np.float32), shift


def check_part_resolution(part: MeshPart, unit_m: float, where: str) -> None:
    """Raises AssetError where a part's 32-bit vertices are coarser than a millimetre, as they lie far from its origin.

    unit_m: metres per file unit. where: what error sentences call the file, such as `mesh file hall.glb`.
    """
    scale = unit_m * float(np.linalg.norm(part.T_file_part[:3, :3], axis=0).max())
    check_resolution(part.vertices, scale, f"{where}: part {part.name!r}")


def check_resolution(points: F32, unit_m: float, what: str) -> None:
    """Raises AssetError, which begins with `what`, where (N, 3) points lie so far off that millimetres are lost."""
    if not len(points):
        return
    reach = np.abs(points).max(axis=0)
    extent = points.max(axis=0).astype(np.float64) - points.min(axis=0)
    step_m = np.spacing(reach) * unit_m
    coarse = (step_m > _COARSEST_M) & (extent < _LARGE_ITSELF * reach)
    if coarse.any():
        axis = int(np.argmax(np.where(coarse, step_m, 0.0)))
        raise AssetError(
            f"{what} lies {reach[axis] * unit_m:,.0f} m from its origin along {'xyz'[axis]}, where 32-bit coordinates "
            f"are {step_m[axis] * 1000:.3g} mm apart: shapes are lost. Export it with coordinates near the origin, and "
            "keep the offset apart from them (in a node's translation, or in notes of your own)."
        )


def check_cloud_resolution(means: F32, scales: F32, what: str) -> None:
    """Raises AssetError, which begins with `what`, where 32-bit centres are coarser than their Gaussians are small.

    means, scales: (N, 3) in the same unit, whatever it is.
    """
    if not len(means) or not (np.isfinite(means).all() and np.isfinite(scales).all()):
        return
    low, high = _most(means.astype(np.float64))
    reach = np.maximum(np.abs(low), np.abs(high))
    axis = int(reach.argmax())
    step, size = float(np.spacing(np.float32(reach[axis]))), float(np.median(scales.max(axis=1)))
    if step > _COARSEST_SHARE * size and high[axis] - low[axis] < _LARGE_ITSELF * reach[axis]:
        raise AssetError(
            f"{what} lies {reach[axis]:,.0f} units from its origin along {'xyz'[axis]}, where 32-bit coordinates are "
            f"{step:.3g} units apart, and its Gaussians are {size:.3g} units large: shapes are lost. Train or export "
            "it with coordinates near the origin."
        )


def recentred(scene: Scene) -> Scene:
    """The scene moved near its origin, with `origin_m` in its provenance if it had to be moved.

    Objects, lamps, rooms and splats move together, by a multiple of 100 m along each axis on which the scene reaches
    beyond FAR_M. Raises AssetError, naming the part that lies apart, where a scene is too large for 32-bit numbers
    wherever its origin is.
    """
    low, high = _bounds(scene)
    if low is None or high is None:
        return scene
    if float((high - low).max()) > 2 * _LARGEST_M:
        raise AssetError(_too_large(scene, low, high))
    origin = _origin(low, high)
    scene = replace(
        scene,
        objects=tuple(_placed(obj, origin) for obj in scene.objects),
        splats=None if scene.splats is None else shifted(scene.splats, origin),
    )
    if not origin.any():
        return scene
    return replace(
        scene,
        lights=tuple(replace(light, T_world_light=_moved(light.T_world_light, origin)) for light in scene.lights),
        rooms=tuple(
            replace(room, polygon=room.polygon - origin[:2], z_m=float(room.z_m - origin[2])) for room in scene.rooms
        ),
        provenance={**scene.provenance, "origin_m": origin.tolist()},
    )


def origin_m(scene: Scene) -> F64:
    """(3,) where the world's origin lies in the frame of the scene's file; zeros for a scene that was not moved."""
    return np.asarray(scene.provenance.get("origin_m", (0.0, 0.0, 0.0)), np.float64)


def check_near_origin(scene: Scene) -> None:
    """Raises AssetError for a scene that its loader left too far from the origin for 32-bit cameras and states."""
    low, high = _bounds(scene)
    if low is None or high is None:
        return
    origin = _origin(low, high)
    if float(np.abs(origin).max()) >= _COARSE_FROM_M:
        middle = ", ".join(f"{value:,.0f}" for value in (low + high) / 2)
        raise AssetError(
            f"{_named(scene)} lies around ({middle}) m, too far from its origin: poses and states are stored as "
            "32-bit numbers. Let its loader return nimbusd.stages.load.mend.recentre.recentred(scene)."
        )


def _origin(low: F64, high: F64) -> F64:
    """The place where the origin belongs, (3,): zero along axes that reach nowhere beyond FAR_M."""
    reach = np.maximum(np.abs(low), np.abs(high))
    middle = np.round((low + high) / 2 / _STEP_M) * _STEP_M
    return np.asarray(np.where(reach > FAR_M, middle, 0.0) + 0.0)


def _most(points: npt.NDArray[np.float64]) -> tuple[F64, F64]:
    """Lowest and highest corner of all points but the last along each axis: a few, of which one may lie anywhere."""
    low = np.percentile(points, _MOST[0], axis=0, method="higher")
    high = np.percentile(points, _MOST[1], axis=0, method="lower")
    return np.minimum(low, high), np.maximum(low, high)


def _bounds(scene: Scene) -> tuple[F64, F64] | tuple[None, None]:
    """Lowest and highest corner of objects and splats; None without either."""
    clouds: Iterable[F64] = [obj.world_vertices() for obj in scene.objects if len(obj.vertices)]
    if scene.splats is not None and len(scene.splats):
        clouds = [*clouds, np.stack(_most(scene.splats.world_means()))]
    corners = [(cloud.min(axis=0), cloud.max(axis=0)) for cloud in clouds]
    if not corners:
        return None, None
    return np.min([low for low, _ in corners], axis=0), np.max([high for _, high in corners], axis=0)


def _moved(T: F64, origin: F64) -> F64:
    moved = np.array(T, np.float64)
    moved[:3, 3] -= origin
    return moved


def _placed(obj: SceneObject, origin: F64) -> SceneObject:
    """The object moved by -origin, its vertices near its own origin."""
    if not len(obj.vertices):
        return obj
    vertices, shift = near_origin(obj.vertices.astype(np.float64))
    if not shift.any():
        return replace(obj, T_world_object=_moved(obj.T_world_object, origin)) if origin.any() else obj
    T = obj.T_world_object.copy()
    T[:3, 3] += T[:3, :3] @ shift
    return replace(obj, vertices=vertices, T_world_object=_moved(T, origin))


def shifted(cloud: Splats, origin: F64) -> Splats:
    """The cloud moved by -origin, (3,) world metres, its centres near the origin of their own frame."""
    means, shift = cloud_near_origin(cloud.means.astype(np.float64))
    if not (shift.any() or origin.any()):
        return cloud
    T = cloud.T_world_splats.copy()
    T[:3, 3] += T[:3, :3] @ shift
    return replace(cloud, means=means, T_world_splats=_moved(T, origin))


def _named(scene: Scene) -> str:
    """The scene, and the file that it came from where its loader says so."""
    path = scene.provenance.get("path")
    return f"scene {scene.name!r} (from {path})" if path else f"scene {scene.name!r}"


def _too_large(scene: Scene, low: F64, high: F64) -> str:
    text = f"{_named(scene)} is {float((high - low).max()) / 1000:,.0f} km large"
    if len(scene.objects) > 1:
        middles = np.array([obj.world_vertices().mean(axis=0) for obj in scene.objects if len(obj.vertices)])
        apart = np.linalg.norm(middles - np.median(middles, axis=0), axis=1)
        name = [obj.name for obj in scene.objects if len(obj.vertices)][int(apart.argmax())]
        text += f": {name!r} lies {apart.max() / 1000:,.0f} km from the rest"
    return f"{text}. Check the file's units, or remove what lies apart."
