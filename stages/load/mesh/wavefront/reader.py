"""Wavefront .obj: one part per object or group, polygons of any shape, texture coordinates per face corner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mend.recentre import part_near_origin
from nimbusd.stages.load.mesh.cutouts import cut_out
from nimbusd.stages.load.mesh.part import MeshPart, are_smooth, check_parts, linear_values
from nimbusd.stages.load.mesh.polygons import triangulate_polygons
from nimbusd.stages.load.mesh.surface import Surface, colored, joined, wrapped
from nimbusd.stages.load.mesh.wavefront.mtl import MtlLook, missing_library, mtl_warnings, read_mtl, texture_paths
from nimbusd.stages.load.mesh.wavefront.text import libraries, statements
from nimbusd.stages.types import F32, F64, Material

_CURVES = ("curv", "curv2", "surf", "bmat", "cstype")
_STROKES = ("l", "p")
_SHOWN_NAMES = 5


@dataclass(slots=True)
class _Group:
    """Faces of one object or group.

    corners: (v, vt, vn) of all faces' corners, -1 where absent. For each face: how many corners it has, its material,
    its smoothing group (0 for none), and its line in the file.
    """

    name: str
    corners: list[tuple[int, int, int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    materials: dict[str, int] = field(default_factory=dict)
    face_material: list[int] = field(default_factory=list)
    face_smoothing: list[int] = field(default_factory=list)
    face_line: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Text:
    """The statements of an .obj, in its order."""

    positions: list[tuple[float, ...]] = field(default_factory=list)
    texture_coords: list[tuple[float, ...]] = field(default_factory=list)
    normals: list[tuple[float, ...]] = field(default_factory=list)
    groups: list[_Group] = field(default_factory=list)
    libraries: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Arrays:
    """positions (V, 3), texture_coords (T, 2), normals (N, 3), colors (V, 3) linear or None."""

    positions: F64
    texture_coords: F32
    normals: F32
    colors: F32 | None


def read_obj(path: Path, *, plain: bool = False) -> list[MeshPart]:
    """The file's objects and groups, in order.

    plain: go on in grey where a material library or a picture is missing.
    Raises AssetError naming file and line for anything torn, or what is missing.
    """
    text = _parse(path)
    looks = {name: look for library in text.libraries for name, look in read_mtl(library, plain=plain).items()}
    arrays = _Arrays(
        np.array([p[:3] for p in text.positions], np.float64).reshape(-1, 3),
        np.array(text.texture_coords, np.float32).reshape(-1, 2),
        np.array(text.normals, np.float32).reshape(-1, 3),
        _colors(text.positions),
    )
    groups = [group for group in text.groups if group.sizes]
    return check_parts([_part(group, _corners(group, arrays, path), arrays, looks) for group in groups], path)


def obj_references(path: Path, *, plain: bool = False) -> list[Path]:
    """Material libraries that an .obj names, and the textures that those of them that exist name.

    plain: only those that exist, as the others are done without.
    """
    named = [
        library for _, word, rest in statements(path) if word == "mtllib" for library in libraries(rest, path.parent)
    ]
    textures = [texture for library in named if library.is_file() for texture in texture_paths(library)]
    found = list(dict.fromkeys([*named, *textures]))
    return [file for file in found if file.is_file()] if plain else found


def obj_warnings(path: Path, *, plain: bool = False) -> list[str]:
    """A sentence for each kind of thing in the file and its libraries that is left out, or does not fit together.

    Raises AssetError for a missing library.
    """
    warnings: list[str] = []
    counts: dict[str, int] = {}
    not_finite: int | None = None
    used: dict[str, None] = {}
    defined: set[str] = set()
    for number, word, rest in statements(path):
        if word == "mtllib":
            for library in libraries(rest, path.parent):
                if library.is_file():
                    warnings += mtl_warnings(library)
                    defined |= {name for _, first, name in statements(library) if first == "newmtl"}
                elif plain:
                    warnings.append(f"material library {library} is missing: its materials are plain grey")
                else:
                    raise missing_library(library)
        elif word == "v" and not_finite is None and _is_not_finite(rest):
            not_finite = number
        elif word == "usemtl":
            used[rest] = None
        elif word in _CURVES or word in _STROKES:
            counts[word] = counts.get(word, 0) + 1
    if not_finite is not None:
        warnings.append(f"line {not_finite}: a vertex is not made of finite numbers: its faces will be refused")
    unknown = [name for name in used if name not in defined]
    if unknown and not plain:
        names = ", ".join(map(repr, unknown[:_SHOWN_NAMES])) + (" …" if len(unknown) > _SHOWN_NAMES else "")
        warnings.append(f"no material library defines {names}: their faces are plain grey")
    strokes = sum(counts.get(word, 0) for word in _STROKES)
    curves = sum(counts.get(word, 0) for word in _CURVES)
    if strokes:
        warnings.append(f"{strokes} points and lines have no surface: they are left out")
    if curves:
        warnings.append(f"{curves} statements of curves and free-form surfaces are left out: export polygons instead")
    return warnings


def _is_not_finite(vertex: str) -> bool:
    """True where nan or inf stand for a coordinate; words that are no numbers at all are the reader's matter."""
    return any("n" in word for word in vertex.lower().split()[:3])


