"""Robot models as data: which files, which joints, how they are driven, where the tool is.

A robot is one or more parts (MJCF files placed in the robot's base frame) with one or more arms; each arm ends in a
parallel gripper. The library `ROBOTS` has some; a task's configuration may define its own in the same words.

Frames: `ee` is the flange that the gripper is screwed to. `tcp` lies between the finger pads, z out of the gripper
(the approach direction), y along the direction in which the fingers close.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.workflow.sim.numbers import Angle, Distance, Position, Positive, Turn, Words


def _no_two(kind: str, names: Sequence[Any]) -> None:
    """Raises ValueError for a name that is there twice."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"among {kind}, {twice!r} is named twice")


class FingerModel(ComponentArgs):
    """A finger on a slide joint. joint: name in the gripper's file. closed, open: its position at these ends."""

    joint: str
    closed: Angle
    open: Angle

    @model_validator(mode="after")
    def _opens(self) -> FingerModel:
        if abs(self.open - self.closed) < 1e-4:
            raise ValueError(f"finger '{self.joint}' is as open as closed, at {self.open:g}")
        return self


class GripperModel(ComponentArgs):
    """A parallel gripper.

    mjcf: `package:path` of its file.
    fingers: its joints; those of one finger's bars are coupled.
    opening_m: least and most distance between the pads.
    tcp_m: the tool centre in the flange frame.
    finger_bodies: those that may touch what is grasped.
    force_n: grip force.
    kp: gain of the fingers' servos.
    reach_m: distance of the finger ends beyond the tool centre.
    thickness_m: of a finger, along the closing direction.
    palm_m: free depth between the tool centre and the palm.
    """

    mjcf: str
    fingers: tuple[FingerModel, ...] = Field(min_length=1)
    opening_m: tuple[Distance, Distance]
    tcp_m: Position
    finger_bodies: tuple[str, ...] = Field(min_length=1)
    force_n: Positive = 20.0
    kp: Positive = 1000.0
    pad_friction: float = Field(default=2.0, ge=0.01, le=10)
    reach_m: Distance = 0.012
    thickness_m: Distance = 0.016
    palm_m: Distance = 0.032

    @model_validator(mode="after")
    def _opens(self) -> GripperModel:
        low, high = self.opening_m
        if high - low < 1e-3:
            raise ValueError(f"opening_m goes from closed to open, a millimetre at least, not from {low:g} to {high:g}")
        if math.hypot(*self.tcp_m) > 1:
            raise ValueError(f"tcp_m {list(self.tcp_m)} is more than a metre off the flange; is it in metres?")
        _no_two("fingers", [finger.joint for finger in self.fingers])
        _no_two("finger_bodies", self.finger_bodies)
        return self


class PartModel(ComponentArgs):
    """A file of the robot. position, quaternion: its place in the robot's base frame."""

    mjcf: str
    position: Position = (0.0, 0.0, 0.0)
    quaternion: Turn = (1.0, 0.0, 0.0, 0.0)


class ArmModel(ComponentArgs):
    """An arm.

    part: index into the robot's parts.
    joints: names in that file, base to tip.
    flange: body that the gripper is screwed to.
    base: body that poses are given from; empty for the first joint's.
    home: joint positions, radians.
    kp: gains of the position servos; the damping is kp / 30.
    force_nm: limits of the servos.
    velocity, acceleration: limits that trajectories keep, radians per second (squared).
    armature: least inertia of a joint.
    noun: the arm in instructions, where a robot has several.
    """

    part: int = Field(default=0, ge=0, le=63)
    joints: tuple[str, ...] = Field(min_length=1)
    flange: str
    base: str = ""
    gripper: GripperModel
    home: tuple[Angle, ...]
    kp: tuple[Positive, ...]
    force_nm: tuple[Positive, ...]
    velocity: tuple[Positive, ...]
    acceleration: tuple[Positive, ...]
    armature: float = Field(default=0.1, ge=0, le=100)
    noun: Words = "arm"

    @model_validator(mode="after")
    def _same_lengths(self) -> ArmModel:
        for name in ("home", "kp", "force_nm", "velocity", "acceleration"):
            if len(getattr(self, name)) != len(self.joints):
                raise ValueError(f"{name} has {len(getattr(self, name))} numbers for {len(self.joints)} joints")
        _no_two("joints", self.joints)
        return self


