"""From a path over cells to one that a robot would drive.

Turning points first: shortcuts where they cost no clearance, then each point moves up the distance field while
that makes the path cheaper. Then every corner becomes a Bézier curve. Each step is accepted only if the exact
geometry leaves the robot room, so that smoothing can lose beauty but never safety.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nimbusd.stages.plan.grid_search import clearance_penalty
from nimbusd.stages.plan.occupancy import FloorMap
from nimbusd.stages.types import F64

SPACING_M = 0.005
"""Largest distance between neighbouring points of a smooth path."""

_LONGEST_BLEND_M = 0.8
_SHORTEST_BLEND_M = 0.03


@dataclass(frozen=True, slots=True)
class Comfort:
    """Distances that a path keeps from obstacles. safe_m: never nearer; comfort_m: no better beyond; weight: of it."""

    safe_m: float
    comfort_m: float
    weight: float


def turning_points(floor: FloorMap, cells_xy: F64, comfort: Comfort) -> F64:
    """Few points that stand for a path over cells: (M, 2), from its first point to its last.

    A leg may replace a stretch only where it costs no more, so that shortcuts do not undo the clearance that
    the search paid for, and where the exact geometry lets the robot through.
    """
    points = refine(floor, _shortcut(floor, _bends(cells_xy), comfort), comfort)
    return _shortcut(floor, points, comfort)


def refine(floor: FloorMap, points_xy: F64, comfort: Comfort, rounds: int = 4) -> F64:
    """Move each inner turning point to where its two legs are cheaper: up the distance field, or less aside.

    Cost is length times one plus the clearance penalty. Legs that come too near anything are never taken.
    """
    points = points_xy.copy()
    for step_m in 0.2 * 0.5 ** np.arange(rounds):
        for i in range(1, len(points) - 1):
            before, here, after = points[i - 1 : i + 2]
            inward = _unit((before + after) / 2 - here)
            uphill = _unit(_gradient(floor, here))
            best = _leg_cost(floor, before, here, comfort) + _leg_cost(floor, here, after, comfort)
            for way in (uphill, inward, _unit(uphill + inward)):
                moved = here + step_m * way
                cost = _leg_cost(floor, before, moved, comfort) + _leg_cost(floor, moved, after, comfort)
                if cost < best - 1e-6 and _is_safe(floor, np.array([before, moved, after]), comfort):
                    points[i], best = moved, cost
    return points


def bezier_path(floor: FloorMap, points_xy: F64, comfort: Comfort) -> list[F64]:
    """Round the corners at turning points. Returns smooth pieces, (N, 2) each, that join end to start.

    A corner becomes a quintic Bézier curve of continuous curvature. Its control points lie on the two legs, so
    it stays inside the triangle that it cuts off, and it takes at most half of each leg. One that would leave
    the robot too little room is halved until it fits; if none fits, the corner stays: the piece ends there,
    and the robot turns on the spot.
    """
    pieces: list[F64] = []
    current = [points_xy[:1]]
    for before, corner, after in zip(points_xy[:-2], points_xy[1:-1], points_xy[2:], strict=True):
        curve = _blend(floor, before, corner, after, comfort)
        current.append(corner[None] if curve is None else curve)
        if curve is None:
            pieces.append(_dense(np.concatenate(current)))
            current = [corner[None]]
    pieces.append(_dense(np.concatenate([*current, points_xy[-1:]])))
    return pieces


def sharp_path(points_xy: F64) -> list[F64]:
    """Straight pieces with a turn on the spot at every turning point: no smoothing at all."""
    return [_dense(np.stack(leg)) for leg in pairwise(_bends(points_xy))]


def path_length_m(pieces: list[F64]) -> float:
    """Length of all pieces together."""
    return float(sum(np.linalg.norm(np.diff(piece, axis=0), axis=1).sum() for piece in pieces))


def _blend(floor: FloorMap, before: F64, corner: F64, after: F64, comfort: Comfort) -> F64 | None:
    into, out = _unit(corner - before), _unit(after - corner)
    legs = min(float(np.linalg.norm(corner - before)), float(np.linalg.norm(after - corner)))
    reach = min(legs / 2, _LONGEST_BLEND_M)
    while reach >= _SHORTEST_BLEND_M:
        # Three points on each leg's line: the curvature is 0 at both ends and meets the straight legs smoothly.
        shares = np.array([1.0, 0.6, 0.2])
        control = np.concatenate([corner - reach * shares[:, None] * into, corner + reach * shares[::-1, None] * out])
        curve = _quintic(control, max(8, int(np.ceil(2 * reach / SPACING_M))))
        if _is_safe(floor, curve, comfort):
            return curve
        reach /= 2
    return None


def _quintic(control: F64, segments: int) -> F64:
    t = np.linspace(0.0, 1.0, segments + 1)[:, None]
    binomial = np.array([1, 5, 10, 10, 5, 1])
    k = np.arange(6)
    return np.asarray((binomial * t**k * (1 - t) ** (5 - k)) @ control)


def _shortcut(floor: FloorMap, points: F64, comfort: Comfort) -> F64:
    """Greedily leave out points while the straight leg costs no more than what it replaces."""
    legs = [_leg_cost(floor, a, b, comfort) for a, b in pairwise(points)]
    cost = np.concatenate([[0.0], np.cumsum(legs)])
    kept = [0]
    while kept[-1] < len(points) - 1:
        here = kept[-1]
        for there in range(len(points) - 1, here, -1):
            if there == here + 1:
                break
            budget = 1.001 * (cost[there] - cost[here])
            if np.linalg.norm(points[there] - points[here]) <= budget and (
                _leg_cost(floor, points[here], points[there], comfort) <= budget
                and _is_safe(floor, points[[here, there]], comfort)
            ):
                break
        kept.append(there)
    return points[kept]


def _bends(points: F64) -> F64:
    """The points where the direction changes, and both ends; repeated points are dropped."""
    points = points[np.concatenate([[True], np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-6])]
    if len(points) < 3:
        return points
    step = np.diff(points, axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    turns = np.linalg.norm(np.diff(step, axis=0), axis=1) > 1e-6
    return np.asarray(points[np.concatenate([[True], turns, [True]])])


def _leg_cost(floor: FloorMap, a: F64, b: F64, comfort: Comfort) -> float:
    """Length x (1 + penalty); infinite where the interpolated field says that the robot cannot pass."""
    length = float(np.linalg.norm(b - a))
    count = max(2, int(np.ceil(length / floor.cell_m)) + 1)
    clearance = floor.esdf_at(a + np.linspace(0.0, 1.0, count)[:, None] * (b - a))
    # The field is exact at cell centres and up to a few millimetres off between them.
    if clearance.min() < comfort.safe_m - 0.1 * floor.cell_m:
        return float("inf")
    penalty = clearance_penalty(clearance, comfort.safe_m, comfort.comfort_m)
    return length * (1.0 + comfort.weight * float(penalty.mean()))


def _is_safe(floor: FloorMap, polyline: F64, comfort: Comfort) -> bool:
    return floor.keeps_clear(polyline, comfort.safe_m)


def _gradient(floor: FloorMap, point: F64) -> F64:
    h = floor.cell_m
    x0, x1, y0, y1 = floor.esdf_at(point + h * np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]]))
    return np.array([x1 - x0, y1 - y0]) / (2 * h)


def _unit(vector: F64) -> F64:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))


def _dense(points: F64) -> F64:
    """The same polyline with points no further apart than SPACING_M, and without repeated ones."""
    points = points[np.concatenate([[True], np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-9])]
    parts = [
        a
        + np.linspace(0.0, 1.0, max(1, int(np.ceil(np.linalg.norm(b - a) / SPACING_M))), endpoint=False)[:, None]
        * (b - a)
        for a, b in pairwise(points)
    ]
    return np.concatenate([*parts, points[-1:]])
