"""glTF 2.0 (.gltf, .glb): one part per node with a mesh, its primitives joined as materials of that part.

Written against the Khronos glTF 2.0 specification: metres, y up, base colour factors linear, textures sRGB,
texture coordinates with v downwards. Animation, skins and morph targets are left at rest.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh_part import MeshPart, are_smooth, check_parts, color_atlas, read_image, srgb_bytes
from nimbusd.stages.types import F32, F64, I32, U8, Material

Json: TypeAlias = dict[str, Any]
_DTYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
# Extensions that only add to the look; any other required one changes how the file must be decoded.
_HARMLESS = ("KHR_materials_", "KHR_lights_", "KHR_texture_transform", "KHR_mesh_quantization", "KHR_xmp")


@dataclass(frozen=True, slots=True)
class _Primitive:
    vertices: F32
    faces: I32
    uvs: F32 | None
    material: Material
    smooth: bool


class _Document:
    """A parsed file with its buffers, and the pictures already decoded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.json, self.binary = _split(path)
        required = self.json.get("extensionsRequired", [])
        unknown = [name for name in required if not name.startswith(_HARMLESS)]
        if unknown:
            raise AssetError(
                f"mesh file {path} needs the glTF extension {unknown[0]}, which is not supported. "
                "Export it without compression."
            )
        self.buffers = [self._buffer(number, entry) for number, entry in enumerate(self.json.get("buffers", []))]
        self.pictures: dict[int, tuple[U8, float]] = {}
        self.materials: dict[int, Material] = {}

    def torn(self, what: str) -> AssetError:
        return AssetError(f"mesh file {self.path} is torn: {what}. Export or copy it again.")

    def _buffer(self, number: int, entry: Json) -> bytes:
        uri = entry.get("uri")
        if uri is None:
            blob = self.binary
        elif uri.startswith("data:"):
            blob = self._inline(uri)
        else:
            file = self.path.parent / unquote(uri)
            if not file.is_file():
                raise AssetError(f"buffer {file} is missing; mesh file {self.path} names it. Copy it to that place.")
            blob = file.read_bytes()
        if len(blob) < entry["byteLength"]:
            raise self.torn(f"buffer {number} has {len(blob)} of {entry['byteLength']} bytes")
        return blob

    def _inline(self, uri: str) -> bytes:
        try:
            return base64.b64decode(uri.split(",", 1)[1], validate=True)
        except (binascii.Error, IndexError) as error:
            raise self.torn("a data URI does not decode") from error

    def view(self, number: int) -> tuple[bytes, int]:
        """Bytes of a buffer view, and its stride (0: packed)."""
        entry = self.json["bufferViews"][number]
        start = entry.get("byteOffset", 0)
        blob = self.buffers[entry["buffer"]][start : start + entry["byteLength"]]
        if len(blob) < entry["byteLength"]:
            raise self.torn(f"buffer view {number} ends past its buffer")
        return blob, entry.get("byteStride", 0)

    def accessor(self, number: int) -> npt.NDArray[Any]:
        """(count, width) array; normalized integers as floats in -1…1 or 0…1."""
        entry = self.json["accessors"][number]
        dtype = np.dtype(_DTYPES[entry["componentType"]]).newbyteorder("<")
        width, count = _WIDTHS[entry["type"]], entry["count"]
        if "bufferView" in entry:
            values = self._packed(entry["bufferView"], entry.get("byteOffset", 0), dtype, count, width)
        else:
            values = np.zeros((count, width), dtype)
        if "sparse" in entry:
            sparse = entry["sparse"]
            kind = np.dtype(_DTYPES[sparse["indices"]["componentType"]]).newbyteorder("<")
            where, what = sparse["indices"], sparse["values"]
            rows = self._packed(where["bufferView"], where.get("byteOffset", 0), kind, sparse["count"], 1)[:, 0]
            values = values.copy()
            values[rows] = self._packed(what["bufferView"], what.get("byteOffset", 0), dtype, sparse["count"], width)
        if entry.get("normalized"):
            bits = 8 * dtype.itemsize - (dtype.kind == "i")
            values = np.maximum(values.astype(np.float32) / (2**bits - 1), -1.0)
        return values

    def _packed(self, view: int, offset: int, dtype: np.dtype[Any], count: int, width: int) -> npt.NDArray[Any]:
        blob, stride = self.view(view)
        size = dtype.itemsize * width
        stride = stride or size
        if count and offset + stride * (count - 1) + size > len(blob):
            raise self.torn(f"an accessor reads past buffer view {view}")
        return (
            np.ndarray((count, width), dtype, blob, offset, (stride, dtype.itemsize))
            if count
            else np.zeros((0, width), dtype)
        )

    def picture(self, number: int) -> tuple[U8, float]:
        """Pixels and mean alpha of image `number`."""
        if number not in self.pictures:
            entry = self.json["images"][number]
            name = f"{number} of {self.path}"
            if "bufferView" in entry:
                found = read_image(io.BytesIO(self.view(entry["bufferView"])[0]), name)
            elif entry["uri"].startswith("data:"):
                found = read_image(io.BytesIO(self._inline(entry["uri"])), name)
            else:
                file = self.path.parent / unquote(entry["uri"])
                found = read_image(file, f"{file} (named by {self.path})")
            self.pictures[number] = found
        return self.pictures[number]

    def material(self, number: int | None) -> Material:
        if number is None:
            return Material("default", (1.0, 1.0, 1.0), roughness=1.0, metallic=1.0)
        if number not in self.materials:
            self.materials[number] = self._material(self.json["materials"][number], f"material {number}")
        return self.materials[number]

    def _material(self, entry: Json, fallback_name: str) -> Material:
        pbr = entry.get("pbrMetallicRoughness", {})
        red, green, blue, alpha = (float(x) for x in pbr.get("baseColorFactor", (1, 1, 1, 1)))
        texture, texture_alpha = None, 1.0
        if "baseColorTexture" in pbr:
            source = self.json["textures"][pbr["baseColorTexture"]["index"]].get("source")
            if source is None:
                raise AssetError(
                    f"mesh file {self.path}: a texture has no PNG or JPEG source. Export it with such textures."
                )
            texture, texture_alpha = self.picture(source)
        extensions = entry.get("extensions", {})
        # Cut-outs (MASK: leaves, lace) stay solid: a picture's alpha is not carried per pixel.
        opacity = alpha * texture_alpha if entry.get("alphaMode") == "BLEND" else 1.0
        opacity *= 1 - float(extensions.get("KHR_materials_transmission", {}).get("transmissionFactor", 0.0))
        strength = float(extensions.get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1.0))
        return Material(
            entry.get("name", fallback_name),
            (red, green, blue),
            texture,
            roughness=float(pbr.get("roughnessFactor", 1.0)),
            metallic=float(pbr.get("metallicFactor", 1.0)),
            emission=max(float(x) for x in entry.get("emissiveFactor", (0, 0, 0))) * strength,
            opacity=opacity,
        )

    def primitive(self, entry: Json) -> _Primitive | None:
        """Triangles of a primitive; None for points and lines."""
        mode = entry.get("mode", 4)
        if mode < 4:
            return None
        attributes = entry["attributes"]
        vertices = self.accessor(attributes["POSITION"]).astype(np.float32)
        indices = self.accessor(entry["indices"])[:, 0] if "indices" in entry else np.arange(len(vertices))
        faces = _triangles(indices.astype(np.int64), mode)
        if faces.size and faces.max() >= len(vertices):
            raise self.torn(f"a face names vertex {faces.max()} of {len(vertices)}")
        faces32 = faces.astype(np.int32)
        material = self.material(entry.get("material"))
        uvs = None
        if "TEXCOORD_0" in attributes:
            corners = self.accessor(attributes["TEXCOORD_0"]).astype(np.float32)[faces]
            uvs = np.stack([corners[..., 0], 1 - corners[..., 1]], axis=-1)
        if material.texture is None and "COLOR_0" in attributes:
            linear = self.accessor(attributes["COLOR_0"])[:, :3].astype(np.float32)[faces].mean(axis=1)
            texture, uvs = color_atlas(srgb_bytes(linear))
            material = replace(material, texture=texture)
        smooth = "NORMAL" in attributes and are_smooth(
            vertices, faces32, self.accessor(attributes["NORMAL"]).astype(np.float32)[faces]
        )
        return _Primitive(vertices, faces32, uvs, material, smooth)

    def roots(self) -> list[int]:
        scenes = self.json.get("scenes")
        if scenes:
            return list(scenes[self.json.get("scene", 0)].get("nodes", []))
        nodes = self.json.get("nodes", [])
        children = {child for node in nodes for child in node.get("children", [])}
        return [number for number in range(len(nodes)) if number not in children]


