"""The skills `push`, `open`, `close`, `press` and `rotate`: moving things without lifting them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.collision import Led
from nimbusd.stages.workflow.sim.fixtures import Handle, handle_of
from nimbusd.stages.workflow.sim.layout import RelationLayout
from nimbusd.stages.workflow.sim.relations import DIRECTIONS, Footprint, holds
from nimbusd.stages.workflow.sim.rotation import UP, about, inverse, transform
from nimbusd.stages.workflow.sim.skills import CLOSE_STEPS, OPEN_STEPS, Skill, downward, empty_handed, note_point, skill
from nimbusd.stages.workflow.sim.workcell import Workcell
from nimbusd.stages.workflow.sim.world import ArmIndex

_STANDOFF_M = 0.07
_PUSH_SPARE_M = 0.02
_LEAD_STEP = {"slide": 0.015, "hinge": 0.06}
_HOLDS = sorted(
    ((first, last) for first in (0.0, 0.6, -0.6, 1.2, -1.2) for last in (0.0, 0.6, -0.6, 1.2, -1.2)),
    key=lambda hold: (abs(hold[1] - hold[0]), abs(hold[0]) + abs(hold[1])),
)
"""How a hand may be turned against a round handle, at the start and at the end of its way; the stillest first."""


class _Touching(Skill):
    """What these skills share: an object, the arm nearest to it, a straight way in and out. palm: may touch it too."""

    object: str
    palm: ClassVar[bool] = False

    def _arm(self, cell: Workcell) -> ArmIndex:
        return cell.choose_arm(self.arm, cell.simulation.object_pose(self.object)[:3, 3])

    def _require(self, cell: Workcell, *shapes: str) -> None:
        entry = cell.object(self.object)
        if shapes and entry.definition["shape"] not in shapes:
            raise PlanningFailed(
                "precondition", f"{self.name} needs a {' or '.join(shapes)}, {entry.name} is a {entry.category}"
            )
        empty_handed(cell, self._arm(cell))

    def _enter(self, cell: Workcell, arm: ArmIndex, choices: list[tuple[F64, F64]], opening_m: float) -> F64:
        """Go to the first of (before, at) tool poses whose way in is free; returns the pose that was taken."""
        kinematics, here = cell.kinematics[arm.name], cell.commanded(arm)
        reached = False
        for T_before, T_at in choices:
            for before in kinematics.solve_any(T_before, here, cell.rng, starts=4)[:3]:
                try:
                    path = cell.straight_path(arm, before, T_at)
                except PlanningFailed:
                    continue
                reached = True
                cell.allow(arm, touchable=[self.object], palm=self.palm)
                cell.checker.set_opening(arm, opening_m)
                if cell.checker.first_touch(path, 0.05) is None:
                    cell.begin_phase("reach", arm)
                    cell.grip_to(arm, opening_m, 4)
                    cell.move_joints(arm, before)
                    cell.begin_phase("approach", arm)
                    cell.allow(arm, touchable=[self.object], palm=self.palm)
                    cell.follow(arm, path)
                    return T_at
        reason = "no_path" if reached else "ik_failed"
        raise PlanningFailed(reason, f"no way in to {self.object} for {self.name}")

    def _shift(self, cell: Workcell, arm: ArmIndex, offset: F64, scale: float = 1.0) -> None:
        """Move the tool straight by an offset in the world while the fingers touch the object."""
        T = cell.commanded_tcp(arm)
        cell.allow(arm, touchable=[self.object], palm=self.palm)
        cell.move_straight(arm, transform(T[:3, :3], T[:3, 3] + offset), scale)

    def _leave(self, cell: Workcell, arm: ArmIndex) -> None:
        """Back out along the tool's axis."""
        cell.begin_phase("retreat", arm, "move the gripper away")
        cell.allow(arm, touchable=[self.object], palm=self.palm)
        cell.move_straight(arm, cell.commanded_tcp(arm) @ transform(None, (0, 0, -_STANDOFF_M)))


