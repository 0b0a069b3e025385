"""From a start and a goal on a floor map to a smooth path that touches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.plan.grid_search import Cell, Search, Window, search, traversal_cost, window_around
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


def explore(floor: FloorMap, comfort: Comfort, start: Cell, reach_m: float) -> Search:
    """Cheapest paths from a cell to all that cost no more than `reach_m`, and to some that cost more.

    A cost is never below the path's length, so that no such path leaves the window of that reach.
    """
    return _search(floor, comfort, start, window_around(floor.shape, start, start, reach_m / floor.cell_m))


def find_way(floor: FloorMap, comfort: Comfort, start: Cell, goal: Cell) -> Search:
    """A cheapest path between two cells of one region.

    It looks at a window around both, and at a larger one while a path beyond it could be cheaper. With d between the
    two and a margin m around them, a path that leaves the window is at least sqrt(d² + 4m²) long, and costs no less.
    """
    apart_m = float(np.hypot(start[0] - goal[0], start[1] - goal[1])) * floor.cell_m
    margin_m = 2.0
    while True:
        window = window_around(floor.shape, start, goal, margin_m / floor.cell_m)
        found = _search(floor, comfort, start, window, goal)
        cost = found.cost_to(goal)
        whole = all(part == slice(0, size) for part, size in zip(window, floor.shape, strict=True))
        if whole or cost <= np.hypot(apart_m, 2 * margin_m):
            return found
        enough_m = float(np.sqrt(cost**2 - apart_m**2)) / 2 + floor.cell_m  # infinite where no way was found
        margin_m = enough_m if np.isfinite(enough_m) else 4 * margin_m


def _search(floor: FloorMap, comfort: Comfort, start: Cell, window: Window, goal: Cell | None = None) -> Search:
    cost = traversal_cost(floor.esdf[window], floor.free[window], comfort.safe_m, comfort.comfort_m, comfort.weight)
    return search(cost, start, floor.cell_m, goal, window)


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
    found = found or find_way(floor, comfort, start_cell, goal_cell)
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
