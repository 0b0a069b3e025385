"""A small stand-in for Isaac Sim's modules: it draws the real USD stage by casting rays at its meshes.

It knows the stage alone: cameras, poses, visibility and meshes as USD composes them. So what it draws proves the
authored stage, and how it is driven proves the calls; it proves nothing of RTX. Where the real thing is known to
surprise, it surprises in the same way (read in the sources of Isaac Sim 5.1.0, 6.0.1 and 6.2.0, and of Isaac Lab):

- RTX has square pixels and a centred principal point whatever the apertures' offsets say; only the lens
  `OmniLensDistortionOpenCvPinholeAPI` gives it others.
- `active_gpu` counts graphics devices and does not know CUDA_VISIBLE_DEVICES; `activeCudaGpus` counts what CUDA sees,
  and is not heeded unless it is text, hence the comma at its end.
- A new stage takes the render settings back, at the next update. Opacity then is drawn as solid, and each renderer has
  a setting of its own for it.
- Textures arrive some updates after the annotators have pictures.
- It has no dist-info.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nimbusd.renderers.isaac import app as isaac_app
from nimbusd.renderers.isaac import stage as isaac_stage
from nimbusd.stages.types import F64


def cast(origin: F64, directions: F64, triangles: F64) -> tuple[F64, Any]:
    """Nearest hit of (R, 3) rays with (N, 3, 3) triangles: how far in lengths of the direction (inf), and which."""
    a, ab, ac = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    p = np.cross(directions[:, None], ac[None])
    det = np.einsum("nk,rnk->rn", ab, p)
    inverse = np.divide(1.0, det, out=np.zeros_like(det), where=np.abs(det) > 1e-12)
    from_a = origin - a
    u = np.einsum("nk,rnk->rn", from_a, p) * inverse
    q = np.cross(from_a, ab)
    v = np.einsum("rk,nk->rn", directions, q) * inverse
    t = np.einsum("nk,nk->n", ac, q)[None] * inverse
    t = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-6) & (inverse != 0), t, np.inf)
    which = t.argmin(axis=1)
    return t[np.arange(len(directions)), which], which


_RTX_DEFAULTS: dict[str, object] = {
    "/rtx/rendermode": "RaytracedLighting",
    "/rtx/raytracing/fractionalCutoutOpacity": False,
    "/rtx/pathtracing/fractionalCutoutOpacity": False,
    "/rtx/post/dlss/execMode": 0,  # performance
}
_LAUNCH_KEYS = {
    "headless", "active_gpu", "physics_gpu", "multi_gpu", "renderer", "samples_per_pixel_per_frame", "extra_args",
    "limit_cpu_threads",
}  # fmt: skip
_CUDA_GPUS = "--/renderer/multiGpu/activeCudaGpus="
_LENS = "omni:lensdistortion:opencvPinhole:"


def installed(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A stand-in in the place of Isaac Sim's modules, on a machine with an RTX GPU where nothing was started yet."""
    made = StandIn()
    made.install(monkeypatch)
    monkeypatch.setattr(isaac_app, "_running", {})
    monkeypatch.setattr(isaac_app, "gpu_names", lambda: ["NVIDIA L40S"])
    monkeypatch.setattr(isaac_stage, "has_lens", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return made


class StandIn:
    """The modules, and what was asked of them.

    empty_passes: so many pictures come back empty, as after a start. streaming: so many updates of a new stage until
    its textures are there. gpus: uuids, as graphics counts them. rendered_on: the one it was started on.
    """

    def __init__(self) -> None:
        from pxr import Usd

        self.stage: Any = Usd.Stage.CreateInMemory()
        self.products: list[Any] = []
        self.steps = 0
        self.empty_passes = 1
        self.streaming = 20
        self.configs: list[dict[str, Any]] = []
        self.settings: dict[str, object] = dict(_RTX_DEFAULTS)
        self.gpus = ("GPU-aaaa", "GPU-bbbb")
        self.rendered_on = ""
        self._streaming_left = 0
        self._stage_is_new = self._asked = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        modules: dict[str, dict[str, Any]] = {
            "isaacsim": {"SimulationApp": self._start},
            "isaacsim.core": {},
            "isaacsim.core.version": {"get_version": lambda: ("5.1.0", "rc.19", "5", "1", "0", "rc", "19", "")},
            "carb": {},
            "carb.settings": {"get_settings": lambda: SimpleNamespace(set=self._set)},
            "omni": {},
            "omni.usd": {
                "get_context": lambda: SimpleNamespace(
                    new_stage=self._new_stage,
                    get_stage=lambda: self.stage,
                    get_stage_loading_status=lambda: ("", 0, 0),
                    get_stage_streaming_status=lambda: self._streaming_left > 0,
                )
            },
            "omni.replicator": {},
            "omni.replicator.core": {
                "create": SimpleNamespace(render_product=self._product),
                "AnnotatorRegistry": SimpleNamespace(get_annotator=self._annotator),
                "orchestrator": SimpleNamespace(step=self._step, set_capture_on_play=lambda _: None),
            },
        }
        for name, content in modules.items():
            module = ModuleType(name)
            module.__dict__.update(content)
            monkeypatch.setitem(sys.modules, name, module)
            if "." in name:
                parent, _, child = name.rpartition(".")
                setattr(sys.modules[parent], child, module)

    def _start(self, config: dict[str, Any]) -> Any:
        assert set(config) <= _LAUNCH_KEYS, "SimulationApp ignores keys that it does not know"
        self.configs.append(config)
        self.rendered_on = self._chosen_gpu(config)
        self._reset_settings(config)
        return SimpleNamespace(update=self._update, reset_render_settings=lambda: self._reset_settings(config))

    def _chosen_gpu(self, config: dict[str, Any]) -> str:
        mask = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = self.gpus if mask is None else tuple(mask.split(","))
        if config.get("active_gpu") is not None:
            if self.gpus[config["active_gpu"]] not in visible:
                raise RuntimeError("Failed to create any GPU devices")
            return self.gpus[config["active_gpu"]]
        for argument in config.get("extra_args", ()):
            if argument.startswith(_CUDA_GPUS) and argument.endswith(","):
                return visible[int(argument[len(_CUDA_GPUS) : -1])]
        return self.gpus[0]

    def _reset_settings(self, config: dict[str, Any]) -> None:
        self.settings["/rtx/rendermode"] = config["renderer"]
        self.settings["/rtx/pathtracing/spp"] = config["samples_per_pixel_per_frame"]

    def _set(self, key: str, value: object) -> None:
        self.settings[key] = value

    def _update(self) -> None:
        if self._stage_is_new:
            self.settings = dict(_RTX_DEFAULTS)
            self._stage_is_new = False
        self._streaming_left = max(self._streaming_left - 1, 0)

    def _new_stage(self) -> None:
        from pxr import Usd

        self.stage = Usd.Stage.CreateInMemory()
        self._stage_is_new, self._asked, self._streaming_left = True, False, 0

    def _product(self, path: str, size: tuple[int, int]) -> Any:
        assert self.stage.GetPrimAtPath(path), path
        product = SimpleNamespace(path=path, size=size, shown={})
        product.destroy = lambda: self.products.remove(product)
        self.products.append(product)
        return product

    def _annotator(self, name: str, init_params: dict[str, object] | None = None) -> Any:
        assert name in {"rgb", "distance_to_image_plane", "instance_id_segmentation_fast"}
        assert (name == "instance_id_segmentation_fast") == (init_params == {"colorize": False})
        attached: list[Any] = []
        return SimpleNamespace(
            attach=attached.extend,
            detach=attached.clear,
            get_data=lambda: attached[0].shown.get(name, np.empty(0)),
        )

    def _step(self, rt_subframes: int, delta_time: float, pause_timeline: bool) -> None:
        assert rt_subframes >= 1
        assert (delta_time, pause_timeline) == (0.0, True)
        self.steps += 1
        self._update()
        if not self._asked:  # what the cameras see is asked for now
            self._asked, self._streaming_left = True, self.streaming
        if self.steps <= self.empty_passes:
            return
        for product in self.products:
            product.shown = self._draw(product)

    def _meshes(self) -> tuple[list[str], Any, F64, Any]:
        """Paths, and of every triangle: its mesh, corners in the world, and whether light passes its material."""
        from pxr import UsdGeom, UsdShade

        paths: list[str] = []
        owners, triangles, clear = [], [], []
        for prim in self.stage.Traverse():
            if not prim.IsA(UsdGeom.Mesh) or UsdGeom.Imageable(prim).ComputeVisibility() == "invisible":
                continue
            mesh = UsdGeom.Mesh(prim)
            pose = np.array(UsdGeom.XformCache().GetLocalToWorldTransform(prim))
            points = np.array(mesh.GetPointsAttr().Get()) @ pose[:3, :3] + pose[3, :3]
            faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
            bound = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()[0]
            opacity = bound.ComputeSurfaceSource()[0].GetInput("opacity").Get() if bound else 1.0
            owners.append(np.full(len(faces), len(paths)))
            clear.append(np.full(len(faces), opacity < 1))
            paths.append(str(prim.GetPath()))
            triangles.append(points[faces])
        return paths, np.concatenate(owners), np.concatenate(triangles), np.concatenate(clear)

    def _rays(self, product: Any) -> tuple[F64, F64, float]:
        """Origin, (R, 3) directions and far plane of a camera as RTX has it."""
        from pxr import UsdGeom

        (width, height), prim = product.size, self.stage.GetPrimAtPath(product.path)
        camera = UsdGeom.Camera(prim).GetCamera(0)
        fx = fy = width * camera.focalLength / camera.horizontalAperture
        cx, cy = width / 2, height / 2
        applied = prim.GetMetadata("apiSchemas")
        if applied and "OmniLensDistortionOpenCvPinholeAPI" in applied.GetAppliedItems():
            assert prim.GetAttribute("omni:lensdistortion:model").Get() == "opencvPinhole"
            of_width, of_height = prim.GetAttribute(f"{_LENS}imageSize").Get()
            fx, cx = (prim.GetAttribute(f"{_LENS}{key}").Get() * width / of_width for key in ("fx", "cx"))
            fy, cy = (prim.GetAttribute(f"{_LENS}{key}").Get() * height / of_height for key in ("fy", "cy"))
        u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        pose = np.array(camera.transform)
        rays = np.stack([(u - cx) / fx, -(v - cy) / fy, -np.ones_like(u)], axis=-1)
        return pose[3, :3], rays.reshape(-1, 3) @ pose[:3, :3], camera.clippingRange.max

    def _draw(self, product: Any) -> dict[str, Any]:
        width, height = product.size
        paths, owners, triangles, clear = self._meshes()
        origin, rays, far = self._rays(product)
        depth, which = cast(origin, rays, triangles)
        depth[depth > far] = np.inf
        ids = np.where(np.isfinite(depth), owners[which] + 2, 0)
        colors = ids * 40
        renderer = "pathtracing" if self.settings["/rtx/rendermode"] == "PathTracing" else "raytracing"
        if self.settings[f"/rtx/{renderer}/fractionalCutoutOpacity"] and not clear.all():
            behind, there = cast(origin, rays, triangles[~clear])
            seen = np.where(np.isfinite(behind), owners[~clear][there] + 2, 0) * 40
            colors = np.where(np.isfinite(depth) & clear[which], (colors + seen) // 2, colors)
        if self._streaming_left:
            colors = np.full_like(colors, 128)
        rgba = np.full((height, width, 4), 255, np.uint8)
        rgba[..., :3] = colors.reshape(height, width, 1).astype(np.uint8)
        labels = {"0": "BACKGROUND", "1": "UNLABELLED"} | {str(n + 2): path for n, path in enumerate(paths)}
        return {
            "rgb": rgba,
            "distance_to_image_plane": depth.reshape(height, width).astype(np.float32),
            "instance_id_segmentation_fast": {
                "data": ids.reshape(height, width).astype(np.uint32),
                "info": {"idToLabels": labels},
            },
        }
