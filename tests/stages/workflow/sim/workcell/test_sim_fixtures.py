"""Drawers and doors: their handles, what is led by the tool, what they hold, and the space that they need."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim import ObjectLayout, RelationLayout, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.models.fixtures import handle_of, needed_space
from nimbusd.stages.workflow.sim.models.objects import ObjectModel
from nimbusd.stages.workflow.sim.motion.collision import Led
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.rotation import UP, Vector, downward, inverse, transform
from nimbusd.stages.workflow.sim.workcell.containers import container
from nimbusd.stages.workflow.sim.workcell.relations import holds, resting_spots
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.simulation import Simulation
from nimbusd.stages.workflow.sim.world.world import World, build_world
from tests.support.manip_worlds import put, require_simulation, task_of

require_simulation()
pytestmark = pytest.mark.mujoco
PLACE = {"x_m": [0.60, 0.64], "y_m": [-0.05, 0.05], "yaw_rad": [-0.3, 0.3]}


def world_with(model: str, seed: int = 0, slots: tuple[dict[str, Any], ...] = (), **slot: Any) -> World:
    task = task_of([{"skill": "home"}], [{"name": "thing", "models": [model], **PLACE, **slot}, *slots])
    return build_world(randomize_layout(task, np.random.default_rng(seed)))


def shape_of(entry: ObjectLayout) -> tuple[ObjectModel, Vector]:
    return entry.definition, entry.size_m


def cell_of(world: World) -> Workcell:
    cell = Workcell.open(world, np.random.default_rng(0), lambda: None)
    cell.simulation.settle(5)
    return cell


@pytest.mark.parametrize("model", ["drawer", "door", "door_right"])
def test_a_handle_is_where_the_simulator_moves_it_at_every_opening(model: str) -> None:
    mujoco, world = import_mujoco(), world_with(model)
    handle, index = handle_of(*shape_of(world.layout.object("thing"))), world.objects["thing"]
    data = mujoco.MjData(world.model)

    def part(value: float) -> Any:
        data.qpos[:] = world.start
        data.qpos[index.joint_q] = value
        mujoco.mj_kinematics(world.model, data)
        poses = [transform(data.xmat[b].reshape(3, 3), data.xpos[b]) for b in (index.body, index.part)]
        return inverse(poses[0]) @ poses[1]

    fixed = inverse(part(0.0)) @ handle.grip(0.0)  # the grip in the moving part's own frame
    for value in np.linspace(0, handle.travel, 7):
        assert np.allclose(part(float(value)) @ fixed, handle.grip(float(value)), atol=1e-9)
        assert handle.value_of(handle.grip(float(value))[:3, 3]) == pytest.approx(value, abs=1e-9)
    assert handle.value_of(handle.grip(0.0)[:3, 3] + [0.05, 0.0, 0.0]) == 0.0
    assert handle.grip(handle.travel)[0, 3] < handle.grip(0.0)[0, 3]  # it opens towards the robot


def test_doors_turn_about_the_side_that_their_model_names() -> None:
    for model, side in (("door", 1), ("door_right", -1)):
        world = world_with(model, yaw_rad=[0, 0])
        handle = handle_of(*shape_of(world.layout.object("thing")))
        assert np.sign(handle.pivot[1]) == side
        assert np.sign(handle.point[1]) == -side


@pytest.mark.parametrize("model", ["drawer", "door", "door_right"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_space_kept_free_holds_the_fixture_at_any_opening(model: str, share: float) -> None:
    world = world_with(model, joint=share, yaw_rad=[0, 0])
    entry = world.layout.object("thing")
    vertices = cell_of(world).vertices("thing") - np.asarray(entry.pose.position)
    x0, x1, y0, y1 = needed_space(*shape_of(entry))
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    assert x0 <= low[0]
    assert y0 <= low[1]
    assert high[0] <= x1 + 1e-9
    assert high[1] <= y1 + 1e-9


def test_nothing_is_drawn_into_the_way_of_a_door() -> None:
    cube = {"name": "cube", "models": ["cube"], "x_m": [0.35, 0.6], "y_m": [-0.3, 0.3]}
    for seed in range(6):
        world = world_with("door", seed, (cube,), yaw_rad=[0, 0])
        entry, other = world.layout.object("thing"), world.layout.object("cube")
        x, y = np.asarray(other.pose.position[:2]) - np.asarray(entry.pose.position[:2])
        x0, x1, y0, y1 = needed_space(*shape_of(entry))
        assert not (x0 < x < x1 and y0 < y < y1)


def test_a_door_that_the_tool_leads_into_something_is_seen_by_the_checker() -> None:
    cube = {"name": "cube", "models": ["cube"], "x_m": [0.36, 0.37], "y_m": [0.3, 0.32]}
    world = world_with("door", yaw_rad=[0, 0], slots=(cube,))
    cell = cell_of(world)
    arm, entry = world.arm(""), world.layout.object("thing")
    handle, T = handle_of(*shape_of(entry)), cell.simulation.object_pose("thing")
    led = Led("thing", lambda T_tcp: handle.value_of((inverse(T) @ T_tcp)[:3, 3]))

    def touched(value: float, follows: bool) -> tuple[str, str] | None:
        grip = T @ handle.grip(value)
        ways = [grip @ transform(downward(turn)) for turn in (math.pi / 2, -math.pi / 2, 0.0)]
        found = [q for T in ways for q in cell.kinematics["arm"].solve_any(T, cell.commanded(arm), cell.rng)]
        cell.allow(arm, touchable=["thing"], led=led if follows else None)
        return cell.checker.touching(found[0])

    free = world.objects["cube"].free_q
    middle = (T @ np.array([*handle.pivot[:2] - [0.12, 0.0], 0.0, 1.0]))[:2]  # under the door, half open
    qpos = cell.simulation.qpos
    qpos[free : free + 2] = middle
    put(cell.simulation, qpos)
    assert touched(0.3, follows=True) is None
    assert set(touched(1.5, follows=True) or ()) == {"thing", "cube"}
    assert "cube" not in (touched(1.5, follows=False) or ())


def test_what_lies_in_a_drawer_goes_with_it_in_the_simulator_and_in_the_checker() -> None:
    cube = {"name": "cube", "models": ["cube"], "x_m": [0.3, 0.32], "y_m": [0.3, 0.32], "size_m": [0.04] * 3}
    world = world_with("drawer", joint=1.0, yaw_rad=[0, 0], slots=(cube,))
    cell = cell_of(world)
    relation, address = RelationLayout("cube", "in", "thing"), world.objects["cube"].free_q
    assert not holds(cell, relation)
    spots = [spot for spot, _ in resting_spots(cell, "cube", relation, 10)]
    assert spots
    entry = world.layout.object("thing")
    for spot in spots:  # before the cabinet, which covers the rest
        assert spot[0] + 0.02 < entry.pose.position[0] - entry.size_m[0] / 2
        probe = Simulation(world)
        qpos = probe.qpos
        qpos[address : address + 3] = spot + 0.021 * UP
        put(probe, qpos)
        probe.settle(8)
        there = replace(cell, simulation=probe)
        assert holds(there, relation)
        assert probe.riders("thing") == ("cube",)
    closed = replace(cell, simulation=Simulation(world))
    qpos = closed.simulation.qpos
    qpos[world.objects["thing"].joint_q] = 0.0
    put(closed.simulation, qpos)
    assert container(closed, "thing").covered
    assert list(resting_spots(closed, "cube", relation, 10)) == []


@pytest.mark.parametrize(
    ("skill", "model", "joint"),
    [("open", "door", 0.0), ("close", "door", 0.8), ("open", "door_right", 0.0), ("close", "door_right", 0.8)],
)
def test_a_door_is_opened_and_closed_by_its_handle_held_from_both_sides(skill: str, model: str, joint: float) -> None:
    relation = {"open": "open", "close": "closed"}[skill]
    task = task_of(
        [{"skill": skill, "object": "$thing"}],
        [{"name": "thing", "models": [model], "joint": joint, **PLACE}],
        goals=[{"subject": "$thing", "relation": relation}],
    )
    rng = np.random.default_rng(0)
    layout = randomize_layout(task, rng)
    demo = plan_episode(task, layout, rng)
    assert demo.reached == (f"thing {relation} ",)
    swing = next(phase for phase in demo.phases if phase.name == "swing")
    handle = handle_of(*shape_of(layout.object("thing")))
    T_object_tcp = inverse(layout.object("thing").pose.matrix()) @ demo.arms["arm"].T_world_tcp
    rows = range(swing.start, swing.stop)
    off = [
        np.linalg.norm((T_object_tcp[row] - handle.grip(float(demo.joints["thing"][row])))[:3, 3]) for row in rows
    ]  # fmt: skip
    assert max(off) < 0.012  # the handle stays between the fingers all the way
    assert (demo.arms["arm"].opening[list(rows)] > handle.width_m - 0.004).all()
    still = demo.joints["thing"][: next(phase for phase in demo.phases if phase.name == "grasp").start]
    assert np.ptp(still) < 0.01  # nothing but the held handle moves the door
    touched = {frozenset((event.a, event.b)) for event in demo.contacts}
    assert touched <= {frozenset(("thing", "robot/arm"))}


def test_a_thing_is_put_into_a_drawer_and_shut_in() -> None:
    task = task_of(
        [
            {"skill": "open", "object": "$drawer", "share": 1.0},
            {"skill": "pick", "object": "$cube"},
            {"skill": "place", "object": "$cube", "relation": "in", "reference": "$drawer"},
            {"skill": "close", "object": "$drawer"},
        ],
        [
            {"name": "drawer", "models": ["drawer"], "x_m": [0.65, 0.66], "y_m": [0, 0.05], "yaw_rad": [0, 0.1]},
            {"name": "cube", "models": ["cube"], "x_m": [0.45, 0.5], "y_m": [-0.3, -0.25]},
        ],
        goals=[
            {"subject": "$cube", "relation": "in", "reference": "$drawer"},
            {"subject": "$drawer", "relation": "closed"},
        ],
    )
    rng = np.random.default_rng(0)
    demo = plan_episode(task, randomize_layout(task, rng), rng)
    assert demo.reached == ("cube in drawer", "drawer closed ")
    assert demo.joints["drawer"].max() > 0.12


def test_a_door_with_something_before_it_is_not_opened() -> None:
    task = task_of(
        [{"skill": "open", "object": "$thing", "tries": 1}],
        [
            {"name": "thing", "models": ["door"], **PLACE, "yaw_rad": [0, 0]},
            {"name": "board", "models": ["cube"], "fixed": True, "size_m": [0.03, 0.3, 0.1], "x_m": [0.3, 0.3],
             "y_m": [0.4, 0.5], "yaw_rad": [0, 0]},
        ],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    layout = randomize_layout(task, rng)
    thing, board = layout.object("thing"), layout.object("board")
    x, y, _ = thing.pose.position
    pose = replace(board.pose, position=(x - thing.size_m[0] / 2 - 0.15, y + 0.02, board.pose.position[2]))
    blocked = replace(layout, objects=tuple(replace(o, pose=pose) if o is board else o for o in layout.objects))
    with pytest.raises(PlanningFailed, match=r"no_path: (thing would touch board|board would touch thing) on its way"):
        plan_episode(task, blocked, rng)
