"""NVML as the package nvidia-ml-py offers it, for machines without a GPU: the calls that we make, and their answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace


class NVMLError(Exception):
    """The error that every call may raise."""


class NVMLLibraryMismatchError(Exception):
    """The error of calls with several versions under a driver that is older than the package: no NVMLError."""


@dataclass
class FakeGpu:
    """near: cores near it; None: the machine does not say. used_by: GPU memory by pid. lost: fell off the bus.

    memory_bytes: None where memory is the machine's own. busy: None where it is not told. mig: the instances that it is
    divided into, by number; None where it cannot be divided. old_driver: it knows no call with several versions.
    """

    uuid: str
    name: str | bytes = b"NVIDIA L40"
    memory_bytes: int | None = 48 << 30
    busy: int | None = 40
    near: Sequence[int] | None = None
    used_by: dict[int, int] = field(default_factory=dict)
    drawn_by: dict[int, int] = field(default_factory=dict)
    lost: bool = False
    mig: dict[int, FakeGpu] | None = None
    old_driver: bool = False


class FakeNvml:
    """The library, initialized. Its handles are the GPUs themselves."""

    NVMLError = NVMLError
    NVMLLibraryMismatchError = NVMLLibraryMismatchError

    def __init__(self, *gpus: FakeGpu) -> None:
        self.gpus = gpus

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        if self.gpus[index].lost:
            raise NVMLError("GPU is lost")
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        parts = [part for board in self.gpus for part in (board.mig or {}).values()]
        for gpu in (*self.gpus, *parts):
            if gpu.uuid == uuid and not gpu.lost:
                return gpu
        raise NVMLError("Not Found")

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str | bytes:
        return gpu.name

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        if gpu.memory_bytes is None:
            raise NVMLError("Not Supported")
        return SimpleNamespace(total=gpu.memory_bytes, used=sum(gpu.used_by.values()))

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> SimpleNamespace:
        if gpu.busy is None or gpu.mig:
            raise NVMLError("Not Supported")
        return SimpleNamespace(gpu=gpu.busy)

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        if gpu.mig is None:
            raise NVMLError("Not Supported")
        return [int(bool(gpu.mig)), int(bool(gpu.mig))]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, index: int) -> FakeGpu:
        if gpu.mig is None or index not in gpu.mig:
            raise NVMLError("Not Found")
        return gpu.mig[index]

    def nvmlDeviceGetCpuAffinity(self, gpu: FakeGpu, words: int) -> list[int]:
        if gpu.near is None:
            raise NVMLError("Not Supported")
        assert 64 * words >= (os.cpu_count() or 1), "room for fewer cores than the machine has"
        sets = [0] * words
        for core in gpu.near:
            if core < 64 * words:
                sets[core // 64] |= 1 << core % 64
        return sets

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[SimpleNamespace]:
        if gpu.old_driver:
            raise NVMLLibraryMismatchError("Unversioned function called and the pyNVML version does not match")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.used_by.items()]

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: FakeGpu) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.drawn_by.items()]
