"""`MujocoSimulator`: MuJoCo's own contact physics on the world's model."""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.world.simulator import Contacts
from nimbusd.stages.workflow.sim.world.world import World

_FIRM_M = -0.001
"""Penetration from which a touch counts as one that planning should have prevented."""


class MujocoSimulator:
    """See `Simulator`. data: MuJoCo's state."""

    name = "mujoco"

    def __init__(self, world: World) -> None:
        self._mujoco = import_mujoco()
        self.version = str(self._mujoco.__version__)
        self._model: Any = world.model
        self.data: Any = self._mujoco.MjData(world.model)

    def reset(self, qpos: F64, qvel: F64, targets: F64) -> None:
        self._mujoco.mj_resetData(self._model, self.data)
        self.data.qpos[:], self.data.qvel[:], self.data.ctrl[:] = qpos, qvel, targets
        self._mujoco.mj_forward(self._model, self.data)

    def step(self, targets: F64) -> None:
        self.data.ctrl[:] = targets
        self._mujoco.mj_step(self._model, self.data)

    @property
    def qpos(self) -> F64:
        return np.array(self.data.qpos, np.float64)

    @property
    def qvel(self) -> F64:
        return np.array(self.data.qvel, np.float64)

    def body_pose(self, body: int) -> F64:
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = self.data.xmat[body].reshape(3, 3), self.data.xpos[body]
        return T

    def contacts(self) -> Contacts:
        found, count = self.data.contact, self.data.ncon
        distance = found.dist[:count]
        return Contacts(np.array(found.geom[:count]), distance < 0, distance < _FIRM_M)

    def force_n(self, contact: int) -> float:
        wrench = np.zeros(6)
        self._mujoco.mj_contactForce(self._model, self.data, contact, wrench)
        return float(wrench[0])

    def get_state(self) -> F64:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(self._mujoco.mj_stateSize(self._model, kind))
        self._mujoco.mj_getState(self._model, self.data, state, kind)
        return state

    def set_state(self, state: F64) -> None:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._mujoco.mj_setState(self._model, self.data, state, kind)
        self._mujoco.mj_forward(self._model, self.data)
        self._mujoco.mj_setState(self._model, self.data, state, kind)

    def diverged(self) -> bool:
        """True where MuJoCo had to throw a state away and start from its own."""
        kinds = self._mujoco.mjtWarning
        bad = (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC)
        return any(self.data.warning[int(kind)].number for kind in bad)
