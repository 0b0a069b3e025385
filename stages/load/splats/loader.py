"""`GSMeshLoader`: scenes that look as Gaussian splats and are planned on as a mesh."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from nimbusd.stages.base import BaseLoader, ComponentArgs, SceneConfig
from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.apartment.floorplan import ROOM_COUNTS
from nimbusd.stages.load.apartment.loader import ApartmentArgs, ApartmentConfig, ApartmentLoader
from nimbusd.stages.load.mend import WARNINGS, warned, warnings_of
from nimbusd.stages.load.mend.doubts import doubts
from nimbusd.stages.load.mend.recentre import origin_m, recentred, shifted
from nimbusd.stages.load.mesh.files import MESH_SUFFIXES, UpAxis, referenced_files
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.load.splats.files import (
    SPLAT_SUFFIXES,
    SplatUp,
    check_splat_file,
    default_up,
    read_splats,
    splat_files,
    z_up_from,
)
from nimbusd.stages.load.splats.from_mesh import sample_splats
from nimbusd.stages.load.splats.proxy import occupied_voxels, voxel_mesh
from nimbusd.stages.types import F64, Scene, SceneObject, Splats

_PROBES = 2000
_CLOUD_PROBES = 200_000
_LEAST_NEAR = 0.2

Row = tuple[float, float, float, float]


class GSMeshArgs(ComponentArgs):
    """gaussians: how many are sampled from a mesh where a scene has no splat file.

    voxel_m, voxel_cover, voxel_cluster: of the proxy made from splats where a scene has no mesh: edge of a voxel,
    share of its face that Gaussians must cover, and the smallest cluster of voxels that is kept.
    max_gap_m: a proxy whose surface lies further than this from every Gaussian, for the most part, is refused.
    texture_px: of apartments.
    """

    gaussians: int = Field(default=400_000, ge=1000, le=50_000_000)
    voxel_m: float = Field(default=0.08, gt=0.005, le=1.0)
    voxel_cover: float = Field(default=0.5, gt=0, le=10)
    voxel_cluster: int = Field(default=30, ge=1)
    max_gap_m: float = Field(default=0.25, gt=0)
    texture_px: int = Field(default=512, ge=16, le=4096)


class GSMeshConfig(SceneConfig):
    """A scene of splats and a proxy mesh; what is not given is derived from the other.

    splats: .ply, .sog, .spz or the meta.json of a SOG folder. Without it, Gaussians are sampled from the proxy.
    proxy: .obj, .gltf, .glb or .ply. Without it: a voxel mesh of the splats, or, without splats too, an apartment.
    seed, rooms: of that apartment.
    unit_m, up_axis: metres per unit of the splat file and its axis that points up (by default `-y` for .ply and SOG,
    as training from photographs leaves it, and `y` for .spz). T_world_splats: instead of the two, four rows of a
    matrix (rotation, one scale, shift) that takes the splat file's frame to the proxy's world.
    proxy_unit_m, proxy_up_axis: the same for the mesh.
    """

    splats: Path | None = None
    proxy: Path | None = None
    seed: int = Field(default=0, ge=0)
    rooms: int = Field(default=4, ge=ROOM_COUNTS[0], le=ROOM_COUNTS[1])
    unit_m: float = Field(default=1.0, gt=0)
    up_axis: SplatUp | None = None
    T_world_splats: tuple[Row, Row, Row, Row] | None = None
    proxy_unit_m: float = Field(default=1.0, gt=0)
    proxy_up_axis: UpAxis | None = None

    @field_validator("splats")
    @classmethod
    def _splats_known(cls, path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() not in SPLAT_SUFFIXES:
            raise ValueError(f"{path.name} is not a splat file of a known kind; use one of {', '.join(SPLAT_SUFFIXES)}")
        return path

    @field_validator("proxy")
    @classmethod
    def _proxy_known(cls, path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() not in MESH_SUFFIXES:
            raise ValueError(f"{path.name} is not a mesh file of a known kind; use one of {', '.join(MESH_SUFFIXES)}")
        return path

    @model_validator(mode="after")
    def _one_alignment(self) -> GSMeshConfig:
        if self.T_world_splats is None:
            return self
        if self.unit_m != 1.0 or self.up_axis is not None:
            raise ValueError("T_world_splats says units and axes too: give it, or unit_m and up_axis, not both")
        T = np.array(self.T_world_splats)
        scale2 = np.linalg.det(T[:3, :3]) ** 2
        gram = T[:3, :3] @ T[:3, :3].T
        if np.linalg.det(T[:3, :3]) <= 0 or not np.allclose(gram, np.eye(3) * np.cbrt(scale2), rtol=1e-3, atol=1e-6):
            raise ValueError("T_world_splats must turn, shift and scale alike along all axes, without mirroring")
        if not np.array_equal(T[3], (0, 0, 0, 1)):
            raise ValueError("the last row of T_world_splats must be 0, 0, 0, 1")
        return self

    def alignment(self) -> F64:
        """(4, 4) T_world_splats."""
        if self.T_world_splats is not None:
            return np.array(self.T_world_splats, np.float64)
        assert self.splats is not None
        T = z_up_from(self.up_axis or default_up(self.splats))
        T[:3, :3] *= self.unit_m
        return T


class GSMeshLoader(BaseLoader[GSMeshArgs, GSMeshConfig]):
    """Loads splats and the mesh to plan on; makes either from the other where one is missing."""

    args_model: ClassVar[type[ComponentArgs]] = GSMeshArgs
    scene_model: ClassVar[type[SceneConfig]] = GSMeshConfig
    version = "1.2.0"
    requires = ("mapbox_earcut", "scipy", "shapely")
    may_use = ("DracoPy", "meshopt")

    def asset_paths(self, config: GSMeshConfig) -> list[Path]:
        paths = [] if config.splats is None else splat_files(config.splats)
        return paths if config.proxy is None else [*paths, config.proxy, *referenced_files(config.proxy)]

    def asset_warnings(self, config: GSMeshConfig) -> list[str]:
        """Of the proxy; raises AssetError for a splat file whose header, or a number in it, makes it unreadable."""
        if config.splats is not None:
            check_splat_file(config.splats)
        return [] if config.proxy is None else BProcObjLoader(MeshArgs()).asset_warnings(_of_proxy(config))

    def load_asset(self, config: GSMeshConfig) -> Scene:
        """The scene. Raises AssetError for what is missing, torn or empty, and for a proxy that lies elsewhere."""
        if config.splats is None:
            return self._derived_from(self._proxy(config), config)
        splats = read_splats(config.splats)
        splats = replace(splats, T_world_splats=config.alignment() @ splats.T_world_splats)
        self.beat()
        origin = {
            "splats": str(config.splats),
            "sha256": _digest(splat_files(config.splats)),
            "gaussians": len(splats),
            "sh_degree": splats.sh_degree,
            "T_world_splats": config.alignment().tolist(),
        }
        if config.proxy is not None:
            scene = self._proxy(config)
            splats = shifted(splats, origin_m(scene))
            self._check_overlap(scene, splats, config)
            return self._with(scene, splats, {**origin, "derived": "nothing"})
        bare = recentred(Scene(config.name, (), splats=splats))
        assert bare.splats is not None
        splats = bare.splats
        voxels = occupied_voxels(
            splats,
            self.args.voxel_m,
            min_cover=self.args.voxel_cover,
            min_cells=self.args.voxel_cluster,
            beat=self.beat,
        )
        facts = {"derived": "proxy", "voxel_m": voxels.cell_m, "voxels": len(voxels.cells)}
        made = Scene(config.name, (voxel_mesh(voxels),), provenance=bare.provenance)
        done = self._with(made, splats, {**origin, **facts})
        return warned(done, doubts(done))

    def _proxy(self, config: GSMeshConfig) -> Scene:
        if config.proxy is None:
            apartments = ApartmentLoader(ApartmentArgs(texture_px=self.args.texture_px))
            apartments.beat = self.beat
            return apartments.load_asset(ApartmentConfig(name=config.name, seed=config.seed, rooms=config.rooms))
        meshes = BProcObjLoader(MeshArgs())
        meshes.beat = self.beat
        return meshes.load_asset(_of_proxy(config))

    def _derived_from(self, scene: Scene, config: GSMeshConfig) -> Scene:
        splats = sample_splats(scene.objects, self.args.gaussians, config.seed, self.beat)
        return self._with(scene, splats, {"derived": "splats", "gaussians": len(splats), "sh_degree": 0})

    def _with(self, scene: Scene, splats: Splats, facts: dict[str, Any]) -> Scene:
        moved = {"origin_m": origin_m(scene).tolist()} if origin_m(scene).any() else {}
        proxy = {key: value for key, value in scene.provenance.items() if key not in ("origin_m", WARNINGS)}
        provenance = {"loader": "GSMeshLoader", "version": self.version, **facts, **moved, "proxy": proxy}
        return warned(replace(scene, splats=splats, provenance=provenance), warnings_of(scene))

    def _check_overlap(self, scene: Scene, splats: Splats, config: GSMeshConfig) -> None:
        from scipy.spatial import cKDTree

        probes = _surface_points(scene.objects, _PROBES)
        solid = splats.world_means()[splats.opacities >= 0.1]
        cloud = solid[:: max(1, len(solid) // _CLOUD_PROBES)]
        gap, _ = cKDTree(cloud).query(probes) if len(cloud) else (np.full(len(probes), np.inf), None)
        near = float(np.mean(gap <= self.args.max_gap_m))
        if near < _LEAST_NEAR:
            raise AssetError(
                f"scene {config.name!r}: proxy {config.proxy} and splats {config.splats} do not lie on each other: "
                f"{near:.0%} of the mesh has a Gaussian within {self.args.max_gap_m} m (median distance "
                f"{np.median(gap):.2f} m). Check unit_m and up_axis of both, or give T_world_splats."
            )


def _of_proxy(config: GSMeshConfig) -> MeshConfig:
    assert config.proxy is not None
    return MeshConfig(name=config.name, path=config.proxy, unit_m=config.proxy_unit_m, up_axis=config.proxy_up_axis)


def _surface_points(objects: tuple[SceneObject, ...], count: int) -> F64:
    """About `count` points spread over the surfaces, world metres."""
    return sample_splats(objects, count).means.astype(np.float64)


def _digest(paths: list[Path]) -> str:
    """SHA-256 (hex) of the files' contents, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
