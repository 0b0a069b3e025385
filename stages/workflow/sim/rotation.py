"""Rotations and poses as small numpy functions: quaternions are (w, x, y, z), matrices map child to parent."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nimbusd.stages.types import F64

UP: F64 = np.array([0.0, 0.0, 1.0])
"""The world's upward direction."""


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


def quaternion_of(rotation: F64) -> tuple[float, float, float, float]:
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


def look_at(eye: npt.ArrayLike, target: npt.ArrayLike, up: npt.ArrayLike = (0.0, 0.0, 1.0)) -> F64:
    """(4, 4) `T_world_camera` of a camera at `eye` that looks at `target` (OpenGL axes)."""
    back = unit(np.asarray(eye, np.float64) - np.asarray(target, np.float64))
    right = unit(np.cross(np.asarray(up, np.float64), back))
    return transform(np.stack([right, np.cross(back, right), back], axis=1), eye)


def unit(vector: F64) -> F64:
    """`vector` at length 1."""
    scaled: F64 = np.asarray(vector / np.linalg.norm(vector), np.float64)
    return scaled
