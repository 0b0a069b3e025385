"""InternData-A1: feature names, one-frame lag, cameras of several sizes, two arms, failures kept apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nimbusd.cli.show import show
from nimbusd.show import episode_view
from nimbusd.stages.store.arm_columns import camera_pose_rows, camera_poses, required_columns
from nimbusd.stages.store.poses import euler_rows, inverse, pose_rows, transforms_of
from nimbusd.stages.store.read import Dataset, open_dataset
from nimbusd.stages.store.verify.verify import verify_dataset
from nimbusd.stages.types import F64
from tests.support.store_makers import lerobot_tree
from tests.support.toy_workflow import CAMERAS, GAIN, tool
from tests.support.workflow_makers import publish, store

WRITER = "nimbusd.stages.store.formats.a1.writer:InternDataA1Writer"

FRANKA = {
    "head_camera_intrinsics": 4,
    "hand_camera_intrinsics": 4,
    "head_camera_to_robot_extrinsics": 7,
    "hand_camera_to_robot_extrinsics": 7,
    "states.joint.position": 7,
    "states.gripper.position": 1,
    "states.gripper.pose": 6,
    "states.ee_to_armbase_pose": 7,
    "states.ee_to_robot_pose": 7,
    "states.tcp_to_armbase_pose": 7,
    "states.tcp_to_robot_pose": 7,
    "states.robot_to_env_pose": 7,
    "actions.joint.position": 7,
    "actions.gripper.position": 1,
    "actions.gripper.openness": 1,
    "actions.gripper.pose": 6,
    "actions.ee_to_armbase_pose": 7,
    "actions.ee_to_robot_pose": 7,
    "actions.tcp_to_armbase_pose": 7,
    "actions.tcp_to_robot_pose": 7,
    "master_actions.joint.position": 7,
    "master_actions.gripper.position": 1,
    "master_actions.gripper.openness": 1,
    "master_actions.gripper.pose": 6,
}
LEROBOT = {"timestamp", "frame_index", "episode_index", "index", "task_index", "subtask_index"}


def dataset(folder: Path, *, episodes: int = 2, task: dict[str, Any] | None = None, **args: Any) -> Dataset:
    output = folder / "out"
    args = {"media": "image", **args}
    made = store(output, WRITER, args, episodes=episodes, **(task or {}))
    root = publish(output, WRITER, args, made)
    assert verify_dataset(output, [episode.piece for episode in made if episode.piece]) == []
    return open_dataset(root)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_robot_of_one_arm_has_exactly_the_features_of_the_franka_release(tmp_path: Path, version: str) -> None:
    data = dataset(tmp_path, version=version)
    shapes = {key: entry["shape"] for key, entry in data.features.items() if key not in LEROBOT}
    images = {"images.rgb.head": [64, 96, 3], "images.rgb.hand": [72, 64, 3]}
    own = {"master_actions.gripper.set_point": [1]}
    assert shapes == images | own | {key: [size] for key, size in FRANKA.items()}
    assert all(data.features[key]["dtype"] == "float32" for key in FRANKA)
    assert data.format == f"lerobot-{version}"


def test_two_arms_have_prefixed_features(tmp_path: Path) -> None:
    data = dataset(tmp_path, task={"arms": ["left", "right"]})
    wanted = set(required_columns(["left_", "right_"]))
    assert wanted <= set(data.features)
    assert {"states.left_joint.position", "states.right_ee_to_right_armbase_pose"} <= wanted
    assert not [key for key in data.features if key.startswith(("states.joint", "actions.joint"))]


def test_a_command_leads_from_its_own_state_to_the_next_one(tmp_path: Path) -> None:
    states = dataset(tmp_path, episodes=1).episode(0).states
    measured, commanded = states["states.joint.position"], states["master_actions.joint.position"]
    assert np.ptp(measured, axis=0).min() > 0.01
    reached = measured[:-1] + GAIN * (commanded[:-1] - measured[:-1])
    assert np.abs(measured[1:] - reached).max() < 1e-6
    for key in ("joint.position", "gripper.position", "gripper.pose", "tcp_to_robot_pose", "ee_to_armbase_pose"):
        assert np.array_equal(states[f"actions.{key}"][:-1], states[f"states.{key}"][1:]), key
        assert np.array_equal(states[f"actions.{key}"][-1], states[f"states.{key}"][-1]), key


@pytest.mark.parametrize("camera", ["head", "hand"])
def test_an_image_shows_the_state_of_its_own_row(tmp_path: Path, camera: str) -> None:
    episode = dataset(tmp_path, episodes=1).episode(0)
    shown = episode.rgb[camera].reshape(episode.length, -1)[:, :4].copy().view(np.float32)[:, 0]
    assert np.array_equal(shown, episode.states["states.joint.position"][:, 0])


def test_poses_are_those_of_the_tool_in_the_named_frames(tmp_path: Path) -> None:
    episode = dataset(tmp_path, episodes=1, task={"arms": ["left", "right"]}).episode(0)
    q = episode.states["states.right_joint.position"].astype(np.float64)
    tcp = np.array([tool(0.2, row) for row in q])
    in_robot = transforms_of(episode.states["states.right_tcp_to_robot_pose"])
    in_base = transforms_of(episode.states["states.right_tcp_to_right_armbase_pose"])
    assert np.abs(in_robot[:, :3, 3] - (tcp[:, :3, 3] - [0, 0, 0.01])).max() < 1e-6
    assert np.abs(in_base[:, :3, 3] - (tcp[:, :3, 3] - [0, 0.2, 0])).max() < 1e-6
    assert np.abs(in_robot[:, :3, :3] - tcp[:, :3, :3]).max() < 1e-6
    flange = transforms_of(episode.states["states.right_ee_to_robot_pose"])
    assert np.abs(flange[:, 2, 3] - (tcp[:, 2, 3] - 0.01 + 0.1)).max() < 1e-6  # behind the tips, which point down


def test_cameras_read_back_in_our_own_axes(tmp_path: Path) -> None:
    episode = dataset(tmp_path, episodes=1).episode(0)
    front = np.eye(4)
    front[:3, 3] = 0.3, 0.1, 1.2
    assert np.abs(episode.T_world_camera["head"] - front).max() < 1e-6
    assert episode.intrinsics["head"].tolist() == [CAMERAS[0].fx, CAMERAS[0].fy, CAMERAS[0].cx, CAMERAS[0].cy]
    stored = transforms_of(episode.states["states.robot_to_env_pose"])
    assert np.abs(stored[:, 2, 3] - 0.01).max() < 1e-8


def test_instructions_of_the_task_and_of_its_parts_are_in_the_metadata(tmp_path: Path) -> None:
    data = dataset(tmp_path, episodes=1, version="v2.1")
    rows = [orjson.loads(line) for line in (data.root / "meta/episodes.jsonl").read_bytes().splitlines()]
    assert rows[0]["tasks"] == ["Lift the red cube (lift)."]
    assert [part["instruction"] for part in rows[0]["sub_tasks"]] == ["Reach for the red cube.", "Lift it."]
    assert [(part["start"], part["stop"]) for part in rows[0]["sub_tasks"]] == [(0, 6), (6, 12)]


def test_every_frame_of_v30_says_which_part_of_the_task_it_belongs_to(tmp_path: Path) -> None:
    data = dataset(tmp_path, episodes=2, version="v3.0")
    texts = pq.read_table(data.root / "meta/subtasks.parquet")
    assert texts.column("__index_level_0__").to_pylist() == ["Reach for the red cube.", "Lift it."]
    assert texts.column("subtask_index").to_pylist() == [0, 1]
    frames = pq.read_table(data.root / "data/chunk-000/file-000.parquet", columns=["subtask_index"])
    assert frames.column(0).to_pylist() == ([0] * 6 + [1] * 6) * 2
    info = orjson.loads((data.root / "meta/info.json").read_bytes())
    assert info["features"]["subtask_index"] == {"dtype": "int64", "shape": [1], "names": None}


def test_depth_and_segmentation_lie_beside(tmp_path: Path) -> None:
    episode = dataset(tmp_path, episodes=1).episode(0)
    assert episode.depth_m["hand"].shape == (12, 72, 64)
    assert set(np.unique(episode.instance["head"])) >= {0, 5}


def test_what_only_a_replay_needs_is_not_stored(tmp_path: Path) -> None:
    assert not [key for key in dataset(tmp_path, episodes=1).features if "simulation" in key]


def test_an_attempt_that_failed_is_refused_unless_it_is_to_be_kept(tmp_path: Path) -> None:
    made = store(tmp_path / "out", WRITER, {"media": "image"}, episodes=1, plan={"keep_failures": True}, failed=True)
    assert made[0].failure is not None
    assert "this dataset is of successes" in made[0].failure.detail


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_failures_are_kept_apart_with_their_reason(tmp_path: Path, version: str) -> None:
    args = {"media": "image", "version": version, "keep_failures": True}
    good = store(tmp_path / "out", WRITER, args, episodes=2)
    bad = store(tmp_path / "out", WRITER, args, episodes=4, plan={"keep_failures": True}, failed=True)[2:]
    root = publish(tmp_path / "out", WRITER, args, good + bad)
    assert sorted(path.name for path in root.iterdir()) == ["failed", "success"]
    assert [Dataset(root / name).episodes for name in ("success", "failed")] == [2, 2]
    data = open_dataset(root)
    results = [data.meta(index)["result"] for index in range(data.episodes)]
    failed = {"success": False, "reason": "goal_not_reached"}
    assert results == [{"success": True, "reason": None}] * 2 + [failed] * 2
    assert data.episode(3).length == 12
    pieces = [episode.piece for episode in good + bad if episode.piece is not None]
    assert verify_dataset(tmp_path / "out", pieces) == []
    shown = CliRunner().invoke(show, [str(root), "--episodes", "0"], catch_exceptions=False).output
    assert "2 failed attempts (goal_not_reached 2)" in " ".join(shown.split())
    assert "failed: goal_not_reached" in episode_view(data, 3, data.cameras[0]).subtitle
    assert "failed" not in episode_view(data, 0, data.cameras[0]).subtitle


def test_a_sequence_without_the_columns_is_refused_by_name(tmp_path: Path) -> None:
    from nimbusd.stages.registry import create
    from nimbusd.stages.types import Episode, EpisodeRequest
    from tests.support.store_makers import make_observation, make_sequence

    seq = make_sequence()
    writer = create(WRITER, "store", {})
    with pytest.raises(Exception, match=r"lacks states\.joint\.position .*a1_columns"):
        writer.save_data(seq, make_observation(seq), Episode(EpisodeRequest("job", "room", 0), tmp_path))


def test_two_cameras_cannot_have_one_name(tmp_path: Path) -> None:
    made = store(tmp_path / "out", WRITER, {"cameras": {"front": "wrist", "side": "x"}}, episodes=1)
    assert made[0].failure is not None
    assert "two cameras would both be called 'wrist'" in made[0].failure.detail


# --- poses ---

QUATERNIONS = hnp.arrays(np.float64, (5, 4), elements=st.floats(-1, 1)).filter(
    lambda rows: bool((np.linalg.norm(rows, axis=1) > 0.1).all())
)


def rigid(quaternions: F64) -> F64:
    positions = np.arange(15.0).reshape(5, 3)
    return transforms_of(np.concatenate([positions, quaternions], axis=1))


@given(QUATERNIONS)
@settings(max_examples=100, deadline=None)
def test_poses_survive_the_way_to_rows_and_back(quaternions: F64) -> None:
    T = rigid(quaternions)
    assert np.abs(transforms_of(pose_rows(T)) - T).max() < 1e-9
    assert np.abs(inverse(T) @ T - np.eye(4)).max() < 1e-9
    rows = pose_rows(T)
    assert rows[0, 3] >= 0
    assert (np.sum(rows[1:, 3:] * rows[:-1, 3:], axis=1) >= -1e-12).all()


@given(QUATERNIONS, QUATERNIONS)
@settings(max_examples=50, deadline=None)
def test_camera_rows_are_inverse_to_camera_poses(camera: F64, robot: F64) -> None:
    robot_rows = pose_rows(rigid(robot))
    T = rigid(camera)
    assert np.abs(camera_poses(camera_pose_rows(T, robot_rows), robot_rows) - T).max() < 1e-8


@given(st.floats(-3, 3), st.floats(-1.5, 1.5), st.floats(-3, 3))
@settings(max_examples=100, deadline=None)
def test_euler_rows_are_turns_about_fixed_x_then_y_then_z(roll: float, pitch: float, yaw: float) -> None:
    def turn(axis: int, angle: float) -> F64:
        R, (i, j) = np.eye(4), [k for k in range(3) if k != axis]
        sign = -1 if axis == 1 else 1
        R[i, i] = R[j, j] = np.cos(angle)
        R[i, j], R[j, i] = -sign * np.sin(angle), sign * np.sin(angle)
        return R

    T = (turn(2, yaw) @ turn(1, pitch) @ turn(0, roll))[None]
    assert np.abs(euler_rows(T)[0, 3:] - [roll, pitch, yaw]).max() < 1e-7


def test_a_camera_that_looks_along_the_robots_x_has_its_z_there_in_the_release() -> None:
    T = np.eye(4)
    T[:3, :3] = np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]])  # OpenGL: looks along +x of the world, up is z
    forward = transforms_of(camera_pose_rows(T[None], pose_rows(np.eye(4)[None])))[0, :3, 2]
    assert np.abs(forward - [1, 0, 0]).max() < 1e-12


# --- which robot ---


@pytest.mark.parametrize(
    ("robot", "called"), [("franka", "Franka"), ("sawyer", "sawyer"), ("dual_franka", "dual_franka")]
)
def test_the_releases_name_of_a_robot_is_taken_where_it_has_one(robot: str, called: str, tmp_path: Path) -> None:
    data = dataset(tmp_path, episodes=1, task={"robot": robot})
    assert (lerobot_tree(data).info["robot_type"], data.meta(0)["robot"]) == (called, called)


def test_a_robot_that_a_workflow_does_not_name_is_unknown_unless_the_writer_is_told(tmp_path: Path) -> None:
    assert lerobot_tree(dataset(tmp_path, episodes=1)).info["robot_type"] == "unknown"
    other = dataset(tmp_path / "other", episodes=1, robot_type="franka")
    assert lerobot_tree(other).info["robot_type"] == "franka"
