"""The skill `pick`: grasp a thing and lift it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.rotation import UP, transform
from nimbusd.stages.workflow.sim.skills.first_free import ROUGH_RAD, first_free
from nimbusd.stages.workflow.sim.skills.grasp_choice import GraspChoice
from nimbusd.stages.workflow.sim.skills.grasps import SAMPLES, Grasp, antipodal_grasps, read_grasps
from nimbusd.stages.workflow.sim.skills.open_hand import OpenHand
from nimbusd.stages.workflow.sim.skills.skill import CLOSE_STEPS, FINGER_SPARE_M, SLIP_M, Skill, skill
from nimbusd.stages.workflow.sim.workcell.relations import Footprint
from nimbusd.stages.workflow.sim.workcell.workcell import CLEARANCE_M, Workcell
from nimbusd.stages.workflow.sim.world.world import ArmIndex

_CLEAR_M = CLEARANCE_M / 4
"""Distance that open fingers keep from everything on their straight way to a grasp."""


@dataclass(frozen=True)
class _Way:
    """A way to a grasp. before: joints before it. path: (N, n) joints from there to it."""

    grasp: Grasp
    before: F64
    path: F64


@skill
class Pick(Skill):
    """Grasp an object and lift it. grasps: a file of the user's instead of sampling. lift_m, approach_m: distances.

    Precondition: the arm is empty and the object is free to move. Success: it hangs in the hand, off what it stood on.
    """

    name: ClassVar[str] = "pick"
    sentence: ClassVar[str] = "pick up the {object}"
    moves: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("grasps",)
    object: str
    grasps: str = ""
    lift_m: float = Field(default=0.10, ge=0.02, le=0.5)
    approach_m: float = Field(default=0.08, ge=0, le=0.5)

    def check(self, cell: Workcell) -> None:
        entry = cell.object(self.object)
        if entry.fixed:
            raise PlanningFailed("precondition", f"{self.object} is fixed and cannot be picked")
        cell.require_empty_hand(self._arm(cell))

    def act(self, cell: Workcell) -> None:
        arm = self._arm(cell)
        pose = cell.simulation.object_pose(self.object)
        outline = Footprint.of(cell.vertices(self.object))
        supports = cell.simulation.touches(self.object)
        way = self._choose(cell, arm, pose)
        grasp = way.grasp
        opening = self._opening(arm, grasp)
        noun = cell.noun(self.object)
        cell.begin_phase("reach", arm, f"reach for the {noun}")
        cell.grip_to(arm, opening, 1)
        cell.move_joints(arm, way.before)
        cell.begin_phase("approach", arm, f"move the gripper around the {noun}")
        cell.allow(arm, touchable=[self.object])
        cell.follow(arm, way.path)
        cell.begin_phase("grasp", arm, f"close the gripper on the {noun}")
        T = grasp.T_object_tcp
        cell.note_point("grasp", f"grasp {self.object}", self.object, T[:3, 3], arm, T[:3, 2], grasp.width_m)
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
        if cell.simulation.finger_touches(arm, self.object) < 2 or slip > SLIP_M:
            raise PlanningFailed("grasp_slipped", f"{self.object} slipped {slip * 1000:.0f} mm while it was lifted")

    def _arm(self, cell: Workcell) -> ArmIndex:
        holder = cell.holder(self.object)
        return holder or cell.choose_arm(self.arm, cell.simulation.object_pose(self.object)[:3, 3])

    def _opening(self, arm: ArmIndex, grasp: Grasp) -> float:
        return min(arm.model.gripper.opening_m[1], grasp.width_m + FINGER_SPARE_M)

    def _choose(self, cell: Workcell, arm: ArmIndex, T_world_object: F64) -> _Way:
        """The way to the first grasp that the arm reaches without touching anything."""
        hand = OpenHand(cell.world, arm, cell.simulation.qpos)
        choice = GraspChoice(hand, self.object, T_world_object, self.approach_m, _CLEAR_M)
        way, failed = first_free(
            self._candidates(cell, arm, choice, T_world_object), lambda candidate: self._way(cell, arm, *candidate)
        )
        if way is not None:
            return way
        if failed["no_path"]:
            raise PlanningFailed("no_grasp", f"every reachable grasp of {self.object} touches something else")
        if not choice.asked:
            raise PlanningFailed("no_grasp", f"no pair of opposite sides of {self.object} fits the gripper")
        if (blocked := choice.blocked_by) is not None:
            raise PlanningFailed("no_grasp", self._no_room(cell, *blocked))
        raise PlanningFailed("ik_failed", f"none of {choice.asked} grasps of {self.object} is within reach")

    def _candidates(
        self, cell: Workcell, arm: ArmIndex, choice: GraspChoice, T_world_object: F64
    ) -> Iterator[tuple[Grasp, F64, F64]]:
        """Grasps, the tool's pose at them, and joints from which to come to them."""
        kinematics, here = cell.kinematics[arm.name], cell.commanded(arm)
        for grasp in self._worth_trying(cell, arm, choice, T_world_object):
            if cell.exhausted:
                return
            cell.count("grasps_tried")
            cell.simulation.beat()
            T_grasp = T_world_object @ grasp.T_object_tcp
            T_before = T_grasp @ transform(None, (0, 0, -self.approach_m))
            for before in kinematics.solve_any(T_before, here, cell.rng, starts=3)[:2]:
                yield grasp, T_grasp, before

    def _way(self, cell: Workcell, arm: ArmIndex, grasp: Grasp, T_grasp: F64, before: F64) -> _Way:
        """The way to a grasp from the joints before it. Raises PlanningFailed: ik_failed, no_path."""
        path = cell.straight_path(arm, before, T_grasp)
        up = transform(T_grasp[:3, :3], T_grasp[:3, 3] + self.lift_m * UP)
        cell.straight_path(arm, path[-1], up)
        cell.allow(arm, clearance_m=_CLEAR_M)  # open fingers do not even touch the object on their way
        cell.checker.set_opening(arm, self._opening(arm, grasp))
        cell.require_free(path, ROUGH_RAD)
        return _Way(grasp, before, path)

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
        """The sentence that the hand fits around the object nowhere, with what would help."""
        said = f"the open hand fits nowhere around {self.object}"
        if blocker not in ("", self.object):
            return f"{said}: it would touch {blocker} in {count} of {of} grasps; give more gap_m"
        solid = cell.object(self.object).definition.collision == "hull"
        hint = "collision: parts, if it is hollow" if solid else "a smaller scale, or a grasp file"
        return f"{said}: {count} of {of} grasps do not fit its own collision shape; give it {hint}"