@skill
class Push(_Touching):
    """Push an object over the table with closed fingers. direction: as the robot sees it. distance_m: how far.

    Precondition: the hand is empty, the object free to move. Success: it moved at least half the distance that way.
    """

    name: ClassVar[str] = "push"
    palm: ClassVar[bool] = True
    direction: Literal["left_of", "right_of", "behind", "in_front_of"]
    distance_m: float = Field(default=0.10, gt=0.01, lt=0.4)
    _start: F64 = PrivateAttr(default_factory=lambda: np.zeros(2))

    def check(self, cell: Workcell) -> None:
        self._require(cell)
        if cell.object(self.object).fixed:
            raise PlanningFailed("precondition", f"{self.object} is fixed and cannot be pushed")

    def act(self, cell: Workcell) -> None:
        arm, along = self._arm(cell), self._along(cell)
        self._start = Footprint.of(cell.vertices(self.object)).centre
        mesh = cell.vertices(self.object)
        back = float((mesh[:, :2] @ along[:2]).min() - self._start @ along[:2])
        height = cell.layout.table.height_m + max(arm.model.gripper.reach_m + 0.006, 0.35 * float(np.ptp(mesh[:, 2])))
        reach = 0.5 * arm.model.gripper.thickness_m + _PUSH_SPARE_M
        point = np.array([*(self._start + along[:2] * (back - reach)), height])
        yaw = float(np.arctan2(along[1], along[0]))
        choices = []
        for turn in (yaw, yaw + np.pi, yaw + np.pi / 2, yaw - np.pi / 2):
            T_at = transform(downward(turn), point)
            choices.append((transform(T_at[:3, :3], point + _STANDOFF_M * UP), T_at))
        self._enter(cell, arm, choices, arm.model.gripper.opening_m[0])
        cell.begin_phase("push", arm)
        note_point(cell, "push", f"push {self.object}", "", np.array([*self._start, height]), arm, along)
        self._shift(cell, arm, along * (self.distance_m + _PUSH_SPARE_M), 0.7)
        self._leave(cell, arm)
        cell.wait(arm, 4)

    def verify(self, cell: Workcell) -> None:
        moved = Footprint.of(cell.vertices(self.object)).centre - self._start
        along = self._along(cell)[:2]
        if moved @ along < 0.5 * self.distance_m:
            raise PlanningFailed(
                "skill_failed",
                f"{self.object} moved {float(moved @ along) * 100:.1f} cm, not {self.distance_m * 100:.0f}",
            )

    def _along(self, cell: Workcell) -> F64:
        forward, left = DIRECTIONS[self.direction]
        return np.asarray(cell.world.T_world_robot[:3, :3] @ np.array([forward, left, 0.0]))


@dataclass(frozen=True)
class _Way:
    """How to move a handle. before: joints above it. reach: path down to it. lead: path that leads the handle along.

    leave: path away from it at the end. T_at: tool pose at the handle.
    """

    before: F64
    reach: F64
    lead: F64
    leave: F64
    T_at: F64


