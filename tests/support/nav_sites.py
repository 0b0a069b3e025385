"""Large scenes made of boxes, for the tests of navigation: a building of many rooms, a site of many buildings."""

from __future__ import annotations

import numpy as np

from nimbusd.stages import Scene
from tests.support.nav_scenes import Boxes, Span

STOREY_M = 3.2
SLAB_M = 0.3
ROOM_X_M, ROOM_Y_M, HALL_M, DOOR_M = 10.0, 12.0, 2.4, 1.0


def building(storeys: int = 3, rooms_a_side: int = 8, things_a_room: int = 14) -> Scene:
    """Storeys of offices on both sides of a hall, each with a door to it, and a hole for stairs at the hall's end.

    8 rooms on each side make 80 x 26.4 m, with 3 storeys and 14 things in a room some 10,000 triangles.
    """
    boxes, rng = Boxes(), np.random.default_rng(0)
    length, width = rooms_a_side * ROOM_X_M, 2 * ROOM_Y_M + HALL_M
    for storey in range(storeys):
        z_m = storey * STOREY_M
        top = z_m + STOREY_M - SLAB_M
        hole_x = length - 2.0 if storey else length
        boxes.box("floor", (0, hole_x), (0, width), (z_m - SLAB_M, z_m))
        if storey:
            boxes.box("floor", (hole_x, length), (0, ROOM_Y_M + 0.4), (z_m - SLAB_M, z_m))
            boxes.box("floor", (hole_x, length), (ROOM_Y_M + HALL_M - 0.4, width), (z_m - SLAB_M, z_m))
        boxes.walls((0, length), (0, width), (z_m, top), thick=0.2)
        for column in range(rooms_a_side):
            x = (column * ROOM_X_M, (column + 1) * ROOM_X_M)
            for y, wall_y in (
                ((0.0, ROOM_Y_M), (ROOM_Y_M, ROOM_Y_M + 0.1)),
                ((ROOM_Y_M + HALL_M, width), (ROOM_Y_M + HALL_M - 0.1, ROOM_Y_M + HALL_M)),
            ):
                _office(boxes, rng, x, y, wall_y, (z_m, top), things_a_room)
    boxes.box("roof", (-0.2, length + 0.2), (-0.2, width + 0.2), (storeys * STOREY_M - SLAB_M, storeys * STOREY_M))
    return boxes.scene("building", rooms=False)


def _office(boxes: Boxes, rng: np.random.Generator, x: Span, y: Span, wall_y: Span, z: Span, things: int) -> None:
    door = x[0] + 4.0
    boxes.box("wall", (x[0], door), wall_y, z)
    boxes.box("wall", (door + DOOR_M, x[1]), wall_y, z)
    boxes.box("wall", (x[1] - 0.1, x[1]), y, z)
    for _ in range(things):
        across = rng.uniform(0.05, 0.8, 2)
        at = rng.uniform((x[0] + 1.0, y[0] + 1.0), (x[1] - 1.1, y[1] - 1.0))
        low = z[0] + float(rng.choice([0.0, 0.0, 0.7]))
        boxes.box(
            "chair",
            (at[0] - across[0], at[0] + across[0]),
            (at[1] - across[1], at[1] + across[1]),
            (low, low + float(rng.uniform(0.1, 0.9))),
            float(rng.uniform(0, 3)),
        )


def site(length_m: float = 320.0, width_m: float = 180.0, buildings: int = 60, things: int = 400) -> Scene:
    """A plain with solid buildings and things that stand and lie about, without rooms or a roof over it."""
    boxes, rng = Boxes(), np.random.default_rng(1)
    boxes.box("ground", (0, length_m), (0, width_m), (-0.5, 0))
    for _ in range(buildings):
        across = rng.uniform(3, 14, 2)
        at = rng.uniform((15, 15), (length_m - 15, width_m - 15))
        boxes.box(
            "building",
            (at[0] - across[0] / 2, at[0] + across[0] / 2),
            (at[1] - across[1] / 2, at[1] + across[1] / 2),
            (0, float(rng.uniform(3, 20))),
            float(rng.choice([0.0, rng.uniform(0, 3)])),
        )
    for _ in range(things):
        half = rng.uniform(0.1, 1.0)
        at = rng.uniform((2, 2), (length_m - 2, width_m - 2))
        boxes.box(
            "crate", (at[0] - half, at[0] + half), (at[1] - half, at[1] + half), (0, float(rng.uniform(0.1, 2.5)))
        )
    return boxes.scene("site", rooms=False)
