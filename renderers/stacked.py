"""Stacked rendering: K time steps as copies of the scene, apart from each other, seen by K cameras in one pass.

A backend whose passes have a fixed cost (a render product per application update, as in Isaac Sim) then pays it T / K
times instead of T times. Nothing here knows the backend: it places the copies, asks for passes and sorts the tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nimbusd.stages.types import F32, F64, U8, U16, Camera

STRIDE_M = 8.0
"""Distance between copies: more than a room with its walls, so that no camera sees into a neighbour's."""


@dataclass(frozen=True)
class Shot:
    """One picture to take. row: time step. copy: which copy of the scene shows it, at `offset_m`. qpos: its state.

    T_world_camera: (4, 4), as in the one scene at the origin; the backend moves it with the copy.
    """

    row: int
    copy: int
    offset_m: tuple[float, float, float]
    qpos: F64
    camera: Camera
    T_world_camera: F64


@dataclass(frozen=True)
class Tile:
    """One picture taken. rgb: (H, W, 3). depth_m: (H, W), 0 = nothing. instance: (H, W)."""

    rgb: U8
    depth_m: F32 | None
    instance: U16 | None


class StackBackend(Protocol):
    """A renderer that can draw copies: draw all shots of one pass, in their order."""

    def render(self, shots: Sequence[Shot]) -> list[Tile]: ...


def grid_offsets(copies: int, stride_m: float = STRIDE_M) -> list[tuple[float, float, float]]:
    """Places of the copies on a square grid around the origin, the first at the origin itself.

    The grid keeps coordinates small, where single-precision pipelines are finest.
    """
    side = math.ceil(math.sqrt(copies))
    half = side // 2
    cells = [(x - half, y - half) for y in range(side) for x in range(side)]
    cells.sort(key=lambda cell: (max(abs(cell[0]), abs(cell[1])), cell))
    return [(x * stride_m, y * stride_m, 0.0) for x, y in cells[:copies]]


def render_stacked(
    backend: StackBackend,
    qpos: F64,
    cameras: Sequence[Camera],
    T_world_camera: Mapping[str, F64],
    copies: int,
    beat: Callable[[], None] = lambda: None,
    stride_m: float = STRIDE_M,
) -> Iterator[tuple[int, str, Tile]]:
    """Render (T, nq) states from every camera, `copies` states per pass: ceil(T / copies) passes in all.

    T_world_camera: camera name → (T, 4, 4). stride_m: how far apart the copies stand.
    Yields (row, camera name, tile) in the order of rows. Raises ValueError for fewer than one copy.
    """
    if copies < 1:
        raise ValueError(f"stacked rendering needs at least one copy, not {copies}")
    offsets = grid_offsets(min(copies, len(qpos)), stride_m)
    for first in range(0, len(qpos), copies):
        rows = range(first, min(first + copies, len(qpos)))
        shots = [
            Shot(row, copy, offsets[copy], qpos[row], camera, T_world_camera[camera.name][row])
            for copy, row in enumerate(rows)
            for camera in cameras
        ]
        tiles = backend.render(shots)
        beat()
        for shot, tile in zip(shots, tiles, strict=True):
            yield shot.row, shot.camera.name, tile
