"""Beds, seats, tables and storage, each built from its parts in plausible sizes.

Every function makes one `Model` (front along +y, standing on z = 0) with sizes drawn from `rng`.
"""

from __future__ import annotations

import numpy as np

from nimbusd.stages.load.apartment.model import BLACK, BRASS, LINEN, STEEL, WHITE, Model, Palette
from nimbusd.stages.types import Material


def bed(palette: Palette, rng: np.random.Generator, *, double: bool = True) -> Model:
    model = Model("bed", front_m=0.5)
    width, length = (float(rng.choice([1.4, 1.6])) if double else 0.9), 2.0
    frame = palette.wood
    cover = palette.textured("stripes" if rng.random() < 0.4 else "fabric", 2, roughness=0.95)
    model.legs(frame, width / 2 - 0.06, length / 2 - 0.08, 0.14, 0.03, 0.04)
    model.box(frame, (width + 0.06, length + 0.04, 0.16), (0, 0, 0.14), 0.01)
    model.box(frame, (width + 0.08, 0.05, 1.0), (0, -length / 2 - 0.045, 0), 0.012)
    if rng.random() < 0.5:
        for x in (-width / 4, width / 4):
            model.cushion(palette.upholstery, (width / 2 - 0.02, 0.07, 0.42), (x, -length / 2 + 0.005, 0.52))
    model.cushion(LINEN, (width, length - 0.06, 0.2), (0, 0.01, 0.3))
    model.cushion(cover, (width + 0.06, 0.64 * length, 0.19), (0, 0.175 * length, 0.345))
    model.cushion(LINEN, (width + 0.05, 0.2, 0.2), (0, -0.17 * length, 0.345))
    pillows = 2 if double else 1
    for i in range(pillows):
        x = (i - (pillows - 1) / 2) * width / 2
        model.cushion(LINEN, (0.62, 0.38, 0.14), (x, -length / 2 + 0.26, 0.5), -0.2)
    return model


def sofa(palette: Palette, rng: np.random.Generator, *, seats: int = 3) -> Model:
    model = Model("sofa", front_m=0.35)
    return _upholstered(model, palette.upholstery, palette, rng, seats, rng.uniform(0.62, 0.7), rng.uniform(0.12, 0.2))


def armchair(palette: Palette, rng: np.random.Generator) -> Model:
    model = Model("armchair", front_m=0.35)
    cloth = palette.second_fabric if rng.random() < 0.7 else palette.upholstery
    return _upholstered(model, cloth, palette, rng, 1, rng.uniform(0.58, 0.66), rng.uniform(0.1, 0.15))


def _upholstered(
    model: Model, cloth: Material, palette: Palette, rng: np.random.Generator, seats: int, seat: float, arm: float
) -> Model:
    """A base on legs, a back, two arms, seat and back cushions, and a few loose cushions."""
    width, depth = seats * seat + 2 * arm, rng.uniform(0.84, 0.92)
    back_z = rng.uniform(0.76, 0.86)
    model.legs(palette.wood, width / 2 - 0.07, depth / 2 - 0.08, 0.13, 0.015, 0.026)
    model.box(cloth, (width, depth - 0.03, 0.16), (0, 0, 0.12), 0.025)
    model.box(cloth, (width - 2 * arm + 0.04, 0.2, back_z - 0.2), (0, -depth / 2 + 0.11, 0.2), 0.05)
    for side in (-1, 1):
        model.box(cloth, (arm, depth - 0.02, rng.uniform(0.58, 0.6) - 0.12), (side * (width - arm) / 2, 0, 0.12), 0.045)
    for i in range(seats):
        x = (i - (seats - 1) / 2) * seat
        model.cushion(cloth, (seat - 0.012, depth - 0.22, 0.17), (x, 0.1, 0.27))
        model.cushion(cloth, (seat - 0.02, 0.16, 0.42), (x, -depth / 2 + 0.26, 0.43), 0.2)
    for i in range(min(2, seats - 1)):
        x = (i * 2 - 1) * (width / 2 - arm - 0.24)
        model.cushion(palette.second_fabric, (0.42, 0.13, 0.42), (x, -depth / 2 + 0.41, 0.45), 0.4)
    return model


