"""NVIDIA GPUs of this machine, through NVML: what they are and how busy they are. None where NVML is not there.

NVML comes with the driver; the package nvidia-ml-py (extra `gpu`) speaks to it. It takes no memory on any GPU, and
knows them all, whatever CUDA_VISIBLE_DEVICES says.
"""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from nimbusd.transport.control import GpuLoad

log = logging.getLogger(__name__)

_WORD_BITS = 64
"""Of the sets of cores that NVML gives, as `unsigned long`."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """index: as nvidia-smi counts. cores: CPU cores near it; empty where the machine does not say."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    cores: tuple[int, ...]


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


def present(library: Any = None) -> tuple[Gpu, ...]:
    """The GPUs of this machine that answer. library: NVML, initialized; by default the machine's own."""
    nvml = library or _nvml()
    if nvml is None:
        return ()
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid, name = _text(nvml.nvmlDeviceGetUUID(device)), _text(nvml.nvmlDeviceGetName(device))
            memory = int(nvml.nvmlDeviceGetMemoryInfo(device).total)
        except nvml.NVMLError as error:
            log.warning("GPU %d cannot be used: %s", index, error)
            continue
        found.append(Gpu(index, uuid, name, memory, _cores_near(nvml, device)))
    return tuple(found)


def _cores_near(nvml: Any, device: Any) -> tuple[int, ...]:
    """Cores of the NUMA node that a GPU is attached to; empty where NVML does not know (in many virtual machines)."""
    words = -(-(os.cpu_count() or 1) // _WORD_BITS)
    try:
        sets = list(nvml.nvmlDeviceGetCpuAffinity(device, words))
    except nvml.NVMLError:
        return ()
    return tuple(_WORD_BITS * place + bit for place, word in enumerate(sets) for bit in range(64) if word >> bit & 1)


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


def memory_of_process(pid: int, uuid: str, library: Any = None) -> int:
    """GPU memory that a process has on a GPU; 0 where NVML does not say (in a container with its own pids, say)."""
    if not uuid.startswith("GPU-") or (nvml := library or _nvml()) is None:
        return 0
    try:
        device = nvml.nvmlDeviceGetHandleByUUID(uuid)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(device)
        processes += nvml.nvmlDeviceGetGraphicsRunningProcesses(device)
    except nvml.NVMLError as error:
        log.debug("GPU %s does not say what its processes take: %s", uuid, error)
        return 0
    # One that computes and draws stands in both lists, with all that it has in each.
    return max((int(process.usedGpuMemory or 0) for process in processes if process.pid == pid), default=0)


def _text(value: str | bytes) -> str:
    """Older versions of the package return bytes."""
    return value.decode() if isinstance(value, bytes) else value
