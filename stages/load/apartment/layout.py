"""Places for furniture in one room: against walls, beside and before other pieces, never in the way.

Pieces stand at quarter turns, so all footprints are rectangles and every test here is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nimbusd.stages.load.apartment.floorplan import Opening, PlannedRoom, Rect
from nimbusd.stages.load.apartment.model import Model
from nimbusd.stages.load.apartment.shell import Standing, pose
from nimbusd.stages.types import BoolArray

PASSAGE_M = 0.82
"""Clear width kept between all doors of a room."""
BODY_M = 0.6
"""Clear width that must lead from the doors to the free floor of a room."""

ROBOT_M = 0.46
"""Pockets that a small robot can stand in must be reachable for it too."""

_OBSTACLE_M = 1.5  # what begins above this height is no obstacle on the floor
_WALL_GAP_M = 0.016  # baseboards are 0.012 thick
_DOOR_DEPTH_M = 0.95
_SILL_BOARD_M = 0.12
_ABOVE_SILL_M = 0.42  # how far furniture may reach over a window's sill

Side = Literal["south", "east", "north", "west"]
_ANGLES: dict[Side, float] = {"south": 0.0, "east": np.pi / 2, "north": np.pi, "west": -np.pi / 2}
Wish = Literal["corner", "middle", "anywhere"]


@dataclass(frozen=True, slots=True)
class Spot:
    """A place for a model's footprint centre. angle_rad: 0 when its front (+y) looks north."""

    x: float
    y: float
    angle_rad: float


@dataclass(frozen=True, slots=True)
class Placed:
    """A model at its spot. z_m: its lowest point. rect: its footprint."""

    model: Model
    spot: Spot
    z_m: float
    rect: Rect

    @property
    def top_m(self) -> float:
        return self.z_m + float(self.model.bounds()[1][2])


