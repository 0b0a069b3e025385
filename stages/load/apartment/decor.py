"""Lamps, plants, rugs, pictures, curtains and screens (front along +y, standing on z = 0 unless mounted)."""

from __future__ import annotations

import numpy as np

from nimbusd.stages.load.apartment.model import BLACK, BRASS, SCREEN, SILVERED, SOIL, STEEL, WHITE, Model, Palette
from nimbusd.stages.load.apartment.shapes import Mesh, box, lathe, leaf, sheet, tube
from nimbusd.stages.types import Material

SHADE = Material("lampshade", (0.9, 0.82, 0.68), roughness=0.9, emission=1.6)
OPAL = Material("opal_glass", (1.0, 0.95, 0.86), roughness=0.5, emission=4.0)


def floor_lamp(palette: Palette, rng: np.random.Generator) -> Model:  # noqa: ARG001 - one signature for all makers
    model = Model("lamp")
    metal, height = (BRASS if rng.random() < 0.5 else BLACK), rng.uniform(1.45, 1.65)
    model.turned(metal, [(0.14, 0), (0.14, 0.015), (0.02, 0.03)], (0, 0, 0), 24)
    model.post(metal, 0.011, (0, 0, 0.02), (0, 0, height - 0.1))
    model.turned(SHADE, [(0.19, 0), (0.14, 0.28), (0.135, 0.28), (0.18, 0.01)], (0, 0, height - 0.28), 24)
    return model


def table_lamp(palette: Palette, rng: np.random.Generator) -> Model:
    model = Model("lamp", fixed=True)
    foot = [(0.06, 0), (0.075, 0.02), (0.09, 0.09), (0.06, 0.17), (0.015, 0.2), (0.012, 0.26)]
    model.turned(palette.textured("stone", 1, roughness=0.25), foot, (0, 0, 0), 18)
    model.turned(
        SHADE, [(0.13, 0), (0.09, 0.18), (0.086, 0.18), (0.124, 0.008)], (0, 0, 0.22 + 0.02 * float(rng.random())), 20
    )
    return model


def ceiling_lamp(palette: Palette, rng: np.random.Generator, *, ceiling_m: float) -> Model:  # noqa: ARG001
    """A pendant or a flat lamp; its z = 0 is its lowest point, hung so that it ends at the ceiling."""
    if rng.random() < 0.5:
        model = Model("ceiling_lamp", mount_z_m=ceiling_m - 0.09, fixed=True)
        model.turned(WHITE, [(0.21, 0.05), (0.21, 0.09)], (0, 0, 0), 28)
        model.turned(OPAL, [(0.08, 0.0), (0.16, 0.015), (0.2, 0.05)], (0, 0, 0), 28)
        return model
    drop = 0.55
    model = Model("ceiling_lamp", mount_z_m=ceiling_m - drop, fixed=True)
    model.post(BLACK, 0.004, (0, 0, 0.2), (0, 0, drop - 0.02))
    model.turned(BLACK, [(0.05, 0), (0.05, 0.025)], (0, 0, drop - 0.025), 18)
    model.turned(OPAL, [(0.02, 0), (0.09, 0.03), (0.125, 0.1), (0.09, 0.18), (0.03, 0.21)], (0, 0, 0), 24)
    return model


def plant(palette: Palette, rng: np.random.Generator) -> Model:
    """A pot with soil, and stems with arching leaves."""
    model = Model("plant")
    radius, height = rng.uniform(0.14, 0.18), rng.uniform(0.26, 0.36)
    pot = [(0.75 * radius, 0), (radius, height), (0.92 * radius, height), (0.88 * radius, height - 0.04)]
    model.turned(palette.textured("stone", int(rng.integers(2)), roughness=0.7), pot, (0, 0, 0), 22)
    model.turned(SOIL, [(0.86 * radius, 0), (0.86 * radius, 0.02)], (0, 0, height - 0.05), 22)
    green = Material("leaf", (0.05 + 0.05 * float(rng.random()), 0.2 + 0.1 * float(rng.random()), 0.04), roughness=0.5)
    stems = int(rng.integers(7, 11))
    for k in range(stems):
        turn, lean, tall = 2 * np.pi * (k + rng.uniform(0, 0.6)) / stems, rng.uniform(0.08, 0.2), rng.uniform(0.3, 0.75)
        x, y = lean * float(np.cos(turn)), lean * float(np.sin(turn))
        top = (x, y, height + tall)
        model.add(
            green,
            tube([(0.2 * x, 0.2 * y, height - 0.04), (0.5 * x, 0.5 * y, height + 0.6 * tall), top], 0.006, 6, 0.003),
        )
        for j in range(4):
            blade = leaf(rng.uniform(0.16, 0.24), rng.uniform(0.07, 0.11), rng.uniform(0.03, 0.1))
            share = 0.55 + 0.15 * j
            swing = turn + rng.uniform(-1.2, 1.2)
            at = (x * share, y * share, height + tall * (0.4 + 0.2 * j) * 1.0)
            model.add(green, blade.turned("y", -rng.uniform(0.1, 0.7)).turned("z", swing), at)
    return model


