"""Lamps for scenes that come without any: soft panels under the ceilings, so that interiors are not black."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

from nimbusd.stages.types import F64, Light, Rgb, SceneObject

WARM_WHITE: Rgb = (1.0, 0.93, 0.84)
"""About 4500 K."""
PANEL_M = 0.6
_ROOM_HEIGHT_M = (1.9, 6.0)
_BELOW_CEILING_M = 0.04
_MOST_PER_AXIS = 128


def ceiling_panels(objects: Iterable[SceneObject], w_per_m2: float, spacing_m: float = 2.4) -> tuple[Light, ...]:
    """Square panels below every ceiling, on a grid of about `spacing_m` over the objects' extent.

    A grid point gets a panel under each surface that has 1.9 to 6 m of free height below it; so a house of
    several floors is lit on each, and what is open to the sky gets none. Power: `w_per_m2` times a grid cell. The grid
    of a scene beyond some 300 m is coarser.
    """
    triangles = np.concatenate([obj.world_vertices()[obj.faces] for obj in objects])
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    counts = np.clip(np.ceil((high - low)[:2] / spacing_m), 1, _MOST_PER_AXIS).astype(int)
    step = (high - low)[:2] / counts
    lights: list[Light] = []
    for i, j in np.ndindex(*counts):
        x, y = low[:2] + step * (np.array([i, j]) + 0.5)
        for z in _ceilings(_crossings(triangles, x, y)):
            power = w_per_m2 * float(step[0] * step[1])
            lights.append(panel(f"ceiling panel {len(lights) + 1}", (x, y, z - _BELOW_CEILING_M), power))
    return tuple(lights)


def panel(name: str, position: tuple[float, float, float], power_w: float) -> Light:
    """A square area lamp that shines down."""
    T = np.eye(4)
    T[:3, 3] = position
    return Light(name, "area", T, power_w, WARM_WHITE, (PANEL_M, PANEL_M))


def _ceilings(heights: F64) -> Iterator[float]:
    lowest, highest = _ROOM_HEIGHT_M
    for below, above in pairwise(heights.tolist()):
        if lowest <= above - below <= highest:
            yield above


def _crossings(triangles: F64, x: float, y: float) -> F64:
    """Sorted heights at which the vertical line through (x, y) meets the triangles (F, 3, 3)."""
    a, b, c = (triangles[:, k, :2] - (x, y) for k in range(3))

    def cross(p: F64, q: F64) -> F64:
        return np.asarray(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])

    weights = np.stack([cross(b, c), cross(c, a), cross(a, b)], axis=1)
    total = weights.sum(axis=1)
    inside = ((weights >= 0).all(axis=1) | (weights <= 0).all(axis=1)) & (np.abs(total) > 1e-12)
    z = (weights[inside] * triangles[inside, :, 2]).sum(axis=1) / total[inside]
    return np.sort(z)
