"""Joints without limits: MuJoCo reads their range as 0 … 0, and they must turn all the same."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim import ManipTask, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.motion.search import Search, find_path
from nimbusd.stages.workflow.sim.rotation import downward, transform
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.support.endless_arm import ENDLESS, endless_robot
from tests.support.manip_worlds import require_simulation, task_of

require_simulation()
pytestmark = pytest.mark.mujoco

CUBE: list[dict[str, Any]] = [{"name": "cube", "models": ["cube"], "x_m": [0.4, 0.5], "y_m": [-0.2, -0.1]}]
TURN = 2 * np.pi


def task_with(skills: list[dict[str, Any]], **more: Any) -> ManipTask:
    robot = endless_robot(Path(mkdtemp(prefix="endless_")))
    return task_of(skills, CUBE, robot="mine", robots={"mine": robot}, randomize={"robot_rad": 0.0}, **more)


@cache
def cell() -> Workcell:
    rng = np.random.default_rng(0)
    return Workcell.open(build_world(randomize_layout(task_with([{"skill": "home"}]), rng)), rng, lambda: None)


def home() -> F64:
    return np.asarray(cell().world.arms["arm"].model.home)


def test_a_joint_without_limits_has_none_and_one_with_limits_has_the_files() -> None:
    arm = cell().world.arms["arm"]
    assert np.flatnonzero(arm.endless).tolist() == list(ENDLESS)
    assert np.isinf(arm.lower[list(ENDLESS)]).all()
    assert np.isinf(arm.upper[list(ENDLESS)]).all()
    assert arm.lower[[1, 3, 5]].tolist() == [-2.6] * 3
    assert arm.upper[[1, 3, 5]].tolist() == [2.6] * 3


@pytest.mark.parametrize("seed", range(8))
def test_inverse_kinematics_reaches_postures_in_which_such_joints_are_turned(seed: int) -> None:
    kinematics = cell().kinematics["arm"]
    posture = home() + np.random.default_rng(seed).uniform(-0.6, 0.6, 7)
    goal = kinematics.tcp(posture)
    found = kinematics.solve(goal, home())
    assert found is not None
    assert np.abs(kinematics.tcp(found)[:3, 3] - goal[:3, 3]).max() < 3e-4
    assert np.abs(found[list(ENDLESS)]).max() > 0.05


def test_of_equal_postures_the_one_within_half_a_turn_is_taken() -> None:
    kinematics = cell().kinematics["arm"]
    posture = home() + 0.2
    near = posture + np.array([TURN, 0, -TURN, 0, 2 * TURN, 0, 0])
    solutions = kinematics.solve_any(kinematics.tcp(posture), near, np.random.default_rng(1))
    assert solutions
    for found in solutions:
        assert np.abs((found - near)[list(ENDLESS)]).max() <= np.pi + 1e-9
    assert not any(
        np.abs(np.cos(a - b) - 1).max() < 1e-6 for i, a in enumerate(solutions) for b in solutions[i + 1 :]
    )  # whole turns do not make another solution


def test_the_search_goes_beyond_half_a_turn() -> None:
    """From 3 to 4 rad with a wall at 3.5: the way round leads over the second joint, whose limits hold."""
    start, goal = np.array([3.0, 0.0]), np.array([4.0, 0.0])
    bounds = np.array([-np.inf, -1.0]), np.array([np.inf, 1.0])

    def free(q: F64) -> bool:
        return not (3.4 < q[0] < 3.6 and q[1] < 0.5)

    path = find_path(start, goal, bounds, free, 0.02, np.random.default_rng(0), Search())
    assert path is not None
    assert path[0].tolist() == start.tolist()
    assert path[-1].tolist() == goal.tolist()
    assert np.abs(path[:, 1]).max() <= 1.0


def test_a_planned_reach_to_the_side_turns_the_first_joint() -> None:
    skills: list[dict[str, Any]] = [
        {"skill": "goto_pose", "position_m": [0.1, 0.45, 0.3], "yaw_rad": 0.7},
        {"skill": "goto_pose", "position_m": [0.15, -0.45, 0.25], "yaw_rad": -0.5},
        {"skill": "home"},
    ]
    rng = np.random.default_rng(0)
    task = task_with(skills)
    demo = plan_episode(task, randomize_layout(task, rng), rng)
    joints = demo.arms["arm"].joint_position
    assert np.ptp(joints[:, 0]) > 1.2
    assert np.abs(joints[-1] - home()).max() < 0.05
    stops = [phase.stop for phase in demo.phases if phase.name == "move"]
    reached = demo.arms["arm"].T_world_tcp[stops, :3, 3] - demo.T_world_robot[:3, 3]
    assert np.abs(reached - [[0.1, 0.45, 0.3], [0.15, -0.45, 0.25]]).max() < 0.005


def test_it_picks_and_places() -> None:
    skills = [
        {"skill": "pick", "object": "$cube"},
        {"skill": "place", "object": "$cube", "relation": "in", "reference": "$area"},
    ]
    task = task_with(
        skills,
        regions=[{"name": "area", "x_m": [0.42, 0.5], "y_m": [0.1, 0.2]}],
        goals=[{"subject": "$cube", "relation": "in", "reference": "$area"}],
    )
    for seed in range(2):
        rng = np.random.default_rng(seed)
        assert plan_episode(task, randomize_layout(task, rng), rng).reached == ("cube in area",)


def test_what_is_out_of_reach_stays_so() -> None:
    kinematics, planner = cell().kinematics["arm"], cell().planners["arm"]
    arm = cell().world.arms["arm"]
    goal = transform(downward(0.0), np.array([1.6, 0.0, 1.0]))
    assert kinematics.solve_any(goal, home(), np.random.default_rng(0)) == []
    cell().allow(arm)
    with pytest.raises(PlanningFailed, match="ik_failed"):
        planner.plan_pose(home(), goal, cell().limits(arm), cell().checker, np.random.default_rng(0))
