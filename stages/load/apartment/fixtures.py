"""Kitchen units and bathroom fixtures (front along +y, standing on z = 0 unless mounted)."""

from __future__ import annotations

import numpy as np

from nimbusd.stages.load.apartment.model import BLACK, CERAMIC, CHROME, LINEN, STEEL, WHITE, Model, Palette
from nimbusd.stages.load.apartment.shapes import Mesh, loft, ring, tube
from nimbusd.stages.types import Material

COUNTER_DEPTH_M = 0.6
COUNTER_HEIGHT_M = 0.9


def kitchen_counter(palette: Palette, rng: np.random.Generator, *, width: float) -> Model:
    model = _unit(Model("kitchen_counter", front_m=0.8, fixed=True), palette, width)
    model.box(palette.worktop, (width, COUNTER_DEPTH_M, 0.04), (0, 0, COUNTER_HEIGHT_M - 0.04))
    if width > 0.35:
        z = COUNTER_HEIGHT_M
        if rng.random() < 0.5:
            kettle = [(0.075, 0), (0.08, 0.02), (0.07, 0.14), (0.045, 0.19), (0.012, 0.2), (0.01, 0.22)]
            model.turned(STEEL, kettle, (-0.05, -0.1, z), 18)
        else:
            model.box(palette.wood, (0.3, 0.02, 0.22), (0, -0.24, z), 0.006)
            jar = [(0.04, 0), (0.045, 0.02), (0.045, 0.11), (0.03, 0.13)]
            for k in range(3):
                model.turned(LINEN, jar, (-0.12 + 0.11 * k, -0.12, z), 14)
    return model


def kitchen_sink(palette: Palette, rng: np.random.Generator) -> Model:
    model = _unit(Model("sink", front_m=0.8, fixed=True), palette, 0.8)
    z, half_x, half_y = COUNTER_HEIGHT_M, 0.29, 0.2
    # The worktop leaves the basin's hole open: four strips around it.
    for side in (-1, 1):
        model.box(palette.worktop, (0.4 - half_x, COUNTER_DEPTH_M, 0.04), (side * (0.4 + half_x) / 2, 0, z - 0.04))
        depth = COUNTER_DEPTH_M / 2 - half_y
        model.box(palette.worktop, (2 * half_x, depth, 0.04), (0, side * (half_y + depth / 2), z - 0.04))
    model.add(STEEL, _basin(half_x + 0.012, half_y + 0.012, 0.17, 0.8), (0, 0, z - 0.163))
    _faucet(model, (0, -0.245, z), reach=0.2, rise=float(rng.uniform(0.26, 0.32)))
    return model


def stove(palette: Palette, rng: np.random.Generator) -> Model:  # noqa: ARG001
    model = Model("stove", front_m=0.8, fixed=True)
    body = STEEL if rng.random() < 0.6 else WHITE
    z = COUNTER_HEIGHT_M
    model.box(BLACK, (0.58, 0.5, 0.1), (0, -0.03, 0))
    model.box(body, (0.6, 0.56, z - 0.12), (0, -0.02, 0.1))
    model.box(
        Material("ceramic_hob", (0.015, 0.015, 0.017), roughness=0.08), (0.6, COUNTER_DEPTH_M, 0.02), (0, 0, z - 0.02)
    )
    for x, y, r in ((-0.15, 0.12, 0.09), (0.15, 0.12, 0.075), (-0.15, -0.14, 0.075), (0.15, -0.14, 0.1)):
        model.turned(Material("hob_ring", (0.12, 0.12, 0.12), roughness=0.3), [(r, 0), (r, 0.002)], (x, y, z), 24)
    model.box(Material("oven_glass", (0.02, 0.02, 0.022), roughness=0.05), (0.5, 0.02, 0.42), (0, 0.265, 0.22), 0.004)
    model.handle((0, 0.275, 0.69), 0.46, material=CHROME)
    for k in range(5):
        knob = tube([(0, 0, 0), (0, 0.025, 0)], 0.018, 12, 0.014)
        model.add(BLACK, knob, (-0.2 + 0.1 * k, 0.26, 0.8))
    pot = [(0.09, 0), (0.1, 0.01), (0.1, 0.12), (0.094, 0.12), (0.094, 0.02)]
    model.turned(STEEL, pot, (-0.15, -0.14, z + 0.002), 20)
    return model


def refrigerator(palette: Palette, rng: np.random.Generator) -> Model:  # noqa: ARG001 - one signature for all makers
    model = Model("refrigerator", front_m=0.8)
    body = STEEL if rng.random() < 0.5 else WHITE
    width, depth, height = 0.62, 0.66, rng.uniform(1.75, 1.95)
    split = 0.36 * height
    model.box(BLACK, (width - 0.06, depth - 0.1, 0.05), (0, -0.03, 0))
    model.box(body, (width, depth - 0.07, height - 0.04), (0, -0.035, 0.04), 0.008)
    for z, tall in ((0.06, split - 0.07), (split, height - split - 0.005)):
        model.box(body, (width - 0.004, 0.055, tall), (0, depth / 2 - 0.04, z), 0.015)
    model.handle((width / 2 - 0.06, depth / 2 - 0.014, split - 0.2), 0.28, upright=True, material=CHROME)
    model.handle((width / 2 - 0.06, depth / 2 - 0.014, split + 0.3), 0.45, upright=True, material=CHROME)
    return model


