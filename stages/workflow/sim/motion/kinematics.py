"""Inverse kinematics of one arm: damped least squares on MuJoCo's Jacobian, from several starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.rotation import downward, inverse, rotation_vector, transform
from nimbusd.stages.workflow.sim.world.world import ArmIndex, World

_ITERATIONS = 60
_DAMPING = 1e-3
_STEP_RAD = 0.5
_POSITION_M, _ROTATION_RAD = 2e-4, 2e-3
_LIMIT_MARGIN_RAD = 0.02
_ABOVE_M = 0.12
_YAWS_RAD = (0.0, 0.8, -0.8, 1.57)
"""Turns of a tool that points down: one of them is the least that working at a place takes."""

_ROTATION_WEIGHT_M = 0.25
"""Metres of position error that a radian of rotation error counts as."""


class ArmKinematics:
    """Forward and inverse kinematics of an arm; it has a state of its own and never touches the simulation's.

    asked: how many postures it has looked at.
    """

    def __init__(self, world: World, arm: ArmIndex) -> None:
        self._mujoco = import_mujoco()
        self._model = world.model
        self._data: Any = self._mujoco.MjData(world.model)
        self._data.qpos[:] = world.start
        self._arm = arm
        self._T_tcp_ee = inverse(arm.T_ee_tcp)
        self.asked = 0
        self._position = np.zeros((3, world.model.nv))
        self._rotation = np.zeros((3, world.model.nv))
        self._shoulder, self._reach_m = self._farthest()
        self.lower = arm.lower + _LIMIT_MARGIN_RAD
        self.upper = arm.upper - _LIMIT_MARGIN_RAD

    def tcp(self, joints: F64) -> F64:
        """(4, 4) `T_world_tcp` at the given joint positions."""
        self._place(joints)
        return np.asarray(self._flange() @ self._arm.T_ee_tcp)

    def farther_than_it_reaches(self, point: F64) -> bool:
        """True where a point of the world, (3,), is farther from the first joint than all links are long together."""
        return float(np.linalg.norm(point - self._shoulder)) > self._reach_m

    def solve(self, T_world_tcp: F64, start: F64, home: F64 | None = None) -> F64 | None:
        """Joint positions that bring the tool there, near `start`, inside the limits; None where it does not converge.

        home: posture that redundant joints drift to, if given; joints without limits take the shorter way there.
        """
        if self.farther_than_it_reaches(T_world_tcp[:3, 3]):
            return None
        goal = T_world_tcp @ self._T_tcp_ee
        q = np.clip(start, self.lower, self.upper)
        arm = self._arm
        for _ in range(_ITERATIONS):
            self._place(q)
            here = self._flange()
            shift = goal[:3, 3] - here[:3, 3]
            turn = rotation_vector(goal[:3, :3] @ here[:3, :3].T)
            if shift @ shift < _POSITION_M**2 and turn @ turn < _ROTATION_RAD**2:
                return q
            self._mujoco.mj_comPos(self._model, self._data)
            self._mujoco.mj_jacBody(self._model, self._data, self._position, self._rotation, arm.flange)
            J = np.concatenate([self._position[:, arm.v], _ROTATION_WEIGHT_M * self._rotation[:, arm.v]])
            error = np.concatenate([shift, _ROTATION_WEIGHT_M * turn])
            damped = J @ J.T + _DAMPING * min(1.0, float(error @ error) * 100 + 1e-3) * np.eye(6)
            step = J.T @ np.linalg.solve(damped, error)
            if home is not None:
                drift = 0.1 * (self._nearest_turn(home, q) - q)
                step += drift - J.T @ np.linalg.solve(damped, J @ drift)
            largest = float(np.abs(step).max())
            q = np.clip(q + step * min(1.0, _STEP_RAD / max(largest, 1e-9)), self.lower, self.upper)
        return None

    def reaches_above(self, point: F64, start: F64) -> bool:
        """True where joint positions are found, from `start`, with the tool above a point, (3,), and pointing down."""
        spot = point + np.array([0.0, 0.0, _ABOVE_M])
        return any(self.solve(transform(downward(yaw), spot), start) is not None for yaw in _YAWS_RAD)

    def solve_any(self, T_world_tcp: F64, near: F64, rng: np.random.Generator, starts: int = 6) -> list[F64]:
        """Distinct solutions, nearest to `near` first, searched from `near`, from home and from around home.

        Joints without limits are less than half a turn from where they are in `near`.
        """
        home = np.asarray(self._arm.model.home)
        guesses = [near, home]
        guesses += [np.clip(home + rng.normal(0, 0.5, len(home)), self.lower, self.upper) for _ in range(starts - 2)]
        found: list[F64] = []
        for guess in guesses:
            q = self.solve(T_world_tcp, guess, home if len(home) > 6 else None)
            q = None if q is None else self._nearest_turn(q, near)
            if q is not None and not any(np.abs(q - other).max() < 0.05 for other in found):
                found.append(q)
        return sorted(found, key=lambda q: float(np.abs(q - near).max()))

    def _nearest_turn(self, q: F64, near: F64) -> F64:
        """The same posture, joints without limits turned by whole turns towards `near`."""
        turns = np.where(self._arm.endless, np.rint((near - q) / (2 * np.pi)), 0.0)
        return np.asarray(q + 2 * np.pi * turns)

    def _farthest(self) -> tuple[F64, float]:
        """The place of the first joint in the world, and the length of the links from there to the tool."""
        model, arm = self._model, self._arm
        joints = [int(model.dof_jntid[address]) for address in arm.v]
        first, body = int(model.jnt_bodyid[joints[0]]), arm.flange
        length = float(np.linalg.norm(arm.T_ee_tcp[:3, 3]))
        while body not in (first, 0):
            length += float(np.linalg.norm(model.body_pos[body]))
            body = int(model.body_parentid[body])
        # Joints stand off their bodies' origins, and slide.
        length += 2 * float(np.linalg.norm(model.jnt_pos[joints], axis=1).sum())
        slides = model.jnt_type[joints] == self._mujoco.mjtJoint.mjJNT_SLIDE
        length += float(np.abs(model.jnt_range[joints][slides]).max(axis=1).sum()) if slides.any() else 0.0
        self._mujoco.mj_kinematics(model, self._data)
        return np.array(self._data.xanchor[joints[0]], np.float64), length

    def _place(self, joints: F64) -> None:
        self.asked += 1
        self._data.qpos[self._arm.q] = joints
        self._mujoco.mj_kinematics(self._model, self._data)

    def _flange(self) -> F64:
        T = np.eye(4)
        T[:3, :3] = self._data.xmat[self._arm.flange].reshape(3, 3)
        T[:3, 3] = self._data.xpos[self._arm.flange]
        return T
