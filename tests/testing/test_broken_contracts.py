"""Every fault is found, and by the line of the contract that is about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nimbusd.testing import LINES, ContractVerdict, TestPlan, check_component
from tests.support.slow import slow
from tests.support.toy_workflow import task_file

BROKEN = "tests.support.broken_contracts"
QUICK = TestPlan(runs=4, twins=0)
TWINS = TestPlan(runs=4, twins=3, kills=0)
LONG = TestPlan(runs=20, twins=0)
KILLS = TestPlan(runs=4, twins=1, kills=2)
IMPATIENT = TestPlan(runs=4, twins=0, beat_timeout_s=1.5)
pytestmark = pytest.mark.processes


CASES = [
    ("NoSuchLoader", "class", QUICK, "has no 'NoSuchLoader'"),
    ("AbstractLoader", "class", QUICK, "does not implement load_asset"),
    ("Path", "class", QUICK, "extends none of the five base classes"),
    ("LooseLoader", "arguments", QUICK, "lets unknown keys pass"),
    ("UnversionedLoader", "arguments", QUICK, "version is 'newest'"),
    ("ListedLoader", "arguments", QUICK, "must be a tuple of module names"),
    ("ShyPlanner", "arguments", QUICK, "gen_sequence(scene, rng) is called with these arguments"),
    ("UnopenedRenderer", "start", QUICK, "ended with status 3"),
    ("DoubleLoader", "results", QUICK, "vertices of object 'triangle' has dtype float64, but must have float32"),
    ("DoubleLoader", "results", QUICK, "the scene is called 'elsewhere'"),
    ("NothingPlanner", "results", QUICK, "it returned None, but must return a Sequence"),
    ("ShortColumnPlanner", "results", QUICK, "action 'action' has 3 rows, but the sequence has 10 frames"),
    ("ShortColumnPlanner", "results", QUICK, "is no rigid transform"),
    ("RaisingPlanner", "results", QUICK, "ValueError: the map is upside down"),
    ("HopelessPlanner", "results", QUICK, "all 4 calls raised PlanningFailed (unreachable)"),
    ("MovingRandomizer", "inputs", QUICK, "changed what it was given"),
    ("ClockPlanner", "same bytes", TWINS, "episode 0 has other bytes in a second process"),
    ("GlobalRandomizer", "same bytes", TWINS, "other bytes in a second process"),
    ("CountingPlanner", "order", TWINS, "in the reverse order"),
    ("OneFolderWriter", "attempts", TWINS, "attempts 1 and 2 of one episode share the folder"),
    ("DatedPublisher", "publish", TWINS, "the same call gave another dataset the second time"),
    ("TearingPublisher", "publish", TWINS, "state.txt has"),
    ("TornWriter", "kill", KILLS, "is not whole"),
    ("DraftingWriter", "kill", KILLS, "was left"),
    ("ParentPlanner", "kill", KILLS, "sleep 1000 (pid"),
    ("HoardingRenderer", "growth", LONG, "memory grow from call to call"),
    ("OpeningPlanner", "growth", LONG, "descriptors grow from call to call"),
    ("ThreadingPlanner", "growth", LONG, "threads grow from call to call"),
    ("ThreadingPlanner", "end", QUICK, "thread 'endless' goes on"),
    ("CrashingLoader", "time", QUICK, "was killed by signal 11"),
    ("HangingPlanner", "time", IMPATIENT, "no sign of progress in a call for 1.5 s"),
    ("HangingPlanner", "beats", IMPATIENT, "gen_sequence"),
    ("SilentPlanner", "beats", IMPATIENT, "where a worker is killed after 1.5 s"),
    ("LitteringPlanner", "end", QUICK, ".map was left"),
    ("StubbornPlanner", "end", QUICK, "the simulator does not answer"),
]
"""A faulty component, the line that finds it, the plan of the trial, and words of the evidence."""


def first_of_each_line() -> list[Any]:
    """All cases; those that are not the first of their line are marked `slow`."""
    first = {line: name for name, line, *_ in reversed(CASES)}
    return [pytest.param(*case, marks=[] if first[case[1]] == case[0] else [slow]) for case in CASES]


@pytest.mark.parametrize(("name", "line", "plan", "words"), first_of_each_line())
def test_a_fault_is_found_by_its_line(name: str, line: str, plan: TestPlan, words: str) -> None:
    report = check_component(f"{BROKEN}:{name}", plan=plan)
    assert report[line].verdict is ContractVerdict.FAILS, str(report)
    assert words in report[line].evidence, str(report)
    others = {finding.line for finding in report.failed} - {line}
    assert others <= ALSO.get(name, set()), str(report)


ALSO = {
    "ToyRenderer": {"results"},
    "UnopenedRenderer": {"results"},
    "HoardingRenderer": {"results"},  # the toy's pictures have a size of their own
    "ShyPlanner": {"results"},
    "ThreadingPlanner": {"growth", "end"},
    "HangingPlanner": {"time", "beats"},
    "TearingPublisher": {"attempts"},
    "ListedLoader": {"start"},
}
"""Lines that a component breaks by the way."""


def test_a_workflow_is_tried_as_a_whole(tmp_path: Path) -> None:
    scene = {"cfg_path": str(task_file(tmp_path))}
    report = check_component(f"{BROKEN}:DriftingWorkflow", scene=scene, plan=TWINS)
    assert report.stage == "workflow"
    assert [finding.line for finding in report.failed] == ["same bytes"], str(report)


def test_what_breaks_nothing_holds_everywhere(tmp_path: Path) -> None:
    report = check_component(f"{BROKEN}:SteadyWriter", plan=TestPlan(runs=8))
    assert not report.failed, str(report)
    assert not report.untried, str(report)
    assert [finding.line for finding in report.findings] == list(LINES)


def test_wrong_arguments_and_scenes_are_findings() -> None:
    report = check_component("NavPlanner", {"fpz": 3}, plan=QUICK)
    assert "did you mean" in report["arguments"].evidence, str(report)
    report = check_component("tests.support.toy:ToyLoader", scene={"sead": 3}, plan=QUICK)
    assert "sead" in report["results"].evidence, str(report)
