"""`BProcObjLoader`: any house or room as a mesh file."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from nimbusd.stages.base import BaseLoader, ComponentArgs, SceneConfig
from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.lamps import ceiling_panels
from nimbusd.stages.load.mend import mended, warned
from nimbusd.stages.load.mend.recentre import check_part_resolution, origin_m, recentred
from nimbusd.stages.load.mesh.files import (
    MESH_SUFFIXES,
    UpAxis,
    default_up_axis,
    mesh_file_warnings,
    part_to_object,
    read_mesh_file,
    referenced_files,
    unique_names,
)
from nimbusd.stages.load.names import category_of
from nimbusd.stages.types import Material, Rgb, Scene, SceneObject

_MAX_OBJECTS = 65535


class MeshArgs(ComponentArgs):
    """Arguments of BProcObjLoader; all choices are per scene."""


class MeshConfig(SceneConfig):
    """A scene that is one mesh file.

    path: .obj, .gltf, .glb or .ply. unit_m: metres per file unit.
    up_axis: `y` or `z`; by default y for glTF (its specification says so) and z for .obj and .ply.
    sha256: what the file must hash to (hex).
    light: `auto` puts lamps under every ceiling and a sky around; `sky` only the sky; `none` leaves it dark.
    lamp_w_per_m2: power of those lamps per square metre of floor. sky_color: linear RGB.
    sky_strength: W/m²/sr. ceiling_m: height of a white ceiling to close a house that is open at the top.
    movable: categories of objects that a randomizer may move.
    A scene that lies far from its origin is moved there (see `recentre`); ceiling_m stays a height of the file's frame.
    Surfaces that lie in each other, and floors that face down, are mended and told (see `mend`).
    without_materials: go on in plain grey where a material library or a texture of an .obj or .ply is missing.
    """

    path: Path
    unit_m: float = Field(default=1.0, gt=0)
    up_axis: UpAxis | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-fA-F]{64}$")
    light: Literal["auto", "sky", "none"] = "auto"
    lamp_w_per_m2: float = Field(default=2.0, ge=0)
    sky_color: Rgb = (0.9, 0.95, 1.0)
    sky_strength: float = Field(default=1.0, ge=0)
    ceiling_m: float | None = None
    movable: tuple[str, ...] = ()
    without_materials: bool = False

    @field_validator("path")
    @classmethod
    def _supported(cls, path: Path) -> Path:
        if path.suffix.lower() not in MESH_SUFFIXES:
            raise ValueError(f"{path.name} is not a mesh file of a known kind; use one of {', '.join(MESH_SUFFIXES)}")
        return path


class BProcObjLoader(BaseLoader[MeshArgs, MeshConfig]):
    """Loads .obj, .gltf, .glb and .ply files; a scene object per OBJ group or glTF node, categories from names."""

    args_model: ClassVar[type[ComponentArgs]] = MeshArgs
    scene_model: ClassVar[type[SceneConfig]] = MeshConfig
    version = "1.2.0"
    requires = ("mapbox_earcut", "scipy", "shapely")
    may_use = ("DracoPy", "meshopt")

    def asset_paths(self, config: MeshConfig) -> list[Path]:
        """The mesh file and every file that it names."""
        return [config.path, *referenced_files(config.path, plain=config.without_materials)]

    def asset_warnings(self, config: MeshConfig) -> list[str]:
        """Tell what the scene will lack. Raises AssetError for a file that is not the one that the job promises."""
        if config.path.is_file() and not config.path.stat().st_size:
            raise AssetError(f"mesh file {config.path} is empty (0 bytes). Copy or export it again.")
        if config.sha256 is not None:
            _check_hash(config)
        return mesh_file_warnings(config.path, plain=config.without_materials)

    def load_asset(self, config: MeshConfig) -> Scene:
        """The mesh as a scene without rooms. Raises AssetError for anything missing, torn, empty or altered."""
        scene = mended(recentred(self.as_written(config)), self.beat)
        objects = list(scene.objects)
        if config.ceiling_m is not None:
            objects.append(_ceiling(objects, config.ceiling_m - origin_m(scene)[2]))
        self.beat()
        return replace(
            scene,
            objects=tuple(objects),
            lights=ceiling_panels(objects, config.lamp_w_per_m2) if config.light == "auto" else (),
            sky_color=config.sky_color,
            sky_strength=config.sky_strength if config.light != "none" else 0.0,
        )

    def as_written(self, config: MeshConfig) -> Scene:
        """The file's objects in metres and z-up, before anything is moved, mended or lit. Raises as `load_asset`."""
        digest = _check_hash(config)
        warnings = mesh_file_warnings(config.path, plain=config.without_materials)
        parts = read_mesh_file(config.path, plain=config.without_materials)
        self.beat()
        if len(parts) > _MAX_OBJECTS:
            raise AssetError(
                f"scene {config.name!r}: mesh file {config.path} has {len(parts)} parts, and at most {_MAX_OBJECTS} "
                "can be told apart. Join some of them."
            )
        up_axis = config.up_axis or default_up_axis(config.path)
        objects = []
        for number, (part, name) in enumerate(zip(parts, unique_names([part.name for part in parts]), strict=True), 1):
            category = category_of(name) or "object"
            check_part_resolution(part, config.unit_m, f"mesh file {config.path}")
            objects.append(
                part_to_object(
                    part,
                    np.eye(4),
                    name=name,
                    category=category,
                    instance_id=number,
                    movable=category in config.movable,
                    unit_m=config.unit_m,
                    up_axis=up_axis,
                )
            )
        provenance = {
            "loader": "BProcObjLoader",
            "path": str(config.path),
            "sha256": digest,
            "unit_m": config.unit_m,
            "up_axis": up_axis,
        }
        return warned(Scene(config.name, tuple(objects), provenance=provenance), warnings)


def _ceiling(objects: list[SceneObject], z_m: float) -> SceneObject:
    """A white rectangle over everything, facing down."""
    corners = np.concatenate([obj.world_vertices()[:, :2] for obj in objects])
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    return SceneObject(
        name=unique_names([*(obj.name for obj in objects), "ceiling"])[-1],
        category="ceiling",
        instance_id=len(objects) + 1,
        vertices=np.array([(x0, y0, z_m), (x0, y1, z_m), (x1, y1, z_m), (x1, y0, z_m)], np.float32),
        faces=np.array([(0, 1, 2), (0, 2, 3)], np.int32),
        materials=(Material("ceiling", (0.85, 0.85, 0.83), roughness=0.9),),
        face_material=np.zeros(2, np.int32),
    )


def _check_hash(config: MeshConfig) -> str:
    """The file's SHA-256. Raises AssetError where it is missing or differs from what the job promised."""
    try:
        digest = hashlib.sha256(config.path.read_bytes()).hexdigest()
    except OSError as error:
        raise AssetError(
            f"scene {config.name!r}: mesh file {config.path} cannot be read ({error.strerror or error}). "
            "Check the scene's `path`."
        ) from error
    if config.sha256 and digest != config.sha256.lower():
        raise AssetError(
            f"scene {config.name!r}: mesh file {config.path} has SHA-256 {digest}, the job promises "
            f"{config.sha256.lower()}. Fetch the right file, or correct `sha256`."
        )
    return digest
