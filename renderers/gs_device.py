"""Which rasterizer draws splats on a device, and clear words for a machine where one cannot run."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Literal

from nimbusd.renderers.gs_types import Rasterizer
from nimbusd.stages.errors import BackendUnavailable

GsBackend = Literal["auto", "cpu", "cuda"]


def import_numba() -> ModuleType:
    """Import numba. Raises BackendUnavailable with one sentence that says what to install."""
    try:
        return importlib.import_module("numba")
    except ImportError as error:
        raise BackendUnavailable(
            f"The CPU rasterizer of splats needs the Python package numba ({error}): pip install 'nimbusd[gs]'."
        ) from error


def choose_rasterizer(device: str, backend: GsBackend, threads: int) -> Rasterizer:
    """The rasterizer for a slot's device.

    device: `auto`, `cpu`, `cuda` or `cuda:N`, as given to a renderer's open(). backend: the job's wish; `auto` takes
    gsplat on a CUDA slot, or where a CUDA GPU and gsplat are there, and the CPU otherwise. Raises BackendUnavailable
    where CUDA is asked for by name and cannot be had.
    """
    from nimbusd.renderers.gs_cpu import CpuRasterizer, warm_up
    from nimbusd.renderers.gsplat_cuda import GsplatRasterizer

    named = device.startswith("cuda") or backend == "cuda"
    if backend != "cpu" and (device != "cpu" or named):
        try:
            return GsplatRasterizer(device if device.startswith("cuda") else "cuda")
        except BackendUnavailable:
            if named:
                raise
    rasterizer = CpuRasterizer(threads)
    warm_up()
    return rasterizer
