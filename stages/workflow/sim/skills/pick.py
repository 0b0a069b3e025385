"""The skills `pick` and `place`."""

from __future__ import annotations

from collections.abc import Iterator
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
from nimbusd.stages.workflow.sim.skills.grasp_choice import GraspChoice
from nimbusd.stages.workflow.sim.skills.grasps import SAMPLES, Grasp, antipodal_grasps, read_grasps
from nimbusd.stages.workflow.sim.skills.open_hand import OpenHand
from nimbusd.stages.workflow.sim.skills.skill import CLOSE_STEPS, OPEN_STEPS, Skill, empty_handed, note_point, skill
from nimbusd.stages.workflow.sim.workcell.containers import container
from nimbusd.stages.workflow.sim.workcell.relations import WORDS, Footprint, holds, resting_spots, settled
from nimbusd.stages.workflow.sim.workcell.workcell import CLEARANCE_M, Workcell
from nimbusd.stages.workflow.sim.world.world import ArmIndex

_SPOTS_TRIED = 12
_SLIP_M = 0.02
_SPARE_M = 0.024
_CLEAR_M = CLEARANCE_M / 4
"""What open fingers keep away from everything on their straight way to a grasp."""


@skill
class Pick(Skill):
    """Grasp an object and lift it. grasps: a file of the user's instead of sampling. lift_m, approach_m: distances.

    Precondition: the arm is empty and the object is free to move. Success: it hangs in the hand, off what it stood on.
    """

    name: ClassVar[str] = "pick"
    files: ClassVar[tuple[str, ...]] = ("grasps",)
    object: str
    grasps: str = ""
    lift_m: float = Field(default=0.10, ge=0.02, le=0.5)
    approach_m: float = Field(default=0.08, ge=0, le=0.5)

    def check(self, cell: Workcell) -> None:
        entry = cell.object(self.object)
        if entry.fixed:
            raise PlanningFailed("precondition", f"{self.object} is fixed and cannot be picked")
        empty_handed(cell, self._arm(cell))

    def act(self, cell: Workcell) -> None:
        arm = self._arm(cell)
        pose = cell.simulation.object_pose(self.object)
        outline = Footprint.of(cell.vertices(self.object))
        supports = cell.simulation.touches(self.object)
        grasp, to_before, to_grasp = self._choose(cell, arm, pose)
        opening = self._opening(arm, grasp)
        noun = _noun(cell, self.object)
        cell.begin_phase("reach", arm, f"reach for the {noun}")
        cell.grip_to(arm, opening, 1)
        cell.move_joints(arm, to_before)
        cell.begin_phase("approach", arm, f"move the gripper around the {noun}")
        cell.allow(arm, touchable=[self.object])
        cell.follow(arm, to_grasp)
        cell.begin_phase("grasp", arm, f"close the gripper on the {noun}")
        T = grasp.T_object_tcp
        note_point(cell, "grasp", f"grasp {self.object}", self.object, T[:3, 3], arm, T[:3, 2], grasp.width_m)
        cell.grip_to(arm, arm.model.gripper.opening_m[0], CLOSE_STEPS)
        if cell.simulation.finger_touches(arm, self.object) < 2:
            raise PlanningFailed("grasp_slipped", f"the fingers do not hold {self.object} from both sides")
        cell.attach(arm, self.object, pose[:3, :3], float(pose[2, 3]) - outline.low)
        cell.begin_phase("lift", arm, f"lift the {noun}")
        cell.allow(arm, touchable=[self.object], rests_on=supports)
        up = transform(cell.commanded_tcp(arm)[:3, :3], cell.commanded_tcp(arm)[:3, 3] + self.lift_m * UP)
        cell.move_straight(arm, up)

    def verify(self, cell: Workcell) -> None:
        arm = self._arm(cell)
        slip = cell.refresh_grip(arm)
        if cell.simulation.finger_touches(arm, self.object) < 2 or slip > _SLIP_M:
            raise PlanningFailed("grasp_slipped", f"{self.object} slipped {slip * 1000:.0f} mm while it was lifted")

    def _arm(self, cell: Workcell) -> ArmIndex:
        holder = cell.holder(self.object)
        return holder or cell.choose_arm(self.arm, cell.simulation.object_pose(self.object)[:3, 3])

    def _opening(self, arm: ArmIndex, grasp: Grasp) -> float:
        return min(arm.model.gripper.opening_m[1], grasp.width_m + _SPARE_M)

    def _choose(self, cell: Workcell, arm: ArmIndex, T_world_object: F64) -> tuple[Grasp, F64, F64]:
        """The first grasp that the arm reaches without touching anything: joints before it, and the path in."""
        kinematics, here = cell.kinematics[arm.name], cell.commanded(arm)
        reached = False
        hand = OpenHand(cell.world, arm, cell.simulation.qpos)
        choice = GraspChoice(hand, self.object, T_world_object, self.approach_m, _CLEAR_M)
        for grasp in self._worth_trying(cell, arm, choice, T_world_object):
            if cell.exhausted:
                break
            cell.count("grasps_tried")
            cell.simulation.beat()
            T_grasp = T_world_object @ grasp.T_object_tcp
            T_before = T_grasp @ transform(None, (0, 0, -self.approach_m))
            for before in kinematics.solve_any(T_before, here, cell.rng, starts=3)[:2]:
                try:
                    path = cell.straight_path(arm, before, T_grasp)
                    up = transform(T_grasp[:3, :3], T_grasp[:3, 3] + self.lift_m * UP)
                    cell.straight_path(arm, path[-1], up)
                except PlanningFailed:
                    continue
                reached = True
                cell.allow(arm, clearance_m=_CLEAR_M)  # open fingers do not even touch the object on their way
                cell.checker.set_opening(arm, self._opening(arm, grasp))
                if cell.checker.first_touch(path, 0.05) is None:
                    return grasp, before, path
        if reached:
            raise PlanningFailed("no_grasp", f"every reachable grasp of {self.object} touches something else")
        if not choice.asked:
            raise PlanningFailed("no_grasp", f"no pair of opposite sides of {self.object} fits the gripper")
        if (blocked := choice.blocked_by) is not None:
            raise PlanningFailed("no_grasp", self._no_room(cell, *blocked))
        raise PlanningFailed("ik_failed", f"none of {choice.asked} grasps of {self.object} is within reach")

    def _worth_trying(self, cell: Workcell, arm: ArmIndex, choice: GraspChoice, T_world_object: F64) -> Iterator[Grasp]:
        """Grasps of the user's file; or sampled ones, from more samples where the first offer none that fits."""

        def opened(grasps: list[Grasp]) -> list[tuple[Grasp, float]]:
            return [(grasp, self._opening(arm, grasp)) for grasp in grasps]

        file = self.grasps or cell.object(self.object).definition.grasps
        if file:
            yield from choice.worth_trying(opened(read_grasps(file)), sampled=False)
            return
        down = T_world_object[:3, :3].T @ -UP
        for samples in SAMPLES:
            grasps = antipodal_grasps(cell.mesh(self.object), arm.model.gripper, down, cell.rng, samples)
            yield from choice.worth_trying(opened(grasps), sampled=True)
            if choice.tried:
                return

    def _no_room(self, cell: Workcell, blocker: str, count: int, of: int) -> str:
        """Why the hand fits around the object nowhere, and what would help."""
        said = f"the open hand fits nowhere around {self.object}"
        if blocker not in ("", self.object):
            return f"{said}: it would touch {blocker} in {count} of {of} grasps; give more gap_m"
        solid = cell.object(self.object).definition.collision == "hull"
        hint = "collision: parts, if it is hollow" if solid else "a smaller scale, or a grasp file"
        return f"{said}: {count} of {of} grasps do not fit its own collision shape; give it {hint}"


