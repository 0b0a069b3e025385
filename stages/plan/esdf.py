"""Signed distance on a grid: how far each cell is from what blocks the robot."""

from __future__ import annotations

import numpy as np

from nimbusd.stages.types import F32, F64, BoolArray


def signed_distance(occupancy: BoolArray, cell_m: float) -> F32:
    """Signed Euclidean distance from each cell's centre to the nearest centre of the other kind.

    occupancy: (H, W), True where blocked. Returns (H, W) float32 metres: positive in free cells (distance to
    the nearest blocked cell), negative in blocked ones (distance to the nearest free cell). Where there is no
    cell of the other kind, the grid's diagonal stands for "far". Raises ValueError for an empty grid.
    Source: the exact transform of Felzenszwalb and Huttenlocher 2012, as scipy implements it.
    """
    from scipy import ndimage

    if occupancy.ndim != 2 or occupancy.size == 0:
        raise ValueError(f"occupancy has shape {occupancy.shape}; a distance field needs a grid of at least 1 x 1 cell")
    far_m = float(np.hypot(occupancy.shape[0], occupancy.shape[1])) * cell_m
    if occupancy.all() or not occupancy.any():
        return np.full(occupancy.shape, -far_m if occupancy.all() else far_m, np.float32)
    outside = ndimage.distance_transform_edt(~occupancy, sampling=cell_m)
    inside = ndimage.distance_transform_edt(occupancy, sampling=cell_m)
    return np.asarray(outside - inside, np.float32)


def interpolate(field: F32, origin_xy: tuple[float, float], cell_m: float, points_xy: F64) -> F64:
    """Bilinear value of a cell-centred field at points; beyond the border, the border's value.

    field: (H, W), row index along y. origin_xy: world x, y of the corner of cell (0, 0). points_xy: (N, 2)
    metres. Returns (N,) float64.
    """
    height, width = field.shape
    column = np.clip((points_xy[:, 0] - origin_xy[0]) / cell_m - 0.5, 0, width - 1)
    row = np.clip((points_xy[:, 1] - origin_xy[1]) / cell_m - 0.5, 0, height - 1)
    c0 = np.minimum(column.astype(np.intp), max(width - 2, 0))
    r0 = np.minimum(row.astype(np.intp), max(height - 2, 0))
    c1, r1 = np.minimum(c0 + 1, width - 1), np.minimum(r0 + 1, height - 1)
    fc, fr = column - c0, row - r0
    low = field[r0, c0] * (1 - fc) + field[r0, c1] * fc
    high = field[r1, c0] * (1 - fc) + field[r1, c1] * fc
    return np.asarray(low * (1 - fr) + high * fr, np.float64)
