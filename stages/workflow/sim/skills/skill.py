"""`Skill`: what task files compose by name. It checks a precondition, acts, and verifies its own success.

`perform` does the three, and tries again from the same state with other random numbers where a try failed in a way that
another grasp or place may avoid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from nimbusd.stages.arguments import did_you_mean, validate
from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.errors import ComponentError, PlanningFailed
from nimbusd.stages.workflow.sim.models.objects import Shape
from nimbusd.stages.workflow.sim.reasons import RETRIED
from nimbusd.stages.workflow.sim.workcell.workcell import EFFORT, Workcell

CLOSE_STEPS, OPEN_STEPS = 12, 10
"""Control steps that fingers get to close and to open."""

SLIP_M = 0.02
"""Distance that a thing in the hand may have moved since it was gripped."""

FINGER_SPARE_M = 0.024
"""Room that fingers leave around a thing when they open."""


class Skill(ComponentArgs, ABC):
    """Base of the skills: a model of the arguments that a task file gives, with three steps.

    name: the skill in task files.
    sentence: instruction of a call that states none; `{object}` is that argument in words.
    files: arguments that are paths; relative ones start at the task file's folder.
    done_to: shapes that its `object` may have; empty for any.
    moves: True where its `object` must stand free.
    arm: the one that acts; empty picks the nearest.
    tries: from the same state, with other random numbers.
    """

    name: ClassVar[str]
    sentence: ClassVar[str] = ""
    files: ClassVar[tuple[str, ...]] = ()
    done_to: ClassVar[tuple[Shape, ...]] = ()
    moves: ClassVar[bool] = False
    arm: str = ""
    tries: int = Field(default=3, ge=1, le=100)

    @abstractmethod
    def check(self, cell: Workcell) -> None:
        """Raises PlanningFailed('precondition') where the skill does not fit the state."""

    @abstractmethod
    def act(self, cell: Workcell) -> None:
        """Plan and run. Raises PlanningFailed."""

    @abstractmethod
    def verify(self, cell: Workcell) -> None:
        """Raises PlanningFailed where the skill did not reach what it is for."""

    def perform(self, cell: Workcell) -> None:
        """Check, act and verify, with further tries. Raises the last try's PlanningFailed."""
        self.check(cell)
        point = cell.checkpoint()
        problem: PlanningFailed | None = None
        for number in range(self.tries):
            if number:
                cell.rollback(point)
                cell.count("retries")
            try:
                self.act(cell)
                self.verify(cell)
                cell.end_phase()
                return
            except PlanningFailed as error:
                problem = error
                if error.reason not in RETRIED or cell.exhausted:
                    break
        assert problem is not None
        if cell.exhausted:
            tried = f"given up after {EFFORT} postures that were looked at"
            raise PlanningFailed(problem.reason, f"{problem.detail}; {tried}") from problem
        raise problem


SKILLS: dict[str, type[Skill]] = {}
"""Skill name → class."""


K = TypeVar("K", bound=type[Skill])


def skill(kind: K) -> K:
    """Class decorator: enter a skill into `SKILLS` by its name. Raises ComponentError where the name is taken."""
    if kind.name in SKILLS:
        raise ComponentError(f"skill '{kind.name}' is defined twice: {SKILLS[kind.name].__name__} and {kind.__name__}")
    SKILLS[kind.name] = kind
    return kind


def make_skill(name: str, arguments: Mapping[str, Any]) -> Skill:
    """A skill ready to perform. Raises ComponentError for an unknown name, ArgumentsError for bad arguments."""
    if name not in SKILLS:
        raise ComponentError(f"no skill is called '{name}'; {did_you_mean(name, SKILLS)}")
    return validate(SKILLS[name], arguments, f"arguments of skill '{name}'")
