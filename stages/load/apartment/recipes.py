"""Recipes: which pieces each kind of room gets, and how they stand to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nimbusd.stages.load.apartment import decor, fixtures, furniture
from nimbusd.stages.load.apartment.floorplan import Opening
from nimbusd.stages.load.apartment.layout import Placed, RoomLayout, Side, Spot
from nimbusd.stages.load.apartment.model import Model, Palette


@dataclass(frozen=True, slots=True)
class Brief:
    """Given to every recipe. density: share of the optional pieces that a room gets. dines: has the dining table."""

    layout: RoomLayout
    palette: Palette
    rng: np.random.Generator
    density: float
    dines: bool

    def wants(self) -> bool:
        return float(self.rng.random()) < self.density


def _living_room(brief: Brief) -> None:
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    sofa = _sofa_and_tv(brief)
    if sofa:
        depth = float(sofa.model.size()[1])
        table = furniture.coffee_table(palette, rng)
        layout.beside(sofa, table, 0.0, depth / 2 + 0.4 + float(table.size()[1]) / 2)
        _rug(brief, sofa, depth / 2 + 0.55, 2.4, 1.7)
        chair = furniture.armchair(palette, rng)
        x = float(sofa.model.size()[0]) / 2 + 0.55
        for side in (-1, 1):
            if layout.beside(sofa, chair, side * x, depth / 2 + 0.75, side * np.pi / 2):
                break
        else:
            layout.against_wall(chair, rng, "corner")
    layout.against_wall(furniture.bookshelf(palette, rng), rng, "corner")
    if brief.dines:
        _dining_set(brief)
    layout.against_wall(decor.floor_lamp(palette, rng), rng, "corner")
    layout.against_wall(decor.plant(palette, rng), rng, "corner")
    if brief.wants():
        layout.against_wall(furniture.sideboard(palette, rng), rng)
    if layout.inside.area > 24:
        layout.against_wall(furniture.bookshelf(palette, rng), rng)
        layout.against_wall(furniture.armchair(palette, rng), rng, "corner")
    if brief.wants():
        layout.against_wall(decor.plant(palette, rng), rng, "corner")
    _dress(brief, pictures=3)


def _sofa_and_tv(brief: Brief) -> Placed | None:
    """A television against a wall and the sofa opposite, at a distance for watching."""
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    for seats in (3, 2):
        sofa = furniture.sofa(palette, rng, seats=seats).centred()
        stand = furniture.tv_stand(palette, rng, width=1.7 if seats == 3 else 1.4).centred()
        television = decor.tv(palette, rng)
        for spot in layout.wall_spots(stand, rng, "middle"):
            placed = layout.put(stand, spot)
            if placed is None:
                continue
            screen = layout.beside(placed, television, 0.0, -0.04, on=True)
            seat = _sit_opposite(layout, placed, sofa) if screen else None
            if seat:
                return seat
            if screen:
                layout.remove(screen)
            layout.remove(placed)
    return layout.against_wall(furniture.sofa(palette, rng, seats=2), rng, "middle")


def _sit_opposite(layout: RoomLayout, stand: Placed, sofa: Model) -> Placed | None:
    across = abs(np.sin(stand.spot.angle_rad)) > 0.5
    room_depth = layout.inside.width if across else layout.inside.depth
    stand_depth, sofa_depth = float(stand.model.size()[1]), float(sofa.size()[1])
    to_wall = room_depth - (stand_depth + sofa_depth) / 2 - 0.04
    options = [to_wall] if to_wall < 4.4 else [3.3, 3.0, 3.6, to_wall]
    for distance in options:
        for dx in (0.0, 0.3, -0.3):
            seat = layout.beside(stand, sofa, dx, distance, np.pi)
            if seat:
                return seat
    return None


def _kitchen(brief: Brief) -> None:
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    _kitchen_line(brief)
    if brief.dines:
        _dining_set(brief)
    layout.against_wall(decor.plant(palette, rng), rng, "corner")
    _dress(brief, pictures=1, curtains=False)


def _kitchen_line(brief: Brief) -> None:
    """Refrigerator, counters, sink and stove side by side along the wall that takes most of them."""
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    fridge = fixtures.refrigerator(palette, rng)
    runs = sorted(_free_runs(layout, fixtures.COUNTER_DEPTH_M + 0.1), key=lambda run: run[1] - run[2])
    for side, low, high in runs:
        room = high - low - 0.04
        spare = room - (0.64 + 0.8 + 0.6)
        if spare < 0.25:
            continue
        first, second = min(0.3 * spare, 0.9), min(0.35 * spare, 0.9)
        third = min(spare - first - second, 0.9)
        units = [
            fridge,
            fixtures.kitchen_counter(palette, rng, width=first) if first > 0.2 else None,
            fixtures.kitchen_sink(palette, rng),
            fixtures.kitchen_counter(palette, rng, width=second) if second > 0.2 else None,
            fixtures.stove(palette, rng),
            fixtures.kitchen_counter(palette, rng, width=third) if third > 0.2 else None,
        ]
        standing = [unit.centred() for unit in units if unit]
        # The front of south and west walls runs the other way round, so the tall piece is put in a corner.
        start_low = (
            low < 0.1 or high < (layout.inside.width if side in ("south", "north") else layout.inside.depth) - 0.1
        )
        if _stand_in_row(layout, standing, side, low if start_low else high, 1 if start_low else -1):
            _wall_cabinets(brief)
            return
    layout.against_wall(fixtures.kitchen_sink(palette, rng), rng, "corner")
    layout.against_wall(fixtures.stove(palette, rng), rng, "corner")
    layout.against_wall(fridge, rng, "corner")
    layout.against_wall(fixtures.kitchen_counter(palette, rng, width=0.6), rng, "corner")
    _wall_cabinets(brief)


def _free_runs(layout: RoomLayout, depth: float) -> list[tuple[Side, float, float]]:
    """Stretches of wall (side, from, to along it) with no door zone within `depth`."""
    r = layout.inside
    runs: list[tuple[Side, float, float]] = []
    sides: tuple[Side, ...] = ("south", "east", "north", "west")
    for side in sides:
        along_x = side in ("south", "north")
        length = r.width if along_x else r.depth
        taken = []
        for zone in [*(o.zone(0.95, 0.12) for o in layout.doors), *(rect for rect, _, _ in layout.blocked)]:
            near = {
                "south": zone.y0 < r.y0 + depth, "north": zone.y1 > r.y1 - depth,
                "west": zone.x0 < r.x0 + depth, "east": zone.x1 > r.x1 - depth,
            }[side]  # fmt: skip
            if near:
                taken.append((zone.x0 - r.x0, zone.x1 - r.x0) if along_x else (zone.y0 - r.y0, zone.y1 - r.y0))
        start = 0.0
        for low, high in [*sorted(taken), (length, length)]:
            if low - start > 0.5:
                runs.append((side, start, min(low, length)))
            start = max(start, high)
    return runs


def _stand_in_row(layout: RoomLayout, units: list[Model], side: Side, start: float, step: int) -> bool:
    """Put all units side by side from `start`; all or none."""
    done: list[Placed] = []
    along = start + step * 0.02
    for unit in units:
        width, depth = unit.size()[:2]
        placed = layout.put(unit, layout.at_wall(side, along + step * float(width) / 2, float(depth)))
        if placed is None:
            for earlier in reversed(done):
                layout.remove(earlier)
            return False
        done.append(placed)
        along += step * (float(width) + 0.002)
    return True


def _wall_cabinets(brief: Brief) -> None:
    """Cabinets on the wall over the units, where there is no window."""
    for unit in list(brief.layout.placed):
        if unit.model.category in ("kitchen_counter", "sink"):
            width = float(unit.model.size()[0])
            cabinet = fixtures.wall_cabinet(brief.palette, brief.rng, width=width - 0.004)
            back = (float(cabinet.size()[1]) - float(unit.model.size()[1])) / 2
            brief.layout.beside(unit, cabinet, 0.0, back)


def _bedroom(brief: Brief) -> None:
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    bed = None
    for double in (True, False):
        bed = bed or layout.against_wall(
            furniture.bed(palette, rng, double=double), rng, "middle", away_from_doors=True
        )
    if bed:
        stand = furniture.nightstand(palette, rng).centred()
        width, depth = stand.size()[:2]
        for side in (-1, 1):
            x = side * (float(bed.model.size()[0] + width) / 2 + 0.03)
            table = layout.beside(bed, stand, x, float(depth - bed.model.size()[1]) / 2)
            if table:
                layout.beside(table, decor.table_lamp(palette, rng), 0.0, -0.03, on=True)
        _rug(brief, bed, 0.45, float(bed.model.size()[0]) + 1.0, 1.7)
    for doors in (4, 3, 2):
        if layout.against_wall(furniture.wardrobe(palette, rng, doors=doors), rng, "corner"):
            break
    if brief.wants():
        chest = layout.against_wall(furniture.dresser(palette, rng), rng)
        if chest:
            glass = decor.picture(palette, rng) if rng.random() < 0.3 else _mirror(brief, 0.7, 0.7, 1.1)
            layout.beside(chest, glass, 0.0, (float(glass.size()[1]) - float(chest.model.size()[1])) / 2)
    layout.against_wall(decor.plant(palette, rng), rng, "corner")
    if brief.wants():
        layout.against_wall(furniture.chair(palette, rng), rng)
    _dress(brief, pictures=2)


def _bathroom(brief: Brief) -> None:
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    if not layout.against_wall(fixtures.bathtub(palette, rng), rng, "corner", away_from_doors=True):
        layout.against_wall(fixtures.shower(palette, rng), rng, "corner")
    basin = layout.against_wall(fixtures.washbasin(palette, rng), rng)
    if basin:
        glass = _mirror(brief, 0.6, 0.8, 1.15)
        layout.beside(basin, glass, 0.0, (float(glass.size()[1]) - float(basin.model.size()[1])) / 2)
    layout.against_wall(fixtures.toilet(palette, rng), rng)
    if brief.wants():
        layout.against_wall(fixtures.washing_machine(palette, rng), rng, "corner")
    mat = decor.rug(palette, rng, width=0.8, depth=0.55).centred()
    tub = layout.placed[-1] if basin is None else basin
    layout.lay_flat(mat, layout.relative(tub, 0.0, float(tub.model.size()[1]) / 2 + 0.35))
    _dress(brief, pictures=0, curtains=False)


def _dining_room(brief: Brief) -> None:
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    _dining_set(brief)
    layout.against_wall(furniture.sideboard(palette, rng), rng, "middle")
    layout.against_wall(decor.plant(palette, rng), rng, "corner")
    if brief.wants():
        layout.against_wall(furniture.bookshelf(palette, rng), rng, "corner")
    _dress(brief, pictures=3)


def _study(brief: Brief) -> None:
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    table = layout.against_wall(furniture.desk(palette, rng), rng, "middle", away_from_doors=True)
    if table:
        seat = furniture.office_chair(palette, rng)
        reach = float(table.model.size()[1] + seat.size()[1]) / 2
        layout.beside(table, seat, -0.2, reach + 0.03, np.pi)
    shelf = furniture.bookshelf(palette, rng)
    for _ in range(2):
        layout.against_wall(shelf, rng, "corner")
    if brief.wants():
        layout.against_wall(furniture.armchair(palette, rng), rng, "corner")
    layout.against_wall(decor.floor_lamp(palette, rng), rng, "corner")
    layout.against_wall(decor.plant(palette, rng), rng, "corner")
    _dress(brief, pictures=2)


def _hallway(brief: Brief) -> None:
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    layout.against_wall(furniture.bench(palette, rng), rng, "corner")
    layout.against_wall(decor.plant(palette, rng), rng, "corner")
    layout.against_wall(_mirror(brief, 0.5, 1.3, 0.6), rng)
    inside = layout.inside
    along_x = inside.width >= inside.depth
    runner = decor.rug(palette, rng, width=min(2.6, 0.5 * max(inside.width, inside.depth)), depth=0.7)
    layout.lay_flat(runner, Spot(*inside.center, 0.0 if along_x else np.pi / 2))
    _dress(brief, pictures=2, curtains=False)


def _dining_set(brief: Brief) -> None:
    """A table with chairs along its sides, where at least two chairs find room."""
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    inside = layout.inside
    large = brief.layout.room.kind == "dining_room"
    for length in (1.8, 1.4, 0.9) if large else (1.4, 0.9):
        table = furniture.dining_table(palette, rng, length=length).centred()
        spots = [
            Spot(inside.x0 + u * inside.width, inside.y0 + v * inside.depth, angle)
            for u in np.linspace(0.2, 0.8, 7)
            for v in np.linspace(0.2, 0.8, 7)
            for angle in (0.0, np.pi / 2)
        ]
        center = inside.center
        pull = 1.0 if large else 0.1
        noise = rng.uniform(0, 0.8, len(spots))
        order = np.argsort(
            [pull * np.hypot(s.x - center[0], s.y - center[1]) + n for s, n in zip(spots, noise, strict=True)]
        )
        for k in order:
            placed = layout.put(table, spots[int(k)])
            if placed is None:
                continue
            if _chairs_around(brief, placed, length) >= (4 if length > 1 else 2):
                return
            while layout.placed[-1] is not placed:
                layout.remove(layout.placed[-1])
            layout.remove(placed)


def _chairs_around(brief: Brief, table: Placed, length: float) -> int:
    chair = furniture.chair(brief.palette, brief.rng).centred()
    width, depth = (float(v) for v in table.model.size()[:2])
    reach = float(chair.size()[1]) / 2 + 0.02
    per_side = 1 if length < 1.2 else 2 if length < 1.7 else 3
    count = 0
    for i in range(per_side):
        x = (i - (per_side - 1) / 2) * width / per_side
        for side in (-1, 1):
            turn = 0.0 if side < 0 else np.pi
            count += brief.layout.beside(table, chair, x, side * (depth / 2 + reach), turn) is not None
    return count


def _rug(brief: Brief, anchor: Placed, dy: float, width: float, depth: float) -> None:
    """A rug before (and partly under) a piece, smaller where the room is."""
    layout = brief.layout
    for scale in (1.0, 0.85, 0.7):
        mat = decor.rug(brief.palette, brief.rng, width=scale * width, depth=scale * depth)
        if layout.lay_flat(mat, layout.relative(anchor, 0.0, dy)):
            return


def _mirror(brief: Brief, width: float, height: float, mount_z: float) -> Model:
    return decor.mirror(brief.palette, brief.rng, width=width, height=height, mount_z=mount_z).centred()


def _dress(brief: Brief, *, pictures: int, curtains: bool = True) -> None:
    """Curtains at the windows, radiators under them, pictures on what is left of the walls."""
    layout, palette, rng = brief.layout, brief.palette, brief.rng
    for window in layout.windows:
        if curtains:
            top = min(window.head_m + 0.15, layout.height_m - 0.08)
            model = decor.curtain(palette, rng, width=window.width_m, top_m=top).centred()
            layout.put(model, _window_spot(layout, window, model))
        panel = decor.radiator(palette, rng).centred()
        if window.sill_m > 0.7 and window.width_m > 0.9:
            layout.put(panel, _window_spot(layout, window, panel))
    for _ in range(pictures):
        if brief.wants():
            layout.against_wall(decor.picture(palette, rng), rng, "middle")


def _window_spot(layout: RoomLayout, window: Opening, model: Model) -> Spot:
    inside, depth = layout.inside, float(model.size()[1])
    if window.axis == "x":
        side: Side = "west" if window.line < inside.x0 else "east"
        return layout.at_wall(side, window.middle - inside.y0, depth)
    side = "south" if window.line < inside.y0 else "north"
    return layout.at_wall(side, window.middle - inside.x0, depth)


RECIPES: dict[str, Callable[[Brief], None]] = {
    "living_room": _living_room,
    "kitchen": _kitchen,
    "bedroom": _bedroom,
    "bathroom": _bathroom,
    "dining_room": _dining_room,
    "study": _study,
    "hallway": _hallway,
}
