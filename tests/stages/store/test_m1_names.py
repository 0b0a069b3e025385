"""InternData-M1's own names, and `modality.json`: what its loader and GR00T's make of our datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from nimbusd.stages.store.columns import Column
from nimbusd.stages.store.formats.lerobot_v21.modality import modality
from nimbusd.stages.store.poses import euler_rows, inverse, pose_rows, transforms_of
from nimbusd.stages.store.read import Dataset, open_dataset
from nimbusd.stages.store.verify.verify import verify_dataset
from tests.support.gr00t_loader import Loader
from tests.support.store_makers import lerobot_tree
from tests.support.toy_workflow import CAMERAS, looking_down, tool
from tests.support.workflow_makers import publish, store

M1 = "nimbusd.stages.store.formats.m1.writer:InternDataM1Writer"
A1 = "nimbusd.stages.store.formats.a1.writer:InternDataA1Writer"
ENV = "nimbusd.stages.store.writers.env:EnvWriter"

RELEASE = {
    "joints": 7,
    "gripper_width": 1,
    "eef_position": 3,
    "eef_rotation": 3,
    "eef_quaternion": 4,
}
STATES = RELEASE | {"joints_velocity": 7, "gripper_velocity": 1}
ACTIONS = RELEASE | {
    "gripper_close": 1,
    "delta_joints": 7,
    "delta_eef_position": 3,
    "delta_eef_rotation": 3,
    "delta_eef_quaternion": 4,
}


def dataset(folder: Path, writer: str, args: dict[str, Any], **task: Any) -> Dataset:
    output = folder / "out"
    made = store(output, writer, args, episodes=2, **{"full": True, "robot": "franka", **task})
    root = publish(output, writer, args, made)
    assert verify_dataset(output, [episode.piece for episode in made if episode.piece]) == []
    return open_dataset(root)


@pytest.fixture(scope="module")
def v21(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return dataset(tmp_path_factory.mktemp("m1"), M1, {"names": "release", "version": "v2.1"})


def test_features_have_the_names_and_sizes_of_the_release(v21: Dataset) -> None:
    shapes = {key: entry["shape"] for key, entry in v21.features.items()}
    wanted = {f"state.{key}": [size] for key, size in STATES.items()}
    wanted |= {f"action.{key}": [size] for key, size in ACTIONS.items()}
    wanted |= {"video.base_view": [64, 96, 3], "video.ego_view": [72, 64, 3]}
    ours = {key for key in shapes if key.startswith("observation.camera.")}
    defaults = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
    assert {key: shape for key, shape in shapes.items() if key not in ours | defaults} == wanted
    assert lerobot_tree(v21).info["robot_type"] == "franka"


def test_a_loader_of_the_releases_kind_reads_every_key(v21: Dataset) -> None:
    loader = Loader(v21.root)
    assert {key: entry["end"] for key, entry in loader.modality["state"].items()} == STATES
    assert {key: entry["end"] for key, entry in loader.modality["action"].items()} == ACTIONS
    for kind, sizes in (("state", STATES), ("action", ACTIONS)):
        for key, size in sizes.items():
            rows = loader.rows(1, f"{kind}.{key}")
            assert rows.shape == (loader.lengths[1], size)
            assert np.array_equal(rows, v21.episode(1).states[f"{kind}.{key}"])
    assert set(loader.language(0)) == {"Lift the red cube (lift)."}
    assert set(loader.modality["video"]) == {"base_view", "ego_view"}
    seen = loader.video("video.base_view")
    assert (seen["height"], seen["width"], seen["channels"], seen["fps"]) == (64, 96, 3, 10)
    assert seen["file"].is_file()
    statistics = loader.statistics()
    assert statistics["action.gripper_close"].shape == (2, 1)
    assert [key for key, entry in loader.modality["action"].items() if entry.get("absolute") is False] == [
        "delta_joints", "delta_eef_position", "delta_eef_rotation", "delta_eef_quaternion",
    ]  # fmt: skip


def test_differences_lead_from_the_command_before_to_this_one(v21: Dataset) -> None:
    states = v21.episode(0).states
    joints, changes = states["action.joints"], states["action.delta_joints"]
    assert np.abs(changes[1:] - np.diff(joints, axis=0)).max() < 1e-6
    T = transforms_of(np.concatenate([states["action.eef_position"], states["action.eef_quaternion"]], axis=1))
    by_quaternion = np.concatenate([states["action.delta_eef_position"], states["action.delta_eef_quaternion"]], axis=1)
    delta = transforms_of(by_quaternion)
    assert np.abs(delta[1:] @ T[:-1] - T[1:]).max() < 1e-6
    assert np.abs(delta[0] - np.eye(4)).max() < 1e-7
    assert np.abs(euler_rows(delta)[:, 3:] - states["action.delta_eef_rotation"]).max() < 1e-6
    assert np.abs(np.diff(joints, axis=0)).max() > 0.01


def test_commands_are_those_of_the_commanded_joints_and_states_those_of_the_measured(v21: Dataset) -> None:
    states = v21.episode(0).states
    for kind in ("state", "action"):
        flange = np.array([tool(0.0, q) for q in states[f"{kind}.joints"].astype(float)]) @ looking_down(0, 0, -0.1)
        rows = pose_rows(inverse(looking_down(0, 0, 0.01)) @ flange)
        assert np.abs(states[f"{kind}.eef_position"] - rows[:, :3]).max() < 1e-6
        assert np.abs(states[f"{kind}.eef_quaternion"] - rows[:, 3:]).max() < 1e-6
    opened = states["action.gripper_width"][:, 0] > 0.04
    assert set(states["action.gripper_close"][:, 0]) <= {-1.0, 1.0}
    assert np.array_equal(states["action.gripper_close"][:, 0] == -1, opened)


def test_v30_has_the_same_with_single_numbers(tmp_path: Path, v21: Dataset) -> None:
    v30 = dataset(tmp_path, M1, {"names": "release", "version": "v3.0"})
    for key in (*(f"state.{key}" for key in STATES), *(f"action.{key}" for key in ACTIONS)):
        assert np.array_equal(v30.episode(1).states[key], v21.episode(1).states[key]), key
    table = pq.read_table(v30.root / "data/chunk-000/file-000.parquet")
    assert str(table.schema.field("action.gripper_close").type) == "float"
    assert not (v30.root / "meta/modality.json").exists()


def test_cameras_labels_and_frames_go_by_the_names_of_the_release(v21: Dataset) -> None:
    episode = v21.episode(0)
    assert v21.cameras == ("base_view", "ego_view")
    assert episode.rgb["base_view"].shape == (12, 64, 96, 3)
    assert np.abs(episode.T_world_camera["base_view"] - looking_down(0.3, 0.1, 1.2)).max() < 1e-6
    assert episode.intrinsics["ego_view"].tolist() == [CAMERAS[1].fx, CAMERAS[1].fy, CAMERAS[1].cx, CAMERAS[1].cy]
    assert (v21.root / "vqa/chunk-000/episode_000000/base_view_000000.jpg").is_file()
    line = (v21.root / "labels/chunk-000/episode_000000.jsonl").read_text().splitlines()[0]
    assert '"ego_view"' in line


def test_two_arms_have_prefixes_and_other_cameras_other_names(tmp_path: Path) -> None:
    args = {"names": "release", "version": "v2.1", "media": "image", "cameras": {"front": "left_view"}}
    data = dataset(tmp_path, M1, args, arms=["left", "right"])
    assert {"state.left_joints", "action.right_delta_eef_position", "video.left_view"} <= set(data.features)
    assert "state.joints" not in data.features
    assert Loader(data.root).rows(0, "action.right_gripper_close").shape == (12, 1)


def test_a_workflow_that_says_too_little_is_told_which_column_is_missing(tmp_path: Path) -> None:
    made = store(tmp_path / "out", M1, {"names": "release"}, episodes=1)
    assert made[0].failure is not None
    assert "lacks states.joint.velocity" in made[0].failure.detail


@pytest.mark.parametrize("writer", [A1, M1, ENV])
def test_every_part_of_state_and_action_is_found_again_in_its_column(writer: str, tmp_path: Path) -> None:
    args = {"media": "image"} | ({"format": "lerobot-v2.1"} if writer == ENV else {"version": "v2.1"})
    data = dataset(tmp_path, writer, args)
    loader = Loader(data.root)
    states = data.episode(0).states
    for kind in ("state", "action"):
        assert loader.modality[kind]
        for entry in loader.modality[kind].values():
            part = states[entry["original_key"]][:, entry["start"] : entry["end"]]
            assert part.shape == (12, entry["end"] - entry["start"])
    covered = {entry["original_key"] for kind in ("state", "action") for entry in loader.modality[kind].values()}
    assert {key for key in states if key.startswith(("states.", "actions.", "action", "observation.state"))} <= covered
    assert np.array_equal(loader.rows(0, "state.joint.position"), states["states.joint.position"])


def test_a_vector_of_everything_is_taken_apart_by_its_names() -> None:
    names = ("left_joint_0", "left_joint_1", "left_gripper_width", "right_joint_0", "right_gripper_width")
    columns = [
        Column("observation.state", "float32", (5,), names),
        Column("action", "float32", (3,)),
        Column("observation.images.front", "video", (4, 4, 3), ("height", "width", "channels")),
        Column("observation.images.side", "image", (4, 4, 3), ("height", "width", "channels")),
        Column("observation.camera.front.intrinsics", "float32", (4,)),
    ]
    content = modality(columns)
    assert {key: (entry["start"], entry["end"]) for key, entry in content["state"].items()} == {
        "left_joint": (0, 2),
        "left_gripper_width": (2, 3),
        "right_joint": (3, 4),
        "right_gripper_width": (4, 5),
    }
    assert content["action"] == {"action": {"start": 0, "end": 3, "original_key": "action"}}
    assert content["video"] == {"front": {"original_key": "observation.images.front"}}
    assert content["annotation"] == {"human.action.task_description": {"original_key": "task_index"}}