def _parse(path: Path) -> _Text:
    text = _Text(groups=[_Group(path.stem)])
    material, smoothing = "", 0
    for number, word, rest in statements(path):
        try:
            if word == "v":
                text.positions.append(tuple(map(float, rest.split())))
                if len(text.positions[-1]) < 3:
                    raise ValueError("a vertex needs three numbers")
            elif word == "vt":
                text.texture_coords.append((*map(float, rest.split()[:2]), 0.0)[:2])
                if len(text.texture_coords[-1]) < 2:
                    raise ValueError("a texture coordinate needs a number")
            elif word == "vn":
                text.normals.append(tuple(map(float, rest.split()[:3])))
                if len(text.normals[-1]) < 3:
                    raise ValueError("a normal needs three numbers")
            elif word in ("f", "fo"):
                counts = (len(text.positions), len(text.texture_coords), len(text.normals))
                _add_face(text.groups[-1], [_corner(words, counts) for words in rest.split()], material, smoothing)
                text.groups[-1].face_line.append(number)
            elif word in ("o", "g") and rest:
                if text.groups[-1].sizes:
                    text.groups.append(_Group(rest))
                else:
                    text.groups[-1].name = rest
            elif word == "usemtl":
                material = rest
            elif word == "s":
                smoothing = 0 if rest in ("", "off") else int(rest)
            elif word == "mtllib":
                text.libraries += libraries(rest, path.parent)
        except ValueError as error:
            raise AssetError(
                f"mesh file {path}, line {number}: {word!r} cannot be read ({error}). "
                "The file is torn or not an OBJ file; export or copy it again."
            ) from error
    return text


def _corner(text: str, counts: tuple[int, int, int]) -> tuple[int, int, int]:
    """Zero-based (v, vt, vn) of a corner such as `3/1/2` or `-1//-1`; -1 where a value is left out.

    counts: of what the file has so far, which negative indices count back from. Others may name what comes later.
    """
    found = [-1, -1, -1]
    for slot, word in enumerate(text.split("/")[:3]):
        if word:
            index = int(word)
            found[slot] = index - 1 if index > 0 else counts[slot] + index
            if not index or found[slot] < 0:
                raise ValueError(f"index {index} with {counts[slot]} entries before it")
    if found[0] < 0:
        raise ValueError("a corner without a vertex")
    return found[0], found[1], found[2]


def _corners(group: _Group, arrays: _Arrays, path: Path) -> npt.NDArray[np.int64]:
    """(C, 3) of all faces' corners: v, vt and vn, -1 where absent, or where the file has none of them at all.

    Raises AssetError with the line of a face that names what the file does not have.
    """
    counts = (len(arrays.positions), len(arrays.texture_coords), len(arrays.normals))
    corners = np.array(group.corners, np.int64)
    for slot in (1, 2):
        if not counts[slot]:
            corners[:, slot] = -1
    outside = np.flatnonzero((corners >= counts).any(axis=1))
    if len(outside):
        face = int(np.searchsorted(np.cumsum(group.sizes), outside[0], side="right"))
        slot = int(np.argmax(corners[outside[0]] >= counts))
        raise AssetError(
            f"mesh file {path}, line {group.face_line[face]}: 'f' cannot be read (index "
            f"{corners[outside[0], slot] + 1} with {counts[slot]} entries of that kind). "
            "The file is torn or not an OBJ file; export or copy it again."
        )
    return corners


def _add_face(group: _Group, corners: list[tuple[int, int, int]], material: str, smoothing: int) -> None:
    if len(corners) < 3:
        raise ValueError("a face needs three corners")
    group.corners += corners
    group.sizes.append(len(corners))
    group.face_material.append(group.materials.setdefault(material, len(group.materials)))
    group.face_smoothing.append(smoothing)


def _colors(positions: list[tuple[float, ...]]) -> F32 | None:
    """(V, 3) linear colours behind the positions, which are sRGB; None unless every vertex has one."""
    if not positions or any(len(p) < 6 for p in positions):
        return None
    return linear_values(np.array([p[3:6] for p in positions], np.float64)).astype(np.float32)