def coffee_table(palette: Palette, rng: np.random.Generator) -> Model:
    model = Model("coffee_table")
    width, depth, height = rng.uniform(0.9, 1.2), rng.uniform(0.5, 0.62), rng.uniform(0.38, 0.44)
    top = palette.wood if rng.random() < 0.7 else palette.worktop
    model.box(top, (width, depth, 0.035), (0, 0, height - 0.035), 0.008)
    model.box(palette.wood, (width - 0.16, depth - 0.14, 0.018), (0, 0, 0.16))
    model.legs(palette.wood, width / 2 - 0.06, depth / 2 - 0.06, height - 0.03, 0.016, 0.025)
    book = palette.textured("fabric", 1)
    model.box(book, (0.27, 0.2, 0.03), (0.1, 0.04, height))
    model.box(WHITE, (0.22, 0.17, 0.025), (0.11, 0.03, height + 0.03))
    model.turned(
        BRASS, [(0.05, 0), (0.11, 0.05), (0.13, 0.09), (0.12, 0.09), (0.09, 0.05), (0.03, 0.02)], (-0.22, 0, height)
    )
    return model


def dining_table(palette: Palette, rng: np.random.Generator, *, length: float = 1.4) -> Model:
    model = Model("dining_table")
    depth, height = float(rng.choice([0.78, 0.85])), 0.75
    model.box(palette.wood, (length, depth, 0.035), (0, 0, height - 0.035), 0.008)
    for side in (-1, 1):
        model.box(palette.wood, (length - 0.2, 0.022, 0.08), (0, side * (depth / 2 - 0.08), height - 0.115))
        model.box(palette.wood, (0.022, depth - 0.16, 0.08), (side * (length / 2 - 0.1), 0, height - 0.115))
    model.legs(palette.wood, length / 2 - 0.1, depth / 2 - 0.08, height - 0.03, 0.022, 0.036)
    vase = [(0.035, 0), (0.06, 0.06), (0.05, 0.14), (0.026, 0.2), (0.034, 0.24), (0.028, 0.24), (0.02, 0.2)]
    model.turned(palette.textured("stone", 1, roughness=0.3), vase, (0.05, 0, height), 16)
    return model


def chair(palette: Palette, rng: np.random.Generator) -> Model:
    model = Model("chair")
    wood, height = palette.wood, 0.45
    model.box(wood, (0.44, 0.44, 0.03), (0, 0, height - 0.05), 0.01)
    model.cushion(palette.second_fabric, (0.42, 0.41, 0.055), (0, 0.005, height - 0.03))
    for x in (-0.19, 0.19):
        model.post(wood, 0.014, (x, 0.19, 0), (x, 0.18, height - 0.04), 0.02)
        model.post(wood, 0.014, (x, -0.2, 0), (x, -0.19, height - 0.04), 0.02)
        model.post(wood, 0.02, (x, -0.195, height - 0.04), (x, -0.245, 0.9), 0.014)
    if rng.random() < 0.5:
        for z in (0.56, 0.69, 0.82):
            y = -0.195 - 0.05 * (z - 0.41) / 0.49
            model.box(wood, (0.38, 0.018, 0.075), (0, y, z), 0.006)
    else:
        model.cushion(palette.second_fabric, (0.37, 0.045, 0.34), (0, -0.215, 0.54), 0.1)
    return model


def office_chair(palette: Palette, rng: np.random.Generator) -> Model:
    model = Model("chair")
    cloth = palette.second_fabric if rng.random() < 0.5 else BLACK
    for k in range(5):
        angle = 2 * np.pi * (k + 0.25) / 5
        x, y = float(np.cos(angle)), float(np.sin(angle))
        model.post(BLACK, 0.022, (0, 0, 0.11), (0.27 * x, 0.27 * y, 0.065), 0.014)
        model.turned(BLACK, [(0.012, 0), (0.026, 0.015), (0.026, 0.045), (0.012, 0.06)], (0.27 * x, 0.27 * y, 0), 10)
    model.post(STEEL, 0.025, (0, 0, 0.08), (0, 0, 0.42))
    model.cushion(cloth, (0.48, 0.46, 0.09), (0, 0.02, 0.41))
    model.post(BLACK, 0.018, (0, -0.16, 0.43), (0, -0.25, 0.62))
    model.cushion(cloth, (0.44, 0.07, 0.5), (0, -0.24, 0.52), 0.12)
    for x in (-0.26, 0.26):
        model.post(BLACK, 0.012, (x, -0.02, 0.44), (x, -0.02, 0.65))
        model.box(BLACK, (0.05, 0.26, 0.03), (x, 0, 0.64), 0.012)
    return model


