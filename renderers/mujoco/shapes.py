"""Triangles of MuJoCo's round and flat shapes, cut as finely as its own drawing cuts them.

Light is computed at corners and blended between them, so that the same cut gives the same picture. Shapes are given at
their full size in the geom's own frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nimbusd.stages.types import F64, I32


@dataclass(frozen=True)
class Corners:
    """Triangles by their corners. positions, normals: (C, 3). uv: (C, 2), in 0…1 over the shape. faces: (F, 3)."""

    positions: F64
    normals: F64
    uv: F64
    faces: I32


@dataclass(frozen=True)
class Cut:
    """Numbers of parts that shapes are cut into: squares along a box's edge, slices around an axis, stacks along it."""

    quads: int
    slices: int
    stacks: int


def box(size: F64, cut: Cut) -> Corners:
    """A box with half edges `size`."""
    v, u = np.meshgrid(np.arange(cut.quads + 1) / cut.quads, np.arange(cut.quads + 1) / cut.quads, indexing="ij")
    sides = []
    for axis in range(3):
        for sign in (1, -1):
            across, up = [other for other in range(3) if other != axis]
            points = np.empty((*u.shape, 3))
            points[..., axis], points[..., across], points[..., up] = sign, 2 * u - 1, 2 * v - 1
            normals = np.zeros_like(points)
            normals[..., axis] = sign
            # Seen from outside, x × y is +z and y × z is +x, but x × z is -y.
            turned = (sign < 0) != (axis == 1)
            sides.append(_grid(points * size, normals, np.stack([u, 1 - v], axis=-1), turned))
    return _joined(sides)


def plane(size: F64, spacing_m: float, cut: Cut) -> Corners:
    """A rectangle with half edges `size[:2]` that looks along +z, in squares of about twice `spacing_m`."""
    lines = [np.linspace(-1, 1, 1 + max(cut.quads, min(200, math.ceil(edge / max(spacing_m, 1e-3))))) for edge in size]
    y, x = np.meshgrid(lines[1], lines[0], indexing="ij")
    normals = np.zeros((*x.shape, 3))
    normals[..., 2] = 1
    points = np.stack([x * size[0], y * size[1], np.zeros_like(x)], axis=-1)
    return _grid(points, normals, np.stack([(x + 1) / 2, (1 - y) / 2], axis=-1))


def cylinder(size: F64, cut: Cut) -> Corners:
    """A closed cylinder around z. size: radius, radius, half its height."""
    sides = [_tube(size, cut)]
    for sign in (-1, 1):
        rings = np.arange(cut.stacks // 2 + 1) / (cut.stacks // 2)
        r, turn = np.meshgrid(rings[::-sign], _turns(cut), indexing="ij")
        points = np.stack([np.cos(turn) * r, np.sin(turn) * r, np.full_like(r, sign)], axis=-1)
        normals = np.zeros_like(points)
        normals[..., 2] = sign
        sides.append(_grid(points * size, normals, 0.5 + 0.5 * points[..., :2]))
    return _joined(sides)


def ellipsoid(size: F64, cut: Cut) -> Corners:
    """A sphere of radius 1, stretched to half axes `size`."""
    half = cut.stacks // 2
    return _dome(size, np.arange(-half, half + 1) / half, cut, 0.0, (0.5, 0.5))


def capsule(size: F64, cut: Cut) -> Corners:
    """A capsule around z. size: radius, radius, half the length of its straight part."""
    half = cut.stacks // 4
    ball = np.array([size[0], size[1], (size[0] + size[1]) / 2])
    steps = np.arange(half + 1) / half
    return _joined(
        [_tube(size, cut), _dome(ball, steps, cut, size[2], (1, 1)), _dome(ball, steps - 1, cut, -size[2], (0, 1))]
    )


def _tube(size: F64, cut: Cut) -> Corners:
    height, turn = np.meshgrid(2 * np.arange(cut.stacks + 1) / cut.stacks - 1, _turns(cut), indexing="ij")
    points = np.stack([np.cos(turn), np.sin(turn), height], axis=-1)
    normals = points * [1, 1, 0]
    return _grid(points * size, normals / size, np.stack([turn / (2 * np.pi), (1 - height) / 2], axis=-1))


def _dome(size: F64, latitudes: F64, cut: Cut, lift_m: float, v: tuple[float, float]) -> Corners:
    """Part of a ball. latitudes: from -1 at the south pole to 1. v: at the equator, and its fall to the north."""
    rise, turn = np.meshgrid(latitudes * np.pi / 2, _turns(cut), indexing="ij")
    points = np.stack([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)], axis=-1)
    uv = np.stack([turn / (2 * np.pi), v[0] - v[1] * rise / (np.pi / 2)], axis=-1)
    return _grid(points * size + [0, 0, lift_m], points / size, uv)


def _turns(cut: Cut) -> F64:
    return np.asarray(2 * np.pi * np.arange(cut.slices + 1) / cut.slices)


def _grid(points: F64, normals: F64, uv: F64, turned: bool = False) -> Corners:
    """Squares between rows and columns of points (R, C, 3), two triangles each; `turned` looks the other way."""
    if turned:
        points, normals, uv = points[::-1], normals[::-1], uv[::-1]
    rows, columns = points.shape[:2]
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
    faces = np.stack([np.stack([a, b, d], axis=-1), np.stack([b, c, d], axis=-1)], axis=2).reshape(-1, 3)
    lengths = np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return Corners(points.reshape(-1, 3), (normals / lengths).reshape(-1, 3), uv.reshape(-1, 2), faces.astype(np.int32))


def _joined(parts: list[Corners]) -> Corners:
    starts = np.cumsum([0, *(len(part.positions) for part in parts[:-1])])
    return Corners(
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.uv for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]).astype(np.int32),
    )
