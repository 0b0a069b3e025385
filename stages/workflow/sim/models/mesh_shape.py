"""Mesh files of objects, as MuJoCo gets them: what each kind of file holds, in metres, z up, origin in the middle.

.obj, .glb, .gltf and .ply are read by our own loaders, with their materials; .stl and .msh by MuJoCo itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh.part import MeshPart
from nimbusd.stages.types import F32, F64, I32, U8, Material, Rgb
from nimbusd.stages.workflow.sim.models.assets import file_of
from nimbusd.stages.workflow.sim.models.mesh_coarse import coarse_mesh
from nimbusd.stages.workflow.sim.models.mesh_facing import turned_faces
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco

Up: TypeAlias = Literal["", "y", "z"]
MESH_SUFFIXES = (".obj", ".glb", ".gltf", ".ply", ".stl", ".msh")
_LEAST_M, _MOST_M = 0.002, 3.0


@dataclass(frozen=True)
class MeshShape:
    """A mesh of a file, in metres, z up.

    centre: middle of its bounding box in the file's frame, the origin of what follows. size_m: edges of that box.
    vertices: (V, 3). faces: (F, 3), counter-clockwise from outside; turned: those of the file are not.
    coarse: vertices and faces for planning and collision, where the mesh has more than these need (`mesh_coarse`).
    uvs: (F, 3, 2) with v upwards, and picture: (H, W, 3) sRGB, where the file has a look of its own.
    """

    centre: F64
    size_m: F64
    vertices: F64
    faces: I32
    uvs: F32 | None = None
    picture: U8 | None = None
    turned: bool = False
    coarse: tuple[F64, I32] | None = None


@cache
def mesh_shape(reference: str, unit_m: float, up: Up = "") -> MeshShape:
    """The geometry of a mesh file. Raises AssetError where it cannot be read, or has the size of no object."""
    path = file_of(reference)
    read = _read_by_mujoco if _is_read_by_mujoco(path) else _read
    shape = read(path, unit_m, up)
    largest = float(shape.size_m.max())
    if not _LEAST_M < largest < _MOST_M:
        raise AssetError(f"object file {path} is {largest:.4g} m large with unit_m {unit_m:g}; is that its unit?")
    return shape


def add_mesh(spec: Any, name: str, reference: str, unit_m: float, up: Up, scale: float) -> F64:
    """Add the mesh to a specification. Returns where its geoms stand in the object's frame, (3,).

    MuJoCo makes its hull only where there is no coarse mesh, whose hull `add_hull` adds.
    """
    mujoco = import_mujoco()

    shape, path = mesh_shape(reference, unit_m, up), file_of(reference)
    if _is_read_by_mujoco(path) and up != "y" and not shape.turned:
        spec.add_mesh(name=name, file=path, scale=[unit_m * scale] * 3)
        return np.asarray(-shape.centre * scale)
    more: dict[str, Any] = {}
    if shape.uvs is not None:
        flat = shape.uvs.reshape(-1, 2)
        more["usertexcoord"] = np.column_stack([flat[:, 0], 1 - flat[:, 1]]).ravel().tolist()  # MuJoCo's v is downwards
        more["userfacetexcoord"] = list(range(len(flat)))
    mesh = spec.add_mesh(
        name=name, uservert=(shape.vertices * scale).ravel().tolist(), userface=shape.faces.ravel().tolist(), **more
    )
    kinds = mujoco.mjtMeshInertia  # scans have holes; the hull of many triangles takes long
    mesh.inertia = kinds.mjMESH_INERTIA_CONVEX if shape.coarse is None else kinds.mjMESH_INERTIA_SHELL
    return np.zeros(3)


def add_hull(spec: Any, name: str, points: F64) -> None:
    """Add the convex hull of points, (N, 3) in the object's frame, to collide with."""
    import mujoco

    mesh = spec.add_mesh(name=name, uservert=points.ravel().tolist())
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX


def _is_read_by_mujoco(path: str) -> bool:
    return Path(path).suffix.lower() in (".stl", ".msh")


