"""Furnishing a flat: the doors' open leaves, a light in every room, and each room by the recipe of its kind."""

from __future__ import annotations

import numpy as np

from nimbusd.stages.load.apartment import decor
from nimbusd.stages.load.apartment.floorplan import FloorPlan, Opening, PlannedRoom
from nimbusd.stages.load.apartment.layout import RoomLayout, Spot
from nimbusd.stages.load.apartment.model import Palette
from nimbusd.stages.load.apartment.recipes import RECIPES, Brief
from nimbusd.stages.load.apartment.shell import Standing, door_leaf

_LEAF_ROOMS = ("bedroom", "bathroom", "study")


def furnish(
    plan: FloorPlan, palette: Palette, rng: np.random.Generator, *, height_m: float, density: float
) -> tuple[list[RoomLayout], list[Standing]]:
    """Furnish every room. Returns the rooms' layouts, and the open door leaves."""
    kinds = {room.kind for room in plan.rooms}
    dining = next(kind for kind in ("dining_room", "kitchen", "living_room") if kind in kinds)
    layouts, leaves = [], []
    open_doors: dict[str, list[Standing]] = {}
    for room, room_rng in zip(plan.rooms, rng.spawn(len(plan.rooms)), strict=True):
        openings = tuple(o for o in plan.openings if room.name in o.rooms)
        layout = RoomLayout(room, openings, height_m)
        if room.kind in _LEAF_ROOMS:
            open_doors[room.name] = _hang_leaves(layout, room, openings, set(open_doors))
            leaves += open_doors[room.name]
        _light(layout, palette, room_rng)
        RECIPES[room.kind](Brief(layout, palette, room_rng, density, room.kind == dining))
        layouts.append(layout)
    return layouts, leaves


def _hang_leaves(
    layout: RoomLayout, room: PlannedRoom, openings: tuple[Opening, ...], done: set[str]
) -> list[Standing]:
    """Open leaves for the room's doors, except where one would stand in another opening's way."""
    leaves = []
    for opening in openings:
        if opening.kind != "door" or done & set(opening.rooms):
            continue
        leaf, rect = door_leaf(opening, room)
        others = [o.zone(0.5 if o.kind == "window" else 1.0) for o in openings if o is not opening]
        taken = [r for r, _, _ in layout.blocked]
        if not layout.inside.contains(rect) or any(rect.overlaps(r) for r in (*others, *taken)):
            continue
        layout.blocked.append((rect, 0.0, opening.head_m))
        leaves.append(leaf)
    return leaves


def _light(layout: RoomLayout, palette: Palette, rng: np.random.Generator) -> None:
    """One ceiling lamp, two in long rooms."""
    inside = layout.inside
    long = max(inside.width, inside.depth) > 4.8
    lamp = decor.ceiling_lamp(palette, rng, ceiling_m=layout.height_m).centred()
    for share in (0.27, 0.73) if long else (0.5,):
        along_x = inside.width >= inside.depth
        x = inside.x0 + (share if along_x else 0.5) * inside.width
        y = inside.y0 + (0.5 if along_x else share) * inside.depth
        layout.put(lamp, Spot(x, y, 0.0))