def wall_cabinet(palette: Palette, rng: np.random.Generator, *, width: float) -> Model:  # noqa: ARG001
    model = Model("cabinet", mount_z_m=1.5, fixed=True)
    model.box(WHITE, (width, 0.31, 0.65), (0, -0.02, 0), 0.003)
    _doors(model, palette.front, width, 0.15, 0.65, 0.0, low_handles=True)
    return model


def bathtub(palette: Palette, rng: np.random.Generator) -> Model:  # noqa: ARG001
    model = Model("bathtub", front_m=0.5, fixed=True)
    length, depth, height = float(rng.choice([1.5, 1.6, 1.7])), 0.72, 0.56
    hx, hy = length / 2, depth / 2
    loops = [
        ring(hx - 0.03, hy - 0.03, 0, 32, 0.85), ring(hx, hy, height - 0.03, 32, 1.0), ring(hx, hy, height, 32, 1.0),
        ring(hx - 0.07, hy - 0.07, height, 32, 0.7), ring(hx - 0.1, hy - 0.1, height - 0.03, 32, 0.65),
        ring(hx - 0.2, hy - 0.17, 0.16, 32, 0.6), ring(hx - 0.3, hy - 0.24, 0.12, 32, 0.5),
    ]  # fmt: skip
    model.add(CERAMIC, loft(loops))
    # The apron hides the outer shell, so that corners meet the wall.
    for side in (-1, 1):
        model.box(CERAMIC, (length, 0.02, height - 0.005), (0, side * (hy - 0.01), 0), 0.004)
        model.box(CERAMIC, (0.02, depth - 0.04, height - 0.005), (side * (hx - 0.01), 0, 0), 0.004)
    _faucet(model, (hx - 0.05, 0, height), reach=0.15, rise=0.14, along_x=True)
    return model


def toilet(palette: Palette, rng: np.random.Generator) -> Model:  # noqa: ARG001
    model = Model("toilet", front_m=0.5, fixed=True)
    foot = [ring(0.12, 0.2, 0, 24), ring(0.11, 0.19, 0.06, 24), ring(0.12, 0.19, 0.18, 24), ring(0.18, 0.25, 0.36, 24)]
    inner = [
        ring(0.18, 0.25, 0.4, 24),
        ring(0.13, 0.19, 0.4, 24),
        ring(0.11, 0.16, 0.3, 24),
        ring(0.05, 0.08, 0.22, 24),
    ]
    model.add(CERAMIC, loft(foot + inner), (0, 0.1, 0))
    seat = [
        ring(0.185, 0.255, 0.4, 24),
        ring(0.19, 0.26, 0.425, 24),
        ring(0.13, 0.19, 0.425, 24),
        ring(0.125, 0.185, 0.4, 24),
    ]
    model.add(WHITE, _annulus(seat), (0, 0.1, 0))
    lid = loft([ring(0.185, 0.235, 0.0, 24, 0.1), ring(0.185, 0.235, 0.025, 24, 0.1)]).turned("x", np.pi / 2 + 0.12)
    model.add(WHITE, lid, (0, -0.125, 0.66))
    tank = 0.38 + 0.02 * float(rng.random())
    model.box(CERAMIC, (tank, 0.17, 0.38), (0, -0.245, 0.4), 0.025)
    model.box(CERAMIC, (tank + 0.02, 0.185, 0.03), (0, -0.245, 0.78), 0.01)
    model.box(CERAMIC, (0.2, 0.2, 0.4), (0, -0.2, 0), 0.02)
    model.turned(CHROME, [(0.02, 0), (0.02, 0.006)], (0, -0.245, 0.81), 16)
    return model


def washbasin(palette: Palette, rng: np.random.Generator) -> Model:
    model = Model("washbasin", front_m=0.6, fixed=True)
    width, depth, z = rng.uniform(0.6, 0.8), 0.46, 0.82
    model.box(BLACK, (width - 0.06, depth - 0.08, 0.08), (0, -0.02, 0))
    model.box(WHITE, (width - 0.01, depth - 0.04, z - 0.1), (0, -0.01, 0.08), 0.003)
    _doors(model, palette.front, width - 0.01, depth / 2 - 0.02, z - 0.12, 0.1)
    model.add(CERAMIC, _basin(width / 2, depth / 2, 0.14, 0.9), (0, 0, z - 0.045))
    _faucet(model, (0, -depth / 2 + 0.045, z + 0.09), reach=0.12, rise=0.12)
    return model


