"""Whether an arm reaches a point with the tool pointing down: the least that working there takes."""

from __future__ import annotations

import numpy as np

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.motion.kinematics import ArmKinematics
from nimbusd.stages.workflow.sim.rotation import transform
from nimbusd.stages.workflow.sim.skills.skill import downward

_ABOVE_M = 0.12
_YAWS_RAD = (0.0, 0.8, -0.8, 1.57)


def reached_above(kinematics: ArmKinematics, start: F64, point: F64) -> bool:
    """Whether joint positions are found, searching from `start`, that bring the tool above a point of the world."""
    spot = point + np.array([0.0, 0.0, _ABOVE_M])
    return any(kinematics.solve(transform(downward(yaw), spot), start) is not None for yaw in _YAWS_RAD)
