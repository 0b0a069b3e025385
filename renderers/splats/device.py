"""The choice of the rasterizer that draws splats on a device, and clear words for a machine where one cannot run."""

from __future__ import annotations

import importlib
import logging
from types import ModuleType
from typing import Literal

from nimbusd.renderers.splats.types import Rasterizer
from nimbusd.stages.errors import BackendUnavailable

log = logging.getLogger(__name__)

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
    gsplat where it can run, unless the device is `cpu`, and the CPU otherwise, which it warns of on a CUDA device.
    Raises BackendUnavailable where the wish is `cuda` and cannot be had.
    """
    from nimbusd.renderers.splats.cpu import CpuRasterizer, warm_up
    from nimbusd.renderers.splats.gsplat_cuda import GsplatRasterizer

    on_cuda = device.startswith("cuda")
    if backend == "cuda" or (backend == "auto" and device != "cpu"):
        try:
            return GsplatRasterizer(device if on_cuda else "cuda")
        except BackendUnavailable as error:
            if backend == "cuda":
                raise
            if on_cuda:
                log.warning("splats are drawn on the CPU, not on %s: %s", device, error)
    rasterizer = CpuRasterizer(threads)
    warm_up()
    return rasterizer
