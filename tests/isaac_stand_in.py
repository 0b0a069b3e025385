"""A small stand-in for Isaac Sim's modules: it draws the real USD stage by casting rays at its meshes.

It knows the stage alone: cameras by `Gf.Camera`, poses, visibility and meshes as USD composes them. So what it draws
proves the authored stage, and how it is driven proves the calls; it proves nothing of RTX.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

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


class StandIn:
    """The modules, and what was asked of them. empty_passes: so many pictures come back empty, as after a start."""

    def __init__(self) -> None:
        from pxr import Usd

        self.stage: Any = Usd.Stage.CreateInMemory()
        self.products: list[Any] = []
        self.steps = 0
        self.empty_passes = 1
        self.configs: list[dict[str, Any]] = []
        self.settings: dict[str, object] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        modules: dict[str, dict[str, Any]] = {
            "isaacsim": {"SimulationApp": self._start},
            "carb": {},
            "carb.settings": {"get_settings": lambda: SimpleNamespace(set=self.settings.__setitem__)},
            "omni": {},
            "omni.usd": {
                "get_context": lambda: SimpleNamespace(new_stage=self._new_stage, get_stage=lambda: self.stage)
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
        self.configs.append(config)
        return SimpleNamespace(update=lambda: None)

    def _new_stage(self) -> None:
        from pxr import Usd

        self.stage = Usd.Stage.CreateInMemory()

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
        if self.steps <= self.empty_passes:
            return
        paths, owners, triangles = self._triangles()
        for product in self.products:
            product.shown = self._draw(product, paths, owners, triangles)

    def _triangles(self) -> tuple[list[str], Any, F64]:
        from pxr import UsdGeom

        paths: list[str] = []
        owners, triangles = [], []
        for prim in self.stage.Traverse():
            if not prim.IsA(UsdGeom.Mesh) or UsdGeom.Imageable(prim).ComputeVisibility() == "invisible":
                continue
            mesh = UsdGeom.Mesh(prim)
            pose = np.array(UsdGeom.XformCache().GetLocalToWorldTransform(prim))
            points = np.array(mesh.GetPointsAttr().Get()) @ pose[:3, :3] + pose[3, :3]
            faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
            owners.append(np.full(len(faces), len(paths)))
            paths.append(str(prim.GetPath()))
            triangles.append(points[faces])
        return paths, np.concatenate(owners), np.concatenate(triangles)

    def _draw(self, product: Any, paths: list[str], owners: Any, triangles: F64) -> dict[str, Any]:
        from pxr import UsdGeom

        (width, height), camera = product.size, UsdGeom.Camera.Get(self.stage, product.path).GetCamera(0)
        frustum = camera.frustum
        window, pose = frustum.GetWindow(), np.array(camera.transform)
        low, high = np.array(window.GetMin()), np.array(window.GetMax())
        u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        x, y = low[0] + u * (high[0] - low[0]), high[1] - v * (high[1] - low[1])
        rays = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3) @ pose[:3, :3]
        depth, which = cast(pose[3, :3], rays, triangles)
        depth[depth > frustum.GetNearFar().GetMax()] = np.inf
        ids = np.where(np.isfinite(depth), owners[which] + 2, 0).reshape(height, width)
        rgba = np.full((height, width, 4), 255, np.uint8)
        rgba[..., :3] = (ids[..., None] * 40).astype(np.uint8)
        labels = {"0": "BACKGROUND", "1": "UNLABELLED"} | {str(n + 2): path for n, path in enumerate(paths)}
        return {
            "rgb": rgba,
            "distance_to_image_plane": depth.reshape(height, width).astype(np.float32),
            "instance_id_segmentation_fast": {"data": ids.astype(np.uint32), "info": {"idToLabels": labels}},
        }
