"""Wavefront .obj and .mtl: one part per object or group, texture coordinates per face corner.

Kd is taken as linear RGB, and `map_Kd` replaces it, as Blender's importer does (the format states neither).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh_part import MeshPart, are_smooth, check_parts, color_atlas, read_image
from nimbusd.stages.types import U8, Material

# How many words follow an option of a `map_…` line; the file name is what remains.
_MAP_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-boost": 1, "-bm": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1,
    "-mm": 2, "-texres": 1, "-type": 1, "-o": 3, "-s": 3, "-t": 3,
}  # fmt: skip


@dataclass(slots=True)
class _Group:
    """Faces of one object or group. corners: per triangle three (v, vt, vn) triples, -1 where absent."""

    name: str
    corners: list[tuple[int, int, int]] = field(default_factory=list)
    materials: list[str] = field(default_factory=list)
    face_material: list[int] = field(default_factory=list)

    def material_index(self, name: str) -> int:
        if name not in self.materials:
            self.materials.append(name)
        return self.materials.index(name)


def read_obj(path: Path) -> list[MeshPart]:
    """The file's objects and groups, in order. Raises AssetError naming file and line for anything torn."""
    positions: list[tuple[float, ...]] = []
    texture_coords: list[tuple[float, ...]] = []
    normals: list[tuple[float, ...]] = []
    groups = [_Group(path.stem)]
    libraries: list[Path] = []
    material = ""
    for number, word, rest in _lines(path):
        try:
            if word == "v":
                positions.append(tuple(map(float, rest.split())))
                if len(positions[-1]) < 3:
                    raise ValueError("a vertex needs three numbers")
            elif word == "vt":
                texture_coords.append((*map(float, rest.split()[:2]), 0.0)[:2])
            elif word == "vn":
                normals.append(tuple(map(float, rest.split()[:3])))
                if len(normals[-1]) < 3:
                    raise ValueError("a normal needs three numbers")
            elif word == "f":
                counts = (len(positions), len(texture_coords), len(normals))
                _add_face(groups[-1], [_corner(text, counts) for text in rest.split()], material)
            elif word in ("o", "g") and rest:
                if groups[-1].corners:
                    groups.append(_Group(rest))
                else:
                    groups[-1].name = rest
            elif word == "usemtl":
                material = rest
            elif word == "mtllib":
                libraries.append(path.parent / rest.replace("\\", "/"))
        except ValueError as error:
            raise AssetError(
                f"mesh file {path}, line {number}: {word!r} cannot be read ({error}). "
                "The file is torn or not an OBJ file; export or copy it again."
            ) from error
    known = {name: made for library in libraries for name, made in read_mtl(library).items()}
    vertices = np.array([p[:3] for p in positions], np.float64).reshape(-1, 3)
    colors = np.array([p[3:6] for p in positions], np.float64) if _all_colored(positions) else None
    uv = np.array(texture_coords, np.float32).reshape(-1, 2)
    normal_array = np.array(normals, np.float32).reshape(-1, 3)
    parts = [_part(group, vertices, uv, normal_array, colors, known) for group in groups if group.corners]
    return check_parts(parts, path)


def obj_references(path: Path) -> list[Path]:
    """Material libraries that an .obj names, and the textures that those of them that exist name."""
    libraries = [path.parent / rest.replace("\\", "/") for _, word, rest in _lines(path) if word == "mtllib"]
    textures = [
        _map_path(rest, library)
        for library in libraries
        if library.is_file()
        for _, word, rest in _lines(library)
        if word == "map_Kd"
    ]
    return list(dict.fromkeys([*libraries, *textures]))


def read_mtl(path: Path) -> dict[str, Material]:
    """Materials by name. Raises AssetError for a missing library or texture."""
    if not path.is_file():
        raise AssetError(
            f"material library {path} is missing. Put it there, or remove the `mtllib` line that names it."
        )
    fields: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for _, word, rest in _lines(path):
        if word == "newmtl":
            current = fields.setdefault(rest, {})
        else:
            current[word] = rest
    textures: dict[Path, U8] = {}
    materials = {}
    for name, entry in fields.items():
        texture = None
        if "map_Kd" in entry:
            image = _map_path(entry["map_Kd"], path)
            if image not in textures:
                textures[image] = read_image(image, f"{image} (named by {path})")[0]
            texture = textures[image]
        try:
            materials[name] = _material(name, entry, texture)
        except ValueError as error:
            raise AssetError(f"material library {path}: material {name!r} cannot be read ({error}).") from error
    return materials


