"""Scenes made of boxes, for the tests of navigation: rooms, doors, furniture, storeys."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nimbusd.stages import Material, Room, Scene, SceneObject
from nimbusd.stages.types import F64, I32

Span = tuple[float, float]

# Corners are numbered x + 2 y + 4 z; faces counter-clockwise seen from outside.
_BOTTOM, _TOP = [[0, 2, 3], [0, 3, 1]], [[4, 5, 7], [4, 7, 6]]
_SIDES = [[0, 1, 5], [0, 5, 4], [2, 6, 7], [2, 7, 3], [0, 4, 6], [0, 6, 2], [1, 3, 7], [1, 7, 5]]
_FACES = np.array([*_BOTTOM, *_TOP, *_SIDES], np.int32)


class Boxes:
    """Collects axis-aligned (or turned) boxes into a scene."""

    def __init__(self) -> None:
        self.objects: list[SceneObject] = []
        self.rooms: list[Room] = []

    def box(self, category: str, x: Span, y: Span, z: Span, turn_rad: float = 0.0) -> None:
        corners = np.array([[x[i & 1], y[i >> 1 & 1], z[i >> 2]] for i in range(8)])
        middle = corners.mean(axis=0)
        c, s = np.cos(turn_rad), np.sin(turn_rad)
        T = np.eye(4)
        T[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
        T[:3, 3] = middle
        self.mesh(category, corners - middle, _FACES, T)

    def mesh(self, category: str, corners: F64, faces: I32, T_world_object: F64) -> None:
        """Add an object. corners: (N, 3) metres. faces: (M, 3) their numbers, counter-clockwise from outside."""
        number = len(self.objects) + 1
        self.objects.append(
            SceneObject(
                name=f"{category}_{number}",
                category=category,
                instance_id=number,
                vertices=corners.astype(np.float32),
                faces=faces,
                materials=(Material("plain"),),
                face_material=np.zeros(len(faces), np.int32),
                T_world_object=T_world_object,
            )
        )

    def room(self, name: str, category: str, x: Span, y: Span, z_m: float = 0.0) -> None:
        polygon = np.array([[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]]])
        self.rooms.append(Room(name, category, polygon, z_m))

    def walls(self, x: Span, y: Span, z: Span, thick: float = 0.1) -> None:
        """Four walls just outside a rectangle."""
        self.box("wall", (x[0] - thick, x[1] + thick), (y[0] - thick, y[0]), z)
        self.box("wall", (x[0] - thick, x[1] + thick), (y[1], y[1] + thick), z)
        self.box("wall", (x[0] - thick, x[0]), y, z)
        self.box("wall", (x[1], x[1] + thick), y, z)

    def scene(self, name: str = "boxes", *, rooms: bool = True) -> Scene:
        return Scene(name, tuple(self.objects), rooms=tuple(self.rooms) if rooms else ())


def empty_room(x: Span = (0.0, 5.0), y: Span = (0.0, 4.0), z_m: float = 0.0) -> Boxes:
    boxes = Boxes()
    boxes.box("floor", x, y, (z_m - 0.1, z_m))
    boxes.walls(x, y, (z_m, z_m + 2.5))
    boxes.room("living", "living_room", x, y, z_m)
    return boxes


def two_rooms(door_m: float = 0.9, floor_gap_m: float = 0.0) -> Boxes:
    """A bedroom (x 0…4) and a kitchen (x 4.1…8), both y 0…4, joined by a door in the middle of the wall.

    door_m: its width, 0 for none. floor_gap_m: width of the strip without floor under the door's wall.
    """
    boxes = Boxes()
    middle, gap = 4.05, floor_gap_m / 2
    boxes.box("floor", (0, middle - gap), (0, 4), (-0.1, 0))
    boxes.box("floor", (middle + gap, 8), (0, 4), (-0.1, 0))
    boxes.walls((0, 8), (0, 4), (0, 2.5))
    boxes.box("wall", (4, 4.1), (0, 2 - door_m / 2), (0, 2.5))
    boxes.box("wall", (4, 4.1), (2 + door_m / 2, 4), (0, 2.5))
    boxes.box("bed", (0.3, 2.2), (0.1, 1.7), (0, 0.5))
    boxes.box("table", (6, 7), (2.4, 3.2), (0.7, 0.75))
    boxes.room("bed", "bedroom", (0, 4), (0, 4))
    boxes.room("kitchen", "kitchen", (4.1, 8), (0, 4))
    return boxes


def two_storeys(*, rooms: bool) -> Scene:
    """A box house with floors at 0 and 2.8 m, a hole for stairs between them, and a flat roof."""
    boxes = Boxes()
    for z_m in (0.0, 2.8):
        boxes.walls((0, 6), (0, 5), (z_m, z_m + 2.6))
        boxes.room(f"storey_{z_m}", "living_room" if z_m == 0 else "bedroom", (0, 6), (0, 5), z_m)
    boxes.box("slab", (0, 6), (0, 5), (-0.2, 0))
    boxes.box("slab", (0, 6), (0, 4), (2.6, 2.8))
    boxes.box("slab", (0, 4), (4, 5), (2.6, 2.8))  # the stairs' hole is x 4…6, y 4…5
    boxes.box("slab", (-0.1, 6.1), (-0.1, 5.1), (5.4, 5.6))
    boxes.box("sofa", (1, 2.8), (0.1, 0.9), (0, 0.8))
    boxes.box("bed", (3, 5), (0.1, 1.7), (2.8, 3.3))
    return boxes.scene("two_storeys", rooms=rooms)


def cluttered_room(rng: np.random.Generator, count: int = 7) -> Scene:
    """A 6 x 5 m room with boxes of all sizes at all angles, thin poles and low hanging boards among them."""
    boxes = empty_room((0.0, 6.0), (0.0, 5.0))
    for _ in range(count):
        x, y = rng.uniform(0.5, 5.5), rng.uniform(0.5, 4.5)
        w, d = rng.choice([0.02, 0.4, 1.0], 2)
        low = float(rng.choice([0.0, 0.0, 0.9]))
        boxes.box(
            "chair",
            (x - w / 2, x + w / 2),
            (y - d / 2, y + d / 2),
            (low, low + rng.uniform(0.1, 1.5)),
            rng.uniform(0, 3),
        )
    return boxes.scene("cluttered", rooms=False)


def clearance_by_force(objects: Iterable[SceneObject], points_xy: F64, low_m: float, high_m: float) -> F64:
    """(N,) distance of vertical segments, low…high at each point, to the nearest box's side seen from above.

    For boxes that stand upright only: each is a rectangle, in its own frame axis-aligned. Written without the
    planner's geometry, to check it.
    """
    best = np.full(len(points_xy), np.inf)
    for obj in objects:
        half = obj.vertices.max(axis=0).astype(float)
        T = obj.T_world_object
        if T[2, 3] - half[2] > high_m or T[2, 3] + half[2] < low_m:
            continue
        local = (points_xy - T[:2, 3]) @ T[:2, :2]
        beyond = np.maximum(np.abs(local) - half[:2], 0.0)
        best = np.minimum(best, np.hypot(beyond[:, 0], beyond[:, 1]))
    return best
