"""The skills `push`, `press` and `rotate`: moving things without lifting them."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.layout.layout import RelationLayout
from nimbusd.stages.workflow.sim.rotation import UP, about, downward, transform
from nimbusd.stages.workflow.sim.skills.skill import (
    CLOSE_STEPS,
    OPEN_STEPS,
    Skill,
    empty_handed,
    note_point,
    skill,
)
from nimbusd.stages.workflow.sim.workcell.relations import DIRECTIONS, Footprint, holds
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.world import ArmIndex

STANDOFF_M = 0.07
_PUSH_SPARE_M = 0.02


class Touching(Skill):
    """What these skills share: an object, the arm nearest to it, a straight way in and out. palm: may touch it too."""

    object: str
    palm: ClassVar[bool] = False

    def _arm(self, cell: Workcell) -> ArmIndex:
        return cell.choose_arm(self.arm, cell.simulation.object_pose(self.object)[:3, 3])

    def _require(self, cell: Workcell, *shapes: str) -> None:
        entry = cell.object(self.object)
        if shapes and entry.definition.shape not in shapes:
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
        cell.move_straight(arm, cell.commanded_tcp(arm) @ transform(None, (0, 0, -STANDOFF_M)))


@skill
class Push(Touching):
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
            choices.append((transform(T_at[:3, :3], point + STANDOFF_M * UP), T_at))
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


@skill
class Press(Touching):
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
            (transform(downward(yaw), above + STANDOFF_M * UP), transform(downward(yaw), above))
            for yaw in (0.0, 0.8, -0.8, 1.57)
        ]
        self._enter(cell, arm, choices, arm.model.gripper.opening_m[0])
        cell.begin_phase("press", arm)
        note_point(cell, "press", f"press {self.object}", "", top, arm, -UP)
        depth = entry.definition.travel + 0.012
        self._shift(cell, arm, -depth * UP, 0.5)
        self._leave(cell, arm)

    def verify(self, cell: Workcell) -> None:
        if not holds(cell, RelationLayout(self.object, "pressed", "")):
            raise PlanningFailed("skill_failed", f"{self.object} was not pressed down")


@skill
class Rotate(Touching):
    """Turn a knob. angle_rad: by how much.

    Precondition: it can still turn that far. Success: it did, within a quarter of the angle.
    """

    name: ClassVar[str] = "rotate"
    angle_rad: float = Field(default=1.2, gt=0.05, le=2.5)
    _start: float = PrivateAttr(default=0.0)

    def check(self, cell: Workcell) -> None:
        self._require(cell, "knob")
        left = cell.object(self.object).definition.travel - cell.simulation.joint_of(self.object)
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
            choices.append((transform(T_at[:3, :3], top + STANDOFF_M * UP), T_at))
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
