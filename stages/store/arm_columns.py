"""InternData-A1's columns: what a robot's signals are called there, and what they mean.

    states.*          measured in the frame's own moment, which is also the image's
    master_actions.*  commanded in that moment
    actions.*         reached at the next frame: `actions.x[t] == states.x[t + 1]`; the last frame repeats itself

A robot of one arm has plain names (`states.joint.position`, `states.ee_to_armbase_pose`), one of two arms prefixed ones
(`states.left_joint.position`, `states.left_ee_to_left_armbase_pose`). Poses are position x y z, quaternion w x y z;
`a_to_b_pose` maps coordinates in a's frame to b's frame. `MEANINGS` has every column in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nimbusd.stages.store.poses import OPENGL_OPENCV, euler_rows, inverse, pose_rows, transforms_of
from nimbusd.stages.types import F64, Feature

POSE_NAMES = (
    "position.x",
    "position.y",
    "position.z",
    "quaternion.w",
    "quaternion.x",
    "quaternion.y",
    "quaternion.z",
)
EULER_NAMES = ("x", "y", "z", "roll", "pitch", "yaw")
ROBOT_POSE = "states.robot_to_env_pose"
_ARM = re.compile(r"states\.(?P<arm>[A-Za-z0-9]+_)?joint\.position")


MEANINGS = {
    "states": "measured at the frame's own time, which is also the image's",
    "master_actions": "commanded at that time",
    "actions": "reached at the next frame: actions.x[t] = states.x[t + 1]; the last frame repeats itself. "
    "actions.gripper.openness is commanded",
    "joint.position": "rad; of joints that turn without end not wrapped. In master_actions the set point",
    "joint.velocity": "rad/s; in master_actions that of the set point: (set point[t] - set point[t - 1]) * fps",
    "gripper.position": "metres between the pads, of the whole gripper, for every kind of gripper. In master_actions, "
    "too, the width that is reached at the next frame, as in the release",
    "gripper.velocity": "metres per second at which the pads part",
    "gripper.set_point": "metres between the pads as commanded; the least width while the fingers are told to close",
    "gripper.openness": "command: 1 the fingers are told to stand open, however wide; 0 they are told to close",
    "gripper.pose": "ee in the arm's base: x y z (m), then roll pitch yaw about fixed x, y, z axes (rad; not wrapped "
    "within an episode, so that they do not jump). In master_actions "
    "where the joints' set points put it, or what was reached next where a workflow does not say it",
    "poses": "position x y z (m), quaternion w x y z; a_to_b_pose maps coordinates in a's frame to b's frame",
    "ee": "what the gripper is screwed to",
    "tcp": "between the pads: z out of the gripper, y as the fingers close",
    "robot_to_env_pose": "env is the world frame",
    "observation.state": "of every arm in turn: measured joints (rad), metres between the pads",
    "action": "of every arm in turn: set points of the joints (rad), commanded metres between the pads",
}
"""Meanings of the numbers in the columns, the same for every writer."""
MEANINGS_SINCE = (1, 3)
EARLIER_MEANINGS = {
    "gripper.openness": "command: share of the way from the least to the greatest width, 0 … 1",
    "gripper.position": "metres between the pads; in master_actions as commanded",
    "gripper.pose": "tcp in the arm's base; in master_actions what was reached next",
    "action": "of every arm in turn: set points of the joints (rad), then as gripper.openness",
}
"""Other meanings, of episodes whose `schema_version` is before MEANINGS_SINCE."""


@dataclass(frozen=True, slots=True)
class ArmSignals:
    """One arm's T rows. The last four may be left out."""

    name: str
    """Empty for the robot's only arm, else `left`, `right` …"""
    joint_position: F64
    """(T, n) radians."""
    joint_command: F64
    """(T, n) radians."""
    gripper_position: F64
    """(T,) metres between the pads."""
    gripper_command: F64
    """(T,) metres between the pads."""
    openness_command: F64
    """(T,) 0 where the fingers are told to close, 1 where they are told to stand open."""
    T_world_armbase: F64
    """(T, 4, 4)."""
    T_world_ee: F64
    """(T, 4, 4) of the flange."""
    T_world_tcp: F64
    """(T, 4, 4) between the finger tips."""
    joint_velocity: F64 | None = None
    """(T, n) radians per second."""
    joint_velocity_command: F64 | None = None
    """(T, n) radians per second."""
    gripper_velocity: F64 | None = None
    """(T,) metres per second."""
    T_world_ee_command: F64 | None = None
    """(T, 4, 4) of the flange where `joint_command` puts it."""