class _Handled(_Touching):
    """Grip the handle of a drawer or a door from above, lead it along its joint, let go.

    A drawer's hand keeps its direction. A door's turns with the door as far as the arm allows; for the rest the round
    handle turns between the fingers.
    """

    share: float = Field(ge=0, le=1)

    def _lead(self, cell: Workcell) -> None:
        handle, arm = handle_of(cell.object(self.object)), self._arm(cell)
        way = self._choose(cell, arm, handle, self.share * handle.travel)
        cell.begin_phase("reach", arm)
        cell.allow(arm)
        cell.grip_to(arm, handle.opening_m, 4)
        cell.move_joints(arm, way.before)
        cell.begin_phase("approach", arm)
        cell.allow(arm, touchable=[self.object])
        cell.follow(arm, way.reach)
        cell.begin_phase("grasp", arm, "grip the handle")
        note_point(cell, "handle", f"handle of {self.object}", "", way.T_at[:3, 3], arm, -UP, handle.width_m)
        cell.grip_to(arm, arm.model.gripper.opening_m[0], CLOSE_STEPS)
        if cell.simulation.finger_touches(arm, self.object) < 2:
            raise PlanningFailed("grasp_slipped", f"the fingers do not hold the handle of {self.object}")
        cell.begin_phase("slide" if handle.kind == "slide" else "swing", arm)
        cell.allow(arm, touchable=[self.object], led=self._led(cell, handle))
        cell.follow(arm, way.lead)
        cell.begin_phase("release", arm, "let go of the handle")
        cell.allow(arm, touchable=[self.object])
        cell.grip_to(arm, handle.opening_m, OPEN_STEPS)
        cell.begin_phase("retreat", arm, "move the gripper away")
        cell.follow(arm, way.leave)

    def _led(self, cell: Workcell, handle: Handle) -> Led:
        T_object_world = inverse(cell.simulation.object_pose(self.object))

        def value_of(T_world_tcp: F64) -> float:
            return handle.value_of((T_object_world @ T_world_tcp)[:3, 3])

        return Led(self.object, value_of, cell.simulation.riders(self.object))

    def _choose(self, cell: Workcell, arm: ArmIndex, handle: Handle, wanted: float) -> _Way:
        """The first way of holding the handle with which the arm can go all the way without touching anything."""
        T, now = cell.simulation.object_pose(self.object), cell.simulation.joint_of(self.object)
        kinematics, here = cell.kinematics[arm.name], cell.commanded(arm)
        values = np.linspace(now, wanted, 2 + math.ceil(abs(wanted - now) / _LEAD_STEP[handle.kind]))
        grips = [T @ handle.grip(float(value)) for value in values]
        led, reached = self._led(cell, handle), False
        for first, last in _HOLDS if handle.turns else ((0.0, 0.0),):
            for flip in (0.0, math.pi):
                turns = np.linspace(first, last, len(values)) + flip + math.pi / 2
                poses = [grip @ transform(downward(turn), (0, 0, 0)) for grip, turn in zip(grips, turns, strict=True)]
                above = transform(poses[0][:3, :3], poses[0][:3, 3] + (_STANDOFF_M + 0.03) * UP)
                for before in kinematics.solve_any(above, here, cell.rng, starts=4)[:2]:
                    cell.simulation.beat()
                    try:
                        reach = cell.straight_path(arm, before, poses[0])
                        lead = cell.path_through(arm, reach[-1], poses[1:])
                        end = transform(poses[-1][:3, :3], poses[-1][:3, 3] + _STANDOFF_M * UP)
                        leave = cell.straight_path(arm, lead[-1], end)
                    except PlanningFailed:
                        continue
                    reached = True
                    if self._free(cell, arm, handle, led, (reach, lead, leave)):
                        return _Way(before, reach, lead, leave, poses[0])
        if reached:
            raise PlanningFailed("no_path", f"no way of moving the handle of {self.object} is free")
        raise PlanningFailed("ik_failed", f"the arm cannot follow the handle of {self.object} all the way")

    def _free(self, cell: Workcell, arm: ArmIndex, handle: Handle, led: Led, paths: tuple[F64, F64, F64]) -> bool:
        reach, lead, leave = paths
        cell.allow(arm, touchable=[self.object])
        cell.checker.set_opening(arm, handle.opening_m)
        if cell.checker.first_touch(reach, 0.05) is not None:
            return False
        cell.allow(arm, touchable=[self.object], led=led)
        cell.checker.set_opening(arm, handle.width_m)
        if cell.checker.first_touch(lead, 0.05) is not None:
            return False
        # The fixture stays where it was led, so that leaving is asked from that state.
        cell.checker.set_query(arm, touchable=[self.object])
        cell.checker.set_opening(arm, handle.opening_m)
        return cell.checker.first_touch(leave, 0.05) is None


@skill
class Open(_Handled):
    """Open a drawer or a door by its handle. share: of its travel. Precondition: it is not open. Success: it is."""

    name: ClassVar[str] = "open"
    share: float = Field(default=0.85, ge=0.65, le=1)

    def check(self, cell: Workcell) -> None:
        self._require(cell, "drawer", "door")
        if holds(cell, RelationLayout(self.object, "open", "")):
            raise PlanningFailed("precondition", f"{self.object} is open already")

    def act(self, cell: Workcell) -> None:
        self._lead(cell)

    def verify(self, cell: Workcell) -> None:
        if not holds(cell, RelationLayout(self.object, "open", "")):
            raise PlanningFailed("skill_failed", f"{self.object} is not open afterwards")


@skill
class Close(_Handled):
    """Close a drawer or a door by its handle. Precondition: it is not closed. Success: it is."""

    name: ClassVar[str] = "close"
    share: float = Field(default=0.0, ge=0, le=0.05)

    def check(self, cell: Workcell) -> None:
        self._require(cell, "drawer", "door")
        if holds(cell, RelationLayout(self.object, "closed", "")):
            raise PlanningFailed("precondition", f"{self.object} is closed already")

    def act(self, cell: Workcell) -> None:
        self._lead(cell)

    def verify(self, cell: Workcell) -> None:
        if not holds(cell, RelationLayout(self.object, "closed", "")):
            raise PlanningFailed("skill_failed", f"{self.object} is not closed afterwards")


