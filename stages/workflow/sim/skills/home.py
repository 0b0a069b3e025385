"""The skill `home`: back to the home posture."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim.skills.skill import Skill, skill
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.world import ArmIndex

_ARRIVED_RAD = 0.05


@skill
class Home(Skill):
    """Bring the arm (every arm, where none is named) to its home posture. Success: it is there."""

    name: ClassVar[str] = "home"
    sentence: ClassVar[str] = "return to the home posture"

    def check(self, cell: Workcell) -> None:
        if self.arm and self.arm not in cell.world.arms:
            raise PlanningFailed("precondition", f"there is no arm {self.arm!r}")

    def act(self, cell: Workcell) -> None:
        for arm in self._arms(cell):
            cell.begin_phase("home", arm)
            cell.move_joints(arm, np.asarray(arm.model.home))

    def verify(self, cell: Workcell) -> None:
        for arm in self._arms(cell):
            off = float(np.abs(cell.simulation.joints(arm) - np.asarray(arm.model.home)).max())
            if off > _ARRIVED_RAD:
                raise PlanningFailed("skill_failed", f"{arm.name} is {off:.2f} rad off its home posture")

    def _arms(self, cell: Workcell) -> list[ArmIndex]:
        return [cell.world.arm(self.arm)] if self.arm else list(cell.world.arms.values())
