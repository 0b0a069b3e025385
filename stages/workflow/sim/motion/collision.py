"""Collision checks of an arm with what it holds: MuJoCo's own collision shapes, at given joint positions.

Planning and simulation share the shapes, so what is free here is free there. The checker has a copy of the model whose
contact margins are widened, which makes near misses visible, and a state of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.types import F64, BoolArray
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.rotation import inverse, quaternion_of
from nimbusd.stages.workflow.sim.world.world import ArmIndex, World

DETECT_M = 0.01
"""Pairs nearer than this are found; a query's clearance lies below."""


@dataclass(frozen=True)
class Held:
    """A thing in a gripper. T_tcp_object: its pose in the tool frame."""

    name: str
    T_tcp_object: F64


@dataclass(frozen=True)
class Led:
    """A fixture whose moving part goes where the tool leads it. value_of: `T_world_tcp` → its joint's value.

    riders: free objects that lie in that part and go with it.
    """

    name: str
    value_of: Callable[[F64], float]
    riders: tuple[str, ...] = ()


class CollisionChecker:
    """Answers collision queries for one arm at a time; everything else stands where `observe` saw it.

    asked: how many postures it has looked at.
    """

    def __init__(self, world: World) -> None:
        self._mujoco = import_mujoco()
        self._world = world
        self._model: Any = copy.copy(world.model)
        self._model.geom_margin[:] = DETECT_M / 2
        self._model.geom_gap[:] = 0.0
        self._data: Any = self._mujoco.MjData(self._model)
        self._data.qpos[:] = world.start
        self._body = np.array(self._model.geom_bodyid)
        self._always = self._never_together()
        self._arm: ArmIndex | None = None
        self._held: Held | None = None
        self._led: Led | None = None
        self._touchable: frozenset[str] = frozenset()
        self._T_part_rider: dict[str, F64] = {}
        self._relevant: BoolArray = np.zeros_like(self._always)
        self._clearance = 0.0
        self.asked = 0

    def observe(self, qpos: F64) -> None:
        """Take over a whole state: where objects and the other arms are."""
        self._data.qpos[:] = qpos
        self._mujoco.mj_kinematics(self._model, self._data)

    def set_opening(self, arm: ArmIndex, opening_m: float) -> None:
        """Put an arm's fingers at an opening, until the next `observe`."""
        self._data.qpos[arm.fingers_q] = arm.finger_targets(opening_m)

    def geoms_of(self, bodies: Iterable[int]) -> BoolArray:
        """(ngeom,) mask of the geoms on these bodies."""
        return np.isin(self._body, list(bodies))

    def set_query(
        self,
        arm: ArmIndex,
        held: Held | None = None,
        clearance_m: float = 0.0,
        touchable: Iterable[str] = (),
        rests_on: Iterable[str] = (),
        palm: bool = False,
        led: Led | None = None,
    ) -> None:
        """Say what the following questions are about.

        held: moves with the tool; it may touch the hand. led: moves as the tool does. touchable: owners (objects,
        `table`) that the fingers may touch, with `palm` the whole hand.
        rests_on: owners that the held object may touch. clearance_m: distance to everything else, below DETECT_M.
        """
        self._arm, self._held, self._led, self._clearance = arm, held, led, clearance_m
        self._touchable = frozenset(touchable)
        owner = np.array(self._world.owner)
        moving = self.geoms_of(arm.bodies)
        hand, fingers = self.geoms_of(arm.hand_bodies), self.geoms_of(arm.finger_bodies)
        relevant = moving[:, None] | moving[None, :]
        if held is not None:
            carried = self.geoms_of(self._world.objects[held.name].bodies)
            relevant |= carried[:, None] | carried[None, :]
            _clear(relevant, carried, hand | carried)
            _clear(relevant, carried, np.isin(owner, list(rests_on)))
        if led is not None:
            mine = [self._world.objects[name] for name in (led.name, *led.riders)]
            swinging = self.geoms_of({mine[0].part}.union(*(rider.bodies for rider in mine[1:])))
            relevant |= swinging[:, None] | swinging[None, :]
            _clear(relevant, swinging, self.geoms_of(set[int]().union(*(entry.bodies for entry in mine))))
            T_world_part = self._pose(mine[0].part)
            self._T_part_rider = {
                name: inverse(T_world_part) @ self._pose(self._world.objects[name].body) for name in led.riders
            }
        _clear(relevant, hand if palm else fingers, np.isin(owner, list(touchable)))
        self._relevant = relevant & ~self._always

    def obstacles(self) -> dict[str, F64]:
        """Objects that the hand may not touch and that stay when it moves: name → (4, 4), as `observe` saw them."""
        moving = {self._held.name} if self._held else set()
        if self._led is not None:
            moving |= {self._led.name, *self._led.riders}
        return {
            name: self._pose(entry.body)
            for name, entry in self._world.objects.items()
            if name not in moving | self._touchable
        }

    @property
    def rule(self) -> BoolArray:
        """(ngeom, ngeom) mask of the touches that the current query forbids."""
        return self._relevant

    def touching(self, joints: F64) -> tuple[str, str] | None:
        """A pair of owners nearer than the clearance with the arm at `joints`; None where it is free."""
        data = self._place(joints)
        count = data.ncon
        if not count:
            return None
        pairs = data.contact.geom[:count]
        bad = (data.contact.dist[:count] < self._clearance) & self._relevant[pairs[:, 0], pairs[:, 1]]
        if not bad.any():
            return None
        a, b = pairs[int(np.argmax(bad))]
        return self._world.owner[a], self._world.owner[b]

    def free(self, joints: F64) -> bool:
        """True where nothing is nearer than the clearance."""
        return self.touching(joints) is None

    def first_touch(self, path: F64, step_rad: float) -> tuple[int, tuple[str, str]] | None:
        """First row of a (N, n) joint path at or before which, sampled every `step_rad`, something is touched."""
        last = path[0]
        for row, joints in enumerate(path):
            pieces = max(1, int(np.ceil(np.abs(joints - last).max() / step_rad)))
            for share in range(1, pieces + 1):
                pair = self.touching(last + (joints - last) * (share / pieces))
                if pair is not None:
                    return row, pair
            last = joints
        return None

    def _place(self, joints: F64) -> Any:
        assert self._arm is not None, "set_query comes first"
        self.asked += 1
        data, arm = self._data, self._arm
        data.qpos[arm.q] = joints
        self._mujoco.mj_kinematics(self._model, data)
        if self._held is not None:
            self._put(self._held.name, self._pose(arm.flange) @ arm.T_ee_tcp @ self._held.T_tcp_object)
        if self._led is not None:
            fixture = self._world.objects[self._led.name]
            data.qpos[fixture.joint_q] = self._led.value_of(self._pose(arm.flange) @ arm.T_ee_tcp)
            self._mujoco.mj_kinematics(self._model, data)
            for name, T_part_rider in self._T_part_rider.items():
                self._put(name, self._pose(fixture.part) @ T_part_rider)
        self._mujoco.mj_collision(self._model, data)
        return data

    def _pose(self, body: int) -> F64:
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = self._data.xmat[body].reshape(3, 3), self._data.xpos[body]
        return T

    def _put(self, name: str, T_world_object: F64) -> None:
        address = self._world.objects[name].free_q
        self._data.qpos[address : address + 3] = T_world_object[:3, 3]
        self._data.qpos[address + 3 : address + 7] = quaternion_of(T_world_object[:3, :3])
        self._mujoco.mj_kinematics(self._model, self._data)

    def _never_together(self) -> BoolArray:
        """(ngeom, ngeom) pairs to overlook: of one hand, and those of a robot that overlap in its home posture."""
        count = self._model.ngeom
        overlook = np.zeros((count, count), bool)
        for arm in self._world.arms.values():
            hand = self.geoms_of(arm.hand_bodies)
            overlook |= hand[:, None] & hand[None, :]
        data = self._mujoco.MjData(self._model)
        for posture in (self._world.start, self._model.qpos0):
            data.qpos[:] = posture
            for arm in self._world.arms.values():
                data.qpos[arm.q] = arm.model.home
                mine = self.geoms_of(arm.bodies)
                self._mujoco.mj_kinematics(self._model, data)
                self._mujoco.mj_collision(self._model, data)
                room = np.isin(np.array(self._world.owner), ["table", "floor", "wall"])
                base = self.geoms_of([body for body in arm.bodies if self._model.body_weldid[body] == 0])
                for a, b in data.contact.geom[: data.ncon]:
                    if (mine[a] and mine[b]) or (base[a] and room[b]) or (base[b] and room[a]):
                        overlook[a, b] = overlook[b, a] = True
        return overlook


def _clear(relevant: BoolArray, one: BoolArray, other: BoolArray) -> None:
    """Take the pairs between two masks out of `relevant`, in place."""
    relevant[np.ix_(one, other)] = False
    relevant[np.ix_(other, one)] = False
