"""Hands whose fingers turn: bars that overlap where they meet, and joints that move together."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from nimbusd.stages.workflow.sim.models.robots import FingerModel

_ARMATURE = 0.005
"""The least inertia of a bar's joint, kg m²."""


def couple_fingers(mujoco: Any, spec: Any, prefix: str, links: list[str], fingers: tuple[FingerModel, ...]) -> None:
    """Couple the joints of a hand whose fingers turn: they go from closed to open together, as their bars make them.

    This takes the place of what the file couples them by, which is stated for other actuators than ours.

    The bars themselves overlap where they meet, and do not collide with each other.
    """
    for one, other in combinations(links, 2):
        spec.add_exclude(bodyname1=prefix + one, bodyname2=prefix + other)
    first = fingers[0]
    for finger in fingers:  # bars are light: without the motor's inertia, couplings would give way to servos
        joint = spec.joint(prefix + finger.joint)
        joint.armature = max(float(joint.armature), _ARMATURE)
    for finger in fingers[1:]:
        slope = (finger.open - finger.closed) / (first.open - first.closed)
        couple = spec.add_equality(
            name=f"{prefix}{finger.joint}/coupled", type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT,
            name1=prefix + finger.joint, name2=prefix + first.joint, solref=[0.005, 1.0],
        )  # fmt: skip
        couple.data[:5] = [finger.closed - slope * first.closed, slope, 0.0, 0.0, 0.0]
