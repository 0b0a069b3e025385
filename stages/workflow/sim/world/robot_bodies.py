"""Builds a robot's parts, grippers and servos into a MuJoCo specification.

Names: body `robot<part>/<body>`, `gripper/<arm>/<body>` of a gripper, servo `servo/<arm>/<joint>`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

from nimbusd.stages.arguments import did_you_mean
from nimbusd.stages.errors import AssetError
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.layout.layout import Pose
from nimbusd.stages.workflow.sim.models.assets import IN_RADIANS, file_of
from nimbusd.stages.workflow.sim.models.mjcf_files import mended_text
from nimbusd.stages.workflow.sim.models.robots import FingerModel, RobotModel
from nimbusd.stages.workflow.sim.rotation import matrix_of
from nimbusd.stages.workflow.sim.world.bodies import as_encoded

_DAMPING_RATIO = 1.0 / 30.0
_ARMATURE = 0.005
"""The least inertia of a bar's joint, kg m²."""


def add_robot(mujoco: Any, spec: Any, robot: RobotModel, T_world_robot: F64) -> None:
    """Add a robot's parts, grippers and servos to a specification. Raises AssetError that names the file."""
    for number, part in enumerate(robot.parts):
        place = T_world_robot @ matrix_of(part.position, part.quaternion)
        _add_part(mujoco, spec, robot, number, part.mjcf, place)


def _add_part(mujoco: Any, spec: Any, robot: RobotModel, number: int, mjcf: str, T_world_part: F64) -> None:
    part = read_mjcf(mujoco, mjcf)
    for arm in robot.arms.values():
        if arm.part == number:
            _require(part.bodies, [arm.flange, *filter(None, [arm.base])], "body", mjcf)
            _require(part.joints, arm.joints, "joint", mjcf)
    place = Pose.from_matrix(T_world_part)
    frame = spec.worldbody.add_frame(pos=list(place.position), quat=list(place.quaternion))
    spec.attach(part, prefix=f"robot{number}/", frame=frame)
    for name, arm in robot.arms.items():
        if arm.part != number:
            continue
        gripper = read_mjcf(mujoco, arm.gripper.mjcf)
        _require(gripper.joints, [finger.joint for finger in arm.gripper.fingers], "joint", arm.gripper.mjcf)
        _require(gripper.bodies, arm.gripper.finger_bodies, "body", arm.gripper.mjcf)
        flange = spec.body(f"robot{number}/{arm.flange}")
        links = [body.name for body in gripper.bodies if body.name and body.name != "world"]
        turning = any(joint.type == mujoco.mjtJoint.mjJNT_HINGE for joint in gripper.joints)
        for entry in [*gripper.tendons, *gripper.equalities] if turning else ():
            gripper.delete(entry)
        spec.attach(gripper, prefix=f"gripper/{name}/", frame=flange.add_frame())
        if turning:
            _couple_fingers(mujoco, spec, f"gripper/{name}/", links, arm.gripper.fingers)
        for joint_name, kp, force in zip(arm.joints, arm.kp, arm.force_nm, strict=True):
            joint = spec.joint(f"robot{number}/{joint_name}")
            joint.armature = max(float(joint.armature), arm.armature)
            _add_servo(mujoco, spec, f"servo/{name}/{joint_name}", joint.name, kp, force)
        for finger in arm.gripper.fingers:
            _add_servo(mujoco, spec, f"servo/{name}/{finger.joint}", f"gripper/{name}/{finger.joint}",
                       arm.gripper.kp, arm.gripper.force_n)  # fmt: skip
        for body_name in arm.gripper.finger_bodies:
            for geom in spec.body(f"gripper/{name}/{body_name}").geoms:
                geom.friction, geom.condim = [arm.gripper.pad_friction, 0.05, 0.001], 4
    for body in spec.bodies:
        if body.name.startswith((f"robot{number}/", "gripper/")):
            body.gravcomp = 1.0


def _require(entries: Any, names: Iterable[str], kind: str, mjcf: str) -> None:
    """Raises AssetError for a name that the file does not have."""
    present = [entry.name for entry in entries if entry.name]
    for name in names:
        if name not in present:
            raise AssetError(f"robot file {mjcf} has no {kind} called '{name}'; {did_you_mean(name, present)}")


def read_mjcf(mujoco: Any, mjcf: str) -> Any:
    """A file with bodies, joints and geoms alone: servos, cameras and lamps are ours. Raises AssetError."""
    path = file_of(mjcf)
    try:
        text = mended_text(Path(path), radians=mjcf.partition(":")[0] in IN_RADIANS)
        part = mujoco.MjSpec.from_file(path) if text is None else mujoco.MjSpec.from_string(text)
        part.modelfiledir = str(Path(path).absolute().parent)
    except ValueError as error:
        raise AssetError(f"robot file {path} cannot be read: {' '.join(str(error).split())}") from error
    for kind in (part.actuators, part.sensors, part.cameras, part.lights, part.sites):
        for entry in list(kind):
            part.delete(entry)
    for picture in part.textures:
        as_encoded(picture)
    return part


def _add_servo(mujoco: Any, spec: Any, name: str, joint: str, kp: float, force: float) -> None:
    servo = spec.add_actuator(name=name, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=kp, kv=kp * _DAMPING_RATIO)
    servo.forcelimited, servo.forcerange = True, [-force, force]


def _couple_fingers(mujoco: Any, spec: Any, prefix: str, links: list[str], fingers: tuple[FingerModel, ...]) -> None:
    """Couple the joints of a hand whose fingers turn: they go from closed to open together, as their bars make them.

    This takes the place of what the file couples them by, which is stated for other actuators than ours.

    The bars themselves overlap where they meet, and do not collide with each other.
    """
    for one, other in combinations(links, 2):
        spec.add_exclude(bodyname1=prefix + one, bodyname2=prefix + other)
    first = fingers[0]
    for finger in fingers:  # bars are light: without the motor's inertia, couplings would give way to servos
        joint = spec.joint(prefix + finger.joint)
        joint.armature = max(float(joint.armature), _ARMATURE)
    for finger in fingers[1:]:
        slope = (finger.open - finger.closed) / (first.open - first.closed)
        couple = spec.add_equality(
            name=f"{prefix}{finger.joint}/coupled", type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT,
            name1=prefix + finger.joint, name2=prefix + first.joint, solref=[0.005, 1.0],
        )  # fmt: skip
        couple.data[:5] = [finger.closed - slope * first.closed, slope, 0.0, 0.0, 0.0]
