"""`verify_dataset` finds episodes whose pictures do not show what their states say, and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.stages import CameraFrames, Feature, Label, Observation
from nimbusd.stages.store.verify.verify import verify_dataset
from nimbusd.stages.store.writers.env import EnvWriter, EnvWriterArgs
from nimbusd.stages.types import F64
from tests.support.store_makers import JOB, make_episode, make_sequence, make_writer, textured_frames

LENGTH, HEIGHT, WIDTH = 12, 64, 96
ROBOT = Label(4, 1500, "robot/arm", "robot")
TABLE = Label(3, 41, "table", "table")
JOINTS = ("joint_0", "joint_1", "gripper")


def swing(by: float, turns: float = 1.0) -> F64:
    """(T, 3) joints; the first goes there and back, `turns` times."""
    values = np.zeros((LENGTH, 3))
    values[:, 0] = by * np.sin(np.pi * turns * np.linspace(0, 1, LENGTH)) ** 2
    return values


def frames(shown: F64 | None = None, robot: bool = True) -> CameraFrames:
    """Equal pictures of a table and, where `robot`, an arm; with `shown`, its first joint moves the arm sideways."""
    rgb = np.repeat(textured_frames(1, HEIGHT, WIDTH), LENGTH, axis=0)
    depth = np.full((LENGTH, HEIGHT, WIDTH), 1.0, np.float32)
    ids = np.full((LENGTH, HEIGHT, WIDTH), TABLE.instance_id, np.uint16)
    for t in range(LENGTH if robot else 0):
        left = 20 + (0 if shown is None else int(30 * shown[t, 0]))
        ids[t, 10:40, left : left + 12] = ROBOT.instance_id
        depth[t, 10:40, left : left + 12] = 0.7
        rgb[t, 10:40, left : left + 12] = (230, 230, 240)
    return CameraFrames(rgb, depth, ids, np.where(ids == ROBOT.instance_id, 1500, 41).astype(np.uint16))


def faults(output: Path, states: F64, seen: CameraFrames, names: tuple[str, ...] = JOINTS, **args: Any) -> list[str]:
    """The faults of a dataset with one such episode."""
    seq = make_sequence(LENGTH, size=(HEIGHT, WIDTH))
    still = {name: np.repeat(T[:1], LENGTH, axis=0) for name, T in seq.T_world_camera.items()}
    seq = replace(seq, T_world_camera=still, states={"observation.state": Feature(states, names)})
    writer = make_writer(**{"codec": "h264", **args})
    piece = writer.save_data(
        seq, Observation({"front": seen}, (TABLE, ROBOT), {"name": "toy"}), make_episode(output, seq=seq)
    )
    writer.publish(output, [piece], JOB, True)
    return verify_dataset(output, [piece])


@pytest.mark.parametrize("turns", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "args",
    [{}, {"depth": False, "segmentation": False}, {"depth": False, "segmentation": False, "media": "image"},
     {"depth": False, "segmentation": False, "codec": "av1"},
     {"format": "lerobot-v2.1", "segmentation": False}],
)  # fmt: skip
def test_joints_that_move_before_equal_pictures_are_a_fault(tmp_path: Path, turns: float, args: dict[str, Any]) -> None:
    moved = swing(1.2, turns)
    found = faults(tmp_path, moved, frames(), **args)
    assert len(found) == 1
    assert "episode 0: observation.state changes by 1." in found[0]
    assert "of front stay the same: the renderer did not show what moved" in found[0]


@pytest.mark.parametrize("turns", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("args", [{}, {"depth": False, "segmentation": False}, {"segmentation": False}])
def test_pictures_that_show_it_are_in_order_also_where_it_comes_back(
    tmp_path: Path, turns: float, args: dict[str, Any]
) -> None:
    moved = swing(1.2, turns)
    assert faults(tmp_path, moved, frames(moved), **args) == []


def test_a_change_of_masks_depth_or_image_alone_is_motion(tmp_path: Path) -> None:
    moved = swing(1.2)
    still, moving = frames(), frames(moved)
    assert moving.instance is not None
    for number, seen in enumerate(
        (
            replace(still, instance=moving.instance),
            replace(still, depth_m=moving.depth_m),
            replace(still, rgb=moving.rgb),
        )
    ):
        assert faults(tmp_path / str(number), moved, seen) == []


def test_little_motion_and_robots_that_drive_are_not_looked_at(tmp_path: Path) -> None:
    assert faults(tmp_path / "little", swing(0.15), frames()) == []
    assert faults(tmp_path / "drive", swing(3.0), frames(), ("x", "y", "yaw")) == []


def test_an_arm_that_no_mask_shows_may_move_unseen(tmp_path: Path) -> None:
    assert faults(tmp_path / "unseen", swing(1.2), frames(robot=False)) == []


def test_episodes_without_pictures_have_nothing_to_show(tmp_path: Path) -> None:
    seq = replace(make_sequence(LENGTH), cameras=(), T_world_camera={}, T_base_camera={})
    seq = replace(seq, states={"states.joint.position": Feature(swing(1.2), JOINTS)})
    writer = EnvWriter(EnvWriterArgs())
    piece = writer.save_data(seq, Observation({}, files={"plan.bin": b"plan"}), make_episode(tmp_path, seq=seq))
    writer.publish(tmp_path, [piece], JOB, True)
    assert verify_dataset(tmp_path, [piece]) == []