def a1_columns(arms: Iterable[ArmSignals], T_world_robot: F64) -> tuple[dict[str, Feature], dict[str, Feature]]:
    """States and actions (`actions.` and `master_actions.`) of a robot. T_world_robot: (T, 4, 4) of its base."""
    states: dict[str, Feature] = {}
    actions: dict[str, Feature] = {}
    robot_world = inverse(T_world_robot)
    for arm in arms:
        measured, commanded = _measured(arm, robot_world), _commanded(arm, robot_world)
        states |= {f"states.{key}": feature for key, feature in measured.items()}
        actions |= {f"actions.{key}": _next(feature) for key, feature in measured.items()}
        prefix = _prefix(arm)
        actions[f"actions.{prefix}gripper.openness"] = commanded[f"{prefix}gripper.openness"]
        actions |= {f"master_actions.{key}": feature for key, feature in commanded.items()}
    states[ROBOT_POSE] = _pose(T_world_robot)
    return states, actions


def _measured(arm: ArmSignals, robot_world: F64) -> dict[str, Feature]:
    prefix, joints, gripper = _prefix(arm), _joint_names(arm), _gripper_names(arm)
    armbase_world = inverse(arm.T_world_armbase)
    columns = {
        f"{prefix}joint.position": Feature(arm.joint_position, joints),
        f"{prefix}gripper.position": Feature(_column(arm.gripper_position), gripper),
        f"{prefix}gripper.pose": Feature(euler_rows(armbase_world @ arm.T_world_ee), EULER_NAMES),
        f"{prefix}ee_to_{prefix}armbase_pose": _pose(armbase_world @ arm.T_world_ee),
        f"{prefix}ee_to_robot_pose": _pose(robot_world @ arm.T_world_ee),
        f"{prefix}tcp_to_{prefix}armbase_pose": _pose(armbase_world @ arm.T_world_tcp),
        f"{prefix}tcp_to_robot_pose": _pose(robot_world @ arm.T_world_tcp),
    }
    if arm.joint_velocity is not None:
        columns[f"{prefix}joint.velocity"] = Feature(arm.joint_velocity, joints)
    if arm.gripper_velocity is not None:
        columns[f"{prefix}gripper.velocity"] = Feature(_column(arm.gripper_velocity), gripper)
    return columns


def _commanded(arm: ArmSignals, robot_world: F64) -> dict[str, Feature]:
    prefix, joints, gripper = _prefix(arm), _joint_names(arm), _gripper_names(arm)
    armbase_world = inverse(arm.T_world_armbase)
    T_world_ee = arm.T_world_ee_command
    reached = Feature(euler_rows(armbase_world @ arm.T_world_ee), EULER_NAMES)
    columns = {
        f"{prefix}joint.position": Feature(arm.joint_command, joints),
        f"{prefix}gripper.position": _next(Feature(_column(arm.gripper_position), gripper)),
        f"{prefix}gripper.set_point": Feature(_column(arm.gripper_command), gripper),
        f"{prefix}gripper.openness": Feature(_column(arm.openness_command), gripper),
        f"{prefix}gripper.pose": _next(reached)
        if T_world_ee is None
        else Feature(euler_rows(armbase_world @ T_world_ee), EULER_NAMES),
    }
    if T_world_ee is not None:
        columns[f"{prefix}ee_to_robot_pose"] = _pose(robot_world @ T_world_ee)
    if arm.joint_velocity_command is not None:
        columns[f"{prefix}joint.velocity"] = Feature(arm.joint_velocity_command, joints)
    return columns


