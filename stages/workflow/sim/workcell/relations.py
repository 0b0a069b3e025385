"""Spatial relations: which hold now, and places where an object would make one hold.

Directions are those of the robot that looks over the table: left is +y of its base, right is -y, behind is farther
away (+x), in front of is nearer (-x). Both halves of each relation share their numbers, so that a pose that was drawn
for a relation fulfils it with room to spare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.layout.layout import RegionLayout, RelationLayout
from nimbusd.stages.workflow.sim.workcell.containers import container
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell

DIRECTIONS = {"left_of": (0, 1), "right_of": (0, -1), "behind": (1, 0), "in_front_of": (-1, 0)}
KINDS = (*DIRECTIONS, "near", "on", "in", "open", "closed", "pressed", "turned", "lifted", "moved")
"""Every relation that goals may name; those from `open` on speak of the subject alone."""

JOINT_SHAPES = {"open": ("drawer", "door"), "closed": ("drawer", "door"), "pressed": ("button",), "turned": ("knob",)}
"""Relations of fixtures → shapes that they are said of."""

WORDS = {"left_of": "to the left of", "right_of": "to the right of", "behind": "behind", "in_front_of": "in front of",
         "near": "next to", "on": "on", "in": "in"}  # fmt: skip

_FAR_M = 0.32
_SIDEWAYS = 0.6
_STANDS_M = 0.015
_BELOW_RIM_M = 0.02
_GAP_M = (0.04, 0.12)
_WALL_SPARE_M = 0.008


@dataclass(frozen=True)
class Footprint:
    """An upright bounding box in the world. centre: x, y. half: of its edges. low, high: z."""

    centre: F64
    half: F64
    low: float
    high: float

    @classmethod
    def of(cls, vertices: F64) -> Footprint:
        least, most = vertices.min(axis=0), vertices.max(axis=0)
        return cls((least + most)[:2] / 2, (most - least)[:2] / 2, float(least[2]), float(most[2]))


class Spot(NamedTuple):
    """A place to put an object. position: (3,) of its bounding box's lowest centre point. support: what it rests on."""

    position: F64
    support: set[str]


def holds(cell: Workcell, relation: RelationLayout) -> bool:
    """True where a relation holds now. Raises PlanningFailed('precondition') for an unknown kind or name."""
    kind = relation.kind
    entry = cell.object(relation.subject)
    if kind in JOINT_SHAPES:
        if entry.definition.shape not in JOINT_SHAPES[kind]:
            raise PlanningFailed("precondition", f"a {entry.category} is never {kind}")
        return _joint_holds(cell, entry.name, kind)
    subject = Footprint.of(cell.vertices(entry.name))
    table = cell.layout.table.height_m
    if kind == "lifted":
        return subject.low > table + 0.05
    if kind == "moved":
        return bool(np.linalg.norm(subject.centre - np.asarray(entry.pose.position[:2])) > 0.03)
    region = cell.region(relation.reference)
    if region is not None:
        offset = region.pose.matrix()[:2, :2].T @ (subject.centre - np.asarray(region.pose.position[:2]))
        return bool((np.abs(offset) <= np.asarray(region.size_m) / 2).all()) and subject.low < table + _STANDS_M
    reference = Footprint.of(cell.vertices(cell.object(relation.reference).name))
    if kind in DIRECTIONS:
        along, across = _components(cell, subject.centre - reference.centre, kind)
        standing = subject.low < table + _STANDS_M
        return 0.03 < along < _FAR_M and abs(across) < _SIDEWAYS * along and standing
    if kind == "near":
        gap = np.linalg.norm(np.maximum(np.abs(subject.centre - reference.centre) - subject.half - reference.half, 0))
        return bool(gap < 0.1) and subject.low < table + _STANDS_M
    if kind == "on":
        over = bool((np.abs(subject.centre - reference.centre) < reference.half).all())
        return (
            over
            and abs(subject.low - reference.high) < _STANDS_M
            and relation.reference in cell.simulation.touches(entry.name)
        )
    if kind == "in":
        return _inside(cell, relation)
    raise PlanningFailed("precondition", f"relation {kind!r} does not exist; there are {', '.join(KINDS)}")


_REST_SPEED, _REST_STEPS = 0.03, 6
"""m/s or rad/s that count as none, and control steps that it is looked for in."""


def settled(cell: Workcell, name: str) -> bool:
    """True where an object has come to rest: it has no speed, or none that took it anywhere in the last steps.

    A box that lies across the edge of a bin trembles for ever, by micrometres.
    """
    seconds = _REST_STEPS / cell.layout.physics.fps
    return (
        cell.simulation.speed_of(name) < _REST_SPEED
        or cell.simulation.wandered(name, _REST_STEPS) < _REST_SPEED * seconds
    )


def resting_spots(cell: Workcell, subject: str, relation: RelationLayout, tries: int) -> Iterator[Spot]:
    """Places for an object that make a relation true, drawn from the cell's generator, clear of other footprints.

    In a container in which there is no room left they are on top of what lies there.
    Raises PlanningFailed('precondition') where the relation is none that placing can bring about.
    """
    table, radius = cell.layout.table, float(np.linalg.norm(Footprint.of(cell.vertices(subject)).half))
    inside = relation.kind in ("in", "on") and cell.region(relation.reference) is None
    others = [
        Footprint.of(cell.vertices(entry.name))
        for entry in cell.layout.objects
        if entry.name not in (subject, relation.reference if inside else "")
    ]

    def is_free(x_y: F64, ground: float) -> bool:
        on_table = np.abs(x_y - np.asarray(table.centre)) + radius < np.asarray(table.size_m) / 2
        above = [other for other in others if other.high > ground + 0.002]
        return bool(on_table.all()) and not any(_near(x_y, radius, other) for other in above)

    for spot in _drawn_spots(cell, subject, relation, radius, others, tries):
        if spot is not None and is_free(spot.position[:2], float(spot.position[2])):
            yield spot


