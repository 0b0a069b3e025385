"""Finds arms that touch themselves at home, by more than hulls do that stand off the links that they are around.

Shapes of neighbouring links overlap by nature, whatever the posture.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.world.world import ArmIndex, World

_DEEP_M = 0.02
_POSTURES = 40
_OFTEN = 0.3
"""Share of random postures from which on an overlap is the shapes' own."""


def self_touch(world: World, arm: ArmIndex) -> tuple[str, str] | None:
    """Two bodies of an arm that overlap at home and in few other postures; None where there are none."""
    mujoco, model = import_mujoco(), world.model
    data = mujoco.MjData(model)
    data.qpos[:] = world.start
    deep = _deep(mujoco, model, data, arm, np.asarray(arm.model.home))
    if not deep:
        return None
    rng = np.random.default_rng(0)
    limited = np.isfinite(arm.lower) & np.isfinite(arm.upper) & (arm.lower < arm.upper)
    low, high = np.where(limited, arm.lower, -np.pi), np.where(limited, arm.upper, np.pi)
    often = dict.fromkeys(deep, 0)
    for _ in range(_POSTURES):
        for pair in _deep(mujoco, model, data, arm, rng.uniform(low, high)) & set(deep):
            often[pair] += 1
    a, b = min(deep, key=lambda pair: (often[pair], pair))
    if often[a, b] > _OFTEN * _POSTURES:
        return None
    return model.body(a).name, model.body(b).name


def _deep(mujoco: Any, model: Any, data: Any, arm: ArmIndex, joints: F64) -> set[tuple[int, int]]:
    """Pairs of bodies of an arm, not both of its gripper, that are deep in each other."""
    data.qpos[arm.q] = joints
    mujoco.mj_kinematics(model, data)
    mujoco.mj_collision(model, data)
    found = set()
    for (a, b), distance in zip(data.contact.geom[: data.ncon], data.contact.dist[: data.ncon], strict=True):
        one, other = sorted((int(model.geom_bodyid[a]), int(model.geom_bodyid[b])))
        if distance < -_DEEP_M and {one, other} <= arm.bodies and not {one, other} <= arm.hand_bodies:
            found.add((one, other))
    return found