def stated_meanings(columns: Iterable[str], schema_versions: Iterable[str]) -> dict[str, Any]:
    """Entries of `meta/conventions.json` about the columns of arms; none for a dataset without any.

    schema_versions: of the episodes' metadata.
    """
    if not arm_prefixes(columns):
        return {}
    earlier = any(tuple(map(int, version.split(".")[:2])) < MEANINGS_SINCE for version in schema_versions)
    return {"arm_columns": MEANINGS} | ({"arm_columns_before_1.3.0": EARLIER_MEANINGS} if earlier else {})


def arm_prefixes(states: Iterable[str]) -> list[str]:
    """The prefixes of a robot's arms (`""`, or `left_`, `right_` …) by its columns, in their order."""
    return [match["arm"] or "" for key in states if (match := _ARM.fullmatch(key))]


def required_columns(prefixes: Iterable[str]) -> list[str]:
    """Every column of states and actions that a robot with these arms has in InternData-A1's release."""
    keys = [ROBOT_POSE]
    for prefix in prefixes:
        measured = [
            f"{prefix}joint.position",
            f"{prefix}gripper.position",
            f"{prefix}gripper.pose",
            f"{prefix}ee_to_{prefix}armbase_pose",
            f"{prefix}ee_to_robot_pose",
            f"{prefix}tcp_to_{prefix}armbase_pose",
            f"{prefix}tcp_to_robot_pose",
        ]
        keys += [f"{kind}.{key}" for kind in ("states", "actions") for key in measured]
        keys.append(f"actions.{prefix}gripper.openness")
        commands = ("joint.position", "gripper.position", "gripper.openness", "gripper.pose")
        keys += [f"master_actions.{prefix}{key}" for key in commands]
    return keys


def camera_pose_rows(T_world_camera: npt.ArrayLike, robot_pose: npt.ArrayLike) -> F64:
    """A camera's `*_camera_to_robot_extrinsics`: (T, 7), camera in OpenCV axes (z forward) to the robot's base.

    T_world_camera: (T, 4, 4), OpenGL axes. robot_pose: rows of `states.robot_to_env_pose`.
    """
    return pose_rows(inverse(transforms_of(robot_pose)) @ np.asarray(T_world_camera, np.float64) @ OPENGL_OPENCV)


def camera_poses(extrinsics: npt.ArrayLike, robot_pose: npt.ArrayLike) -> F64:
    """Inverse of `camera_pose_rows`: T_world_camera (T, 4, 4) in OpenGL axes."""
    return np.asarray(transforms_of(robot_pose) @ transforms_of(extrinsics) @ OPENGL_OPENCV)


def tcp_poses(states: Mapping[str, Feature], prefix: str) -> F64:
    """T_world_tcp (T, 4, 4) of an arm by its columns."""
    robot = transforms_of(states[ROBOT_POSE].values)
    return np.asarray(robot @ transforms_of(states[f"states.{prefix}tcp_to_robot_pose"].values))


def _prefix(arm: ArmSignals) -> str:
    return f"{arm.name}_" if arm.name else ""


def _joint_names(arm: ArmSignals) -> tuple[str, ...]:
    return tuple(f"{_prefix(arm)}joint_{index}" for index in range(arm.joint_position.shape[1]))


def _gripper_names(arm: ArmSignals) -> tuple[str, ...]:
    return (f"{_prefix(arm)}gripper_0",)


def _column(values: F64) -> F64:
    return np.asarray(values, np.float64).reshape(-1, 1)


def _pose(T: F64) -> Feature:
    return Feature(pose_rows(T), POSE_NAMES)


def _next(feature: Feature) -> Feature:
    """The feature as it is reached at the next frame; nothing follows the last one, which repeats itself."""
    return Feature(np.concatenate([feature.values[1:], feature.values[-1:]]), feature.names)
