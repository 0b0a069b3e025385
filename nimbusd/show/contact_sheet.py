"""The contact sheet: a card per episode with frames, depth and segmentation.

Where the camera moves, beside them the map with its path; where it stays, more moments and what the other cameras saw.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from nimbusd.show.floor_map import floor_map
from nimbusd.show.fonts import font
from nimbusd.show.map_image import draw_map
from nimbusd.show.palette import CARD, FAINT, INK, LINE, PAPER, category_color, paint_depth, paint_instances
from nimbusd.show.view import EpisodeView
from nimbusd.stages.types import U8

MOMENTS, MOMENTS_STILL = 4, 8
"""Frames of an episode on the sheet: of a camera that moves, and of one that stays."""

_THUMB_WIDTH = 300
_FARTHEST_M = 6.5  # stored depth clips a little beyond
_GAP = 8
_PADDING = 22
_MARGIN = 28
_TITLE_HEIGHT = 58
_STRIP = 30
_HEADER_HEIGHT = 84


@dataclass(frozen=True)
class _Row:
    """One kind of picture at every moment, with its legend below."""

    name: str
    pictures: list[Image.Image]
    legend: str  # "", "depth" or "categories"

    @property
    def height(self) -> int:
        return self.pictures[0].height


def draw_sheet(heading: str, facts: str, views: list[EpisodeView]) -> Image.Image:
    """The sheet of some episodes. heading: the dataset's name; facts: a line about it below."""
    cards = [_card(view) for view in views]
    width = max((card.width for card in cards), default=900) + 2 * _MARGIN
    height = _HEADER_HEIGHT + sum(card.height + _MARGIN for card in cards) + _MARGIN // 2
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 22), heading, font=font(30), fill=INK)
    draw.text((_MARGIN, 58), facts, font=font(16), fill=FAINT)
    top = _HEADER_HEIGHT + 8
    for card in cards:
        sheet.paste(card, (_MARGIN, top))
        top += card.height + _MARGIN
    return sheet


def _card(view: EpisodeView) -> Image.Image:
    moments = view.moments(MOMENTS_STILL if view.is_still else MOMENTS)
    far_m = _far(view, moments)
    rows = _rows(view, moments, far_m)
    grid_width = (MOMENTS_STILL if view.is_still else MOMENTS) * (_THUMB_WIDTH + _GAP) - _GAP
    grid_height = sum(row.height + _STRIP for row in rows)
    map_size = (0, 0) if view.is_still else (max(grid_height - _STRIP, 420), max(grid_height - _STRIP, 300))
    width = _PADDING + grid_width + _PADDING + (0 if view.is_still else map_size[0] + _PADDING)
    height = _TITLE_HEIGHT + max(grid_height, map_size[1] + _STRIP) + _PADDING // 2

    card = Image.new("RGB", (width, height), CARD)
    draw = ImageDraw.Draw(card)
    draw.rectangle([0, 0, width - 1, height - 1], outline=LINE)
    draw.text((_PADDING, 14), _fitting(view.title, 22, width - 2 * _PADDING), font=font(22), fill=INK)
    draw.text((_PADDING, 40), _fitting(view.subtitle, 14, width - 2 * _PADDING), font=font(14), fill=FAINT)

    top = _TITLE_HEIGHT + 6
    for row in rows:
        for number, picture in enumerate(row.pictures):
            card.paste(picture, (_PADDING + number * (_THUMB_WIDTH + _GAP), top))
        strip = (_PADDING, top + row.height + 6)
        draw.text(strip, _fitting(row.name, 14, _THUMB_WIDTH), font=font(14), fill=INK)
        if row.legend == "depth":
            _depth_legend(card, (strip[0] + 90, strip[1]), far_m)
        elif row.legend == "categories":
            _category_legend(draw, view, moments, (strip[0] + 90, strip[1]), grid_width - 90)
        else:
            for number, moment in enumerate(moments[1:], start=1):
                place = (_PADDING + number * (_THUMB_WIDTH + _GAP), strip[1])
                draw.text(place, f"{moment / view.fps:.1f} s", font=font(14), fill=FAINT)
        top += row.height + _STRIP

    if not view.is_still:
        left = _PADDING + grid_width + _PADDING
        card.paste(draw_map(view, floor_map(view), map_size, moments), (left, _TITLE_HEIGHT + 6))
        draw.rectangle([left, _TITLE_HEIGHT + 6, left + map_size[0] - 1, _TITLE_HEIGHT + 5 + map_size[1]], outline=LINE)
        text = "Map from depth and poses: path from S to G, camera views in blue"
        draw.text((left, _TITLE_HEIGHT + 12 + map_size[1]), _fitting(text, 14, map_size[0]), font=font(14), fill=FAINT)
    return card


