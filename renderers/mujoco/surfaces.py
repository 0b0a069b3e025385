"""The visible parts of a compiled MuJoCo model, as arrays for a rasterizer: corners, triangles, materials, pictures.

Geoms become parts: each with its own triangles in its own frame, at full size, and with texture coordinates in which
repeats and sizes are already counted. The triangles of a part come in clusters of neighbours, which are drawn or left
out together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.renderers.mujoco.mesh import Shape, mesh_shape, round_shape
from nimbusd.renderers.mujoco.pictures import Picture, picture_of, texture_coordinates
from nimbusd.stages.types import F32, I32

OPAQUE = 0.995
"""Opacity from which on a part counts as opaque."""


@dataclass(frozen=True)
class Part:
    """One visible geom. picture: index into `DrawnSurfaces.pictures`, -1 without.

    rgba: of its material. specular, shininess (0…128), emission: as in OpenGL's fixed pipeline. middle, half: of its
    bounding box in its own frame, metres. reach_m: radius around the middle that holds all of it.
    box: is a box. closed: encloses a volume, so that the nearest of its triangles along any line from outside looks at
    the line's beginning. triangles: first and number.
    """

    geom: int
    picture: int
    rgba: tuple[float, float, float, float]
    specular: float
    shininess: float
    emission: float
    middle: tuple[float, float, float]
    half: tuple[float, float, float]
    reach_m: float
    box: bool
    closed: bool
    triangles: tuple[int, int]

    @property
    def opaque(self) -> bool:
        return self.rgba[3] >= OPAQUE


@dataclass(frozen=True)
class DrawnSurfaces:
    """Everything visible. Corners have a position, a normal and texture coordinates; points a position and a cluster.

    positions, normals, uvw: (C, 3). part: (C,) index into `parts`. faces: (F, 3) of corners.
    points: (P, 3). point_part, point_cluster: (P,). outline: (F, 3) of points, the same triangles in the same order.
    cluster: (F,). cluster_part: (K,) index into `parts`.
    """

    positions: F32
    normals: F32
    uvw: F32
    part: I32
    faces: I32
    points: F32
    point_part: I32
    point_cluster: I32
    outline: I32
    cluster: I32
    cluster_part: I32
    parts: tuple[Part, ...]
    pictures: tuple[Picture, ...]


def visible_surfaces(model: Any, geoms: list[Any]) -> DrawnSurfaces:
    """The surfaces of a scene's geoms (mjvGeom) of a model. Raises RenderError for kinds that are not drawn."""
    import mujoco

    numbers: dict[int, int] = {}
    shapes: list[Shape] = []
    uvw = []
    parts: list[Part] = []
    triangles = 0
    for geom in geoms:
        is_mesh = geom.type == mujoco.mjtGeom.mjGEOM_MESH
        shape = mesh_shape(model, int(model.geom_dataid[geom.objid])) if is_mesh else round_shape(model, geom)
        texture = int(geom.texid) if geom.matid >= 0 else -1
        if texture >= 0:
            numbers.setdefault(texture, len(numbers))
        low, high = shape.points.min(axis=0), shape.points.max(axis=0)
        middle = (low + high) / 2
        red, green, blue, opacity = (float(value) for value in geom.rgba)
        parts.append(
            Part(
                geom=int(geom.objid),
                picture=numbers.get(texture, -1),
                rgba=(red, green, blue, opacity),
                specular=float(geom.specular),
                shininess=float(geom.shininess) * 128.0,
                emission=float(geom.emission),
                middle=tuple(middle.tolist()),
                half=tuple(((high - low) / 2).tolist()),
                reach_m=float(np.linalg.norm(shape.points - middle, axis=1).max()),
                box=bool(geom.type == mujoco.mjtGeom.mjGEOM_BOX),
                closed=shape.closed,
                triangles=(triangles, len(shape.faces)),
            )
        )
        triangles += len(shape.faces)
        shapes.append(shape)
        uvw.append(texture_coordinates(model, geom, texture, shape))
    number = np.arange(len(parts), dtype=np.int32)
    corners = [len(shape.positions) for shape in shapes]
    points = [len(shape.points) for shape in shapes]
    clusters = [int(shape.cluster[-1]) + 1 for shape in shapes]
    return DrawnSurfaces(
        positions=np.concatenate([shape.positions for shape in shapes]),
        normals=np.concatenate([shape.normals for shape in shapes]),
        uvw=np.concatenate(uvw).astype(np.float32),
        part=np.repeat(number, corners),
        faces=_numbered([shape.faces for shape in shapes], corners),
        points=np.concatenate([shape.points for shape in shapes]),
        point_part=np.repeat(number, points),
        point_cluster=_numbered([shape.point_cluster for shape in shapes], clusters),
        outline=_numbered([shape.outline for shape in shapes], points),
        cluster=_numbered([shape.cluster for shape in shapes], clusters),
        cluster_part=np.repeat(number, clusters),
        parts=tuple(parts),
        pictures=tuple(picture_of(model, texture) for texture in numbers),
    )


def _numbered(indices: list[I32], counts: list[int]) -> I32:
    """Indices of each shape as indices into what all shapes' arrays are joined to."""
    starts = np.cumsum([0, *counts[:-1]])
    joined = np.concatenate([index + start for index, start in zip(indices, starts, strict=True)])
    return np.asarray(joined, np.int32)