class RobotModel(ComponentArgs):
    """A robot: parts, and arms by name. noun: how texts call it.

    robot_type: what datasets call it; empty: by the key under which a task knows it.
    """

    parts: tuple[PartModel, ...] = Field(min_length=1)
    arms: dict[str, ArmModel] = Field(min_length=1)
    noun: Words = "robot"
    robot_type: str = ""

    @model_validator(mode="after")
    def _parts_exist(self) -> RobotModel:
        for name, arm in self.arms.items():
            if not 0 <= arm.part < len(self.parts):
                raise ValueError(f"arm '{name}' is on part {arm.part}, but there are {len(self.parts)} parts")
        _no_two("flanges of arms", [(arm.part, arm.flange) for arm in self.arms.values()])
        _no_two("joints of arms", [(arm.part, joint) for arm in self.arms.values() for joint in arm.joints])
        return self


PANDA_GRIPPER = GripperModel(
    mjcf="robosuite:grippers/panda_gripper.xml",
    fingers=(
        FingerModel(joint="finger_joint1", closed=0.0, open=0.04),
        FingerModel(joint="finger_joint2", closed=0.0, open=-0.04),
    ),
    opening_m=(0.0, 0.08),
    tcp_m=(0.0, 0.0, 0.0974),
    finger_bodies=("leftfinger", "rightfinger", "finger_joint1_tip", "finger_joint2_tip"),
)

RETHINK_GRIPPER = GripperModel(
    mjcf="robosuite:grippers/rethink_gripper.xml",
    fingers=(
        FingerModel(joint="l_finger_joint", closed=-0.0115, open=0.020833),
        FingerModel(joint="r_finger_joint", closed=0.0115, open=-0.020833),
    ),
    opening_m=(0.0141, 0.0788),
    tcp_m=(0.0, 0.0, 0.1024),
    finger_bodies=("l_finger", "r_finger", "l_finger_tip", "r_finger_tip"),
    reach_m=0.0195,
)


def _panda(part: int, noun: str) -> ArmModel:
    return ArmModel(
        part=part,
        joints=tuple(f"joint{number}" for number in range(1, 8)),
        flange="right_hand",
        base="base",
        gripper=PANDA_GRIPPER,
        home=(0.0, -0.45, 0.0, -2.35, 0.0, 1.9, 0.7854),
        kp=(4500, 4500, 3500, 3500, 2000, 2000, 2000),
        force_nm=(87, 87, 87, 87, 12, 12, 12),
        velocity=(1.7, 1.7, 1.7, 1.7, 2.1, 2.1, 2.1),
        acceleration=(5.0, 4.0, 5.0, 5.0, 8.0, 8.0, 8.0),
        noun=noun,
    )


ROBOTS: dict[str, RobotModel] = {
    "franka": RobotModel(
        parts=(PartModel(mjcf="robosuite:robots/panda/robot.xml"),),
        arms={"arm": _panda(0, "arm")},
        noun="Franka Panda",
    ),
    "ur5e": RobotModel(
        parts=(PartModel(mjcf="robosuite:robots/ur5e/robot.xml"),),
        arms={
            "arm": ArmModel(
                joints=(
                    "shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint",
                    "wrist_1_joint", "wrist_2_joint", "wrist_3_joint",
                ),
                flange="right_hand",
                base="base",
                gripper=PANDA_GRIPPER,
                home=(-0.470, -1.735, 2.480, -2.275, -1.590, -1.991),
                kp=(4500, 4500, 3500, 2000, 2000, 2000),
                force_nm=(150, 150, 150, 28, 28, 28),
                velocity=(1.7, 1.7, 1.7, 2.1, 2.1, 2.1),
                acceleration=(5.0, 4.0, 5.0, 8.0, 8.0, 8.0),
            )
        },
        noun="UR5e",
    ),
    "sawyer": RobotModel(
        parts=(PartModel(mjcf="robosuite:robots/sawyer/robot.xml"),),
        arms={
            "arm": ArmModel(
                joints=tuple(f"right_j{number}" for number in range(7)),
                flange="right_hand",
                base="base",
                gripper=RETHINK_GRIPPER,
                home=(0.0, -1.18, 0.0, 2.18, 0.0, 0.57, -1.57),
                kp=(4500, 4500, 3500, 3500, 2000, 2000, 2000),
                force_nm=(80, 80, 40, 40, 12, 12, 12),
                velocity=(1.5, 1.3, 1.7, 1.7, 2.1, 2.1, 2.1),
                acceleration=(5.0, 4.0, 5.0, 5.0, 8.0, 8.0, 8.0),
            )
        },
        noun="Sawyer",
    ),
    "dual_franka": RobotModel(
        parts=(
            PartModel(mjcf="robosuite:robots/panda/robot.xml", position=(0.0, 0.32, 0.0)),
            PartModel(mjcf="robosuite:robots/panda/robot.xml", position=(0.0, -0.32, 0.0)),
        ),
        arms={"left": _panda(0, "left arm"), "right": _panda(1, "right arm")},
        noun="pair of Franka Pandas",
    ),
}  # fmt: skip
"""Robot key → model."""
