"""InternData-A1's columns: what a robot's signals are called there, and what they mean.

    states.*          measured in the frame's own moment, which is also the image's
    master_actions.*  commanded in that moment
    actions.*         reached at the next frame: `actions.x[t] == states.x[t + 1]`; the last frame repeats itself

A robot of one arm has plain names (`states.joint.position`, `states.ee_to_armbase_pose`), one of two arms prefixed ones
(`states.left_joint.position`, `states.left_ee_to_left_armbase_pose`). Poses are position x y z, quaternion w x y z;
`a_to_b_pose` maps coordinates in a's frame to b's frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class ArmSignals:
    """One arm's T rows. name: empty for the robot's only arm, else `left`, `right` …

    joint_position, joint_command: (T, n) radians. gripper_position, gripper_command: (T,) metres between the fingers.
    openness_command: (T,) 0 (closed) … 1. T_world_armbase, T_world_ee (flange), T_world_tcp (between the finger tips):
    (T, 4, 4).
    """

    name: str
    joint_position: F64
    joint_command: F64
    gripper_position: F64
    gripper_command: F64
    openness_command: F64
    T_world_armbase: F64
    T_world_ee: F64
    T_world_tcp: F64


def a1_columns(arms: Iterable[ArmSignals], T_world_robot: F64) -> tuple[dict[str, Feature], dict[str, Feature]]:
    """States and actions (`actions.` and `master_actions.`) of a robot. T_world_robot: (T, 4, 4) of its base."""
    states: dict[str, Feature] = {}
    actions: dict[str, Feature] = {}
    robot_world = inverse(T_world_robot)
    for arm in arms:
        prefix = f"{arm.name}_" if arm.name else ""
        armbase_world = inverse(arm.T_world_armbase)
        joints = tuple(f"{prefix}joint_{index}" for index in range(arm.joint_position.shape[1]))
        gripper = (f"{prefix}gripper_0",)
        measured = {
            f"{prefix}joint.position": Feature(arm.joint_position, joints),
            f"{prefix}gripper.position": Feature(_column(arm.gripper_position), gripper),
            f"{prefix}gripper.pose": Feature(euler_rows(armbase_world @ arm.T_world_tcp), EULER_NAMES),
            f"{prefix}ee_to_{prefix}armbase_pose": _pose(armbase_world @ arm.T_world_ee),
            f"{prefix}ee_to_robot_pose": _pose(robot_world @ arm.T_world_ee),
            f"{prefix}tcp_to_{prefix}armbase_pose": _pose(armbase_world @ arm.T_world_tcp),
            f"{prefix}tcp_to_robot_pose": _pose(robot_world @ arm.T_world_tcp),
        }
        states |= {f"states.{key}": feature for key, feature in measured.items()}
        actions |= {f"actions.{key}": _next(feature) for key, feature in measured.items()}
        openness = Feature(_column(arm.openness_command), gripper)
        actions[f"actions.{prefix}gripper.openness"] = openness
        actions |= {
            f"master_actions.{prefix}joint.position": Feature(arm.joint_command, joints),
            f"master_actions.{prefix}gripper.position": Feature(_column(arm.gripper_command), gripper),
            f"master_actions.{prefix}gripper.openness": openness,
            f"master_actions.{prefix}gripper.pose": _next(measured[f"{prefix}gripper.pose"]),
        }
    states[ROBOT_POSE] = _pose(T_world_robot)
    return states, actions


def arm_prefixes(states: Iterable[str]) -> list[str]:
    """The prefixes of a robot's arms (`""`, or `left_`, `right_` …) by its columns, in their order."""
    return [match["arm"] or "" for key in states if (match := _ARM.fullmatch(key))]


def required_columns(prefixes: Iterable[str]) -> list[str]:
    """Every column of states and actions that a robot with these arms has in InternData-A1."""
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


def _column(values: F64) -> F64:
    return np.asarray(values, np.float64).reshape(-1, 1)


def _pose(T: F64) -> Feature:
    return Feature(pose_rows(T), POSE_NAMES)


def _next(feature: Feature) -> Feature:
    """What is reached at the next frame; nothing follows the last one, which repeats itself."""
    return Feature(np.concatenate([feature.values[1:], feature.values[-1:]]), feature.names)
