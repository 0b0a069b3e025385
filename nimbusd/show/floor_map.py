"""A top-down map from what the cameras saw: depth, poses and intrinsics of an episode, no scene needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nimbusd.show.view import EpisodeView
from nimbusd.stages.types import F32, F64, I32, BoolArray

OBSTACLE_M = (0.1, 1.5)
"""Heights above the floor between which a point stands in the way."""

_MAX_FRAMES = 48
_MAX_CELLS = 700
_CELL_M = 0.04
_MARGIN_M = 0.5
_CAMERA_HEIGHTS_M = (0.15, 2.5)
_FAR_M = 6.5  # stored depth clips a little beyond
_RAY_STEPS = 24


@dataclass(frozen=True)
class TopDownMap:
    """Cells of `cell_m`, row 0 at the highest y (as drawn), column 0 at the lowest x.

    origin_m: world x of the left edge, world y of the top edge. free: floor was seen, or seen across.
    blocked: something stands there. instance: (H, W) id of what stands there, 0 = unknown.
    floor_below_camera_m: the camera's height above the floor, as measured.
    """

    cell_m: float
    origin_m: tuple[float, float]
    free: BoolArray
    blocked: BoolArray
    instance: I32
    floor_below_camera_m: float

    def pixels(self, xy_m: F64) -> F64:
        """(N, 2) world metres to (N, 2) column, row (fractions of cells)."""
        left, top = self.origin_m
        return np.stack([(xy_m[:, 0] - left) / self.cell_m, (top - xy_m[:, 1]) / self.cell_m], axis=1)


def floor_map(view: EpisodeView) -> TopDownMap:
    """The map of an episode and its rooms. Without depth no cell is known."""
    path = view.T_world_camera[:, :2, 3]
    points, heights, ids, seers = _points(view)
    height = _camera_height(heights)
    above = heights + height
    near = np.abs(points - path.mean(axis=0)).max(axis=1) < 30 if len(points) else np.zeros(0, bool)
    standing = near & (above > OBSTACLE_M[0]) & (above < OBSTACLE_M[1])
    floor = near & (np.abs(above) < OBSTACLE_M[0])

    shown = np.concatenate([path, points[standing | floor], *(room.polygon for room in view.rooms)])
    low, high = shown.min(axis=0) - _MARGIN_M, shown.max(axis=0) + _MARGIN_M
    cell_m = max(_CELL_M, float((high - low).max()) / _MAX_CELLS)
    width, depth = np.ceil((high - low) / cell_m).astype(int)
    origin = (float(low[0]), float(high[1]))
    free = np.zeros((depth, width), bool)
    hits = np.zeros((depth, width), np.int32)
    instance = np.zeros((depth, width), np.int32)

    def cells(xy: F64) -> tuple[I32, I32]:
        columns = ((xy[:, 0] - origin[0]) / cell_m).astype(np.int32)
        rows = ((origin[1] - xy[:, 1]) / cell_m).astype(np.int32)
        return np.clip(rows, 0, depth - 1), np.clip(columns, 0, width - 1)

    free[cells(points[floor])] = True
    seen = standing | floor
    for step in np.linspace(0.0, 1.0, _RAY_STEPS, endpoint=False):  # what a ray to the floor crosses is seen
        between = seers[seen] + step * (points[seen] - seers[seen])
        free[cells(between)] = True
    np.add.at(hits, cells(points[standing]), 1)
    instance[cells(points[standing])] = ids[standing]
    blocked = hits > 1
    for number in np.unique(instance[blocked]):
        _fill(blocked, instance, int(number))
    return TopDownMap(cell_m, origin, _closed(free), blocked, instance, height)


def _points(view: EpisodeView) -> tuple[F64, F64, I32, F64]:
    """Points of the depth images: (N, 2) world x, y; (N,) height above the camera; (N,) ids; (N, 2) camera x, y."""
    if view.depth_m is None:
        return np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int32), np.zeros((0, 2))
    fx, fy, cx, cy = view.intrinsics
    height, width = view.depth_m.shape[1:]
    stride = max(1, width // 160)
    v, u = np.mgrid[0:height:stride, 0:width:stride]
    right, up = (u + 0.5 - cx) / fx, -(v + 0.5 - cy) / fy
    parts: list[tuple[F64, F64, I32, F64]] = []
    for t in view.moments(_MAX_FRAMES):
        z: F32 = view.depth_m[t, ::stride, ::stride]
        hit = (z > 0.05) & (z < _FAR_M)
        local = np.stack([right * z, up * z, -z], axis=-1)[hit].astype(np.float64)
        T = view.T_world_camera[t]
        world = local @ T[:3, :3].T + T[:3, 3]
        ids = np.zeros(len(world), np.int32)
        if view.instance is not None:
            ids = view.instance[t, ::stride, ::stride][hit].astype(np.int32)
        parts.append((world[:, :2], world[:, 2] - T[2, 3], ids, np.broadcast_to(T[:2, 3], (len(world), 2))))
    return (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
        np.concatenate([part[3] for part in parts]),
    )


def _camera_height(heights: F64) -> float:
    """The height of the camera above the floor: the level that most points below it share. 1 m if none does."""
    low, high = _CAMERA_HEIGHTS_M
    below = -heights[(heights < -low) & (heights > -high)]
    if not len(below):
        return 1.0
    counts, edges = np.histogram(below, bins=np.arange(low, high, 0.02))
    peak = int(np.argmax(counts))
    return float(np.median(below[(below >= edges[peak]) & (below <= edges[peak + 1])]))


def _fill(blocked: BoolArray, instance: I32, number: int) -> None:
    """Close the gaps within one thing, in place: far tops of furniture are seen by few rays."""
    rows, columns = np.nonzero(blocked & (instance == number))
    pad = 3
    box = (
        slice(max(0, rows.min() - pad), rows.max() + pad + 1),
        slice(max(0, columns.min() - pad), columns.max() + pad + 1),
    )
    filled = _closed(blocked[box] & (instance[box] == number)) & ~blocked[box]
    blocked[box] |= filled
    instance[box][filled] = number


def _closed(cells: BoolArray) -> BoolArray:
    """Fill gaps of up to two cells, which are between rays, not in the room."""
    from PIL import Image, ImageFilter

    image = Image.fromarray(cells.astype(np.uint8) * 255)
    image = image.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.MinFilter(5))
    return np.asarray(image) > 0