@skill
class Press(_Touching):
    """Press a button with closed fingers. Precondition: the hand is empty. Success: it was down."""

    name: ClassVar[str] = "press"

    def check(self, cell: Workcell) -> None:
        self._require(cell, "button")

    def act(self, cell: Workcell) -> None:
        arm, entry = self._arm(cell), cell.object(self.object)
        T = cell.simulation.object_pose(self.object)
        top = T[:3, 3] + entry.size_m[2] / 2 * UP
        above = top + (arm.model.gripper.reach_m + 0.01) * UP
        choices = [
            (transform(downward(yaw), above + _STANDOFF_M * UP), transform(downward(yaw), above))
            for yaw in (0.0, 0.8, -0.8, 1.57)
        ]
        self._enter(cell, arm, choices, arm.model.gripper.opening_m[0])
        cell.begin_phase("press", arm)
        note_point(cell, "press", f"press {self.object}", "", top, arm, -UP)
        depth = float(entry.definition["travel"]) + 0.012
        self._shift(cell, arm, -depth * UP, 0.5)
        self._leave(cell, arm)

    def verify(self, cell: Workcell) -> None:
        if not holds(cell, RelationLayout(self.object, "pressed", "")):
            raise PlanningFailed("skill_failed", f"{self.object} was not pressed down")


@skill
class Rotate(_Touching):
    """Turn a knob. angle_rad: by how much.

    Precondition: it can still turn that far. Success: it did, within a quarter of the angle.
    """

    name: ClassVar[str] = "rotate"
    angle_rad: float = Field(default=1.2, gt=0.05, le=2.5)
    _start: float = PrivateAttr(default=0.0)

    def check(self, cell: Workcell) -> None:
        self._require(cell, "knob")
        left = float(cell.object(self.object).definition["travel"]) - cell.simulation.joint_of(self.object)
        if self.angle_rad > left:
            raise PlanningFailed(
                "precondition", f"{self.object} turns by {left:.2f} rad more, not by {self.angle_rad:.2f}"
            )

    def act(self, cell: Workcell) -> None:
        arm, entry = self._arm(cell), cell.object(self.object)
        T = cell.simulation.object_pose(self.object)
        self._start = cell.simulation.joint_of(self.object)
        top = T[:3, 3] + (entry.size_m[2] / 2 - 0.006) * UP
        # The grip bar lies along the knob's x: the fingers close across it.
        yaw = float(np.arctan2(T[1, 0], T[0, 0])) + self._start
        choices = []
        for turn in (yaw, yaw + np.pi):
            T_at = transform(downward(turn), top)
            choices.append((transform(T_at[:3, :3], top + _STANDOFF_M * UP), T_at))
        self._enter(cell, arm, choices, 0.045)
        cell.begin_phase("grasp", arm)
        note_point(cell, "handle", f"grip of {self.object}", "", top, arm, -UP, 0.018)
        cell.allow(arm, touchable=[self.object], palm=self.palm)
        cell.grip_to(arm, arm.model.gripper.opening_m[0], CLOSE_STEPS)
        cell.begin_phase("turn", arm)
        here = cell.commanded_tcp(arm)
        cell.allow(arm, touchable=[self.object], palm=self.palm)
        steps = max(2, int(np.ceil(self.angle_rad / 0.5)))
        for k in range(1, steps + 1):
            turned = about([0, 0, 1], self.angle_rad * k / steps) @ here[:3, :3]
            cell.move_straight(arm, transform(turned, here[:3, 3]), 1.5)
        cell.begin_phase("release", arm)
        cell.grip_to(arm, 0.045, OPEN_STEPS)
        self._leave(cell, arm)

    def verify(self, cell: Workcell) -> None:
        turned = cell.simulation.joint_of(self.object) - self._start
        if abs(turned - self.angle_rad) > 0.25 * self.angle_rad:
            raise PlanningFailed(
                "skill_failed", f"{self.object} turned by {turned:.2f} rad, not by {self.angle_rad:.2f}"
            )
