"""Mesh files (.obj, .gltf, .glb, .ply) as parts and as scene objects."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.gltf import gltf_references, read_gltf
from nimbusd.stages.load.mesh_part import MeshPart, check_parts, color_atlas
from nimbusd.stages.load.wavefront import obj_references, read_obj
from nimbusd.stages.types import F64, Material, SceneObject

UpAxis = Literal["y", "z"]
MESH_SUFFIXES = (".obj", ".gltf", ".glb", ".ply")

Z_UP_FROM_Y_UP: F64 = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)
"""(x, y, z) with y up → (x, -z, y) with z up."""


def read_mesh_file(path: Path) -> list[MeshPart]:
    """Every part of the file with at least one triangle. Raises AssetError for a missing, torn or empty file."""
    suffix = _known_suffix(path)
    if not path.is_file():
        raise AssetError(f"mesh file {path} is missing. Check the scene's `path`, or put the file there.")
    if suffix == ".obj":
        return read_obj(path)
    if suffix == ".ply":
        return _read_ply(path)
    return read_gltf(path)


def referenced_files(path: Path) -> list[Path]:
    """The files that `path` names (buffers, material libraries, textures), whether they exist or not."""
    suffix = _known_suffix(path)
    if not path.is_file() or suffix == ".ply":
        return []
    return obj_references(path) if suffix == ".obj" else gltf_references(path)


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
    return MeshPart(
        name,
        np.concatenate(vertices).astype(np.float32),
        np.concatenate([p.faces + np.int32(k) for p, k in zip(parts, first_vertex, strict=False)]),
        tuple(material for p in parts for material in p.materials),
        np.concatenate([p.face_material + np.int32(k) for p, k in zip(parts, first_material, strict=False)]),
        np.concatenate(uvs) if any(p.uvs is not None for p in parts) else None,
        smooth=any(p.smooth for p in parts),
    )


def unique_names(names: list[str]) -> list[str]:
    """The names in order, later ones of the same name numbered from 2."""
    taken: set[str] = set()
    unique = []
    for name in names:
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name} {number}", number + 1
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


def _read_ply(path: Path) -> list[MeshPart]:
    import trimesh
    from trimesh.visual import ColorVisuals

    try:
        mesh = trimesh.load_mesh(path, file_type="ply", process=False)
    except (ValueError, KeyError, IndexError, TypeError, OSError, NotImplementedError, EOFError) as error:
        raise AssetError(f"mesh file {path} is torn or not a PLY file ({error}). Export or copy it again.") from error
    vertices = np.asarray(mesh.vertices, np.float32).reshape(-1, 3)
    faces = np.asarray(mesh.faces, np.int32).reshape(-1, 3)
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise AssetError(
            f"mesh file {path} is torn: a face names vertex {faces.max()} of {len(vertices)}. Copy it again."
        )
    material, uvs = Material(path.stem), None
    visual = mesh.visual
    if len(faces) and isinstance(visual, ColorVisuals) and visual.kind in ("vertex", "face"):
        texture, uvs = color_atlas(np.asarray(visual.face_colors, np.uint8)[:, :3])
        material = Material("vertex colors", (1.0, 1.0, 1.0), texture)
    part = MeshPart(path.stem, vertices, faces, (material,), np.zeros(len(faces), np.int32), uvs)
    return check_parts([part], path)
