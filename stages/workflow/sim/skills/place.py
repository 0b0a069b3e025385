"""The skill `place`: put down what the hand holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
from pydantic import Field, field_validator

from nimbusd.stages.arguments import did_you_mean
from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.layout.layout import RelationLayout
from nimbusd.stages.workflow.sim.models.fixtures import WALL_M
from nimbusd.stages.workflow.sim.rotation import UP, about, inverse, transform
from nimbusd.stages.workflow.sim.skills.first_free import ROUGH_RAD, first_free, reason_of
from nimbusd.stages.workflow.sim.skills.skill import FINGER_SPARE_M, OPEN_STEPS, SLIP_M, Skill, skill
from nimbusd.stages.workflow.sim.workcell.containers import container
from nimbusd.stages.workflow.sim.workcell.relations import WORDS, Footprint, holds, resting_spots, settled
from nimbusd.stages.workflow.sim.workcell.workcell import CLEARANCE_M, Workcell
from nimbusd.stages.workflow.sim.world.world import ArmIndex

_SPOTS_TRIED = 12


@dataclass(frozen=True)
class _Way:
    """A way to put the object down. before: joints above the spot. path: (N, n) joints from there down to it.

    support: what the object will rest on. T_goal: its pose then, (4, 4).
    """

    before: F64
    path: F64
    support: set[str]
    T_goal: F64


@skill
class Place(Skill):
    """Put the object in the hand down so that a relation holds, such as `left_of` the reference `can`, `in` `bin_a`.

    spots: places that are drawn; those that are free are tried, at most _SPOTS_TRIED of them.

    Precondition: an arm holds the object. Success: the object is at rest, out of the hand, and the relation holds.
    """

    name: ClassVar[str] = "place"
    sentence: ClassVar[str] = "put the {object} {relation} the {reference}"
    moves: ClassVar[bool] = True
    object: str
    relation: str
    reference: str
    approach_m: float = Field(default=0.08, ge=0, le=0.5)
    spots: int = Field(default=60, ge=1, le=10_000)

    @field_validator("relation")
    @classmethod
    def _placeable(cls, value: str) -> str:
        if value not in WORDS:
            raise ValueError(f"placing brings about no relation '{value}'; {did_you_mean(value, WORDS)}")
        return value

    def check(self, cell: Workcell) -> None:
        if cell.holder(self.object) is None:
            raise PlanningFailed("precondition", f"no arm holds {self.object}")

    def act(self, cell: Workcell) -> None:
        arm = cell.holder(self.object)
        assert arm is not None
        way = self._choose(cell, arm)
        support = way.support
        where = "into" if self.relation == "in" else WORDS[self.relation]
        noun, words = cell.noun(self.object), f"{where} the {cell.noun(self.reference)}"
        cell.begin_phase("carry", arm, f"carry the {noun} {words}")
        cell.move_joints(arm, way.before)
        if cell.refresh_grip(arm) > SLIP_M:
            raise PlanningFailed("dropped", f"{self.object} slipped on the way")
        cell.begin_phase("lower", arm, f"lower the {noun} {words}")
        cell.allow(arm, rests_on=support)
        cell.follow(arm, way.path)
        cell.begin_phase("release", arm, f"release the {noun}")
        cell.note_point("place", f"place {self.object}", "", way.T_goal[:3, 3], arm, -UP)
        del cell.grips[arm.name]
        cell.allow(arm, touchable=[self.object, *support])
        width = self._width(cell, arm)
        cell.grip_to(arm, width, OPEN_STEPS)
        cell.begin_phase("retreat", arm, "move the gripper away")
        cell.follow(arm, self._way_out(cell, arm, cell.commanded(arm), width, support))
        for _ in range(20):
            if settled(cell, self.object):
                break
            cell.wait(arm, 1)

    def verify(self, cell: Workcell) -> None:
        relation = RelationLayout(self.object, self.relation, self.reference)
        if not settled(cell, self.object) or not holds(cell, relation):
            raise PlanningFailed("skill_failed", f"after placing, {relation.words()} does not hold")

    def _choose(self, cell: Workcell, arm: ArmIndex) -> _Way:
        """The way to the first spot and turn that the arm reaches without touching anything."""
        relation = RelationLayout(self.object, self.relation, self.reference)
        way, failed = first_free(
            self._candidates(cell, arm, relation), lambda candidate: self._way(cell, arm, *candidate)
        )
        if way is not None:
            return way
        if not failed:
            raise PlanningFailed("no_path", f"there is no free spot for {relation.words()}")
        raise PlanningFailed(
            reason_of(failed), f"no spot for {relation.words()} can be reached without touching something"
        )

    def _candidates(self, cell: Workcell, arm: ArmIndex, relation: RelationLayout) -> Iterator[tuple[F64, set[str]]]:
        """Poses at which to let the object go, (4, 4), and what it then rests on."""
        grip, mesh = cell.grips[arm.name], cell.mesh(self.object)
        yaw_now = cell.simulation.tcp(arm)[:3, :3] @ grip.T_tcp_object[:3, :3] @ grip.rest_R.T
        turned = float(np.arctan2(yaw_now[1, 0], yaw_now[0, 0]))
        for spot, support in islice(resting_spots(cell, self.object, relation, self.spots), _SPOTS_TRIED):
            if cell.exhausted:
                return
            cell.simulation.beat()
            for turn in (turned, turned + cell.rng.uniform(-0.6, 0.6), turned + np.pi / 2, turned - np.pi / 2):
                rotation = about([0, 0, 1], turn) @ grip.rest_R
                standing = Footprint.of(mesh.vertices @ rotation.T)
                for lift in self._lifts(cell):
                    origin = np.array([*(spot[:2] - standing.centre), spot[2] - standing.low + lift])
                    yield transform(rotation, origin), support

    def _way(self, cell: Workcell, arm: ArmIndex, T_goal: F64, support: set[str]) -> _Way:
        """The way to a pose of the object. Raises PlanningFailed: ik_failed, no_path."""
        T_tcp = T_goal @ inverse(cell.grips[arm.name].T_tcp_object)
        T_before = transform(T_tcp[:3, :3], T_tcp[:3, 3] + self.approach_m * UP)

        def down_from(before: F64) -> _Way:
            path = cell.straight_path(arm, before, T_tcp)
            cell.allow(arm, rests_on=support, clearance_m=CLEARANCE_M / 4)
            cell.require_free(path, ROUGH_RAD)
            self._way_out(cell, arm, path[-1], self._width(cell, arm), support)
            return _Way(before, path, support, T_goal)

        starts = cell.kinematics[arm.name].solve_any(T_before, cell.commanded(arm), cell.rng, starts=3)
        way, failed = first_free(starts[:2], down_from)
        if way is None:
            raise PlanningFailed(reason_of(failed), f"there is no way down to a spot for {self.object}")
        return way

    def _width(self, cell: Workcell, arm: ArmIndex) -> float:
        """Width between the fingers for letting go, metres."""
        return min(arm.model.gripper.opening_m[1], cell.simulation.opening(arm) + FINGER_SPARE_M)

    def _way_out(self, cell: Workcell, arm: ArmIndex, start: F64, opening_m: float, support: set[str]) -> F64:
        """(N, n) joints that take the open fingers away from what was placed, along the tool or straight up.

        Leaves the checker set for this motion. Raises PlanningFailed('no_path') where both touch something.
        """
        T = cell.kinematics[arm.name].tcp(start)

        def out(offset: F64) -> F64:
            path = cell.straight_path(arm, start, transform(T[:3, :3], T[:3, 3] + offset))
            cell.allow(arm, touchable=[self.object, *support], empty=True)
            cell.checker.set_opening(arm, opening_m)
            cell.require_free(path, 0.02)
            return path

        path, _ = first_free((-self.approach_m * T[:3, 2], self.approach_m * UP), out)
        if path is None:
            raise PlanningFailed("no_path", f"the fingers cannot leave {self.object} without touching something")
        return path

    def _lifts(self, cell: Workcell) -> tuple[float, ...]:
        """Heights above the support to let go at: on the ground, or from ever higher into a container."""
        if self.relation != "in" or cell.region(self.reference) is not None:
            return (0.002,)
        rim = container(cell, self.reference).rim_m + WALL_M
        return (0.004, 0.35 * rim, 0.7 * rim, rim + 0.01)
