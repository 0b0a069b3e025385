"""A simulated demonstration as a `Sequence`: what writers store, and what rendering replays.

Row k of every column belongs to frame k. `action` and `master_actions.*` are what was commanded from that state, the
state of row k + 1 is the result. `simulation.qpos` holds the simulator's own state, which rendering puts back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any

import numpy as np

from nimbusd.stages.notes import (
    KEY_FRAMES,
    KEY_POINTS,
    NOUNS,
    RESULT,
    ROBOT,
    SIZES,
    SUB_TASKS,
    SUCCESS,
    KeyPointNote,
    SubTask,
)
from nimbusd.stages.store.arm_columns import ROBOT_POSE, ArmSignals, a1_columns
from nimbusd.stages.store.poses import inverse, transforms_of
from nimbusd.stages.types import F64, SIMULATION_QPOS, SIMULATION_QVEL, Camera, Feature, Sequence
from nimbusd.stages.workflow.sim import ArmTrace, Demonstration, Layout, Phase, object_poses

DIRECTIONS_NOTE = "as the robot sees them: left is +y of its base, right -y, behind +x, in front of -x"
"""The meaning of directions in instructions, whatever side a camera looks from."""
REST = "rest"
"""The skill of phases in which nothing is commanded."""


def sequence_of(demo: Demonstration, layout: Layout) -> Sequence:
    """A demonstration with all its signals, named as in InternData-A1, beside `observation.state` and `action`."""
    length = len(demo)
    T_world_robot = np.broadcast_to(demo.T_world_robot, (length, 4, 4))
    single = len(demo.arms) == 1
    arms = [_signals("" if single else name, arm, length) for name, arm in demo.arms.items()]
    states, actions = a1_columns(arms, T_world_robot)
    states["observation.state"] = _joined(demo, "joint_position", "opening")
    actions["action"] = _joined(demo, "joint_command", "opening_command")
    states |= {f"observation.joint.{name}": Feature(opening) for name, opening in demo.joints.items()}
    states |= {SIMULATION_QPOS: Feature(demo.qpos), SIMULATION_QVEL: Feature(demo.qvel)}
    cameras = tuple(entry.camera for entry in layout.cameras if entry.name in demo.T_world_camera)
    robot_world = inverse(demo.T_world_robot)
    return Sequence(
        fps=demo.fps,
        task=demo.instruction,
        cameras=cameras,
        T_world_camera=demo.T_world_camera,
        T_base_camera={name: robot_world @ T[0] for name, T in demo.T_world_camera.items()},
        states=states,
        actions=actions,
        T_world_object=demo.T_world_object,
        notes=notes_of(demo, layout),
    )


def notes_of(demo: Demonstration, layout: Layout) -> dict[str, Any]:
    """JSON values for the episode's metadata: its parts with their instructions, contacts, grasp and key points.

    robot: its type as datasets call it, and for each arm its joints' names and the gripper's least and most width.
    sub_tasks: stretches of one instruction. phases: what they consist of. goals: in words, all reached. nouns: how
    one speaks of each object. sizes_m: edges of each object's bounding box, whose middle is the object's origin.
    directions: what left and right are. seen_px: camera → object or region → its pixels in the first frame.
    """
    return {
        RESULT: SUCCESS.described(),
        SUB_TASKS: [part.described() for part in _sub_tasks(demo.phases)],
        "phases": [{"name": phase.name, "start": phase.start, "stop": phase.stop} for phase in demo.phases],
        KEY_FRAMES: sorted({point.row for point in demo.keypoints}),
        KEY_POINTS: [KeyPointNote(**asdict(point)).described() for point in demo.keypoints],
        "contacts": [
            {"row": event.row, "a": event.a, "b": event.b, "force_n": event.force_n} for event in demo.contacts
        ],
        "goals": [goal.words() for goal in layout.goals],
        "reached": list(demo.reached),
        "paraphrases": list(layout.paraphrases),
        "directions": DIRECTIONS_NOTE,
        NOUNS: dict(layout.draws.nouns),
        SIZES: {entry.name: list(entry.size_m) for entry in layout.objects},
        ROBOT: {
            "type": layout.robot.definition.robot_type or layout.robot.model,
            "arms": {
                name: {"joints": list(arm.joint_names), "gripper_width_m": list(arm.opening_range)}
                for name, arm in demo.arms.items()
            },
        },
        "facts": dict(demo.facts),
        "seen_px": {camera: dict(pixels) for camera, pixels in demo.seen_px.items()},
    }


def seen_by(seq: Sequence, cameras: tuple[Camera, ...], T_world_camera: Mapping[str, F64]) -> Sequence:
    """The same motion, seen by other cameras. T_world_camera: camera → (T, 4, 4)."""
    robot_world = inverse(transforms_of(seq.states[ROBOT_POSE].values))
    T_base_camera = {name: robot_world[0] @ T[0] for name, T in T_world_camera.items()}
    return replace(seq, cameras=cameras, T_world_camera=T_world_camera, T_base_camera=T_base_camera)


def replay_sequence(layout: Layout, T_world_camera: Mapping[str, F64], qpos: F64) -> Sequence:
    """No more than renderers need: recorded states, for those that set them, and where everything is in these."""
    cameras = tuple(entry.camera for entry in layout.cameras if entry.name in T_world_camera)
    return Sequence(
        fps=layout.physics.fps,
        task=layout.instruction,
        cameras=cameras,
        T_world_camera=T_world_camera,
        T_base_camera={name: T[0] for name, T in T_world_camera.items()},
        states={SIMULATION_QPOS: Feature(qpos)},
        actions={},
        T_world_object=object_poses(layout, qpos),
    )


def _signals(name: str, arm: ArmTrace, length: int) -> ArmSignals:
    return ArmSignals(
        name=name,
        joint_position=arm.joint_position,
        joint_command=arm.joint_command,
        joint_velocity=arm.joint_velocity,
        joint_velocity_command=arm.joint_velocity_command,
        gripper_position=arm.opening,
        gripper_command=arm.opening_command,
        openness_command=arm.openness_command,
        T_world_armbase=np.array(np.broadcast_to(arm.T_world_base, (length, 4, 4))),
        gripper_velocity=arm.opening_velocity,
        T_world_ee=arm.T_world_ee,
        T_world_tcp=arm.T_world_tcp,
        T_world_ee_command=arm.T_world_ee_command,
    )


def _joined(demo: Demonstration, joints: str, gripper: str) -> Feature:
    """Joints (rad) and width between the pads (m) of every arm side by side, named."""
    single = len(demo.arms) == 1
    parts, names = [], []
    for name, arm in demo.arms.items():
        prefix = "" if single else f"{name}_"
        parts += [getattr(arm, joints), getattr(arm, gripper)[:, None]]
        names += [f"{prefix}joint_{index}" for index in range(len(arm.joint_names))] + [f"{prefix}gripper_width"]
    return Feature(np.concatenate(parts, axis=1), tuple(names))


def _sub_tasks(phases: tuple[Phase, ...]) -> list[SubTask]:
    """Consecutive phases of one skill call with one instruction, as one part of the episode.

    The wait at the end, in which the goal is judged, belongs to the part before it.
    """
    parts: list[SubTask] = []
    for (_, instruction, arm, skill), group in groupby(phases, key=lambda p: (p.call, p.instruction, p.arm, p.skill)):
        members = list(group)
        if skill == REST and parts:
            parts[-1] = replace(parts[-1], stop=members[-1].stop)
            continue
        parts.append(SubTask(members[0].start, members[-1].stop, instruction, arm, skill))
    return parts
