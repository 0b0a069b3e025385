"""Rigid poses as rows of numbers, for formats that store them so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nimbusd.stages.types import F64

OPENGL_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""`T_opengl_opencv` of one camera: x right in both; y down and z forward in OpenCV's axes."""


def pose_rows(T: npt.ArrayLike) -> F64:
    """(T, 4, 4) transforms as (T, 7) rows: position x y z, unit quaternion w x y z.

    Of the two quaternions of a rotation the first row has the one with w >= 0, every other the one nearer to the row
    before, so that no row jumps where the motion does not.
    """
    transforms = np.asarray(T, np.float64)
    quaternions = _quaternions(transforms[:, :3, :3])
    if quaternions[0, 0] < 0:
        quaternions[0] *= -1
    turns = np.sign(np.sum(quaternions[1:] * quaternions[:-1], axis=1))
    quaternions[1:] *= np.cumprod(np.where(turns < 0, -1.0, 1.0))[:, None]
    return np.concatenate([transforms[:, :3, 3], quaternions], axis=1)


def transforms_of(rows: npt.ArrayLike) -> F64:
    """Inverse of `pose_rows`: (T, 7) to (T, 4, 4)."""
    values = np.asarray(rows, np.float64)
    w, x, y, z = (values[:, 3:] / np.linalg.norm(values[:, 3:], axis=1, keepdims=True)).T
    T = np.tile(np.eye(4), (len(values), 1, 1))
    T[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], axis=1)
    T[:, 1, :3] = np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], axis=1)
    T[:, 2, :3] = np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=1)
    T[:, :3, 3] = values[:, :3]
    return T


def euler_rows(T: npt.ArrayLike) -> F64:
    """(T, 4, 4) transforms as (T, 6) rows: x y z roll pitch yaw, turns about the fixed x, then y, then z axis (rad)."""
    transforms = np.asarray(T, np.float64)
    # Contiguous: the last bits of a strided `arctan2` depend on where its memory lies (docs/conventions.md).
    R = np.ascontiguousarray(np.moveaxis(transforms[:, :3, :3], 0, 2))
    pitch = np.arctan2(-R[2, 0], np.hypot(R[0, 0], R[1, 0]))
    level = np.hypot(R[0, 0], R[1, 0]) > 1e-9  # else roll and yaw turn about one line: all of it is yaw
    roll = np.where(level, np.arctan2(R[2, 1], R[2, 2]), 0.0)
    yaw = np.where(level, np.arctan2(R[1, 0], R[0, 0]), np.arctan2(-R[0, 1], R[1, 1]))
    return np.concatenate([transforms[:, :3, 3], np.unwrap(np.stack([roll, pitch, yaw], axis=1), axis=0)], axis=1)


def inverse(T: npt.ArrayLike) -> F64:
    """Inverses of rigid (…, 4, 4) transforms."""
    transforms = np.asarray(T, np.float64)
    R = np.swapaxes(transforms[..., :3, :3], -1, -2)
    result = np.zeros_like(transforms)
    result[..., :3, :3] = R
    result[..., :3, 3] = -np.einsum("...ij,...j->...i", R, transforms[..., :3, 3])
    result[..., 3, 3] = 1
    return result


def _quaternions(R: F64) -> F64:
    """(T, 3, 3) rotations as (T, 4) quaternions, by the largest of the four components (no division by little)."""
    m00, m11, m22 = R[:, 0, 0], R[:, 1, 1], R[:, 2, 2]
    squares = np.stack([1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22], axis=1)
    a, b, c = R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]
    d, e, f = R[:, 1, 0] + R[:, 0, 1], R[:, 0, 2] + R[:, 2, 0], R[:, 2, 1] + R[:, 1, 2]
    candidates = np.stack(
        [
            np.stack([squares[:, 0], a, b, c], axis=1),
            np.stack([a, squares[:, 1], d, e], axis=1),
            np.stack([b, d, squares[:, 2], f], axis=1),
            np.stack([c, e, f, squares[:, 3]], axis=1),
        ],
        axis=1,
    )
    chosen = candidates[np.arange(len(R)), np.argmax(squares, axis=1)]
    return np.asarray(chosen / np.linalg.norm(chosen, axis=1, keepdims=True))
