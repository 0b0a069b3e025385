"""NVML as the package nvidia-ml-py offers it, for machines without a GPU: the calls that we make, and their answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace


class NVMLError(Exception):
    """What every call may raise."""


@dataclass
class FakeGpu:
    """near: cores near it; None: the machine does not say. used_by: GPU memory by pid. lost: fell off the bus."""

    uuid: str
    name: str | bytes = b"NVIDIA L40"
    memory_bytes: int = 48 << 30
    near: Sequence[int] | None = None
    used_by: dict[int, int] = field(default_factory=dict)
    drawn_by: dict[int, int] = field(default_factory=dict)
    lost: bool = False


class FakeNvml:
    """The library, initialized. Its handles are the GPUs themselves."""

    NVMLError = NVMLError

    def __init__(self, *gpus: FakeGpu) -> None:
        self.gpus = gpus

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        if self.gpus[index].lost:
            raise NVMLError("GPU is lost")
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        for gpu in self.gpus:
            if gpu.uuid == uuid and not gpu.lost:
                return gpu
        raise NVMLError("Not Found")

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str | bytes:
        return gpu.name

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(total=gpu.memory_bytes, used=sum(gpu.used_by.values()))

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
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.used_by.items()]

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: FakeGpu) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.drawn_by.items()]
