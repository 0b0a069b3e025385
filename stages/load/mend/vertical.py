"""Surfaces that vertical lines through a scene meet: floors, ceilings, table tops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nimbusd.stages.types import F64, BoolArray

IntArray = npt.NDArray[np.intp]

LEVEL = 0.7
"""Cosine of the steepest surface that counts as floor or ceiling."""

_LINES_PER_AXIS = 48


@dataclass(frozen=True, slots=True)
class Crossings:
    """Points where vertical lines meet level triangles, sorted by line and height.

    line, triangle: (N,) indices. z: (N,) metres. up: (N,) True where the triangle faces up. cell_m2: area of a line's
    cell.
    """

    line: IntArray
    triangle: IntArray
    z: F64
    up: BoolArray
    cell_m2: float


def level_crossings(corners: F64) -> Crossings | None:
    """The points where a grid of vertical lines over a scene meets its level triangles; None where nothing is level.

    corners: (F, 3, 3) of all triangles, world metres. Needs shapely.
    """
    import shapely

    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    level = np.flatnonzero((np.abs(normal[:, 2]) > LEVEL * length) & (length > 1e-9))
    if not len(level):
        return None
    flat = corners[level]
    low, high = flat[:, :, :2].min(axis=(0, 1)), flat[:, :, :2].max(axis=(0, 1))
    step = np.maximum((high - low) / _LINES_PER_AXIS, 1e-9)
    # Off the middle of the cells: walls and edges like to lie at their borders and middles.
    at = low + step * (np.indices((_LINES_PER_AXIS, _LINES_PER_AXIS)).reshape(2, -1).T + np.array([0.4142, 0.5772]))
    tree = shapely.STRtree(shapely.polygons(flat[:, :, :2]))
    line, hit = tree.query(shapely.points(at), predicate="intersects")
    if not len(line):
        return None
    triangle = level[hit]
    n, a = normal[triangle], corners[triangle, 0]
    z = a[:, 2] - ((at[line] - a[:, :2]) * n[:, :2]).sum(axis=1) / n[:, 2]
    order = np.lexsort((triangle, z, line))
    return Crossings(line[order], triangle[order], z[order], n[order, 2] > 0, float(step.prod()))
