"""Materials of glTF: factors, textures with their coordinates and wrapping, alpha modes, glow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh.cutouts import is_cut_out
from nimbusd.stages.load.mesh.gltf.document import Document
from nimbusd.stages.load.mesh.gltf.support import Json
from nimbusd.stages.load.mesh.part import linear_values
from nimbusd.stages.load.mesh.surface import Wrap
from nimbusd.stages.types import F32, F64, U8, Material, Rgb

_WRAPS: dict[int, Wrap] = {10497: "repeat", 33648: "mirror", 33071: "clamp"}
_DEFAULT = Material("default", (1.0, 1.0, 1.0), roughness=1.0, metallic=1.0)
_BLACK = 0.01


@dataclass(frozen=True, slots=True)
class GltfPicture:
    """A texture as a material uses it.

    rgb: (H, W, 3) uint8 sRGB. alpha: (H, W) uint8 or None. uv_set: number of its TEXCOORD attribute.
    T_uv: (3, 3) from the file's coordinates to the texture's, both with v downwards. wrap: along u and v.
    """

    rgb: U8
    alpha: U8 | None
    uv_set: int
    T_uv: F64
    wrap: tuple[Wrap, Wrap]

    def coordinates(self, uvs: F32) -> F32:
        """Those of the texture (..., 2), v upwards, from the file's, v downwards."""
        turned = uvs.astype(np.float64) @ self.T_uv[:2, :2].T + self.T_uv[:2, 2]
        return np.asarray(np.stack([turned[..., 0], 1 - turned[..., 1]], axis=-1), np.float32)


@dataclass(frozen=True, slots=True)
class GltfLook:
    """A material and what its primitives need to be shown with it.

    solid: (H, W) where the texture's alpha leaves a surface; None without holes. glow: the picture of its emission
    and the factor (3,) for it, where that is not the base colour's picture.
    """

    material: Material
    picture: GltfPicture | None = None
    solid: npt.NDArray[np.bool_] | None = None
    glow: tuple[GltfPicture, Rgb] | None = None
    blends: bool = False