def _rows(view: EpisodeView, moments: list[int], far_m: float) -> list[_Row]:
    def thumb(pixels: U8, how: Image.Resampling) -> Image.Image:
        height = round(_THUMB_WIDTH * pixels.shape[0] / pixels.shape[1])
        return Image.fromarray(pixels).resize((_THUMB_WIDTH, height), how)

    smooth, exact = Image.Resampling.LANCZOS, Image.Resampling.BOX
    rows = [_Row("RGB", [thumb(view.rgb[t], smooth) for t in moments], "")]
    if view.is_still:
        rows += [_Row(f"RGB {name}", [thumb(rgb[t], smooth) for t in moments], "") for name, rgb in view.beside.items()]
    if view.depth_m is not None:
        rows.append(_Row("Depth", [thumb(paint_depth(view.depth_m[t], far_m), exact) for t in moments], "depth"))
    if view.instance is not None:
        painted = [thumb(paint_instances(view.instance[t], view.categories), exact) for t in moments]
        rows.append(_Row("Instances", painted, "categories"))
    return rows


def _far(view: EpisodeView, moments: list[int]) -> float:
    """The depth that ends the colour scale: beyond it lies 1% of the shown pixels, rounded up to half a metre."""
    if view.depth_m is None:
        return 1.0
    shown = view.depth_m[moments]
    shown = shown[shown > 0]
    far_m = float(np.ceil(np.percentile(shown, 99) * 2) / 2) if shown.size else 1.0
    return min(max(0.5, far_m), _FARTHEST_M)


def _depth_legend(card: Image.Image, at: tuple[int, int], far_m: float) -> None:
    width, height = 220, 12
    ramp = np.broadcast_to(np.linspace(1e-6, far_m, width, dtype=np.float32), (height, width))
    draw = ImageDraw.Draw(card)
    draw.text(at, "0", font=font(14), fill=FAINT)
    card.paste(Image.fromarray(paint_depth(ramp, far_m)), (at[0] + 16, at[1] + 2))
    draw.text((at[0] + 16 + width + 8, at[1]), f"{far_m:g} m", font=font(14), fill=FAINT)


def _category_legend(
    draw: ImageDraw.ImageDraw, view: EpisodeView, moments: list[int], at: tuple[int, int], width: int
) -> None:
    """Swatches of the categories in the shown frames, the largest first, as many as fit."""
    assert view.instance is not None
    numbers, counts = np.unique(view.instance[moments], return_counts=True)
    pixels: Counter[str] = Counter()
    for number, count in zip(numbers, counts, strict=True):
        if number:
            pixels[view.categories.get(int(number), "object")] += int(count)
    x, y = at
    for category, _ in pixels.most_common():
        name = category.replace("_", " ")
        step = 20 + round(draw.textlength(name, font=font(14))) + 16
        if x + step > at[0] + width:
            break
        draw.rectangle([x, y + 2, x + 13, y + 15], fill=category_color(category), outline=FAINT)
        draw.text((x + 19, y), name, font=font(14), fill=FAINT)
        x += step


def _fitting(text: str, size: int, width: int) -> str:
    """`text`, shortened where it is wider than `width`."""
    while text and font(size).getlength(text) > width:
        text = text[:-2].rstrip("…") + "…"
    return text