def _material(name: str, entry: dict[str, str], texture: U8 | None) -> Material:
    r, g, b = (float(x) for x in (entry.get("Kd", "0.8 0.8 0.8").split() * 3)[:3])
    glow = [float(x) for x in entry["Ke"].split()] if "Ke" in entry else [0.0]
    # Phong exponent to microfacet roughness: alpha² = 2 / (Ns + 2), roughness = sqrt(alpha) (Walter et al. 2007).
    shininess = max(float(entry.get("Ns", "10")), 0.0)
    roughness = float(entry.get("Pr", (2 / (shininess + 2)) ** 0.25))
    opacity = float(entry["d"].split()[-1]) if "d" in entry else 1 - float(entry.get("Tr", "0"))
    return Material(
        name,
        base_color=(1.0, 1.0, 1.0) if texture is not None else (r, g, b),
        texture=texture,
        roughness=float(np.clip(roughness, 0, 1)),
        metallic=float(np.clip(float(entry.get("Pm", "0")), 0, 1)),
        emission=max(glow),
        opacity=float(np.clip(opacity, 0, 1)),
    )


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, first word, rest) of every statement, continuation lines joined, comments left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise AssetError(f"mesh file {path} cannot be read: {error.strerror or error}.") from error
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        start = start if pending else number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        words = (pending + line).split(None, 1)
        pending = ""
        if words and not words[0].startswith("#"):
            yield start, words[0], words[1].strip() if len(words) > 1 else ""


def _map_path(rest: str, library: Path) -> Path:
    words = re.split(r"(\s+)", rest)
    while words and words[0] in _MAP_OPTIONS:
        words = words[2 + 2 * _MAP_OPTIONS[words[0]] :]
    return library.parent / "".join(words).strip().replace("\\", "/")


def _corner(text: str, counts: tuple[int, int, int]) -> tuple[int, int, int]:
    """Zero-based (v, vt, vn) of a corner such as `3/1/2` or `-1//-1`; -1 where a value is left out."""
    found = [-1, -1, -1]
    for slot, word in enumerate(text.split("/")[:3]):
        if word:
            index = int(word)
            found[slot] = index - 1 if index > 0 else counts[slot] + index
            if not 0 <= found[slot] < counts[slot]:
                raise ValueError(f"index {index} with {counts[slot]} entries before it")
    if found[0] < 0:
        raise ValueError("a corner without a vertex")
    return found[0], found[1], found[2]


def _add_face(group: _Group, corners: list[tuple[int, int, int]], material: str) -> None:
    if len(corners) < 3:
        raise ValueError("a face needs three corners")
    index = group.material_index(material)
    for k in range(1, len(corners) - 1):
        group.corners += (corners[0], corners[k], corners[k + 1])
        group.face_material.append(index)


def _all_colored(positions: list[tuple[float, ...]]) -> bool:
    return bool(positions) and all(len(p) >= 6 for p in positions)


def _part(
    group: _Group,
    positions: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    texture_coords: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    normals: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    colors: np.ndarray[tuple[int, int], np.dtype[np.float64]] | None,
    known: dict[str, Material],
) -> MeshPart:
    corners = np.array(group.corners, np.int64)
    # A vertex with two normals becomes two, so that shading keeps its sharp edges.
    pairs, flat = np.unique(corners[:, [0, 2]], axis=0, return_inverse=True)
    vertices = positions[pairs[:, 0]].astype(np.float32)
    faces = flat.reshape(-1, 3).astype(np.int32)
    has_uv = len(texture_coords) and (corners[:, 1] >= 0).all()
    uvs = texture_coords[corners[:, 1]].reshape(-1, 3, 2) if has_uv else None
    has_normals = bool(len(normals)) and bool((corners[:, 2] >= 0).all())
    smooth = has_normals and are_smooth(vertices, faces, normals[corners[:, 2]].reshape(-1, 3, 3))
    materials = tuple(known.get(name, Material(name or "default")) for name in group.materials)
    if colors is not None and all(material.texture is None for material in materials):
        face_rgb = colors[corners[:, 0]].reshape(-1, 3, 3).mean(axis=1)
        texture, uvs = color_atlas(np.rint(np.clip(face_rgb, 0, 1) * 255).astype(np.uint8))
        materials = (Material("vertex colors", (1.0, 1.0, 1.0), texture),)
        group.face_material = [0] * len(faces)
    return MeshPart(group.name, vertices, faces, materials, np.array(group.face_material, np.int32), uvs, smooth=smooth)
