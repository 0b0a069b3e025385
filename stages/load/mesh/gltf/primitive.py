"""Primitives of glTF meshes as surfaces: attributes, triangles, morph targets, coordinates and colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nimbusd.stages.load.mesh.cutouts import cut_out
from nimbusd.stages.load.mesh.gltf.document import Document, normalized
from nimbusd.stages.load.mesh.gltf.material import GltfLook, GltfLooks, GltfPicture, hue
from nimbusd.stages.load.mesh.gltf.support import Json, is_decoded_here
from nimbusd.stages.load.mesh.part import are_smooth, linear_values
from nimbusd.stages.load.mesh.surface import Surface, colored, one_material, wrapped
from nimbusd.stages.types import F32, F64, I32, Rgb

Attributes = dict[str, npt.NDArray[Any]]

_DRACO = "KHR_draco_mesh_compression"

_GLOWS = 0.02
"""A face glows where its texels of the emissive texture are, linear and on average, brighter than this."""


@dataclass(frozen=True, slots=True)
class Skinning:
    """The joints that move a primitive's vertices. joints: (V, N) numbers. weights: (V, N), each row sums to 1."""

    joints: npt.NDArray[np.int64]
    weights: F64


@dataclass(frozen=True, slots=True)
class Primitive:
    """A surface in its mesh's frame, what moves its vertices where it has a skin, and where its picture has holes.

    holes: what is solid (H, W) of a picture, and coordinates (F, 3, 2) in it.
    """

    surface: Surface
    skinning: Skinning | None
    holes: tuple[npt.NDArray[np.bool_], F32] | None = None

    def cut(self) -> Surface:
        """The surface without its holes. Vertices are new then, so skins move the whole surface first."""
        return self.surface if self.holes is None else cut_out(self.surface, *self.holes)


class Primitives:
    """Reads the primitives of a document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._looks = GltfLooks(document)

    def read(self, entry: Json, morph_weights: tuple[float, ...], *, is_skinned: bool) -> Primitive | None:
        """The triangles of a primitive at rest, in its mesh's frame; None for points and lines."""
        mode = entry.get("mode", 4)
        if mode < 4:
            return None
        packed = entry.get("extensions", {}).get(_DRACO) if is_decoded_here(_DRACO) else None
        indices, attributes = self._attributes(entry, packed)
        rest = attributes["POSITION"].astype(np.float64)
        if rest.shape[1] != 3:
            raise ValueError("positions are not triples")
        vertices = (rest + self._shift(entry, morph_weights, len(rest))).astype(np.float32)
        if indices is None:
            indices = np.arange(len(vertices), dtype=np.int64)
        faces64 = _triangles(indices, mode if packed is None else 4)  # Draco holds triangles, whatever the mode
        if faces64.size and faces64.max() >= len(vertices):
            raise self._document.torn(f"a face names vertex {faces64.max()} of {len(vertices)}")
        faces = faces64.astype(np.int32)
        look = self._looks.of(entry.get("material"))
        smooth = "NORMAL" in attributes and are_smooth(
            rest.astype(np.float32), faces, normalized(attributes["NORMAL"]).astype(np.float32)[faces]
        )
        surface = _dressed(one_material(vertices, faces, None, look.material, smooth), look, attributes)
        holes = None
        if look.solid is not None and len(faces):
            solid, uvs = look.solid, np.zeros((len(faces), 3, 2), np.float32)
            if look.picture is not None:
                coordinates = _coordinates(look.picture, attributes, faces)
                mask, uvs = wrapped(solid.astype(np.uint8), coordinates, look.picture.wrap)
                solid = mask.astype(np.bool_)
            holes = (solid, uvs)
        return Primitive(surface, _skinning(attributes) if is_skinned else None, holes)

    def _attributes(self, entry: Json, packed: Json | None) -> tuple[npt.NDArray[np.int64] | None, Attributes]:
        indices: npt.NDArray[np.int64] | None = None
        found: Attributes = {}
        if packed is not None:
            indices, found = self._document.draco(packed)
            for name, values in found.items():
                if self._document.json["accessors"][entry["attributes"][name]].get("normalized"):
                    found[name] = normalized(values)
        elif "indices" in entry:
            indices = self._document.accessor(entry["indices"])[:, 0].astype(np.int64)
        for name, number in entry["attributes"].items():
            if name not in found and not name.startswith(("TANGENT", "_")):
                found[name] = self._document.accessor(number)
        return indices, found

    def _shift(self, entry: Json, weights: tuple[float, ...], count: int) -> F64:
        """(V, 3) what the morph targets add to the positions."""
        total = np.zeros((count, 3))
        for weight, target in zip(weights, entry.get("targets", []), strict=False):
            if weight and "POSITION" in target:
                total += weight * self._document.accessor(target["POSITION"]).astype(np.float64)
        return total


