"""The skill `gripper`: open or close the fingers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim.skills.skill import Skill, skill
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.world import ArmIndex


@skill
class Gripper(Skill):
    """Open or close the fingers. openness: 0 closed … 1 open.

    Precondition: the hand is empty. Success: they got there.
    """

    name: ClassVar[str] = "gripper"
    sentence: ClassVar[str] = "move the fingers"
    openness: float = Field(ge=0, le=1)
    steps: int = Field(default=24, ge=1, le=120)

    def check(self, cell: Workcell) -> None:
        arm = self._arm(cell)
        if arm.name in cell.grips:
            raise PlanningFailed("precondition", f"{arm.name} holds {cell.grips[arm.name].name}: place it instead")

    def act(self, cell: Workcell) -> None:
        arm = self._arm(cell)
        cell.begin_phase("fingers", arm)
        cell.allow(arm)
        cell.grip_to(arm, self._target(arm), self.steps)

    def verify(self, cell: Workcell) -> None:
        arm = self._arm(cell)
        off = abs(cell.simulation.opening(arm) - self._target(arm))
        if off > 0.008:
            raise PlanningFailed("skill_failed", f"the fingers stopped {off * 1000:.0f} mm short")

    def _target(self, arm: ArmIndex) -> float:
        low, high = arm.model.gripper.opening_m
        return low + self.openness * (high - low)

    def _arm(self, cell: Workcell) -> ArmIndex:
        return cell.choose_arm(self.arm, cell.world.T_world_robot[:3, 3])
