"""PLY meshes: polygons of any shape, triangle strips, colours of vertices or faces, textures of scanners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mend.recentre import part_near_origin
from nimbusd.stages.load.mesh.part import MeshPart, are_smooth, check_parts, linear_values, read_image
from nimbusd.stages.load.mesh.ply.tables import Lists, PlyHeader, Table, read_ply_header, read_ply_tables
from nimbusd.stages.load.mesh.polygons import triangulate_polygons
from nimbusd.stages.load.mesh.surface import Surface, colored, joined
from nimbusd.stages.types import F32, U8, Material

_KIND = "mesh file"
_INDICES = ("vertex_indices", "vertex_index")
_COLORS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_COORDINATES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))
_TEXTURE = "TextureFile"


def read_ply(path: Path, *, plain: bool = False) -> list[MeshPart]:
    """The file's surface as one part.

    plain: go on without pictures that are missing. Raises AssetError for what is missing, torn, or has no faces.
    """
    content = _content(path)
    header = read_ply_header(content, path, _KIND)
    tables = read_ply_tables(content, header, path, _KIND)
    vertex = tables.get("vertex")
    if vertex is None or not {"x", "y", "z"} <= set(vertex.columns):
        raise AssetError(f"mesh file {path} has no element `vertex` with x, y and z. Export it again as a mesh.")
    points = np.stack([vertex.columns[axis] for axis in "xyz"], axis=1).astype(np.float64)
    face = tables.get("face")
    polygons = _polygons(face, tables.get("tristrips"), path)
    if polygons.values.size and not (polygons.values.min() >= 0 and polygons.values.max() < len(points)):
        worst = polygons.values.min() if polygons.values.min() < 0 else polygons.values.max()
        raise AssetError(f"mesh file {path} is torn: a face names vertex {worst} of {len(points)}. Copy it again.")
    corners, owner = triangulate_polygons(points[polygons.values], polygons.counts)
    faces = polygons.values[corners].astype(np.int32).reshape(-1, 3)
    vertices, T_file_part = part_near_origin(points)
    smooth = {"nx", "ny", "nz"} <= set(vertex.columns) and are_smooth(
        vertices, faces, np.stack([vertex.columns[axis] for axis in ("nx", "ny", "nz")], 1).astype(np.float32)[faces]
    )
    uvs = _coordinates(vertex, face, polygons, corners, faces)
    pictures = [] if uvs is None else _pictures(path, header, plain=plain)
    materials = tuple(Material(path.stem, (1.0, 1.0, 1.0), picture) for picture in pictures) or (Material(path.stem),)
    number = np.zeros(len(faces), np.int64)
    if face is not None and "texnumber" in face.columns and len(owner) and not tables.get("tristrips"):
        number = np.clip(face.columns["texnumber"].astype(np.int64)[owner], 0, len(materials) - 1)
    surface = Surface(vertices, faces, uvs if pictures else None, materials, number.astype(np.int32), smooth)
    colors = _corner_colors(vertex, face, faces, owner)
    if colors is not None and not pictures:
        white = replace(surface.materials[0], name="vertex colors", base_color=(1.0, 1.0, 1.0))
        surface = colored(replace(surface, materials=(white,)), colors)
    return check_parts([joined(path.stem, [surface], T_file_part)], path)


def ply_references(path: Path, *, plain: bool = False) -> list[Path]:
    """The pictures that the header names. plain: only those that exist, as the others are done without."""
    named = _named_pictures(path, read_ply_header(_content(path), path, _KIND))
    return [file for file in named if file.is_file()] if plain else named


def ply_warnings(path: Path, *, plain: bool = False) -> list[str]:
    """A sentence for each thing that is left out. Raises AssetError for a header without faces."""
    header = read_ply_header(_content(path), path, _KIND)
    counts = {element.name: element.count for element in header.elements}
    if not counts.get("face") and not counts.get("tristrips"):
        raise AssetError(f"mesh file {path} is empty: it has no triangles. Export it again with its surfaces.")
    pictures = _named_pictures(path, header)
    missing = [file for file in pictures if not file.is_file()] if plain else []
    warnings = [f"texture {file} is missing: its surfaces are shown without" for file in missing]
    names = {prop.name for element in header.elements for prop in element.properties}
    if len(missing) < len(pictures) and any(set(three) <= names for three in _COLORS):
        warnings.append("colours of vertices or faces beside textures are left out")
    return warnings


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AssetError(f"mesh file {path} cannot be read: {error.strerror or error}.") from error


def _polygons(face: Table | None, strips: Table | None, path: Path) -> Lists:
    """Corners of all faces, then of all triangles in strips, where -1 starts a new one. Rows of no corners are none."""
    found: list[Lists] = []
    for table, name in ((face, "face"), (strips, "tristrips")):
        if table is None or not table.count:
            continue
        column = next((table.lists[key] for key in _INDICES if key in table.lists), None)
        if column is None:
            raise AssetError(f"mesh file {path}: element `{name}` has no list `vertex_indices`. Export it again.")
        found.append(column if name == "face" else _strip_triangles(column))
    if not found:
        return Lists(np.zeros(0, np.int64), np.zeros(0, np.int64))
    counts = np.concatenate([column.counts for column in found])
    if len(counts) and counts.min() < 3:
        raise AssetError(f"mesh file {path} is torn: face {int(counts.argmin())} has {counts.min()} corners.")
    return Lists(counts, np.concatenate([column.values.astype(np.int64) for column in found]))


def _strip_triangles(strips: Lists) -> Lists:
    triangles: list[npt.NDArray[np.int64]] = []
    ends = np.cumsum(strips.counts)
    for start, end in zip(ends - strips.counts, ends, strict=True):
        values = strips.values[start:end].astype(np.int64)
        for run in np.split(values, np.flatnonzero(values == -1)):
            run = run[run != -1]
            if len(run) < 3:
                continue
            made = np.stack([run[:-2], run[1:-1], run[2:]], axis=1)
            made[1::2] = made[1::2][:, [1, 0, 2]]
            triangles.append(made[(made[:, 0] != made[:, 1]) & (made[:, 1] != made[:, 2]) & (made[:, 0] != made[:, 2])])
    values = np.concatenate([t.ravel() for t in triangles]) if triangles else np.zeros(0, np.int64)
    return Lists(np.full(len(values) // 3, 3, np.int64), values)


def _coordinates(
    vertex: Table, face: Table | None, polygons: Lists, corners: npt.NDArray[np.int64], faces: npt.NDArray[np.int32]
) -> F32 | None:
    """(F, 3, 2), v upwards: of the faces' corners, or else of the vertices; None where neither has any."""
    per_corner = None if face is None else face.lists.get("texcoord")
    if per_corner is not None and (per_corner.counts == 2 * polygons.counts[: len(per_corner.counts)]).all():
        values = per_corner.values.astype(np.float32).reshape(-1, 2)
        if len(values) == len(polygons.values):
            return np.asarray(values[corners])
    names = next((pair for pair in _COORDINATES if set(pair) <= set(vertex.columns)), None)
    if names is None:
        return None
    return np.asarray(np.stack([vertex.columns[name] for name in names], axis=1).astype(np.float32)[faces])


