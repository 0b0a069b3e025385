"""The skill `push`: move a thing over the table."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.rotation import UP, downward, transform
from nimbusd.stages.workflow.sim.skills.skill import skill
from nimbusd.stages.workflow.sim.skills.touching import STANDOFF_M, Touching
from nimbusd.stages.workflow.sim.workcell.relations import DIRECTIONS, Footprint
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell

_PUSH_SPARE_M = 0.02


@skill
class Push(Touching):
    """Push an object over the table with closed fingers. direction: as the robot sees it. distance_m: how far.

    Precondition: the hand is empty, the object free to move. Success: it moved at least half the distance that way.
    """

    name: ClassVar[str] = "push"
    sentence: ClassVar[str] = "push the {object}"
    moves: ClassVar[bool] = True
    palm: ClassVar[bool] = True
    direction: Literal["left_of", "right_of", "behind", "in_front_of"]
    distance_m: float = Field(default=0.10, gt=0.01, lt=0.4)
    _start: F64 = PrivateAttr(default_factory=lambda: np.zeros(2))

    def check(self, cell: Workcell) -> None:
        super().check(cell)
        if cell.object(self.object).fixed:
            raise PlanningFailed("precondition", f"{self.object} is fixed and cannot be pushed")

    def act(self, cell: Workcell) -> None:
        arm, along = self._arm(cell), self._along(cell)
        self._start = Footprint.of(cell.vertices(self.object)).centre
        mesh = cell.vertices(self.object)
        back = float((mesh[:, :2] @ along[:2]).min() - self._start @ along[:2])
        height = cell.layout.table.height_m + max(arm.model.gripper.reach_m + 0.006, 0.35 * float(np.ptp(mesh[:, 2])))
        reach = 0.5 * arm.model.gripper.thickness_m + _PUSH_SPARE_M
        point = np.array([*(self._start + along[:2] * (back - reach)), height])
        yaw = float(np.arctan2(along[1], along[0]))
        choices = []
        for turn in (yaw, yaw + np.pi, yaw + np.pi / 2, yaw - np.pi / 2):
            T_at = transform(downward(turn), point)
            choices.append((transform(T_at[:3, :3], point + STANDOFF_M * UP), T_at))
        self._enter(cell, arm, choices, arm.model.gripper.opening_m[0])
        cell.begin_phase("push", arm)
        cell.note_point("push", f"push {self.object}", "", np.array([*self._start, height]), arm, along)
        self._shift(cell, arm, along * (self.distance_m + _PUSH_SPARE_M), 0.7)
        self._leave(cell, arm)
        cell.wait(arm, 4)

    def verify(self, cell: Workcell) -> None:
        moved = Footprint.of(cell.vertices(self.object)).centre - self._start
        along = self._along(cell)[:2]
        if moved @ along < 0.5 * self.distance_m:
            raise PlanningFailed(
                "skill_failed",
                f"{self.object} moved {float(moved @ along) * 100:.1f} cm, not {self.distance_m * 100:.0f}",
            )

    def _along(self, cell: Workcell) -> F64:
        forward, left = DIRECTIONS[self.direction]
        return np.asarray(cell.world.T_world_robot[:3, :3] @ np.array([forward, left, 0.0]))