@skill
class Place(Skill):
    """Put the held object down so that a relation holds. relation, reference: such as `left_of` `can`, `in` `bin_a`.

    spots: places that are drawn; those that are free are tried, at most _SPOTS_TRIED of them.

    Precondition: an arm holds the object. Success: the object is at rest, out of the hand, and the relation holds.
    """

    name: ClassVar[str] = "place"
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
        before, path, support, T_goal = self._choose(cell, arm)
        where = "into" if self.relation == "in" else WORDS[self.relation]
        noun, words = _noun(cell, self.object), f"{where} the {_noun(cell, self.reference)}"
        cell.begin_phase("carry", arm, f"carry the {noun} {words}")
        cell.move_joints(arm, before)
        if cell.refresh_grip(arm) > _SLIP_M:
            raise PlanningFailed("dropped", f"{self.object} slipped on the way")
        cell.begin_phase("lower", arm, f"lower the {noun} {words}")
        cell.allow(arm, rests_on=support)
        cell.follow(arm, path)
        cell.begin_phase("release", arm, f"release the {noun}")
        note_point(cell, "place", f"place {self.object}", "", T_goal[:3, 3], arm, -UP)
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

    def _choose(self, cell: Workcell, arm: ArmIndex) -> tuple[F64, F64, set[str], F64]:
        """The first spot and turn that the arm reaches without touching anything.

        Returns the joints above it, the path down, what the object will rest on, and its pose.
        """
        grip = cell.grips[arm.name]
        relation = RelationLayout(self.object, self.relation, self.reference)
        kinematics, here = cell.kinematics[arm.name], cell.commanded(arm)
        mesh = cell.mesh(self.object)
        T_object_tcp = inverse(grip.T_tcp_object)
        yaw_now = cell.simulation.tcp(arm)[:3, :3] @ grip.T_tcp_object[:3, :3] @ grip.rest_R.T
        turned = float(np.arctan2(yaw_now[1, 0], yaw_now[0, 0]))
        found = reached = False
        for spot, support in islice(resting_spots(cell, self.object, relation, self.spots), _SPOTS_TRIED):
            if cell.exhausted:
                break
            found = True
            cell.simulation.beat()
            for turn in (turned, turned + cell.rng.uniform(-0.6, 0.6), turned + np.pi / 2, turned - np.pi / 2):
                rotation = about([0, 0, 1], turn) @ grip.rest_R
                standing = Footprint.of(mesh.vertices @ rotation.T)
                for lift in self._lifts(cell):
                    origin = np.array([*(spot[:2] - standing.centre), spot[2] - standing.low + lift])
                    T_goal = transform(rotation, origin)
                    T_tcp = T_goal @ T_object_tcp
                    T_before = transform(T_tcp[:3, :3], T_tcp[:3, 3] + self.approach_m * UP)
                    for before in kinematics.solve_any(T_before, here, cell.rng, starts=3)[:2]:
                        try:
                            path = cell.straight_path(arm, before, T_tcp)
                        except PlanningFailed:
                            continue
                        reached = True
                        cell.allow(arm, rests_on=support, clearance_m=CLEARANCE_M / 4)
                        if cell.checker.first_touch(path, 0.05) is not None:
                            continue
                        try:
                            self._way_out(cell, arm, path[-1], self._width(cell, arm), support)
                        except PlanningFailed:
                            continue
                        return before, path, support, T_goal
        if not found:
            raise PlanningFailed("no_path", f"there is no free spot for {relation.words()}")
        reason = "no_path" if reached else "ik_failed"
        raise PlanningFailed(reason, f"no spot for {relation.words()} can be reached without touching something")

    def _width(self, cell: Workcell, arm: ArmIndex) -> float:
        """How far to open for letting go."""
        return min(arm.model.gripper.opening_m[1], cell.simulation.opening(arm) + _SPARE_M)

    def _way_out(self, cell: Workcell, arm: ArmIndex, start: F64, opening_m: float, support: set[str]) -> F64:
        """(N, n) joints that take the open fingers away from what was placed, along the tool or straight up.

        Leaves the checker set for this motion. Raises PlanningFailed('no_path') where both touch something.
        """
        T = cell.kinematics[arm.name].tcp(start)
        for offset in (-self.approach_m * T[:3, 2], self.approach_m * UP):
            try:
                path = cell.straight_path(arm, start, transform(T[:3, :3], T[:3, 3] + offset))
            except PlanningFailed:
                continue
            cell.allow(arm, touchable=[self.object, *support], empty=True)
            cell.checker.set_opening(arm, opening_m)
            if cell.checker.first_touch(path, 0.02) is None:
                return path
        raise PlanningFailed("no_path", f"the fingers cannot leave {self.object} without touching something")

    def _lifts(self, cell: Workcell) -> tuple[float, ...]:
        """Heights above the support to let go at: on the ground, or from ever higher into a container."""
        if self.relation != "in" or cell.region(self.reference) is not None:
            return (0.002,)
        rim = container(cell, self.reference).rim_m + WALL_M
        return (0.004, 0.35 * rim, 0.7 * rim, rim + 0.01)


def _noun(cell: Workcell, name: str) -> str:
    if cell.region(name) is not None:
        return name.replace("_", " ")
    entry = cell.object(name)
    return cell.layout.draws.nouns.get(name, entry.definition.noun)
