"""The robot's instruction, in words that fit where it goes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from nimbusd.stages.plan.occupancy import FloorMap
from nimbusd.stages.types import F64, Scene

# What people would name as a place to go to; walls, lamps on the ceiling and small things are not.
_LANDMARKS = frozenset({
    "bed", "nightstand", "wardrobe", "dresser", "desk", "chair", "armchair", "sofa", "coffee_table", "dining_table",
    "tv", "tv_stand", "bookshelf", "cabinet", "kitchen_counter", "sink", "stove", "refrigerator", "bathtub", "toilet",
    "washbasin", "plant", "stool", "bench", "shelf", "table", "washing_machine", "shower",
})  # fmt: skip
_NEAR_M = 1.0


@dataclass(frozen=True, slots=True)
class Landmark:
    """A thing worth naming. low, high: corners of its bounding box, (3,) world metres."""

    category: str
    low: F64
    high: F64


def landmarks(scene: Scene) -> tuple[Landmark, ...]:
    """The things in a scene that an instruction can name."""
    found = []
    for obj in scene.objects:
        if obj.category in _LANDMARKS and len(obj.vertices):
            corners = obj.world_vertices()
            found.append(Landmark(obj.category, corners.min(axis=0), corners.max(axis=0)))
    return tuple(found)


def instruction(floor: FloorMap, things: tuple[Landmark, ...], start: F64, goal: F64) -> str:
    """A sentence: the thing at the goal if there is one, else the rooms, else the distance."""
    start_room, goal_room = (int(floor.room[floor.cell_of(xy)]) for xy in (start, goal))
    place = _words(floor.rooms[goal_room].category) if goal_room >= 0 else ""
    thing = _nearest(floor, things, goal)
    if thing is not None:
        return (
            f"Walk to the {_words(thing.category)} in the {place}."
            if place
            else f"Walk to the {_words(thing.category)}."
        )
    if start_room >= 0 and goal_room >= 0 and start_room != goal_room:
        origin = _words(floor.rooms[start_room].category)
        return f"Go from one {place} to another." if origin == place else f"Go from the {origin} to the {place}."
    away_m = float(np.linalg.norm(goal - start))
    return f"Navigate to the goal {away_m:.1f} m away{f' in the {place}' if place else ''}."


def _nearest(floor: FloorMap, things: tuple[Landmark, ...], goal: F64) -> Landmark | None:
    """The thing on this floor nearest to the goal, within reach, in the same room and not behind something."""
    best, best_m = None, _NEAR_M
    for thing in things:
        middle = (thing.low[:2] + thing.high[:2]) / 2
        on_floor = floor.z_m - 0.2 <= thing.low[2] <= floor.z_m + 1.2
        same_room = floor.room[floor.cell_of(middle)] == floor.room[floor.cell_of(goal)]
        away_m = float(np.linalg.norm(goal - np.clip(goal, thing.low[:2], thing.high[:2])))
        if on_floor and same_room and away_m < best_m and _in_sight(floor, thing, goal):
            best, best_m = thing, away_m
    return best


def _in_sight(floor: FloorMap, thing: Landmark, goal: F64) -> bool:
    """True where nothing else stands between the goal and the nearest side of the thing.

    Bare meshes have no rooms, so what hangs on the other side of a wall has to be told apart like this.
    """
    low, high = thing.low[:2] - floor.cell_m, thing.high[:2] + floor.cell_m  # the thing's own cells, rounded up
    side = np.clip(goal, thing.low[:2], thing.high[:2])
    steps = int(np.ceil(np.linalg.norm(side - goal) / (floor.cell_m / 2))) + 1
    way = np.linspace(goal, side, steps)
    between = way[~((way >= low) & (way <= high)).all(axis=1)]
    return not any(floor.occupancy[floor.cell_of(xy)] for xy in between)


def _words(category: str) -> str:
    """`living_room`, `LivingRoom` → `living room`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\s-]+", " ", category).strip().lower()
