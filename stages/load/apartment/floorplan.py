"""Floor plans: a rectangle cut into rooms, with doors that connect them all and windows to the outside.

Rooms are kept as rectangles between the centre lines of their walls; a wall is `WALL_M` thick around its line.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

WALL_M = 0.12
DOOR_HEIGHT_M = 2.05
FRAME_M = 0.03
"""Thickness of door frames inside the opening; `Opening.width_m` of a door is the clear width between them."""

_CORNER_M = 0.16  # wall left beside an opening, from the corner of the room
_TRIES = 4000

Axis = Literal["x", "y"]


@dataclass(frozen=True, slots=True)
class Rect:
    """An axis-aligned rectangle in world metres."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def depth(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        return self.width * self.depth

    @property
    def center(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def grown(self, margin: float) -> Rect:
        return Rect(self.x0 - margin, self.y0 - margin, self.x1 + margin, self.y1 + margin)

    def overlaps(self, other: Rect, slack: float = 1e-6) -> bool:
        """True where the interiors meet by more than `slack` metres."""
        return (
            min(self.x1, other.x1) - max(self.x0, other.x0) > slack
            and min(self.y1, other.y1) - max(self.y0, other.y0) > slack
        )

    def contains(self, other: Rect, slack: float = 1e-6) -> bool:
        return (
            other.x0 >= self.x0 - slack
            and other.y0 >= self.y0 - slack
            and other.x1 <= self.x1 + slack
            and other.y1 <= self.y1 + slack
        )


@dataclass(frozen=True, slots=True)
class PlannedRoom:
    """A room. lines: rectangle between the centre lines of its walls."""

    name: str
    kind: str
    lines: Rect

    @property
    def inside(self) -> Rect:
        """The floor that can be seen: the rectangle between the walls' faces."""
        return self.lines.grown(-WALL_M / 2)


@dataclass(frozen=True, slots=True)
class Opening:
    """A hole in a wall.

    axis: "x" for a wall on the line x = `line` (it runs along y), "y" for one on y = `line`.
    middle: position along the wall. sill_m, head_m: lower and upper edge.
    rooms: names of the rooms it joins; one for windows and the entrance.
    """

    kind: Literal["door", "window", "entrance"]
    axis: Axis
    line: float
    middle: float
    width_m: float
    sill_m: float
    head_m: float
    rooms: tuple[str, ...]

    @property
    def cut_m(self) -> float:
        """Width of the hole in the masonry, frames included."""
        return self.width_m if self.kind == "window" else self.width_m + 2 * FRAME_M

    def zone(self, depth_m: float, margin_m: float = 0.0) -> Rect:
        """The opening's footprint, reaching `depth_m` into the rooms on both sides."""
        half, reach = self.width_m / 2 + margin_m, WALL_M / 2 + depth_m
        if self.axis == "x":
            return Rect(self.line - reach, self.middle - half, self.line + reach, self.middle + half)
        return Rect(self.middle - half, self.line - reach, self.middle + half, self.line + reach)


@dataclass(frozen=True, slots=True)
class FloorPlan:
    """outline: rectangle between the centre lines of the outer walls."""

    outline: Rect
    rooms: tuple[PlannedRoom, ...]
    openings: tuple[Opening, ...]

    def room_at(self, x: float, y: float) -> PlannedRoom | None:
        """The room whose lines enclose a point, or None outside."""
        for room in self.rooms:
            if room.lines.x0 < x < room.lines.x1 and room.lines.y0 < y < room.lines.y1:
                return room
        return None


# Target areas (m²) and least inner width (m) of each kind of room.
_AREAS = {
    "living_room": 24.0, "kitchen": 12.0, "bedroom": 14.5, "bathroom": 6.5, "dining_room": 13.0, "study": 11.0,
}  # fmt: skip
_MIN_WIDTHS = {
    "living_room": 3.9, "kitchen": 2.7, "bedroom": 3.1, "bathroom": 2.05, "dining_room": 3.0, "study": 2.7,
}  # fmt: skip
_PROGRAMMES: dict[int, tuple[tuple[str, ...], ...]] = {
    2: (("living_room", "bedroom"),),
    3: (("living_room", "bedroom", "kitchen"), ("living_room", "bedroom", "bathroom")),
    4: (("living_room", "kitchen", "bedroom", "bathroom"),),
    5: (
        ("living_room", "kitchen", "bedroom", "bathroom", "study"),
        ("living_room", "kitchen", "bedroom", "bathroom", "dining_room"),
        ("hallway", "living_room", "kitchen", "bedroom", "bathroom"),
    ),
    6: (
        ("hallway", "living_room", "kitchen", "bedroom", "bathroom", "bedroom"),
        ("hallway", "living_room", "kitchen", "bedroom", "bathroom", "study"),
        ("living_room", "kitchen", "dining_room", "bedroom", "bathroom", "study"),
    ),
    7: (
        ("hallway", "living_room", "kitchen", "bedroom", "bathroom", "bedroom", "study"),
        ("hallway", "living_room", "kitchen", "bedroom", "bathroom", "dining_room", "study"),
    ),
}
ROOM_COUNTS = (min(_PROGRAMMES), max(_PROGRAMMES))

# Rooms that may be the way to others; a bedroom or bathroom should be a dead end where the plan allows it.
_PASSAGES = ("hallway", "living_room", "dining_room", "kitchen", "study")


def draw_plan(rng: np.random.Generator, room_count: int) -> FloorPlan:
    """A plan of `room_count` (2…7) rooms, all connected by doors.

    Cuts that make a room too narrow, or rooms that cannot be joined, are drawn again.
    """
    programmes = _PROGRAMMES[room_count]
    kinds = programmes[int(rng.integers(len(programmes)))]
    for attempt in range(_TRIES):
        slack = 1 + attempt / _TRIES  # later attempts get more room
        plan = _try_plan(rng, kinds, slack)
        if plan is not None:
            return plan
    raise AssertionError(f"no floor plan for {kinds} in {_TRIES} draws")


def _try_plan(rng: np.random.Generator, kinds: tuple[str, ...], slack: float) -> FloorPlan | None:
    hall = "hallway" in kinds
    others = [kind for kind in kinds if kind != "hallway"]
    areas = [_AREAS[kind] * slack * float(rng.uniform(0.9, 1.2)) for kind in others]
    hall_width = float(rng.uniform(1.35, 1.6)) + WALL_M
    aspect = float(rng.uniform(1.1, 1.5))
    if hall:
        depth = float(np.sqrt(sum(areas) / aspect)) + hall_width
        width = sum(areas) / (depth - hall_width)
        cells = _beside_hallway(rng, others, areas, width, depth, hall_width)
    else:
        depth = float(np.sqrt(sum(areas) / aspect))
        outline = Rect(0, 0, round(sum(areas) / depth, 2), round(depth, 2))
        order = [int(i) for i in rng.permutation(len(others))]
        cells = _split(rng, outline, [(others[i], areas[i]) for i in order])
    if any(not _livable(kind, rect) for kind, rect in cells):
        return None
    outline = Rect(0, 0, max(r.x1 for _, r in cells), max(r.y1 for _, r in cells))
    rooms = _named(cells)
    doors = _doors(rng, rooms)
    if doors is None:
        return None
    entrance = _entrance(rng, rooms, outline)
    if entrance is None:
        return None
    windows = [w for room in rooms for w in _windows(rng, room, outline, entrance)]
    return FloorPlan(outline, rooms, (*doors, entrance, *windows))


def _split(rng: np.random.Generator, rect: Rect, wanted: list[tuple[str, float]]) -> list[tuple[str, Rect]]:
    """Cut a rectangle across its longer side until every room has its share of the area."""
    if len(wanted) == 1:
        return [(wanted[0][0], rect)]
    cut = int(rng.integers(1, len(wanted))) if len(wanted) < 4 else len(wanted) // 2
    share = sum(area for _, area in wanted[:cut]) / sum(area for _, area in wanted)
    if rect.width > rect.depth * float(rng.uniform(0.85, 1.15)):
        x = round(rect.x0 + share * rect.width, 2)
        first, second = Rect(rect.x0, rect.y0, x, rect.y1), Rect(x, rect.y0, rect.x1, rect.y1)
    else:
        y = round(rect.y0 + share * rect.depth, 2)
        first, second = Rect(rect.x0, rect.y0, rect.x1, y), Rect(rect.x0, y, rect.x1, rect.y1)
    return _split(rng, first, wanted[:cut]) + _split(rng, second, wanted[cut:])


def _beside_hallway(
    rng: np.random.Generator, kinds: list[str], areas: list[float], width: float, depth: float, hall_width: float
) -> list[tuple[str, Rect]]:
    """A hallway through the middle, and a row of rooms on either side of it."""
    order = [int(i) for i in rng.permutation(len(kinds))]
    cut = len(order) // 2 + (int(rng.integers(2)) if len(order) % 2 else 0)
    rows = order[:cut], order[cut:]
    total = sum(areas)
    low = round((depth - hall_width) * sum(areas[i] for i in rows[0]) / total, 2)
    high = round(low + hall_width, 2)
    x_end = round(width, 2)
    cells = [("hallway", Rect(0, low, x_end, high))]
    for row, y0, y1 in ((rows[0], 0.0, low), (rows[1], high, round(depth, 2))):
        x, row_area = 0.0, sum(areas[i] for i in row)
        for place, i in enumerate(row):
            x1 = x_end if place == len(row) - 1 else round(x + width * areas[i] / row_area, 2)
            cells.append((kinds[i], Rect(x, y0, x1, y1)))
            x = x1
    return cells


def _livable(kind: str, rect: Rect) -> bool:
    if kind == "hallway":
        return True
    short, long = sorted((rect.width - WALL_M, rect.depth - WALL_M))
    return short >= _MIN_WIDTHS[kind] and long <= 2.0 * short


def _named(cells: list[tuple[str, Rect]]) -> tuple[PlannedRoom, ...]:
    rooms: list[PlannedRoom] = []
    for kind, rect in sorted(cells, key=lambda cell: (cell[0], cell[1].y0, cell[1].x0)):
        number = sum(room.kind == kind for room in rooms) + 1
        twins = sum(other == kind for other, _ in cells) > 1
        rooms.append(PlannedRoom(f"{kind}_{number}" if twins else kind, kind, rect))
    return tuple(rooms)


def shared_wall(a: PlannedRoom, b: PlannedRoom) -> tuple[Axis, float, float, float] | None:
    """(axis, line, start, end) of the wall between two rooms, or None where they do not touch."""
    p, q = a.lines, b.lines
    y0, y1 = max(p.y0, q.y0), min(p.y1, q.y1)
    if y1 - y0 > 1e-6 and (p.x1 == q.x0 or p.x0 == q.x1):
        return "x", p.x1 if p.x1 == q.x0 else p.x0, y0, y1
    x0, x1 = max(p.x0, q.x0), min(p.x1, q.x1)
    if x1 - x0 > 1e-6 and (p.y1 == q.y0 or p.y0 == q.y1):
        return "y", p.y1 if p.y1 == q.y0 else p.y0, x0, x1
    return None


def _doors(rng: np.random.Generator, rooms: tuple[PlannedRoom, ...]) -> list[Opening] | None:
    """A spanning tree of doors that prefers passages over dead ends; None where the rooms cannot be joined."""
    edges: list[tuple[float, int, int, Opening]] = []
    for (i, a), (j, b) in itertools.combinations(enumerate(rooms), 2):
        if (door := _door_between(rng, a, b)) is not None:
            private = sum(kind not in _PASSAGES for kind in (a.kind, b.kind))
            via_hall = "hallway" in (a.kind, b.kind)
            kitchen_to_bath = {a.kind, b.kind} == {"kitchen", "bathroom"}
            cost = 2.0 * private - 1.5 * via_hall + 3.0 * kitchen_to_bath + float(rng.random())
            edges.append((cost, i, j, door))
    group = list(range(len(rooms)))
    doors: list[Opening] = []
    for cost, i, j, door in sorted(edges, key=lambda edge: edge[:3]):
        public = {rooms[i].kind, rooms[j].kind} <= {"living_room", "dining_room", "kitchen", "hallway"}
        if group[i] != group[j]:
            old = group[j]
            group = [group[i] if g == old else g for g in group]
            doors.append(door)
        elif public and cost < 0.5:
            doors.append(door)
    return doors if len(set(group)) == 1 else None


def _door_between(rng: np.random.Generator, a: PlannedRoom, b: PlannedRoom) -> Opening | None:
    """A door in the wall that two rooms share; None where they share none that is long enough."""
    wall = shared_wall(a, b)
    width = round(float(rng.uniform(0.92, 1.0)), 2)
    place = float(rng.random())
    if wall is None:
        return None
    axis, line, start, end = wall
    margin = WALL_M / 2 + _CORNER_M + FRAME_M + width / 2
    low, high = start + margin, end - margin
    if high < low:
        return None
    # Near an end of the wall, as builders do: it leaves the longest wall free for furniture.
    middle = low + 0.15 * place * (high - low) if place < 0.5 else high - 0.15 * (1 - place) * (high - low)
    return Opening("door", axis, line, round(middle, 3), width, 0.0, DOOR_HEIGHT_M, (a.name, b.name))


def _outer_walls(room: PlannedRoom, outline: Rect) -> list[tuple[Axis, float, float, float]]:
    r = room.lines
    walls: list[tuple[Axis, float, float, float]] = []
    if r.x0 == outline.x0:
        walls.append(("x", r.x0, r.y0, r.y1))
    if r.x1 == outline.x1:
        walls.append(("x", r.x1, r.y0, r.y1))
    if r.y0 == outline.y0:
        walls.append(("y", r.y0, r.x0, r.x1))
    if r.y1 == outline.y1:
        walls.append(("y", r.y1, r.x0, r.x1))
    return walls


def _entrance(rng: np.random.Generator, rooms: tuple[PlannedRoom, ...], outline: Rect) -> Opening | None:
    """The closed front door: in the hallway, else in the living room or kitchen."""
    for kind in ("hallway", "living_room", "dining_room", "kitchen"):
        for room in rooms:
            walls = _outer_walls(room, outline)
            if room.kind != kind or not walls:
                continue
            axis, line, start, end = walls[int(rng.integers(len(walls)))]
            width = 0.95
            margin = WALL_M / 2 + _CORNER_M + FRAME_M + width / 2
            low, high = start + margin, end - margin
            if high >= low:
                middle = low + 0.1 * (high - low) if rng.random() < 0.5 else high - 0.1 * (high - low)
                return Opening("entrance", axis, line, round(middle, 3), width, 0.0, DOOR_HEIGHT_M, (room.name,))
    return None


def _windows(rng: np.random.Generator, room: PlannedRoom, outline: Rect, entrance: Opening) -> list[Opening]:
    """One window per outer wall (two in a long one), large in living rooms, small and high in bathrooms."""
    windows: list[Opening] = []
    for axis, line, start, end in _outer_walls(room, outline):
        length = end - start - WALL_M
        if (entrance.axis, entrance.line, entrance.rooms) == (axis, line, (room.name,)) or length < 1.3:
            continue
        if room.kind == "bathroom":
            if windows:
                continue
            width, sill, head = 0.7, 1.45, 2.15
        elif room.kind == "living_room":
            width, sill, head = min(0.5 * length, 2.2), 0.55, 2.25
        else:
            width, sill, head = min(0.45 * length, 1.6), 0.95, 2.2
        count = 2 if length > 4.6 and room.kind != "living_room" else 1
        width = round(max(0.6, min(width, 0.36 * length) if count == 2 else width), 2)
        for k in range(count):
            middle = (start + end) / 2 + (k - (count - 1) / 2) * length / 2 + float(rng.uniform(-0.1, 0.1))
            windows.append(Opening("window", axis, line, round(middle, 3), width, sill, head, (room.name,)))
    return windows
