"""Where bodies are in recorded states."""

from __future__ import annotations

import numpy as np

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.world.world import World, import_mujoco


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
