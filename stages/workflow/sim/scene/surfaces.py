"""Triangles of a geom as MuJoCo's rasterizer draws it, with its normals, texture coordinates and texture.

Vertices are repeated where the surface has an edge, so that interpolated normals give what MuJoCo draws: sharp edges
stay sharp, round surfaces round. Round shapes have as many slices as MuJoCo gives them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from nimbusd.stages.types import F32, F64, I32, U8
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco

_KEPT = 256
"""Surfaces that a process remembers: layouts change with every episode, robots do not."""

_SAME_NORMAL = 1e-3
"""Normals of one vertex that differ by less are one."""

_known: OrderedDict[bytes, GeomSurface] = OrderedDict()


@dataclass(frozen=True)
class GeomSurface:
    """Triangles in a geom's frame.

    vertices: (V, 3) metres. faces: (F, 3), counter-clockwise from outside.
    texcoords: (F, 3, 2) in 0…1 over the geom, v downwards as MuJoCo has it; None for a mesh that has none.
    """

    vertices: F32
    faces: I32
    texcoords: F32 | None


def geom_surface(model: Any, geom: int) -> GeomSurface:
    """A visible geom's surface. Raises ValueError for kinds that are not drawn as one (planes, height fields)."""
    kinds = import_mujoco().mjtGeom
    kind, size = int(model.geom_type[geom]), np.asarray(model.geom_size[geom], np.float64)
    if kind == kinds.mjGEOM_MESH:
        return _mesh(model, int(model.geom_dataid[geom]))
    if kind == kinds.mjGEOM_BOX:
        return _box(size)
    slices, stacks = int(model.vis.quality.numslices), int(model.vis.quality.numstacks)
    if kind == kinds.mjGEOM_CYLINDER:
        return _turned(_cylinder_profile(), slices, np.array([size[0], size[0], size[1]]))
    if kind in (kinds.mjGEOM_SPHERE, kinds.mjGEOM_ELLIPSOID):
        scale = np.full(3, size[0]) if kind == kinds.mjGEOM_SPHERE else size
        return _turned(_ball_profile(stacks, 0.0), slices, scale)
    if kind == kinds.mjGEOM_CAPSULE:
        return _turned(_ball_profile(stacks, size[1] / size[0]), slices, np.full(3, size[0]))
    raise ValueError(f"geom {model.geom(geom).name!r} is of kind {kind}, which has no triangle mesh here")


def texture_of(model: Any, geom: int) -> int:
    """The texture that colours a geom, -1 without one."""
    material = int(model.geom_matid[geom])
    return -1 if material < 0 else int(model.mat_texid[material][int(import_mujoco().mjtTextureRole.mjTEXROLE_RGB)])


def texture_pixels(model: Any, texture: int) -> U8:
    """(H, W, 3) sRGB, row 0 at the top."""
    height, width, channels = (int(v[texture]) for v in (model.tex_height, model.tex_width, model.tex_nchannel))
    first = int(model.tex_adr[texture])
    pixels = np.asarray(model.tex_data[first : first + height * width * channels]).reshape(height, width, channels)
    return np.ascontiguousarray(pixels[..., :3] if channels >= 3 else np.repeat(pixels[..., :1], 3, axis=2))


def texture_uvs(model: Any, geom: int, surface: GeomSurface) -> F32:
    """(F, 3, 2) texture coordinates of a geom with a 2D texture, v upwards, with its material's repeats.

    A mesh without coordinates of its own is mapped along its z axis, as MuJoCo does.
    """
    material, size = int(model.geom_matid[geom]), np.asarray(model.geom_size[geom][:2], np.float64)
    if int(model.geom_type[geom]) in _round_kinds():
        size = np.full(2, size[0])
    repeat = np.asarray(model.mat_texrepeat[material], np.float64)
    extent = np.where(size > 0, size, 1.0)
    uniform = bool(model.mat_texuniform[material])
    if surface.texcoords is not None:
        scale = np.where(repeat > 0, repeat, 1.0) * (extent if uniform else 1.0)
        st = surface.texcoords * scale
    else:
        scale = repeat * (1.0 if uniform else 1.0 / extent)
        st = surface.vertices[surface.faces][..., :2] * scale * [0.5, -0.5] - 0.5
    return np.asarray(st * [1, -1] + [0, 1], np.float32)


def _round_kinds() -> tuple[Any, ...]:
    """Kinds whose first size is a radius."""
    kinds = import_mujoco().mjtGeom
    return kinds.mjGEOM_SPHERE, kinds.mjGEOM_CAPSULE, kinds.mjGEOM_CYLINDER


