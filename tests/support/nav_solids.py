"""Scenes with closed solids of all kinds, for the tests of navigation: a robot must never be inside one.

Every solid is a hollow mesh over a footprint. Whether a path touches it is asked of the footprint, not of the mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely

from nimbusd.stages import Scene
from nimbusd.stages.types import F64
from tests.support.nav_scenes import Boxes, Span, empty_room

KINDS = (
    "box",
    "cylinder",
    "nested",
    "l_shape",
    "cabinets",
    "thick_wall",
    "bottomless",
    "inside_out",
    "loose_faces",
    "mirrored",
)


@dataclass(frozen=True)
class Solid:
    """The inside of a closed mesh: a footprint from one height to another."""

    footprint: shapely.Polygon
    z: Span

    def distance_m(self, path_xy: F64, band_m: Span) -> float:
        """From a polyline to the footprint, 0 inside; infinite where the solid is below or above the robot."""
        if self.z[1] < band_m[0] or self.z[0] > band_m[1]:
            return float("inf")
        return float(shapely.distance(self.footprint, shapely.linestrings(path_xy)))


@dataclass(frozen=True)
class SolidScene:
    """A scene and the solids in it."""

    scene: Scene
    solids: tuple[Solid, ...]

    def distance_m(self, path_xy: F64, band_m: Span) -> float:
        return min((solid.distance_m(path_xy, band_m) for solid in self.solids), default=float("inf"))


class SolidBoxes(Boxes):
    """Boxes, and hollow prisms over any outline that its first corner sees all of."""

    def __init__(self) -> None:
        super().__init__()
        self.solids: list[Solid] = []

    def prism(
        self,
        outline: F64,
        z: Span,
        *,
        bottom: bool = True,
        inside_out: bool = False,
        loose: bool = False,
        mirrored: bool = False,
        category: str = "thing",
    ) -> None:
        """outline: (N, 2) world metres, counter-clockwise. loose: each face is an object of its own."""
        count = len(outline)
        corners = np.concatenate([np.column_stack([outline, np.full(count, level)]) for level in z])
        caps = [[0, i, i + 1] for i in range(1, count - 1)]
        faces = [[a + count, b + count, c + count] for a, b, c in caps]
        faces += [[a, c, b] for a, b, c in caps] if bottom else []
        for i in range(count):
            j = (i + 1) % count
            faces += [[i, j, j + count], [i, j + count, i + count]]
        array = np.array(faces, np.int32)
        T = np.eye(4)
        if mirrored:
            T[0, 0] = -1.0
            corners[:, 0] *= -1.0
            array = array[:, ::-1]
        if inside_out:
            array = array[:, ::-1]
        for part in array[:, None] if loose else [array]:
            self.mesh(category, corners, np.ascontiguousarray(part), T)
        self.solids.append(Solid(shapely.Polygon(outline), z))

    def plane(self, category: str, corners: Sequence[Sequence[float]]) -> None:
        """A single face with four corners, counter-clockwise as seen from where it looks to."""
        self.mesh(category, np.array(corners, float), np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.eye(4))


def rectangle(x: Span, y: Span, turn_rad: float = 0.0) -> F64:
    """(4, 2) corners, turned around the middle."""
    middle = np.array([sum(x), sum(y)]) / 2
    corners = np.array([[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]]]) - middle
    c, s = np.cos(turn_rad), np.sin(turn_rad)
    return np.asarray(corners @ np.array([[c, s], [-s, c]]) + middle)


def ground(kind: str, size_m: float) -> SolidBoxes:
    """The ground of solids: an open floor, or a room with a ceiling, of closed boxes or of single faces."""
    boxes, low, high = SolidBoxes(), 0.0, size_m
    if kind == "slab":
        boxes.box("floor", (low, high), (low, high), (-0.2, 0))
    elif kind == "sheet":
        boxes.plane("floor", [(low, low, 0), (high, low, 0), (high, high, 0), (low, high, 0)])
    elif kind == "room":
        room = empty_room((low, high), (low, high))
        boxes.objects = room.objects
        boxes.box("ceiling", (low - 0.1, high + 0.1), (low - 0.1, high + 0.1), (2.5, 2.6))
    else:
        assert kind == "shell", kind
        boxes.plane("floor", [(low, low, 0), (high, low, 0), (high, high, 0), (low, high, 0)])
        boxes.plane("ceiling", [(low, low, 2.6), (low, high, 2.6), (high, high, 2.6), (high, low, 2.6)])
        ring = [(low, low), (high, low), (high, high), (low, high), (low, low)]
        for (ax, ay), (bx, by) in pairwise(ring):
            boxes.plane("wall", [(bx, by, 0), (ax, ay, 0), (ax, ay, 2.6), (bx, by, 2.6)])
    return boxes


GROUNDS = ("slab", "sheet", "room", "shell")


def solid_scene(number: int) -> SolidScene:
    """One of endlessly many scenes: 1 to 4 solids of random kinds and sizes on a floor of 10 to 16 m."""
    rng = np.random.default_rng([42, number])
    size_m = float(rng.uniform(10, 16))
    boxes = ground(GROUNDS[number % len(GROUNDS)], size_m)
    top = 2.4 if GROUNDS[number % len(GROUNDS)] in ("room", "shell") else 6.0
    for turn in range(int(rng.integers(1, 5))):
        kind = KINDS[(number // len(GROUNDS) + turn) % len(KINDS)]
        at = rng.uniform(2.5, size_m - 2.5, 2)
        z = (float(rng.choice([0.0, 0.0, -0.05])), float(rng.uniform(1.3, top)))
        _add(boxes, kind, at, z, rng)
    return SolidScene(boxes.scene(f"solids_{number}", rooms=False), tuple(boxes.solids))


def _add(boxes: SolidBoxes, kind: str, at: F64, z: Span, rng: np.random.Generator) -> None:
    half = rng.uniform(0.8, 2.0, 2)
    x, y = (float(at[0] - half[0]), float(at[0] + half[0])), (float(at[1] - half[1]), float(at[1] + half[1]))
    turn = float(rng.choice([0.0, rng.uniform(0, np.pi)]))
    if kind == "cylinder":
        angle = np.linspace(0, 2 * np.pi, int(rng.integers(8, 40)), endpoint=False)
        boxes.prism(at + half[0] * np.stack([np.cos(angle), np.sin(angle)], axis=1), z)
    elif kind == "nested":
        boxes.prism(rectangle(x, y, turn), z)
        for part in (0.9, float(rng.uniform(0.3, 0.6))):
            inner = at + part * (rectangle(x, y, turn) - at)
            boxes.prism(inner, (z[0], z[1] * (0.99 if part == 0.9 else 0.95)))
    elif kind == "l_shape":
        inner = at + rng.uniform(-0.3, 0.3, 2)
        corners = [inner, (inner[0], y[1]), (x[0], y[1]), (x[0], y[0]), (x[1], y[0]), (x[1], inner[1])]
        boxes.prism(np.array(corners, float), z)
    elif kind == "cabinets":
        for i in range(int(rng.integers(2, 5))):
            boxes.prism(rectangle((x[0] + 0.9 * i, x[0] + 0.9 * (i + 1)), y), z)
    elif kind == "thick_wall":
        boxes.prism(rectangle((x[0], x[1] + 1.0), (float(at[1]) - 0.45, float(at[1]) + 0.45), turn), z, category="wall")
    else:
        boxes.prism(
            rectangle(x, y, turn),
            z,
            bottom=kind != "bottomless",
            inside_out=kind == "inside_out",
            loose=kind == "loose_faces",
            mirrored=kind == "mirrored",
        )