def desk(palette: Palette, rng: np.random.Generator) -> Model:
    model = Model("desk", front_m=0.75)
    width, depth, height = rng.uniform(1.2, 1.5), rng.uniform(0.6, 0.7), 0.74
    model.box(palette.second_wood, (width, depth, 0.028), (0, 0, height - 0.028), 0.006)
    unit = 0.4
    x = width / 2 - unit / 2 - 0.02
    model.box(WHITE, (unit, depth - 0.06, height - 0.05), (x, 0, 0.02), 0.004)
    for k in range(3):
        z = 0.06 + k * 0.215
        model.box(WHITE, (unit - 0.03, 0.018, 0.2), (x, depth / 2 - 0.025, z), 0.004)
        model.handle((x, depth / 2 - 0.016, z + 0.15), 0.12)
    for y in (-depth / 2 + 0.06, depth / 2 - 0.06):
        model.post(BLACK, 0.018, (-width / 2 + 0.06, y, 0), (-width / 2 + 0.06, y, height - 0.02), 0.022)
    # A closed laptop would read as a box, so the screen stands open.
    model.box(STEEL, (0.34, 0.24, 0.016), (-0.2, 0.06, height), 0.005)
    model.box(BLACK, (0.3, 0.12, 0.003), (-0.2, 0.03, height + 0.015))
    model.box(STEEL, (0.34, 0.012, 0.22), (-0.2, -0.075, height + 0.01), 0.004)
    model.box(
        Material("laptop_screen", (0.05, 0.1, 0.2), roughness=0.15, emission=1.0),
        (0.31, 0.004, 0.19),
        (-0.2, -0.068, height + 0.025),
    )
    model.turned(WHITE, [(0.032, 0), (0.036, 0.09), (0.032, 0.09), (0.03, 0.02)], (0.15, 0.1, height), 14)
    return model


def nightstand(palette: Palette, rng: np.random.Generator) -> Model:
    return _chest(Model("nightstand", fixed=True), palette.wood, palette.wood, rng.uniform(0.42, 0.48), 0.4, 0.48, 2)


def dresser(palette: Palette, rng: np.random.Generator) -> Model:
    front = WHITE if rng.random() < 0.4 else palette.wood
    return _chest(
        Model("dresser", front_m=0.55), palette.wood, front, rng.uniform(0.9, 1.2), 0.45, rng.uniform(0.8, 0.9), 4
    )


def _chest(
    model: Model, body: Material, front: Material, width: float, depth: float, height: float, rows: int
) -> Model:
    """Drawers one above the other, on short legs; two columns where it is wide."""
    columns = 2 if width > 0.8 else 1
    model.legs(body, width / 2 - 0.05, depth / 2 - 0.05, 0.13, 0.014, 0.022)
    model.box(body, (width, depth - 0.02, height - 0.14), (0, -0.01, 0.12), 0.006)
    model.box(body, (width + 0.02, depth, 0.022), (0, 0, height - 0.022), 0.005)
    step, pitch = (height - 0.16) / rows, width / columns
    for row in range(rows):
        for column in range(columns):
            x = (column - (columns - 1) / 2) * pitch
            model.box(front, (pitch - 0.025, 0.02, step - 0.015), (x, depth / 2 - 0.015, 0.13 + row * step), 0.005)
            model.handle((x, depth / 2 - 0.005, 0.13 + (row + 0.55) * step), 0.14, material=BRASS)
    return model


def wardrobe(palette: Palette, rng: np.random.Generator, *, doors: int = 3) -> Model:
    model = Model("wardrobe", front_m=0.65)
    width, depth, height = doors * rng.uniform(0.44, 0.5), 0.6, rng.uniform(2.0, 2.2)
    front = WHITE if rng.random() < 0.5 else palette.second_wood
    model.box(BLACK, (width - 0.04, depth - 0.1, 0.07), (0, -0.02, 0))
    model.box(front, (width, depth - 0.03, height - 0.07), (0, -0.015, 0.07), 0.005)
    for i in range(doors):
        x = (i - (doors - 1) / 2) * width / doors
        model.box(front, (width / doors - 0.006, 0.022, height - 0.1), (x, depth / 2 - 0.015, 0.085), 0.004)
        model.box(front, (width / doors - 0.16, 0.01, height - 0.34), (x, depth / 2 - 0.002, 0.2), 0.004)
        side = 1 if i % 2 == 0 else -1
        model.handle((x + side * (width / doors / 2 - 0.04), depth / 2 - 0.004, 1.05), 0.24, upright=True)
    return model


