"""One part of a mesh file (a glTF node, an OBJ group), before units and axes are applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.types import F32, F64, I32, U8, Material, Rgb

if TYPE_CHECKING:
    from PIL import Image

Z_UP_FROM_Y_UP: F64 = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)
"""(x, y, z) with y up → (x, -z, y) with z up."""


@dataclass(frozen=True, slots=True)
class MeshPart:
    """A triangle mesh as its file gives it: file units and axes, part frame.

    vertices: (V, 3) float32. faces: (F, 3) int32. face_material: (F,) int32 into `materials`.
    uvs: (F, 3, 2) float32 per face corner with v upwards, or None.
    T_file_part: (4, 4) float64, may scale and mirror.
    smooth: the file's normals differ from those of the faces; vertices are split where edges are sharp.
    """

    name: str
    vertices: F32
    faces: I32
    materials: tuple[Material, ...]
    face_material: I32
    uvs: F32 | None = None
    T_file_part: F64 = field(default_factory=lambda: np.eye(4))
    smooth: bool = False


def check_parts(parts: list[MeshPart], path: Path) -> list[MeshPart]:
    """The parts that have faces. Raises AssetError for an empty file or numbers that are not finite."""
    for part in parts:
        if not (np.isfinite(part.vertices).all() and np.isfinite(part.T_file_part).all()):
            raise AssetError(
                f"mesh file {path}: part {part.name!r} has vertices that are not finite numbers. "
                "Export the file again, or remove that part."
            )
    solid = [part for part in parts if len(part.faces)]
    if not solid:
        raise AssetError(f"mesh file {path} is empty: it has no triangles. Export it again with its surfaces.")
    return solid


def read_image(source: Path | BinaryIO, name: str) -> tuple[U8, U8 | None]:
    """(H, W, 3) uint8 sRGB and the alpha (H, W) uint8, None where the picture has none.

    Greys become three channels, 16 bits become 8. Raises AssetError naming `name` for a missing or torn picture.
    """
    from PIL import Image

    try:
        with Image.open(source) as image:
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            rgba = np.asarray(_in_8_bits(image).convert("RGBA"))
    except FileNotFoundError as error:
        raise AssetError(f"texture {name} is missing. Put it there, or correct the reference to it.") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for broken PNG chunks
        raise AssetError(f"texture {name} cannot be read ({error}). Copy or export it again.") from error
    return np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3]) if has_alpha else None


def _in_8_bits(image: Image.Image) -> Image.Image:
    """The picture, its greys of 16 bits or of floats in 0…1 as 8 bits: Pillow would clip them, not scale them."""
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray(np.rint(np.clip(np.asarray(image, np.float64) / 257, 0, 255)).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(np.rint(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8))
    return image


def linear_rgb(srgb: npt.ArrayLike) -> Rgb:
    """Linear RGB of an sRGB colour, all in 0…1 (IEC 61966-2-1)."""
    r, g, b = linear_values(srgb)
    return float(r), float(g), float(b)


def linear_values(srgb: npt.ArrayLike) -> F64:
    """The linear values of sRGB values in 0…1, same shape (IEC 61966-2-1)."""
    c = np.clip(np.asarray(srgb, np.float64), 0, 1)
    return np.asarray(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4))


def srgb_bytes(linear: npt.ArrayLike) -> U8:
    """The sRGB bytes of linear values in 0…1, same shape."""
    c = np.clip(np.asarray(linear, np.float64), 0, 1)
    encoded = np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(encoded * 255), np.uint8)


def color_atlas(face_colors: U8) -> tuple[U8, F32]:
    """A texture with one texel per face, for meshes that are coloured by vertex or face.

    face_colors: (F, 3) uint8 sRGB. Returns the texture (H, W, 3) and the corners' uvs (F, 3, 2), all three
    at the texel's centre, so that any filter shows exactly the face's colour.
    """
    count = len(face_colors)
    side = max(1, int(np.ceil(np.sqrt(count))))
    texture = np.zeros((side, side, 3), np.uint8)
    texture.reshape(-1, 3)[:count] = face_colors
    row, column = np.divmod(np.arange(count), side)
    uv = np.stack([(column + 0.5) / side, 1 - (row + 0.5) / side], axis=-1)
    return texture, np.repeat(uv[:, None, :], 3, axis=1).astype(np.float32)


def are_smooth(vertices: F32, faces: I32, corner_normals: F32) -> bool:
    """True where the given normals (F, 3, 3) bend away from their faces by more than 2 degrees anywhere."""
    if not np.isfinite(vertices).all():
        return False  # `check_parts` will say so
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    flat = np.cross(b - a, c - a)
    length = np.linalg.norm(flat, axis=1)
    solid = length > 0
    if not solid.any():
        return False
    flat = flat[solid] / length[solid, None]
    given = corner_normals[solid].astype(np.float64)
    given /= np.maximum(np.linalg.norm(given, axis=-1, keepdims=True), 1e-12)
    return bool((np.abs(np.einsum("fkc,fc->fk", given, flat)) < np.cos(np.deg2rad(2))).any())
