"""What is visible of a compiled MuJoCo model, as arrays that a rasterizer takes: corners, triangles, materials, pictures.

Geoms become parts: each with its own triangles in its own frame, at full size, and with texture coordinates in which
repeats and sizes are already counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.renderers.mujoco_shapes import Corners, Cut, box, capsule, cylinder, ellipsoid, plane
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F32, F64, I32, U8
from nimbusd.stages.workflow.sim.world import FAR_M

_SHARP = 0.8
"""Cosine of the angle between a mesh's triangle and a corner's normal beyond which the triangle's own is taken."""

OPAQUE = 0.995
"""Opacity from which on a part counts as opaque."""


@dataclass(frozen=True)
class Part:
    """One visible geom. picture: index into `Surfaces.pictures`, -1 without.

    rgba: of its material. specular, shininess (0…128), emission: as in OpenGL's fixed pipeline. reach_m: radius around
    `middle` (3,), in its own frame, that holds all of it.
    faces, outline: first index and number of indices in `Surfaces.faces` and `Surfaces.outline`.
    """

    geom: int
    picture: int
    rgba: tuple[float, float, float, float]
    specular: float
    shininess: float
    emission: float
    middle: tuple[float, float, float]
    reach_m: float
    faces: tuple[int, int]
    outline: tuple[int, int]

    @property
    def opaque(self) -> bool:
        return self.rgba[3] >= OPAQUE


@dataclass(frozen=True)
class Picture:
    """A texture. pixels: (H, W, 3 or 4), or (6, W, W, 3) of a cube. linear: made linear when looked up (sRGB)."""

    pixels: U8
    cube: bool
    linear: bool


@dataclass(frozen=True)
class Surfaces:
    """Everything visible. Corners have a position, a normal and texture coordinates; points have a position only.

    positions, normals, uvw: (C, 3). part: (C,) index into `parts`. faces: (F, 3) of corners.
    points: (P, 3). point_part: (P,). outline: (F, 3) of points, the same triangles for depth alone.
    """

    positions: F32
    normals: F32
    uvw: F32
    part: I32
    faces: I32
    points: F32
    point_part: I32
    outline: I32
    parts: tuple[Part, ...]
    pictures: tuple[Picture, ...]


def visible_surfaces(model: Any, geoms: list[Any]) -> Surfaces:
    """The surfaces of a scene's geoms (mjvGeom) of a model. Raises RenderError for kinds that are not drawn."""
    numbers: dict[int, int] = {}
    pieces: list[tuple[Corners, F64]] = []
    outlines: list[tuple[F64, I32]] = []
    parts: list[Part] = []
    faces = points = 0
    for geom in geoms:
        corners, cloud, outline = _shape(model, geom)
        texture = int(geom.texid) if geom.matid >= 0 else -1
        if texture >= 0:
            numbers.setdefault(texture, len(numbers))
        low, high = cloud.min(axis=0), cloud.max(axis=0)
        middle = (low + high) / 2
        parts.append(
            Part(
                geom=int(geom.objid),
                picture=numbers.get(texture, -1),
                rgba=tuple(float(value) for value in geom.rgba),  # type: ignore[arg-type]
                specular=float(geom.specular),
                shininess=float(geom.shininess) * 128.0,
                emission=float(geom.emission),
                middle=tuple(middle.tolist()),
                reach_m=float(np.linalg.norm(cloud - middle, axis=1).max()),
                faces=(3 * faces, 3 * len(corners.faces)),
                outline=(3 * points, 3 * len(outline)),
            )
        )
        faces, points = faces + len(corners.faces), points + len(outline)
        pieces.append((corners, _texture_coordinates(model, geom, texture, corners)))
        outlines.append((cloud, outline))
    corner_starts = np.cumsum([0, *(len(corners.positions) for corners, _ in pieces)])
    point_starts = np.cumsum([0, *(len(cloud) for cloud, _ in outlines)])
    return Surfaces(
        positions=np.concatenate([corners.positions for corners, _ in pieces]).astype(np.float32),
        normals=np.concatenate([corners.normals for corners, _ in pieces]).astype(np.float32),
        uvw=np.concatenate([uvw for _, uvw in pieces]).astype(np.float32),
        part=np.repeat(np.arange(len(parts), dtype=np.int32), np.diff(corner_starts)),
        faces=np.concatenate(
            [corners.faces + start for (corners, _), start in zip(pieces, corner_starts, strict=False)]
        ).astype(np.int32),
        points=np.concatenate([cloud for cloud, _ in outlines]).astype(np.float32),
        point_part=np.repeat(np.arange(len(parts), dtype=np.int32), np.diff(point_starts)),
        outline=np.concatenate(
            [outline + start for (_, outline), start in zip(outlines, point_starts, strict=False)]
        ).astype(np.int32),
        parts=tuple(parts),
        pictures=tuple(_picture(model, texture) for texture in numbers),
    )


