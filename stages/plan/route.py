"""From a start and a goal on a floor map to a smooth path that touches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.plan.astar import Cell, Search, search, traversal_cost
from nimbusd.stages.plan.occupancy import FloorMap
from nimbusd.stages.plan.smooth import Comfort, bezier_path, path_length_m, sharp_path, turning_points
from nimbusd.stages.types import F64


@dataclass(frozen=True, slots=True)
class Route:
    """A path without collisions. pieces: smooth (N, 2) polylines in world metres, joined by turns on the spot.

    min_clearance_m: least distance of the robot's axis to an obstacle (furniture as wide as the map's arguments
    make it) or the floor's edge, over every point of the path.
    """

    pieces: tuple[F64, ...]
    length_m: float
    min_clearance_m: float

    @property
    def xy(self) -> F64:
        """(N, 2) all points in order."""
        return np.concatenate(self.pieces)


def explore(floor: FloorMap, comfort: Comfort, start: Cell, goal: Cell | None = None) -> Search:
    """Cheapest paths from a cell, to everything or to one goal; a cost is never below the path's length."""
    cost = traversal_cost(floor.esdf, floor.free, comfort.safe_m, comfort.comfort_m, comfort.weight)
    return search(cost, start, floor.cell_m, goal)


def plan_route(floor: FloorMap, comfort: Comfort, start: F64, goal: F64, found: Search | None = None) -> Route:
    """A smooth path between two points, (2,) world metres each, that stays `comfort.safe_m` from all obstacles.

    found: what `explore` returned for the start's cell, if it was asked already. Raises PlanningFailed with
    start_blocked, goal_blocked, unreachable or collision_after_smoothing.
    """
    for name, xy in (("start", start), ("goal", goal)):
        clearance_m = float(floor.obstacles.clearance(xy[None])[0])
        if not floor.free[floor.cell_of(xy)] or clearance_m < comfort.safe_m:
            raise PlanningFailed(
                f"{name}_blocked",
                f"{name} {_text(xy)} is no place for the robot: its axis needs {comfort.safe_m:.3f} m, but an "
                f"obstacle or the floor's edge is {clearance_m:.3f} m away, or the free space around is too small",
            )
    start_cell, goal_cell = floor.cell_of(start), floor.cell_of(goal)
    if floor.region[start_cell] != floor.region[goal_cell]:
        raise PlanningFailed("unreachable", f"no way leads from {_text(start)} to {_text(goal)} for this robot")
    found = found or explore(floor, comfort, start_cell, goal_cell)
    cells_xy = np.concatenate([start[None], floor.centres(found.path_to(goal_cell)), goal[None]])

    clearance_m = 0.0
    for pieces in _attempts(floor, comfort, cells_xy):
        clearance_m = min(floor.obstacles.path_clearance(piece) for piece in pieces)
        if clearance_m >= comfort.safe_m:
            return Route(tuple(pieces), path_length_m(pieces), clearance_m)
    raise PlanningFailed(
        "collision_after_smoothing",
        f"between {_text(start)} and {_text(goal)} an obstacle would be {clearance_m:.3f} m from the robot's axis",
    )


def _attempts(floor: FloorMap, comfort: Comfort, cells_xy: F64) -> Iterator[list[F64]]:
    """Candidate paths from the most beautiful to the plainest; the caller checks each against the geometry."""
    yield bezier_path(floor, turning_points(floor, cells_xy, comfort), comfort)
    yield bezier_path(floor, cells_xy, comfort)
    yield sharp_path(cells_xy)


def _text(xy: F64) -> str:
    return f"({xy[0]:.2f}, {xy[1]:.2f})"
