"""The machine: its cores, memory and GPUs, the part that control groups allow us, and what is in use."""

from nimbusd.machine.cores import NodeCores, node_cores
from nimbusd.machine.gpus import Gpu
from nimbusd.machine.limits import CpuLimit, MemoryLimit, cpu_limit, memory_limit
from nimbusd.machine.memory import NodeMemory, die_first, node_memory, own_gpu_bytes, own_rss_bytes

__all__ = [
    "CpuLimit",
    "Gpu",
    "MemoryLimit",
    "NodeCores",
    "NodeMemory",
    "cpu_limit",
    "die_first",
    "memory_limit",
    "node_cores",
    "node_memory",
    "own_gpu_bytes",
    "own_rss_bytes",
]
