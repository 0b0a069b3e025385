"""The columns of an arm, checked from outside for every robot: against its own file and against time."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.store.arm_columns import ROBOT_POSE, arm_prefixes
from nimbusd.stages.store.columns import feature_column
from nimbusd.stages.store.poses import euler_rows, inverse, pose_rows, transforms_of
from nimbusd.stages.types import F64, SIMULATION_QPOS, Sequence
from nimbusd.stages.workflow.recorded import sequence_of
from nimbusd.stages.workflow.sim import Layout, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.models.assets import file_of
from nimbusd.stages.workflow.sim.models.robots import ROBOTS, RobotModel
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.support.manip_worlds import require_simulation, task_of

require_simulation()
pytestmark = pytest.mark.mujoco

CUBE: list[dict[str, Any]] = [{"name": "cube", "models": ["cube"], "x_m": [0.45, 0.5], "y_m": [-0.3, -0.2]}]
SKILLS: list[dict[str, Any]] = [
    {"skill": "gripper", "openness": 0.5},
    {"skill": "gripper", "openness": 0.0},
    {"skill": "gripper", "openness": 1.0},
    {"skill": "pick", "object": "$cube"},
]
for_every_robot = pytest.mark.parametrize("robot", sorted(ROBOTS))


@cache
def made(robot: str) -> tuple[Layout, Sequence]:
    """Fingers half open, closed, open; then a cube is picked up."""
    arm = {"arm": "right"} if "right" in ROBOTS[robot].arms else {}
    task = task_of(
        [{**skill, **arm} for skill in SKILLS], CUBE, robot=robot, goals=[{"subject": "$cube", "relation": "lifted"}]
    )
    rng = np.random.default_rng(0)
    layout = randomize_layout(task, rng)
    return layout, sequence_of(plan_episode(task, layout, rng), layout)


def stored(robot: str, key: str) -> F64:
    """(T, n) a column as a dataset has it, in float32."""
    seq = made(robot)[1]
    return np.asarray(feature_column(key, {**seq.states, **seq.actions}[key])[1], np.float64)


def prefixes(robot: str) -> list[str]:
    return arm_prefixes(made(robot)[1].states)


def arm_of(robot: str, prefix: str) -> Any:
    return ROBOTS[robot].arms[prefix.rstrip("_") or "arm"]


def moving(robot: str) -> str:
    """The prefix of the arm that did all of it."""
    return max(
        prefixes(robot), key=lambda prefix: float(np.ptp(stored(robot, f"states.{prefix}joint.position"), 0).max())
    )


def flange_in_base(model: RobotModel, arm: Any, joints: F64) -> F64:
    """(T, 4, 4): by the robot's file alone, with nothing of ours around it."""
    import mujoco

    own = mujoco.MjModel.from_xml_path(file_of(model.parts[arm.part].mjcf))
    data = mujoco.MjData(own)
    poses = np.tile(np.eye(4), (2, len(joints), 1, 1))
    for t, row in enumerate(joints):
        for name, value in zip(arm.joints, row, strict=True):
            data.joint(name).qpos[0] = value
        mujoco.mj_kinematics(own, data)
        for side, body in enumerate((arm.base, arm.flange)):
            poses[side, t, :3, :3] = data.body(body).xmat.reshape(3, 3)
            poses[side, t, :3, 3] = data.body(body).xpos
    return np.asarray(inverse(poses[0]) @ poses[1])


@for_every_robot
def test_stored_poses_are_the_forward_kinematics_of_stored_joints(robot: str) -> None:
    for prefix in prefixes(robot):
        arm = arm_of(robot, prefix)
        for kind in ("states", "actions"):
            wanted = flange_in_base(ROBOTS[robot], arm, stored(robot, f"{kind}.{prefix}joint.position"))
            flange = transforms_of(stored(robot, f"{kind}.{prefix}ee_to_{prefix}armbase_pose"))
            assert np.abs(flange - wanted).max() < 1e-6
            tool = transforms_of(stored(robot, f"{kind}.{prefix}tcp_to_{prefix}armbase_pose"))
            assert np.abs(tool[:, :3, 3] - (wanted @ np.array([*arm.gripper.tcp_m, 1.0]))[:, :3]).max() < 1e-6
            assert np.abs(stored(robot, f"{kind}.{prefix}gripper.pose") - euler_rows(wanted)).max() < 2e-6
        commanded = flange_in_base(ROBOTS[robot], arm, stored(robot, f"master_actions.{prefix}joint.position"))
        assert np.abs(stored(robot, f"master_actions.{prefix}gripper.pose") - euler_rows(commanded)).max() < 2e-6


