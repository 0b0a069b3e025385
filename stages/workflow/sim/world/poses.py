"""Poses of bodies and cameras in recorded states."""

from __future__ import annotations

import numpy as np

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.layout.layout import Layout
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.rotation import transform
from nimbusd.stages.workflow.sim.world.world import World, build_world


class BodyPoses:
    """Poses of a world's bodies in recorded states. qpos: (T, nq)."""

    def __init__(self, world: World, qpos: F64) -> None:
        mujoco = import_mujoco()
        data = mujoco.MjData(world.model)
        self._xpos = np.empty((len(qpos), world.model.nbody, 3))
        self._xmat = np.empty((len(qpos), world.model.nbody, 9))
        for t, row in enumerate(qpos):
            data.qpos[:] = row
            mujoco.mj_kinematics(world.model, data)
            self._xpos[t], self._xmat[t] = data.xpos, data.xmat

    def of(self, body: int) -> F64:
        """(T, 4, 4) `T_world_body`."""
        T = np.zeros((len(self._xpos), 4, 4))
        T[:, :3, :3] = self._xmat[:, body].reshape(-1, 3, 3)
        T[:, :3, 3], T[:, 3, 3] = self._xpos[:, body], 1.0
        return T


def camera_poses(layout: Layout, qpos: F64) -> dict[str, F64]:
    """Camera name → (T, 4, 4) `T_world_camera` along recorded states, (T, nq), as the layout mounts its cameras."""
    mujoco, world = import_mujoco(), build_world(layout)
    data = mujoco.MjData(world.model)
    poses = {entry.name: np.tile(entry.pose.matrix(), (len(qpos), 1, 1)) for entry in layout.cameras}
    mounted = [(entry, world.arm(entry.mount).flange) for entry in layout.cameras if entry.mount]
    for row, state in enumerate(qpos if mounted else ()):
        data.qpos[:] = state
        mujoco.mj_kinematics(world.model, data)
        for entry, body in mounted:
            T = transform(data.xmat[body].reshape(3, 3), data.xpos[body])
            poses[entry.name][row] = T @ entry.pose.matrix()
    return poses
