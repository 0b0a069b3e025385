"""Grids over a floor, and which of their cells shapes cover."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.base import no_beat
from nimbusd.stages.plan.esdf import distance_to
from nimbusd.stages.types import F64, I32, BoolArray, Room

_ROWS_AT_ONCE = 2_000_000
_ROUNDING = 1e-7
"""Of a cell: a centre so near to a shape's border lies on it."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Square cells over the floor. left, bottom: world x, y of the corner of cell (0, 0); rows run along y."""

    left: float
    bottom: float
    cell_m: float
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    def centres(self, rows: Any, columns: Any) -> F64:
        """(N, 2) world x, y of the centres of cells."""
        return np.stack([self.left + (columns + 0.5) * self.cell_m, self.bottom + (rows + 0.5) * self.cell_m], axis=-1)

    def squares(self, cells: BoolArray) -> Any:
        """The `cells`, (H, W) bool, as shapely shapes."""
        import shapely

        rows, columns = np.nonzero(cells)
        x, y = self.left + columns * self.cell_m, self.bottom + rows * self.cell_m
        return np.asarray(shapely.box(x, y, x + self.cell_m, y + self.cell_m), object).reshape(-1)


def covered_cells(shapes: Any, grid: Grid, beat: Callable[[], None] = no_beat) -> BoolArray:
    """(H, W) True where a cell's centre lies in or on one of the convex shapely shapes.

    Each shape covers one span of each row; a running sum along the rows says how many spans cover a cell.
    """
    change = np.zeros((grid.height, grid.width + 1), np.int32)
    for tail, head, shape in _edges(shapes, grid):
        beat()
        _add_spans(change, tail, head, shape)
    np.cumsum(change, axis=1, out=change)
    return np.asarray(change[:, :-1] > 0)


def _edges(shapes: Any, grid: Grid) -> Iterator[tuple[F64, F64, I32]]:
    """The shapes' edges, some whole shapes at a time: both ends, in cells from the first one's centre, and whose."""
    import shapely

    corners, owner = shapely.get_coordinates(shapes, return_index=True)
    corners = (corners - (grid.left, grid.bottom)) / grid.cell_m - 0.5
    rows = np.ptp(np.clip(np.stack([corners[:-1, 1], corners[1:, 1]]), 0, grid.height), axis=0) + 2
    part = np.append(0, np.cumsum(rows)) // _ROWS_AT_ONCE
    first = np.flatnonzero(np.append(True, owner[1:] != owner[:-1])) if len(owner) else np.empty(0, int)
    if not len(first):
        return
    begins = first[np.append(True, np.diff(part[first]) > 0)]
    for start, stop in zip(begins, [*begins[1:], len(owner)], strict=True):
        joined = owner[start + 1 : stop] == owner[start : stop - 1]
        ends = corners[start:stop]
        yield ends[:-1][joined], ends[1:][joined], (owner[start : stop - 1][joined] - owner[start]).astype(np.int32)


def _add_spans(change: I32, tail: F64, head: F64, shape: I32) -> None:
    """Add 1 where a shape's span of a row begins, and take it away behind its end."""
    height, width = change.shape[0], change.shape[1] - 1
    low, high = np.minimum(tail[:, 1], head[:, 1]), np.maximum(tail[:, 1], head[:, 1])
    first = np.clip(np.ceil(low - _ROUNDING), 0, height).astype(np.int64)
    last = np.clip(np.floor(high + _ROUNDING), -1, height - 1).astype(np.int64)
    count = np.maximum(last - first + 1, 0)
    if not count.any():
        return
    edge = np.repeat(np.arange(len(tail)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    rise = head[:, 1] - tail[:, 1]
    flat = np.abs(rise) < _ROUNDING
    share = np.clip((row - tail[edge, 1]) / np.where(flat, 1.0, rise)[edge], 0.0, 1.0)
    x = tail[edge, 0] + np.where(flat[edge], 0.0, share) * (head - tail)[edge, 0]
    other = np.where(flat[edge], head[edge, 0], x)

    key, span = np.unique(shape[edge].astype(np.int64) * height + row, return_inverse=True)
    left, right = np.full(len(key), np.inf), np.full(len(key), -np.inf)
    np.minimum.at(left, span, np.minimum(x, other))
    np.maximum.at(right, span, np.maximum(x, other))
    begin = np.clip(np.ceil(left - _ROUNDING), 0, width).astype(np.int64)
    end = np.clip(np.floor(right + _ROUNDING), -1, width - 1).astype(np.int64) + 1
    some = end > begin
    np.add.at(change, (key[some] % height, begin[some]), 1)
    np.add.at(change, (key[some] % height, end[some]), -1)


def grown(cells: BoolArray, radius_cells: float, beat: Callable[[], None] = no_beat) -> BoolArray:
    """The cells within a distance of `cells`, themselves included."""
    return np.asarray(distance_to(cells, 1.0, radius_cells + 1.0, beat) <= radius_cells)


def close_gaps(carried: BoolArray, gap_cells: float, beat: Callable[[], None] = no_beat) -> BoolArray:
    """Morphological closing with a disc of that diameter. The grid's margin must be wide enough for it."""
    if gap_cells <= 0 or not carried.any():
        return carried
    return np.asarray(carried | ~grown(~grown(carried, gap_cells / 2, beat), gap_cells / 2, beat))


def room_index(rooms: tuple[Room, ...], grid: Grid) -> I32:
    """(H, W) int32, which of the rooms a cell's centre is in, the first of several; -1 outside all of them."""
    import shapely

    index = np.full(grid.shape, -1, np.int32)
    for number, room in enumerate(rooms):
        low, high = ((bound - (grid.left, grid.bottom)) / grid.cell_m for bound in _bounds(room))
        c0, r0 = np.maximum(np.floor(low).astype(int), 0)
        c1, r1 = np.minimum(np.ceil(high).astype(int), (grid.width, grid.height))
        part = index[r0:r1, c0:c1]
        if part.size:
            rows, columns = np.indices(part.shape)
            centres = grid.centres(rows + r0, columns + c0)
            inside = shapely.contains_xy(shapely.polygons(room.polygon), centres[..., 0], centres[..., 1])
            part[(part < 0) & inside] = number
    return index


def _bounds(room: Room) -> tuple[F64, F64]:
    return room.polygon.min(axis=0), room.polygon.max(axis=0)
