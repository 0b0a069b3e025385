"""BProc3DFrontPlanner: drives between rooms of a 3D-FRONT house, through its doors."""

from __future__ import annotations

import re

import numpy as np
from pydantic import Field

from nimbusd.stages.plan.grid_search import Cell
from nimbusd.stages.plan.nav import NavArgs, NavPlanner
from nimbusd.stages.plan.occupancy import FloorMap
from nimbusd.stages.types import BoolArray


class BProc3DFrontArgs(NavArgs):
    """Arguments of BProc3DFrontPlanner, beyond those of NavPlanner.

    start_rooms, goal_rooms: categories of rooms to begin and end in, any when empty. `bedroom` also means
    `MasterBedroom`: letter case and separators do not matter, and a part of the category is enough.
    different_rooms: start and goal lie in two rooms, so that every path goes through a door.
    min_furniture_clearance_m: what the robot's side keeps from furniture all along the path.
    """

    start_rooms: tuple[str, ...] = ()
    goal_rooms: tuple[str, ...] = ()
    different_rooms: bool = True
    min_furniture_clearance_m: float = Field(default=0.05, ge=0)


class BProc3DFrontPlanner(NavPlanner[BProc3DFrontArgs]):
    """NavPlanner with start and goal in chosen rooms. Reasons are those of NavPlanner.

    A scene without a start room that has free space fails with no_free_space, one whose goal rooms are missing
    or behind closed doors with unreachable.
    """

    args_model = BProc3DFrontArgs

    def start_cells(self, floor: FloorMap) -> BoolArray:
        return floor.free & np.isin(floor.room, _chosen(floor, self.args.start_rooms))

    def goal_cells(self, floor: FloorMap, start: Cell) -> BoolArray:
        cells = floor.free & np.isin(floor.room, _chosen(floor, self.args.goal_rooms))
        if self.args.different_rooms:
            cells &= floor.room != floor.room[start]
        return cells


def _chosen(floor: FloorMap, wanted: tuple[str, ...]) -> list[int]:
    """Indices of the floor's rooms whose category contains one of `wanted`; all when nothing is wanted."""
    words = [_plain(word) for word in wanted]
    return [
        number
        for number, room in enumerate(floor.rooms)
        if not words or any(word in _plain(room.category) for word in words)
    ]


def _plain(category: str) -> str:
    return re.sub(r"[^a-z0-9]", "", category.lower())