def _shape(model: Any, geom: Any) -> tuple[Corners, F64, I32]:
    """Corners of a geom, and its points with the triangles between them."""
    import mujoco

    kinds = mujoco.mjtGeom
    quality, size = model.vis.quality, np.array(geom.size, np.float64)
    cut = Cut(int(quality.numquads), int(quality.numslices), int(quality.numstacks))
    if geom.type == kinds.mjGEOM_MESH:
        return _mesh(model, int(model.geom_dataid[geom.objid]))
    if geom.type == kinds.mjGEOM_BOX:
        corners = box(size, cut)
    elif geom.type == kinds.mjGEOM_CYLINDER:
        corners = cylinder(size, cut)
    elif geom.type in (kinds.mjGEOM_SPHERE, kinds.mjGEOM_ELLIPSOID):
        corners = ellipsoid(size, cut)
    elif geom.type == kinds.mjGEOM_CAPSULE:
        corners = capsule(size, cut)
    elif geom.type == kinds.mjGEOM_PLANE:
        corners = plane(np.where(size[:2] > 0, size[:2], FAR_M), float(size[2]), cut)
    else:
        raise RenderError(
            f"geom {model.geom(geom.objid).name or geom.objid!r} is a {kinds(geom.type).name}, which is not drawn: "
            "planes, boxes, spheres, ellipsoids, capsules, cylinders and meshes are"
        )
    return corners, corners.positions, corners.faces


def _mesh(model: Any, mesh: int) -> tuple[Corners, F64, I32]:
    """A mesh, with one corner for every pair of a vertex and a normal (and a texture coordinate)."""
    first, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    start, room = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    faces = model.mesh_face[first : first + count].astype(np.int64)
    points = model.mesh_vert[start : start + room].astype(np.float64)
    normal_start = int(model.mesh_normaladr[mesh])
    normals = model.mesh_normal[normal_start : normal_start + int(model.mesh_normalnum[mesh])].astype(np.float64)
    which = model.mesh_facenormal[first : first + count].astype(np.int64)
    picked, uv_start = which, int(model.mesh_texcoordadr[mesh])
    uv = np.zeros((1, 2))
    if uv_start >= 0:
        uv = model.mesh_texcoord[uv_start : uv_start + int(model.mesh_texcoordnum[mesh])].astype(np.float64)
        third = model.mesh_facetexcoord[first : first + count].astype(np.int64)
    else:
        third = np.zeros_like(faces)
        triangles = points[faces]
        facing = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-15)
        sharp = np.einsum("ijk,ik->ij", normals[which], facing) < _SHARP
        picked = np.where(sharp, len(normals) + np.arange(count)[:, None], which)
        normals = np.concatenate([normals, facing])
    keys = (faces * len(normals) + picked) * len(uv) + third
    _, kept, corner = np.unique(keys.ravel(), return_index=True, return_inverse=True)
    made = Corners(
        points[faces.ravel()[kept]],
        normals[picked.ravel()[kept]],
        uv[third.ravel()[kept]],
        corner.reshape(-1, 3).astype(np.int32),
    )
    used, outline = np.unique(faces, return_inverse=True)
    return made, points[used], outline.reshape(-1, 3).astype(np.int32)


def _texture_coordinates(model: Any, geom: Any, texture: int, corners: Corners) -> F64:
    """(C, 3) where a geom's corners lie in its picture, repeats counted; a cube's are directions."""
    import mujoco

    uvw = np.zeros_like(corners.positions)
    if texture < 0:
        return uvw
    size, own = np.array(geom.size, np.float64), bool(geom.texcoord)
    repeat = np.array(geom.texrepeat, np.float64)
    is_mesh = geom.type == mujoco.mjtGeom.mjGEOM_MESH
    stretch = np.where(size[:2] > 0, size[:2], 1.0)
    if model.tex_type[texture] != mujoco.mjtTexture.mjTEXTURE_2D and not own:
        unit = corners.positions if is_mesh else corners.positions / np.where(size > 0, size, 1.0)
        return unit * (size if geom.texuniform else 1.0)
    if own or not is_mesh:
        scale = np.where(repeat > 0, repeat, 1.0) * (stretch if geom.texuniform else 1.0)
        uvw[:, :2] = corners.uv * scale
        return uvw
    # A mesh without coordinates of its own is painted along its z axis.
    scale = repeat / stretch * (stretch if geom.texuniform else 1.0)
    uvw[:, :2] = corners.positions[:, :2] * scale * [0.5, -0.5] - 0.5
    return uvw


def _picture(model: Any, texture: int) -> Picture:
    import mujoco

    start, channels = int(model.tex_adr[texture]), int(model.tex_nchannel[texture])
    width, height = int(model.tex_width[texture]), int(model.tex_height[texture])
    pixels = np.array(model.tex_data[start : start + width * height * channels], np.uint8)
    linear = bool(model.tex_colorspace[texture] == mujoco.mjtColorSpace.mjCOLORSPACE_SRGB)
    if channels not in (3, 4):
        raise RenderError(f"texture {model.tex(texture).name!r} has {channels} channels; 3 and 4 can be drawn")
    if model.tex_type[texture] == mujoco.mjtTexture.mjTEXTURE_2D:
        return Picture(pixels.reshape(height, width, channels), False, linear)
    if width == height:
        return Picture(np.tile(pixels.reshape(1, width, width, channels)[..., :3], (6, 1, 1, 1)), True, linear)
    return Picture(pixels.reshape(6, width, width, channels)[..., :3], True, linear)
