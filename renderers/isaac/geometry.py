"""Our cameras, meshes and lights in USD's numbers: pure functions, without USD."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nimbusd.renderers.stacked import STRIDE_M
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F32, F64, I32, BoolArray, Camera, Light, Scene, SceneObject, Sequence

NEAR_M = 0.01
GLASS_BELOW = 0.5
"""Depth and segmentation see through surfaces of less opacity than this."""
_APERTURE = 20.955
_NEGLIGIBLE_PX = 0.01


@dataclass(frozen=True)
class UsdCamera:
    """Attributes of a UsdGeom.Camera, in tenths of a metre (only their ratios matter).

    lens: whether RTX needs a lens of its own for it. It has square pixels around a centred principal point otherwise:
    it derives the vertical aperture from the horizontal one, and overlooks the offsets of both.
    """

    focal_length: float
    horizontal_aperture: float
    vertical_aperture: float
    horizontal_offset: float
    vertical_offset: float
    lens: bool


def usd_camera(camera: Camera) -> UsdCamera:
    """A camera's pinhole as USD says it."""
    focal = camera.fx * _APERTURE / camera.width
    vertical = focal * camera.height / camera.fy
    off_px = max(
        abs(camera.cx - camera.width / 2),
        abs(camera.cy - camera.height / 2),
        abs(camera.fx / camera.fy - 1) * camera.height / 2,
    )
    return UsdCamera(
        focal_length=focal,
        horizontal_aperture=_APERTURE,
        vertical_aperture=vertical,
        horizontal_offset=_APERTURE * (0.5 - camera.cx / camera.width),
        vertical_offset=vertical * (camera.cy / camera.height - 0.5),
        lens=off_px > _NEGLIGIBLE_PX,
    )


@dataclass(frozen=True)
class UsdMeshPart:
    """The solid or the glass faces of an object, as arrays of a UsdGeom.Mesh.

    points: (V, 3). indices: (3F,). st: (3F, 2) or None, one per corner. normals: one per corner (3F, 3), or per
    point (V, 3) where the object is smooth. subsets: material slot → indices of its faces, in (F,).
    """

    glass: bool
    points: F32
    indices: I32
    normals: F32
    st: F32 | None
    subsets: dict[int, I32]


def mesh_parts(obj: SceneObject) -> list[UsdMeshPart]:
    """At most two parts of an object: what is solid, and what depth and segmentation see through."""
    if len(obj.faces) and not (obj.faces.min() >= 0 and obj.faces.max() < len(obj.vertices)):
        raise RenderError(f"object {obj.name!r} has faces that name vertices it does not have: repair its mesh")
    if len(obj.faces) and not (obj.face_material.min() >= 0 and obj.face_material.max() < len(obj.materials)):
        raise RenderError(f"object {obj.name!r} has faces that name materials it does not have: repair its mesh")
    glassy = np.array([material.opacity < GLASS_BELOW for material in obj.materials], np.bool_)
    of_glass = glassy[obj.face_material] if len(obj.faces) else np.zeros(0, np.bool_)
    return [_part(obj, of_glass == glass, glass) for glass in (False, True) if (of_glass == glass).any()]


def _part(obj: SceneObject, chosen: BoolArray, glass: bool) -> UsdMeshPart:
    faces, slots = obj.faces[chosen].astype(np.int32), obj.face_material[chosen]
    return UsdMeshPart(
        glass=glass,
        points=np.ascontiguousarray(obj.vertices, np.float32),
        indices=faces.ravel(),
        normals=_normals(obj, faces),
        st=None if obj.uvs is None else np.ascontiguousarray(obj.uvs[chosen], np.float32).reshape(-1, 2),
        subsets={int(slot): np.flatnonzero(slots == slot).astype(np.int32) for slot in np.unique(slots)},
    )


def _normals(obj: SceneObject, faces: I32) -> F32:
    corners = obj.vertices.astype(np.float64)[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if not obj.smooth:
        return np.repeat(_unit(across), 3, axis=0)
    sums = np.zeros((len(obj.vertices), 3))
    for corner in range(3):
        np.add.at(sums, faces[:, corner], across)  # weighted by area
    return _unit(sums)


def _unit(vectors: F64) -> F32:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    up = np.array([0.0, 0.0, 1.0])  # degenerate faces and unused vertices have no direction of their own
    return np.asarray(np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1), up), np.float32)


def light_intensity(light: Light, lumens_per_watt: float) -> float:
    """`inputs:intensity` of a normalized UsdLux light.

    USD divides a normalized light's intensity by its area to get its radiance; a surface that shines evenly
    into its half space gives off pi times radiance times area. A sun's power is an irradiance already.
    """
    power = light.power_w * lumens_per_watt
    return power if light.kind == "sun" else power / math.pi


@dataclass(frozen=True)
class Spacing:
    """Distances between copies and of the cameras' far planes, so that no camera sees a neighbour."""

    stride_m: float
    far_m: float


def spacing(scene: Scene, seq: Sequence) -> Spacing:
    """Distances for one sequence.

    Everything that is shown lies in a box with the cameras, so that nothing is farther from a camera than the box's
    diagonal. A point of a neighbour is farther than that along the optical axis, also in the corner of the picture,
    where the ray is longest.
    """
    points = [T[:, :3, 3] for T in seq.T_world_camera.values()]
    for obj in scene.objects:
        moved = seq.T_world_object.get(obj.name)
        if moved is None:
            points.append(obj.world_vertices())
        elif len(obj.vertices):
            radius = float(
                np.linalg.norm(obj.vertices, axis=1).max() * np.linalg.norm(moved[:, :3, :3], 2, (1, 2)).max()
            )
            points += [moved[:, :3, 3] - radius, moved[:, :3, 3] + radius]
    everything = np.concatenate(points)
    extent = everything.max(axis=0) - everything.min(axis=0)
    far = max(1.01 * float(np.linalg.norm(extent)), 1.0)
    longest = max((_corner_ray(camera) for camera in seq.cameras), default=1.0)
    return Spacing(max(STRIDE_M, float(extent[:2].max()) + 1.01 * far * longest), far)


def _corner_ray(camera: Camera) -> float:
    """Length of the longest ray through a pixel per metre along the optical axis."""
    x = max(camera.cx, camera.width - camera.cx) / camera.fx
    y = max(camera.cy, camera.height - camera.cy) / camera.fy
    return math.sqrt(1 + x * x + y * y)