def _read(path: str, unit_m: float, up: Up) -> MeshShape:
    from nimbusd.stages.load.mend.recentre import check_part_resolution
    from nimbusd.stages.load.mesh.files import default_up_axis, join_parts, read_mesh_file
    from nimbusd.stages.load.mesh.part import Z_UP_FROM_Y_UP

    part = join_parts(Path(path).stem, read_mesh_file(Path(path)))
    check_part_resolution(part, unit_m, f"object file {path}")
    points = (part.vertices.astype(np.float64) @ part.T_file_part[:3, :3].T + part.T_file_part[:3, 3]) * unit_m
    if (up or default_up_axis(Path(path))) == "y":
        points = points @ Z_UP_FROM_Y_UP[:3, :3].T
    shape = _centred(points, part.faces, *_look(part))
    _check_hull(path, *(shape.coarse or (shape.vertices, shape.faces)))
    return shape


def _look(part: MeshPart) -> tuple[F32 | None, U8 | None]:
    """Texture coordinates and picture of a part: its texture, or one texel for each face where it has several."""
    from nimbusd.stages.load.mesh.part import color_atlas, srgb_bytes

    if len(part.materials) == 1 and part.materials[0].texture is not None and part.uvs is not None:
        return part.uvs, _tinted(part.materials[0].texture, part.materials[0].base_color)
    if part.materials == (Material(part.materials[0].name),):
        return None, None  # nothing but the default
    colors = np.empty((len(part.faces), 3), np.uint8)
    for number, material in enumerate(part.materials):
        mine = part.face_material == number
        colors[mine] = srgb_bytes(material.base_color)
        if material.texture is not None and part.uvs is not None:
            height, width = material.texture.shape[:2]
            middle = part.uvs[mine].mean(axis=1) % 1.0
            row, column = ((1 - middle[:, 1]) * height).astype(int), (middle[:, 0] * width).astype(int)
            texels = material.texture[np.minimum(row, height - 1), np.minimum(column, width - 1)]
            colors[mine] = _tinted(texels, material.base_color)
    picture, uvs = color_atlas(colors)
    return uvs, picture


def _tinted(srgb: U8, base_color: Rgb) -> U8:
    """Colours (..., 3) of a texture, multiplied by a linear colour."""
    from nimbusd.stages.load.mesh.part import linear_values, srgb_bytes

    return srgb if base_color == (1.0, 1.0, 1.0) else srgb_bytes(linear_values(srgb / 255) * base_color)


def _read_by_mujoco(path: str, unit_m: float, up: Up) -> MeshShape:
    mujoco = import_mujoco()

    spec = mujoco.MjSpec()
    spec.add_mesh(name="mesh", file=path, scale=[unit_m] * 3)
    model = _compiled(spec, path)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    # MuJoCo moves a mesh to its inertial frame; the geom's pose takes it back to the file's.
    points = model.mesh_vert @ data.geom_xmat[0].reshape(3, 3).T + data.geom_xpos[0]
    if up == "y":
        points = np.column_stack([points[:, 0], -points[:, 2], points[:, 1]])
    uvs = None
    if model.mesh_texcoordnum[0]:
        uvs = model.mesh_texcoord[model.mesh_facetexcoord]
        uvs = np.stack([uvs[..., 0], 1 - uvs[..., 1]], axis=-1)  # MuJoCo's v is downwards
    return _centred(points, model.mesh_face.astype(np.int32), uvs)


def _check_hull(path: str, points: F64, faces: I32) -> None:
    """Raises AssetError for a mesh around which there is no hull."""
    mujoco = import_mujoco()

    spec = mujoco.MjSpec()
    mesh = spec.add_mesh(name="mesh", uservert=points.ravel().tolist(), userface=faces.ravel().tolist())
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    _compiled(spec, path)


def _compiled(spec: Any, path: str) -> Any:
    mujoco = import_mujoco()

    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="mesh")
    try:
        return spec.compile()
    except ValueError as error:
        words = " ".join(str(error).split())
        raise AssetError(f"object file {path} cannot be used as an object: {words}") from error


def _centred(points: F64, faces: I32, uvs: F32 | None = None, picture: U8 | None = None) -> MeshShape:
    """The mesh around the middle of its bounding box, its faces turned outwards where they are not."""
    low, high = points.min(axis=0), points.max(axis=0)
    centre = (low + high) / 2
    wrong = turned_faces(points, faces)
    if wrong.any():
        faces = np.where(wrong[:, None], faces[:, ::-1], faces)
        uvs = None if uvs is None else np.where(wrong[:, None, None], uvs[:, ::-1], uvs)
    vertices = points - centre
    return MeshShape(centre, high - low, vertices, faces, uvs, picture, bool(wrong.any()), coarse_mesh(vertices, faces))
