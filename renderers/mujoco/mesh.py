"""Shapes as a rasterizer wants them: equal corners joined, triangles in the order of space and in clusters.

A rasterizer in software spends its time on corners and on triangles that nobody sees. Triangles that lie side by side
share corners while these are still at hand, and can be left out together.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from nimbusd.renderers.mujoco.shapes import Corners, Cut, box, capsule, cylinder, ellipsoid, plane
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F32, F64, I32
from nimbusd.stages.workflow.sim.world.world import FAR_M

CLUSTER = 32
"""Triangles in a cluster."""

_SHARP = 0.8
"""Cosine of the angle between a mesh's triangle and a corner's normal beyond which the triangle's own is taken."""

_STEPS = 8
"""Steps of a normal's components within which the corners of one place are joined, with their mean normal."""

_KEPT = 256
"""Meshes that a process remembers: layouts change with every episode, robots do not."""

_known: OrderedDict[bytes, Shape] = OrderedDict()


@dataclass(frozen=True)
class Shape:
    """positions, normals: (C, 3) of corners. uv: (C, 2). faces: (F, 3) of corners. is_mesh: in a file's own units.

    points: (P, 3), each of one cluster: point_cluster (P,). outline: (F, 3) of points. cluster: (F,) 0, 0, … 1, 1, …
    closed: see `Part`.
    """

    positions: F32
    normals: F32
    uv: F32
    faces: I32
    points: F32
    point_cluster: I32
    outline: I32
    cluster: I32
    is_mesh: bool
    closed: bool


def round_shape(model: Any, geom: Any) -> Shape:
    """The shape of a geom (mjvGeom) that is no mesh. Raises RenderError for kinds that are not drawn."""
    import mujoco

    kinds, quality, size = mujoco.mjtGeom, model.vis.quality, np.array(geom.size, np.float64)
    cut = Cut(int(quality.numquads), int(quality.numslices), int(quality.numstacks))
    if geom.type == kinds.mjGEOM_BOX:
        corners = box(size, cut)
    elif geom.type == kinds.mjGEOM_CYLINDER:
        corners = cylinder(size, cut)
    elif geom.type in (kinds.mjGEOM_SPHERE, kinds.mjGEOM_ELLIPSOID):
        corners = ellipsoid(size, cut)
    elif geom.type == kinds.mjGEOM_CAPSULE:
        corners = capsule(size, cut)
    elif geom.type == kinds.mjGEOM_PLANE:
        corners = plane(np.where(size[:2] > 0, size[:2], FAR_M), float(size[2]), cut)
    else:
        raise RenderError(
            f"geom {model.geom(geom.objid).name or geom.objid!r} is a {kinds(geom.type).name}, which is not drawn: "
            "planes, boxes, spheres, ellipsoids, capsules, cylinders and meshes are"
        )
    return _sorted(corners, is_mesh=False)


def mesh_shape(model: Any, mesh: int) -> Shape:
    """The shape of a compiled mesh; the same arrays are worked out once per process."""
    first, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    start, normal, uv = (
        int(address[mesh]) for address in (model.mesh_vertadr, model.mesh_normaladr, model.mesh_texcoordadr)
    )
    points = model.mesh_vert[start : start + int(model.mesh_vertnum[mesh])]
    normals = model.mesh_normal[normal : normal + int(model.mesh_normalnum[mesh])]
    arrays = [points, model.mesh_face[first : first + count], normals, model.mesh_facenormal[first : first + count]]
    if uv >= 0:
        arrays.append(model.mesh_texcoord[uv : uv + int(model.mesh_texcoordnum[mesh])])
        arrays.append(model.mesh_facetexcoord[first : first + count])
    digest = blake2b(repr([array.shape for array in arrays]).encode(), digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    key = digest.digest()
    if key not in _known:
        _known[key] = _sorted(_mesh_corners(*arrays), is_mesh=True)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    _known.move_to_end(key)
    return _known[key]


def _mesh_corners(
    points: F32, faces: I32, normals: F32, which: I32, uv: F32 | None = None, uv_which: I32 | None = None
) -> Corners:
    """A mesh by three corners of its own for each triangle."""
    triangles = points[faces].astype(np.float64)
    corner_normals = normals[which].astype(np.float64)
    if uv is None or uv_which is None:
        facing = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-15)
        sharp = np.einsum("ijk,ik->ij", corner_normals, facing) < _SHARP
        corner_normals = np.where(sharp[..., None], facing[:, None], corner_normals)
        coordinates = np.zeros((3 * len(faces), 2))
    else:
        coordinates = uv[uv_which].reshape(-1, 2).astype(np.float64)
    number = np.arange(3 * len(faces), dtype=np.int32).reshape(-1, 3)
    return Corners(triangles.reshape(-1, 3), corner_normals.reshape(-1, 3), coordinates, number)