def shower(palette: Palette, rng: np.random.Generator) -> Model:  # noqa: ARG001
    model = Model("shower", front_m=0.6, fixed=True)
    side = float(rng.choice([0.8, 0.9]))
    model.box(CERAMIC, (side, side, 0.05), (0, 0, 0), 0.01)
    glass = Material("shower_glass", (0.9, 0.95, 0.95), roughness=0.02, opacity=0.15)
    for x in (-1, 1):
        model.box(glass, (0.008, side - 0.04, 1.9), (x * (side / 2 - 0.012), 0, 0.05))
        model.box(CHROME, (0.02, 0.02, 1.92), (x * (side / 2 - 0.012), side / 2 - 0.012, 0.05))
    model.box(glass, (side * 0.5, 0.008, 1.9), (-side * 0.23, side / 2 - 0.012, 0.05))
    model.post(CHROME, 0.01, (0, -side / 2 + 0.03, 1.0), (0, -side / 2 + 0.03, 2.0))
    model.add(CHROME, tube([(0, -side / 2 + 0.03, 2.0), (0, -side / 2 + 0.16, 2.04), (0, -side / 2 + 0.3, 2.0)], 0.01))
    model.turned(CHROME, [(0.1, 0), (0.1, 0.012), (0.02, 0.03)], (0, -side / 2 + 0.3, 1.97))
    return model


def washing_machine(palette: Palette, rng: np.random.Generator) -> Model:  # noqa: ARG001
    model = Model("washing_machine", front_m=0.6)
    model.box(WHITE, (0.6, 0.56, 0.83 + 0.01 * float(rng.random())), (0, -0.01, 0.015), 0.01)
    model.legs(BLACK, 0.26, 0.22, 0.03, 0.02)
    porthole = loft([ring(r, r, z, 28) for r, z in ((0.2, 0), (0.2, 0.02), (0.17, 0.035), (0.16, 0.02))])
    model.add(CHROME, porthole.turned("x", -np.pi / 2), (0, 0.268, 0.44))
    glass = loft([ring(0.16, 0.16, 0, 28), ring(0.12, 0.12, 0.02, 28)]).turned("x", -np.pi / 2)
    model.add(Material("porthole", (0.03, 0.035, 0.045), roughness=0.05), glass, (0, 0.288, 0.44))
    model.box(BLACK, (0.16, 0.01, 0.06), (0.1, 0.27, 0.73))
    model.add(STEEL, tube([(0, 0, 0), (0, 0.02, 0)], 0.03, 16), (-0.12, 0.268, 0.76))
    return model


def _unit(model: Model, palette: Palette, width: float) -> Model:
    """A base unit under a worktop: recessed plinth, carcass, doors with handles."""
    model.box(BLACK, (width, 0.5, 0.1), (0, -0.03, 0))
    model.box(
        WHITE, (width, 0.54, COUNTER_HEIGHT_M - 0.14 - (0.17 if model.category == "sink" else 0)), (0, -0.03, 0.1)
    )
    _doors(model, palette.front, width, 0.25, COUNTER_HEIGHT_M - 0.15, 0.105)
    return model


def _doors(
    model: Model, material: Material, width: float, y: float, height: float, z: float, *, low_handles: bool = False
) -> None:
    """One door, or two where it is wide, over a carcass that ends at y."""
    count = 2 if width > 0.62 else 1
    for i in range(count):
        x = (i - (count - 1) / 2) * width / count
        model.box(material, (width / count - 0.006, 0.02, height - 0.01), (x, y, z + 0.005), 0.003)
        model.handle((x, y + 0.01, z + (0.05 if low_handles else height - 0.06)), min(0.16, width / 3))


def _basin(half_x: float, half_y: float, depth: float, squareness: float) -> Mesh:
    """A bowl with a thin wall, open above, its rim at z = depth."""
    size = [
        (0.9, 0.0), (1.0, depth - 0.01), (1.0, depth), (0.9, depth), (0.86, depth - 0.01), (0.78, 0.03), (0.5, 0.015),
    ]  # fmt: skip
    return loft([ring(half_x * k, half_y * k, z, 28, squareness) for k, z in size])


def _annulus(loops: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]) -> Mesh:
    """A closed ring over loops that go around its cross-section, without caps."""
    open_skin = loft([*loops, loops[0]])
    caps = 2 * len(loops[0])
    return Mesh(open_skin.vertices, open_skin.faces[:-caps])


def _faucet(model: Model, at: tuple[float, float, float], reach: float, rise: float, *, along_x: bool = False) -> None:
    """A mixer tap at `at` whose spout bends towards +y (or -x)."""
    bow = [
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 0.75 * rise),
        (0.0, 0.25 * reach, rise),
        (0.0, 0.75 * reach, rise),
        (0.0, reach, 0.8 * rise),
    ]
    quarter = np.pi / 2 if along_x else 0.0
    model.add(CHROME, tube(bow, 0.012).turned("z", quarter), at)
    model.turned(CHROME, [(0.028, 0), (0.026, 0.012), (0.018, 0.02)], at, 16)
    model.add(CHROME, tube([(0, 0, 0), (0.07, 0, 0.02)], 0.007, 8).turned("z", quarter), (at[0], at[1], at[2] + 0.05))
