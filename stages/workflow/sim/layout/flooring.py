"""Looks of surfaces: procedural pictures, and a floor that nobody takes for the table."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from nimbusd.stages.load.textures import texture
from nimbusd.stages.types import F64, U8
from nimbusd.stages.workflow.sim.layout.layout import Surface

_TEXTURE_PX = 256
_CANDIDATES = 8
APART = 70.0
"""Least distance between the mean colours of floor and table, in sRGB of 0…255 a channel."""


@lru_cache(maxsize=8)
def picture(kind: str, seed: int) -> U8:
    """The procedural texture of a surface, (256, 256, 3) sRGB. The last few are kept: do not change them."""
    return texture(kind, np.random.default_rng(seed), _TEXTURE_PX)


def floor_beside(table: Surface, draw: Callable[[], Surface]) -> Surface:
    """The first of eight floors whose colour differs enough from the table's; else the one that differs most."""
    best = draw()
    for _ in range(_CANDIDATES - 1):
        if colour_distance(best, table) >= APART:
            break
        best = max(best, draw(), key=lambda surface: colour_distance(surface, table))
    return best


def colour_distance(one: Surface, other: Surface) -> float:
    """Distance of two surfaces' mean colours, in sRGB of 0…255 a channel."""
    return float(np.linalg.norm(_mean(one) - _mean(other)))


def _mean(surface: Surface) -> F64:
    color = 255.0 * np.asarray(surface.color)
    if not surface.texture:
        return color
    return np.asarray(picture(surface.texture, surface.texture_seed).mean(axis=(0, 1)) * surface.color)
