"""Whether an open gripper, taken alone, would touch what stands around it: what decides for most grasps of hollow things.

A grasp on a mug's rim or handle may be as good as any by its opposite sides, and yet the gripper cannot be there, since
a finger would stand in the mug's collision shape. Asked of the hand alone, that takes no joint positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.rotation import inverse
from nimbusd.stages.workflow.sim.world import ArmIndex, World, import_mujoco


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
        self._around = np.flatnonzero(~np.isin(body, list(arm.bodies)) & solid)
        self._opening_m = float("nan")
        self._T_tcp_geom: list[F64] = []

    def touched(self, T_world_tcp: F64, opening_m: float, clearance_m: float = 0.0) -> str | None:
        """The owner of something nearer than the clearance with the tool at this pose; None where there is nothing.

        opening_m: between the pads.
        """
        self._open(opening_m)
        data, model = self._data, self._model
        for geom, T_tcp_geom in zip(self._hand.tolist(), self._T_tcp_geom, strict=True):
            T = T_world_tcp @ T_tcp_geom
            data.geom_xpos[geom], data.geom_xmat[geom] = T[:3, 3], T[:3, :3].ravel()
            for other in self._near(geom, clearance_m):
                if self._mujoco.mj_geomDistance(model, data, geom, other, clearance_m + 1e-3, None) < clearance_m:
                    return self._owner[other]
        return None

    def _open(self, opening_m: float) -> None:
        """Put the fingers there, and note where the hand's shapes then are in the tool's frame."""
        if opening_m == self._opening_m:
            return
        data, arm = self._data, self._arm
        data.qpos[arm.fingers_q] = arm.finger_targets(opening_m)
        self._mujoco.mj_kinematics(self._model, data)
        flange = _pose(data.xpos[arm.flange], data.xmat[arm.flange])
        T_tcp_world = inverse(flange @ arm.T_ee_tcp)
        self._T_tcp_geom = [T_tcp_world @ _pose(data.geom_xpos[geom], data.geom_xmat[geom]) for geom in self._hand]
        self._opening_m = opening_m

    def _near(self, geom: int, clearance_m: float) -> list[int]:
        """Shapes that can collide with the geom, and whose bounding spheres come near enough to its own."""
        model, data, others = self._model, self._data, self._around
        wanted = (model.geom_contype[geom] & model.geom_conaffinity[others]) | (
            model.geom_conaffinity[geom] & model.geom_contype[others]
        )
        apart = np.linalg.norm(data.geom_xpos[others] - data.geom_xpos[geom], axis=1)
        reach = model.geom_rbound[others] + model.geom_rbound[geom] + clearance_m
        found: list[int] = others[(wanted != 0) & (apart < reach)].tolist()
        return found


def _pose(position: F64, rotation: F64) -> F64:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation.reshape(3, 3), position
    return T
