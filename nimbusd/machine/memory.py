"""Memory: the limit of this node, the part in use, and the part of this process."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from nimbusd.machine import gpus
from nimbusd.machine.limits import ROOT, memory_limit, read_numbers

log = logging.getLogger(__name__)

WORKER_OOM_SCORE = 300
"""Added to a compute worker's badness, of 1000: when memory runs out, the kernel takes it rather than the daemon."""


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """The memory of this node."""

    limit_bytes: int
    """Of the machine or of our control groups, whichever allows less."""
    used_bytes: int
    """The part in use that could not be had by dropping caches."""
    source: str = "the machine"
    """The machine, or the file that sets the limit."""

    def __str__(self) -> str:
        return f"{self.limit_bytes / 1e9:.1f} GB by {self.source}"


def node_memory(root: Path = ROOT) -> NodeMemory:
    """The memory that there is for us now. root: of the file system, for a machine other than this."""
    machine = read_numbers(root / "proc/meminfo")
    total = 1024 * machine["MemTotal:"]
    limit = memory_limit(root)
    if limit is not None and limit.limit_bytes < total:
        return NodeMemory(limit.limit_bytes, limit.used_bytes, str(limit.source))
    return NodeMemory(total, total - 1024 * machine["MemAvailable:"])


def own_rss_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def own_gpu_bytes() -> int:
    """GPU memory of this process, on the GPU that its slot has; 0 where the machine does not say."""
    return gpus.memory_of_process(os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", ""))


def die_first() -> None:
    """Have the kernel take this process rather than its daemon when memory runs out."""
    path = Path("/proc/self/oom_score_adj")
    try:
        path.write_text(str(min(1000, int(path.read_text()) + WORKER_OOM_SCORE)))
    except OSError as error:  # a sandbox without it: the kernel then takes the largest, which is rarely the daemon
        log.warning("the kernel may take the daemon rather than this worker when memory runs out: %s", error)
