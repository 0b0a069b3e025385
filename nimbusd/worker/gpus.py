"""NVIDIA GPUs of this machine, through NVML: what they are and how busy they are. None where NVML is not there.

NVML comes with the driver; the package nvidia-ml-py (extra `gpu`) speaks to it.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import Any

from nimbusd.transport.control import GpuLoad

log = logging.getLogger(__name__)


@cache
def _nvml() -> Any:
    """The initialized library, or None."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        log.info("no GPU is watched: %s", error)
        return None
    return nvml


def driver_version() -> str:
    """The driver's version; empty without a GPU."""
    nvml = _nvml()
    return "" if nvml is None else _text(nvml.nvmlSystemGetDriverVersion())


def loads() -> tuple[GpuLoad, ...]:
    """What each GPU does. One that cannot be asked just now (it was reset, or fell off the bus) is left out."""
    nvml = _nvml()
    if nvml is None:
        return ()
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(device)
            busy = nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100
            name = f"cuda:{index} {_text(nvml.nvmlDeviceGetName(device))}"
        except nvml.NVMLError as error:
            log.warning("GPU %d cannot be asked for its load: %s", index, error)
            continue
        found.append(GpuLoad(name, busy, int(memory.used), int(memory.total)))
    return tuple(found)


def _text(value: str | bytes) -> str:
    """Older versions of the package return bytes."""
    return value.decode() if isinstance(value, bytes) else value
