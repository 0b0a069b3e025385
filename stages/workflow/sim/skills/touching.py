"""`Touching`: the base of skills that move a thing without lifting it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.rotation import transform
from nimbusd.stages.workflow.sim.skills.first_free import ROUGH_RAD, first_free, reason_of
from nimbusd.stages.workflow.sim.skills.skill import Skill
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.world import ArmIndex

STANDOFF_M = 0.07


class Touching(Skill):
    """Base of skills that touch an object without lifting it: the nearest arm, its hand empty, comes straight in.

    palm: True where the palm may touch the object too, not the fingers alone.
    """

    object: str
    palm: ClassVar[bool] = False

    def _arm(self, cell: Workcell) -> ArmIndex:
        return cell.choose_arm(self.arm, cell.simulation.object_pose(self.object)[:3, 3])

    def check(self, cell: Workcell) -> None:
        entry = cell.object(self.object)
        if self.done_to and entry.definition.shape not in self.done_to:
            raise PlanningFailed(
                "precondition", f"{self.name} needs a {' or '.join(self.done_to)}, {entry.name} is a {entry.category}"
            )
        cell.require_empty_hand(self._arm(cell))

    def _enter(self, cell: Workcell, arm: ArmIndex, choices: list[tuple[F64, F64]], opening_m: float) -> F64:
        """Go to the first of (before, at) tool poses whose way in is free; returns the pose that was taken."""
        kinematics, here = cell.kinematics[arm.name], cell.commanded(arm)

        def candidates() -> Iterator[tuple[F64, F64]]:
            for T_before, T_at in choices:
                for before in kinematics.solve_any(T_before, here, cell.rng, starts=4)[:3]:
                    yield before, T_at

        def way_in(candidate: tuple[F64, F64]) -> tuple[F64, F64, F64]:
            before, T_at = candidate
            path = cell.straight_path(arm, before, T_at)
            cell.allow(arm, touchable=[self.object], palm=self.palm)
            cell.checker.set_opening(arm, opening_m)
            cell.require_free(path, ROUGH_RAD)
            return before, path, T_at

        way, failed = first_free(candidates(), way_in)
        if way is None:
            raise PlanningFailed(reason_of(failed), f"no way in to {self.object} for {self.name}")
        before, path, T_at = way
        cell.begin_phase("reach", arm)
        cell.grip_to(arm, opening_m, 4)
        cell.move_joints(arm, before)
        cell.begin_phase("approach", arm)
        cell.allow(arm, touchable=[self.object], palm=self.palm)
        cell.follow(arm, path)
        return T_at

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
