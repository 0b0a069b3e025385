"""`Simulation`: a world in time. One control step at a time, everything recorded, every touch seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64, BoolArray
from nimbusd.stages.workflow.sim.demonstration import ContactEvent
from nimbusd.stages.workflow.sim.world import ArmIndex, World, import_mujoco

_LOOKS_PER_STEP = 4
_FORBIDDEN_M = -0.001
"""Penetration from which a touch counts as one that planning should have prevented."""


@dataclass(frozen=True)
class Command:
    """Set points of one arm for a control step. joints: (n,) radians. opening_m: between the pads."""

    joints: F64
    opening_m: float


@dataclass(frozen=True)
class Row:
    """One control step: the state before it and what was commanded in it."""

    qpos: F64
    qvel: F64
    commands: Mapping[str, Command]


@dataclass(frozen=True)
class Checkpoint:
    """Where to come back to."""

    state: F64
    commands: Mapping[str, Command]
    rows: int
    contacts: int
    touching: frozenset[tuple[str, str]]


class Simulation:
    """Runs a world. Set points move linearly from those of one control step to those of the next.

    rows: what was recorded. contacts: first touches. forbidden: the first pair of owners that touched though the
    current rule (`watch`) forbids it.
    """

    def __init__(self, world: World, beat: Callable[[], None] = lambda: None) -> None:
        self._mujoco = import_mujoco()
        self.world = world
        self.beat = beat
        self.data: Any = self._mujoco.MjData(world.model)
        self.rows: list[Row] = []
        self.contacts: list[ContactEvent] = []
        self.forbidden: tuple[str, str] | None = None
        self._rule: BoolArray | None = None
        self._touching: frozenset[tuple[str, str]] = frozenset()
        self._recording = False
        self.data.qpos[:] = world.start
        layout = world.layout.robot
        self.commands: dict[str, Command] = {
            name: Command(np.asarray(layout.start[name], np.float64), layout.opening[name]) for name in world.arms
        }
        self._apply(self.commands)
        self._mujoco.mj_forward(world.model, self.data)

    @property
    def qpos(self) -> F64:
        """(nq,) the current state."""
        return np.array(self.data.qpos, np.float64)

    def watch(self, rule: BoolArray | None) -> None:
        """Forbid the touches of a (ngeom, ngeom) mask from now on; None forbids nothing."""
        self._rule = rule

    def settle(self, steps: int) -> None:
        """Let things come to rest before recording starts."""
        for _ in range(steps):
            self._advance(self.commands)
        self._recording = True
        self.contacts.clear()

    def step(self, commands: Mapping[str, Command]) -> None:
        """One control step; arms without a command hold theirs."""
        complete = {**self.commands, **commands}
        if self._recording:
            self.rows.append(Row(self.qpos, np.array(self.data.qvel, np.float64), complete))
        self._advance(complete)
        self.beat()

    def finish(self) -> None:
        """Record the last state, with the last command repeated."""
        self.rows.append(Row(self.qpos, np.array(self.data.qvel, np.float64), dict(self.commands)))

    def checkpoint(self) -> Checkpoint:
        """Remember the whole state."""
        mujoco, model = self._mujoco, self.world.model
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, self.data, state, kind)
        return Checkpoint(state, dict(self.commands), len(self.rows), len(self.contacts), self._touching)

    def rollback(self, point: Checkpoint) -> None:
        """Go back to a checkpoint, recordings included."""
        mujoco, model = self._mujoco, self.world.model
        mujoco.mj_setState(model, self.data, point.state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, self.data)
        mujoco.mj_setState(model, self.data, point.state, mujoco.mjtState.mjSTATE_INTEGRATION)
        self.commands = dict(point.commands)
        del self.rows[point.rows :], self.contacts[point.contacts :]
        self._touching, self.forbidden = point.touching, None

    def joints(self, arm: ArmIndex) -> F64:
        """(n,) measured joint positions."""
        return np.array(self.data.qpos[arm.q], np.float64)

    def opening(self, arm: ArmIndex) -> float:
        """Measured distance between the pads."""
        return float(arm.opening_of(self.data.qpos))

    def tcp(self, arm: ArmIndex) -> F64:
        """(4, 4) measured `T_world_tcp`."""
        return np.asarray(self.body_pose(arm.flange) @ arm.T_ee_tcp)

    def object_pose(self, name: str) -> F64:
        """(4, 4) `T_world_object`."""
        return self.body_pose(self.world.objects[name].body)

    def joint_of(self, name: str) -> float:
        """Value of an object's joint. Raises KeyError for an object without one."""
        index = self.world.objects[name]
        if index.joint_q < 0:
            raise KeyError(f"object {name!r} has no joint")
        return float(self.data.qpos[index.joint_q])

    def speed_of(self, name: str) -> float:
        """Largest component of a free object's velocity, m/s or rad/s; 0 for a fixed one."""
        index = self.world.objects[name]
        return float(np.abs(self.data.qvel[index.free_v : index.free_v + 6]).max()) if index.free_v >= 0 else 0.0

    def body_pose(self, body: int) -> F64:
        """(4, 4) pose of a body in the world."""
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = self.data.xmat[body].reshape(3, 3), self.data.xpos[body]
        return T

    def touches(self, name: str) -> set[str]:
        """Owners that touch an object now."""
        return {b if a == name else a for a, b in self._pairs() if name in (a, b)} - {name}

    def riders(self, name: str) -> tuple[str, ...]:
        """Free objects that a fixture's moving part carries: those that touch it, and those that touch these."""
        body_of, data = self.world.model.geom_bodyid, self.data
        free = {body: index.name for index in self.world.objects.values() if index.free_q >= 0 for body in index.bodies}
        near = [(int(body_of[a]), int(body_of[b])) for a, b in data.contact.geom[: data.ncon].tolist()]
        carried, grown = {self.world.objects[name].part}, True
        while grown:
            more = {b for pair in near for a, b in (pair, pair[::-1]) if a in carried and b in free} - carried
            carried, grown = carried | more, bool(more)
        return tuple(sorted({free[body] for body in carried if body in free}))

    def finger_touches(self, arm: ArmIndex, name: str) -> int:
        """How many of the arm's finger joints' sides touch an object."""
        model, data = self.world.model, self.data
        mine = self.world.objects[name].bodies
        sides: set[int] = set()
        for a, b in data.contact.geom[: data.ncon]:
            one, two = int(model.geom_bodyid[a]), int(model.geom_bodyid[b])
            for finger, other in ((one, two), (two, one)):
                if other in mine and finger in arm.finger_bodies:
                    # Fingers are chains that start at the gripper's base: the first body below it names the side.
                    while int(model.body_parentid[finger]) in arm.finger_bodies:
                        finger = int(model.body_parentid[finger])
                    sides.add(finger)
        return len(sides)

    def _pairs(self) -> frozenset[tuple[str, str]]:
        owner, data = self.world.owner, self.data
        near = data.contact.geom[: data.ncon][data.contact.dist[: data.ncon] < 0]
        return frozenset(
            (min(owner[a], owner[b]), max(owner[a], owner[b])) for a, b in near.tolist() if owner[a] != owner[b]
        )

    def _apply(self, commands: Mapping[str, Command]) -> None:
        for name, command in commands.items():
            arm = self.world.arms[name]
            self.data.ctrl[arm.servos] = command.joints
            self.data.ctrl[arm.finger_servos] = arm.finger_targets(command.opening_m)

    def _advance(self, commands: Mapping[str, Command]) -> None:
        model, data = self.world.model, self.data
        before = np.array(data.ctrl)
        self._apply(commands)
        after = np.array(data.ctrl)
        substeps = self.world.layout.physics.substeps
        every = max(1, substeps // _LOOKS_PER_STEP)
        for k in range(1, substeps + 1):
            data.ctrl[:] = before + (after - before) * (k / substeps)
            self._mujoco.mj_step(model, data)
            if k % every == 0:
                self._look()
        self.commands = dict(commands)
        self._check_stable()

    def _check_stable(self) -> None:
        """Raises PlanningFailed('unstable') where the simulator had to throw a state away and start from its own."""
        kinds = self._mujoco.mjtWarning
        for kind in (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC):
            if self.data.warning[int(kind)].number:
                raise PlanningFailed("unstable", f"the simulation diverged at step {len(self.rows)}")

    def _look(self) -> None:
        data, owner = self.data, self.world.owner
        count = data.ncon
        if self._rule is not None and self.forbidden is None and count:
            pairs = data.contact.geom[:count]
            bad = self._rule[pairs[:, 0], pairs[:, 1]] & (data.contact.dist[:count] < _FORBIDDEN_M)
            if bad.any():
                a, b = pairs[int(np.argmax(bad))]
                self.forbidden = (owner[a], owner[b])
        touching = self._pairs()
        for a, b in sorted(touching - self._touching):
            self.contacts.append(ContactEvent(len(self.rows), a, b, self._force(a, b)))
        self._touching = touching

    def _force(self, a: str, b: str) -> float:
        """Sum of normal forces between two owners."""
        owner, total = self.world.owner, 0.0
        wrench = np.zeros(6)
        for number, (one, two) in enumerate(self.data.contact.geom[: self.data.ncon].tolist()):
            if {owner[one], owner[two]} == {a, b}:
                self._mujoco.mj_contactForce(self.world.model, self.data, number, wrench)
                total += float(wrench[0])
        return round(total, 3)
