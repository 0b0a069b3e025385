"""The apartment itself: walls with openings, door frames and leaves, windows, floors, ceilings, baseboards.

Walls are disjoint boxes between wall junctions, so that no two faces lie in one place; each side of a box
wears the paint of the room that it looks into.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nimbusd.stages.load.apartment.floorplan import FRAME_M, WALL_M, FloorPlan, Opening, PlannedRoom, Rect
from nimbusd.stages.load.apartment.model import BLACK, GLASS, STEEL, WHITE, Model, Palette
from nimbusd.stages.load.apartment.shapes import Mesh, box
from nimbusd.stages.load.textures import SPAN_M
from nimbusd.stages.types import F64, Material

SLAB_M = 0.1
"""Thickness of floors (below z = 0) and ceilings."""

_CASING_M = 0.07


@dataclass(frozen=True, slots=True)
class Finish:
    """The surfaces of one room."""

    wall: Material
    floor: Material
    ceiling: Material


@dataclass(frozen=True, slots=True)
class Standing:
    """A model at its place. T_world: (4, 4). name: unique in the apartment."""

    name: str
    model: Model
    T_world: F64


def pose(x: float, y: float, z: float, angle_rad: float) -> F64:
    """(4, 4) transform that turns about z and then moves."""
    T = np.eye(4)
    # Rounded, so that quarter turns stay exact and footprints stay rectangles.
    c, s = round(float(np.cos(angle_rad)), 12), round(float(np.sin(angle_rad)), 12)
    T[:2, :2] = [[c, -s], [s, c]]
    T[:3, 3] = x, y, z
    return T


def draw_finishes(plan: FloorPlan, palette: Palette, rng: np.random.Generator) -> dict[str, Finish]:
    """Room name → surfaces: boards in living rooms, tiles where it gets wet, paint in quiet colours."""
    tints = (
        (1.0, 1.0, 1.0),
        (1.0, 0.97, 0.92),
        (0.9, 0.95, 1.0),
        (0.86, 0.92, 0.86),
        (1.0, 0.9, 0.84),
        (0.8, 0.84, 0.88),
    )
    ceiling = palette.textured("plaster", 0, tint=(1.0, 1.0, 1.0), roughness=0.95)
    finishes = {}
    for room in plan.rooms:
        tint = tints[int(rng.integers(len(tints)))]
        wall = palette.textured("plaster", int(rng.integers(2)), tint=tint, roughness=0.9)
        soft = rng.random() < 0.35
        if room.kind == "bathroom":
            wall, floor = palette.textured("tiles", 1, roughness=0.2), palette.textured("tiles", 2, roughness=0.3)
        elif room.kind == "kitchen":
            floor = palette.textured("tiles", 0, roughness=0.3)
        elif room.kind in ("bedroom", "study") and soft:
            floor = palette.textured("carpet", 2, roughness=1.0)
        else:
            floor = palette.textured("planks", 0, roughness=0.4)
        finishes[room.name] = Finish(wall, floor, ceiling)
    return finishes


def build_shell(
    plan: FloorPlan, finishes: Mapping[str, Finish], palette: Palette, *, height_m: float, ceiling: bool
) -> list[Standing]:
    """Everything that cannot be moved, in world coordinates."""
    out: list[Standing] = []
    world = np.eye(4)
    outside = palette.textured("brick", 0, roughness=0.9)
    for number, pieces in enumerate(_wall_lines(plan, height_m), start=1):
        wall = Model("wall", fixed=True)
        for piece in pieces:
            _paint(wall, piece, plan, finishes, outside)
        out.append(Standing(f"wall_{number}", wall, world))
    for room in plan.rooms:
        finish, slab = finishes[room.name], _slab(room, plan.outline)
        middle = (*slab.center, -SLAB_M / 2)
        floor = Model("floor", fixed=True)
        floor.add(finish.floor, _world_box((slab.width, slab.depth, SLAB_M), middle))
        out.append(Standing(f"{room.name}_floor", floor, world))
        out.append(Standing(f"{room.name}_baseboard", _baseboard(room, plan), world))
        if ceiling:
            lid = Model("ceiling", fixed=True)
            lid.add(finish.ceiling, _world_box((slab.width, slab.depth, SLAB_M), (*slab.center, height_m + SLAB_M / 2)))
            out.append(Standing(f"{room.name}_ceiling", lid, world))
    for number, opening in enumerate(plan.openings, start=1):
        maker = {"door": _door_frame, "entrance": _entrance, "window": _window}[opening.kind]
        name = f"{'_'.join(opening.rooms)}_{opening.kind}_{number}"
        out.append(Standing(name, maker(opening, palette), _opening_pose(opening, plan)))
    return out


def door_leaf(opening: Opening, room: PlannedRoom) -> tuple[Standing, Rect]:
    """An open door at a right angle to its wall, inside `room`, hinged at the nearer corner; and its footprint.

    It stands before the frame, so that the clear width stays.
    """
    inside = room.inside
    along_low, along_high = (inside.y0, inside.y1) if opening.axis == "x" else (inside.x0, inside.x1)
    hinge = -1.0 if opening.middle - along_low < along_high - opening.middle else 1.0
    toward = 1.0 if (room.lines.x0 if opening.axis == "x" else room.lines.y0) == opening.line else -1.0
    leaf_m, thick = opening.width_m - 0.01, 0.04
    along = opening.middle + hinge * (opening.width_m / 2 + thick / 2 + 0.005)
    away = opening.line + toward * (WALL_M / 2 + 0.03 + leaf_m / 2)
    model = Model("door", fixed=True)
    _panel(model, leaf_m, opening.head_m - 0.02)
    if opening.axis == "x":
        x, y, half_x, half_y, angle = away, along, leaf_m / 2, 0.06, 0.0
    else:
        x, y, half_x, half_y, angle = along, away, 0.06, leaf_m / 2, np.pi / 2
    name = f"{'_'.join(opening.rooms)}_door_leaf"
    # The handle belongs to the free end, which is the one away from the wall.
    if toward < 0:
        angle += np.pi
    return Standing(name, model, pose(x, y, 0.008, angle)), Rect(x - half_x, y - half_y, x + half_x, y + half_y)


def _panel(model: Model, width: float, height: float) -> None:
    """A door leaf along x with two fields and a handle near its +x end, on both sides."""
    model.box(WHITE, (width, 0.036, height), (0, 0, 0), 0.003)
    for side in (-1, 1):
        for z, tall in ((0.14, 0.38 * height), (0.14 + 0.38 * height + 0.12, 0.48 * height)):
            model.box(WHITE, (width - 0.26, 0.008, tall), (0, side * 0.02, z), 0.003)
        model.box(STEEL, (0.05, 0.008, 0.2), (width / 2 - 0.06, side * 0.021, 0.95))
        model.post(STEEL, 0.009, (width / 2 - 0.06, side * 0.02, 1.06), (width / 2 - 0.06, side * 0.055, 1.06))
        model.box(STEEL, (0.12, 0.016, 0.018), (width / 2 - 0.11, side * 0.05, 1.05), 0.005)


def _wall_lines(plan: FloorPlan, height_m: float) -> Iterator[list[tuple[Rect, float, float]]]:
    """For each straight wall its solid boxes (footprint, z_low, z_high); walls along y own the junctions."""
    half = WALL_M / 2
    upright = [("x", c, run) for c in _lines(plan, "x") for run in _runs(plan, "x", c)]
    for _, c, (y0, y1) in upright:
        breaks = {y0 - half, y1 + half}
        for room in plan.rooms:
            for y in (room.lines.y0, room.lines.y1):
                if room.lines.x0 <= c <= room.lines.x1 and y0 <= y <= y1:
                    breaks |= {y - half, y + half}
        cuts = sorted(breaks)
        pieces = [Rect(c - half, a, c + half, b) for a, b in pairwise(cuts) if b - a > 1e-6]
        yield [solid for piece in pieces for solid in _cut(piece, "x", c, plan, height_m)]
    for d in _lines(plan, "y"):
        for x0, x1 in _runs(plan, "y", d):
            crossings = sorted({c for _, c, (y0, y1) in upright if x0 <= c <= x1 and y0 <= d <= y1})
            spans = pairwise(crossings)
            pieces = [Rect(a + half, d - half, b - half, d + half) for a, b in spans if b - a > WALL_M]
            yield [solid for piece in pieces for solid in _cut(piece, "y", d, plan, height_m)]


def _lines(plan: FloorPlan, axis: str) -> list[float]:
    if axis == "x":
        return sorted({x for room in plan.rooms for x in (room.lines.x0, room.lines.x1)})
    return sorted({y for room in plan.rooms for y in (room.lines.y0, room.lines.y1)})


def _runs(plan: FloorPlan, axis: str, line: float) -> list[tuple[float, float]]:
    """Stretches of a line that are wall: the union of the room edges on it."""
    spans = []
    for room in plan.rooms:
        r = room.lines
        if axis == "x" and line in (r.x0, r.x1):
            spans.append((r.y0, r.y1))
        if axis == "y" and line in (r.y0, r.y1):
            spans.append((r.x0, r.x1))
    runs: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if runs and low <= runs[-1][1] + 1e-9:
            runs[-1] = (runs[-1][0], max(runs[-1][1], high))
        else:
            runs.append((low, high))
    return runs


def _cut(piece: Rect, axis: str, line: float, plan: FloorPlan, height_m: float) -> list[tuple[Rect, float, float]]:
    """A stretch of wall without its openings: full height beside them, and what is below and above each."""
    low, high = (piece.y0, piece.y1) if axis == "x" else (piece.x0, piece.x1)

    def part(a: float, b: float) -> Rect:
        return Rect(piece.x0, a, piece.x1, b) if axis == "x" else Rect(a, piece.y0, b, piece.y1)

    holes = sorted(
        (o for o in plan.openings if o.axis == axis and o.line == line and low < o.middle < high),
        key=lambda o: o.middle,
    )
    solids, start = [], low
    for hole in holes:
        a, b = hole.middle - hole.cut_m / 2, hole.middle + hole.cut_m / 2
        head = hole.head_m + (FRAME_M if hole.kind != "window" else 0.0)
        solids.append((part(start, a), 0.0, height_m))
        if hole.sill_m > 0:
            solids.append((part(a, b), 0.0, hole.sill_m))
        solids.append((part(a, b), head, height_m))
        start = b
    solids.append((part(start, high), 0.0, height_m))
    return solids


def _paint(
    wall: Model, solid: tuple[Rect, float, float], plan: FloorPlan, finishes: Mapping[str, Finish], outside: Material
) -> None:
    rect, z0, z1 = solid
    middle = (*rect.center, (z0 + z1) / 2)
    mesh = _world_box((rect.width, rect.depth, z1 - z0), middle)
    uvs = mesh.face_uvs()
    peek = 0.02
    looks = (
        (rect.x0 - peek, middle[1]),
        (rect.x1 + peek, middle[1]),
        (middle[0], rect.y0 - peek),
        (middle[0], rect.y1 + peek),
    )
    for side in range(6):
        room = plan.room_at(*looks[side]) if side < 4 else None
        paint = finishes[room.name].wall if room else (outside if side < 4 else WHITE)
        pick = slice(2 * side, 2 * side + 2)
        used, faces = np.unique(mesh.faces[pick], return_inverse=True)
        wall.add(paint, Mesh(mesh.vertices[used], faces.reshape(2, 3).astype(np.int32), uvs[pick]))


def _world_box(size: tuple[float, float, float], middle: tuple[float, float, float]) -> Mesh:
    """A box whose texture lies still in the world: neighbours continue each other's pattern."""
    mesh = box(size).moved(*middle)
    corners = mesh.vertices[mesh.faces]
    seen_along = ((1, 2), (1, 2), (0, 2), (0, 2), (0, 1), (0, 1))
    uvs = np.stack([corners[k][:, seen_along[k // 2]] for k in range(12)]) / SPAN_M
    return Mesh(mesh.vertices, mesh.faces, uvs)


def _slab(room: PlannedRoom, outline: Rect) -> Rect:
    """The room up to its walls' centre lines, and at the outside to the wall's outer face."""
    r, half = room.lines, WALL_M / 2
    return Rect(
        r.x0 - half * (r.x0 == outline.x0),
        r.y0 - half * (r.y0 == outline.y0),
        r.x1 + half * (r.x1 == outline.x1),
        r.y1 + half * (r.y1 == outline.y1),
    )


def _baseboard(room: PlannedRoom, plan: FloorPlan) -> Model:
    """Boards along the foot of the walls, interrupted at doors."""
    model, inside = Model("baseboard", fixed=True), room.inside
    thick, tall = 0.012, 0.08
    sides = (
        ("x", room.lines.x0, inside.x0 + thick / 2, inside.y0, inside.y1),
        ("x", room.lines.x1, inside.x1 - thick / 2, inside.y0, inside.y1),
        ("y", room.lines.y0, inside.y0 + thick / 2, inside.x0 + thick, inside.x1 - thick),
        ("y", room.lines.y1, inside.y1 - thick / 2, inside.x0 + thick, inside.x1 - thick),
    )
    for axis, line, across, start, end in sides:
        doors = [
            o for o in plan.openings if o.kind != "window" and (o.axis, o.line) == (axis, line) and room.name in o.rooms
        ]
        gap = FRAME_M - 0.015 + _CASING_M
        stops = [start]
        for door in sorted(doors, key=lambda o: o.middle):
            stops += [door.middle - door.width_m / 2 - gap, door.middle + door.width_m / 2 + gap]
        stops.append(end)
        for a, b in zip(stops[::2], stops[1::2], strict=True):
            if b - a < 0.01:
                continue
            if axis == "x":
                model.box(WHITE, (thick, b - a, tall), (across, (a + b) / 2, 0))
            else:
                model.box(WHITE, (b - a, thick, tall), ((a + b) / 2, across, 0))
    return model


def _opening_pose(opening: Opening, plan: FloorPlan) -> F64:
    """Local x runs along the wall and +y looks into the (first) room."""
    if opening.axis == "y":
        x, y = opening.middle, opening.line
        into = plan.room_at(x, y + WALL_M)
        return pose(x, y, 0.0, 0.0 if into and into.name == opening.rooms[0] else np.pi)
    x, y = opening.line, opening.middle
    into = plan.room_at(x + WALL_M, y)
    return pose(x, y, 0.0, -np.pi / 2 if into and into.name == opening.rooms[0] else np.pi / 2)


def _door_frame(opening: Opening, palette: Palette) -> Model:
    model = Model("door", fixed=True)
    width, head = opening.width_m, opening.head_m
    deep = WALL_M + 0.006
    for side in (-1, 1):
        model.box(WHITE, (FRAME_M, deep, head), (side * (width + FRAME_M) / 2, 0, 0))
        y = side * (WALL_M / 2 + 0.011)
        model.box(WHITE, (width + 2 * (FRAME_M + 0.055), 0.016, _CASING_M), (0, y, head + 0.012), 0.004)
        for jamb in (-1, 1):
            x = jamb * (width / 2 + FRAME_M - 0.015 + _CASING_M / 2)
            model.box(WHITE, (_CASING_M, 0.016, head + 0.012), (x, y, 0))
    model.box(WHITE, (width + 2 * FRAME_M, deep, FRAME_M), (0, 0, head))
    model.box(palette.wood, (width, WALL_M + 0.02, 0.005), (0, 0, 0))
    return model


def _entrance(opening: Opening, palette: Palette) -> Model:
    model = _door_frame(opening, palette)
    leaf = Model("door")
    _panel(leaf, opening.width_m - 0.006, opening.head_m - 0.01)
    for mesh, material in leaf.parts:
        model.add(palette.wood if material is WHITE else material, mesh, (0, -0.02, 0.006))
    model.turned(BLACK, [(0.012, 0), (0.012, 0.004)], (0, 0.022, 1.5), 10)
    return model


def _window(opening: Opening, palette: Palette) -> Model:  # noqa: ARG001 - one signature for all openings
    model = Model("window", fixed=True)
    width, sill, tall, bar = opening.width_m, opening.sill_m, opening.head_m - opening.sill_m, 0.055
    y = -0.015
    for side in (-1, 1):
        model.box(WHITE, (bar, 0.07, tall), (side * (width - bar) / 2, y, sill))
        model.box(WHITE, (width - 2 * bar, 0.07, bar), (0, y, sill + (tall - bar) * (side > 0)))
    if width > 0.9:
        model.box(WHITE, (bar, 0.05, tall - 2 * bar), (0, y, sill + bar))
    model.box(GLASS, (width - 2 * bar, 0.006, tall - 2 * bar), (0, y, sill + bar))
    model.box(STEEL, (0.02, 0.03, 0.12), (width / 2 - bar / 2, 0.035, sill + 0.45 * tall))
    model.box(WHITE, (width + 0.1, 0.14, 0.025), (0, WALL_M / 2 + 0.045, sill - 0.024), 0.006)
    return model
