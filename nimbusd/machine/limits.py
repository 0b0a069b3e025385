"""The limits that control groups set for this process: processor time and memory, of version 2 and of version 1.

A group is limited by those around it as well: the tightest counts. Everything is read from files below `root`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
_MOUNT = Path("sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class CpuLimit:
    """A limit of processor time, in cores' worth of it."""

    cores: float
    source: Path
    """The file that says so."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A limit of memory."""

    limit_bytes: int
    source: Path
    """The file that says so."""
    used_bytes: int
    """By the group, without the caches that it could drop."""


def cpu_limit(root: Path = ROOT) -> CpuLimit | None:
    """The tightest limit of processor time; None if there is none."""
    limits = [limit for group in _groups(root, "cpu") if (limit := _cpu_limit_of(group)) is not None]
    return min(limits, key=lambda limit: limit.cores, default=None)


def memory_limit(root: Path = ROOT) -> MemoryLimit | None:
    """The tightest limit of memory; None if there is none. `memory.high` counts: above it a process hardly runs."""
    limits = [limit for group in _groups(root, "memory") for limit in _memory_limits_of(group)]
    return min(limits, key=lambda limit: limit.limit_bytes, default=None)


def read_text(path: Path) -> str:
    """A file's text; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def read_numbers(path: Path) -> dict[str, int]:
    """Name → number, of a file with one pair a line."""
    pairs = (line.split() for line in read_text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) >= 2 and pair[1].isdigit()}


def _groups(root: Path, controller: str) -> list[Path]:
    """The folders of our control groups and of those around them, for a controller; from the innermost on."""
    found: list[Path] = []
    for line in read_text(root / "proc/self/cgroup").splitlines():
        number, names, path = line.split(":", 2)
        if number == "0":
            mounts = [root / _MOUNT / "unified", root / _MOUNT]
        elif controller in names.split(","):
            mounts = [root / _MOUNT / names, root / _MOUNT / controller]
        else:
            continue
        if (mount := next(filter(Path.is_dir, mounts), None)) is not None:
            found += _around(mount, mount / path.lstrip("/"))
    return found


def _around(mount: Path, own: Path) -> list[Path]:
    # Inside a container our path may lie outside of what is mounted: then only the mount's own root counts.
    if not own.is_dir():
        return [mount]
    return [own, *(folder for folder in own.parents if folder.is_relative_to(mount))]


def _cpu_limit_of(group: Path) -> CpuLimit | None:
    source = group / "cpu.max"
    quota, _, period = read_text(source).partition(" ")
    if not quota:
        source = group / "cpu.cfs_quota_us"
        quota, period = read_text(source), read_text(group / "cpu.cfs_period_us")
    if not (quota.isdigit() and period.isdigit() and int(quota) and int(period)):
        return None  # `max`, or -1
    return CpuLimit(int(quota) / int(period), source)


def _memory_limits_of(group: Path) -> Iterator[MemoryLimit]:
    for limit, usage, dropped in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.high", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (text := read_text(group / limit)).isdigit():
            used = int(read_text(group / usage) or 0) - read_numbers(group / "memory.stat").get(dropped, 0)
            yield MemoryLimit(int(text), group / limit, max(0, used))