def _drawn_spots(
    cell: Workcell, subject: str, relation: RelationLayout, radius: float, others: list[Footprint], tries: int
) -> Iterator[Spot | None]:
    """Places that the relation allows, free or not; None where a container has no floor that is open."""
    region = cell.region(relation.reference)
    reference = None if region else Footprint.of(cell.vertices(cell.object(relation.reference).name))
    for number in range(tries):
        if region is not None:
            yield _draw_in_region(cell, region, radius)
        elif relation.kind == "in":
            late = number >= tries // 2  # no free floor left: on top of what lies there already
            yield _draw_in_container(cell, subject, relation.reference, radius, others, late)
        elif reference is not None:
            yield _draw_beside(cell, relation, reference, radius)


def _draw_in_region(cell: Workcell, region: RegionLayout, radius: float) -> Spot:
    room = np.maximum(np.asarray(region.size_m) / 2 - 0.6 * radius, 0.005)
    x_y = np.add(region.pose.position[:2], region.pose.matrix()[:2, :2] @ cell.rng.uniform(-room, room))
    return Spot(np.array([*x_y, cell.layout.table.height_m]), {"table", region.name})


def _draw_beside(cell: Workcell, relation: RelationLayout, reference: Footprint, radius: float) -> Spot:
    """A place next to the reference in the relation's direction, or on it."""
    rng, kind, support = cell.rng, relation.kind, "table"
    ground: float = cell.layout.table.height_m
    if kind in DIRECTIONS:
        half = reference.half[0 if DIRECTIONS[kind][0] else 1]
        along = half + radius + rng.uniform(*_GAP_M)
        across = rng.uniform(-0.35, 0.35) * along
        x_y = reference.centre + _from_components(cell, along, across, kind)
    elif kind == "near":
        angle = rng.uniform(0, 2 * np.pi)
        reach = float(np.linalg.norm(reference.half)) + radius + rng.uniform(0.015, 0.05)
        x_y = reference.centre + reach * np.array([np.cos(angle), np.sin(angle)])
    elif kind == "on":
        x_y = reference.centre + rng.uniform(-0.15, 0.15, 2) * reference.half
        ground, support = reference.high, relation.reference
    else:
        raise PlanningFailed("precondition", f"placing cannot bring about {relation.words()!r}")
    return Spot(np.array([*x_y, ground]), {support})


def _draw_in_container(
    cell: Workcell, subject: str, reference: str, radius: float, others: list[Footprint], late: bool
) -> Spot | None:
    """A place on a container's floor, or with `late` on top of what lies there; None where too little is open."""
    space = container(cell, reference)
    T, floor = space.T_world_floor, float(space.T_world_floor[2, 3])
    middle, room = (space.low + space.high) / 2, (space.high - space.low) / 2 - radius - _WALL_SPARE_M
    if space.covered and room.min() < -0.75 * _WALL_SPARE_M:
        return None
    room = np.maximum(room, 0.0)
    x_y: F64 = T[:2, 3] + T[:2, :2] @ (middle + cell.rng.uniform(-room, room))
    if not late:
        return Spot(np.array([*x_y, floor]), {reference})
    below = [other for other in others if _near(x_y, radius, other) and other.high > floor]
    ground = max([floor, *(other.high for other in below)])
    support = {reference} | {entry.name for entry in cell.layout.objects} - {subject}
    return Spot(np.array([*x_y, ground]), support)


def _near(spot: F64, radius: float, other: Footprint) -> bool:
    gap = np.maximum(np.abs(spot - other.centre) - other.half, 0)
    return bool(np.linalg.norm(gap) < radius + 0.006)


def _axes(cell: Workcell, kind: str) -> tuple[F64, F64]:
    x, y = cell.world.T_world_robot[:2, 0], cell.world.T_world_robot[:2, 1]
    forward, left = DIRECTIONS[kind]
    along = forward * x + left * y
    return along, np.array([-along[1], along[0]])


def _components(cell: Workcell, offset: F64, kind: str) -> tuple[float, float]:
    along, across = _axes(cell, kind)
    return float(offset @ along), float(offset @ across)


def _from_components(cell: Workcell, along_m: float, across_m: float, kind: str) -> F64:
    along, across = _axes(cell, kind)
    return np.asarray(along_m * along + across_m * across)


def _inside(cell: Workcell, relation: RelationLayout) -> bool:
    """The centre within the walls, and the lowest point well below the rim."""
    space = container(cell, relation.reference)
    T, vertices = space.T_world_floor, cell.vertices(relation.subject)
    centre = T[:2, :2].T @ ((vertices[:, :2].max(axis=0) + vertices[:, :2].min(axis=0)) / 2 - T[:2, 3])
    rim = float(T[2, 3]) + space.rim_m
    return bool((np.abs(centre) < space.half).all()) and float(vertices[:, 2].min()) < rim - _BELOW_RIM_M


def _joint_holds(cell: Workcell, name: str, kind: str) -> bool:
    travel = cell.object(name).definition.travel
    value = cell.simulation.joint_of(name)
    if kind == "closed":
        return value < 0.1 * travel
    if kind == "pressed":  # a button springs back: what counts is that it was down at some time
        address = cell.world.objects[name].joint_q
        return any(row.qpos[address] > 0.6 * travel for row in cell.simulation.rows)
    return value > (0.6 if kind == "open" else 0.5) * travel