@for_every_robot
def test_a_pose_in_the_robots_frame_is_the_same_as_in_the_arms(robot: str) -> None:
    for prefix in prefixes(robot):
        part = ROBOTS[robot].parts[arm_of(robot, prefix).part]
        in_base = transforms_of(stored(robot, f"states.{prefix}ee_to_{prefix}armbase_pose"))
        in_robot = transforms_of(stored(robot, f"states.{prefix}ee_to_robot_pose"))
        apart = in_robot @ inverse(in_base)
        assert np.abs(apart - apart[0]).max() < 1e-6
        assert np.abs(apart[0, :2, 3] - part.position[:2]).max() < 1e-6
        commanded = transforms_of(stored(robot, f"master_actions.{prefix}ee_to_robot_pose"))
        in_base = flange_in_base(
            ROBOTS[robot], arm_of(robot, prefix), stored(robot, f"master_actions.{prefix}joint.position")
        )
        assert np.abs(commanded - apart[0] @ in_base).max() < 2e-6


@for_every_robot
def test_actions_are_the_states_one_frame_later_and_commands_come_before_what_they_bring_about(robot: str) -> None:
    prefix = moving(robot)
    state = stored(robot, f"states.{prefix}joint.position")
    assert np.abs(np.diff(state, axis=0)).max() > 0.01

    def off(command: F64, lag: int) -> float:
        """Distance of the state `lag` frames after a command from that command."""
        span = slice(8, len(state) - 8)
        return float(np.sqrt(np.mean((command[span] - np.roll(state, -lag, axis=0)[span]) ** 2)))

    reached = [off(stored(robot, f"actions.{prefix}joint.position"), lag) for lag in range(-4, 8)]
    assert np.argmin(reached) - 4 == 1
    assert min(reached) == 0
    followed = [off(stored(robot, f"master_actions.{prefix}joint.position"), lag) for lag in range(-4, 8)]
    assert 1 <= np.argmin(followed) - 4 <= 3
    seq = made(robot)[1]
    for key in seq.actions:
        if key.startswith("actions.") and not key.endswith("openness"):
            state = stored(robot, key.replace("actions.", "states.", 1))
            assert np.array_equal(stored(robot, key)[:-1], state[1:]), key


@for_every_robot
def test_velocities_are_those_of_the_positions_measured_and_commanded(robot: str) -> None:
    fps = made(robot)[1].fps
    for prefix in prefixes(robot):
        command = stored(robot, f"master_actions.{prefix}joint.position")
        rate = stored(robot, f"master_actions.{prefix}joint.velocity")
        assert np.abs(rate[1:] - np.diff(command, axis=0) * fps).max() < 2e-4
        arm = arm_of(robot, prefix)
        assert (np.abs(rate) <= np.asarray(arm.velocity) * 1.02).all()
    prefix = moving(robot)
    positions = stored(robot, f"states.{prefix}joint.position")
    rates = stored(robot, f"states.{prefix}joint.velocity")
    central = (positions[2:] - positions[:-2]) * fps / 2
    fast = np.abs(central).max(axis=1) > 0.3
    assert fast.sum() > 10
    assert np.abs(rates[1:-1] - central)[fast].mean() < 0.1 * np.abs(central[fast]).mean()
    width, parting = (stored(robot, f"states.{prefix}gripper.{what}")[:, 0] for what in ("position", "velocity"))
    central = (width[2:] - width[:-2]) * fps / 2
    quick = np.abs(central) > 0.02
    assert quick.sum() > 5
    assert np.corrcoef(central[quick], parting[1:-1][quick])[0, 1] > 0.9


