"""`Handled`: the base of the skills `open` and `close`, which lead the handle of a drawer or a door."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.models.fixtures import Handle, handle_of
from nimbusd.stages.workflow.sim.models.objects import Shape
from nimbusd.stages.workflow.sim.motion.collision import Led
from nimbusd.stages.workflow.sim.motion.planner import RECHECK_RAD
from nimbusd.stages.workflow.sim.rotation import UP, downward, inverse, transform
from nimbusd.stages.workflow.sim.skills.first_free import ROUGH_RAD, Hopeless, first_free
from nimbusd.stages.workflow.sim.skills.skill import CLOSE_STEPS, OPEN_STEPS
from nimbusd.stages.workflow.sim.skills.touching import STANDOFF_M, Touching
from nimbusd.stages.workflow.sim.workcell.workcell import CLEARANCE_M, Workcell
from nimbusd.stages.workflow.sim.world.world import ArmIndex

_LEAD_STEP = {"slide": 0.015, "hinge": 0.06}
_HOLDS = sorted(
    ((first, last) for first in (0.0, 0.6, -0.6, 1.2, -1.2) for last in (0.0, 0.6, -0.6, 1.2, -1.2)),
    key=lambda hold: (abs(hold[1] - hold[0]), abs(hold[0]) + abs(hold[1])),
)
"""Turns of a hand against a round handle, at the start and at the end of its way; the stillest first."""


@dataclass(frozen=True)
class _Way:
    """A way to move a handle. before: joints above it. reach: path down to it. lead: path that leads the handle along.

    leave: path away from it at the end. T_at: tool pose at the handle.
    """

    before: F64
    reach: F64
    lead: F64
    leave: F64
    T_at: F64


class Handled(Touching):
    """Grip the handle of a drawer or a door from above, lead it along its joint, let go.

    A drawer's hand keeps its direction. A door's turns with the door as far as the arm allows; for the rest the round
    handle turns between the fingers.
    """

    done_to: ClassVar[tuple[Shape, ...]] = ("drawer", "door")
    share: float = Field(ge=0, le=1)

    def act(self, cell: Workcell) -> None:
        handle, arm = self._handle(cell), self._arm(cell)
        way = self._choose(cell, arm, handle, self.share * handle.travel)
        cell.begin_phase("reach", arm)
        cell.allow(arm)
        cell.grip_to(arm, handle.opening_m, 4)
        cell.move_joints(arm, way.before)
        cell.begin_phase("approach", arm)
        cell.allow(arm, touchable=[self.object])
        cell.follow(arm, way.reach)
        cell.begin_phase("grasp", arm, "grip the handle")
        cell.note_point("handle", f"handle of {self.object}", "", way.T_at[:3, 3], arm, -UP, handle.width_m)
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

    def _handle(self, cell: Workcell) -> Handle:
        entry = cell.object(self.object)
        return handle_of(entry.definition, entry.size_m)

    def _led(self, cell: Workcell, handle: Handle) -> Led:
        T_object_world = inverse(cell.simulation.object_pose(self.object))

        def value_of(T_world_tcp: F64) -> float:
            return handle.value_of((T_object_world @ T_world_tcp)[:3, 3])

        return Led(self.object, value_of, cell.simulation.riders(self.object))

    def _choose(self, cell: Workcell, arm: ArmIndex, handle: Handle, wanted: float) -> _Way:
        """The first way of holding the handle with which the arm can go all the way without touching anything."""
        led = self._led(cell, handle)
        way, failed = first_free(
            self._candidates(cell, arm, handle, wanted), lambda candidate: self._way(cell, arm, handle, led, *candidate)
        )
        if way is not None:
            return way
        if failed["no_path"]:
            raise PlanningFailed("no_path", f"no way of moving the handle of {self.object} is free")
        raise PlanningFailed("ik_failed", f"the arm cannot follow the handle of {self.object} all the way")

    def _candidates(
        self, cell: Workcell, arm: ArmIndex, handle: Handle, wanted: float
    ) -> Iterator[tuple[list[F64], F64]]:
        """Tool poses that lead the handle from where it is to the joint value `wanted`, and joints above the first."""
        T, now = cell.simulation.object_pose(self.object), cell.simulation.joint_of(self.object)
        kinematics, here = cell.kinematics[arm.name], cell.commanded(arm)
        values = np.linspace(now, wanted, 2 + math.ceil(abs(wanted - now) / _LEAD_STEP[handle.kind]))
        grips = [T @ handle.grip(float(value)) for value in values]
        for first, last in _HOLDS if handle.turns else ((0.0, 0.0),):
            for flip in (0.0, math.pi):
                turns = np.linspace(first, last, len(values)) + flip + math.pi / 2
                poses = [grip @ transform(downward(turn)) for grip, turn in zip(grips, turns, strict=True)]
                above = transform(poses[0][:3, :3], poses[0][:3, 3] + (STANDOFF_M + 0.03) * UP)
                for before in kinematics.solve_any(above, here, cell.rng, starts=4)[:2]:
                    yield poses, before

    def _way(self, cell: Workcell, arm: ArmIndex, handle: Handle, led: Led, poses: list[F64], before: F64) -> _Way:
        """The whole way through the poses. Raises PlanningFailed: ik_failed, no_path."""
        cell.simulation.beat()
        reach = cell.straight_path(arm, before, poses[0])
        lead = cell.path_through(arm, reach[-1], poses[1:])
        end = transform(poses[-1][:3, :3], poses[-1][:3, 3] + STANDOFF_M * UP)
        leave = cell.straight_path(arm, lead[-1], end)
        for step_rad in (ROUGH_RAD, RECHECK_RAD):  # roughly first, then as densely as they are rechecked
            timed = step_rad == RECHECK_RAD
            paths = [cell.straight_timing(arm, path) if timed else path for path in (reach, lead, leave)]
            self._require_free(cell, arm, handle, led, paths, step_rad)
        return _Way(before, reach, lead, leave, poses[0])

    def _require_free(
        self, cell: Workcell, arm: ArmIndex, handle: Handle, led: Led, paths: list[F64], step_rad: float
    ) -> None:
        """Raises PlanningFailed('no_path') where something is in the way there, along, or away.

        That is Hopeless where the moving part itself would touch something.
        """
        reach, lead, leave = paths
        cell.allow(arm, touchable=[self.object], clearance_m=CLEARANCE_M / 4)
        cell.checker.set_opening(arm, handle.opening_m)
        cell.require_free(reach, step_rad)
        cell.allow(arm, touchable=[self.object], led=led)
        cell.checker.set_opening(arm, handle.width_m)
        touch = cell.checker.first_touch(lead, step_rad)
        if touch is not None and not any(owner.startswith("robot/") for owner in touch[1]):
            raise Hopeless("no_path", f"{' would touch '.join(touch[1])} on its way")
        cell.require_free(lead, step_rad)
        # The fixture stays where it was led, so that leaving is asked from that state.
        cell.checker.set_query(arm, touchable=[self.object], clearance_m=CLEARANCE_M / 4)
        cell.checker.set_opening(arm, handle.opening_m)
        cell.require_free(leave, step_rad)
