"""The font of every picture: the one inside Pillow, so that pictures are the same on every machine."""

from __future__ import annotations

from functools import cache

from PIL import ImageFont

FreeType = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size_px: int) -> FreeType:
    """Latin letters only; Pillow without FreeType falls back to its one bitmap size."""
    return ImageFont.load_default(size_px)
