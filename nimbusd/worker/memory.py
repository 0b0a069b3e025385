"""Memory: what this node may take, what is in use, and what a compute worker takes itself."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from nimbusd.worker import gpus

log = logging.getLogger(__name__)

ROOT = Path("/")
WORKER_OOM_SCORE = 300
"""How much rather than the daemon the kernel takes a compute worker, of 1000, when memory runs out."""


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """limit_bytes: of the machine or of our control group, whichever allows less. used_bytes: of it, as far as it
    could not be had by dropping caches.
    """

    limit_bytes: int
    used_bytes: int


def node_memory(root: Path = ROOT) -> NodeMemory:
    """How much memory there is for us, now. A control group (v2) counts where it allows less than the machine has.

    root: of the file system, for a machine other than this.
    """
    machine = _numbers(root / "proc/meminfo")
    total = 1024 * machine["MemTotal:"]
    tightest = NodeMemory(total, total - 1024 * machine["MemAvailable:"])
    for group in _control_groups(root):
        limit = _read(group / "memory.max")
        if limit.isdigit() and int(limit) < tightest.limit_bytes:
            reclaimable = _numbers(group / "memory.stat").get("inactive_file", 0)
            tightest = NodeMemory(int(limit), max(0, int(_read(group / "memory.current") or 0) - reclaimable))
    return tightest


def own_rss_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def own_gpu_bytes() -> int:
    """GPU memory of this process, on the GPU that its slot has; 0 where that cannot be known."""
    return gpus.memory_of_process(os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", ""))


def die_first() -> None:
    """Have the kernel take this process rather than its daemon when memory runs out."""
    path = Path("/proc/self/oom_score_adj")
    try:
        path.write_text(str(min(1000, int(path.read_text()) + WORKER_OOM_SCORE)))
    except OSError as error:  # a sandbox without it: the kernel then takes the largest, which is rarely the daemon
        log.warning("the kernel may take the daemon rather than this worker when memory runs out: %s", error)


def _control_groups(root: Path) -> list[Path]:
    """The folders of our control group and of those around it; none without version 2."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            mount = root / "sys/fs/cgroup"
            own = mount / line.removeprefix("0::").lstrip("/")
            # Inside a container our path may lie outside of what is mounted: then only the mount's own root counts.
            around = own.parents if own.is_dir() else ()
            return [own, *(folder for folder in around if folder.is_relative_to(mount))] if around else [mount]
    return []


def _read(path: Path) -> str:
    """A file's text; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _numbers(path: Path) -> dict[str, int]:
    """Name → number, of a file with one pair a line."""
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) >= 2 and pair[1].isdigit()}