def rug(palette: Palette, rng: np.random.Generator, *, width: float, depth: float) -> Model:
    model = Model("rug", fixed=True)
    kind = "stripes" if rng.random() < 0.5 else "carpet"
    number = int(rng.integers(2))
    model.box(palette.textured(kind, number, roughness=1.0), (width, depth, 0.01), (0, 0, 0))
    border = palette.textured("fabric", 0, tint=(0.6, 0.6, 0.6), roughness=1.0)
    for side in (-1, 1):
        model.box(border, (width, 0.06, 0.012), (0, side * (depth - 0.06) / 2, 0))
        model.box(border, (0.06, depth - 0.12, 0.012), (side * (width - 0.06) / 2, 0, 0))
    return model


def picture(palette: Palette, rng: np.random.Generator) -> Model:
    """A framed painting with a mat, hung so that its middle is at eye height."""
    width = float(rng.choice([0.5, 0.7, 0.9]))
    height = width * float(rng.choice([0.7, 1.0, 1.3])) if width < 0.9 else 0.65
    model = Model("picture", mount_z_m=1.55 - height / 2, fixed=True)
    frame = palette.wood if rng.random() < 0.5 else BLACK
    model.box(WHITE, (width - 0.02, 0.012, height - 0.02), (0, 0, 0.01))
    canvas = box((width - 0.14, 0.004, height - 0.14))
    uvs = canvas.vertices[canvas.faces][:, :, [0, 2]] / np.array([width - 0.14, height - 0.14]) * [-1, 1] + 0.5
    model.add(
        palette.painting(int(rng.integers(1 << 16))), Mesh(canvas.vertices, canvas.faces, uvs), (0, 0.008, height / 2)
    )
    for side in (-1, 1):
        model.box(frame, (0.025, 0.03, height), (side * (width - 0.025) / 2, 0.009, 0))
        model.box(frame, (width - 0.05, 0.03, 0.025), (0, 0.009, (height - 0.025) * (side > 0)))
    return model


def mirror(palette: Palette, rng: np.random.Generator, *, width: float, height: float, mount_z: float) -> Model:
    """A framed mirror that hangs on the wall."""
    model = Model("mirror", mount_z_m=mount_z, fixed=True)
    frame = palette.wood if rng.random() < 0.5 else BLACK
    model.box(frame, (width, 0.015, height), (0, 0, 0))
    model.box(SILVERED, (width - 0.06, 0.004, height - 0.06), (0, 0.0095, 0.03))
    for side in (-1, 1):
        model.box(frame, (0.03, 0.014, height), (side * (width - 0.03) / 2, 0.0145, 0))
        model.box(frame, (width - 0.06, 0.014, 0.03), (0, 0.0145, (height - 0.03) * (side > 0)))
    return model


def tv(palette: Palette, rng: np.random.Generator) -> Model:  # noqa: ARG001
    model = Model("tv", fixed=True)
    width = float(rng.choice([1.1, 1.23, 1.45]))
    height = width * 9 / 16
    for x in (-width / 3, width / 3):
        model.box(BLACK, (0.03, 0.2, 0.015), (x, 0, 0), 0.004)
        model.box(BLACK, (0.02, 0.02, 0.08), (x, 0, 0.01))
    model.box(BLACK, (width, 0.03, height), (0, 0, 0.07), 0.006)
    model.box(BLACK, (0.5 * width, 0.05, 0.5 * height), (0, -0.03, 0.12), 0.02)
    model.box(SCREEN, (width - 0.02, 0.004, height - 0.02), (0, 0.015, 0.08))
    return model


def curtain(palette: Palette, rng: np.random.Generator, *, width: float, top_m: float) -> Model:
    """A pair of open curtains on a rod over a window of `width`, reaching nearly to the floor."""
    model = Model("curtain", mount_z_m=0.03, fixed=True)
    cloth = palette.textured("fabric", 3, tint=(1.0, 0.98, 0.94), roughness=0.95)
    rod_z, overhang = top_m - 0.03, 0.3
    half = width / 2 + overhang
    model.post(STEEL, 0.012, (-half, 0, rod_z), (half, 0, rod_z))
    for side in (-1, 1):
        ball = lathe([(0.006, -0.022), (0.022, -0.01), (0.022, 0.01), (0.006, 0.022)], 12)
        model.add(STEEL, ball, (side * half, 0, rod_z))
        span = rng.uniform(0.3, 0.36)
        x = np.linspace(0, span, 33)
        folds = 0.028 * np.sin(2 * np.pi * x / span * 5 + rng.uniform(0, 6)) + 0.006 * np.sin(2 * np.pi * x / span * 2)
        start = -half + 0.02 if side < 0 else half - 0.02 - span
        model.add(cloth, sheet(np.column_stack([start + x, folds]), 0.006, 0.0, rod_z - 0.015))
    return model


def radiator(palette: Palette, rng: np.random.Generator) -> Model:  # noqa: ARG001
    """A panel radiator for the wall under a window."""
    model = Model("radiator", mount_z_m=0.12, fixed=True)
    count = int(rng.integers(12, 18))
    for k in range(count):
        model.box(WHITE, (0.04, 0.05, 0.5), ((k - (count - 1) / 2) * 0.05, 0, 0.02), 0.008)
    for z in (0.05, 0.46):
        model.box(WHITE, (count * 0.05, 0.025, 0.03), (0, -0.01, z))
    return model