class GltfLooks:
    """The materials of a file, each made once."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._made: dict[int, GltfLook] = {}

    def of(self, number: int | None) -> GltfLook:
        if number is None:
            return GltfLook(_DEFAULT)
        if number not in self._made:
            self._made[number] = self._look(self._document.json["materials"][number], f"material {number}")
        return self._made[number]

    def _look(self, entry: Json, fallback_name: str) -> GltfLook:
        extensions = entry.get("extensions", {})
        base, roughness, metallic = self._surface(entry, extensions)
        factor, texture = base
        picture = None if texture is None else self._picture(texture)
        red, green, blue, alpha = factor
        mode = entry.get("alphaMode", "OPAQUE")
        opacity, solid = _opacity(mode, alpha, picture, float(entry.get("alphaCutoff", 0.5)))
        opacity *= 1 - float(extensions.get("KHR_materials_transmission", {}).get("transmissionFactor", 0.0))
        made = Material(
            entry.get("name", fallback_name),
            (red, green, blue),
            None if picture is None else picture.rgb,
            roughness=roughness,
            metallic=metallic,
            opacity=opacity,
        )
        strength = float(extensions.get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1.0))
        r, g, b = (float(value) * strength for value in entry.get("emissiveFactor", (0, 0, 0)))
        look = GltfLook(made, picture, solid, blends=mode == "BLEND")
        return look if max(r, g, b) <= 0 else self._glowing(look, (r, g, b), entry.get("emissiveTexture"), texture)

    def _surface(self, entry: Json, extensions: Json) -> tuple[tuple[tuple[float, ...], Json | None], float, float]:
        """Colour factor and texture, roughness and metallic: of metallic-roughness, or of specular-glossiness."""
        glossy = extensions.get("KHR_materials_pbrSpecularGlossiness")
        if glossy is not None:
            factor = tuple(float(x) for x in glossy.get("diffuseFactor", (1, 1, 1, 1)))
            base = (factor, glossy.get("diffuseTexture"))
            return base, 1 - float(glossy.get("glossinessFactor", 1.0)), 0.0
        pbr = entry.get("pbrMetallicRoughness", {})
        base = (tuple(float(x) for x in pbr.get("baseColorFactor", (1, 1, 1, 1))), pbr.get("baseColorTexture"))
        if "KHR_materials_unlit" in extensions:
            return base, 1.0, 0.0
        roughness, metallic = float(pbr.get("roughnessFactor", 1.0)), float(pbr.get("metallicFactor", 1.0))
        if "metallicRoughnessTexture" in pbr:
            # One value for the whole surface: the picture's mean (green is roughness, blue is metallic, both linear).
            rgb = self._picture(pbr["metallicRoughnessTexture"]).rgb
            mean = rgb.reshape(-1, 3).mean(axis=0) / 255
            roughness, metallic = roughness * float(mean[1]), metallic * float(mean[2])
        return base, roughness, metallic

    def _glowing(self, look: GltfLook, emission: Rgb, glow: Json | None, texture: Json | None) -> GltfLook:
        """The look with radiance `emission`, which Material has as a multiple of the base colour and its texture.

        Where the glow's colour is another, it is what one sees of a lamp, and replaces the base colour.
        """
        made, strongest = look.material, max(emission)
        if glow is None:
            return replace(look, material=_lit(made, emission))
        if texture is not None and glow["index"] == texture["index"] and max(made.base_color) > _BLACK:
            return replace(look, material=replace(made, emission=strongest / max(made.base_color)))
        picture = self._picture(glow)
        if look.picture is None and max(made.base_color) <= _BLACK:
            lit = replace(made, base_color=hue(emission), texture=picture.rgb, emission=strongest)
            return replace(look, material=lit, picture=picture)
        return replace(look, glow=(picture, emission))

    def _picture(self, reference: Json) -> GltfPicture:
        texture = self._document.json["textures"][reference["index"]]
        rgb, alpha = self._document.picture(self._source(texture))
        sampler: Json = self._document.json["samplers"][texture["sampler"]] if "sampler" in texture else {}
        wrap = (_WRAPS[sampler.get("wrapS", 10497)], _WRAPS[sampler.get("wrapT", 10497)])
        uv_set, T_uv = int(reference.get("texCoord", 0)), np.eye(3)
        transform = reference.get("extensions", {}).get("KHR_texture_transform")
        if transform is not None:
            uv_set = int(transform.get("texCoord", uv_set))
            T_uv = _texture_transform(transform)
        return GltfPicture(rgb, alpha, uv_set, T_uv, wrap)

    def _source(self, texture: Json) -> int:
        extensions: dict[str, Any] = texture.get("extensions", {})
        for name in ("EXT_texture_webp", "EXT_texture_avif"):
            if name in extensions:
                return int(extensions[name]["source"])
        if "source" not in texture:
            found = f"only one in {next(iter(extensions))}" if extensions else "no"
            raise AssetError(
                f"mesh file {self._document.path}: a texture has {found} picture. "
                "Export it with PNG, JPEG, WebP or AVIF textures."
            )
        return int(texture["source"])


def _opacity(
    mode: str, factor: float, picture: GltfPicture | None, cutoff: float
) -> tuple[float, npt.NDArray[np.bool_] | None]:
    """Opacity of the surface, and where its picture leaves one, for an alpha mode (glTF 2.0, section 3.9.4)."""
    alpha = None if picture is None else picture.alpha
    if mode == "MASK":
        alpha = np.full((1, 1), 255, np.uint8) if alpha is None else alpha
        solid = alpha.astype(np.float64) / 255 * factor >= cutoff
        return 1.0, None if solid.all() else solid
    if mode != "BLEND":
        return 1.0, None
    if alpha is None:
        return factor, None
    if is_cut_out(alpha):
        solid = alpha >= 128
        return factor * float(alpha[solid].mean() / 255), solid
    return factor * float(alpha.mean() / 255), None


def _lit(material: Material, emission: Rgb) -> Material:
    """The material with radiance `emission`: a multiple of its colour, or else in the glow's own colour."""
    strongest, base = max(emission), np.array(material.base_color)
    if material.texture is not None:
        shown = float((linear_values(material.texture / 255).reshape(-1, 3).mean(axis=0) * base).max())
        return replace(material, emission=strongest / max(shown, _BLACK))
    if base.max() > _BLACK and np.allclose(hue(emission), base / base.max(), atol=0.02):
        return replace(material, emission=strongest / float(base.max()))
    return replace(material, base_color=hue(emission), emission=strongest)


def hue(rgb: Rgb) -> Rgb:
    """The colour at full brightness."""
    r, g, b = (value / max(rgb) for value in rgb)
    return r, g, b


def _texture_transform(entry: Json) -> F64:
    """(3, 3) of KHR_texture_transform: scaled, then turned (counter-clockwise in its v downwards), then shifted."""
    turn = float(entry.get("rotation", 0.0))
    (x, y), (sx, sy) = entry.get("offset", (0, 0)), entry.get("scale", (1, 1))
    shift = np.array([(1, 0, x), (0, 1, y), (0, 0, 1)], np.float64)
    rotation = np.array([(np.cos(turn), np.sin(turn), 0), (-np.sin(turn), np.cos(turn), 0), (0, 0, 1)], np.float64)
    return np.asarray(shift @ rotation @ np.diag([sx, sy, 1.0]))
