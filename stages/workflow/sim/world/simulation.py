"""`Simulation`: a world in time. One control step at a time, everything recorded, every touch seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64, BoolArray
from nimbusd.stages.workflow.sim.demonstration import ContactEvent
from nimbusd.stages.workflow.sim.world.simulator import Contacts, open_simulator
from nimbusd.stages.workflow.sim.world.world import ArmIndex, World

_LOOKS_PER_STEP = 4


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
    """A state to come back to, and how much was recorded until then."""

    state: Any
    targets: F64
    commands: Mapping[str, Command]
    rows: int
    contacts: int
    touching: frozenset[tuple[str, str]]


class Simulation:
    """Runs a world. Set points move linearly from those of one control step to those of the next.

    simulator: the physics, in the state of now. targets: (nu,) the set points that its servos have.
    rows: what was recorded. contacts: first touches. forbidden: the first pair of owners that touched though the
    current rule (`watch`) forbids it.
    """

    def __init__(self, world: World, beat: Callable[[], None] = lambda: None) -> None:
        self.world = world
        self.beat = beat
        self.simulator = open_simulator(world)
        self.rows: list[Row] = []
        self.contacts: list[ContactEvent] = []
        self.forbidden: tuple[str, str] | None = None
        self._rule: BoolArray | None = None
        self._touching: frozenset[tuple[str, str]] = frozenset()
        self._recording = False
        layout = world.layout.robot
        self.commands: dict[str, Command] = {
            name: Command(np.asarray(layout.start[name], np.float64), layout.opening[name]) for name in world.arms
        }
        self.targets = self._targets_of(self.commands, np.zeros(world.model.nu))
        self.simulator.reset(world.start, np.zeros(world.model.nv), self.targets)

    @property
    def qpos(self) -> F64:
        """(nq,) the current state."""
        return self.simulator.qpos

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
            self.rows.append(Row(self.qpos, self.simulator.qvel, complete))
        self._advance(complete)
        self.beat()

    def finish(self) -> None:
        """Record the last state, with the last command repeated."""
        self.rows.append(Row(self.qpos, self.simulator.qvel, dict(self.commands)))

    def checkpoint(self) -> Checkpoint:
        """Remember the whole state."""
        state = self.simulator.get_state()
        return Checkpoint(state, self.targets, dict(self.commands), len(self.rows), len(self.contacts), self._touching)

    def rollback(self, point: Checkpoint) -> None:
        """Go back to a checkpoint, recordings included."""
        self.simulator.set_state(point.state)
        self.targets = point.targets
        self.commands = dict(point.commands)
        del self.rows[point.rows :], self.contacts[point.contacts :]
        self._touching, self.forbidden = point.touching, None

    def joints(self, arm: ArmIndex) -> F64:
        """(n,) measured joint positions."""
        return self.qpos[arm.q]

    def opening(self, arm: ArmIndex) -> float:
        """Measured distance between the pads."""
        return float(arm.opening_of(self.qpos))

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
        return float(self.qpos[index.joint_q])

    def speed_of(self, name: str) -> float:
        """Largest component of a free object's velocity, m/s or rad/s; 0 for a fixed one."""
        index = self.world.objects[name]
        if index.free_v < 0:
            return 0.0
        return float(np.abs(self.simulator.qvel[index.free_v : index.free_v + 6]).max())

    def wandered(self, name: str, steps: int) -> float:
        """Farthest that a free object was from its pose now in the last control steps: metres, or radians.

        Infinite where there were fewer steps; 0 for a fixed object.
        """
        start = self.world.objects[name].free_q
        if start < 0:
            return 0.0
        if len(self.rows) < steps:
            return math.inf
        now = self.simulator.qpos[start : start + 7]
        past = np.array([row.qpos[start : start + 7] for row in self.rows[-steps:]])
        turned = 2 * np.arccos(np.clip(np.abs(past[:, 3:] @ now[3:]), 0.0, 1.0))
        return float(max(np.linalg.norm(past[:, :3] - now[:3], axis=1).max(), turned.max()))

    def body_pose(self, body: int) -> F64:
        """(4, 4) pose of a body in the world."""
        return self.simulator.body_pose(body)

    def touches(self, name: str) -> set[str]:
        """Owners that touch an object now."""
        return {b if a == name else a for a, b in self._pairs(self.simulator.contacts()) if name in (a, b)} - {name}

    def riders(self, name: str) -> tuple[str, ...]:
        """Free objects that a fixture's moving part carries: those that touch it, and those that touch these."""
        body_of = self.world.model.geom_bodyid
        free = {body: index.name for index in self.world.objects.values() if index.free_q >= 0 for body in index.bodies}
        near = [(int(body_of[a]), int(body_of[b])) for a, b in _pairs_of(self.simulator.contacts())]
        carried, grown = {self.world.objects[name].part}, True
        while grown:
            more = {b for pair in near for a, b in (pair, pair[::-1]) if a in carried and b in free} - carried
            carried, grown = carried | more, bool(more)
        return tuple(sorted({free[body] for body in carried if body in free}))

    def finger_touches(self, arm: ArmIndex, name: str) -> int:
        """Number of the arm's fingers that touch an object; a finger of several bars counts once."""
        model = self.world.model
        mine = self.world.objects[name].bodies
        sides: set[int] = set()
        for a, b in _pairs_of(self.simulator.contacts()):
            one, two = int(model.geom_bodyid[a]), int(model.geom_bodyid[b])
            for finger, other in ((one, two), (two, one)):
                if other in mine and finger in arm.finger_bodies:
                    # Fingers are chains that start at the gripper's base: the first body below it names the side.
                    while int(model.body_parentid[finger]) in arm.finger_bodies:
                        finger = int(model.body_parentid[finger])
                    sides.add(finger)
        return len(sides)

    def _pairs(self, found: Contacts) -> frozenset[tuple[str, str]]:
        owner = self.world.owner
        return frozenset(
            (min(owner[a], owner[b]), max(owner[a], owner[b])) for a, b in _pairs_of(found) if owner[a] != owner[b]
        )

    def _targets_of(self, commands: Mapping[str, Command], before: F64) -> F64:
        targets = before.copy()
        for name, command in commands.items():
            arm = self.world.arms[name]
            targets[arm.servos] = command.joints
            targets[arm.finger_servos] = arm.finger_targets(command.opening_m)
        return targets

    def _advance(self, commands: Mapping[str, Command]) -> None:
        before, after = self.targets, self._targets_of(commands, self.targets)
        substeps = self.world.layout.physics.substeps
        every = max(1, substeps // _LOOKS_PER_STEP)
        for k in range(1, substeps + 1):
            self.targets = before + (after - before) * (k / substeps)
            self.simulator.step(self.targets)
            if k % every == 0:
                self._look(self.simulator.contacts())
        self.commands = dict(commands)
        if self.simulator.diverged():
            raise PlanningFailed("unstable", f"the simulation diverged at step {len(self.rows)}")

    def _look(self, found: Contacts) -> None:
        owner = self.world.owner
        if self._rule is not None and self.forbidden is None and len(found.geoms):
            pairs = found.geoms
            bad = self._rule[pairs[:, 0], pairs[:, 1]] & found.firm
            if bad.any():
                a, b = pairs[int(np.argmax(bad))]
                self.forbidden = (owner[a], owner[b])
        touching = self._pairs(found)
        for a, b in sorted(touching - self._touching):
            self.contacts.append(ContactEvent(len(self.rows), a, b, self._force(found, a, b)))
        self._touching = touching

    def _force(self, found: Contacts, a: str, b: str) -> float:
        """Sum of normal forces between two owners."""
        owner, total = self.world.owner, 0.0
        for number, (one, two) in enumerate(found.geoms.tolist()):
            if {owner[one], owner[two]} == {a, b}:
                total += self.simulator.force_n(number)
        return round(total, 3)


def _pairs_of(found: Contacts) -> list[list[int]]:
    """Pairs of geoms that touch."""
    pairs: list[list[int]] = found.geoms[found.touching].tolist()
    return pairs
