"""`GsplatRasterizer`: Gaussian splats on a CUDA GPU by the gsplat library."""

from __future__ import annotations

import fcntl
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.renderers.splats.types import BLUR_PX2, NEAR_M, SplatImages, cameras_to_splats
from nimbusd.stages.errors import BackendUnavailable, RenderError
from nimbusd.stages.types import F64, Camera, Rgb, Splats

_BATCH = 32


class GsplatRasterizer:
    """Batched cameras, colour and expected depth in one packed pass. device: `cuda` or `cuda:N`.

    Raises BackendUnavailable where torch, gsplat or the GPU is missing, or gsplat's kernels can neither be loaded nor
    compiled, which takes minutes the first time on a machine. The cloud stays on the device until load()
    gives another.
    """

    def __init__(self, device: str) -> None:
        self._torch: Any = _import("torch")
        gsplat: Any = _import("gsplat")
        if not self._torch.cuda.is_available():
            raise BackendUnavailable(
                "gsplat needs a CUDA GPU, and torch sees none here. Use the CPU rasterizer (render.args.backend: cpu), "
                "or install a torch built for CUDA beside a working driver."
            )
        _load_kernels()
        self._rasterization = gsplat.rasterization
        self._device = self._torch.device(device)
        self._arrays: dict[str, Any] = {}
        self._splats: Splats | None = None

    @property
    def device_name(self) -> str:
        return f"CUDA ({self._torch.cuda.get_device_name(self._device)})"

    def load(self, splats: Splats) -> None:
        """Copy `splats` to the device."""
        named = {
            "means": splats.means,
            "quats": splats.quats,
            "scales": splats.scales,
            "opacities": splats.opacities,
            "colors": splats.sh,
        }
        self._arrays = {name: self._tensor(values) for name, values in named.items()}
        self._splats = splats

    def close(self) -> None:
        self._arrays, self._splats = {}, None
        self._torch.cuda.empty_cache()

    def render(self, camera: Camera, T_world_camera: F64, background: Rgb) -> SplatImages:
        """Draw the loaded cloud from each pose; see `Rasterizer`. Raises RenderError where none is loaded."""
        if self._splats is None:
            raise RenderError("no splats are loaded: call load(splats) before render(…)")
        parts = [
            self._batch(camera, T_world_camera[first : first + _BATCH], background)
            for first in range(0, len(T_world_camera), _BATCH)
        ]
        return SplatImages(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("rgb", "depth_m", "coverage"))
        )

    def _batch(self, camera: Camera, T_world_camera: F64, background: Rgb) -> SplatImages:
        torch, splats = self._torch, self._splats
        assert splats is not None
        view, _ = cameras_to_splats(splats, np.asarray(T_world_camera, np.float64))
        frames = len(view)
        viewmats = np.tile(np.eye(4), (frames, 1, 1))
        viewmats[:, :3] = view
        with torch.inference_mode():
            drawn, coverage, _ = self._rasterization(
                **self._arrays,
                viewmats=self._tensor(viewmats),
                Ks=self._tensor(np.tile(camera.matrix(), (frames, 1, 1))),
                width=camera.width,
                height=camera.height,
                near_plane=NEAR_M / splats.unit_m,
                eps2d=BLUR_PX2,
                sh_degree=splats.sh_degree,
                packed=True,
                render_mode="RGB+ED",
            )
            through = 1.0 - coverage
            rgb = drawn[..., :3] + through * self._tensor(np.asarray(background))
            depth_m = torch.where(coverage[..., 0] > 0, drawn[..., 3] * splats.unit_m, 0.0)
            return SplatImages(*(part.float().cpu().numpy() for part in (rgb, depth_m, coverage[..., 0])))

    def _tensor(self, values: Any) -> Any:
        return self._torch.as_tensor(np.ascontiguousarray(values, np.float32), device=self._device)


def _load_kernels() -> None:
    """Load gsplat's CUDA kernels, compiling them where they are not yet: it would do so at the first picture.

    One process at a time, since each would clear the folder in which the other builds. The lock goes with its process.
    """
    folder = Path(importlib.import_module("torch.utils.cpp_extension").get_default_build_root())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "nimbusd-gsplat.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            kernels = importlib.import_module("gsplat.cuda._backend")._C
        except Exception as error:  # a compiler may fail with anything
            raise BackendUnavailable(
                f"gsplat's CUDA kernels could not be compiled ({error}): look at what nvcc said above, or set "
                "render.args.backend to cpu"
            ) from error
    if kernels is None:
        raise BackendUnavailable(
            "gsplat has no CUDA kernels here, and no CUDA toolkit to compile them with: install nvcc, of the version "
            "that torch was built for, and name its folder in CUDA_HOME; or set render.args.backend to cpu"
        )


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendUnavailable(
            f"Drawing splats on a GPU needs the Python package {name} ({error}): pip install 'nimbusd[gs-cuda]', with "
            "the CUDA toolkit (nvcc) and ninja for its first start; or set render.args.backend to cpu."
        ) from error
