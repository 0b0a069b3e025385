"""Mesh files (.obj, .gltf, .glb, .ply) as parts and as scene objects."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mend.recentre import part_near_origin
from nimbusd.stages.load.mesh.gltf.document import gltf_references, split_gltf
from nimbusd.stages.load.mesh.gltf.reader import read_gltf
from nimbusd.stages.load.mesh.gltf.support import check_bounds, check_extensions, gltf_warnings
from nimbusd.stages.load.mesh.part import Z_UP_FROM_Y_UP, MeshPart
from nimbusd.stages.load.mesh.ply.reader import ply_references, ply_warnings, read_ply
from nimbusd.stages.load.mesh.wavefront.reader import obj_references, obj_warnings, read_obj
from nimbusd.stages.types import F64, SceneObject

UpAxis = Literal["y", "z"]
MESH_SUFFIXES = (".obj", ".gltf", ".glb", ".ply")


def read_mesh_file(path: Path, *, plain: bool = False) -> list[MeshPart]:
    """Every part of the file with at least one triangle.

    plain: go on in grey where a material library of an .obj, or a picture that it or a .ply names, is missing.
    Raises AssetError for a missing, torn or empty file, and for one that needs what is not supported.
    """
    suffix = _known_suffix(path)
    if not path.is_file():
        raise AssetError(f"mesh file {path} is missing. Check the scene's `path`, or put the file there.")
    if suffix == ".obj":
        return read_obj(path, plain=plain)
    return read_ply(path, plain=plain) if suffix == ".ply" else read_gltf(path)


def referenced_files(path: Path, *, plain: bool = False) -> list[Path]:
    """The files that `path` names (buffers, material libraries, textures), whether they exist or not.

    plain: of those that `read_mesh_file` can do without, only the ones that exist.
    """
    suffix = _known_suffix(path)
    if not path.is_file():
        return []
    if suffix == ".obj":
        return obj_references(path, plain=plain)
    return ply_references(path, plain=plain) if suffix == ".ply" else gltf_references(path)


def mesh_file_warnings(path: Path, *, plain: bool = False) -> list[str]:
    """Parts of the file that `read_mesh_file` leaves out, a sentence each; empty for a file that is not there.

    Looks at headers and text only: nothing is decoded, and no module imported that does. Raises AssetError where
    those alone tell that reading would fail: a required extension, no faces, a missing library, positions that are
    not finite.
    """
    suffix = _known_suffix(path)
    if not path.is_file():
        return []
    if suffix == ".obj":
        return [f"mesh file {path}: {text}" for text in obj_warnings(path, plain=plain)]
    if suffix == ".ply":
        return [f"mesh file {path}: {text}" for text in ply_warnings(path, plain=plain)]
    document, _ = split_gltf(path)
    try:
        check_extensions(document, path)
        check_bounds(document, path)
        return [f"mesh file {path}: {text}" for text in gltf_warnings(document)]
    except (AttributeError, TypeError) as error:
        raise AssetError(
            f"mesh file {path} is torn: its JSON is not that of glTF ({error}). Export it again."
        ) from error


def default_up_axis(path: Path) -> UpAxis:
    """The glTF specification says y; .obj and .ply say nothing, and scans and robotics tools write z."""
    return "y" if path.suffix.lower() in (".gltf", ".glb") else "z"


def part_to_object(
    part: MeshPart,
    T_world_file: F64,
    *,
    name: str,
    category: str,
    instance_id: int,
    movable: bool = False,
    unit_m: float = 1.0,
    up_axis: UpAxis = "z",
) -> SceneObject:
    """The part in metres and z up, its scale (and mirroring) in the vertices, its pose in T_world_object.

    T_world_file: (4, 4) rigid, from the file's frame after units and axes to the world.
    The object's origin is the middle of its lowest face's box, so that a yaw turns it in place.
    """
    T_up = Z_UP_FROM_Y_UP if up_axis == "y" else np.eye(4)
    T = T_world_file @ T_up @ np.diag([unit_m, unit_m, unit_m, 1.0]) @ part.T_file_part
    rotation = _rotation_of(T_world_file)
    shape = part.vertices.astype(np.float64) @ (rotation.T @ T[:3, :3]).T
    low, high = shape.min(axis=0), shape.max(axis=0)
    origin = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    T_world_object = np.eye(4)
    T_world_object[:3, :3] = rotation
    T_world_object[:3, 3] = T[:3, 3] + rotation @ origin
    mirrored = np.linalg.det(T[:3, :3]) < 0
    return SceneObject(
        name=name,
        category=category,
        instance_id=instance_id,
        vertices=np.ascontiguousarray(shape - origin, dtype=np.float32),
        faces=np.ascontiguousarray(part.faces[:, ::-1]) if mirrored else part.faces,
        materials=part.materials,
        face_material=part.face_material,
        uvs=np.ascontiguousarray(part.uvs[:, ::-1]) if mirrored and part.uvs is not None else part.uvs,
        T_world_object=T_world_object,
        smooth=part.smooth,
        movable=movable,
    )


def join_parts(name: str, parts: list[MeshPart]) -> MeshPart:
    """All parts as one, in the file's frame; corners without texture coordinates get zeros beside ones with."""
    vertices = [p.vertices @ p.T_file_part[:3, :3].T + p.T_file_part[:3, 3] for p in parts]
    first_vertex = np.cumsum([0] + [len(p.vertices) for p in parts])
    first_material = np.cumsum([0] + [len(p.materials) for p in parts])
    uvs = [p.uvs if p.uvs is not None else np.zeros((len(p.faces), 3, 2), np.float32) for p in parts]
    joined, T_file_part = part_near_origin(np.concatenate(vertices).astype(np.float64))
    return MeshPart(
        name,
        joined,
        np.concatenate([p.faces + np.int32(k) for p, k in zip(parts, first_vertex, strict=False)]),
        tuple(material for p in parts for material in p.materials),
        np.concatenate([p.face_material + np.int32(k) for p, k in zip(parts, first_material, strict=False)]),
        np.concatenate(uvs) if any(p.uvs is not None for p in parts) else None,
        T_file_part,
        smooth=any(p.smooth for p in parts),
    )


def unique_names(names: list[str]) -> list[str]:
    """The names in order, later ones of the same name numbered from 2."""
    taken: set[str] = set()
    last: dict[str, int] = {}
    unique = []
    for name in names:
        candidate = name
        while candidate in taken:
            last[name] = last.get(name, 1) + 1
            candidate = f"{name} {last[name]}"
        taken.add(candidate)
        unique.append(candidate)
    return unique


def _rotation_of(T: F64) -> F64:
    rotation: F64 = T[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6), "T_world_file must be rigid"
    return rotation


def _known_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise AssetError(
            f"mesh file {path}: {suffix or 'a name without extension'} is not supported. "
            f"Convert it to one of {', '.join(MESH_SUFFIXES)}."
        )
    return suffix
