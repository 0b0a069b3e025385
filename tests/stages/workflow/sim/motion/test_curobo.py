"""The cuRobo adapter against a stand-in that has the calls, robots and limits of its two versions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nimbusd.stages.errors import BackendUnavailable, PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim import randomize_layout
from nimbusd.stages.workflow.sim.motion.collision import Held
from nimbusd.stages.workflow.sim.motion.curobo import CuroboPlanner
from nimbusd.stages.workflow.sim.rotation import downward, transform
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.support.curobo_stand_in import CuroboStandIn
from tests.support.manip_worlds import require_simulation, task_of

require_simulation()
pytestmark = pytest.mark.mujoco
CUBE = [{"name": "cube", "models": ["cube"], "x_m": [0.42, 0.5], "y_m": [-0.1, 0.1]}]


def cell_of(task: Any) -> Workcell:
    rng = np.random.default_rng(0)
    return Workcell.open(build_world(randomize_layout(task, rng)), rng, lambda: None)


@pytest.fixture
def cell() -> Any:
    return cell_of(task_of([{"skill": "home"}], CUBE))


def to(goal: F64) -> Any:
    return lambda start: np.linspace(start, goal, 12)[1:]


def solved(cell: Any, *place: float) -> F64:
    arm = cell.world.arm("")
    joints: F64 | None = cell.kinematics["arm"].solve(transform(downward(0.0), list(place)), cell.commanded(arm))
    assert joints is not None
    return joints


@pytest.mark.parametrize("version", [1, 2])
def test_what_either_version_returns_is_retimed_and_rechecked(
    version: int, cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm, goal = cell.world.arm(""), solved(cell, 0.5, 0.1, 1.0)
    start, curobo = cell.commanded(arm), CuroboStandIn(version, to(goal))
    curobo.install(monkeypatch)
    planner = CuroboPlanner(cell.world, arm)
    assert planner.name == f"curobo {version}"
    cell.allow(arm, clearance_m=0.0)
    here = planner.plan_pose(start, cell.kinematics["arm"].tcp(goal), cell.limits(arm), cell.checker, cell.rng)
    assert np.array_equal(here.positions[-1], goal)
    flange = curobo.goals[0] + cell.world.T_world_robot[:3, 3]
    assert flange == pytest.approx([0.5, 0.1, 1.0 + arm.model.gripper.tcp_m[2]], abs=2e-3)
    below = solved(cell, 0.5, -0.3, 0.65)
    curobo.way = to(below)
    with pytest.raises(PlanningFailed, match="collision_in_recheck"):
        planner.plan_pose(start, cell.kinematics["arm"].tcp(goal), cell.limits(arm), cell.checker, cell.rng)


@pytest.mark.parametrize("version", [1, 2])
def test_every_plan_is_made_in_the_world_as_it_is_then(
    version: int, cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thing that was picked leaves no ghost; what is held or may be touched is no obstacle, the rest is."""
    arm, start = cell.world.arm(""), cell.commanded(cell.world.arm(""))
    home = solved(cell, 0.5, 0.1, 1.0)
    curobo = CuroboStandIn(version, to(home))
    curobo.install(monkeypatch)
    planner = CuroboPlanner(cell.world, arm)
    cube = cell.layout.object("cube").pose.matrix()
    inside = transform(downward(0.0), list(cube[:3, 3])) @ arm.T_ee_tcp  # so that the flange is in the cube

    def plan(**query: Any) -> None:
        cell.checker.set_query(arm, **query)
        planner.plan_pose(start, inside, cell.limits(arm), cell.checker, cell.rng)

    cell.checker.observe(cell.simulation.qpos)
    with pytest.raises(PlanningFailed, match="no_path"):
        plan()
    plan(touchable=["cube"])
    plan(held=Held("cube", np.eye(4)))
    moved = cell.simulation.qpos.copy()
    address = cell.world.objects["cube"].free_q
    moved[address : address + 3] = [0.35, 0.3, 0.9]
    cell.checker.observe(moved)
    plan()
    assert curobo.worlds == [{"table", "cube"}, {"table", "cube"}, {"table"}, {"table"}, {"table", "cube"}]


@pytest.mark.parametrize(("version", "robot"), [(2, "ur5e"), (2, "dual_franka"), (1, "sawyer")])
def test_a_robot_that_a_version_does_not_ship_is_refused_by_name(
    version: int, robot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    CuroboStandIn(version, lambda start: start[None]).install(monkeypatch)
    cell = cell_of(task_of([{"skill": "home"}], CUBE, robot=robot))
    arm = next(iter(cell.world.arms.values()))
    with pytest.raises(BackendUnavailable, match=rf"curobo {version}.*no configuration for robot '{robot}'.*'connect'"):
        CuroboPlanner(cell.world, arm)


def test_our_frankas_hand_lies_as_curobos_spheres_do(cell: Any) -> None:
    """Centres of the spheres of `panda_hand` and of its fingers in cuRobo's franka.yml, in the frame of the hand."""
    hand = [(0.0, y, 0.03) for y in (-0.08, -0.045, -0.015, 0.015, 0.045, 0.08)]
    fingers = [(0.0, 0.05, 0.0584 + 0.043), (0.0, -0.05, 0.0584 + 0.043)]
    for centres, radius_m in ((hand, 0.022), (fingers, 0.011)):
        for point in centres:
            assert hand_distance_m(cell, np.array(point)) < radius_m / 2, point


def hand_distance_m(cell: Any, point: F64) -> float:
    """From a point of the flange's frame to the nearest box around a shape of the open hand; 0 inside."""
    import mujoco

    model, data, arm = cell.world.model, mujoco.MjData(cell.world.model), cell.world.arm("")
    data.qpos[:] = cell.world.start
    data.qpos[arm.fingers_q] = arm.finger_targets(0.08)
    mujoco.mj_kinematics(model, data)
    world = data.xmat[arm.flange].reshape(3, 3) @ point + data.xpos[arm.flange]
    nearest = np.inf
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] in arm.hand_bodies and model.geom_group[geom] == 0:
            centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
            local = data.geom_xmat[geom].reshape(3, 3).T @ (world - data.geom_xpos[geom])
            nearest = min(nearest, float(np.linalg.norm(np.maximum(np.abs(local - centre) - half, 0))))
    return nearest