def _named_pictures(path: Path, header: PlyHeader) -> list[Path]:
    words = [comment.split(None, 1) for comment in header.comments]
    return [path.parent / pair[1].strip() for pair in words if len(pair) == 2 and pair[0] == _TEXTURE]


def _pictures(path: Path, header: PlyHeader, *, plain: bool) -> list[U8]:
    files = [file for file in _named_pictures(path, header) if file.is_file() or not plain]
    return [read_image(file, f"{file} (named by {path})")[0] for file in files]


def _corner_colors(
    vertex: Table, face: Table | None, faces: npt.NDArray[np.int32], owner: npt.NDArray[np.int64]
) -> F32 | None:
    """(F, 3, 3) linear colours of corners: the vertices', or else the faces'; None where neither has any."""
    found = _rgb(vertex)
    if found is not None:
        return np.asarray(found[faces])
    found = None if face is None or (len(owner) and owner.max() >= face.count) else _rgb(face)
    return None if found is None else np.repeat(found[owner][:, None], 3, axis=1)


def _rgb(table: Table) -> F32 | None:
    names = next((three for three in _COLORS if set(three) <= set(table.columns)), None)
    if names is None:
        return None
    return np.asarray(linear_values(np.stack([_unit(table.columns[n]) for n in names], axis=1)), np.float32)


def _unit(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Integers of any width as 0…1; floats as they are."""
    top = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
    return values.astype(np.float64) / top
