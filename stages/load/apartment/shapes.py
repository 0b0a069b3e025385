"""Closed triangle meshes to build furniture and walls from: boxes, rounded boxes, lofts, lathes, tubes, sheets.

Every shape is closed and wound counter-clockwise seen from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nimbusd.stages.load.textures import SPAN_M
from nimbusd.stages.types import F64, I32

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Mesh:
    """vertices: (V, 3) metres. faces: (F, 3). uvs: (F, 3, 2), or None to project the texture from six sides."""

    vertices: F64
    faces: I32
    uvs: F64 | None = None

    def moved(self, x: float, y: float, z: float) -> Mesh:
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def turned(self, axis: str, angle_rad: float) -> Mesh:
        """Turned about the x, y or z axis through the origin, counter-clockwise seen against the axis."""
        a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        out = self.vertices.copy()
        out[:, a] = np.cos(angle_rad) * self.vertices[:, a] - np.sin(angle_rad) * self.vertices[:, b]
        out[:, b] = np.sin(angle_rad) * self.vertices[:, a] + np.cos(angle_rad) * self.vertices[:, b]
        return replace(self, vertices=out)

    def face_uvs(self) -> F64:
        """(F, 3, 2): the mesh's own coordinates, or metres / SPAN_M seen along each face's strongest normal axis.

        u follows the longer side of the shape, so that wood grain runs along a board.
        """
        if self.uvs is not None:
            return self.uvs
        corners = self.vertices[self.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        extent = np.ptp(self.vertices, axis=0)
        u_axis, v_axis = np.empty(3, int), np.empty(3, int)
        for axis in range(3):
            first, second = [a for a in range(3) if a != axis]
            longer_first = extent[first] >= extent[second]
            u_axis[axis], v_axis[axis] = (first, second) if longer_first else (second, first)
        side = np.abs(normals).argmax(axis=1)
        u = np.take_along_axis(corners, np.broadcast_to(u_axis[side][:, None, None], (len(corners), 3, 1)), axis=2)
        v = np.take_along_axis(corners, np.broadcast_to(v_axis[side][:, None, None], (len(corners), 3, 1)), axis=2)
        return np.concatenate([u, v], axis=2) / SPAN_M


_BOX_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
# Two triangles per side, in the order -x, +x, -y, +y, -z, +z.
_BOX_FACES = np.array(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ],
    np.int32,
)  # fmt: skip


def box(size: Point) -> Mesh:
    """A box around the origin; triangles 2k and 2k + 1 are its k-th side in the order -x, +x, -y, +y, -z, +z."""
    return Mesh(_BOX_CORNERS * np.array(size), _BOX_FACES)


def rounded_box(size: Point, radius: float, inner: int = 0, crown: float = 0.0) -> Mesh:
    """A box around the origin with rounded edges.

    inner: points added inside each side. crown: how far the top bulges in its middle (needs inner points).
    """
    half = np.array(size, np.float64) / 2
    radius = min(radius, 0.48 * float(min(size)))
    steps = []
    for h in half:
        core = np.linspace(-h + radius, h - radius, inner + 2)
        steps.append(np.concatenate([[-h], core, [h]]))
    count = inner + 4
    vertices: list[F64] = []
    faces: list[npt.NDArray[np.int64]] = []
    row, column = np.divmod(np.arange((count - 1) ** 2), count - 1)
    corner = row * count + column
    quads = np.stack([corner, corner + count, corner + count + 1, corner + 1], axis=1)
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1, 1):
            a, b = np.meshgrid(steps[first], steps[second], indexing="ij")
            points = np.empty((count * count, 3))
            points[:, axis] = sign * half[axis]
            points[:, first], points[:, second] = a.ravel(), b.ravel()
            turned = quads if sign > 0 else quads[:, ::-1]
            faces.append(np.concatenate([turned[:, [0, 1, 2]], turned[:, [0, 2, 3]]]) + len(vertices) * count * count)
            vertices.append(points)
    points = np.concatenate(vertices)
    core_points = np.clip(points, radius - half, half - radius)
    away = points - core_points
    points = core_points + radius * away / np.linalg.norm(away, axis=1, keepdims=True)
    if crown:
        bulge = np.clip(1 - (points[:, 0] / half[0]) ** 2, 0, 1) * np.clip(1 - (points[:, 1] / half[1]) ** 2, 0, 1)
        points[:, 2] += crown * np.sqrt(bulge) * (points[:, 2] > 0)
    return Mesh(points, np.concatenate(faces).astype(np.int32))


def loft(loops: npt.ArrayLike) -> Mesh:
    """A skin over K loops of N points each, (K, N, 3), closed by caps at the first and last loop.

    Loops run counter-clockwise seen from where the skin goes to; a skin that turns back inside makes a bowl.
    """
    rings = np.asarray(loops, np.float64)
    count, size = rings.shape[:2]
    near = np.arange(size)
    far = np.roll(near, -1)
    skin = []
    for k in range(count - 1):
        low, high = k * size, (k + 1) * size
        skin.append(np.stack([low + near, low + far, high + far], axis=1))
        skin.append(np.stack([low + near, high + far, high + near], axis=1))
    first, last = count * size, count * size + 1
    skin.append(np.stack([np.full(size, first), far, near], axis=1))
    skin.append(np.stack([np.full(size, last), (count - 1) * size + near, (count - 1) * size + far], axis=1))
    vertices = np.concatenate([rings.reshape(-1, 3), rings[[0, -1]].mean(axis=1)])
    return Mesh(vertices, np.concatenate(skin).astype(np.int32))


def ring(radius_x: float, radius_y: float, z: float, segments: int = 20, squareness: float = 0.0) -> F64:
    """(segments, 3) loop for `loft`: an ellipse, or with squareness up to 1 nearly a rectangle."""
    angle = 2 * np.pi * (np.arange(segments) + 0.5) / segments
    power = 1 - 0.85 * squareness
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    return np.stack([radius_x * x, radius_y * y, np.full(segments, z)], axis=1)


def lathe(profile: Sequence[tuple[float, float]], segments: int = 20) -> Mesh:
    """A body of revolution about z. profile: (radius > 0, z) from the lower to the upper (or inner) end."""
    return loft([ring(radius, radius, z, segments) for radius, z in profile])


def tube(path: Sequence[Point], radius: float, segments: int = 10, end_radius: float | None = None) -> Mesh:
    """A round bar along a path of at least two points, tapering to `end_radius` where given."""
    points = np.asarray(path, np.float64)
    directions = np.gradient(points, axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    overall = points[-1] - points[0]
    side = np.eye(3)[np.abs(overall).argmin()]
    angle = 2 * np.pi * np.arange(segments) / segments
    radii = np.linspace(radius, radius if end_radius is None else end_radius, len(points))
    loops = []
    for point, direction, r in zip(points, directions, radii, strict=True):
        u = np.cross(side, direction)
        u /= np.linalg.norm(u)
        v = np.cross(direction, u)
        loops.append(point + r * (np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v))
    return loft(loops)


def sheet(front: npt.ArrayLike, thickness: float, z_low: float, z_high: float) -> Mesh:
    """A hanging cloth: the line `front`, (N, 2) with growing x, thickened towards +y and pulled up from z_low."""
    line = np.asarray(front, np.float64)
    count = len(line)
    back = line + np.array([0.0, thickness])
    rails = [np.column_stack([side, np.full(count, z)]) for z in (z_low, z_high) for side in (line, back)]
    near = np.arange(count - 1)
    faces = []
    # Rails 0…3: front low, back low, front high, back high. Each pair of rails makes one strip of quads.
    for a, b in ((0, 2), (2, 3), (3, 1), (1, 0)):
        a0, b0 = a * count + near, b * count + near
        faces += [np.stack([a0, a0 + 1, b0 + 1], axis=1), np.stack([a0, b0 + 1, b0], axis=1)]
    f, k, g, h = (rail * count for rail in range(4))
    end = count - 1
    faces.append(np.array([[f, g, h], [f, h, k], [f + end, k + end, h + end], [f + end, h + end, g + end]]))
    return Mesh(np.concatenate(rails), np.concatenate(faces).astype(np.int32))


def leaf(length: float, width: float, bend: float) -> Mesh:
    """A pointed leaf from the origin along +x that sinks by `bend` at its tip; a thin closed body."""
    middle = 0.5 * length
    vertices = np.array(
        [
            [0, 0, 0], [middle, -width / 2, -0.25 * bend], [length, 0, -bend], [middle, width / 2, -0.25 * bend],
            [middle, 0, -0.15 * bend + 0.004], [middle, 0, -0.15 * bend - 0.004],
        ]
    )  # fmt: skip
    rim = np.arange(4)
    far = (rim + 1) % 4
    top = np.stack([rim, far, np.full(4, 4)], axis=1)
    bottom = np.stack([far, rim, np.full(4, 5)], axis=1)
    return Mesh(vertices, np.concatenate([top, bottom]).astype(np.int32))