def _part(group: _Group, polygons: npt.NDArray[np.int64], arrays: _Arrays, looks: dict[str, MtlLook]) -> MeshPart:
    triangles, owner = triangulate_polygons(arrays.positions[polygons[:, 0]], np.array(group.sizes))
    corners = polygons[triangles].reshape(-1, 3)
    smoothing = np.array(group.face_smoothing, np.int64)[owner]
    has_normals = bool((corners[:, 2] >= 0).all())
    # A vertex with two normals, or of two smoothing groups, becomes two, so that shading keeps its sharp edges.
    pairs, flat = np.unique(_shading_keys(corners, owner, smoothing), axis=0, return_inverse=True)
    vertices, T_file_part = part_near_origin(arrays.positions[pairs[:, 0]])
    faces = flat.reshape(-1, 3).astype(np.int32)
    smooth = bool(smoothing.any())
    if has_normals:
        smooth = are_smooth(vertices, faces, arrays.normals[corners[:, 2]].reshape(-1, 3, 3))
    uvs = None
    if (corners[:, 1] >= 0).any():
        known = np.concatenate([arrays.texture_coords, np.zeros((1, 2), np.float32)])  # -1: a corner without one
        uvs = known[corners[:, 1]].reshape(-1, 3, 2)
    used = [looks.get(name, MtlLook(Material(name or "default"))) for name in group.materials]
    materials = tuple(look.material for look in used)
    surface = Surface(vertices, faces, uvs, materials, np.array(group.face_material, np.int32)[owner], smooth)
    colors = None if arrays.colors is None else arrays.colors[corners[:, 0]].reshape(-1, 3, 3)
    surface, used = _placed(surface, used)
    return joined(group.name, list(_dressed(surface, used, colors)), T_file_part)


def _shading_keys(
    corners: npt.NDArray[np.int64], owner: npt.NDArray[np.int64], smoothing: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(C, 2) position and what else has to be equal for corners to share a vertex."""
    if not smoothing.any():
        return corners[:, [0, 2]]
    by_group = np.repeat(np.where(smoothing > 0, -1 - smoothing, -(2**40) - owner), 3)
    return np.column_stack([corners[:, 0], np.where(corners[:, 2] >= 0, corners[:, 2], by_group)])


def _placed(surface: Surface, looks: list[MtlLook]) -> tuple[Surface, list[MtlLook]]:
    """The surface with its texture coordinates as the options of its pictures shift, scale and clamp them."""
    if surface.uvs is None:
        return surface, looks
    uvs, placed = surface.uvs.copy(), list(looks)
    for number, look in enumerate(looks):
        mine = surface.face_material == number
        uvs[mine] = given = uvs[mine] * look.scale + look.shift
        if not look.clamps or not mine.any():
            continue
        if look.material.texture is not None:
            texture, uvs[mine] = wrapped(look.material.texture, given, ("clamp", "clamp"))
            placed[number] = replace(placed[number], material=replace(look.material, texture=texture))
        if look.solid is not None:
            solid, uvs[mine] = wrapped(look.solid.astype(np.uint8), given, ("clamp", "clamp"))
            placed[number] = replace(placed[number], solid=solid.astype(np.bool_))
    return replace(surface, uvs=uvs, materials=tuple(look.material for look in placed)), placed


def _dressed(surface: Surface, looks: list[MtlLook], colors: F32 | None) -> Iterator[Surface]:
    """The surface with its vertices' colours, and what has holes apart with them cut."""
    rest = np.ones(len(surface.faces), bool)
    for number, look in enumerate(looks):
        mine = surface.face_material == number
        if look.solid is not None and surface.uvs is not None and mine.any():
            rest &= ~mine
            yield cut_out(_colored(_of_faces(surface, mine), colors, mine), look.solid, surface.uvs[mine])
    if rest.any():
        yield _colored(_of_faces(surface, rest), colors, rest)


def _of_faces(surface: Surface, mine: npt.NDArray[np.bool_]) -> Surface:
    """The chosen faces, with the materials and vertices that they use."""
    if mine.all():
        return surface
    used, face_material = np.unique(surface.face_material[mine], return_inverse=True)
    points, faces = np.unique(surface.faces[mine], return_inverse=True)
    return replace(
        surface,
        vertices=surface.vertices[points],
        faces=faces.reshape(-1, 3).astype(np.int32),
        uvs=None if surface.uvs is None else surface.uvs[mine],
        materials=tuple(surface.materials[number] for number in used),
        face_material=face_material.ravel().astype(np.int32),
    )


def _colored(surface: Surface, colors: F32 | None, mine: npt.NDArray[np.bool_]) -> Surface:
    """The surface with the colours of its vertices, which stand for Kd as a picture does, and tint pictures."""
    if colors is None:
        return surface
    white = tuple(m if m.texture is not None else replace(m, base_color=(1.0, 1.0, 1.0)) for m in surface.materials)
    return colored(replace(surface, materials=white), colors[mine])