def _dressed(surface: Surface, look: GltfLook, attributes: Attributes) -> Surface:
    """The surface with texture coordinates, the colours of its vertices, and the glow of its emissive texture."""
    faces = surface.faces
    picture = look.picture
    if picture is not None and len(faces):
        texture, uvs = wrapped(picture.rgb, _coordinates(picture, attributes, faces), picture.wrap)
        shown = look.material if texture is picture.rgb else replace(look.material, texture=texture)
        surface = replace(surface, uvs=uvs, materials=(shown,))
    if look.glow is not None and len(faces):
        surface = _with_glow(surface, *look.glow, attributes)
    if "COLOR_0" in attributes:
        rgba = normalized(attributes["COLOR_0"]).astype(np.float32)
        surface = colored(surface, rgba[:, :3][faces])
        if look.blends and rgba.shape[1] == 4 and len(faces):
            share = float(rgba[:, 3][faces].mean())
            surface = replace(
                surface, materials=tuple(replace(m, opacity=m.opacity * share) for m in surface.materials)
            )
    return surface


def _coordinates(picture: GltfPicture, attributes: Attributes, faces: I32) -> F32:
    """(F, 3, 2) into the picture, v upwards; zeros where the primitive has no such coordinates."""
    name = f"TEXCOORD_{picture.uv_set}"
    if name not in attributes:
        return picture.coordinates(np.zeros((len(faces), 3, 2), np.float32))
    return picture.coordinates(attributes[name].astype(np.float32)[faces])


def _with_glow(surface: Surface, picture: GltfPicture, emission: Rgb, attributes: Attributes) -> Surface:
    """Faces on which the emissive texture is bright show it instead of their own, as what glows does."""
    uvs = _coordinates(picture, attributes, surface.faces)
    bright = _mean_light(picture, uvs) * max(emission) > _GLOWS
    if not bright.any():
        return surface
    texture, uvs = wrapped(picture.rgb, uvs, picture.wrap)
    first = surface.materials[0]
    glowing = replace(
        first, name=f"{first.name} glow", base_color=hue(emission), texture=texture, emission=max(emission)
    )
    own = surface.uvs if surface.uvs is not None else np.zeros_like(uvs)
    return replace(
        surface,
        uvs=np.where(bright[:, None, None], uvs, own),
        materials=(first, glowing),
        face_material=bright.astype(np.int32),
    )


def _mean_light(picture: GltfPicture, uvs: F32) -> F64:
    """(F,) mean of the strongest linear channel at a few places of each face."""
    bary = np.array([(1, 1, 1), (4, 1, 1), (1, 4, 1), (1, 1, 4), (2, 2, 1), (1, 2, 2), (2, 1, 2)], np.float64)
    bary /= bary.sum(axis=1, keepdims=True)
    places = np.einsum("kc,fcd->fkd", bary, uvs.astype(np.float64)) % 1.0
    height, width = picture.rgb.shape[:2]
    row = np.minimum(((1 - places[..., 1]) * height).astype(np.int64), height - 1)
    column = np.minimum((places[..., 0] * width).astype(np.int64), width - 1)
    return np.asarray(linear_values(picture.rgb[row, column] / 255).max(axis=-1).mean(axis=1))


def _skinning(attributes: Attributes) -> Skinning | None:
    names = [name for name in attributes if name.startswith("JOINTS_")]
    if not names:
        return None
    joints = np.concatenate([attributes[name].astype(np.int64) for name in names], axis=1)
    found = [normalized(attributes[name.replace("JOINTS", "WEIGHTS")]).astype(np.float64) for name in names]
    weights = np.concatenate(found, axis=1)
    total = weights.sum(axis=1, keepdims=True)
    return Skinning(joints, np.divide(weights, total, out=np.zeros_like(weights), where=total > 0))


def _triangles(indices: npt.NDArray[np.int64], mode: int) -> npt.NDArray[np.int64]:
    """(F, 3) corners of a triangle list (4), strip (5) or fan (6)."""
    if mode == 4:
        if len(indices) % 3:
            raise ValueError(f"{len(indices)} corners do not make triangles")
        return indices.reshape(-1, 3)
    if mode not in (5, 6):
        raise ValueError(f"primitive mode {mode}")
    first, second, third = indices[:-2], indices[1:-1], indices[2:]
    if mode == 6:
        return np.stack([np.broadcast_to(indices[:1], third.shape), second, third], axis=1)
    odd = np.arange(len(third)) % 2 == 1
    return np.stack([np.where(odd, second, first), np.where(odd, first, second), third], axis=1)
