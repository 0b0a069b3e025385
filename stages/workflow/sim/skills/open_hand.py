"""Checks of an open gripper, taken alone, against what stands around it: they decide for most grasps of mugs.

A grasp on a mug's rim or handle may be as good as any by its opposite sides, and yet the gripper cannot be there, since
a finger would stand in the mug's collision shape. Asked of the hand alone, that takes no joint positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.rotation import inverse
from nimbusd.stages.workflow.sim.world.world import ArmIndex, World

_BEFORE_M, _PRESS_M = 0.01, 0.003
"""From where before a pad an object is looked for, and how much farther than to its width fingers close to reach it."""

_SPARE_M = 0.001
"""Distances are measured up to this beyond a clearance."""


class OpenHand:
    """The collision shapes of an arm's gripper, which can be put anywhere in a state of a world.

    qpos: (nq,) where everything else stands. The arm itself, and what it holds, are not looked at.
    """

    def __init__(self, world: World, arm: ArmIndex, qpos: F64) -> None:
        self._mujoco, self._model, self._owner, self._arm = import_mujoco(), world.model, world.owner, arm
        self._data: Any = self._mujoco.MjData(world.model)
        self._data.qpos[:] = qpos
        body = np.array(world.model.geom_bodyid)
        solid = np.array(world.model.geom_contype | world.model.geom_conaffinity) != 0
        self._hand = np.flatnonzero(np.isin(body, list(arm.hand_bodies)) & solid)
        self._fingers = np.flatnonzero(np.isin(body, list(arm.finger_bodies)) & solid).tolist()
        self._around = np.flatnonzero(~np.isin(body, list(arm.bodies)) & solid)
        self._mujoco.mj_kinematics(world.model, self._data)
        self._opening_m = float("nan")
        self._T_tcp_geom: dict[int, F64] = {}

    def touched(self, T_world_tcp: F64, opening_m: float, clearance_m: float = 0.0) -> str | None:
        """The owner of something nearer than the clearance with the tool at this pose; None where there is nothing.

        opening_m: between the pads.
        """
        self._open(opening_m)
        for geom, T_tcp_geom in self._T_tcp_geom.items():
            self._put(geom, T_world_tcp @ T_tcp_geom)
            for other in self._nearer(geom, clearance_m):
                return self._owner[other]
        return None

    def holds(self, name: str, T_world_tcp: F64, width_m: float) -> bool:
        """True where an object lies between the pads when they close to its width: seen from both sides, or touched so.

        Fingers touch what their middle line misses. Only the simulation shows how those move that hang on others.
        """
        return self._seen(name, T_world_tcp, width_m) or self._reached(name, T_world_tcp, width_m)

    def _seen(self, name: str, T_world_tcp: F64, width_m: float) -> bool:
        """True where the line between the pads meets the object near either."""
        mine = [geom for geom in self._around.tolist() if self._owner[geom] == name]
        for side in (1.0, -1.0):
            start = T_world_tcp[:3, 3] + side * (width_m / 2 + _BEFORE_M) * T_world_tcp[:3, 1]
            if not any(0 <= self._ray(geom, start, -side * T_world_tcp[:3, 1]) < _BEFORE_M + _PRESS_M for geom in mine):
                return False
        return True

    def _reached(self, name: str, T_world_tcp: F64, width_m: float) -> bool:
        """True where fingers on both sides of the tool touch the object."""
        self._open(width_m - _PRESS_M)
        sides = set[bool]()
        for geom in self._fingers:
            self._put(geom, T_world_tcp @ self._T_tcp_geom[geom])
            if any(self._owner[other] == name for other in self._nearer(geom, _PRESS_M)):
                sides.add(bool(self._T_tcp_geom[geom][1, 3] > 0))
        return len(sides) == 2

    def _ray(self, geom: int, start: F64, way: F64) -> float:
        """Distance along a ray to a geom; negative where it is not met."""
        data, model, mujoco = self._data, self._model, self._mujoco
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
            return float(mujoco.mj_rayMesh(model, data, geom, start, way, None))
        place = data.geom_xpos[geom], data.geom_xmat[geom], model.geom_size[geom]
        return float(mujoco.mju_rayGeom(*place, start, way, model.geom_type[geom], None))

    def _put(self, geom: int, T_world_geom: F64) -> None:
        self._data.geom_xpos[geom], self._data.geom_xmat[geom] = T_world_geom[:3, 3], T_world_geom[:3, :3].ravel()

    def _open(self, opening_m: float) -> None:
        """Put the fingers there, and note where the hand's shapes then are in the tool's frame."""
        if opening_m == self._opening_m:
            return
        data, arm = self._data, self._arm
        data.qpos[arm.fingers_q] = arm.finger_targets(opening_m)
        self._mujoco.mj_kinematics(self._model, data)
        flange = _pose(data.xpos[arm.flange], data.xmat[arm.flange])
        T_tcp_world = inverse(flange @ arm.T_ee_tcp)
        for geom in self._hand.tolist():
            self._T_tcp_geom[geom] = T_tcp_world @ _pose(data.geom_xpos[geom], data.geom_xmat[geom])
        self._opening_m = opening_m

    def _nearer(self, geom: int, clearance_m: float) -> Iterator[int]:
        """Shapes that can collide with the geom and are nearer to it than the clearance."""
        model, data, others = self._model, self._data, self._around
        wanted = (model.geom_contype[geom] & model.geom_conaffinity[others]) | (
            model.geom_conaffinity[geom] & model.geom_contype[others]
        )
        apart = np.linalg.norm(data.geom_xpos[others] - data.geom_xpos[geom], axis=1)
        reach = model.geom_rbound[others] + model.geom_rbound[geom] + clearance_m
        for other in others[(wanted != 0) & (apart < reach)].tolist():
            if self._mujoco.mj_geomDistance(model, data, geom, other, clearance_m + _SPARE_M, None) < clearance_m:
                yield other


def _pose(position: F64, rotation: F64) -> F64:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation.reshape(3, 3), position
    return T
