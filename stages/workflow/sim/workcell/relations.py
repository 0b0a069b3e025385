"""Spatial relations: whether they hold, and where an object would have to be for them to hold.

Directions are those of the robot that looks over the table: left is +y of its base, right is -y, behind is farther
away (+x), in front of is nearer (-x). Both halves of each relation share their numbers, so that a pose that was drawn
for a relation fulfils it with room to spare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.layout.layout import RelationLayout
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


def holds(cell: Workcell, relation: RelationLayout) -> bool:
    """Whether a relation is true now. Raises PlanningFailed('precondition') for an unknown kind or name."""
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
    """Whether an object has come to rest: it has no speed, or none that took it anywhere in the last steps.

    A box that lies across the edge of a bin trembles for ever, by micrometres.
    """
    seconds = _REST_STEPS / cell.layout.physics.fps
    return (
        cell.simulation.speed_of(name) < _REST_SPEED
        or cell.simulation.wandered(name, _REST_STEPS) < _REST_SPEED * seconds
    )


def resting_spots(cell: Workcell, subject: str, relation: RelationLayout, tries: int) -> Iterator[tuple[F64, set[str]]]:
    """Places for an object that make a relation true: its bounding box's lowest centre point, and what it rests on.

    Yields (x, y, z of the support) drawn from the cell's generator, clear of other objects' footprints (in a container
    in which there is no room left: on top of what lies there).
    Raises PlanningFailed('precondition') where the relation is none that placing can bring about.
    """
    rng, table = cell.rng, cell.layout.table
    mine = Footprint.of(cell.vertices(subject))
    radius = float(np.linalg.norm(mine.half))
    region = cell.region(relation.reference)
    kind = relation.kind
    others = [
        Footprint.of(cell.vertices(entry.name))
        for entry in cell.layout.objects
        if entry.name not in (subject, relation.reference if kind in ("in", "on") and region is None else "")
    ]
    reference = None if region is not None else Footprint.of(cell.vertices(cell.object(relation.reference).name))
    for number in range(tries):
        ground, support = table.height_m, {"table"}
        spot: F64
        if region is not None:
            room = np.maximum(np.asarray(region.size_m) / 2 - 0.6 * radius, 0.005)
            spot = np.add(region.pose.position[:2], region.pose.matrix()[:2, :2] @ rng.uniform(-room, room))
            support.add(region.name)
        elif kind in DIRECTIONS and reference is not None:
            half = reference.half[0 if DIRECTIONS[kind][0] else 1]
            along = half + radius + rng.uniform(*_GAP_M)
            across = rng.uniform(-0.35, 0.35) * along
            spot = reference.centre + _from_components(cell, along, across, kind)
        elif kind == "near" and reference is not None:
            angle = rng.uniform(0, 2 * np.pi)
            reach = float(np.linalg.norm(reference.half)) + radius + rng.uniform(0.015, 0.05)
            spot = reference.centre + reach * np.array([np.cos(angle), np.sin(angle)])
        elif kind == "on" and reference is not None:
            spot = reference.centre + rng.uniform(-0.15, 0.15, 2) * reference.half
            ground, support = reference.high, {relation.reference}
        elif kind == "in" and reference is not None:
            space = container(cell, relation.reference)
            T, floor = space.T_world_floor, float(space.T_world_floor[2, 3])
            middle, room = (space.low + space.high) / 2, (space.high - space.low) / 2 - radius - _WALL_SPARE_M
            if space.covered and room.min() < -0.75 * _WALL_SPARE_M:
                continue
            room = np.maximum(room, 0.0)
            spot = T[:2, 3] + T[:2, :2] @ (middle + rng.uniform(-room, room))
            ground, support = floor, {relation.reference}
            if number >= tries // 2:  # no free floor left: on top of what lies there already
                below = [other for other in others if _near(spot, radius, other) and other.high > floor]
                ground = max([floor, *(other.high for other in below)])
                support |= {entry.name for entry in cell.layout.objects} - {subject}
        else:
            raise PlanningFailed("precondition", f"placing cannot bring about {relation.words()!r}")
        on_table = np.abs(spot - np.asarray(table.centre)) + radius < np.asarray(table.size_m) / 2
        if on_table.all() and not any(_near(spot, radius, other) for other in others if other.high > ground + 0.002):
            yield np.array([*spot, ground]), support


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
