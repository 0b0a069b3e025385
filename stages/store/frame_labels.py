"""Labels of frames, for any camera: boxes from instance ids, and where points of the world lie in the image.

Pixel coordinates as everywhere: u to the right, v down, the centre of the top-left pixel at (0.5, 0.5). A box
[u0, v0, u1, v1] runs along pixel edges, so that a single pixel in column i and row j is [i, j, i + 1, j + 1].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nimbusd.stages.types import F32, F64, U16, BoolArray, Camera

NEAREST_M = 0.01
"""Points nearer to the camera than this (or behind it) have no place in the image."""
OCCLUSION_M = 0.02
"""A point is hidden if what is seen at its pixel is nearer than it by more than this."""


@dataclass(frozen=True, slots=True)
class Box:
    """One instance in one frame. box: u0, v0, u1, v1. pixels: how many are its own."""

    instance_id: int
    box: tuple[int, int, int, int]
    pixels: int


def boxes(instance: U16) -> list[Box]:
    """Of every instance in a frame of ids (H, W), by ascending id; background has none."""
    height, width = instance.shape
    pixels = np.bincount(instance.ravel())
    ids = np.flatnonzero(pixels)
    number = np.zeros(len(pixels), np.intp)
    number[ids] = np.arange(len(ids))
    places = number[instance]
    rows = np.bincount((np.arange(height)[:, None] * len(ids) + places).ravel(), minlength=height * len(ids))
    columns = np.bincount((np.arange(width)[None, :] * len(ids) + places).ravel(), minlength=width * len(ids))
    by_row, by_column = rows.reshape(height, len(ids)), columns.reshape(width, len(ids))
    found = []
    for place, instance_id in enumerate(ids):
        if instance_id == 0:
            continue
        used_v, used_u = np.flatnonzero(by_row[:, place]), np.flatnonzero(by_column[:, place])
        edges = (int(used_u[0]), int(used_v[0]), int(used_u[-1]) + 1, int(used_v[-1]) + 1)
        found.append(Box(int(instance_id), edges, int(pixels[instance_id])))
    return found


def inner_point(instance: U16, instance_id: int) -> tuple[float, float]:
    """A pixel centre (u, v) that shows the instance: of its pixels the one nearest to their centre of mass.

    Raises ValueError if the frame does not show it.
    """
    v, u = np.nonzero(instance == instance_id)
    if not len(u):
        raise ValueError(f"instance {instance_id} is not in this frame")
    nearest = np.argmin((u - u.mean()) ** 2 + (v - v.mean()) ** 2)
    return float(u[nearest]) + 0.5, float(v[nearest]) + 0.5


def project(camera: Camera, T_world_camera: F64, points: npt.ArrayLike) -> tuple[F64, F64]:
    """Project world points (N, 3): pixels (N, 2) and depths (N,) along the optical axis.

    T_world_camera: (4, 4), OpenGL axes. A point nearer than NEAREST_M, or behind the camera, has pixel NaN.
    """
    T = np.asarray(T_world_camera, np.float64)
    local = (np.asarray(points, np.float64).reshape(-1, 3) - T[:3, 3]) @ T[:3, :3]
    depth = -local[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        u = camera.cx + camera.fx * local[:, 0] / depth
        v = camera.cy - camera.fy * local[:, 1] / depth
    pixels = np.stack([u, v], axis=1)
    pixels[depth < NEAREST_M] = np.nan
    return pixels, depth


def inside(camera: Camera, pixels: F64) -> BoolArray:
    """(N,) True for those of the pixels (N, 2) that lie in the image."""
    with np.errstate(invalid="ignore"):
        return np.asarray(
            (pixels[:, 0] >= 0) & (pixels[:, 0] < camera.width) & (pixels[:, 1] >= 0) & (pixels[:, 1] < camera.height)
        )


def visible(camera: Camera, pixels: F64, depths: F64, seen_m: F32 | None) -> list[bool | None]:
    """True for points that can be seen: in the image and not hidden. None: in the image, without depth to judge by."""
    result: list[bool | None] = []
    for pixel, depth, within in zip(pixels, depths, inside(camera, pixels), strict=True):
        if not within:
            result.append(False)
        elif seen_m is None:
            result.append(None)
        else:
            surface = float(seen_m[int(pixel[1]), int(pixel[0])])
            result.append(bool(surface == 0 or surface > depth - OCCLUSION_M))
    return result


def rounded(values: Iterable[float], digits: int = 2) -> list[float] | None:
    """Numbers for JSON; None if any is not finite."""
    numbers = [float(value) for value in values]
    return [round(number, digits) for number in numbers] if np.isfinite(numbers).all() else None
