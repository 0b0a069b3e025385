"""NVIDIA GPUs of this machine, through NVML: what they are and how busy they are. None where NVML is not there.

NVML comes with the driver; the package nvidia-ml-py (extra `gpu`) speaks to it. It takes no memory on any GPU, and
knows them all, whatever CUDA_VISIBLE_DEVICES says.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from nimbusd.transport.messages.control import GpuLoad

log = logging.getLogger(__name__)

_WORD_BITS = 64
"""Of the sets of cores that NVML gives, as `unsigned long`."""


_told: set[str] = set()
"""Warnings that were given: NVML is asked every second."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or an instance of one that is divided by MIG: what CUDA takes for a device."""

    index: int
    """Of the board, as nvidia-smi counts."""
    uuid: str
    """The name that CUDA_VISIBLE_DEVICES has for it."""
    name: str
    memory_bytes: int
    """0 where the machine does not say."""
    cores: tuple[int, ...]
    """The CPU cores near it; empty where the machine does not say."""
    board: str
    """The uuid of the board."""


@cache
def _nvml() -> Any:
    """The initialized library, or None."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except _errors(nvml) as error:
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
            board = nvml.nvmlDeviceGetHandleByIndex(index)
            board_uuid, cores = _text(nvml.nvmlDeviceGetUUID(board)), _cores_near(nvml, board)
            for device in _instances(nvml, board):
                uuid, name = _text(nvml.nvmlDeviceGetUUID(device)), _text(nvml.nvmlDeviceGetName(device))
                found.append(Gpu(index, uuid, name, _memory_bytes(nvml, device)[1], cores, board_uuid))
        except _errors(nvml) as error:
            _warn_once(f"GPU {index} cannot be used: {error}")
    return tuple(found)


def _instances(nvml: Any, board: Any) -> list[Any]:
    """The devices that CUDA sees of a board: itself, or its MIG instances."""
    try:
        divided, _ = nvml.nvmlDeviceGetMigMode(board)
    except _errors(nvml):
        divided = 0  # most boards cannot be
    if not divided:
        return [board]
    found = []
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(board)):
        with contextlib.suppress(nvml.NVMLError):  # numbers that are not in use
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(board, number))
    return found


def _memory_bytes(nvml: Any, device: Any) -> tuple[int, int]:
    """Used and all of it; 0 where the machine does not say, as those do whose GPU has no memory of its own."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
    except _errors(nvml):
        return 0, 0
    return int(memory.used), int(memory.total)


def _busy(nvml: Any, device: Any, name: str) -> float:
    """Share of the last interval, 0 to 1; 0 where the machine does not say, as of boards divided by MIG."""
    try:
        return float(nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)
    except _errors(nvml) as error:
        _warn_once(f"{name} does not say how busy it is, which is shown as 0: {error}")
        return 0.0


def _errors(nvml: Any) -> tuple[type[Exception], ...]:
    """The errors that a call may raise. A driver that is older than the package raises one of another family."""
    return (nvml.NVMLError, getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError))


def _warn_once(text: str) -> None:
    if text not in _told:
        _told.add(text)
        log.warning("%s", text)


def _cores_near(nvml: Any, device: Any) -> tuple[int, ...]:
    """Cores of the NUMA node that a GPU is attached to; empty where NVML does not know (in many virtual machines)."""
    words = -(-(os.cpu_count() or 1) // _WORD_BITS)
    try:
        sets = list(nvml.nvmlDeviceGetCpuAffinity(device, words))
    except _errors(nvml):
        return ()
    return tuple(_WORD_BITS * place + bit for place, word in enumerate(sets) for bit in range(64) if word >> bit & 1)


def loads() -> tuple[GpuLoad, ...]:
    """The load of each board. One that cannot be asked just now (it was reset, or fell off the bus) is left out."""
    nvml = _nvml()
    if nvml is None:
        return ()
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            name = f"cuda:{index} {_text(nvml.nvmlDeviceGetName(device))}"
        except _errors(nvml) as error:
            _warn_once(f"GPU {index} cannot be asked for its load: {error}")
            continue
        found.append(GpuLoad(name, _busy(nvml, device, name), *_memory_bytes(nvml, device)))
    return tuple(found)


def memory_of_process(pid: int, uuid: str, library: Any = None) -> int:
    """GPU memory that a process has on a GPU; 0 where NVML does not say (in a container with its own pids, say)."""
    if not uuid.startswith(("GPU-", "MIG-")) or (nvml := library or _nvml()) is None:
        return 0
    try:
        device = nvml.nvmlDeviceGetHandleByUUID(uuid)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(device)
        processes += nvml.nvmlDeviceGetGraphicsRunningProcesses(device)
    except _errors(nvml) as error:
        log.debug("GPU %s does not say what its processes take: %s", uuid, error)
        return 0
    # One that computes and draws stands in both lists, with all that it has in each.
    return max((int(process.usedGpuMemory or 0) for process in processes if process.pid == pid), default=0)


def _text(value: str | bytes) -> str:
    """Older versions of the package return bytes."""
    return value.decode() if isinstance(value, bytes) else value
