"""The skill `press`: push a button down."""

from __future__ import annotations

from typing import ClassVar

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim.layout.layout import RelationLayout
from nimbusd.stages.workflow.sim.models.objects import Shape
from nimbusd.stages.workflow.sim.rotation import UP, downward, transform
from nimbusd.stages.workflow.sim.skills.skill import skill
from nimbusd.stages.workflow.sim.skills.touching import STANDOFF_M, Touching
from nimbusd.stages.workflow.sim.workcell.relations import holds
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell


@skill
class Press(Touching):
    """Press a button with closed fingers. Precondition: the hand is empty. Success: it was down."""

    name: ClassVar[str] = "press"
    sentence: ClassVar[str] = "press the {object}"
    done_to: ClassVar[tuple[Shape, ...]] = ("button",)

    def act(self, cell: Workcell) -> None:
        arm, entry = self._arm(cell), cell.object(self.object)
        T = cell.simulation.object_pose(self.object)
        top = T[:3, 3] + entry.size_m[2] / 2 * UP
        above = top + (arm.model.gripper.reach_m + 0.01) * UP
        choices = [
            (transform(downward(yaw), above + STANDOFF_M * UP), transform(downward(yaw), above))
            for yaw in (0.0, 0.8, -0.8, 1.57)
        ]
        self._enter(cell, arm, choices, arm.model.gripper.opening_m[0])
        cell.begin_phase("press", arm)
        cell.note_point("press", f"press {self.object}", "", top, arm, -UP)
        depth = entry.definition.travel + 0.012
        self._shift(cell, arm, -depth * UP, 0.5)
        self._leave(cell, arm)

    def verify(self, cell: Workcell) -> None:
        if not holds(cell, RelationLayout(self.object, "pressed", "")):
            raise PlanningFailed("skill_failed", f"{self.object} was not pressed down")