def _mesh(model: Any, mesh: int) -> GeomSurface:
    """A mesh as it was compiled; the same arrays for the same mesh, in whatever model it is."""

    def part(name: str, first: str, count: str) -> Any:
        start = int(getattr(model, first)[mesh])
        return getattr(model, name)[start : start + int(getattr(model, count)[mesh])]

    vertices, faces = (
        part("mesh_vert", "mesh_vertadr", "mesh_vertnum"),
        part("mesh_face", "mesh_faceadr", "mesh_facenum"),
    )
    normals, corner = (
        part("mesh_normal", "mesh_normaladr", "mesh_normalnum"),
        part("mesh_facenormal", "mesh_faceadr", "mesh_facenum"),
    )
    arrays = [vertices, faces, normals, corner]
    if int(model.mesh_texcoordadr[mesh]) >= 0:
        arrays += [
            part("mesh_texcoord", "mesh_texcoordadr", "mesh_texcoordnum"),
            part("mesh_facetexcoord", "mesh_faceadr", "mesh_facenum"),
        ]
    digest = blake2b(digest_size=16)
    for array in arrays:
        digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    key = digest.digest()
    if key not in _known:
        texcoords = np.asarray(arrays[4][arrays[5]], np.float32) if len(arrays) > 4 else None
        _known[key] = _split(np.asarray(vertices), np.asarray(faces), normals[corner], texcoords)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    _known.move_to_end(key)
    return _known[key]


def _split(vertices: Any, faces: Any, corner_normals: Any, texcoords: F32 | None) -> GeomSurface:
    """The mesh with a vertex for each of its normals. corner_normals: (F, 3, 3)."""
    rounded = np.rint(np.asarray(corner_normals, np.float64).reshape(-1, 3) / _SAME_NORMAL).astype(np.int64)
    span = 2 * int(1 / _SAME_NORMAL) + 3
    code = faces.reshape(-1).astype(np.int64)
    for axis in range(3):
        code = code * span + rounded[:, axis] + span // 2
    _, first, place = np.unique(code, return_index=True, return_inverse=True)
    return GeomSurface(
        np.ascontiguousarray(vertices[faces.reshape(-1)[first]], np.float32),
        np.ascontiguousarray(place.reshape(-1, 3), np.int32),
        texcoords,
    )


def _box(half: F64) -> GeomSurface:
    """Each face has the whole texture: u along its first axis, v down its second."""
    vertices: list[F64] = []
    faces, texcoords = [], []
    for axis in range(3):
        a, b = (other for other in range(3) if other != axis)
        for sign in (-1.0, 1.0):
            corners = np.zeros((4, 3))
            corners[:, axis] = sign
            corners[:, a], corners[:, b] = (-1, 1, 1, -1), (-1, -1, 1, 1)
            # x cross y is z and y cross z is x, but x cross z is -y: seen from outside these turn the other way.
            turns_left = (sign > 0) == (axis != 1)
            for triangle in ((0, 1, 2), (0, 2, 3)):
                chosen = list(triangle if turns_left else triangle[::-1])
                faces.append([len(vertices) * 4 + corner for corner in chosen])
                texcoords.append(np.stack([(corners[chosen, a] + 1) / 2, (1 - corners[chosen, b]) / 2], axis=1))
            vertices.append(corners * half)
    return GeomSurface(
        np.concatenate(vertices).astype(np.float32), np.array(faces, np.int32), np.array(texcoords, np.float32)
    )


def _cylinder_profile() -> list[tuple[F64, bool]]:
    """Of a cylinder of radius 1 and half height 1: lower cap, side, upper cap."""
    return [
        (np.array([[0.0, -1.0], [1.0, -1.0]]), True),
        (np.array([[1.0, -1.0], [1.0, 1.0]]), False),
        (np.array([[1.0, 1.0], [0.0, 1.0]]), True),
    ]


def _ball_profile(stacks: int, half: float) -> list[tuple[F64, bool]]:
    """Of a ball of radius 1 that is drawn apart by `half` to either side."""
    rise = np.linspace(0, np.pi / 2, max(2, stacks // 2) + 1)
    upper = np.stack([np.cos(rise), np.sin(rise) + half], axis=1)
    upper[-1, 0] = 0.0
    lower = upper[::-1] * [1, -1]
    return [(np.concatenate([lower, upper if half > 0 else upper[1:]]), False)]


def _turned(profile: list[tuple[F64, bool]], slices: int, scale: F64) -> GeomSurface:
    """Stretches of a profile (radius, height), from below to above, turned about z. True: a flat cap."""
    angle = np.arange(slices) * (2 * np.pi / slices)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    i = np.arange(slices)
    j = (i + 1) % slices
    vertices, faces, texcoords, count = [], [], [], 0
    for points, flat in profile:
        low, high = points[0, 1], points[-1, 1]
        for radius, height in points:
            vertices.append(np.c_[radius * circle, np.full(slices, height)])
        for ring in range(len(points) - 1):
            a, b = count + ring * slices, count + (ring + 1) * slices
            quads = [(a + i, a + j, b + j)] if points[ring, 0] > 0 else []
            quads += [(a + i, b + j, b + i)] if points[ring + 1, 0] > 0 else []
            for corners in quads:
                faces.append(np.stack(corners, axis=1))
                if flat:
                    at = np.concatenate(vertices)[faces[-1]][..., :2]
                    texcoords.append(0.5 + 0.5 * at)
                else:
                    turn = np.stack([i + (corner % slices != i) for corner in corners], axis=1) / slices
                    down = (high - np.concatenate(vertices)[faces[-1]][..., 2]) / (high - low)
                    texcoords.append(np.stack([turn, down], axis=2))
        count += len(points) * slices
    return GeomSurface(
        (np.concatenate(vertices) * scale).astype(np.float32),
        np.concatenate(faces).astype(np.int32),
        np.concatenate(texcoords).astype(np.float32),
    )
