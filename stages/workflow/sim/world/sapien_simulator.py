"""`SapienSimulator`: a world in SAPIEN 3's PhysX on the CPU. It draws nothing and needs no device to draw on.

It runs in one thread, with PhysX's enhanced determinism. PhysX remembers more between steps than it tells, so that
going back to a state means a new scene in that state. Its velocities are not those with which things move: heaps that
lie still have some. Velocities are therefore taken from positions, over the last step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.types import F64, I32
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.rotation import matrix_of, rotation_vector
from nimbusd.stages.workflow.sim.world.sapien_bodies import Bodies, Free, Tree, build_bodies, import_sapien
from nimbusd.stages.workflow.sim.world.simulator import Contacts
from nimbusd.stages.workflow.sim.world.world import World

_FIRM_N = 3.0
"""Normal force from which a touch counts as one that planning should have prevented: bodies do not sink in."""

_TOUCHING_M = 1e-4
_CREEP = 0.01
"""Speed, m/s or rad/s, below which dry friction of a joint grows with its speed instead of jumping."""

_WILD = 1e5


@dataclass(frozen=True)
class _Touch:
    """A pair of geoms, how far apart (negative: inside each other), and the normal force between them."""

    geoms: tuple[int, int]
    distance_m: float
    force_n: float


@dataclass(frozen=True)
class _State:
    """A state for `set_state`. touches: PhysX finds them only in the next step."""

    qpos: F64
    qvel: F64
    targets: F64
    touches: tuple[_Touch, ...]


class SapienSimulator:
    """See `Simulator`. Positions and velocities are float32 numbers, poses of bodies are computed from them."""

    name = "sapien"

    def __init__(self, world: World) -> None:
        self.version = str(import_sapien().__version__)
        self._model: Any = world.model
        self._mujoco = import_mujoco()
        self._data: Any = self._mujoco.MjData(world.model)
        self._placed = False
        self._bodies: Bodies = build_bodies(world.model)
        self._fresh = True
        self._targets = np.zeros(world.model.nu)
        self._touches: tuple[_Touch, ...] | None = ()
        self._before: tuple[list[Any], list[Any]] = ([], [])
        self._qvel: F64 | None = np.zeros(world.model.nv)

    def reset(self, qpos: F64, qvel: F64, targets: F64) -> None:
        self.set_state(_State(qpos, qvel, targets, ()))

    def step(self, targets: F64) -> None:
        self._targets = np.array(targets)
        for tree in self._bodies.trees:
            _drive(tree, targets)
            _brake(tree)
        self._before = _places(self._bodies)
        self._bodies.system.step()
        self._placed, self._touches, self._qvel, self._fresh = False, None, None, False

    @property
    def qpos(self) -> F64:
        qpos = np.array(self._model.qpos0, np.float64)
        for tree in self._bodies.trees:
            qpos[tree.q] = tree.zero + tree.articulation.get_qpos()
        for free in self._bodies.frees:
            pose = free.entity.get_pose()
            quaternion = np.asarray(pose.q, np.float64)
            qpos[free.q : free.q + 3] = pose.p
            qpos[free.q + 3 : free.q + 7] = quaternion / np.linalg.norm(quaternion)
        return qpos

    @property
    def qvel(self) -> F64:
        if self._qvel is None:
            self._qvel, step_s = np.zeros(self._model.nv), float(self._model.opt.timestep)
            (joints, poses), (joints_now, poses_now) = self._before, _places(self._bodies)
            for tree, old, new in zip(self._bodies.trees, joints, joints_now, strict=True):
                self._qvel[tree.v] = (new.astype(np.float64) - old) / step_s
            for free, pose, pose_now in zip(self._bodies.frees, poses, poses_now, strict=True):
                T, T_now = matrix_of(pose.p, pose.q), matrix_of(pose_now.p, pose_now.q)
                self._qvel[free.v : free.v + 3] = (T_now[:3, 3] - T[:3, 3]) / step_s
                self._qvel[free.v + 3 : free.v + 6] = rotation_vector(T[:3, :3].T @ T_now[:3, :3]) / step_s
        return self._qvel.copy()

    def body_pose(self, body: int) -> F64:
        if not self._placed:
            self._data.qpos[:] = self.qpos
            self._mujoco.mj_kinematics(self._model, self._data)
            self._placed = True
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = self._data.xmat[body].reshape(3, 3), self._data.xpos[body]
        return T

    def contacts(self) -> Contacts:
        found = self._found()
        geoms: I32 = np.array([touch.geoms for touch in found], np.int32).reshape(-1, 2)
        forces = np.array([touch.force_n for touch in found])
        distances = np.array([touch.distance_m for touch in found])
        return Contacts(geoms, (forces > 0) | (distances < _TOUCHING_M), forces > _FIRM_N)

    def force_n(self, contact: int) -> float:
        return self._found()[contact].force_n

    def get_state(self) -> _State:
        return _State(self.qpos, self.qvel, self._targets, self._found())

    def set_state(self, state: _State) -> None:
        if not self._fresh:
            self._bodies = build_bodies(self._model)
        self._fresh, self._placed = True, False
        self._touches, self._targets, self._qvel = state.touches, np.array(state.targets), np.array(state.qvel)
        for tree in self._bodies.trees:
            tree.articulation.set_qpos((state.qpos[tree.q] - tree.zero).astype(np.float32))
            tree.articulation.set_qvel(state.qvel[tree.v].astype(np.float32))
            _drive(tree, state.targets)
        for free in self._bodies.frees:
            _put(free, state.qpos[free.q : free.q + 7], state.qvel[free.v : free.v + 6])

    def diverged(self) -> bool:
        """True where something is not a number, or faster than anything on a table."""
        state = np.concatenate([self.qpos, self.qvel])
        return not np.isfinite(state).all() or bool(np.abs(state).max() > _WILD)

    def _found(self) -> tuple[_Touch, ...]:
        """Contacts after the last step, by geoms: PhysX lists it by addresses in memory."""
        if self._touches is None:
            step_s, geom_of = float(self._bodies.system.timestep), self._bodies.geom_of
            found = []
            for contact in self._bodies.system.get_contacts():
                points = contact.points
                if not points:
                    continue
                one, two = (geom_of[shape] for shape in contact.shapes)
                force = sum(float(np.dot(point.impulse, point.normal)) for point in points) / step_s
                distance = min(float(point.separation) for point in points)
                found.append(_Touch((min(one, two), max(one, two)), distance, max(force, 0.0)))
            self._touches = tuple(sorted(found, key=lambda touch: touch.geoms))
        return self._touches


def _places(bodies: Bodies) -> tuple[list[Any], list[Any]]:
    """Positions of joints and free bodies, as SAPIEN says them."""
    return [tree.articulation.get_qpos() for tree in bodies.trees], [free.entity.get_pose() for free in bodies.frees]


def _drive(tree: Tree, targets: F64) -> None:
    """Give a tree's servos their set points."""
    for joint, servo, zero in zip(tree.joints, tree.servo.tolist(), tree.zero.tolist(), strict=True):
        if servo >= 0:
            joint.set_drive_target(float(targets[servo]) - zero)


def _brake(tree: Tree) -> None:
    """Damping and dry friction of a tree's joints for the next step."""
    if not (tree.damping.any() or tree.dry.any()):
        return
    speed = np.asarray(tree.articulation.get_qvel(), np.float64)
    slope = tree.damping + tree.dry / np.maximum(np.abs(speed), _CREEP)
    tree.articulation.set_qf((-np.minimum(slope, tree.most) * speed).astype(np.float32))


def _put(free: Free, place: F64, speed: F64) -> None:
    """Set pose and velocity of a free body as MuJoCo states them."""
    pose = free.entity.get_pose()
    pose.set_p(place[:3].astype(np.float32))
    pose.set_q(place[3:].astype(np.float32))
    free.entity.set_pose(pose)
    R = matrix_of((0, 0, 0), place[3:])[:3, :3]
    spin = R @ speed[3:]
    free.component.angular_velocity = spin.astype(np.float32)
    free.component.linear_velocity = (speed[:3] + np.cross(spin, R @ free.centre)).astype(np.float32)
