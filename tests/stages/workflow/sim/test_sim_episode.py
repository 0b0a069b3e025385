"""Episodes in simulation: planned, recorded, judged; the same again in another process; failures by reason."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from nimbusd.stages.errors import AssetError, BackendUnavailable, PlanningFailed
from nimbusd.stages.workflow.sim import REASONS, Pose, RelationLayout, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.motion.planner import MotionLimits, check_trajectory
from nimbusd.stages.workflow.sim.rotation import UP, about, downward, transform
from nimbusd.stages.workflow.sim.skills.skill import make_skill
from nimbusd.stages.workflow.sim.workcell.relations import holds, resting_spots, settled
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.simulation import Command, Simulation
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.support.manip_worlds import cube_into_area, planned, put, require_simulation, task_of

require_simulation()
pytestmark = pytest.mark.mujoco
CUBE = [{"name": "cube", "models": ["cube"], "x_m": [0.42, 0.5], "y_m": [-0.1, 0.1]}]
NEAR = {"x_m": [0.45, 0.5], "y_m": [-0.1, 0.1], "yaw_rad": [-0.2, 0.2]}
FAR = {"x_m": [0.66, 0.7], "y_m": [-0.1, 0.1], "yaw_rad": [-0.2, 0.2]}


def cell_of(task: Any, seed: int = 0) -> Workcell:
    rng = np.random.default_rng(seed)
    cell = Workcell.open(build_world(randomize_layout(task, rng)), rng, lambda: None)
    cell.simulation.settle(10)
    return cell


def reason_of(task: Any, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    with pytest.raises(PlanningFailed) as failure:
        plan_episode(task, randomize_layout(task, rng), rng)
    assert failure.value.reason in REASONS
    return failure.value.reason


def test_an_episode_picks_lifts_and_places_and_its_phases_tile_it() -> None:
    _, layout, demo = planned()
    assert demo.reached == ("cube in area",)
    names = [phase.name for phase in demo.phases]
    assert names == ["reach", "approach", "grasp", "lift", "carry", "lower", "release", "retreat", "rest"]
    assert demo.phases[0].start == 0
    assert demo.phases[-1].stop == len(demo)
    assert all(a.stop == b.start for a, b in zip(demo.phases, demo.phases[1:], strict=False))
    height = demo.T_world_object["cube"][:, 2, 3] - layout.object("cube").size_m[2] / 2 - layout.table.height_m
    assert height[demo.phases[2].stop - 1] == pytest.approx(0, abs=0.002)  # still on the table when the fingers close
    assert height[demo.phases[3].stop - 1] > 0.08  # lifted
    assert height[-1] == pytest.approx(0, abs=0.002)
    assert height.min() > -0.002  # never in the table
    grasp = next(point for point in demo.keypoints if point.kind == "grasp")
    assert demo.phases[2].start == grasp.row


def test_every_command_stands_in_the_row_whose_state_it_answers_and_the_next_row_is_its_result() -> None:
    _, layout, demo = planned()
    simulation = Simulation(build_world(layout))
    trace = demo.arms["arm"]

    def command(row: int) -> dict[str, Command]:
        return {"arm": Command(trace.joint_command[row], float(trace.opening_command[row]))}

    worst = 0.0
    for row in range(1, demo.phases[1].stop - 1):  # nothing is touched yet, so that solver memory does not matter
        put(simulation, demo.qpos[row], demo.qvel[row])
        simulation.commands = command(row - 1)
        simulation.step(command(row))
        worst = max(
            worst, float(np.abs(simulation.joints(simulation.world.arms["arm"]) - trace.joint_position[row + 1]).max())
        )
    assert worst < 1e-4
    moved = np.abs(np.diff(trace.joint_position, axis=0)).max()
    assert moved > 100 * 1e-4  # a shift by one row would have been seen
    assert np.array_equal(trace.joint_command[-1], trace.joint_command[-2])


def test_the_same_task_layout_and_seed_give_the_same_bytes_in_another_process() -> None:
    task, layout, demo = planned()
    script = (
        "import hashlib; from tests.support.manip_worlds import planned; d = planned()[2]; "
        "print(hashlib.sha256(d.qpos.tobytes() + d.qvel.tobytes() + d.arms['arm'].joint_command.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    mine = demo.qpos.tobytes() + demo.qvel.tobytes() + demo.arms["arm"].joint_command.tobytes()
    assert hashlib.sha256(mine).hexdigest() == other
    rng = np.random.default_rng(1)
    assert randomize_layout(task, rng) == layout
    assert randomize_layout(task, np.random.default_rng(2)) != layout


@pytest.mark.parametrize("robot", ["ur5e", "sawyer"])
def test_other_arms_do_the_same_task_from_configuration(robot: str) -> None:
    task = cube_into_area(robot)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        demo = plan_episode(task, randomize_layout(task, rng), rng)
        assert demo.reached == ("cube in area",)


def test_a_dual_arm_robot_moves_both_arms_home_and_picks_with_the_nearer_one() -> None:
    slots = [{"name": "cube", "models": ["cube"], "x_m": [0.45, 0.5], "y_m": [0.2, 0.3]}]
    skills: list[dict[str, Any]] = [
        {"skill": "pick", "object": "$cube"},
        {"skill": "goto_pose", "arm": "right", "position_m": [0.5, -0.3, 0.3]},
    ]
    task = task_of(skills, slots, robot="dual_franka", goals=[{"subject": "$cube", "relation": "lifted"}])
    rng = np.random.default_rng(0)
    demo = plan_episode(task, randomize_layout(task, rng), rng)
    assert set(demo.arms) == {"left", "right"}
    assert {phase.arm for phase in demo.phases if phase.skill == "pick"} == {"left"}
    assert np.abs(demo.arms["right"].joint_position[-1] - demo.arms["right"].joint_position[0]).max() > 0.1
    home = task_of([{"skill": "home"}], slots, robot="dual_franka")
    demo = plan_episode(home, randomize_layout(home, rng), rng)
    for name, arm in home.robot_model().arms.items():
        assert demo.arms[name].joint_position[-1] == pytest.approx(np.asarray(arm.home), abs=0.05)


@pytest.mark.parametrize(
    ("skill", "model", "place", "relation", "joint"),
    [
        ("open", "drawer", FAR, "open", 0.0),
        ("close", "drawer", FAR, "closed", 0.8),
        ("press", "button", NEAR, "pressed", 0.0),
        ("rotate", "knob", NEAR, "turned", 0.0),
    ],
)
def test_skills_on_fixtures_move_their_joints(
    skill: str, model: str, place: dict[str, Any], relation: str, joint: float
) -> None:
    task = task_of(
        [{"skill": skill, "object": "$thing"}],
        [{"name": "thing", "models": [model], "joint": joint, **place}],
        goals=[{"subject": "$thing", "relation": relation}],
    )
    rng = np.random.default_rng(0)
    demo = plan_episode(task, randomize_layout(task, rng), rng)
    assert demo.reached == (f"thing {relation} ",)
    assert np.ptp(demo.joints["thing"]) > 0.005


def test_push_moves_a_cube_to_the_left_without_lifting_it() -> None:
    task = task_of([{"skill": "push", "object": "$cube", "direction": "left_of", "distance_m": 0.1}], CUBE)
    rng = np.random.default_rng(0)
    demo = plan_episode(task, randomize_layout(task, rng), rng)
    way = demo.T_world_object["cube"][-1, :3, 3] - demo.T_world_object["cube"][0, :3, 3]
    assert 0.05 < way[1] < 0.2
    assert np.ptp(demo.T_world_object["cube"][:, 2, 3]) < 0.02


def test_an_item_that_something_is_in_the_way_of_waits_until_the_others_are_done() -> None:
    task = task_of(
        [
            {"skill": "pick", "for_each": "items", "object": "$item"},
            {"skill": "place", "for_each": "items", "object": "$item", "relation": "in", "reference": "$bin"},
        ],
        [
            {"name": "items", "models": ["cube"], "count": [2, 2], "x_m": [0.45, 0.5], "y_m": [-0.1, 0.1]},
            {"name": "bin", "models": ["bin"], "x_m": [0.45, 0.5], "y_m": [0.35, 0.4], "yaw_rad": [0, 0]},
        ],
        goals=[{"for_each": "items", "subject": "$item", "relation": "in", "reference": "$bin"}],
    )
    rng = np.random.default_rng(3)
    layout = randomize_layout(task, rng)
    assert [(call.block, call.item) for call in layout.skills] == [(1, 0), (1, 0), (1, 1), (1, 1)]
    # The second cube stands on the first, which therefore cannot be picked before it.
    first, second = layout.object("items_1"), layout.object("items_2")
    low = replace(first, size_m=(0.05, 0.05, 0.03), pose=Pose((0.45, 0.0, layout.table.height_m + 0.0155)))
    high = replace(second, size_m=(0.05, 0.05, 0.05), pose=Pose((0.45, 0.0, layout.table.height_m + 0.056)))
    stacked = replace(layout, objects=tuple({"items_1": low, "items_2": high}.get(o.name, o) for o in layout.objects))
    demo = plan_episode(task, stacked, rng)
    assert demo.facts["postponed"] >= 1
    picks = [phase.call for phase in demo.phases if phase.name == "lift"]
    assert picks == [2, 0]
    assert len(demo.reached) == 2


def test_skills_that_do_not_fit_the_state_fail_with_precondition() -> None:
    both = [*CUBE, {"name": "bin", "models": ["bin"], "x_m": [0.45, 0.5], "y_m": [0.4, 0.45]}]
    place = [{"skill": "place", "object": "$cube", "relation": "in", "reference": "$bin"}]
    assert reason_of(task_of(place, both)) == "precondition"
    twice: list[dict[str, Any]] = [{"skill": "pick", "object": "$cube"}, {"skill": "gripper", "openness": 1.0}]
    assert reason_of(task_of(twice, CUBE)) == "precondition"


def test_a_goal_that_the_skills_do_not_bring_about_is_not_reached() -> None:
    task = task_of([{"skill": "home"}], CUBE, goals=[{"subject": "$cube", "relation": "lifted"}])
    assert reason_of(task) == "goal_not_reached"


def test_things_mostly_beyond_reach_or_without_room_give_no_layout() -> None:
    away = [{"name": "cube", "models": ["cube"], "x_m": [0.7, 2.8], "y_m": [-2.4, 2.4]}]
    wide = {"table": {"size_m": [5, 5]}}
    with pytest.raises(PlanningFailed, match=r"no_layout: .*no arm reaches cube"):
        randomize_layout(task_of([{"skill": "pick", "object": "$cube"}], away, **wide), np.random.default_rng(0))
    crowd = [{"name": "cube", "models": ["cube"], "count": [9, 9], "x_m": [0.4, 0.55], "y_m": [0, 0.15]}]
    with pytest.raises(PlanningFailed, match=r"no_layout: .*no room"):
        randomize_layout(task_of([{"skill": "home"}], crowd), np.random.default_rng(0))


def test_a_trajectory_through_the_table_fails_the_recheck_and_would_be_a_forbidden_contact() -> None:
    cell = cell_of(task_of([{"skill": "home"}], CUBE))
    arm = cell.world.arm("")
    below = transform(downward(0.0), [0.45, -0.3, 0.65])
    goal = cell.kinematics["arm"].solve(below, cell.commanded(arm))
    assert goal is not None
    cell.allow(arm)
    limits: MotionLimits = cell.limits(arm)
    positions = limits.time(np.array([cell.commanded(arm), goal]))
    with pytest.raises(PlanningFailed, match=r"collision_in_recheck.*table"):
        check_trajectory(positions, cell.checker)
    with pytest.raises(PlanningFailed, match="forbidden_contact"):
        cell.run(arm, positions)


def test_the_planner_finds_a_way_around_a_wall_and_the_same_one_again() -> None:
    wall = [{"name": "wall_of_cubes", "models": ["cube"], "fixed": True, "size_m": [0.25, 0.03, 0.35],
             "x_m": [0.5, 0.5], "y_m": [0, 0], "yaw_rad": [0, 0]}]  # fmt: skip
    task = task_of([{"skill": "home"}], wall, randomize={"robot_rad": 0.0})
    ways = []
    for _ in range(2):
        cell = cell_of(task)
        arm = cell.world.arm("")
        sides = []
        for y in (-0.2, 0.2):
            pose = transform(downward(0.0), [0.5, y, 0.9])
            cell.allow(arm, clearance_m=0.004)
            free = [
                q for q in cell.kinematics["arm"].solve_any(pose, cell.commanded(arm), cell.rng) if cell.checker.free(q)
            ]
            sides.append(free[0])
        plan = cell.planners["arm"].plan_joints(sides[0], sides[1], cell.limits(arm), cell.checker, cell.rng)
        assert cell.checker.first_touch(np.array(sides), 0.02) is not None  # the straight way is blocked
        assert cell.checker.first_touch(plan.positions, 0.004) is None
        speed = np.abs(np.diff(plan.positions, axis=0)).max(axis=0) / plan.step_s
        assert (speed <= np.asarray(arm.model.velocity) * 1.05).all()
        ways.append(plan.positions)
    assert np.array_equal(ways[0], ways[1])


def test_a_simulation_that_diverges_is_a_failure_and_not_a_silent_restart(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning into the current folder
    cell = cell_of(task_of([{"skill": "home"}], CUBE))
    put(cell.simulation, cell.simulation.qpos, np.full(cell.world.model.nv, 1e12))
    with pytest.raises(PlanningFailed, match="unstable"):
        cell.wait(cell.world.arm(""), 1)


def test_a_rolled_back_simulation_goes_on_as_if_nothing_had_happened() -> None:
    cell = cell_of(task_of([{"skill": "home"}], CUBE))
    arm = cell.world.arm("")
    point = cell.checkpoint()
    ends = []
    for _ in range(2):
        cell.wait(arm, 5)
        cell.grip_to(arm, 0.0, 5)
        ends.append((cell.simulation.qpos, len(cell.simulation.rows)))
        cell.rollback(point)
    assert np.array_equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


@pytest.mark.parametrize("kind", ["left_of", "right_of", "behind", "in_front_of", "near", "on", "in"])
def test_spots_drawn_for_a_relation_fulfil_it(kind: str) -> None:
    reference = "bin" if kind == "in" else "block"
    slots = [
        {"name": "cube", "models": ["cube"], "size_m": [0.03] * 3, "x_m": [0.36, 0.37], "y_m": [0.3, 0.32]},
        {"name": "ref", "models": [reference], "x_m": [0.5, 0.55], "y_m": [-0.05, 0.05], "yaw_rad": [0, 0]},
    ]
    cell = cell_of(task_of([{"skill": "home"}], slots))
    relation = RelationLayout("cube", kind, "ref")
    assert not holds(cell, relation)
    index, count = cell.world.objects["cube"], 0
    for spot, _ in resting_spots(cell, "cube", relation, 10):
        count += 1
        probe = Simulation(cell.world)
        qpos = probe.qpos
        qpos[index.free_q : index.free_q + 7] = [*(spot + 0.0155 * UP), 1, 0, 0, 0]
        put(probe, qpos)
        probe.settle(6)
        assert holds(replace(cell, simulation=probe), relation), spot
    assert count


def test_a_user_supplied_grasp_is_taken(tmp_path: Any) -> None:
    rotation = about((1, 0, 0), np.pi)
    np.savez(tmp_path / "mine.npz", T_object_tcp=transform(rotation)[None], width_m=np.array([0.04]))
    task = task_of([{"skill": "pick", "object": "$cube", "grasps": str(tmp_path / "mine.npz")}], CUBE)
    rng = np.random.default_rng(0)
    demo = plan_episode(task, randomize_layout(task, rng), rng)
    assert demo.keypoints[0].position == pytest.approx((0, 0, 0))
    assert demo.keypoints[0].width_m == pytest.approx(0.04)


def test_a_layout_whose_objects_topple_or_overlap_is_refused() -> None:
    task, layout, _ = planned()
    cube = layout.object("cube")
    raised = replace(cube, pose=Pose((*cube.pose.position[:2], cube.pose.position[2] + 0.2)))
    with pytest.raises(PlanningFailed, match="no_layout"):
        plan_episode(task, replace(layout, objects=(raised,)), np.random.default_rng(0))
    with pytest.raises(ValueError, match="belongs to task"):
        plan_episode(task, replace(layout, task="other"), np.random.default_rng(0))


def test_a_skill_that_fails_for_good_leaves_the_state_of_its_last_try_only() -> None:
    cell = cell_of(task_of([{"skill": "home"}], CUBE))
    point = len(cell.simulation.rows)
    with pytest.raises(PlanningFailed):
        make_skill("goto_pose", {"position_m": [2.0, 0.0, 0.5]}).perform(cell)
    assert len(cell.simulation.rows) == point


def test_curobo_without_a_gpu_is_one_clear_sentence_and_nothing_else_changes() -> None:
    task, layout, _ = planned()
    with pytest.raises(BackendUnavailable, match=r"cuRobo needs .*; use the planner 'connect'"):
        plan_episode(task.model_copy(update={"planner": "curobo"}), layout, np.random.default_rng(0))


def test_an_object_of_the_users_own_is_a_mesh_file_and_a_missing_one_is_named(tmp_path: Any) -> None:
    corners = [(x, y, z) for x in (0, 40) for y in (0, 30) for z in (0, 50)]  # millimetres, origin at a corner
    hull = ConvexHull(np.array(corners))
    lines = [f"v {x} {y} {z}" for x, y, z in corners]
    outward = []
    for face, equation in zip(hull.simplices, hull.equations, strict=True):
        a, b, c = (np.array(corners[i]) for i in face)
        outward.append(face if np.cross(b - a, c - a) @ equation[:3] > 0 else face[::-1])
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in outward]
    (tmp_path / "brick.obj").write_text("\n".join(lines) + "\n")
    own = {"brick": {"shape": "mesh", "category": "brick", "noun": "brick", "mesh": str(tmp_path / "brick.obj"),
                     "unit_m": 0.001}}  # fmt: skip
    slots = [{"name": "thing", "models": ["brick"], "x_m": [0.45, 0.5], "y_m": [-0.1, 0.1]}]
    task = task_of([{"skill": "pick", "object": "$thing"}], slots, objects=own, randomize={"scale": [1.0, 1.0]},
                   goals=[{"subject": "$thing", "relation": "lifted"}])  # fmt: skip
    rng = np.random.default_rng(0)
    layout = randomize_layout(task, rng)
    assert layout.object("thing").size_m == pytest.approx((0.04, 0.03, 0.05), abs=1e-6)
    assert plan_episode(task, layout, rng).reached == ("thing lifted ",)
    own["brick"]["mesh"] = str(tmp_path / "gone.obj")
    with pytest.raises(AssetError, match=r"gone\.obj is missing"):
        randomize_layout(task_of([{"skill": "home"}], slots, objects=own), rng)


def test_what_trembles_on_its_spot_has_come_to_rest_and_what_falls_or_has_just_come_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = cell_of(task_of([{"skill": "home"}], CUBE))
    arm = cell.world.arm("")
    monkeypatch.setattr(cell.simulation, "speed_of", lambda name: 0.1)
    cell.begin_call("rest", 0, "wait")
    cell.begin_phase("rest", arm, "wait")
    assert not settled(cell, "cube")
    cell.wait(arm, 6)
    assert settled(cell, "cube")
    raised = cell.simulation.qpos
    raised[cell.world.objects["cube"].free_q + 2] += 0.5
    put(cell.simulation, raised)
    cell.wait(arm, 1)
    assert not settled(cell, "cube")