def read_gltf(path: Path) -> list[MeshPart]:
    """The nodes of the default scene that have meshes. Raises AssetError for a torn or incomplete file."""
    document = _Document(path)
    parts: list[MeshPart] = []
    meshes: dict[int, list[_Primitive]] = {}
    try:
        pending = [(number, np.eye(4), 0) for number in reversed(document.roots())]
        while pending:
            number, T_file_parent, depth = pending.pop()
            node = document.json["nodes"][number]
            if depth > len(document.json["nodes"]):
                raise document.torn("its nodes form a circle")
            T_file_node = T_file_parent @ _local_transform(node)
            pending += [(child, T_file_node, depth + 1) for child in reversed(node.get("children", []))]
            if "mesh" in node:
                mesh = document.json["meshes"][node["mesh"]]
                if node["mesh"] not in meshes:
                    made = [document.primitive(entry) for entry in mesh["primitives"]]
                    meshes[node["mesh"]] = [primitive for primitive in made if primitive is not None]
                name = node.get("name") or mesh.get("name") or f"node {number}"
                if meshes[node["mesh"]]:
                    parts.append(_join(name, meshes[node["mesh"]], T_file_node))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise document.torn(f"it refers to something that is not there ({error!r})") from error
    return check_parts(parts, path)


def gltf_references(path: Path) -> list[Path]:
    """Buffers and pictures in files of their own."""
    document, _ = _split(path)
    uris = [entry.get("uri") for key in ("buffers", "images") for entry in document.get(key, [])]
    return [path.parent / unquote(uri) for uri in uris if uri and not uri.startswith("data:")]


