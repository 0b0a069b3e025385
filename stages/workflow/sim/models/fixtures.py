"""The shape of drawers and doors: their handles, how these move with the joint, and what space that takes.

Everything here is in the object's frame, whose front looks along -x, with the joint at 0 where the fixture is closed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.models.objects import ObjectModel
from nimbusd.stages.workflow.sim.rotation import Vector, about, transform

DRAWER_HANDLE_M = (0.045, 0.036)
"""Distance of the plate of a drawer's handle from the front, and the height at which to grip it."""

DOOR_THICK_M = 0.012
POST_RADIUS_M = 0.010
POST_BEFORE_M = 0.048
"""From a door's face to the middle of its handle, an upright post."""

POST_INSET_M = 0.035
"""From a door's free edge to the middle of its handle."""

GRIP_BELOW_M = 0.012
"""Below the top of a cabinet: where its door's post is gripped. The hand then passes above the cabinet."""

WALL_M = 0.006
"""Of bins and trays; cabinets have walls of twice that."""

CONTAINERS = ("bin", "drawer")
"""Shapes that things can lie in."""

_TRAY_GAP_M = 0.003
_FINGER_M = 0.06
_SIDEWAYS_RAD = 0.7
"""From this opening on, a door's handle may stand beside its cabinet."""


@dataclass(frozen=True)
class Handle:
    """A handle that fingers grip from above.

    point: (3,) between the pads when closed. axis: (3,) unit, along which the part slides, or about which it turns by
    the right hand; pivot: (3,) a point of that axis. width_m: between the pads. opening_m: of the fingers around it.
    turns: whether it is round, so that the hand may turn about it. travel: of the joint, m or rad.
    """

    kind: Literal["slide", "hinge"]
    point: F64
    axis: F64
    pivot: F64
    width_m: float
    opening_m: float
    turns: bool
    travel: float

    def grip(self, value: float) -> F64:
        """(4, 4) `T_object_grip` at a joint value: z up, x out of the moving part's face."""
        at_rest = transform(about((0, 0, 1), math.pi), self.point)
        if self.kind == "slide":
            return transform(at_rest[:3, :3], self.point + value * self.axis)
        turn = about(self.axis, value)
        return transform(turn @ at_rest[:3, :3], self.pivot + turn @ (self.point - self.pivot))

    def value_of(self, point: F64) -> float:
        """The joint value at which the grip is nearest to a point, inside the joint's range."""
        if self.kind == "slide":
            value = float((point - self.point) @ self.axis)
        else:
            arm, there = (p - p @ self.axis * self.axis for p in (self.point - self.pivot, point - self.pivot))
            value = math.atan2(float(np.cross(arm, there) @ self.axis), float(arm @ there))
        return min(max(value, 0.0), self.travel)


def handle_of(model: ObjectModel, size_m: Vector) -> Handle:
    """The handle of a drawer or a door of this size. Raises ValueError for anything else."""
    x, y, z = size_m
    if model.shape == "drawer":
        before, height = DRAWER_HANDLE_M
        point, axis = np.array([-x / 2 - before, 0.0, height]), np.array([-1.0, 0.0, 0.0])
        return Handle("slide", point, axis, point, 0.018, 0.035, False, model.travel)
    if model.shape == "door":
        side = hinge_side(model.hinge)
        point = np.array([-x / 2 - POST_BEFORE_M, side * (POST_INSET_M - y / 2), z / 2 - GRIP_BELOW_M])
        axis, pivot = np.array([0.0, 0.0, -float(side)]), np.array(hinge_m(size_m, side))
        return Handle("hinge", point, axis, pivot, 2 * POST_RADIUS_M, 0.045, True, model.travel)
    raise ValueError(f"a {model.category} has no handle")


def tray_m(size_m: Vector) -> tuple[Vector, float]:
    """Outer edges of the tray of a drawer of this size, and the x of its middle when it is closed."""
    x, y, z = size_m
    wall, gap = 2 * WALL_M, _TRAY_GAP_M
    return (x - wall - 2 * gap, y - 2 * (wall + gap), z - 2 * (wall + gap)), -wall / 2 - gap


def hinge_side(hinge: str) -> int:
    """1 for a hinge on the robot's left (+y of a cabinet that looks at it), -1 for one on the right."""
    return 1 if hinge == "left" else -1


def hinge_m(size_m: Vector, side: int) -> Vector:
    """A door's hinge: at the edge of its inner face, so that an open door stands beside the cabinet, not in it."""
    return -size_m[0] / 2 + DOOR_THICK_M, side * size_m[1] / 2, 0.0


def needed_space(model: ObjectModel, size_m: Vector) -> tuple[float, float, float, float]:
    """Least x, most x, least y, most y of what an object covers, its joint anywhere and fingers at its handle."""
    x, y, _ = size_m
    x0, x1, y0, y1 = -x / 2, x / 2, -y / 2, y / 2
    if model.shape == "drawer":
        return x0 - DRAWER_HANDLE_M[0] - model.travel - _FINGER_M, x1, y0, y1
    if model.shape == "door":
        beside = POST_BEFORE_M + _FINGER_M if model.travel > _SIDEWAYS_RAD else 0.0
        left = hinge_side(model.hinge) > 0
        return x0 - y - _FINGER_M, x1, y0 - (0.0 if left else beside), y1 + (beside if left else 0.0)
    return x0, x1, y0, y1
