"""The skill `rotate`: turn a knob."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim.models.objects import Shape
from nimbusd.stages.workflow.sim.rotation import UP, about, downward, transform
from nimbusd.stages.workflow.sim.skills.skill import CLOSE_STEPS, OPEN_STEPS, skill
from nimbusd.stages.workflow.sim.skills.touching import STANDOFF_M, Touching
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell


@skill
class Rotate(Touching):
    """Turn a knob. angle_rad: by how much.

    Precondition: it can still turn that far. Success: it did, within a quarter of the angle.
    """

    name: ClassVar[str] = "rotate"
    sentence: ClassVar[str] = "turn the {object}"
    done_to: ClassVar[tuple[Shape, ...]] = ("knob",)
    angle_rad: float = Field(default=1.2, gt=0.05, le=2.5)
    _start: float = PrivateAttr(default=0.0)

    def check(self, cell: Workcell) -> None:
        super().check(cell)
        left = cell.object(self.object).definition.travel - cell.simulation.joint_of(self.object)
        if self.angle_rad > left:
            raise PlanningFailed(
                "precondition", f"{self.object} turns by {left:.2f} rad more, not by {self.angle_rad:.2f}"
            )

    def act(self, cell: Workcell) -> None:
        arm, entry = self._arm(cell), cell.object(self.object)
        T = cell.simulation.object_pose(self.object)
        self._start = cell.simulation.joint_of(self.object)
        top = T[:3, 3] + (entry.size_m[2] / 2 - 0.006) * UP
        # The grip bar lies along the knob's x: the fingers close across it.
        yaw = float(np.arctan2(T[1, 0], T[0, 0])) + self._start
        choices = []
        for turn in (yaw, yaw + np.pi):
            T_at = transform(downward(turn), top)
            choices.append((transform(T_at[:3, :3], top + STANDOFF_M * UP), T_at))
        self._enter(cell, arm, choices, 0.045)
        cell.begin_phase("grasp", arm)
        cell.note_point("handle", f"grip of {self.object}", "", top, arm, -UP, 0.018)
        cell.allow(arm, touchable=[self.object], palm=self.palm)
        cell.grip_to(arm, arm.model.gripper.opening_m[0], CLOSE_STEPS)
        cell.begin_phase("turn", arm)
        here = cell.commanded_tcp(arm)
        cell.allow(arm, touchable=[self.object], palm=self.palm)
        steps = max(2, int(np.ceil(self.angle_rad / 0.5)))
        for k in range(1, steps + 1):
            turned = about([0, 0, 1], self.angle_rad * k / steps) @ here[:3, :3]
            cell.move_straight(arm, transform(turned, here[:3, 3]), 1.5)
        cell.begin_phase("release", arm)
        cell.grip_to(arm, 0.045, OPEN_STEPS)
        self._leave(cell, arm)

    def verify(self, cell: Workcell) -> None:
        turned = cell.simulation.joint_of(self.object) - self._start
        if abs(turned - self.angle_rad) > 0.25 * self.angle_rad:
            raise PlanningFailed(
                "skill_failed", f"{self.object} turned by {turned:.2f} rad, not by {self.angle_rad:.2f}"
            )
