"""The renderer of Gaussian-splat scenes: colour, depth and coverage from splats, labels from the proxy mesh."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from nimbusd.renderers.raycast import RayCaster, import_embree
from nimbusd.renderers.splats.align import worst_side_px
from nimbusd.renderers.splats.device import GsBackend, choose_rasterizer
from nimbusd.renderers.splats.types import Rasterizer, SplatImages
from nimbusd.stages.base import BaseRenderer, ComponentArgs
from nimbusd.stages.categories import label_table, semantic_table
from nimbusd.stages.errors import RenderError
from nimbusd.stages.motion import check_motion
from nimbusd.stages.types import F32, F64, U8, U16, Camera, CameraFrames, Label, Observation, Rgb, Scene, Sequence

_BATCH = 8


class GsArgs(ComponentArgs):
    """Arguments of SCGSRenderer.

    backend: `auto` takes gsplat where it can run. background: what shows where no Gaussian does: `sky`, the scene's
    sky, or an sRGB colour in 0…1. min_coverage: below this share of a pixel its depth is 0 (no reading).
    segmentation: ids of the proxy mesh's objects, cast exactly; splats themselves have no objects.
    max_misalignment_px: refuse a sequence if, in its middle frame, the splats' depth lies further than this from the
    mesh's surfaces that face along any one world axis (median over their points); None does not look.
    threads: 0 for as many as the process may use.
    """

    backend: GsBackend = "auto"
    background: Literal["sky"] | Rgb = "sky"
    depth: bool = True
    segmentation: bool = False
    min_coverage: float = Field(default=0.5, ge=0, le=1)
    max_misalignment_px: float | None = Field(default=None, gt=0)
    threads: int = Field(default=0, ge=0, le=1024)

    @field_validator("background")
    @classmethod
    def _in_range(cls, value: Literal["sky"] | Rgb) -> Literal["sky"] | Rgb:
        if value != "sky" and not all(0 <= channel <= 1 for channel in value):
            raise ValueError("a background colour has three values in 0…1, or is the word sky")
        return value


class SCGSRenderer(BaseRenderer[GsArgs]):
    """Renders sequences through the Gaussians of a scene. The cloud stays on the device while scenes repeat."""

    args_model: ClassVar[type[ComponentArgs]] = GsArgs
    requires = ("numba",)
    may_use = ("gsplat", "torch")

    def needs(self) -> tuple[str, ...]:
        return (*self.requires, "embreex") if self._casts_rays else self.requires

    @property
    def _casts_rays(self) -> bool:
        return self.args.segmentation or self.args.max_misalignment_px is not None

    def __init__(self, args: GsArgs) -> None:
        super().__init__(args)
        self._rasterizer: Rasterizer | None = None
        self._scene: Scene | None = None
        self._caster: RayCaster | None = None

    @property
    def device_name(self) -> str:
        """The device that the splats are drawn on, such as `CUDA (NVIDIA L40)`; empty before open()."""
        return self._rasterizer.device_name if self._rasterizer else ""

    def open(self, device: str) -> None:
        if self._casts_rays:
            import_embree()
        self._rasterizer = choose_rasterizer(device, self.args.backend, self.args.threads)

    def load(self, scene: Scene) -> None:
        if self._rasterizer is None:
            self.open("auto")
        assert self._rasterizer is not None
        if scene.splats is None:
            raise RenderError(
                f"scene {scene.name!r} has no splats: SCGSRenderer needs scenes of GSMeshLoader. Change the job's "
                "`load` or `render` component."
            )
        if self._scene is not None and self._scene.content_hash == scene.content_hash:
            return
        self._scene = None
        self._rasterizer.load(scene.splats)
        self._caster = RayCaster(scene) if self._casts_rays else None
        if self._caster is not None:
            self._caster.prepare(frozenset())
        self._scene = scene
        self.beat()

    def gen_obs(self, seq: Sequence) -> Observation:
        if self._scene is None:
            raise RenderError("no scene is loaded: call load(scene) before gen_obs(seq)")
        check_motion(self, seq, self._scene)  # Gaussians cannot be moved apart
        labels = label_table(self._scene.objects) if self.args.segmentation else ()
        frames, holes = {}, []
        for camera in seq.cameras:
            frames[camera.name] = made = self._frames(camera, seq.T_world_camera[camera.name], labels)
            assert made.coverage is not None
            holes.append(float(np.mean(made.coverage < self.args.min_coverage)))
        return Observation(frames=frames, labels=labels, renderer=self._facts(holes))

    def close(self) -> None:
        if self._rasterizer is not None:
            self._rasterizer.close()
        self._rasterizer = self._scene = self._caster = None

    def _frames(self, camera: Camera, T_world_camera: F64, labels: tuple[Label, ...]) -> CameraFrames:
        assert self._rasterizer is not None
        shape = (len(T_world_camera), camera.height, camera.width)
        rgb, coverage = np.empty((*shape, 3), np.uint8), np.empty(shape, np.float32)
        depth = np.empty(shape, np.float32)
        ids = np.empty(shape, np.uint16) if self.args.segmentation else None
        # Rays are cast in a thread of their own, beside the rasterizer: neither holds the GIL.
        with ThreadPoolExecutor(1, "raycast") as pool:
            for first in range(0, shape[0], _BATCH):
                part = slice(first, first + _BATCH)
                poses = T_world_camera[part]
                casting = None if ids is None else pool.submit(self._cast, camera, poses)
                images = self._rasterizer.render(camera, poses, self._background())
                self.beat()
                rgb[part], coverage[part] = to_bytes(images), images.coverage
                depth[part] = np.where(images.coverage >= self.args.min_coverage, images.depth_m, 0)
                if ids is not None and casting is not None:
                    ids[part] = casting.result()
                self.beat()
        self._check_alignment(camera, T_world_camera, depth)
        return CameraFrames(
            rgb=rgb,
            depth_m=depth if self.args.depth else None,
            instance=ids,
            semantic=None if ids is None else semantic_table(labels)[ids],
            coverage=coverage,
        )

    def _cast(self, camera: Camera, T_world_camera: F64) -> U16:
        assert self._caster is not None
        return np.stack([self._caster.cast(camera, T, {})[1] for T in T_world_camera])

    def _check_alignment(self, camera: Camera, T_world_camera: F64, depth: F32) -> None:
        """Compare the middle frame with the mesh. Raises RenderError where they lie apart."""
        limit = self.args.max_misalignment_px
        if limit is None:
            return
        assert self._caster is not None
        assert self._scene is not None
        middle = len(T_world_camera) // 2
        mesh_depth, _ = self._caster.cast(camera, T_world_camera[middle], {})
        worst = worst_side_px(camera, T_world_camera[middle], mesh_depth, depth[middle])
        if worst > limit:
            raise RenderError(
                f"scene {self._scene.name!r}: splats and proxy mesh lie {worst:.1f} pixels apart, more than "
                f"max_misalignment_px = {limit}. Correct the scene's T_world_splats, unit_m or up_axis."
            )

    def _background(self) -> Rgb:
        """sRGB-encoded."""
        assert self._scene is not None
        if self.args.background != "sky":
            return self.args.background
        linear = np.clip(np.asarray(self._scene.sky_color) * min(self._scene.sky_strength, 1.0), 0, 1)
        r, g, b = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
        return float(r), float(g), float(b)

    def _facts(self, holes: list[float]) -> dict[str, Any]:
        assert self._scene is not None
        assert self._scene.splats is not None
        return {
            "backend": "gaussian_splatting",
            "device": self.device_name,
            "gaussians": len(self._scene.splats),
            "sh_degree": self._scene.splats.sh_degree,
            "hole_share": round(float(np.mean(holes)), 6),
            "min_coverage": self.args.min_coverage,
            "labels": "proxy mesh" if self.args.segmentation else "none",
        }


def to_bytes(images: SplatImages) -> U8:
    """(B, H, W, 3) uint8 sRGB."""
    return np.asarray(np.rint(np.clip(images.rgb, 0, 1) * np.float32(255)), np.uint8)
