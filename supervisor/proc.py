"""Processes as /proc shows them: start times, states, signal handlers, descendants, environments."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

MARK = "NIMBUSD_WORKER"
"""Environment variable that names the page, line and generation of a compute worker, and so of its descendants."""


class SeenProcess(NamedTuple):
    """A process when we looked. start_ticks: tells it from a later one with the same pid."""

    pid: int
    start_ticks: int


def mark(page_id: int, line: int, generation: int) -> str:
    """The value of MARK for a compute worker. Descendants inherit it, whatever session or group they go to."""
    return f"{page_id:016x}.{line}.{generation}"


def start_ticks(pid: int) -> int | None:
    """The start time of a process, in clock ticks since boot: the same as long as it lives. None if it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def parent_and_start(pid: int) -> tuple[int, int] | None:
    """The parent's pid, and when the process started; None if there is none."""
    fields = _stat(pid)
    return (int(fields[1]), int(fields[19])) if fields else None


def state(pid: int) -> str:
    """R, S, D, T, Z … as in ps; empty if the process is gone."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def catches(pid: int, signum: int) -> bool:
    """True if a process has a handler for a signal."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
    return False


def where(pid: int) -> str:
    """A line on what a process does in the kernel, as far as we may see it."""
    waits_in = _read(f"/proc/{pid}/wchan").strip("\0\n0") or "?"
    call = _read(f"/proc/{pid}/syscall").split(" ", 1)[0].strip() or "?"
    return f"pid {pid}: state {state(pid) or 'gone'}, waits in {waits_in}, system call {call}"


def descendants(pid: int) -> list[SeenProcess]:
    """Children, their children, and so on, of a process, as they are now."""
    children: dict[int, list[SeenProcess]] = {}
    for other in pids():
        if fields := _stat(other):
            children.setdefault(int(fields[1]), []).append(SeenProcess(other, int(fields[19])))
    found: list[SeenProcess] = []
    ahead = [pid]
    while ahead:
        below = children.pop(ahead.pop(), [])
        found += below
        ahead += [one.pid for one in below]
    return found


def children(pid: int) -> list[tuple[SeenProcess, int]]:
    """The children of a process, dead ones that nobody has waited for included, each with its session."""
    stats = ((other, fields) for other in pids() if (fields := _stat(other)))
    return [(SeenProcess(other, int(f[19])), int(f[3])) for other, f in stats if int(f[1]) == pid]


def anonymous_bytes(pid: int) -> int:
    """Memory that a process alone takes, resident or swapped out; files that it has mapped are not counted."""
    total = 0
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(("RssAnon:", "RssShmem:", "VmSwap:")):
            total += 1024 * int(line.split()[1])
    return total


def marked(page_id: int, over: Mapping[int, int] | None = None) -> list[SeenProcess]:
    """Processes other than our own that are marked as descendants of a page's compute workers.

    over: line → its last generation that counts; None: all of them. Only processes are found whose environment we
    may read: those of our own user.
    """
    found = []
    for pid in pids():
        ticks = start_ticks(pid)  # before the environment, so that both are of one process
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:  # it is gone, or another user's
            continue
        if ticks is not None and pid != os.getpid() and any(_is_mark(v, page_id, over) for v in variables):
            found.append(SeenProcess(pid, ticks))
    return found


def _is_mark(variable: bytes, page_id: int, over: Mapping[int, int] | None) -> bool:
    prefix = f"{MARK}={page_id:016x}.".encode()
    if not variable.startswith(prefix):
        return False
    line, _, generation = variable[len(prefix) :].partition(b".")
    return over is None or int(generation) <= over.get(int(line), -1)


def pids() -> Iterator[int]:
    """The processes of this machine, as far as we see them."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _stat(pid: int) -> list[str]:
    """Fields 3 and on of /proc/PID/stat; empty if the process is gone. The name before them may hold anything."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
