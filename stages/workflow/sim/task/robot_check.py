"""Mistakes in the files of a robot of a user's own: names that they lack, joints of another kind, hands.

Everything is found by reading the files and compiling the robot alone, without a task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nimbusd.stages.arguments import Mistake, did_you_mean
from nimbusd.stages.errors import AssetError
from nimbusd.stages.plain import Key
from nimbusd.stages.workflow.sim.models.robots import ArmModel, RobotModel
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.world.robot_bodies import add_robot, read_mjcf

_SPARE = 1e-3


def mistakes_in_robot(robot: RobotModel) -> Iterator[Mistake]:
    """Every mistake, by its place in the model. Needs MuJoCo, and the files. Raises BackendUnavailable."""
    mujoco = import_mujoco()
    wrong = False
    for mistake in _in_files(mujoco, robot):
        wrong = True
        yield mistake
    if wrong:
        return
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    try:
        add_robot(mujoco, spec, robot, np.eye(4))
        spec.compile()
    except AssetError as error:
        yield Mistake((), str(error))
    except ValueError as error:
        yield Mistake((), f"the robot cannot be put together: {' '.join(str(error).split())}")


def _in_files(mujoco: Any, robot: RobotModel) -> Iterator[Mistake]:
    parts: dict[int, Any] = {}
    for number, part in enumerate(robot.parts):
        try:
            parts[number] = read_mjcf(mujoco, part.mjcf)
        except AssetError as error:
            yield Mistake(("parts", number, "mjcf"), str(error))
    for name, arm in robot.arms.items():
        place: tuple[Key, ...] = ("arms", name)
        if arm.part in parts:
            yield from _in_arm(mujoco, place, parts[arm.part], robot.parts[arm.part].mjcf, arm)
        try:
            gripper = read_mjcf(mujoco, arm.gripper.mjcf)
        except AssetError as error:
            yield Mistake((*place, "gripper", "mjcf"), str(error))
            continue
        yield from _in_gripper(mujoco, (*place, "gripper"), gripper, arm)


def _in_arm(mujoco: Any, place: tuple[Key, ...], part: Any, mjcf: str, arm: ArmModel) -> Iterator[Mistake]:
    yield from _absent((*place, "flange"), part.bodies, [arm.flange], "body", mjcf, single=True)
    if arm.base:
        yield from _absent((*place, "base"), part.bodies, [arm.base], "body", mjcf, single=True)
    yield from _absent((*place, "joints"), part.joints, arm.joints, "joint", mjcf)
    kinds = {joint.name: joint.type for joint in part.joints}
    for index, name in enumerate(arm.joints):
        if kinds.get(name, mujoco.mjtJoint.mjJNT_HINGE) != mujoco.mjtJoint.mjJNT_HINGE:
            yield Mistake((*place, "joints", index), f"joint '{name}' of {mjcf} does not turn; arms have hinge joints")


def _in_gripper(mujoco: Any, place: tuple[Key, ...], gripper: Any, arm: ArmModel) -> Iterator[Mistake]:
    model = arm.gripper
    yield from _absent((*place, "finger_bodies"), gripper.bodies, model.finger_bodies, "body", model.mjcf)
    joints = {joint.name: joint for joint in gripper.joints if joint.name}
    for index, finger in enumerate(model.fingers):
        where = (*place, "fingers", index)
        if finger.joint not in joints:
            hint = did_you_mean(finger.joint, joints)
            yield Mistake((*where, "joint"), f"robot file {model.mjcf} has no joint called '{finger.joint}'; {hint}")
            continue
        joint = joints[finger.joint]
        degrees = gripper.compiler.degree and joint.type == mujoco.mjtJoint.mjJNT_HINGE
        low, high = (float(np.deg2rad(value) if degrees else value) for value in joint.range)
        if joint.type not in (mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE):
            yield Mistake((*where, "joint"), f"joint '{finger.joint}' of {model.mjcf} neither slides nor turns")
        elif low < high:
            for key, value in (("closed", finger.closed), ("open", finger.open)):
                if not low - _SPARE <= value <= high + _SPARE:
                    text = f"{value:g} is outside what joint '{finger.joint}' can: {low:.4g} to {high:.4g}"
                    more = '; the file means degrees unless its compiler says angle="radian"' if degrees else ""
                    yield Mistake((*where, key), text + more)


def _absent(
    place: tuple[Key, ...], entries: Any, names: Sequence[str], kind: str, mjcf: str, single: bool = False
) -> Iterator[Mistake]:
    present = [entry.name for entry in entries if entry.name]
    for index, name in enumerate(names):
        if name not in present:
            where = place if single else (*place, index)
            yield Mistake(where, f"robot file {mjcf} has no {kind} called '{name}'; {did_you_mean(name, present)}")
