"""Tasks that cannot be done are refused soon: what is known without a layout by `check`, the rest by counted effort."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from nimbusd.cli import cli
from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim import impossibilities, parse_task, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.models.robots import ROBOTS
from nimbusd.stages.workflow.sim.motion import search
from nimbusd.stages.workflow.sim.motion.kinematics import ArmKinematics
from nimbusd.stages.workflow.sim.motion.search import Search, find_path
from nimbusd.stages.workflow.sim.task.feasible import bare_world
from nimbusd.stages.workflow.sim.workcell import workcell
from tests.benchmarks.refusals import CASES, CUBE, PICK, refused, task
from tests.support.manip_worlds import require_simulation
from tests.support.slow import slow

require_simulation()
pytestmark = pytest.mark.mujoco

EXAMPLES = Path(__file__).parents[5] / "examples"

BY_CHECK = {
    "slot out of reach": (("slots", 0), "no arm of the robot reaches any of slot 'cube'"),
    "region out of reach": (("regions", 0), "no arm of the robot reaches any of region 'area'"),
    "home outside limits": (("robots", "mine", "arms", "arm", "home"), r"joint4 at 0\.5 \(limits -3\.\d+ to -0\.\d+\)"),
    "home in the table": (("robots", "mine", "arms", "arm", "home"), "table touches robot/arm"),
    "home in itself": (("robots", "mine", "arms", "arm", "home"), r"posture of arm .arm., robot0/link\d touches"),
    "wider than the gripper": (("skills", 0, "with", "object"), r"12 x 12 x 12 cm.* opens 8 cm; give it a smaller"),
    "too heavy": (("skills", 0, "with", "object"), r"weighs \d+ N, more than the gripper's force_n can hold"),
    "container too small": (("skills", 1, "with", "reference"), r"nothing that '\$cube' may be fits into '\$bin'"),
    "too many for the slot": (("slots", 0, "count"), "no room for 9 things"),
}
BY_PARSING = {"immovable": "'cube' stands still"}
LATER = {
    "slot mostly out of reach": ("layout", "no_layout"),
    "goal out of reach": ("plan", "ik_failed"),
    "drawer looks away": ("plan", "ik_failed"),
    "drawer blocked": ("plan", "ik_failed"),
    "a little too many for the slot": ("layout", "no_layout"),
    "goal holds from the start": ("layout", "no_layout"),
    "walled in": ("plan", "no_grasp"),
    "pose out of reach": ("plan", "ik_failed"),
    "pose in the table": ("plan", "ik_failed"),
}


@pytest.mark.parametrize("case", BY_CHECK)
def test_what_no_layout_can_mend_is_told_with_its_place(case: str) -> None:
    path, words = BY_CHECK[case]
    (mistake,) = impossibilities(parse_task(CASES[case]()))
    assert mistake.path == path
    with pytest.raises(PlanningFailed, match=words) as failed:
        randomize_layout(parse_task(CASES[case]()), np.random.default_rng(0))
    assert failed.value.reason == "impossible"


@pytest.mark.parametrize("case", BY_PARSING)
def test_what_a_task_file_shows_is_a_mistake(case: str) -> None:
    row = refused(CASES[case](), 0)
    assert (row.by, row.reason) == ("check", "mistake")
    assert BY_PARSING[case] in row.words


@slow
@pytest.mark.parametrize("case", LATER)
def test_what_a_layout_shows_is_refused_with_its_reason(case: str) -> None:
    row = refused(CASES[case](), 0)
    assert (row.by, row.reason) == LATER[case]


def test_every_case_of_the_benchmark_is_looked_at() -> None:
    assert {*BY_CHECK, *BY_PARSING, *LATER} == set(CASES)


def test_check_tells_it_with_the_line(tmp_path: Path) -> None:
    config = yaml.safe_dump({"tasks": [task([PICK], [{**CUBE, "x_m": [1.05, 1.1]}])]})
    (tmp_path / "tasks.yaml").write_text(config)
    job = yaml.safe_load((EXAMPLES / "genmanip_pick_place.yaml").read_text())
    job["scenes"] = [{"name": "far", "cfg_path": "tasks.yaml"}]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done = CliRunner().invoke(cli, ["check", str(tmp_path / "job.yaml"), "--output", str(tmp_path / "out")])
    text = " ".join(done.output.split())
    assert done.exit_code == 2
    assert "no arm of the robot reaches any of slot 'cube' (x_m 1.05 to 1.1" in text
    assert "(line " in text


@pytest.mark.parametrize(
    ("name", "robot"),
    [("fixtures", "franka"), *((name, robot) for name in ("pick_place", "sort_trash") for robot in ROBOTS)],
)
def test_nothing_is_impossible_about_the_examples_with_the_robots_they_are_laid_out_for(name: str, robot: str) -> None:
    for config in yaml.safe_load((EXAMPLES / "manipulation" / f"{name}.yaml").read_text())["tasks"]:
        assert impossibilities(parse_task({**config, "robot": robot})) == ()


def test_a_slot_of_which_a_corner_is_reached_or_one_thing_fits_is_possible() -> None:
    assert impossibilities(parse_task(task([PICK], [{**CUBE, "x_m": [0.5, 1.15]}]))) == ()
    mixed = {"name": "cube", "models": ["bin", "cube"], "fixed": False}
    assert impossibilities(parse_task(task([PICK], [mixed]))) == ()


def test_links_reach_no_farther_than_they_are_long() -> None:
    world = bare_world(parse_task(task([PICK], [CUBE])))
    kinematics = ArmKinematics(world, world.arm(""))
    rng, arm = np.random.default_rng(0), world.arm("")
    for _ in range(200):
        assert not kinematics.farther_than_it_reaches(kinematics.tcp(rng.uniform(arm.lower, arm.upper))[:3, 3])
    assert kinematics.farther_than_it_reaches(np.array([1.6, 0.0, 1.0]))


def test_a_call_gives_up_after_so_much_counted_effort_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CASES["goal out of reach"]()

    def failure() -> PlanningFailed:
        rng = np.random.default_rng(0)
        layout = randomize_layout(parse_task(config), rng)
        with pytest.raises(PlanningFailed) as failed:
            plan_episode(parse_task(config), layout, rng)
        return failed.value

    monkeypatch.setattr(workcell, "EFFORT", 5000)
    first = failure()
    assert first.reason == "ik_failed"
    assert "given up after" in first.detail
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    assert str(failure()) == str(first)


def test_a_search_ends_after_so_many_states() -> None:
    asked = 0

    def free(joints: Any) -> bool:
        nonlocal asked
        asked += 1
        return bool(abs(joints[0]) > 0.01)  # a wall between start and goal

    bounds, limit = (-np.ones(2), np.ones(2)), 300
    found = find_path(np.array([-0.5, 0.0]), np.array([0.5, 0.0]), bounds, free, 0.01, np.random.default_rng(0),
                      Search(states=limit))  # fmt: skip
    assert found is None
    assert limit <= asked < limit + 400
    assert search.Search().states > limit