@for_every_robot
def test_openness_is_one_while_the_fingers_are_to_stand_open_and_zero_while_they_are_to_close(robot: str) -> None:
    prefix = moving(robot)
    seq = made(robot)[1]
    low, high = arm_of(robot, prefix).gripper.opening_m
    openness = stored(robot, f"master_actions.{prefix}gripper.openness")[:, 0]
    assert set(openness) == {0.0, 1.0}
    assert np.array_equal(openness, stored(robot, f"actions.{prefix}gripper.openness")[:, 0])
    width = stored(robot, f"states.{prefix}gripper.position")[:, 0]
    set_point = stored(robot, f"master_actions.{prefix}gripper.set_point")[:, 0]
    ends = [phase["stop"] - 1 for phase in seq.notes["phases"] if phase["name"] == "fingers"]
    assert openness[ends].tolist() == [1.0, 0.0, 1.0]
    assert width[ends] == pytest.approx([(low + high) / 2, low, high], abs=0.004)
    assert set_point[ends] == pytest.approx([(low + high) / 2, low, high], abs=1e-6)
    grasp = next(phase for phase in seq.notes["phases"] if phase["name"] == "lift")
    assert openness[grasp["start"] : grasp["stop"]].max() == 0  # a cube keeps them apart, and yet they are to close
    assert width[grasp["stop"] - 1] > low + 0.01
    assert np.array_equal(stored(robot, f"master_actions.{prefix}gripper.position")[:-1, 0], width[1:])
    assert seq.notes["robot"]["arms"][prefix.rstrip("_") or "arm"]["gripper_width_m"] == [low, high]


@for_every_robot
def test_the_width_is_the_distance_between_the_pads(robot: str) -> None:
    """By the shapes of the pads in the gripper's own file, in the recorded states."""
    import mujoco

    layout, seq = made(robot)
    world = build_world(layout)
    prefix = moving(robot)
    arm = world.arms[prefix.rstrip("_") or "arm"]
    data = mujoco.MjData(world.model)
    sides: dict[int, list[int]] = {}
    for geom in range(world.model.ngeom):
        body = int(world.model.geom_bodyid[geom])
        if body in arm.finger_bodies and "pad" in world.model.geom(geom).name:
            while int(world.model.body_parentid[body]) in arm.finger_bodies:
                body = int(world.model.body_parentid[body])
            sides.setdefault(body, []).append(geom)
    left, right = sides.values()
    ends = [phase["stop"] - 1 for phase in seq.notes["phases"] if phase["name"] == "fingers"]
    qpos = np.asarray(seq.states[SIMULATION_QPOS].values)
    for row in ends:
        data.qpos[:] = qpos[row]
        mujoco.mj_kinematics(world.model, data)
        near = min(mujoco.mj_geomDistance(world.model, data, a, b, 0.2, None) for a in left for b in right)
        assert stored(robot, f"states.{prefix}gripper.position")[row, 0] == pytest.approx(max(near, 0.0), abs=0.004)


@for_every_robot
def test_state_and_action_have_one_meaning_for_one_name(robot: str) -> None:
    seq = made(robot)[1]
    state, action = seq.states["observation.state"], seq.actions["action"]
    assert state.names == action.names
    assert state.names is not None
    for prefix in prefixes(robot):
        column = state.names.index(f"{prefix}gripper_width")
        assert np.array_equal(state.values[:, column], seq.states[f"states.{prefix}gripper.position"].values[:, 0])
        assert np.array_equal(
            action.values[:, column], seq.actions[f"master_actions.{prefix}gripper.set_point"].values[:, 0]
        )
        first = state.names.index(f"{prefix}joint_0")
        joints = slice(first, first + len(arm_of(robot, prefix).joints))
        assert np.array_equal(action.values[:, joints], seq.actions[f"master_actions.{prefix}joint.position"].values)


@for_every_robot
def test_the_robot_is_called_by_its_own_name(robot: str) -> None:
    note = made(robot)[1].notes["robot"]
    assert note["type"] == robot
    assert {name: arm["joints"] for name, arm in note["arms"].items()} == {
        name: list(arm.joints) for name, arm in ROBOTS[robot].arms.items()
    }


def test_poses_of_rows_are_near_enough_for_all_this() -> None:
    """The robot's base is stored in every row, and is where the layout says."""
    layout, seq = made("franka")
    assert np.abs(seq.states[ROBOT_POSE].values - pose_rows(layout.robot.base.matrix()[None])).max() < 1e-12
