"""Doubts that a scene is in metres: what its names, rooms, furniture and extents say about its unit.

People build alike everywhere: a door is two metres high, a table top lies at 0.7 m, a room is 2.3 to 9 m high. Each
measure below gives a factor by which the scene is too large, or none; a unit taken for another one (millimetres or feet
for metres) makes factors of 3 and more, so that a wide tolerance still tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nimbusd.stages.load.mend.vertical import level_crossings
from nimbusd.stages.types import F64, SceneObject

UNITS = {"millimetres": 1e-3, "centimetres": 0.01, "inches": 0.0254, "feet": 0.3048}

_LONGEST_M = {
    "chair": 0.95, "armchair": 0.95, "stool": 0.5, "table": 1.4, "dining_table": 1.6, "coffee_table": 1.0, "desk": 1.4,
    "bed": 2.1, "sofa": 1.9, "wardrobe": 2.1, "nightstand": 0.55, "cabinet": 1.3, "bookshelf": 1.8, "door": 2.05,
    "refrigerator": 1.8, "toilet": 0.75, "bathtub": 1.7, "tv": 1.1, "tv_stand": 1.5, "bench": 1.3, "dresser": 1.2,
    "washing_machine": 0.85, "stove": 0.9,
}  # fmt: skip
"""The longest edge of what is called so, as it usually is."""

_NAMED_FACTOR = 2.2
_ROOM_M = (1.9, 14.0)
_ROOM_TYPICAL_M = 2.7
_TOPS_M = (0.3, 1.25)
_TOPS_TYPICAL_M = 0.6
_THINGS_M = (0.22, 5.0)
_THINGS_TYPICAL_M = 0.9
_EXTENT_M = (1.5, 1500.0)
_EXTENT_TYPICAL_M = (4.0, 40.0)
_FEWEST_THINGS = 5


@dataclass(frozen=True, slots=True)
class Misfit:
    """A scene that seems to be in another unit. factor: how many times too large it is. why: parts of a sentence."""

    factor: float
    why: tuple[str, ...]

    def unit_of(self, unit_m: float) -> tuple[str, float]:
        """The likely unit of a file that was read with `unit_m` metres per unit, in words and as unit_m."""
        wanted = unit_m / self.factor
        known = {**UNITS, "metres": 1.0}
        name = min(known, key=lambda name: abs(np.log(known[name] / wanted)))
        if abs(np.log(known[name] / wanted)) < np.log(2.2):
            return name, known[name]
        return f"units of about {wanted:.2g} m", float(f"{wanted:.2g}")


def misfit(objects: Sequence[SceneObject]) -> Misfit | None:
    """The sense in which the scene, whose z is up, is too large or too small; None where nothing says so."""
    solid = [obj for obj in objects if len(obj.faces)]
    if not solid:
        return None
    corners = np.concatenate([obj.world_vertices()[obj.faces] for obj in solid])
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    edges = _edges(solid)
    things = edges[(edges < 0.6 * (high - low)).all(axis=1)].max(axis=1)
    if (named := _named(solid, edges)) is not None:
        return named if named.why else None  # who says what things are knows more than any measure
    found = [*_rooms(corners), *_extent(high - low), *_things(things)]
    if not found:
        return None
    factor = float(np.exp(np.median(np.log([factor for factor, _ in found]))))
    return Misfit(factor, tuple(text for value, text in found if (value > 1) == (factor > 1)))


def _edges(objects: Sequence[SceneObject]) -> F64:
    """(N, 3) extents of the objects."""
    return np.array([np.ptp(obj.world_vertices(), axis=0) for obj in objects])


def _named(objects: Sequence[SceneObject], edges: F64) -> Misfit | None:
    """The verdict of things whose size is usual; None where there are fewer than two, `why` empty where they fit."""
    ratios = [
        float(edge.max()) / _LONGEST_M[obj.category]
        for obj, edge in zip(objects, edges, strict=True)
        if obj.category in _LONGEST_M
    ]
    if len(ratios) < 2:
        return None
    factor = float(np.median(ratios))
    if 1 / _NAMED_FACTOR <= factor <= _NAMED_FACTOR:
        return Misfit(1.0, ())
    number = int(np.argmin(np.abs(np.log(np.array(ratios) / factor))))
    obj, edge = [(o, e) for o, e in zip(objects, edges, strict=True) if o.category in _LONGEST_M][number]
    return Misfit(factor, (f"{obj.name!r}, called a {obj.category}, is {edge.max():.3g} m long",))


def _rooms(corners: F64) -> list[tuple[float, str]]:
    """From the free height of rooms and, in them, the heights of what stands there."""
    met = level_crossings(corners)
    if met is None:
        return []
    same = met.line[1:] == met.line[:-1]
    gap = np.where(same, met.z[1:] - met.z[:-1], 0.0)
    free = np.zeros(int(met.line.max()) + 1)
    np.maximum.at(free, met.line[:-1], gap)
    lines = np.unique(met.line)
    extent = float(np.ptp(corners[:, :, 2]))
    roofed = free[lines] > 0.4 * extent
    if roofed.mean() < 0.5:
        return []
    height = float(np.median(free[lines][roofed]))
    found = []
    if not _ROOM_M[0] <= height <= _ROOM_M[1]:
        found.append((height / _ROOM_TYPICAL_M, f"rooms are {height:.3g} m high"))
    floor = float(np.percentile(met.z[met.up], 5)) if met.up.any() else float(met.z.min())
    tops = met.z[met.up] - floor
    tops = tops[(tops > 0.03 * height) & (tops < 0.8 * height)]
    # Few surfaces say nothing, many are a floor of their own.
    if 0.02 * len(lines) <= len(tops) <= 0.9 * len(lines):
        middle = float(np.median(tops))
        too_high = middle > _TOPS_M[1] and height > 2 * _ROOM_TYPICAL_M
        if too_high or middle < _TOPS_M[0] / 1.5:
            found.append((middle / _TOPS_TYPICAL_M, f"surfaces to sit at and to put things on are {middle:.3g} m high"))
    return found


def _extent(extent: F64) -> list[tuple[float, str]]:
    longest = float(extent.max())
    if longest < _EXTENT_M[0]:
        return [(longest / _EXTENT_TYPICAL_M[0], f"all of it is {longest:.3g} m long")]
    if longest > _EXTENT_M[1]:
        return [(longest / _EXTENT_TYPICAL_M[1], f"it is {longest:,.0f} m long")]
    return []


def _things(longest: F64) -> list[tuple[float, str]]:
    """From the objects that are small beside the scene. longest: (N,) their longest edges."""
    if len(longest) < _FEWEST_THINGS:
        return []
    middle = float(np.median(longest))
    if _THINGS_M[0] <= middle <= _THINGS_M[1]:
        return []
    return [(middle / _THINGS_TYPICAL_M, f"half of its {len(longest)} things are {middle:.3g} m long")]
