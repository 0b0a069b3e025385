"""The memory that a node may take and a process takes, on machines made of files."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import psutil

from nimbusd.machine.memory import NodeMemory, own_gpu_bytes, own_rss_bytes
from nimbusd.machine.memory import node_memory as found_memory

GB = 1 << 30


def node_memory(root: Path) -> NodeMemory:
    """Without the file that says so."""
    return dataclasses.replace(found_memory(root), source="the machine")


def machine(root: Path, group: str = "", groups: dict[str, dict[str, str]] | None = None) -> Path:
    """A machine of 64 GB with 24 GB free. group: ours. groups: folder → file → content."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {64 << 20} kB\nMemFree: 1 kB\nMemAvailable: {24 << 20} kB\n")
    if group:
        (root / "proc/self/cgroup").write_text(f"4:memory:/old\n0::{group}\n")
    for folder, files in (groups or {}).items():
        (root / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (root / "sys/fs/cgroup" / folder / name).write_text(content + "\n")
    return root


def test_without_a_limit_the_machines_memory_counts(tmp_path: Path) -> None:
    own = {"memory.max": "max", "memory.current": str(GB)}
    assert node_memory(machine(tmp_path, "/a", {"a": own})) == NodeMemory(64 * GB, 40 * GB)


def test_a_control_group_that_allows_less_counts_without_the_caches_it_could_drop(tmp_path: Path) -> None:
    own = {"memory.max": str(16 * GB), "memory.current": str(10 * GB), "memory.stat": f"anon 1\ninactive_file {3 * GB}"}
    assert node_memory(machine(tmp_path, "/a", {"a": own})) == NodeMemory(16 * GB, 7 * GB)


def test_the_tightest_of_the_groups_around_ours_counts(tmp_path: Path) -> None:
    groups = {
        "": {},
        "slice": {"memory.max": str(8 * GB), "memory.current": str(5 * GB)},
        "slice/service": {"memory.max": str(16 * GB), "memory.current": str(1 * GB)},
    }
    assert node_memory(machine(tmp_path, "/slice/service", groups)) == NodeMemory(8 * GB, 5 * GB)


def test_a_container_that_sees_only_its_own_group_is_limited_by_it(tmp_path: Path) -> None:
    groups = {"": {"memory.max": str(2 * GB), "memory.current": str(GB)}}
    assert node_memory(machine(tmp_path, "/somewhere/outside", groups)) == NodeMemory(2 * GB, GB)


def test_this_machine_has_memory_and_this_process_uses_some() -> None:
    memory = found_memory()
    assert 0 < memory.used_bytes < memory.limit_bytes
    assert 0.5 < own_rss_bytes() / psutil.Process().memory_info().rss < 2
    assert own_gpu_bytes() == 0 or "CUDA_VISIBLE_DEVICES" in os.environ


def test_the_kernel_takes_a_worker_before_its_daemon() -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    code = "from nimbusd.machine.memory import die_first; die_first(); print(open('/proc/self/oom_score_adj').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == min(1000, own + 300)
