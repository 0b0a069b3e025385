"""Bins and drawers: what things lie in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.models.fixtures import WALL_M, tray_m
from nimbusd.stages.workflow.sim.rotation import transform
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell

_COVER_SPARE_M = 0.004


@dataclass(frozen=True)
class Container:
    """A space with walls, as it is now. T_world_floor: (4, 4) the middle of its floor, z up.

    half: (2,) half its inner edges. rim_m: height of its walls above the floor.
    low, high: (2,) corners of the part of the floor that nothing covers from above, in the floor's frame.
    """

    T_world_floor: F64
    half: F64
    rim_m: float
    low: F64
    high: F64

    @property
    def covered(self) -> bool:
        """True where something covers a part of the floor."""
        return bool((self.high < self.half).any())


def container(cell: Workcell, name: str) -> Container:
    """The space inside an object. Raises PlanningFailed('precondition') for one that nothing lies in."""
    entry = cell.object(name)
    x, y, z = entry.size_m
    shape = entry.definition.shape
    T = cell.simulation.object_pose(name)
    if shape == "bin":
        half = np.array([x / 2 - WALL_M, y / 2 - WALL_M])
        return Container(T @ transform(None, (0, 0, WALL_M - z / 2)), half, z - WALL_M, -half, half)
    if shape == "drawer":
        (ix, iy, iz), middle_x = tray_m(entry.size_m)
        half = np.array([ix / 2 - WALL_M, iy / 2 - WALL_M])
        moved = middle_x - cell.simulation.joint_of(name)
        front = -x / 2 - _COVER_SPARE_M - moved  # where the cabinet begins to cover it
        high = np.array([min(half[0], front), half[1]])
        return Container(T @ transform(None, (moved, 0, WALL_M - iz / 2)), half, 0.7 * iz - WALL_M, -half, high)
    raise PlanningFailed("precondition", f"{name!r} is a {entry.category}, not a container that things lie in")
