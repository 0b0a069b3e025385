"""Textures of a compiled MuJoCo model, and where they lie on its shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.renderers.mujoco.mesh import Shape
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F64, U8


@dataclass(frozen=True)
class Picture:
    """A texture. pixels: (H, W, 3 or 4), or (6, W, W, 3) of a cube. linear: made linear when looked up (sRGB)."""

    pixels: U8
    cube: bool
    linear: bool


def picture_of(model: Any, texture: int) -> Picture:
    """A texture of the model. Raises RenderError where it has other than three or four channels."""
    import mujoco

    start, channels = int(model.tex_adr[texture]), int(model.tex_nchannel[texture])
    width, height = int(model.tex_width[texture]), int(model.tex_height[texture])
    linear = bool(model.tex_colorspace[texture] == mujoco.mjtColorSpace.mjCOLORSPACE_SRGB)
    if channels not in (3, 4):
        raise RenderError(f"texture {model.tex(texture).name!r} has {channels} channels; 3 and 4 can be drawn")
    pixels = np.array(model.tex_data[start : start + width * height * channels], np.uint8)
    if model.tex_type[texture] == mujoco.mjtTexture.mjTEXTURE_2D:
        return Picture(pixels.reshape(height, width, channels), False, linear)
    faces = pixels.reshape(-1, width, width, channels)[..., :3]
    # One square is meant for all six sides.
    return Picture(np.ascontiguousarray(np.broadcast_to(faces, (6, width, width, 3))), True, linear)


def texture_coordinates(model: Any, geom: Any, texture: int, shape: Shape) -> F64:
    """(C, 3) where a geom's corners lie in its picture, repeats counted; a cube's are directions."""
    import mujoco

    uvw = np.zeros((len(shape.positions), 3))
    if texture < 0:
        return uvw
    size, repeat, uniform = np.array(geom.size, np.float64), np.array(geom.texrepeat, np.float64), bool(geom.texuniform)
    stretch = np.where(size[:2] > 0, size[:2], 1.0)
    flat = model.tex_type[texture] == mujoco.mjtTexture.mjTEXTURE_2D
    if geom.texcoord or (flat and not shape.is_mesh):
        uvw[:, :2] = shape.uv * np.where(repeat > 0, repeat, 1.0) * (stretch if uniform else 1.0)
    elif flat:  # a mesh without coordinates of its own is painted along its z axis
        uvw[:, :2] = shape.positions[:, :2] * (repeat if uniform else repeat / stretch) * [0.5, -0.5] - 0.5
    else:
        unit = shape.positions if shape.is_mesh else shape.positions / np.where(size > 0, size, 1.0)
        uvw[:] = unit * (size if uniform else 1.0)
    return uvw
