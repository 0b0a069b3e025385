"""A surface of one look while a mesh file is read: what its look changes about its faces.

Materials have one texture and one colour. What formats say per vertex, per texel or per texture is brought into that
form here: colours of vertices, holes in a picture's alpha, pictures that do not repeat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from nimbusd.stages.load.mesh.part import MeshPart, color_atlas, srgb_bytes
from nimbusd.stages.types import F32, F64, I32, U8, Material

Wrap: TypeAlias = Literal["repeat", "mirror", "clamp"]

MOST_TINTS = 64
"""Colours of vertices on a textured surface are rounded until there are no more than so many."""

_MOST_TILES = 8
_MOST_PIXELS = 8192
_NEAR = 1e-3


@dataclass(frozen=True, slots=True)
class Surface:
    """vertices: (V, 3) float32. faces: (F, 3) int32. uvs: (F, 3, 2) float32, v upwards. face_material: (F,) int32."""

    vertices: F32
    faces: I32
    uvs: F32 | None
    materials: tuple[Material, ...]
    face_material: I32
    smooth: bool = False


def one_material(vertices: F32, faces: I32, uvs: F32 | None, material: Material, smooth: bool) -> Surface:
    return Surface(vertices, faces, uvs, (material,), np.zeros(len(faces), np.int32), smooth)


def joined(name: str, surfaces: list[Surface], T_file_part: F64 | None = None) -> MeshPart:
    """The surfaces as one part; corners without texture coordinates get zeros beside ones with."""
    if any(surface.smooth for surface in surfaces):
        # A part is shaded smooth as a whole, and only faces that share vertices are.
        surfaces = [surface if surface.smooth else _unshared(surface) for surface in surfaces]
    first_vertex = np.cumsum([0] + [len(s.vertices) for s in surfaces])
    first_material = np.cumsum([0] + [len(s.materials) for s in surfaces])
    uvs = [s.uvs if s.uvs is not None else np.zeros((len(s.faces), 3, 2), np.float32) for s in surfaces]
    return MeshPart(
        name,
        np.concatenate([s.vertices for s in surfaces]),
        np.concatenate([s.faces + np.int32(k) for s, k in zip(surfaces, first_vertex, strict=False)]),
        tuple(material for s in surfaces for material in s.materials),
        np.concatenate([s.face_material + np.int32(k) for s, k in zip(surfaces, first_material, strict=False)]),
        np.concatenate(uvs) if any(s.uvs is not None for s in surfaces) else None,
        np.eye(4) if T_file_part is None else T_file_part,
        smooth=any(s.smooth for s in surfaces),
    )


def _unshared(surface: Surface) -> Surface:
    """The surface with a vertex for each corner."""
    return replace(
        surface,
        vertices=surface.vertices[surface.faces].reshape(-1, 3),
        faces=np.arange(surface.faces.size, dtype=np.int32).reshape(-1, 3),
    )


def colored(surface: Surface, corner_rgb: F32) -> Surface:
    """The surface with a linear colour at each corner, (F, 3, 3) in 0…1 (nan: white), multiplied into its materials.

    Each face gets the mean of its corners. Without textures all faces keep their own colour, in an atlas; with one,
    which has to stay, faces of about the same colour share a tinted copy of their material.
    """
    face_rgb = np.nan_to_num(corner_rgb.astype(np.float64).mean(axis=1), nan=1.0, posinf=1.0, neginf=0.0)
    if not len(face_rgb):
        return surface
    if np.ptp(face_rgb, axis=0).max() < 1 / 512:
        return replace(surface, materials=tuple(_tinted(m, face_rgb[0]) for m in surface.materials))
    if all(material.texture is None for material in surface.materials):
        base = np.array([material.base_color for material in surface.materials])
        texture, uvs = color_atlas(srgb_bytes(face_rgb * base[surface.face_material]))
        shown = tuple(replace(m, base_color=(1.0, 1.0, 1.0), texture=texture) for m in surface.materials)
        return replace(surface, materials=shown, uvs=uvs)
    steps = 255
    while True:
        rounded = np.rint(face_rgb * steps).astype(np.int64)
        keys = np.column_stack([surface.face_material.astype(np.int64), rounded])
        _, where = np.unique(keys, axis=0, return_inverse=True)
        where = where.ravel()
        if where.max() < max(MOST_TINTS, len(surface.materials)) or steps == 1:
            break
        steps //= 2
    counts = np.bincount(where)
    tints = np.stack([np.bincount(where, face_rgb[:, k]) / counts for k in range(3)], axis=1)
    sources = np.zeros(len(counts), np.int64)
    sources[where] = surface.face_material
    materials = tuple(_tinted(surface.materials[of], rgb) for of, rgb in zip(sources, tints, strict=True))
    return replace(surface, materials=materials, face_material=where.astype(np.int32))


def _tinted(material: Material, rgb: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Material:
    r, g, b = (float(base * tint) for base, tint in zip(material.base_color, rgb, strict=True))
    return replace(material, base_color=(r, g, b))


def wrapped(texture: U8, uvs: F32, wrap: tuple[Wrap, Wrap]) -> tuple[U8, F32]:
    """A picture that may repeat in all directions, and coordinates for it that show what `wrap` (u, v) says.

    texture: (H, W, ...) uint8. uvs: (F, 3, 2), v upwards. A clamped picture is continued over up to 8 of its widths,
    and thinned out where it would get more than 8192 pixels along an edge.
    """
    uvs = uvs.copy()
    for axis, mode in enumerate(wrap):
        side = 1 - axis  # of the array: u runs along its columns, v along its rows, upwards
        low, high = (float(np.floor(uvs[..., axis].min() + _NEAR)), float(np.ceil(uvs[..., axis].max() - _NEAR)))
        if mode == "repeat" or (low >= 0 and high <= 1):
            continue
        if mode == "mirror":
            turned = np.flip(texture, side)
            texture = np.concatenate([turned, texture] if axis else [texture, turned], side)
            uvs[..., axis] /= 2
            continue
        low, high = max(low, -_MOST_TILES), min(high, 1 + _MOST_TILES)
        low, high = min(low, 0.0), max(high, 1.0)
        thinning = int(np.ceil(texture.shape[side] * (high - low) / _MOST_PIXELS))
        texture = texture[::thinning] if axis else texture[:, ::thinning]
        size = texture.shape[side]
        before, after = (round(-low * size), round((high - 1) * size))
        pads = [(0, 0)] * texture.ndim
        pads[side] = (after, before) if axis else (before, after)
        texture = np.pad(texture, pads, mode="edge")
        uvs[..., axis] = (np.clip(uvs[..., axis], low, high) - low) / (high - low)
    return np.ascontiguousarray(texture), uvs
