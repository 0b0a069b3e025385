"""`Workcell`: the tools of skills. Motions that are planned, checked and run in the simulation, phase by phase."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.demonstration import KeyPoint, KeyPointKind, Phase
from nimbusd.stages.workflow.sim.layout.layout import Layout, ObjectLayout, RegionLayout
from nimbusd.stages.workflow.sim.motion.collision import CollisionChecker, Held, Led
from nimbusd.stages.workflow.sim.motion.curobo import CuroboPlanner
from nimbusd.stages.workflow.sim.motion.kinematics import ArmKinematics
from nimbusd.stages.workflow.sim.motion.planner import ConnectPlanner, MotionLimits, MotionPlanner, check_trajectory
from nimbusd.stages.workflow.sim.rotation import about, inverse, rotation_vector, transform
from nimbusd.stages.workflow.sim.world.geometry import TriangleMesh, object_mesh
from nimbusd.stages.workflow.sim.world.simulation import Checkpoint, Command, Simulation
from nimbusd.stages.workflow.sim.world.world import ArmIndex, World

STRAIGHT_STEP_M, STRAIGHT_STEP_RAD = 0.015, 0.1
CLEARANCE_M = 0.004
EFFORT = 30_000
"""Postures that may be looked at for a skill call, all its tries together; those that succeed take a fifth of that."""

_STRAIGHT_SCALE = 0.35
_JUMP_RAD = 0.6
_SETTLED_RAD = 0.004
_SETTLE_STEPS = 8


@dataclass
class Grip:
    """A thing in a hand. T_tcp_object: as measured. rest_R: orientation in which the object stood.

    rest_height_m: of the object's origin above what it stood on.
    """

    name: str
    T_tcp_object: F64
    rest_R: F64
    rest_height_m: float


@dataclass(frozen=True)
class _Call:
    """The skill call that is being done. number: its index in the layout. instruction: in words."""

    skill: str = ""
    number: int = 0
    instruction: str = ""


@dataclass(frozen=True)
class _Mark:
    """The start of a phase."""

    name: str
    call: _Call
    start: int
    instruction: str
    arm: str


@dataclass(frozen=True)
class CellCheckpoint:
    """A state of the whole cell to come back to. phases, keypoints: how many there were."""

    state: Checkpoint
    phases: int
    keypoints: int
    grips: Mapping[str, Grip]


@dataclass
class Workcell:
    """One episode's simulation with planners, what the arms hold, and the record of phases and key points."""

    world: World
    simulation: Simulation
    checker: CollisionChecker
    rng: np.random.Generator
    planners: dict[str, MotionPlanner]
    kinematics: dict[str, ArmKinematics]
    grips: dict[str, Grip] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    keypoints: list[KeyPoint] = field(default_factory=list)
    facts: dict[str, int] = field(default_factory=dict)
    _spent: dict[int, int] = field(default_factory=dict)
    _began: int = 0
    _mark: _Mark | None = None
    _call: _Call = _Call()
    _meshes: dict[str, TriangleMesh] = field(default_factory=dict)

    @classmethod
    def open(
        cls, world: World, rng: np.random.Generator, beat: Callable[[], None], planner: str = "connect"
    ) -> Workcell:
        """A cell at the start of its layout. planner: `connect` or `curobo`. Raises BackendUnavailable."""
        kinematics = {name: ArmKinematics(world, arm) for name, arm in world.arms.items()}
        planners: dict[str, MotionPlanner] = {name: ConnectPlanner(entry) for name, entry in kinematics.items()}
        if planner == "curobo":
            planners = {name: CuroboPlanner(world, arm) for name, arm in world.arms.items()}
        return cls(world, Simulation(world, beat), CollisionChecker(world), rng, planners, kinematics)

    @property
    def layout(self) -> Layout:
        return self.world.layout

    @property
    def row(self) -> int:
        """The control step that comes next."""
        return len(self.simulation.rows)

    def object(self, name: str) -> ObjectLayout:
        """The layout of an object. Raises PlanningFailed('precondition') for a name that does not exist."""
        try:
            return self.layout.object(name)
        except KeyError as error:
            raise PlanningFailed("precondition", str(error.args[0])) from error

    def region(self, name: str) -> RegionLayout | None:
        """The region called so, if there is one."""
        return next((region for region in self.layout.regions if region.name == name), None)

    def mesh(self, name: str) -> TriangleMesh:
        """Visible surface of an object in its own frame, as its joint is now."""
        if self.world.objects[name].joint_q >= 0:
            return object_mesh(self.world, name, self.simulation.qpos)
        if name not in self._meshes:
            self._meshes[name] = object_mesh(self.world, name)
        return self._meshes[name]

    def vertices(self, name: str) -> F64:
        """(V, 3) where an object's surface is now, in the world."""
        return self.mesh(name).moved(self.simulation.object_pose(name)).vertices

    def choose_arm(self, name: str, near: F64) -> ArmIndex:
        """The arm called `name`, or for an empty name the one whose base is nearest to the point."""
        if name:
            return self.world.arm(name)

        def distance(arm: ArmIndex) -> float:
            return float(np.linalg.norm(self.simulation.body_pose(arm.base)[:2, 3] - near[:2]))

        return min(self.world.arms.values(), key=distance)

    def noun(self, name: str) -> str:
        """An object or region in words. Raises PlanningFailed('precondition') for a name that does not exist."""
        if self.region(name) is not None:
            return name.replace("_", " ")
        return self.layout.draws.nouns.get(name, self.object(name).definition.noun)

    def require_empty_hand(self, arm: ArmIndex) -> None:
        """Raises PlanningFailed('precondition') where the arm holds something."""
        if arm.name in self.grips:
            raise PlanningFailed("precondition", f"{arm.name} already holds {self.grips[arm.name].name}")

    def holder(self, name: str) -> ArmIndex | None:
        """The arm that holds an object."""
        return next((self.world.arms[arm] for arm, grip in self.grips.items() if grip.name == name), None)

    # Phases ---------------------------------------------------------------------------------------------------

    def begin_call(self, skill: str, call: int, instruction: str) -> None:
        """A skill call starts, or starts again."""
        self._spent[self._call.number], self._began = self._effort, self._asked
        self._call = _Call(skill, call, instruction)

    def begin_phase(self, name: str, arm: ArmIndex, instruction: str = "") -> None:
        """Begin a phase with the aim `name`; the one before it ends."""
        self.end_phase()
        self._mark = _Mark(name, self._call, self.row, instruction or self._call.instruction, arm.name)

    def end_phase(self) -> None:
        """Close the current phase; phases without a row vanish."""
        mark, self._mark = self._mark, None
        if mark is not None and self.row > mark.start:
            skill, call = mark.call.skill, mark.call.number
            self.phases.append(Phase(mark.name, skill, call, mark.start, self.row, mark.instruction, mark.arm))

    def note_point(
        self, kind: KeyPointKind, name: str, frame: str, point: F64, arm: ArmIndex, approach: F64, width_m: float = 0.0
    ) -> None:
        """Record a key point that is reached about now. point, approach: (3,), in an object's frame or the world's."""
        x, y, z = (float(value) for value in point)
        a, b, c = (float(value) for value in approach)
        self.keypoints.append(KeyPoint(name, kind, frame, (x, y, z), self.row, arm.name, (a, b, c), width_m))

    def checkpoint(self) -> CellCheckpoint:
        """The whole cell as it is now."""
        self.end_phase()
        return CellCheckpoint(self.simulation.checkpoint(), len(self.phases), len(self.keypoints), dict(self.grips))

    def rollback(self, point: CellCheckpoint) -> None:
        """Go back to a checkpoint; the generator goes on, so that a second try differs."""
        self._mark = None
        self.simulation.rollback(point.state)
        del self.phases[point.phases :], self.keypoints[point.keypoints :]
        self.grips = dict(point.grips)

    @property
    def exhausted(self) -> bool:
        """True where the current call has taken all the effort that one may: counted, not timed, so on any machine."""
        return self._effort > EFFORT

    @property
    def _effort(self) -> int:
        return self._spent.get(self._call.number, 0) + self._asked - self._began

    @property
    def _asked(self) -> int:
        return self.checker.asked + sum(entry.asked for entry in self.kinematics.values())

    def count(self, fact: str) -> None:
        """Count something for the episode's metadata."""
        self.facts[fact] = self.facts.get(fact, 0) + 1

    # Queries and motions --------------------------------------------------------------------------------------

    def commanded(self, arm: ArmIndex) -> F64:
        """(n,) the arm's current set points, where the next motion starts."""
        return self.simulation.commands[arm.name].joints

    def commanded_tcp(self, arm: ArmIndex) -> F64:
        """(4, 4) where the set points put the tool."""
        return self.kinematics[arm.name].tcp(self.commanded(arm))

    def limits(self, arm: ArmIndex, scale: float = 1.0) -> MotionLimits:
        """The arm's limits at the layout's control rate."""
        step_s = 1.0 / self.layout.physics.fps
        return MotionLimits(np.asarray(arm.model.velocity), np.asarray(arm.model.acceleration), step_s, scale)

    def allow(
        self,
        arm: ArmIndex,
        touchable: Iterable[str] = (),
        rests_on: Iterable[str] = (),
        clearance_m: float = 0.0,
        palm: bool = False,
        empty: bool = False,
        led: Led | None = None,
    ) -> None:
        """Set what the arm's fingers (with `palm`, its hand) and its load may touch in what is asked and moved next.

        empty: as if the hand held nothing. led: a fixture whose moving part follows the tool.
        """
        grip = None if empty else self.grips.get(arm.name)
        held = Held(grip.name, grip.T_tcp_object) if grip else None
        self.checker.observe(self.simulation.qpos)
        self.checker.set_query(arm, held, clearance_m, touchable, rests_on, palm, led)

    def move_joints(self, arm: ArmIndex, goal: F64, scale: float = 1.0) -> None:
        """Free motion to joint positions, with clearance. Nothing may be touched."""
        self.allow(arm, clearance_m=CLEARANCE_M)
        start = self.commanded(arm)
        pair = self.checker.touching(start)
        if pair is not None:  # as near as that from the motion before: keep what distance there is
            self.allow(arm)
        planner = self.planners[arm.name]
        plan = planner.plan_joints(start, goal, self.limits(arm, scale), self.checker, self.rng)
        self.run(arm, plan.positions)

    def straight_path(self, arm: ArmIndex, start: F64, T_goal: F64) -> F64:
        """(N, n) joint positions that take the tool along a straight line. Raises PlanningFailed('ik_failed')."""
        T_start = self.kinematics[arm.name].tcp(start)
        shift = T_goal[:3, 3] - T_start[:3, 3]
        turn = rotation_vector(T_goal[:3, :3] @ T_start[:3, :3].T)
        angle = float(np.linalg.norm(turn))
        pieces = max(1, math.ceil(float(np.linalg.norm(shift)) / STRAIGHT_STEP_M), math.ceil(angle / STRAIGHT_STEP_RAD))
        poses = []
        for k in range(1, pieces + 1):
            share = k / pieces
            rotation = about(turn, angle * share) @ T_start[:3, :3] if angle > 1e-6 else T_start[:3, :3]
            poses.append(transform(rotation, T_start[:3, 3] + share * shift))
        return self.path_through(arm, start, poses)

    def path_through(self, arm: ArmIndex, start: F64, poses: Sequence[F64]) -> F64:
        """(N, n) joint positions that take the tool from `start` through poses that lie close to each other.

        Raises PlanningFailed('ik_failed') where the arm does not reach one, or only by a jump.
        """
        path = [start]
        for number, pose in enumerate(poses, 1):
            joints = self.kinematics[arm.name].solve(pose, path[-1])
            if joints is None or np.abs(joints - path[-1]).max() > _JUMP_RAD:
                raise PlanningFailed("ik_failed", f"the tool cannot follow its line beyond {number / len(poses):.0%}")
            path.append(joints)
        return np.array(path)

    def require_free(self, path: F64, step_rad: float) -> None:
        """Raises PlanningFailed('no_path') where a path, (N, n), touches what `allow` forbids.

        step_rad: spacing of the samples along it.
        """
        touch = self.checker.first_touch(path, step_rad)
        if touch is not None:
            raise PlanningFailed("no_path", f"{' would touch '.join(touch[1])}")

    def move_straight(self, arm: ArmIndex, T_goal: F64, scale: float = 1.0) -> None:
        """Take the tool along a straight line. What may be touched must have been set by `allow`."""
        path = self.straight_path(arm, self.commanded(arm), T_goal)
        self.follow(arm, path, scale)

    def follow(self, arm: ArmIndex, path: F64, scale: float = 1.0) -> None:
        """Time a joint path at the speed of straight motions, check it densely and run it."""
        positions = self.straight_timing(arm, path, scale)
        check_trajectory(positions, self.checker)
        self.run(arm, positions)

    def straight_timing(self, arm: ArmIndex, path: F64, scale: float = 1.0) -> F64:
        """(M, n) the set points with which `follow` goes along a path."""
        return self.limits(arm, scale * _STRAIGHT_SCALE).time(path)

    def run(self, arm: ArmIndex, positions: F64) -> None:
        """Run a checked trajectory and wait until the arm has caught up. Raises PlanningFailed('forbidden_contact')."""
        simulation = self.simulation
        simulation.watch(self.checker.rule)
        opening = simulation.commands[arm.name].opening_m
        for joints in positions[1:]:
            self._step(arm, joints, opening)
        for _ in range(_SETTLE_STEPS):
            if np.abs(simulation.joints(arm) - positions[-1]).max() < _SETTLED_RAD:
                break
            self._step(arm, positions[-1], opening)

    def grip_to(self, arm: ArmIndex, opening_m: float, steps: int) -> None:
        """Command the fingers and give them time; touching is up to the current rule."""
        self.simulation.watch(self.checker.rule)
        for _ in range(steps):
            self._step(arm, self.commanded(arm), opening_m)

    def wait(self, arm: ArmIndex, steps: int) -> None:
        """Let time pass."""
        for _ in range(steps):
            self._step(arm, self.commanded(arm), self.simulation.commands[arm.name].opening_m)

    def attach(self, arm: ArmIndex, name: str, rest_R: F64, rest_height_m: float) -> None:
        """The arm now holds the object as it lies in the hand."""
        T_tcp_object = inverse(self.simulation.tcp(arm)) @ self.simulation.object_pose(name)
        self.grips[arm.name] = Grip(name, T_tcp_object, rest_R, rest_height_m)

    def refresh_grip(self, arm: ArmIndex) -> float:
        """Measure the object in the hand again; returns how far it slipped since, in metres."""
        grip = self.grips[arm.name]
        T = inverse(self.simulation.tcp(arm)) @ self.simulation.object_pose(grip.name)
        slip = float(np.linalg.norm(T[:3, 3] - grip.T_tcp_object[:3, 3]))
        grip.T_tcp_object = T
        return slip

    def _step(self, arm: ArmIndex, joints: F64, opening_m: float) -> None:
        self.simulation.step({arm.name: Command(joints, opening_m)})
        if self.simulation.forbidden is not None:
            a, b = self.simulation.forbidden
            raise PlanningFailed("forbidden_contact", f"{a} touched {b} at step {self.row}")
