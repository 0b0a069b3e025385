"""Of several ways the first that nothing speaks against is taken, and the others are counted by reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow import sim
from nimbusd.stages.workflow.sim.reasons import POSTPONED, REASONS, RETRIED
from nimbusd.stages.workflow.sim.skills.first_free import Hopeless, first_free, reason_of


def test_the_first_way_without_a_fault_is_taken_and_no_later_one_is_asked_for() -> None:
    asked: list[int] = []

    def candidates() -> Iterator[int]:
        for number in range(10):
            asked.append(number)
            yield number

    def plan(number: int) -> str:
        if number < 3:
            raise PlanningFailed("ik_failed" if number else "no_path", "in the way")
        return f"way {number}"

    assert first_free(candidates(), plan) == ("way 3", {"no_path": 1, "ik_failed": 2})
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("failures", "reason"), [(["ik_failed", "ik_failed"], "ik_failed"), (["ik_failed", "no_path"], "no_path")]
)
def test_without_a_way_the_reason_says_whether_one_was_within_reach(failures: list[str], reason: str) -> None:
    def plan(failure: str) -> None:
        raise PlanningFailed(failure, "in the way")

    way, failed = first_free(failures, plan)
    assert way is None
    assert failed.total() == 2
    assert reason_of(failed) == reason


def test_where_no_way_would_do_the_others_are_not_tried() -> None:
    tried: list[int] = []

    def plan(number: int) -> None:
        tried.append(number)
        raise Hopeless("no_path", "the door itself is blocked")

    with pytest.raises(PlanningFailed, match="the door itself is blocked"):
        first_free(range(5), plan)
    assert tried == [0]


def test_every_reason_that_is_raised_has_its_line_and_every_line_is_raised() -> None:
    raised = set()
    for path in Path(sim.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name("PlanningFailed" | "Hopeless"), args=[ast.Constant(reason), *_]):
                    raised.add(reason)
    assert raised == set(REASONS)
    assert set(REASONS) >= RETRIED | POSTPONED
