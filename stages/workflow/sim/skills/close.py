"""The skill `close`: lead the handle of a drawer or a door."""

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
class Close(Handled):
    """Close a drawer or a door by its handle. Precondition: it is not closed. Success: it is."""

    name: ClassVar[str] = "close"
    sentence: ClassVar[str] = "close the {object}"
    share: float = Field(default=0.0, ge=0, le=0.05)

    def check(self, cell: Workcell) -> None:
        super().check(cell)
        if holds(cell, RelationLayout(self.object, "closed", "")):
            raise PlanningFailed("precondition", f"{self.object} is closed already")

    def verify(self, cell: Workcell) -> None:
        if not holds(cell, RelationLayout(self.object, "closed", "")):
            raise PlanningFailed("skill_failed", f"{self.object} is not closed afterwards")
