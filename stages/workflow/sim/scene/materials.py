"""Looks of the geoms of a compiled MuJoCo model, as materials that every renderer can show."""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.load.mesh.part import linear_values
from nimbusd.stages.types import F32, U8, Material
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.scene.surfaces import GeomSurface, texture_of, texture_pixels, texture_uvs

_UNSET = (0.5, 0.5, 0.5, 1.0)
"""The colour of geoms that have none of their own: their material's is shown."""

_FULL_SPECULAR = 0.5
"""MuJoCo's default: from this on, a highlight is as sharp as its shininess says."""

_GLOW_W = 4.0 / np.pi
"""Radiance, W/m²/sr, of white under a sun of MuJoCo's brightness 1: what an emission of 1 adds."""


class Looks:
    """The materials of one model. Equal looks are one object, and so are their textures.

    Colours and textures are MuJoCo's, sRGB made linear. A cube texture gives its mean colour. roughness follows from
    shininess (the exponent of the highlight, in 128ths), and is 1 where `specular` is 0.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._pixels: dict[int, U8] = {}
        self._materials: dict[tuple[object, ...], Material] = {}

    def of(self, geom: int, surface: GeomSurface) -> tuple[Material, F32 | None]:
        """A geom's material, and its (F, 3, 2) texture coordinates where that has a texture."""
        model, number = self._model, int(self._model.geom_matid[geom])
        rgba = tuple(float(value) for value in model.geom_rgba[geom])
        if number >= 0 and rgba == _UNSET:
            rgba = tuple(float(value) for value in model.mat_rgba[number])
        texture = texture_of(model, geom)
        flat = texture >= 0 and int(model.tex_type[texture]) == int(import_mujoco().mjtTexture.mjTEXTURE_2D)
        specular, shininess, emission = (
            (0.5, 0.5, 0.0)
            if number < 0
            else (float(v[number]) for v in (model.mat_specular, model.mat_shininess, model.mat_emission))
        )
        key = (rgba, texture, specular, shininess, emission)
        if key not in self._materials:
            color = linear_values(rgba[:3])
            if texture >= 0 and not flat:
                color = color * linear_values(self._image(texture) / 255).mean(axis=(0, 1))
            self._materials[key] = Material(
                name=model.material(number).name if number >= 0 else f"geom{geom}",
                base_color=(float(color[0]), float(color[1]), float(color[2])),
                texture=self._image(texture) if flat else None,
                roughness=_roughness(specular, shininess),
                emission=emission * _GLOW_W,
                opacity=rgba[3],
            )
        return self._materials[key], texture_uvs(model, geom, surface) if flat else None

    def _image(self, texture: int) -> U8:
        if texture not in self._pixels:
            self._pixels[texture] = texture_pixels(self._model, texture)
        return self._pixels[texture]


def _roughness(specular: float, shininess: float) -> float:
    """That of a microfacet highlight as wide as Blinn's with this exponent, fading to 1 without a highlight."""
    sharp = (2 / (128 * shininess + 2)) ** 0.25
    return float(1 - (1 - sharp) * min(1.0, specular / _FULL_SPECULAR))