@dataclass
class RoomLayout:
    """The state of furnishing one room. flat: rugs, which nothing collides with."""

    room: PlannedRoom
    openings: tuple[Opening, ...]
    height_m: float
    placed: list[Placed] = field(default_factory=list)
    flat: list[Placed] = field(default_factory=list)
    blocked: list[tuple[Rect, float, float]] = field(default_factory=list)
    fronts: list[Rect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inside = self.room.inside
        self.doors = [o for o in self.openings if o.kind != "window"]
        self.windows = [o for o in self.openings if o.kind == "window"]

    def against_wall(
        self, model: Model, rng: np.random.Generator, wish: Wish = "anywhere", *, away_from_doors: bool = False
    ) -> Placed | None:
        """Put a model with its back to a wall at the best free spot, or nowhere."""
        model = model.centred()
        spots = self.wall_spots(model, rng, wish, away_from_doors=away_from_doors)
        return next((placed for spot in spots if (placed := self.put(model, spot))), None)

    def wall_spots(
        self, model: Model, rng: np.random.Generator, wish: Wish, *, away_from_doors: bool = False
    ) -> Iterator[Spot]:
        """Spots along all four walls, the most wanted first."""
        ranked: list[tuple[float, int, Spot]] = []
        for share, spot in self._spots(model, rng):
            from_middle = abs(share - 0.5) * 2
            score = {"corner": 1 - from_middle, "middle": from_middle, "anywhere": 0.0}[wish] + 0.8 * rng.random()
            if away_from_doors and self.doors:
                nearest = min(np.hypot(spot.x - d[0], spot.y - d[1]) for d in map(self._door_middle, self.doors))
                score -= 0.35 * nearest
            ranked.append((float(score), len(ranked), spot))
        for _, _, spot in sorted(ranked, key=lambda item: item[:2]):
            yield spot

    def _spots(self, model: Model, rng: np.random.Generator) -> Iterator[tuple[float, Spot]]:
        """Spots along the walls that are long enough, with their share of the way along: ends, quarters and others.

        Draws the others of a wall when it comes to that wall.
        """
        width, depth = model.size()[:2]
        for side in _ANGLES:
            length = self.inside.width if side in ("south", "north") else self.inside.depth
            low, high = width / 2 + _WALL_GAP_M, length - width / 2 - _WALL_GAP_M
            if high >= low:
                for share in (0.0, 1.0, 0.5, 0.25, 0.75, *rng.uniform(0, 1, 6)):
                    yield share, self.at_wall(side, low + share * (high - low), depth)

    def at_wall(self, side: Side, along: float, depth: float) -> Spot:
        """The spot whose back touches a wall, `along` metres from the wall's south or west end."""
        out = depth / 2 + _WALL_GAP_M
        r = self.inside
        x, y = {
            "south": (r.x0 + along, r.y0 + out),
            "north": (r.x0 + along, r.y1 - out),
            "west": (r.x0 + out, r.y0 + along),
            "east": (r.x1 - out, r.y0 + along),
        }[side]
        return Spot(float(x), float(y), _ANGLES[side])

    def beside(
        self, anchor: Placed, model: Model, dx: float, dy: float, turn_rad: float = 0.0, *, on: bool = False
    ) -> Placed | None:
        """Put a model at (dx, dy) in the anchor's frame, or nowhere. on: it stands on the anchor's top."""
        model = model.centred()
        spot = self.relative(anchor, dx, dy, turn_rad)
        return self.put(model, spot, z_m=anchor.top_m if on else None)

    def relative(self, anchor: Placed, dx: float, dy: float, turn_rad: float = 0.0) -> Spot:
        c, s = np.cos(anchor.spot.angle_rad), np.sin(anchor.spot.angle_rad)
        x, y = anchor.spot.x + c * dx - s * dy, anchor.spot.y + s * dx + c * dy
        return Spot(float(x), float(y), anchor.spot.angle_rad + turn_rad)

    def put(self, model: Model, spot: Spot, *, z_m: float | None = None) -> Placed | None:
        """Put a centred model there if it fits and leaves the ways free, else nothing."""
        z = model.mount_z_m if z_m is None else z_m
        placed = Placed(model, spot, z, footprint(model, spot))
        front = self._front(placed) if model.front_m and z < _OBSTACLE_M else None
        if not self._fits(placed, front):
            return None
        if z < _OBSTACLE_M and z_m is None and not self._ways_stay_open(placed.rect):
            return None
        self.placed.append(placed)
        if front:
            self.fronts.append(front)
        return placed

    def lay_flat(self, model: Model, spot: Spot) -> Placed | None:
        """A rug: it may lie under furniture, but not under another rug or a door's swing."""
        model = model.centred()
        placed = Placed(model, spot, 0.0, footprint(model, spot))
        doors = [o.zone(0.3) for o in self.doors]
        taken = [*doors, *(p.rect for p in self.flat), *(rect for rect, _, _ in self.blocked)]
        if not self.inside.grown(-0.05).contains(placed.rect) or any(placed.rect.overlaps(t) for t in taken):
            return None
        self.flat.append(placed)
        return placed

    def remove(self, placed: Placed) -> None:
        """Take back what `put` placed last."""
        assert self.placed[-1] is placed
        self.placed.pop()
        if placed.model.front_m and placed.z_m < _OBSTACLE_M:
            self.fronts.pop()

    def standings(self) -> list[Standing]:
        """All placed models with names `<room>_<category>_<number>`."""
        out, counts = [], dict[str, int]()
        for item in (*self.placed, *self.flat):
            category = item.model.category
            counts[category] = counts.get(category, 0) + 1
            name = f"{self.room.name}_{category}_{counts[category]}"
            out.append(Standing(name, item.model, pose(item.spot.x, item.spot.y, item.z_m, item.spot.angle_rad)))
        return out

    def _front(self, placed: Placed) -> Rect:
        """The free floor that people need before a piece."""
        width, depth = placed.model.size()[:2]
        reach = placed.model.front_m
        spot = self.relative(placed, 0.0, (depth + reach) / 2)
        return _quarter_rect(spot, 0.9 * width, reach)

    def _fits(self, placed: Placed, front: Rect | None) -> bool:
        rect, z0, z1 = placed.rect, placed.z_m, placed.top_m
        if not self.inside.contains(rect) or z1 > self.height_m + 1e-6:
            return False
        if any(rect.overlaps(o.zone(_DOOR_DEPTH_M, 0.1)) for o in self.doors if z0 < o.head_m):
            return False
        if placed.model.category != "curtain":
            for window in self.windows:
                high = z1 > window.sill_m + (_ABOVE_SILL_M if z0 < 0.3 else 0.0) and z0 < window.head_m
                if high and rect.overlaps(window.zone(0.35, 0.03)):
                    return False
        solids = [(p.rect, p.z_m, p.top_m) for p in self.placed] + self.blocked
        if any(rect.overlaps(r) and z0 < b - 1e-6 and a < z1 - 1e-6 for r, a, b in solids):
            return False
        if (
            z0 < 0.3
            and any(rect.overlaps(f) for f in self.fronts)
            and placed.model.category not in ("chair", "coffee_table")
        ):
            return False
        if front is None:
            return True
        return self.inside.contains(front) and not any(front.overlaps(r) and a < 0.3 for r, a, _ in solids)

    def _ways_stay_open(self, added: Rect) -> bool:
        """All doors joined by a way PASSAGE_M wide, and nearly all free floor joined to them by narrower ways."""
        rects = [p.rect for p in self.placed if p.z_m < _OBSTACLE_M] + [r for r, _, _ in self.blocked] + [added]
        rects += [w.zone(_SILL_BOARD_M, 0.05) for w in self.windows if w.sill_m < _OBSTACLE_M]
        doors = [self._door_middle(o, into=0.47) for o in self.doors if o.kind == "door"]
        wanted = ((PASSAGE_M, 0.0), (BODY_M, 0.9), (ROBOT_M, 0.9))
        return all(ways_are_open(self.inside, rects, doors, width / 2, share) for width, share in wanted)

    def _door_middle(self, opening: Opening, into: float = 0.0) -> tuple[float, float]:
        """The opening's middle, moved `into` the room."""
        toward = self.inside.x0 if opening.axis == "x" else self.inside.y0
        step = into + 0.06 if toward > opening.line else -into - 0.06
        return (opening.line + step, opening.middle) if opening.axis == "x" else (opening.middle, opening.line + step)


def footprint(model: Model, spot: Spot) -> Rect:
    """The rectangle that a centred model covers at a spot."""
    width, depth = model.size()[:2]
    return _quarter_rect(spot, float(width), float(depth))


def _quarter_rect(spot: Spot, width: float, depth: float) -> Rect:
    across = abs(np.sin(spot.angle_rad)) > 0.5
    w, d = (depth, width) if across else (width, depth)
    return Rect(spot.x - w / 2, spot.y - d / 2, spot.x + w / 2, spot.y + d / 2)


def ways_are_open(
    inside: Rect, obstacles: list[Rect], doors: list[tuple[float, float]], radius_m: float, share: float
) -> bool:
    """Can a square of half-width `radius_m` go between all doors, and reach this share of where it can stand?

    Exact: the plane is cut at every edge of the grown obstacles, so each cell is all free or all blocked.
    """
    grown = [r.grown(radius_m) for r in obstacles]
    room = inside.grown(-radius_m)
    if room.width <= 0 or room.depth <= 0:
        return False
    xs = np.unique(np.clip([room.x0, room.x1, *(v for r in grown for v in (r.x0, r.x1))], room.x0, room.x1))
    ys = np.unique(np.clip([room.y0, room.y1, *(v for r in grown for v in (r.y0, r.y1))], room.y0, room.y1))
    mid_x, mid_y = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    free: BoolArray = np.ones((len(mid_x), len(mid_y)), np.bool_)
    for r in grown:
        free &= ~np.outer((mid_x > r.x0) & (mid_x < r.x1), (mid_y > r.y0) & (mid_y < r.y1))
    cells = []
    for x, y in doors:
        x, y = min(max(x, room.x0 + 1e-6), room.x1 - 1e-6), min(max(y, room.y0 + 1e-6), room.y1 - 1e-6)
        cell = int(np.searchsorted(xs, x)) - 1, int(np.searchsorted(ys, y)) - 1
        if not free[cell]:
            return False
        cells.append(cell)
    reached = np.zeros_like(free)
    reached[cells[0]] = True
    while True:
        wider = reached.copy()
        wider[1:] |= reached[:-1]
        wider[:-1] |= reached[1:]
        wider[:, 1:] |= reached[:, :-1]
        wider[:, :-1] |= reached[:, 1:]
        wider &= free
        if np.array_equal(wider, reached):
            break
        reached = wider
    area = np.outer(np.diff(xs), np.diff(ys))
    return all(reached[cell] for cell in cells) and float(area[reached].sum()) >= share * float(area[free].sum())
