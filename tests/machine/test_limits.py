"""The limits of control groups, on machines made of files, and on this one where it lets us make a group."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.machine.cores import NodeCores, in_a_row, node_cores, number_of_cores
from nimbusd.machine.limits import CpuLimit, cpu_limit, memory_limit
from nimbusd.node.slots import discover
from tests.support.fake_nvml import FakeNvml

MB = 1 << 20


def machine(root: Path, cgroup: str, files: Mapping[str, str]) -> Path:
    """cgroup: the content of /proc/self/cgroup. files: below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup + "\n")
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


def cores_of(root: Path) -> float | None:
    limit = cpu_limit(root)
    return None if limit is None else limit.cores


def test_a_quota_of_version_2_is_so_many_cores(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/job", {"job/cpu.max": "50000 100000"})
    assert cpu_limit(root) == CpuLimit(0.5, root / "sys/fs/cgroup/job/cpu.max")


def test_a_quota_of_version_1_is_so_many_cores(tmp_path: Path) -> None:
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": "150000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}
    assert cores_of(machine(tmp_path, "3:cpu,cpuacct:/job\n2:memory:/", files)) == 1.5


def test_the_tightest_quota_around_us_counts(tmp_path: Path) -> None:
    files = {"cpu.max": "max 100000", "pod/cpu.max": "100000 100000", "pod/main/cpu.max": "400000 100000"}
    assert cores_of(machine(tmp_path, "0::/pod/main", files)) == 1.0


def test_a_machine_with_both_versions_is_read_by_both(tmp_path: Path) -> None:
    files = {
        "unified/cpu.max": "300000 100000",
        "cpu/cpu.cfs_quota_us": "200000",
        "cpu/cpu.cfs_period_us": "100000",
        "memory/box/memory.limit_in_bytes": str(512 * MB),
        "memory/box/memory.usage_in_bytes": str(300 * MB),
        "memory/box/memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * MB}",
    }
    root = machine(tmp_path, "4:memory:/box\n1:cpu:/\n0::/", files)
    assert cores_of(root) == 2.0
    limit = memory_limit(root)
    assert limit is not None
    assert (limit.limit_bytes, limit.used_bytes) == (512 * MB, 200 * MB)


def test_a_container_that_sees_only_its_own_group_is_limited_by_it(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}
    assert cores_of(machine(tmp_path, "1:cpu:/docker/0123", files)) == 0.5


@pytest.mark.parametrize(
    "files", [{}, {"cpu.max": "max 100000"}, {"cpu.max": ""}, {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}]
)
def test_without_a_quota_there_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    assert cpu_limit(machine(tmp_path, "0::/", files)) is None


def test_memory_that_is_slowed_down_before_it_ends_counts_up_to_there(tmp_path: Path) -> None:
    files = {"a/memory.max": str(8 * MB), "a/memory.high": str(6 * MB), "a/memory.current": str(5 * MB)}
    root = machine(tmp_path, "0::/a", files)
    limit = memory_limit(root)
    assert limit is not None
    assert (limit.limit_bytes, limit.used_bytes, limit.source.name) == (6 * MB, 5 * MB, "memory.high")


@pytest.mark.parametrize(
    ("quota", "number"), [(None, 8), (0.1, 1), (0.5, 1), (1.0, 1), (1.5, 2), (7.2, 8), (8.0, 8), (64.0, 8)]
)
def test_part_of_a_core_counts_as_one_and_there_are_no_more_than_the_affinity_has(
    quota: float | None, number: int
) -> None:
    limit = None if quota is None else CpuLimit(quota, Path("cpu.max"))
    assert number_of_cores(8, limit) == number


@given(cores=st.sets(st.integers(0, 255), min_size=1).map(sorted), data=st.data())
def test_cores_are_chosen_from_those_allowed_beginning_anywhere(cores: list[int], data: st.DataObject) -> None:
    number = data.draw(st.integers(1, len(cores)))
    chosen = in_a_row(cores, number, data.draw(st.integers(0, len(cores) - 1)))
    assert len(set(chosen)) == number
    assert set(chosen) <= set(cores)
    assert list(chosen) == sorted(chosen)


def test_half_a_core_is_one_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cores = node_cores(machine(tmp_path, "0::/", {"cpu.max": "50000 100000"}))
    assert len(discover(library=FakeNvml(), cores=cores.cores)) == 1
    assert str(cores) == f"1 of 8, with the time of 0.5 by {tmp_path}/sys/fs/cgroup/cpu.max"


def test_a_node_tells_that_its_affinity_is_the_limit() -> None:
    assert str(NodeCores((0, 1), 2, CpuLimit(4.0, Path("cpu.max")))) == "2 by affinity"


@contextlib.contextmanager
def real_group() -> Iterator[Path]:
    """A control group of this machine with half a core; skips where none can be made."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = {name: path for _, names, path in lines for name in names.split(",")}
    mount = Path("/sys/fs/cgroup/cpu") if "cpu" in own else Path("/sys/fs/cgroup")
    group = mount / own.get("cpu", own.get("", "/")).lstrip("/") / f"nimbusd-test-{os.getpid()}"
    quota = {"cpu.max": "50000 100000"}
    if "cpu" in own:
        quota = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        try:
            for name, content in quota.items():
                (group / name).write_text(content)
        except OSError as error:
            pytest.skip(f"a control group here has no limit of time: {error}")
        yield group
    finally:
        group.rmdir()


def test_a_process_in_a_real_group_with_half_a_core_has_one_slot() -> None:
    code = "from nimbusd.node.slots import discover; print(*(slot.name for slot in discover()))"
    with real_group() as group:
        enter = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -c '{code}'"
        done = subprocess.run(["sh", "-c", enter], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["cpu:0"]