def _sorted(corners: Corners, is_mesh: bool) -> Shape:
    """Corners joined and triangles in the order of space."""
    positions, uv = corners.positions.astype(np.float32), corners.uv.astype(np.float32)
    rough = np.rint(corners.normals * _STEPS).astype(np.float32)
    first, joined = _alike(np.concatenate([positions, rough, uv], axis=1))
    normals = np.zeros((len(first), 3))
    np.add.at(normals, joined, corners.normals)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    place, point = _alike(positions)
    order = _in_space(positions[corners.faces].mean(axis=1))
    faces, outline = joined[corners.faces][order], point[corners.faces][order]
    cluster = np.arange(len(faces)) // CLUSTER
    # Every cluster has points of its own, which know it.
    pairs, own = np.unique(cluster[:, None] * len(place) + outline, return_inverse=True)
    used, faces = _by_first_use(faces)
    return Shape(
        positions=positions[first][used],
        normals=normals[used].astype(np.float32),
        uv=uv[first][used],
        faces=faces,
        points=positions[place[pairs % len(place)]],
        point_cluster=(pairs // len(place)).astype(np.int32),
        outline=own.reshape(-1, 3).astype(np.int32),
        cluster=cluster.astype(np.int32),
        is_mesh=is_mesh,
        closed=_closed(positions[corners.faces].astype(np.float64)),
    )


def _alike(rows: F32) -> tuple[Any, Any]:
    """The first place of each different row, and for each row the number of the one that it equals."""
    rows = np.ascontiguousarray(rows + np.float32(0))  # -0 is 0
    _, first, inverse = np.unique(
        rows.view(np.dtype((np.void, 4 * rows.shape[1]))).ravel(), return_index=True, return_inverse=True
    )
    return first, inverse


def _in_space(centres: F64 | F32) -> Any:
    """An order of points (N, 3) in which neighbours are near: along a Z curve."""
    low = centres.min(axis=0)
    cells = ((centres - low) * (1023 / max(float(np.ptp(centres, axis=0).max()), 1e-9))).astype(np.int64)
    code = np.zeros(len(cells), np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")


def _by_first_use(faces: Any) -> tuple[Any, I32]:
    """The corners that triangles use, in the order in which they do, and the triangles by that numbering."""
    used, first, number = np.unique(faces, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return used[order], place[number].reshape(-1, 3)


def _closed(triangles: F64, share: float = 0.02) -> bool:
    """True where triangles (F, 3, 3) enclose a volume and look outwards, but for cracks.

    Around a closed surface the normals sum up to nothing, and its volume is the same counted along x, y or z.
    """
    triangles = triangles - triangles.mean(axis=(0, 1))
    area = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]) / 2
    volumes = np.einsum("fi,fi->i", area, triangles.mean(axis=1))
    total = np.linalg.norm(area, axis=1).sum()
    open_share = float(np.linalg.norm(area.sum(axis=0)) / max(total, 1e-18))
    return bool(open_share < share and volumes.min() > 0 and np.ptp(volumes) < share * volumes.max())
