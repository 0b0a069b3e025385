"""A scene's triangles as the planner needs them: all together in the world frame, clipped, and cut into floors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nimbusd.stages.plan.bodies import inside_out
from nimbusd.stages.types import F64, BoolArray, Scene

STRUCTURE = frozenset({"wall", "floor", "ceiling", "door", "window", "baseboard", "stairs", "column"})
"""Categories that are the building itself; everything else counts as furniture."""

_UPWARD = 0.7  # cosine of the steepest floor, about 45°
_LEVEL = 0.98
_LEAST_FLOOR_M2 = 2.0


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Every triangle of a scene. corners: (N, 3, 3) float64 world metres, counter-clockwise seen from outside, also
    of closed bodies that are inside out in the scene. furniture, floor, ceiling: (N,) bool.
    """

    corners: F64
    furniture: BoolArray
    floor: BoolArray
    ceiling: BoolArray

    @classmethod
    def of(cls, scene: Scene) -> Surfaces:
        objects = [obj for obj in scene.objects if len(obj.faces)]
        parts = [_unmirrored(obj.world_vertices()[obj.faces], obj.T_world_object) for obj in objects]
        counts = [len(part) for part in parts]
        corners = np.concatenate(parts) if parts else np.empty((0, 3, 3))
        turned = inside_out(corners, np.repeat(np.arange(len(parts), dtype=np.int32), counts))
        corners[turned] = corners[turned, ::-1]

        def of_each(marks: list[bool]) -> BoolArray:
            return np.repeat(np.array(marks, np.bool_), counts)

        return cls(
            corners,
            of_each([obj.category not in STRUCTURE for obj in objects]),
            of_each([obj.category == "floor" for obj in objects]),
            of_each([obj.category == "ceiling" for obj in objects]),
        )

    @cached_property
    def normals(self) -> F64:
        """(N, 3) normals of twice the triangle's area in length, towards where its corners are counter-clockwise."""
        a, b, c = (self.corners[:, i] for i in range(3))
        return np.asarray(np.cross(b - a, c - a))

    @cached_property
    def top_m(self) -> float:
        """Height of the highest corner."""
        return float(self.corners[:, :, 2].max())

    def walkable(self, *, either_way: bool) -> F64:
        """(M, 3, 3) corners of the triangles that face up, or also down if `either_way`."""
        rise = np.abs(self.normals[:, 2]) if either_way else self.normals[:, 2]
        steep = rise <= _UPWARD * np.maximum(np.linalg.norm(self.normals, axis=1), 1e-12)
        return np.asarray(self.corners[~steep])

    def levels(self) -> tuple[F64, F64]:
        """Mean height and area of each nearly level triangle that faces up, of floors if there are any."""
        for chosen in (self.floor, ~self.ceiling):
            size = np.linalg.norm(self.normals[chosen], axis=1)
            up = self.normals[chosen, 2]
            for rise in (up, np.abs(up)):  # some meshes have their floor's faces the wrong way round
                level = rise > _LEVEL * np.maximum(size, 1e-12)
                if size[level].sum() / 2 >= _LEAST_FLOOR_M2:
                    return self.corners[chosen][level, :, 2].mean(axis=1), size[level] / 2
        return np.empty(0), np.empty(0)


def hulls(corners: F64, low_m: float, high_m: float) -> tuple[Any, BoolArray]:
    """The parts of triangles between two heights, projected to the floor.

    corners: (N, 3, 3). Returns (M,) convex shapely shapes, and (N,) True for the triangles that have a part there,
    which they are of, in order.
    """
    import shapely

    z = corners[:, :, 2]
    present = (z.max(axis=1) >= low_m) & (z.min(axis=1) <= high_m)
    if not present.any():
        return np.empty(0, object), present
    corners = corners[present]
    z = corners[:, :, 2]
    points, valid = [corners[:, :, :2]], [(z >= low_m) & (z <= high_m)]
    tail, head = corners, np.roll(corners, -1, axis=1)
    rise = head[:, :, 2] - tail[:, :, 2]
    for plane in (low_m, high_m):
        crosses = (tail[:, :, 2] - plane) * (head[:, :, 2] - plane) < 0
        share = np.where(crosses, (plane - tail[:, :, 2]) / np.where(crosses, rise, 1.0), 0.0)
        points.append(tail[:, :, :2] + share[:, :, None] * (head - tail)[:, :, :2])
        valid.append(crosses)
    xy, ok = np.concatenate(points, axis=1), np.concatenate(valid, axis=1)
    # A clipped triangle has at most 5 corners of 9 candidates; the others repeat one that is in the band.
    first = xy[np.arange(len(xy)), ok.argmax(axis=1)]
    xy = np.where(ok[:, :, None], xy, first[:, None, :])
    return shapely.convex_hull(shapely.linestrings(xy)), present


def _unmirrored(corners: F64, T_world_object: F64) -> F64:
    """A mirroring transform turns faces inside out; give their corners the other order."""
    return corners[:, ::-1] if np.linalg.det(T_world_object[:3, :3]) < 0 else corners
