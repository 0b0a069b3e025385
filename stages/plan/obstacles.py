"""Obstacles as plane shapes: exact distances for checks, and a field of them for search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nimbusd.stages.base import no_beat
from nimbusd.stages.plan.raster import Grid, covered_cells
from nimbusd.stages.types import F32, F64, BoolArray

_MOST_SAMPLES = 3_000_000
_BLOCK, _STRIP = 4, 64
_AT_ONCE = 50_000


class Obstacles:
    """Exact distances to a set of plane shapes, indexed."""

    def __init__(self, shapes: Any) -> None:
        import shapely

        self.shapes = np.asarray(shapes, object)
        self._tree = shapely.STRtree(self.shapes)

    def clearance(self, points_xy: F64) -> F64:
        """(N,) metres from each point to the nearest obstacle, 0 inside one, infinite without any."""
        import shapely

        return self._nearest(shapely.points(points_xy))

    def path_clearance(self, path_xy: F64) -> float:
        """Least distance in metres from any point of a polyline, (N, 2), to the nearest obstacle."""
        return float(self._nearest(_stretches(path_xy)).min())

    def _nearest(self, shapes: Any) -> F64:
        distance = np.full(len(shapes), np.inf)
        if len(self.shapes) and len(shapes):
            (which, _), found = self._tree.query_nearest(shapes, return_distance=True, all_matches=False)
            distance[which] = found
        return distance


def clearance_field(
    shapes: Any, grid: Grid, wanted: BoolArray, reach_m: float, beat: Callable[[], None] = no_beat
) -> F32:
    """Clearance at the centres of the `wanted` cells: never more than the true one, and below a cell's size by little.

    shapes: (M,) convex shapely shapes. wanted: (H, W). Returns (H, W) float32 metres: 0 inside a shape and where not
    wanted, at most `reach_m`. Between them it is short of the true clearance d by s²/8d at most, where s is 0.4
    cells; s is longer where the shapes' outlines together are longer than 3,000,000 times that.

    How: the outlines become points that are s apart at most, corners included. Where the nearest point of a segment
    is no corner, the line to it is perpendicular to the segment, and the nearest sample is s/2 from it at most.
    """
    from scipy.spatial import cKDTree

    field = np.zeros(wanted.shape, np.float32)
    open_cells = wanted & ~covered_cells(shapes, grid, beat)
    points, spacing_m = _outline_points(shapes, 0.4 * grid.cell_m)
    near = _near_blocks(points, grid, reach_m)
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False) if len(points) else None
    for top in range(0, grid.height, _STRIP):
        beat()
        part = open_cells[top : top + _STRIP]
        field[top : top + _STRIP][part] = reach_m
        blocks = near[top // _BLOCK : (top + _STRIP) // _BLOCK]
        close = np.repeat(np.repeat(blocks, _BLOCK, axis=0), _BLOCK, axis=1)[: len(part), : grid.width]
        rows, columns = np.nonzero(part & close)
        for start in range(0, len(rows), _AT_ONCE):
            beat()
            r, c = rows[start : start + _AT_ONCE] + top, columns[start : start + _AT_ONCE]
            assert tree is not None, "a block is near only to a point"
            away, _ = tree.query(grid.centres(r, c), distance_upper_bound=reach_m)
            field[r, c] = np.minimum(np.sqrt(np.maximum(away**2 - spacing_m**2 / 4, 0.0)), reach_m)
    return field


def _outline_points(shapes: Any, spacing_m: float) -> tuple[F64, float]:
    """Points on the shapes' outlines, all corners among them, and how far they are apart at most."""
    import shapely

    corners, owner = shapely.get_coordinates(shapes, return_index=True)
    joined = owner[1:] == owner[:-1]
    a, b = corners[:-1][joined], corners[1:][joined]
    swapped = (a[:, 0] > b[:, 0]) | ((a[:, 0] == b[:, 0]) & (a[:, 1] > b[:, 1]))  # shared edges come from both sides
    edges = np.where(swapped[:, None], np.column_stack([b, a]), np.column_stack([a, b]))
    edges = np.unique(edges, axis=0)
    a, along = edges[:, :2], edges[:, 2:] - edges[:, :2]
    length = np.linalg.norm(along, axis=1)
    spacing_m = max(spacing_m, float(length.sum()) / _MOST_SAMPLES)
    inner = np.maximum(np.ceil(length / spacing_m).astype(np.int64) - 1, 0)
    edge = np.repeat(np.arange(len(edges)), inner)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(inner) - inner, inner) + 1
    between = a[edge] + (step / (inner[edge] + 1))[:, None] * along[edge]
    return np.concatenate([np.unique(corners, axis=0), between]), spacing_m


def _near_blocks(points: F64, grid: Grid, reach_m: float) -> BoolArray:
    """Blocks of cells of which some may be within reach of a point."""
    from scipy import ndimage

    shape = -(-grid.height // _BLOCK), -(-grid.width // _BLOCK)
    near = np.zeros(shape, np.bool_)
    cells = np.floor((points - (grid.left, grid.bottom)) / (grid.cell_m * _BLOCK)).astype(np.int64)
    reach = int(np.ceil(reach_m / (grid.cell_m * _BLOCK)))
    beyond = ((cells < -reach) | (cells >= np.array(shape)[::-1] + reach)).any(axis=1)
    column, row = np.clip(cells[~beyond], 0, np.array(shape)[::-1] - 1).T
    near[row, column] = True
    return np.asarray(ndimage.maximum_filter(near, 2 * reach + 1, mode="constant"), np.bool_)


def _stretches(path_xy: F64, longest_m: float = 0.2) -> Any:
    """A polyline cut into short ones that touch: an index answers many small questions faster than a large one."""
    import shapely

    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path_xy, axis=0), axis=1))])
    if along[-1] < 1e-9:
        return shapely.points(path_xy[:1])
    at = np.union1d(along, np.linspace(0.0, along[-1], int(np.ceil(along[-1] / longest_m)) + 1))
    points = np.column_stack([np.interp(at, along, path_xy[:, 0]), np.interp(at, along, path_xy[:, 1])])
    joints = np.flatnonzero(np.diff((at[:-1] / longest_m).astype(int))) + 1
    order = np.sort(np.concatenate([np.arange(len(at)), joints]))  # a joint ends one stretch and begins the next
    begins = np.zeros(len(order), int)
    begins[np.searchsorted(order, joints) + 1] = 1
    return shapely.linestrings(points[order], indices=np.cumsum(begins))
