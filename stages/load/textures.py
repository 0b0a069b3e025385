"""Seamless procedural textures: small pictures of materials, drawn with numpy from a generator's numbers.

Every texture shows a square of `SPAN_M` metres and continues over its edges, so that surfaces whose texture
coordinates are metres / SPAN_M look right with any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nimbusd.stages.types import F64, U8

SPAN_M = 1.6
"""Edge length, in metres, of the square that one texture shows."""

Palette = Sequence[tuple[int, int, int]]

_WOODS: Palette = ((196, 154, 108), (160, 112, 70), (120, 78, 48), (214, 182, 140), (92, 62, 44), (180, 130, 92))
_TILES: Palette = ((224, 222, 216), (200, 204, 204), (188, 176, 160), (168, 182, 188), (214, 200, 178), (140, 144, 148))
_PAINTS: Palette = (
    (236, 232, 224), (228, 226, 222), (226, 216, 198), (206, 216, 214), (214, 220, 226), (222, 208, 202),
    (204, 212, 194),
)  # fmt: skip
_CLOTHS: Palette = (
    (110, 118, 128), (150, 140, 126), (92, 108, 128), (134, 94, 82), (104, 118, 96), (176, 168, 156), (70, 76, 86),
    (168, 132, 84), (128, 104, 122),
)  # fmt: skip
_STONES: Palette = ((222, 220, 216), (150, 148, 146), (86, 86, 90), (196, 184, 168), (112, 104, 98))
_BRICKS: Palette = ((158, 88, 66), (176, 108, 82), (140, 80, 64), (188, 150, 124), (206, 198, 188))
_GRASSES: Palette = ((92, 122, 58), (106, 130, 66), (80, 108, 60))


def texture(kind: str, rng: np.random.Generator, size_px: int = 512) -> U8:
    """A seamless picture of a material, (size_px, size_px, 3) uint8 sRGB, row 0 at the top.

    kind: one of `KINDS`. Colours and pattern sizes are drawn from `rng`; the grain of wood and planks runs along u.
    Raises ValueError for an unknown kind or a size below 16 pixels.
    """
    if kind not in _PAINTERS:
        raise ValueError(f"texture kind {kind!r} does not exist; choose one of {', '.join(KINDS)}")
    if size_px < 16:
        raise ValueError(f"a texture of {size_px} pixels shows nothing; use at least 16")
    return _to_u8(_PAINTERS[kind](rng, size_px))


def painting(rng: np.random.Generator, size_px: int = 256) -> U8:
    """An abstract picture to hang on a wall: soft fields of four colours, (size_px, size_px, 3) uint8 sRGB."""
    hues = np.array([_CLOTHS[i] for i in rng.permutation(len(_CLOTHS))[:4]], np.float64)
    hues = hues * rng.uniform(0.6, 1.45, (4, 1)) + rng.uniform(-18, 18, (4, 3))
    heights = np.stack([_noise(rng, size_px, rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.3)) for _ in range(4)])
    weights = np.exp(5 * heights)
    image = np.einsum("kij,kc->ijc", weights / weights.sum(axis=0), hues)
    return _to_u8(image * (1 + 0.04 * _noise(rng, size_px, 0.006, 0.006))[..., None])


def _wood(rng: np.random.Generator, size: int) -> F64:
    return _shade(_pick(rng, _WOODS), _grain(rng, size))


def _planks(rng: np.random.Generator, size: int) -> F64:
    """Boards along u, two per row with a joint at a random place, each with its own tone and grain."""
    rows = int(rng.choice([8, 10, 12, 16]))
    u, v = _grid(size)
    row = np.floor(v * rows).astype(int)
    joints = np.sort((rng.uniform(0, 1, (rows, 1)) + np.array([[0.0, rng.uniform(0.35, 0.65)]])) % 1, axis=1)
    board = ((u >= joints[row, 0]) & (u < joints[row, 1])).astype(int)
    tone = rng.uniform(-0.16, 0.16, (rows, 2))[row, board]
    # Shifting the grain from board to board hides that all boards are cut from one picture.
    shift = rng.integers(0, size, (rows, 2))[row, board]
    grain = np.take_along_axis(_grain(rng, size), ((u * size).astype(int) + shift) % size, axis=1)
    end_gap = np.min([_periodic_distance(u, joints[row, side]) for side in (0, 1)], axis=0)
    gap = np.minimum(_periodic_distance(v * rows % 1, 0.0) / rows, end_gap)
    groove = np.clip(gap * SPAN_M / 0.004, 0, 1)
    return _shade(_pick(rng, _WOODS), 0.7 * grain + tone) * (0.45 + 0.55 * groove)[..., None]


def _tiles(rng: np.random.Generator, size: int) -> F64:
    count = int(rng.choice([4, 5, 6, 8]))
    u, v = _grid(size)
    column, row = np.floor(u * count).astype(int), np.floor(v * count).astype(int)
    tone = rng.uniform(-0.05, 0.05, (count, count))[row, column]
    if rng.random() < 0.25:
        tone += 0.3 * ((column + row) % 2 - 0.5) * (count % 2 == 0)
    gap = np.minimum(_periodic_distance(u * count % 1, 0.0), _periodic_distance(v * count % 1, 0.0)) * SPAN_M / count
    body = _shade(
        _pick(rng, _TILES), tone + 0.03 * _noise(rng, size, 0.05, 0.05) + 0.015 * _noise(rng, size, 0.004, 0.004)
    )
    return _blend(np.array([150.0, 146.0, 140.0]), body, np.clip((gap - 0.0015) / 0.003, 0, 1))


def _plaster(rng: np.random.Generator, size: int) -> F64:
    return _shade(_pick(rng, _PAINTS), 0.012 * _noise(rng, size, 0.004, 0.004) + 0.012 * _noise(rng, size, 0.06, 0.06))


def _fabric(rng: np.random.Generator, size: int) -> F64:
    u, v = _grid(size)
    threads = max(8, size // 8)
    weave = np.sin(2 * np.pi * threads * u) * np.sin(2 * np.pi * threads * v)
    uneven = 0.05 * _noise(rng, size, 0.02, 0.003) + 0.05 * _noise(rng, size, 0.003, 0.02)
    return _shade(_pick(rng, _CLOTHS), 0.07 * weave + uneven + 0.02 * _noise(rng, size, 0.08, 0.08))


def _carpet(rng: np.random.Generator, size: int) -> F64:
    pile = 0.11 * _noise(rng, size, 0.003, 0.003) + 0.05 * _noise(rng, size, 0.02, 0.02)
    return _shade(_pick(rng, _CLOTHS), pile + 0.03 * _noise(rng, size, 0.12, 0.12))


def _stone(rng: np.random.Generator, size: int) -> F64:
    """Polished stone: clouds, speckles and thin veins where a cloud field crosses zero."""
    clouds = 0.5 * _noise(rng, size, 0.1, 0.1) + 0.3 * _noise(rng, size, 0.04, 0.04)
    field = _noise(rng, size, 0.09, 0.05) + 0.25 * _noise(rng, size, 0.015, 0.015)
    veins = np.exp(-((field / 0.06) ** 2))
    return _shade(_pick(rng, _STONES), 0.09 * clouds + 0.04 * _noise(rng, size, 0.004, 0.004) - 0.16 * veins)


def _brick(rng: np.random.Generator, size: int) -> F64:
    rows, columns = 20, 8
    u, v = _grid(size)
    row = np.floor(v * rows).astype(int)
    along = (u * columns + 0.5 * (row % 2)) % columns
    tone = rng.uniform(-0.2, 0.2, (rows, columns))[row, np.floor(along).astype(int)]
    gap = (
        np.minimum(_periodic_distance(along % 1, 0.0) / columns, _periodic_distance(v * rows % 1, 0.0) / rows) * SPAN_M
    )
    body = _shade(_pick(rng, _BRICKS), tone + 0.07 * _noise(rng, size, 0.005, 0.005))
    mortar = _shade((196, 190, 180), 0.05 * _noise(rng, size, 0.004, 0.004))
    return _blend(mortar, body, np.clip((gap - 0.003) / 0.004, 0, 1))


def _grass(rng: np.random.Generator, size: int) -> F64:
    blades = 0.18 * _noise(rng, size, 0.002, 0.012) + 0.1 * _noise(rng, size, 0.02, 0.02)
    return _shade(_pick(rng, _GRASSES), blades + 0.07 * _noise(rng, size, 0.12, 0.12))


def _stripes(rng: np.random.Generator, size: int) -> F64:
    """Woven bands of three colours across u: rugs, curtains, bed covers."""
    u, v = _grid(size)
    edges = np.sort(rng.uniform(0, 1, int(rng.integers(4, 9))))
    band = np.searchsorted(edges, v, side="right") % len(edges)
    hues = np.array([_pick(rng, _CLOTHS) for _ in range(3)])[rng.integers(0, 3, len(edges))]
    threads = max(8, size // 8)
    weave = 0.06 * np.sin(2 * np.pi * threads * u) * np.sin(2 * np.pi * threads * v)
    return _shade(hues[band], weave + 0.05 * _noise(rng, size, 0.004, 0.004))


_PAINTERS: dict[str, Callable[[np.random.Generator, int], F64]] = {
    "wood": _wood,
    "planks": _planks,
    "tiles": _tiles,
    "plaster": _plaster,
    "fabric": _fabric,
    "carpet": _carpet,
    "stone": _stone,
    "brick": _brick,
    "grass": _grass,
    "stripes": _stripes,
}

KINDS: tuple[str, ...] = tuple(_PAINTERS)
"""Kinds that `texture` can draw: wood and planks (furniture, floors), tiles, plaster (walls), fabric, carpet, stone,
brick, grass and stripes (rugs, covers)."""


def _grid(size: int) -> tuple[F64, F64]:
    """Pixel centres: u to the right, v downwards, (size, size) each, in 0…1."""
    centres = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(centres, centres)
    return u, v


def _periodic_distance(a: F64, b: F64 | float) -> F64:
    """Distance on a circle of circumference 1, elementwise."""
    d = np.abs(a - b) % 1
    return np.asarray(np.minimum(d, 1 - d))


def _noise(rng: np.random.Generator, size: int, radius_u: float, radius_v: float) -> F64:
    """Periodic noise of mean 0 and deviation 1, (size, size): white noise through a Gaussian of these radii (of 1)."""
    white = np.fft.rfft2(rng.standard_normal((size, size), np.float32))
    low_u = np.exp(-2 * (np.pi * radius_u * np.fft.rfftfreq(size) * size) ** 2)
    low_v = np.exp(-2 * (np.pi * radius_v * np.fft.fftfreq(size) * size) ** 2)
    white *= low_v[:, None] * low_u[None, :]
    white[0, 0] = 0
    field = np.fft.irfft2(white, (size, size))
    return np.asarray(field / (field.std() + 1e-9), np.float64)


def _grain(rng: np.random.Generator, size: int) -> F64:
    """Relative brightness of wood grain along u: rings bent by slow noise, fibres, pores."""
    _, v = _grid(size)
    bend = _noise(rng, size, 0.22, 0.05)
    rings = np.sin(2 * np.pi * (int(rng.integers(5, 14)) * v + 0.55 * bend))
    return np.asarray(0.06 * rings + 0.05 * _noise(rng, size, 0.12, 0.003) + 0.03 * _noise(rng, size, 0.02, 0.002))


def _pick(rng: np.random.Generator, palette: Palette) -> tuple[float, float, float]:
    """A colour of the palette, slightly changed."""
    red, green, blue = np.asarray(palette[int(rng.integers(len(palette)))], np.float64) * rng.uniform(0.92, 1.06)
    return float(red), float(green), float(blue)


def _shade(color: tuple[float, float, float] | F64, relative: F64) -> F64:
    return np.asarray(np.asarray(color, np.float64) * (1 + relative)[..., None])


def _blend(low: F64, high: F64, weight: F64) -> F64:
    return np.asarray(low + (high - low) * weight[..., None])


def _to_u8(image: F64) -> U8:
    return np.asarray(np.clip(np.rint(image), 0, 255), np.uint8)
