"""The parts of glTF 2.0 that are read, those that are not, and what a file's JSON tells of them before it is decoded.

Core glTF that gives geometry or colour is applied. Of the rest, what a file requires is refused and what it
merely uses is told, by name; docs/scene-files.md has the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nimbusd.stages.errors import AssetError
from nimbusd.stages.modules import how_to_install, missing_modules

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Support:
    """The treatment of an extension.

    verdict: `applied`; `harmless` (it says nothing about shape or look at rest); `told` (left out: refused where the
    file requires it, a warning elsewhere). what: what it brings, as the end of a sentence.
    module: the Python module that decodes it.
    """

    verdict: Literal["applied", "harmless", "told"]
    what: str
    module: str = ""


EXTENSIONS: Mapping[str, Support] = {
    "EXT_mesh_gpu_instancing": Support("applied", "many copies of a mesh; an object each"),
    "EXT_meshopt_compression": Support("applied", "packed buffers", "meshopt"),
    "KHR_meshopt_compression": Support("applied", "packed buffers", "meshopt"),
    "KHR_draco_mesh_compression": Support("applied", "packed primitives", "DracoPy"),
    "KHR_mesh_quantization": Support("applied", "positions and texture coordinates as small integers"),
    "KHR_texture_transform": Support("applied", "shifted, turned and scaled textures"),
    "KHR_node_visibility": Support("applied", "nodes that are not shown: left out"),
    "KHR_materials_emissive_strength": Support("applied", "surfaces that glow brighter than 1"),
    "KHR_materials_transmission": Support("applied", "glass; as opacity"),
    "KHR_materials_pbrSpecularGlossiness": Support("applied", "diffuse colour, texture and glossiness"),
    "EXT_texture_webp": Support("applied", "WebP textures"),
    "EXT_texture_avif": Support("applied", "AVIF textures"),
    "KHR_xmp": Support("harmless", "authors and licences"),
    "KHR_xmp_json_ld": Support("harmless", "authors and licences"),
    "KHR_materials_variants": Support("harmless", "other materials to choose from; the default ones are shown"),
    "KHR_animation_pointer": Support("harmless", "animated properties; scenes are shown at rest"),
    "KHR_node_hoverability": Support("harmless", "what a viewer lets one point at"),
    "KHR_node_selectability": Support("harmless", "what a viewer lets one choose"),
    "KHR_audio_emitter": Support("harmless", "sounds"),
    "KHR_interactivity": Support("harmless", "behaviour in a viewer"),
    "KHR_physics_rigid_bodies": Support("harmless", "masses and joints"),
    "KHR_implicit_shapes": Support("harmless", "collision shapes"),
    "EXT_mesh_features": Support("harmless", "ids of features"),
    "EXT_instance_features": Support("harmless", "ids of instances"),
    "EXT_structural_metadata": Support("harmless", "tables of properties"),
    "EXT_mesh_manifold": Support("harmless", "a second index list of the same surface"),
    "MSFT_lod": Support("harmless", "coarser meshes; the finest are shown"),
    "KHR_lights_punctual": Support("told", "lamps; the scene's `light` makes its own"),
    "EXT_lights_image_based": Support("told", "light from a picture; the scene's sky has one colour"),
    "KHR_materials_unlit": Support("told", "surfaces that no light changes; they are shown matte, under the lamps"),
    "KHR_materials_anisotropy": Support("told", "brushed highlights"),
    "KHR_materials_clearcoat": Support("told", "a coat of varnish"),
    "KHR_materials_diffuse_transmission": Support("told", "light through thin surfaces"),
    "KHR_materials_dispersion": Support("told", "colours of split light"),
    "KHR_materials_ior": Support("told", "other indices of refraction than 1.5"),
    "KHR_materials_iridescence": Support("told", "colours of thin films"),
    "KHR_materials_sheen": Support("told", "the sheen of cloth"),
    "KHR_materials_specular": Support("told", "weaker or tinted highlights"),
    "KHR_materials_volume": Support("told", "tinted and thick glass"),
    "KHR_texture_basisu": Support("told", "KTX2 textures; the PNG or JPEG given beside them is shown"),
    "MSFT_texture_dds": Support("told", "DDS textures; the PNG or JPEG given beside them is shown"),
    "KHR_gaussian_splatting": Support("told", "Gaussian splats; GSMeshLoader reads them from .ply, .spz and .sog"),
    "CESIUM_primitive_outline": Support("told", "drawn edges"),
    "CESIUM_RTC": Support("told", "a shift of the whole scene"),
}


def check_extensions(document: Json, path: Path) -> None:
    """Raise AssetError for an extension that the file requires and that is not applied, or cannot be decoded here."""
    for name in document.get("extensionsRequired", []):
        support = EXTENSIONS.get(name)
        if support is None or support.verdict == "told":
            what = f" ({support.what})" if support is not None else ""
            raise AssetError(
                f"mesh file {path} requires the glTF extension {name}{what}, which is not supported. Export it without."
            )
        if not is_decoded_here(name):
            raise AssetError(
                f"mesh file {path} requires the glTF extension {name}, which the Python module {support.module!r} "
                f"decodes. It is not installed here: {how_to_install(support.module)}, or export the file without."
            )


def is_decoded_here(name: str) -> bool:
    """True where the module that decodes an extension is installed; a file that doesn't require it has a fallback."""
    module = EXTENSIONS[name].module
    return not module or not missing_modules([module])


def gltf_warnings(document: Json) -> list[str]:
    """A sentence for each kind of thing in the file that changes its look or shape and is left out."""
    return [*_extension_warnings(document), *_core_warnings(document)]


def check_bounds(document: Json, path: Path) -> None:
    """Raise AssetError where the bounds that glTF has to state for positions are not finite numbers."""
    accessors = document.get("accessors", [])
    for number in {p.get("attributes", {}).get("POSITION", -1) for p in _primitives(document)}:
        entry = accessors[number] if 0 <= number < len(accessors) else {}
        bounds = [*entry.get("min", []), *entry.get("max", [])]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in bounds):
            raise AssetError(
                f"mesh file {path}: the bounds of accessor {number} are not finite numbers, so its positions are not "
                "either. Export the file again, or remove that part."
            )


def _extension_warnings(document: Json) -> Iterator[str]:
    listed = document.get("extensionsUsed", [])
    forgotten = [name for primitive in _primitives(document) for name in primitive.get("extensions", {})]
    for name in dict.fromkeys([*listed, *forgotten]):
        support = EXTENSIONS.get(name)
        if support is None:
            yield f"the glTF extension {name} is not known: what it adds is left out"
        elif support.verdict == "told":
            yield f"the glTF extension {name} is left out ({support.what})"


def _primitives(document: Json) -> list[Json]:
    return [primitive for mesh in document.get("meshes", []) for primitive in mesh.get("primitives", [])]


def _core_warnings(document: Json) -> Iterator[str]:
    materials = document.get("materials", [])
    primitives = _primitives(document)
    strokes = sum(primitive.get("mode", 4) < 4 for primitive in primitives)
    if strokes:
        yield f"{strokes} of {len(primitives)} primitives are points or lines, which have no surface: they are left out"
    for key, what in (("normalTexture", "normal maps"), ("occlusionTexture", "occlusion maps")):
        count = sum(key in entry for entry in materials)
        if count:
            yield f"{what} of {count} of {len(materials)} materials are left out: their surfaces look smooth"
