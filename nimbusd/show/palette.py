"""Colours that mean the same in every picture: a category's, an instance's, a depth's."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from nimbusd.stages.categories import CATEGORIES
from nimbusd.stages.types import F32, U8, U16

Color: TypeAlias = tuple[int, int, int]

PAPER: Color = (250, 249, 246)
CARD: Color = (255, 255, 255)
LINE: Color = (224, 222, 216)
INK: Color = (38, 42, 51)
FAINT: Color = (122, 126, 136)
START: Color = (22, 163, 74)
MIDWAY: Color = (240, 160, 20)
GOAL: Color = (220, 38, 38)
UNSEEN: Color = (233, 231, 226)
ROOM: Color = (242, 240, 234)
FREE: Color = (252, 250, 244)
NO_DEPTH: Color = (20, 20, 24)

# What a room is made of stays quiet, so that furniture stands out.
_QUIET: Mapping[str, Color] = {
    "wall": (126, 136, 153),
    "floor": (218, 206, 186),
    "ceiling": (235, 236, 240),
    "door": (173, 133, 96),
    "window": (168, 212, 230),
    "baseboard": (160, 160, 158),
    "stairs": (190, 170, 140),
    "column": (146, 150, 160),
    "object": (150, 140, 160),
}
# Saturation and value that take turns, so that two categories of like hue differ in tone.
_TONES = ((0.62, 0.94), (0.82, 0.70), (0.38, 0.97))
_GOLDEN = 0.6180339887498949

# From near (light yellow) over green and blue to far (dark violet): falls in lightness all the way.
_DEPTH_STOPS = np.array(
    [
        *((253, 231, 76), (160, 218, 57), (74, 193, 109), (31, 161, 135)),
        *((39, 127, 142), (54, 92, 141), (70, 50, 127), (58, 8, 78)),
    ],
    np.float64,
)


def category_color(category: str) -> Color:
    """The colour of a category in legends, maps and segmentation."""
    return _QUIET.get(category) or _vivid(category, 0)


def instance_color(category: str, instance_id: int) -> Color:
    """The category's colour, a shade apart for each instance."""
    if category not in _QUIET:
        return _vivid(category, instance_id)
    shade = 1.0 - 0.16 * ((instance_id * _GOLDEN) % 1.0)
    red, green, blue = _QUIET[category]
    return round(red * shade), round(green * shade), round(blue * shade)


def paint_instances(instance: U16, categories: Mapping[int, str]) -> U8:
    """(H, W) ids to (H, W, 3) uint8, with thin dark lines between instances. categories: id → category."""
    table = np.zeros((65536, 3), np.uint8)
    for number in np.unique(instance):
        if number:
            table[number] = instance_color(categories.get(int(number), "object"), int(number))
    image = table[instance]
    edge = np.zeros(instance.shape, bool)
    edge[:, 1:] |= instance[:, 1:] != instance[:, :-1]
    edge[1:] |= instance[1:] != instance[:-1]
    image[edge] = (image[edge] * 0.45).astype(np.uint8)
    return image


def paint_depth(depth_m: F32, far_m: float) -> U8:
    """(…) metres to (…, 3) uint8; `far_m` and beyond have the last colour, 0 (no reading) is near black."""
    stops = np.linspace(0.0, 1.0, len(_DEPTH_STOPS))
    share = np.clip(depth_m / far_m, 0.0, 1.0)
    image = np.stack([np.interp(share, stops, _DEPTH_STOPS[:, band]) for band in range(3)], axis=-1).astype(np.uint8)
    image[depth_m <= 0] = NO_DEPTH
    return image


def _vivid(category: str, instance_id: int) -> Color:
    known = CATEGORIES.index(category) if category in CATEGORIES else zlib.crc32(category.encode())
    saturation, value = _TONES[known % len(_TONES)]
    step = (instance_id * _GOLDEN) % 1.0
    hue = (known * _GOLDEN + 0.03 * (step - 0.5)) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation - 0.1 * step, value - 0.12 * step)
    return round(red * 255), round(green * 255), round(blue * 255)
