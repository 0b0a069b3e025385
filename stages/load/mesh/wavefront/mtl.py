"""Material libraries of Wavefront .obj files (.mtl): colours, gloss, glow, opacity, and pictures.

Kd is taken as linear RGB, and `map_Kd` replaces it, as Blender's importer does (the format states neither).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh.cutouts import is_cut_out
from nimbusd.stages.load.mesh.part import read_image
from nimbusd.stages.load.mesh.wavefront.text import statements
from nimbusd.stages.types import F32, U8, Material

# How many words follow an option of a `map_…` line; the file name is what remains.
_MAP_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-boost": 1, "-bm": 1, "-cc": 1, "-clamp": 1, "-colorspace": 1, "-imfchan": 1,
    "-mm": 2, "-texres": 1, "-type": 1, "-o": 3, "-s": 3, "-t": 3,
}  # fmt: skip
_SHOWN_MAPS = ("map_Kd", "map_d")
_LEFT_OUT = ("map_Bump", "map_bump", "bump", "norm", "disp", "map_Ka", "map_Ks", "map_Ns", "map_Ke", "map_Pr", "map_Pm")


@dataclass(frozen=True, slots=True)
class MtlLook:
    """A material, and what its faces need to be shown with it.

    scale, shift: (2,) of texture coordinates, from the options -s and -o. clamps: texture coordinates stay within 0…1.
    solid: (H, W) where `map_d` leaves a surface; None without holes.
    """

    material: Material
    scale: F32 = field(default_factory=lambda: np.ones(2, np.float32))
    shift: F32 = field(default_factory=lambda: np.zeros(2, np.float32))
    clamps: bool = False
    solid: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class _Map:
    """A `map_…` line: the picture, or None where the line names none."""

    path: Path | None
    scale: F32
    shift: F32
    clamps: bool


def read_mtl(path: Path, *, plain: bool = False) -> dict[str, MtlLook]:
    """Looks by name. plain: go on without missing files. Raises AssetError for a missing library or texture."""
    if not path.is_file():
        if plain:
            return {}
        raise missing_library(path)
    entries: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for _, word, rest in statements(path):
        if word == "newmtl":
            current = entries.setdefault(rest, {})
        else:
            current[word] = rest
    pictures: dict[Path, tuple[U8, U8 | None]] = {}

    def picture(found: _Map | None) -> tuple[U8, U8 | None] | None:
        if found is None or found.path is None or (plain and not found.path.is_file()):
            return None
        if found.path not in pictures:
            pictures[found.path] = read_image(found.path, f"{found.path} (named by {path})")
        return pictures[found.path]

    looks = {}
    for name, entry in entries.items():
        try:
            base, holes = (_map_of(entry[key], path) if key in entry else None for key in _SHOWN_MAPS)
            looks[name] = _look(name, entry, base, picture(base), picture(holes))
        except ValueError as error:
            raise AssetError(f"material library {path}: material {name!r} cannot be read ({error}).") from error
    return looks


def missing_library(path: Path) -> AssetError:
    return AssetError(
        f"material library {path} is missing. Put it there, remove the `mtllib` line that names it, or set "
        "`without_materials` to go on in plain grey."
    )


def texture_paths(library: Path) -> list[Path]:
    """The pictures that a library's shown maps name, whether they exist or not."""
    return [
        found.path
        for _, word, rest in statements(library)
        if word in _SHOWN_MAPS and (found := _map_of(rest, library)).path is not None
    ]


def mtl_warnings(library: Path) -> Iterator[str]:
    """A sentence for each kind of line that changes a look and is left out, or that names nothing."""
    left_out: list[str] = []
    for number, word, rest in statements(library):
        if word in _SHOWN_MAPS and _map_of(rest, library).path is None:
            yield f"{library}, line {number}: {word!r} names no picture: the material shows its plain colour"
        elif word in _LEFT_OUT:
            left_out.append(word)
    if left_out:
        yield (
            f"{library}: {len(left_out)} pictures ({', '.join(dict.fromkeys(left_out))}) are left out; "
            f"{' and '.join(_SHOWN_MAPS)} are shown"
        )


def _map_of(rest: str, library: Path) -> _Map:
    words = re.split(r"(\s+)", rest)
    scale, shift, clamps = np.ones(2, np.float32), np.zeros(2, np.float32), False
    while words and words[0] in _MAP_OPTIONS:
        option, count = words[0], _MAP_OPTIONS[words[0]]
        given = words[2 : 2 + 2 * count : 2]
        if option in ("-o", "-s"):
            # Files give one to three numbers, though the format says three.
            numbers = [float(word) for word in given if re.fullmatch(r"[-+0-9.eE]+", word)]
            count = len(numbers)
            values = np.array((numbers + [0.0 if option == "-o" else 1.0] * 2)[:2], np.float32)
            scale, shift = (values, shift) if option == "-s" else (scale, values)
        clamps = clamps or (option == "-clamp" and given[:1] == ["on"])
        words = words[2 + 2 * count :]
    name = "".join(words).strip().replace("\\", "/")
    return _Map(library.parent / name if name else None, scale, shift, clamps)


def _look(
    name: str,
    entry: dict[str, str],
    base: _Map | None,
    shown: tuple[U8, U8 | None] | None,
    holes: tuple[U8, U8 | None] | None,
) -> MtlLook:
    material = _material(name, entry, None if shown is None else shown[0])
    solid = None
    if holes is not None:
        alpha = holes[1] if holes[1] is not None else holes[0][..., 0]
        if is_cut_out(alpha):
            solid = alpha >= 128
        else:
            opacity = material.opacity * float(alpha.mean() / 255)
            material = _material(name, entry | {"d": str(opacity)}, material.texture)
    if base is None:
        return MtlLook(material, solid=solid)
    return MtlLook(material, base.scale, base.shift, base.clamps, solid)


def _material(name: str, entry: dict[str, str], texture: U8 | None) -> Material:
    r, g, b = (float(x) for x in (entry.get("Kd", "0.8 0.8 0.8").split() * 3)[:3])
    glow = [float(x) for x in entry["Ke"].split()] if "Ke" in entry else [0.0]
    # Phong exponent to microfacet roughness: alpha² = 2 / (Ns + 2), roughness = sqrt(alpha) (Walter et al. 2007).
    shininess = max(float(entry.get("Ns", "10")), 0.0)
    roughness = float(entry.get("Pr", (2 / (shininess + 2)) ** 0.25))
    opacity = float(entry["d"].split()[-1]) if "d" in entry else 1 - float(entry.get("Tr", "0"))
    return Material(
        name,
        base_color=(1.0, 1.0, 1.0) if texture is not None else (r, g, b),
        texture=texture,
        roughness=float(np.clip(roughness, 0, 1)),
        metallic=float(np.clip(float(entry.get("Pm", "0")), 0, 1)),
        emission=max(glow),
        opacity=float(np.clip(opacity, 0, 1)),
    )
