"""`Demonstration`: what a simulated episode leaves behind, one row per control step.

Row t of a state is what was true before the command of row t; row t + 1 is its result. The last row's command
repeats the one before it (nothing follows). Rendering replays `qpos`, never the actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of an episode with an aim of its own; the phases tile the episode.

    name: short word such as `reach`, `grasp`, `lift`, `carry`, `lower`, `release`, `retreat`.
    skill: the skill that it is a part of.
    call: index of the skill call in `Layout.skills`.
    start, stop: its rows are start…stop - 1.
    instruction: sub-instruction in words.
    arm: name of the arm that moves.
    """

    name: str
    skill: str
    call: int
    start: int
    stop: int
    instruction: str
    arm: str


@dataclass(frozen=True, slots=True)
class ContactEvent:
    """First touch of a pair that was apart before. a, b: names of objects, fixtures, `table`, or `robot/<body>`."""

    row: int
    a: str
    b: str
    force_n: float


KeyPointKind: TypeAlias = Literal["grasp", "place", "press", "push", "handle"]


@dataclass(frozen=True, slots=True)
class KeyPoint:
    """A point worth pointing at.

    frame: name of the object that it moves with, empty for the world. position: metres in that frame.
    row: the control step at which the robot reaches it. approach: unit vector of the tool in the same frame.
    """

    name: str
    kind: KeyPointKind
    frame: str
    position: tuple[float, float, float]
    row: int
    arm: str
    approach: tuple[float, float, float] = (0.0, 0.0, -1.0)
    width_m: float = 0.0


@dataclass(frozen=True, slots=True)
class ArmTrace:
    """One arm's rows. n joints, T rows; poses are (T, 4, 4) float64.

    joint_names: n names, base to tip.
    joint_position: (T, n) radians, measured.
    joint_command: (T, n) radians, the set point of row t.
    joint_velocity: (T, n) radians per second, measured in the moment of row t.
    joint_velocity_command: (T, n) radians per second at which the set point moves from row t - 1's to row t's.
    opening, opening_command: (T,) metres between the pads, measured and commanded.
    opening_velocity: (T,) metres per second.
    openness_command: (T,) 0 where the command is to close the fingers, 1 where it is to open them, however wide.
    opening_range: least and most distance between the pads.
    T_world_ee: the flange, which the gripper is screwed to.
    T_world_tcp: between the finger pads; z points out of the gripper, y along the closing direction.
    T_world_ee_command: the flange where `joint_command` puts it.
    T_world_base: (4, 4) the arm's base, constant.
    """

    joint_names: tuple[str, ...]
    joint_position: F64
    joint_command: F64
    joint_velocity: F64
    joint_velocity_command: F64
    opening: F64
    opening_command: F64
    opening_velocity: F64
    openness_command: F64
    opening_range: tuple[float, float]
    T_world_ee: F64
    T_world_tcp: F64
    T_world_ee_command: F64
    T_world_base: F64


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An episode. T rows at `fps`.

    instruction: the sentence for the episode.
    qpos, qvel: (T, nq), (T, nv) float64, the simulator's whole state; `qpos` is what rendering replays.
    arms: arm name → its trace.
    T_world_object: every object and region, (T, 4, 4); of those with joints, their base.
    joints: objects' joints (drawers …) → (T,) opening.
    T_world_camera: camera → (T, 4, 4).
    T_world_robot: (4, 4) the robot's base.
    phases: they tile the rows.
    contacts: first touches, in order.
    keypoints: points worth pointing at, in order.
    reached: goals that were true at the end, in words.
    timings_s: seconds per stage of planning.
    seen_px: camera → object or region → pixels in which it is seen in the first row.
    facts: other JSON values for the episode's metadata (grasps tried, planner's name, …).
    """

    fps: float
    instruction: str
    qpos: F64
    qvel: F64
    arms: Mapping[str, ArmTrace]
    T_world_object: Mapping[str, F64]
    joints: Mapping[str, F64]
    T_world_camera: Mapping[str, F64]
    T_world_robot: F64
    phases: tuple[Phase, ...]
    contacts: tuple[ContactEvent, ...]
    keypoints: tuple[KeyPoint, ...]
    reached: tuple[str, ...]
    timings_s: Mapping[str, float] = field(default_factory=dict)
    seen_px: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.qpos)


class DemonstrationFailed(PlanningFailed):
    """A demonstration failed after something was done. demonstration: the part until then; its `reached` is empty."""

    def __init__(self, reason: str, detail: str, demonstration: Demonstration) -> None:
        super().__init__(reason, detail)
        self.demonstration = demonstration