def bookshelf(palette: Palette, rng: np.random.Generator) -> Model:
    model = Model("bookshelf", front_m=0.55)
    width, depth, rows = rng.uniform(0.75, 1.0), 0.32, 5
    pitch = rng.uniform(0.36, 0.4)
    height, wood = rows * pitch + 0.1, palette.second_wood
    for side in (-1, 1):
        model.box(wood, (0.025, depth, height), (side * (width - 0.025) / 2, 0, 0))
    model.box(wood, (width - 0.05, 0.01, height - 0.02), (0, -depth / 2 + 0.005, 0.01))
    for row in range(rows + 1):
        model.box(wood, (width - 0.05, depth - 0.012, 0.025), (0, 0.005, 0.06 + row * pitch - 0.025 * (row == rows)))
    covers = [
        Material(f"book_{i}", (float(r), float(g), float(b)), roughness=0.7)
        for i, (r, g, b) in enumerate(rng.uniform(0.03, 0.6, (6, 3)) * rng.uniform(0.4, 1.0, (6, 1)))
    ]
    for row in range(rows):
        _books(model, rng, covers, width - 0.07, 0.085 + row * pitch, pitch - 0.06)
    return model


def _books(model: Model, rng: np.random.Generator, covers: list[Material], width: float, z: float, room: float) -> None:
    """A row of standing books that fills part of a shelf board, and sometimes a pot beside them."""
    x, end = -width / 2, width / 2 - rng.uniform(0.0, 0.35) * width
    while True:
        thick = rng.uniform(0.018, 0.05)
        if x + thick > end:
            break
        tall, deep = rng.uniform(0.6, 0.95) * room, rng.uniform(0.15, 0.22)
        cover = covers[int(rng.integers(len(covers)))]
        model.box(cover, (thick - 0.002, deep, tall), (x + thick / 2, -0.02 + (0.22 - deep) / 2 * 0.5, z))
        x += thick
    if width / 2 - x > 0.18:
        pot = [(0.03, 0), (0.06, 0.05), (0.055, 0.12), (0.03, 0.16), (0.035, 0.18), (0.028, 0.18)]
        model.turned(LINEN, pot, ((x + width / 2) / 2, 0, z), 14)


def tv_stand(palette: Palette, rng: np.random.Generator, *, width: float = 1.6) -> Model:
    model = Model("tv_stand", front_m=0.4, fixed=True)
    depth, height = 0.42, rng.uniform(0.45, 0.52)
    model.legs(palette.wood, width / 2 - 0.08, depth / 2 - 0.06, 0.13, 0.014, 0.022)
    model.box(palette.wood, (width, depth - 0.02, height - 0.12), (0, -0.01, 0.12), 0.006)
    for i in range(3):
        x = (i - 1) * width / 3
        model.box(
            WHITE if i != 1 else BLACK, (width / 3 - 0.02, 0.018, height - 0.16), (x, depth / 2 - 0.016, 0.14), 0.004
        )
        if i != 1:
            model.handle((x, depth / 2 - 0.007, height - 0.07), 0.12)
    return model


def sideboard(palette: Palette, rng: np.random.Generator) -> Model:
    model = Model("cabinet", front_m=0.5)
    width, depth, height = rng.uniform(1.3, 1.6), 0.42, rng.uniform(0.78, 0.85)
    model.legs(palette.wood, width / 2 - 0.08, depth / 2 - 0.06, 0.16, 0.015, 0.024)
    model.box(palette.wood, (width, depth - 0.02, height - 0.15), (0, -0.01, 0.15), 0.006)
    for i in range(4):
        x = (i - 1.5) * width / 4
        model.box(palette.second_wood, (width / 4 - 0.015, 0.018, height - 0.19), (x, depth / 2 - 0.016, 0.17), 0.004)
        side = 1 if i % 2 == 0 else -1
        model.handle(
            (x + side * (width / 8 - 0.05), depth / 2 - 0.007, height - 0.25), 0.16, upright=True, material=BRASS
        )
    bowl = [(0.05, 0), (0.12, 0.05), (0.15, 0.1), (0.14, 0.1), (0.1, 0.05), (0.03, 0.02)]
    model.turned(palette.textured("stone", 1, roughness=0.3), bowl, (-width / 4, 0, height), 18)
    return model


def bench(palette: Palette, rng: np.random.Generator) -> Model:
    model = Model("bench", front_m=0.3)
    width, depth = rng.uniform(0.8, 1.1), 0.32
    model.box(palette.wood, (width, depth, 0.03), (0, 0, 0.4), 0.006)
    model.box(palette.wood, (width - 0.1, depth - 0.08, 0.02), (0, 0, 0.14))
    model.cushion(palette.second_fabric, (width - 0.04, depth - 0.03, 0.06), (0, 0, 0.43))
    model.legs(palette.wood, width / 2 - 0.04, depth / 2 - 0.04, 0.41, 0.016, 0.02)
    for i, x in enumerate((-0.2, 0.02)):
        shoe = LINEN if i else BLACK
        model.box(shoe, (0.09, 0.24, 0.07), (x, 0, 0.16), 0.03)
        model.box(shoe, (0.09, 0.24, 0.07), (x + 0.1, 0, 0.16), 0.03)
    return model
