"""Demonstrations as sequences, for robots of one and of two arms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from nimbusd.stages import Camera, CameraFrames, Episode, EpisodeRequest, Label, Observation, Sequence
from nimbusd.stages.registry import create
from nimbusd.stages.store.durable import to_json
from nimbusd.stages.store.formats.a1.columns import required_columns, stated_meanings, tcp_poses
from nimbusd.stages.store.formats.lerobot.content import robot_type_of
from nimbusd.stages.store.poses import transforms_of
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.recorded import QPOS, sequence_of
from nimbusd.stages.workflow.sim import (
    ArmTrace,
    CameraLayout,
    ContactEvent,
    Demonstration,
    KeyPoint,
    Layout,
    Phase,
    Pose,
    RelationLayout,
    RobotLayout,
    TableLayout,
)
from nimbusd.stages.workflow.sim.models.robots import ROBOTS

T = 20
FRONT = Camera("front", 64, 64, 60.0, 60.0, 32.0, 32.0)
WRIST = Camera("wrist", 96, 64, 60.0, 60.0, 48.0, 32.0)


def along(start: tuple[float, float, float], stop: tuple[float, float, float], turn: float = 0.0) -> F64:
    """(T, 4, 4): a straight way with a turn about z."""
    poses = np.tile(np.eye(4), (T, 1, 1))
    poses[:, :3, 3] = np.linspace(start, stop, T)
    angle = np.linspace(0, turn, T)
    poses[:, 0, 0], poses[:, 0, 1], poses[:, 1, 0], poses[:, 1, 1] = (
        np.cos(angle),
        -np.sin(angle),
        np.sin(angle),
        np.cos(angle),
    )
    return poses


def arm(base_y: float, joints: int) -> ArmTrace:
    position = np.cumsum(np.full((T, joints), 0.01), axis=0) + base_y
    tcp = along((0.3, base_y, 0.4), (0.5, base_y, 0.2), 1.0)
    flange = tcp.copy()
    flange[:, 2, 3] += 0.1
    base = np.eye(4)
    base[1, 3] = base_y
    opening = np.linspace(0.08, 0.02, T)
    return ArmTrace(
        joint_names=tuple(f"j{index}" for index in range(joints)),
        joint_position=position,
        joint_command=np.concatenate([position[1:], position[-1:]]),
        joint_velocity=np.full((T, joints), 0.3),
        joint_velocity_command=np.full((T, joints), 0.3),
        opening=opening,
        opening_command=np.concatenate([opening[1:], opening[-1:]]),
        opening_velocity=np.full(T, -0.1),
        openness_command=np.where(np.arange(T) < 10, 1.0, 0.0),
        opening_range=(0.0, 0.08),
        T_world_ee=flange,
        T_world_tcp=tcp,
        T_world_ee_command=np.concatenate([flange[1:], flange[-1:]]),
        T_world_base=base,
    )


def demonstration(arms: dict[str, ArmTrace]) -> Demonstration:
    name = next(iter(arms))
    front = np.eye(4)
    front[:3, 3] = 0.4, 0.0, 1.5
    robot = np.eye(4)
    robot[2, 3] = 0.02
    return Demonstration(
        fps=30.0,
        instruction="Put the milk to the left of the can.",
        qpos=np.random.default_rng(1).normal(size=(T, 9)),
        qvel=np.zeros((T, 8)),
        arms=arms,
        T_world_object={"milk": along((0.4, 0, 0.1), (0.4, 0.1, 0.1)), "can": along((0.5, 0, 0.1), (0.5, 0, 0.1))},
        joints={"drawer": np.linspace(0, 0.1, T)},
        T_world_camera={"front": np.tile(front, (T, 1, 1)), "wrist": arms[name].T_world_tcp},
        T_world_robot=robot,
        phases=(
            Phase("reach", "pick", 0, 0, 4, "Pick up the milk.", name),
            Phase("grasp", "pick", 0, 4, 8, "Pick up the milk.", name),
            Phase("carry", "place", 1, 8, 16, "Put it down left of the can.", name),
            Phase("retreat", "home", 2, 16, 18, "Go home.", name),
            Phase("rest", "rest", 3, 18, T, "wait", name),
        ),
        contacts=(ContactEvent(6, "milk", f"robot/{name}", 1.5),),
        keypoints=(
            KeyPoint("grasp_milk", "grasp", "milk", (0.0, 0.0, 0.03), 6, name, width_m=0.05),
            KeyPoint("place_milk", "place", "", (0.4, 0.1, 0.1), 15, name),
        ),
        reached=("milk left_of can",),
        timings_s={"plan": 0.123},
        facts={"planner": "connect"},
    )


def layout() -> Layout:
    return Layout(
        task="relation",
        instruction="Put the milk to the left of the can.",
        robot=RobotLayout("panda", ROBOTS["franka"], Pose(), {}, {}),
        table=TableLayout((0.4, 0.0), (1.0, 1.0), 0.0),
        objects=(),
        cameras=(CameraLayout(FRONT, Pose()), CameraLayout(WRIST, Pose(), "arm")),
        lights=(),
        goals=(RelationLayout("milk", "left_of", "can"),),
        skills=(),
        paraphrases=("Milk left of can, please.",),
    )


def single() -> Sequence:
    return sequence_of(demonstration({"arm": arm(0.0, 7)}), layout())


def test_a_robot_of_one_arm_has_plain_names_and_two_arms_have_prefixes() -> None:
    seq = single()
    assert set(required_columns([""])) <= {*seq.states, *seq.actions}
    dual = sequence_of(demonstration({"left": arm(0.2, 6), "right": arm(-0.2, 6)}), layout())
    assert set(required_columns(["left_", "right_"])) <= {*dual.states, *dual.actions}
    assert not [key for key in dual.states if key.startswith("states.joint")]
    assert dual.states["observation.state"].values.shape == (T, 14)
    names = dual.actions["action"].names
    assert names is not None
    assert names[:1] + names[6:8] == ("left_joint_0", "left_gripper_width", "right_joint_0")


def test_commands_are_of_their_own_row() -> None:
    seq = single()
    measured = seq.states["states.joint.position"].values
    assert np.array_equal(seq.actions["master_actions.joint.position"].values[:-1], measured[1:])
    assert np.array_equal(seq.actions["actions.joint.position"].values[:-1], measured[1:])
    assert np.array_equal(seq.actions["action"].values[:, :7], seq.actions["master_actions.joint.position"].values)


def test_the_tool_is_found_again_in_the_world() -> None:
    seq = single()
    wanted = arm(0.0, 7).T_world_tcp
    assert np.abs(tcp_poses(seq.states, "") - wanted).max() < 1e-12
    in_base = transforms_of(seq.states["states.tcp_to_armbase_pose"].values)
    assert np.abs(in_base - wanted).max() < 1e-12  # this arm's base is the world's origin
    in_robot = transforms_of(seq.states["states.tcp_to_robot_pose"].values)
    assert np.abs(in_robot[:, 2, 3] - (wanted[:, 2, 3] - 0.02)).max() < 1e-12


def test_phases_of_one_instruction_are_one_part_of_the_episode() -> None:
    parts = single().notes["sub_tasks"]
    assert [(part["start"], part["stop"], part["instruction"]) for part in parts] == [
        (0, 8, "Pick up the milk."),
        (8, 16, "Put it down left of the can."),
        (16, T, "Go home."),
    ]
    assert [phase["name"] for phase in single().notes["phases"]] == ["reach", "grasp", "carry", "retreat", "rest"]


def test_notes_are_json_and_the_same_for_the_same_demonstration() -> None:
    notes = single().notes
    assert orjson.loads(to_json(notes)) == notes
    assert "timings_s" not in notes  # how long it took is no fact about the episode
    assert notes["goals"] == ["milk left_of can"]


def test_the_simulators_state_is_kept_in_full_precision_for_replay() -> None:
    assert np.array_equal(single().states[QPOS].values, demonstration({"arm": arm(0.0, 7)}).qpos)
    assert single().states[QPOS].values.dtype == np.float64


def test_intrinsics_come_from_the_layout_and_poses_from_the_demonstration() -> None:
    seq = single()
    assert seq.cameras == (FRONT, WRIST)
    assert seq.T_base_camera["front"][2, 3] == pytest.approx(1.48)


def test_a_robot_may_have_another_name_in_datasets() -> None:
    robot = layout().robot
    robot = replace(robot, definition=robot.definition.model_copy(update={"robot_type": "panda_robotiq"}))
    seq = sequence_of(demonstration({"arm": arm(0.0, 7)}), replace(layout(), robot=robot))
    assert seq.notes["robot"]["type"] == robot_type_of(seq) == "panda_robotiq"


def test_a_dataset_of_several_robots_names_them_all(tmp_path: Path) -> None:
    writer = create("nimbusd.stages.store.writers.env:EnvWriter", "store", {"media": "image"})
    pieces = []
    for number, name in enumerate(("sawyer", "franka", "sawyer")):
        seq = replace(single(), cameras=(), T_world_camera={}, T_base_camera={}, notes={"robot": {"type": name}})
        episode = Episode(EpisodeRequest("job", "scene", number), tmp_path)
        pieces.append(writer.save_data(seq, Observation({}, ()), episode))
    root = writer.publish(tmp_path, pieces, {}, True)
    assert orjson.loads((root / "meta/info.json").read_bytes())["robot_type"] == "franka+sawyer"


@pytest.mark.parametrize(
    "name", ["formats.a1.writer:InternDataA1Writer", "formats.m1.writer:InternDataM1Writer", "writers.env:EnvWriter"]
)
def test_every_writer_takes_it(tmp_path: Path, name: str) -> None:
    seq = single()
    frames = {
        camera.name: CameraFrames(
            np.zeros((T, camera.height, camera.width, 3), np.uint8),
            np.full((T, camera.height, camera.width), 1.0, np.float32),
            np.full((T, camera.height, camera.width), 4, np.uint16),
            np.full((T, camera.height, camera.width), 4, np.uint16),
        )
        for camera in seq.cameras
    }
    obs = Observation(frames, (Label(4, 4, "milk", "milk"),))
    writer = create(f"nimbusd.stages.store.{name}", "store", {"media": "image"})
    piece = writer.save_data(seq, obs, Episode(EpisodeRequest("job", "scene", 0), tmp_path))
    root = writer.publish(tmp_path, [piece], {}, True)
    info = orjson.loads((root / "meta/info.json").read_bytes())
    assert info["robot_type"] == "panda"
    meant = orjson.loads((root / "meta/conventions.json").read_bytes())["arm_columns"]
    assert "told to close" in meant["gripper.openness"]
    features = info["features"]
    assert not [key for key in features if key.startswith("simulation.")]
    assert "states.joint.position" in features
    assert ("observation.joint.drawer" in features) == (not name.startswith("formats.a1"))


@pytest.mark.parametrize(
    ("versions", "keys"),
    [
        (["1.3.0", "1.12.1"], {"arm_columns"}),
        (["2.0.0"], {"arm_columns"}),
        (["1.3.0", "1.2.0"], {"arm_columns", "arm_columns_before_1.3.0"}),
    ],
)
def test_what_columns_meant_in_older_episodes_is_said_where_there_are_any(versions: list[str], keys: set[str]) -> None:
    assert stated_meanings(single().states, versions).keys() == keys
    assert stated_meanings(["observation.state", "action"], versions) == {}
