"""A scene's surfaces as a coloured point cloud (PLY), with the obstacles marked as InternData-N1 marks them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nimbusd.stages.types import F64, I32, U8, Material, Scene, SceneObject

OBSTACLE_COLOR = (0, 0, 128)
"""(0, 0, 0.5) in 8 bits; loaders select within 0.05 in summed colour distance."""

_POINTS_PER_M2 = 400
_MOST_POINTS = 200_000
_TOO_SIMILAR = 40  # in summed 8-bit distance: 0.05 is 13, the rest is margin
_NOT_QUITE_OBSTACLE = (0, 0, 192)
_PLY_ROW = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
_PLY_HEADER_END = b"end_header\n"
# Steps of the R2 sequence: evenly spread points in the unit square without randomness (M. Roberts, 2018).
_R2 = (0.7548776662466927, 0.5698402909980532)


def scene_points(scene: Scene) -> tuple[F64, U8]:
    """Points spread evenly over all surfaces, 400 per m² but at most 200 000. Deterministic.

    Returns (N, 3) float64 world metres and (N, 3) uint8 sRGB of the material there; N = 0 without surfaces.
    """
    triangles = [obj.world_vertices()[obj.faces] for obj in scene.objects]
    corners = np.concatenate(triangles) if triangles else np.empty((0, 3, 3))
    edges = corners[:, 1:] - corners[:, :1]
    areas = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1) / 2
    total = float(areas.sum())
    if not total > 0:
        return np.empty((0, 3)), np.empty((0, 3), np.uint8)
    number = int(np.clip(total * _POINTS_PER_M2, 1, _MOST_POINTS))
    steps = np.arange(number)
    chosen = np.searchsorted(np.cumsum(areas), (steps + 0.5) / number * total, side="right").clip(max=len(areas) - 1)
    u, v = ((0.5 + steps * step) % 1 for step in _R2)
    folded = u + v > 1
    u, v = np.where(folded, 1 - u, u), np.where(folded, 1 - v, v)
    points = corners[chosen, 0] + u[:, None] * edges[chosen, 0] + v[:, None] * edges[chosen, 1]
    colors = np.empty((number, 3), np.uint8)
    first = 0
    for obj in scene.objects:
        mine = (chosen >= first) & (chosen < first + len(obj.faces))
        colors[mine] = _colors(obj, chosen[mine] - first, u[mine], v[mine])
        first += len(obj.faces)
    return points, colors


def obstacle_mask(points: F64, floors_m: Sequence[float], low_m: float, high_m: float) -> npt.NDArray[np.bool_]:
    """(N,) True for points between low_m and high_m above any of the floors."""
    heights = points[:, 2:3] - np.asarray(floors_m, np.float64)[None, :]
    return np.asarray(((heights >= low_m) & (heights <= high_m)).any(axis=1))


def ply_bytes(points: F64, colors: U8, obstacles: npt.NDArray[np.bool_]) -> bytes:
    """Binary PLY of (N, 3) points and (N, 3) uint8 colours; exactly the obstacles have OBSTACLE_COLOR."""
    colors = colors.copy()
    distance = np.abs(colors.astype(np.int64) - OBSTACLE_COLOR).sum(axis=1)
    colors[distance < _TOO_SIMILAR] = _NOT_QUITE_OBSTACLE
    colors[obstacles] = OBSTACLE_COLOR
    rows = np.empty(len(points), _PLY_ROW)
    rows["xyz"], rows["rgb"] = points, colors
    properties = "".join(f"property float {axis}\n" for axis in "xyz")
    properties += "".join(f"property uchar {color}\n" for color in ("red", "green", "blue"))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}"
    return header.encode() + _PLY_HEADER_END + rows.tobytes()


def read_ply(content: bytes) -> tuple[F64, U8]:
    """Points and colours of what `ply_bytes` wrote."""
    rows = np.frombuffer(content.split(_PLY_HEADER_END, 1)[1], _PLY_ROW)
    return rows["xyz"].astype(np.float64), rows["rgb"].copy()


def _colors(obj: SceneObject, faces: npt.NDArray[np.int64], u: F64, v: F64) -> U8:
    """Colours (sRGB) of an object at barycentric (1 - u - v, u, v) of `faces`."""
    result = np.empty((len(faces), 3), np.uint8)
    materials: I32 = obj.face_material[faces]
    for number, material in enumerate(obj.materials):
        mine = materials == number
        result[mine] = _material_colors(material, obj, faces[mine], u[mine], v[mine])
    return result


def _material_colors(material: Material, obj: SceneObject, faces: npt.NDArray[np.int64], u: F64, v: F64) -> U8:
    linear = np.tile(np.asarray(material.base_color, np.float64), (len(faces), 1))
    if material.texture is not None and obj.uvs is not None:
        corners = obj.uvs[faces].astype(np.float64)
        places = corners[:, 0] * (1 - u - v)[:, None] + corners[:, 1] * u[:, None] + corners[:, 2] * v[:, None]
        height, width = material.texture.shape[:2]
        column = (places[:, 0] % 1 * width).astype(np.int64).clip(0, width - 1)
        row = ((1 - places[:, 1] % 1) * height).astype(np.int64).clip(0, height - 1)
        linear *= (material.texture[row, column, :3] / 255.0) ** 2.2
    return np.asarray(np.rint(linear.clip(0, 1) ** (1 / 2.2) * 255), np.uint8)
