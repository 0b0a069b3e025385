"""The skill `goto_pose`: bring the tool somewhere."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.numbers import Angle, Position, Turn
from nimbusd.stages.workflow.sim.rotation import downward, matrix_of, rotation_vector, transform
from nimbusd.stages.workflow.sim.skills.skill import Skill, skill
from nimbusd.stages.workflow.sim.workcell.workcell import CLEARANCE_M, Workcell
from nimbusd.stages.workflow.sim.world.world import ArmIndex

_ARRIVED_M, _ARRIVED_RAD = 0.01, 0.05


@skill
class GotoPose(Skill):
    """Bring the tool to a pose. position_m: from the robot's base, or from the centre of `object` where one is named.

    quaternion: of the tool in the world; without it the tool points down, turned by `yaw_rad`.
    straight: along a line instead of any free way. Success: the tool is there.
    """

    name: ClassVar[str] = "goto_pose"
    sentence: ClassVar[str] = "move the gripper"
    position_m: Position
    object: str = ""
    quaternion: Turn | None = None
    yaw_rad: Angle = 0.0
    straight: bool = False

    def check(self, cell: Workcell) -> None:
        if self.object:
            cell.object(self.object)

    def act(self, cell: Workcell) -> None:
        goal, arm = self._goal(cell), self._arm(cell)
        cell.begin_phase("move", arm)
        if self.straight:
            cell.allow(arm, clearance_m=0.0)
            cell.move_straight(arm, goal)
            return
        cell.allow(arm, clearance_m=CLEARANCE_M)
        planner = cell.planners[arm.name]
        plan = planner.plan_pose(cell.commanded(arm), goal, cell.limits(arm), cell.checker, cell.rng)
        cell.run(arm, plan.positions)

    def verify(self, cell: Workcell) -> None:
        goal, here = self._goal(cell), cell.simulation.tcp(self._arm(cell))
        off = float(np.linalg.norm(goal[:3, 3] - here[:3, 3]))
        turned = float(np.linalg.norm(rotation_vector(goal[:3, :3] @ here[:3, :3].T)))
        if off > _ARRIVED_M or turned > _ARRIVED_RAD:
            raise PlanningFailed("skill_failed", f"the tool is {off * 1000:.0f} mm and {turned:.2f} rad off its goal")

    def _goal(self, cell: Workcell) -> F64:
        origin = cell.simulation.object_pose(self.object)[:3, 3] if self.object else cell.world.T_world_robot[:3, 3]
        rotation = downward(self.yaw_rad) if self.quaternion is None else matrix_of((0, 0, 0), self.quaternion)[:3, :3]
        return transform(rotation, origin + np.asarray(self.position_m))

    def _arm(self, cell: Workcell) -> ArmIndex:
        origin = cell.simulation.object_pose(self.object)[:3, 3] if self.object else cell.world.T_world_robot[:3, 3]
        return cell.choose_arm(self.arm, origin + np.asarray(self.position_m))