def _split(path: Path) -> tuple[Json, bytes]:
    """JSON and binary chunk of a .glb, or the JSON of a .gltf."""
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise AssetError(f"mesh file {path} cannot be read: {error.strerror or error}.") from error
    torn = f"mesh file {path} is torn or not a glTF 2.0 file: {{}}. Export or copy it again."
    text, binary = blob, b""
    if path.suffix.lower() == ".glb":
        if len(blob) < 20 or blob[:4] != b"glTF":
            raise AssetError(torn.format("its header is not that of a .glb"))
        _, version, length = struct.unpack("<4sII", blob[:12])
        if version != 2 or length > len(blob):
            raise AssetError(torn.format(f"version {version}, {len(blob)} of {length} bytes"))
        size = struct.unpack("<I", blob[12:16])[0]
        text, binary = blob[20 : 20 + size], blob[28 + size :]
    try:
        document = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AssetError(torn.format(str(error))) from error
    if not isinstance(document, dict) or "asset" not in document:
        raise AssetError(torn.format("it has no `asset`"))
    return cast(Json, document), binary


def _local_transform(node: Json) -> F64:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    from scipy.spatial.transform import Rotation

    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(node.get("rotation", (0, 0, 0, 1))).as_matrix() * node.get("scale", (1, 1, 1))
    T[:3, 3] = node.get("translation", (0, 0, 0))
    return T


def _triangles(indices: npt.NDArray[np.int64], mode: int) -> npt.NDArray[np.int64]:
    """(F, 3) corners of a triangle list (4), strip (5) or fan (6)."""
    if mode == 4:
        if len(indices) % 3:
            raise ValueError(f"{len(indices)} corners do not make triangles")
        return indices.reshape(-1, 3)
    first, second, third = indices[:-2], indices[1:-1], indices[2:]
    if mode == 6:
        return np.stack([np.broadcast_to(indices[:1], third.shape), second, third], axis=1)
    odd = np.arange(len(third)) % 2 == 1
    return np.stack([np.where(odd, second, first), np.where(odd, first, second), third], axis=1)


def _join(name: str, primitives: list[_Primitive], T_file_node: F64) -> MeshPart:
    offsets = np.cumsum([0] + [len(p.vertices) for p in primitives])
    has_uv = any(p.uvs is not None for p in primitives)
    blank = [p.uvs if p.uvs is not None else np.zeros((len(p.faces), 3, 2), np.float32) for p in primitives]
    return MeshPart(
        name,
        np.concatenate([p.vertices for p in primitives]),
        np.concatenate([p.faces + np.int32(o) for p, o in zip(primitives, offsets, strict=False)]),
        tuple(p.material for p in primitives),
        np.repeat(np.arange(len(primitives), dtype=np.int32), [len(p.faces) for p in primitives]),
        np.concatenate(blank) if has_uv else None,
        T_file_node,
        smooth=any(p.smooth for p in primitives),
    )
