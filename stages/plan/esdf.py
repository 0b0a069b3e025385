"""Distances on a grid: how far each cell is from others, and what a field says between its cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nimbusd.stages.base import no_beat
from nimbusd.stages.types import F32, F64, BoolArray

_TILE = 768


def distance_to(cells: BoolArray, cell_m: float, reach_m: float, beat: Callable[[], None] = no_beat) -> F32:
    """Distance from each cell's centre to that of the nearest cell of `cells`, at most `reach_m`.

    cells: (H, W) bool. Returns (H, W) float32 metres, 0 in the cells themselves. It works in tiles, so that it
    needs little memory beyond the result, and has nothing to do in those where all cells are of one kind.
    beat: called for each tile. Raises ValueError for an empty grid or no reach.
    Source: the exact transform of Felzenszwalb and Huttenlocher 2012, as scipy implements it.
    """
    from scipy import ndimage

    if cells.ndim != 2 or cells.size == 0 or not reach_m > 0:
        raise ValueError(
            f"cells have shape {cells.shape}, the reach is {reach_m} m; a distance field needs a grid of at least "
            "1 x 1 cell and a reach above 0"
        )
    height, width = cells.shape
    halo = int(np.ceil(min(reach_m / cell_m, height + width)))
    field = np.empty((height, width), np.float32)
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            beat()
            r0, c0 = max(top - halo, 0), max(left - halo, 0)
            around = cells[r0 : top + _TILE + halo, c0 : left + _TILE + halo]
            tile = field[top : top + _TILE, left : left + _TILE]
            if not around.any():
                tile[:] = reach_m
            elif around.all():
                tile[:] = 0.0
            else:
                distance = ndimage.distance_transform_edt(~around, sampling=cell_m)
                tile[:] = distance[top - r0 :, left - c0 :][: tile.shape[0], : tile.shape[1]]
    return np.minimum(field, np.float32(reach_m), out=field)


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
