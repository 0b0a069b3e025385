"""Random simple polygons with holes, whose area is known, in the plane and turned in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nimbusd.stages.types import F64


@dataclass(frozen=True)
class Outline:
    """points: (N, 2) counter-clockwise, each hole walked clockwise over a bridge. area: of what is inside."""

    points: F64
    area: float


def signed_area(points: F64) -> float:
    x, y = points.T
    return float(0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def star(rng: np.random.Generator, size: int, radius: float = 1.0) -> F64:
    """A simple polygon around the origin: corners at rising angles, at any distance between 0.15 and 1 of `radius`."""
    angles = (np.arange(size) + rng.uniform(0.05, 0.95, size)) * 2 * np.pi / size
    return np.asarray(np.stack([np.cos(angles), np.sin(angles)], 1) * (radius * rng.uniform(0.15, 1.0, (size, 1))))


def comb(rng: np.random.Generator, teeth: int) -> F64:
    """A wall with `teeth` doors that reach its foot, in one piece; every corner is on a grid, many are in line."""
    height, top = int(rng.integers(2, 5)), int(rng.integers(5, 7))
    points: list[tuple[int, int]] = [(0, 0)]
    for door in range(teeth):
        x = 1 + 2 * door
        points += [(x, 0), (x, height), (x + 1, height), (x + 1, 0)]
    width = 2 * teeth + 1
    return np.array([*points, (width, 0), (width, top), (0, top)], np.float64)


def wall_with_windows(rng: np.random.Generator, windows: int) -> Outline:
    """A rectangle with holes, each reached over a bridge from the foot of the wall."""
    width, height = 2 * windows + 1, float(rng.integers(3, 6))
    points: list[tuple[float, float]] = [(0, 0)]
    area = width * height
    for number in range(windows):
        low, high = rng.uniform(0.5, 1.0), rng.uniform(1.5, height - 0.5)
        x = 1 + 2 * number
        points += [(x, 0), (x, low), (x, high), (x + 1, high), (x + 1, low), (x, low), (x, 0)]
        area -= high - low
    return Outline(np.array([*points, (width, 0), (width, height), (0, height)], np.float64), area)


def outline(rng: np.random.Generator) -> Outline:
    """Any of them."""
    kind = int(rng.integers(4))
    if kind == 0:
        points = star(rng, int(rng.integers(4, 14)))
    elif kind == 1:
        points = comb(rng, int(rng.integers(1, 4)))
    elif kind == 2:
        return wall_with_windows(rng, int(rng.integers(1, 4)))
    else:
        size = int(rng.integers(4, 9))
        angles = np.arange(size) * 2 * np.pi / size
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.5, 2)
    points = np.roll(points, int(rng.integers(len(points))), axis=0)
    return Outline(points, signed_area(points))
