"""Drawing a floor map: rooms, what stands in them, the path from start to goal, and where the camera looked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from nimbusd.show.floor_map import TopDownMap
from nimbusd.show.fonts import font
from nimbusd.show.palette import FAINT, FREE, GOAL, INK, LINE, MIDWAY, ROOM, START, UNSEEN, Color, category_color
from nimbusd.show.view import EpisodeView
from nimbusd.stages.types import F64, U8, BoolArray

_Place: TypeAlias = Callable[[F64], list[tuple[float, float]]]
"""(N, 2) world metres to pixels of the image."""

_SUPERSAMPLE = 2
_FRUSTUM_M = 0.55


def draw_map(view: EpisodeView, floor: TopDownMap, size: tuple[int, int], moments: list[int]) -> Image.Image:
    """The map as an image of `size` (width, height). moments: frames whose camera is drawn."""
    scale = _SUPERSAMPLE
    width, height = size[0] * scale, size[1] * scale
    rows, columns = floor.free.shape
    zoom = min(width / columns, height / rows)
    left, top = (width - columns * zoom) / 2, (height - rows * zoom) / 2

    def at(xy_m: F64) -> list[tuple[float, float]]:
        return [(left + x * zoom, top + y * zoom) for x, y in floor.pixels(np.atleast_2d(xy_m))]

    image = Image.new("RGB", (width, height), UNSEEN)
    draw = ImageDraw.Draw(image, "RGBA")
    for room in view.rooms:
        draw.polygon(at(room.polygon), fill=ROOM)
    colors, known = _cell_colors(view, floor)
    extent = (round(columns * zoom), round(rows * zoom))
    cells = Image.fromarray(colors).resize(extent, Image.Resampling.NEAREST)
    mask = Image.fromarray(known.astype(np.uint8) * 255).resize(extent, Image.Resampling.NEAREST)
    image.paste(cells, (round(left), round(top)), mask)
    for room in view.rooms:
        corners = at(room.polygon)
        draw.line([*corners, corners[0]], fill=(*INK, 70), width=scale)
        _label(draw, at(_inside(room.polygon))[0], room.name.replace("_", " "), 13 * scale, FAINT)

    path = view.T_world_camera[:, :2, 3]
    for moment in moments:
        _frustum(draw, view, moment, at)
    _path_line(draw, at(path), 4 * scale)
    radius = 8 * scale
    for position, color, letter in ((path[0], START, "S"), (path[-1], GOAL, "G")):
        x, y = at(position)[0]
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color, outline=(255, 255, 255), width=scale)
        draw.text((x, y), letter, font=font(11 * scale), fill=(255, 255, 255), anchor="mm")
    _scale_bar(draw, zoom / floor.cell_m, (width, height), scale)
    return image.resize(size, Image.Resampling.LANCZOS)


def _cell_colors(view: EpisodeView, floor: TopDownMap) -> tuple[U8, BoolArray]:
    """(H, W, 3) colours of cells, and which of them are known."""
    colors = np.zeros((*floor.free.shape, 3), np.uint8)
    colors[floor.free] = FREE
    colors[floor.blocked] = category_color("wall")
    for number in np.unique(floor.instance[floor.blocked]):
        if number:
            there = floor.blocked & (floor.instance == number)
            colors[there] = _solid(category_color(view.categories.get(int(number), "object")))
    return colors, floor.free | floor.blocked


def _solid(color: Color) -> Color:
    """A little darker, to hold against the light floor."""
    return round(color[0] * 0.88), round(color[1] * 0.88), round(color[2] * 0.88)


def _frustum(draw: ImageDraw.ImageDraw, view: EpisodeView, moment: int, at: _Place) -> None:
    """The wedge that the camera sees at a moment, flat on the map."""
    fx, _, cx, _ = view.intrinsics
    T, width = view.T_world_camera[moment], view.rgb.shape[2]
    corners = [T[:2, 3]]
    for u in (0.0, float(width)):
        ray = T[:2, :3] @ np.array([(u - cx) / fx, 0.0, -1.0])
        length = math.hypot(*ray)
        corners.append(T[:2, 3] + ray * (_FRUSTUM_M / length if length > 1e-6 else 0.0))
    draw.polygon(at(np.array(corners)), fill=(37, 99, 235, 70), outline=(37, 99, 235, 190))


def _path_line(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], width: int) -> None:
    """White under a line that goes from the start's colour to the goal's."""
    draw.line(points, fill=(255, 255, 255, 230), width=round(width * 1.9), joint="curve")
    steps = max(1, len(points) - 1)
    for number in range(steps):
        color = _between(number / steps)
        draw.line(points[number : number + 2], fill=color, width=width, joint="curve")
        x, y = points[number]
        draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=color)


def _between(share: float) -> Color:
    """The path's colour so far along: from the start's over amber to the goal's."""
    first, second = (START, MIDWAY) if share < 0.5 else (MIDWAY, GOAL)
    part = (share * 2) % 1.0
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _scale_bar(draw: ImageDraw.ImageDraw, pixels_per_m: float, size: tuple[int, int], scale: int) -> None:
    """A bar of a round length, at the lower left."""
    length_m = next((m for m in (5.0, 2.0, 1.0, 0.5) if m * pixels_per_m < size[0] * 0.3), 0.25)
    x, y = 14 * scale, size[1] - 14 * scale
    end = x + length_m * pixels_per_m
    draw.rectangle(
        [x - 6 * scale, y - 22 * scale, end + 6 * scale, y + 6 * scale], fill=(255, 255, 255, 210), outline=LINE
    )
    draw.line([x, y, end, y], fill=INK, width=2 * scale)
    draw.text(((x + end) / 2, y - 4 * scale), f"{length_m:g} m", font=font(12 * scale), fill=INK, anchor="mb")


def _label(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, color: Color) -> None:
    draw.text(at, text, font=font(size), fill=color, anchor="mm", stroke_width=size // 6, stroke_fill=FREE)


def _inside(polygon: F64) -> F64:
    """A place for a label: the centroid of the polygon's area."""
    x, y = polygon[:, 0], polygon[:, 1]
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    area = cross.sum()
    if abs(area) < 1e-9:
        return np.asarray(polygon.mean(axis=0))
    moments = np.array([((x + np.roll(x, -1)) * cross).sum(), ((y + np.roll(y, -1)) * cross).sum()], np.float64)
    return np.asarray(moments / (3 * area))
