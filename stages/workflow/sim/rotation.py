"""Rotations and poses as small numpy functions: quaternions are (w, x, y, z), matrices map child to parent."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nimbusd.stages.types import F64

Vector: TypeAlias = tuple[float, float, float]
Quaternion: TypeAlias = tuple[float, float, float, float]
"""w, x, y, z."""

UP: F64 = np.array([0.0, 0.0, 1.0])
"""The world's upward direction."""

FORWARD: F64 = np.array([1.0, 0.0, 0.0])
"""The direction in which robots look: x of their base, which is that of the world."""

POLE_RAD = 0.175
"""Ten degrees. Nearer than this to straight down or up, a picture has the robot's forward direction at its top."""


def matrix_of(position: npt.ArrayLike, quaternion: npt.ArrayLike) -> F64:
    """(4, 4) float64 from a position (3,) and a quaternion (4,), which is normalized."""
    w, x, y, z = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = position
    return T


def quaternion_of(rotation: F64) -> Quaternion:
    """Unit quaternion with w >= 0 of a (3, 3) rotation matrix."""
    m = rotation
    # Shepperd's method: divide by the largest of the four components.
    squares = np.array([1 + m[0, 0] + m[1, 1] + m[2, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2],
                        1 - m[0, 0] + m[1, 1] - m[2, 2], 1 - m[0, 0] - m[1, 1] + m[2, 2]])  # fmt: skip
    largest = int(np.argmax(squares))
    s = math.sqrt(max(squares[largest], 0.0)) * 2
    q = np.empty(4)
    if largest == 0:
        q[:] = s / 4, (m[2, 1] - m[1, 2]) / s, (m[0, 2] - m[2, 0]) / s, (m[1, 0] - m[0, 1]) / s
    elif largest == 1:
        q[:] = (m[2, 1] - m[1, 2]) / s, s / 4, (m[0, 1] + m[1, 0]) / s, (m[0, 2] + m[2, 0]) / s
    elif largest == 2:
        q[:] = (m[0, 2] - m[2, 0]) / s, (m[0, 1] + m[1, 0]) / s, s / 4, (m[1, 2] + m[2, 1]) / s
    else:
        q[:] = (m[1, 0] - m[0, 1]) / s, (m[0, 2] + m[2, 0]) / s, (m[1, 2] + m[2, 1]) / s, s / 4
    q /= np.linalg.norm(q)
    if q[0] < 0:
        q = -q
    return float(q[0]), float(q[1]), float(q[2]), float(q[3])


def transform(rotation: F64 | None = None, position: npt.ArrayLike = (0.0, 0.0, 0.0)) -> F64:
    """(4, 4) float64 from a (3, 3) rotation (identity if None) and a position."""
    T = np.eye(4)
    if rotation is not None:
        T[:3, :3] = rotation
    T[:3, 3] = position
    return T


def inverse(T: F64) -> F64:
    """Inverse of a rigid transform (4, 4)."""
    inverted = np.eye(4)
    inverted[:3, :3] = T[:3, :3].T
    inverted[:3, 3] = -T[:3, :3].T @ T[:3, 3]
    return inverted


def about(axis: npt.ArrayLike, angle_rad: float) -> F64:
    """(3, 3) rotation by `angle_rad` about `axis` (Rodrigues)."""
    x, y, z = unit(np.asarray(axis, np.float64)).tolist()
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], np.float64)
    rotation: F64 = np.asarray(np.eye(3) + math.sin(angle_rad) * K + (1 - math.cos(angle_rad)) * (K @ K), np.float64)
    return rotation


def rotation_vector(rotation: F64) -> F64:
    """(3,) axis times angle of a (3, 3) rotation matrix, angle in 0…π."""
    w, x, y, z = quaternion_of(rotation)
    vector = np.array([x, y, z])
    length = float(np.linalg.norm(vector))
    scale = 2.0 if length < 1e-12 else 2 * math.atan2(length, w) / length
    return np.asarray(vector * scale)


def image_up(direction: npt.ArrayLike, up: npt.ArrayLike = UP, at_pole: npt.ArrayLike = FORWARD) -> F64:
    """(3,) what is upwards in the picture of a camera that looks along `direction`: `up`, wherever that can be seen.

    Within `POLE_RAD` of `up` and of its opposite, where a picture has no upwards, it is `at_pole`: who looks straight
    down or up has the robot's forward direction at the top.
    """
    cosine = float(unit(np.asarray(direction, np.float64)) @ unit(np.asarray(up, np.float64)))
    return np.asarray(at_pole if abs(cosine) > math.cos(POLE_RAD) else up, np.float64)


def look_at(eye: npt.ArrayLike, target: npt.ArrayLike, up: npt.ArrayLike | None = None, roll_rad: float = 0.0) -> F64:
    """(4, 4) `T_world_camera` of a camera at `eye` that looks at `target` (OpenGL axes).

    up: (3,) what is upwards in the picture; None follows `image_up`. roll_rad: turn about the line of sight,
    counter-clockwise as seen from behind the camera, so that the picture turns clockwise.
    Raises ValueError where `eye` is `target`, or `up` is the line of sight.
    """
    away = np.asarray(eye, np.float64) - np.asarray(target, np.float64)
    if not np.linalg.norm(away) > 0:
        raise ValueError(f"a camera at {np.asarray(eye).tolist()} cannot look at its own place")
    back = unit(away)
    across = np.cross(np.asarray(image_up(-back) if up is None else up, np.float64), back)
    if np.linalg.norm(across) < 1e-9:
        raise ValueError(f"a camera that looks along {(-back).tolist()} cannot have that direction upwards")
    right = unit(across)
    rotation = np.stack([right, np.cross(back, right), back], axis=1)
    return transform(rotation @ about((0.0, 0.0, 1.0), roll_rad) if roll_rad else rotation, eye)


def downward(yaw_rad: float) -> F64:
    """(3, 3) tool orientation that points straight down, closing along the world's y turned by `yaw_rad`."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])


def unit(vector: F64) -> F64:
    """`vector` at length 1."""
    scaled: F64 = np.asarray(vector / np.linalg.norm(vector), np.float64)
    return scaled
