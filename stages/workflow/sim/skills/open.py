"""The skill `open`: lead the handle of a drawer or a door."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim.layout.layout import RelationLayout
from nimbusd.stages.workflow.sim.skills.handled import Handled
from nimbusd.stages.workflow.sim.skills.skill import skill
from nimbusd.stages.workflow.sim.workcell.relations import holds
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell


@skill
class Open(Handled):
    """Open a drawer or a door by its handle. share: of its travel. Precondition: it is not open. Success: it is."""

    name: ClassVar[str] = "open"
    sentence: ClassVar[str] = "open the {object}"
    share: float = Field(default=0.85, ge=0.65, le=1)

    def check(self, cell: Workcell) -> None:
        super().check(cell)
        if holds(cell, RelationLayout(self.object, "open", "")):
            raise PlanningFailed("precondition", f"{self.object} is open already")

    def verify(self, cell: Workcell) -> None:
        if not holds(cell, RelationLayout(self.object, "open", "")):
            raise PlanningFailed("skill_failed", f"{self.object} is not open afterwards")
