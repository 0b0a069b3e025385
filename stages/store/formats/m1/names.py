"""InternData-M1's own feature names, as its loader reads them (`names: release` of the writer).

The release states no meanings; what is said here was found in its data. Poses are of `ee` (what the gripper is screwed
to) in the robot's base frame. Left out are the columns that end in `_frankaX` there (the same in axes of one robot) and
its pickled `annotation.*` columns: their content is in labels, questions and traces.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.arm_columns import EULER_NAMES, POSE_NAMES, arm_prefixes
from nimbusd.stages.store.content import kept_states
from nimbusd.stages.store.formats.lerobot.content import FeatureLayout, camera_features
from nimbusd.stages.store.poses import euler_rows, inverse, pose_rows, transforms_of
from nimbusd.stages.types import F64, Feature, Sequence

IMAGE = "video.{camera}"
CAMERA_NAMES = {
    "front": "base_view",
    "side": "base_view_2",
    "wrist": "ego_view",
    "wrist_left": "ego_view_left",
    "wrist_right": "ego_view_right",
}
_JOINT = "observation.joint."
MEANINGS = {
    "state": "measured at the frame's own time, which is also the image's",
    "action": "commanded at that time",
    "joints": "rad; in action the set points",
    "joints_velocity": "rad/s",
    "gripper_width": "metres between the pads; in action as commanded, which is the least width to close",
    "gripper_velocity": "metres per second",
    "gripper_close": "command: 1 the fingers are told to close, -1 they are told to stand open, however wide",
    "eef": "ee in the robot's base: position x y z (m), rotation roll pitch yaw about fixed x, y, z axes (rad; without "
    "jumps, so not wrapped within an episode), "
    "quaternion w x y z; in action where the set points of the joints put it",
    "delta": "from the command before to this one, nothing in the first frame: "
    "delta_joints[t] = joints[t] - joints[t - 1]; delta_eef[t] = T[t] T[t - 1]^-1, so T[t] = delta_eef[t] T[t - 1]",
}


def m1_features(seq: Sequence) -> dict[str, Feature]:
    """All columns of an episode. Raises StoreError that names columns of `a1_columns` which the sequence lacks."""
    features: dict[str, Feature] = {}
    for prefix in arm_prefixes(seq.states):
        features |= _state(seq, prefix) | _action(seq, prefix)
    fixtures = {key: feature for key, feature in kept_states(seq).items() if key.startswith(_JOINT)}
    return features | fixtures | camera_features(seq)


M1_LAYOUT = FeatureLayout(lambda camera: IMAGE.format(camera=camera), m1_features)


def is_released(keys: Any) -> bool:
    """True where columns have the release's names."""
    return any(key.startswith("state.") for key in keys)


def _state(seq: Sequence, prefix: str) -> dict[str, Feature]:
    columns = {
        "joints": _column(seq, f"states.{prefix}joint.position"),
        "gripper_width": _column(seq, f"states.{prefix}gripper.position"),
        "joints_velocity": _column(seq, f"states.{prefix}joint.velocity"),
        "gripper_velocity": _column(seq, f"states.{prefix}gripper.velocity"),
        **_pose("eef", transforms_of(_column(seq, f"states.{prefix}ee_to_robot_pose").values)),
    }
    return {f"state.{prefix}{key}": feature for key, feature in columns.items()}


def _action(seq: Sequence, prefix: str) -> dict[str, Feature]:
    joints = _column(seq, f"master_actions.{prefix}joint.position")
    openness = _column(seq, f"master_actions.{prefix}gripper.openness")
    T = transforms_of(_column(seq, f"master_actions.{prefix}ee_to_robot_pose").values)
    before = np.concatenate([T[:1], T[:-1]])
    columns = {
        "joints": joints,
        "gripper_width": _column(seq, f"master_actions.{prefix}gripper.set_point"),
        "gripper_close": Feature(1.0 - 2.0 * np.asarray(openness.values, np.float64), openness.names),
        "delta_joints": Feature(np.diff(joints.values, axis=0, prepend=joints.values[:1]), joints.names),
        **_pose("eef", T),
        **_pose("delta_eef", T @ inverse(before)),
    }
    return {f"action.{prefix}{key}": feature for key, feature in columns.items()}


def _pose(name: str, T: F64) -> dict[str, Feature]:
    rows, angles = pose_rows(T), euler_rows(T)
    return {
        f"{name}_position": Feature(rows[:, :3], POSE_NAMES[:3]),
        f"{name}_rotation": Feature(angles[:, 3:], EULER_NAMES[3:]),
        f"{name}_quaternion": Feature(rows[:, 3:], POSE_NAMES[3:]),
    }


def _column(seq: Sequence, key: str) -> Feature:
    feature = seq.states.get(key) or seq.actions.get(key)
    if feature is None:
        raise StoreError(
            f"the sequence lacks {key}, which InternData-M1's own names need; `a1_columns` makes it of an arm's rows. "
            "Or leave `names` of the writer at `lerobot`"
        )
    return feature
