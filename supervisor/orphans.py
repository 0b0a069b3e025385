"""Orphans: the processes that our own leave behind when they die. They are found, killed and waited for.

A compute worker or a publishing process is a subreaper, and so are the daemon and the master. Whatever descends from
one stays below it, to whichever session, group and environment it goes and whoever between them dies; when the process
itself dies, the kernel hands what is left of it to us. So a child of ours in another session than ours, which we did
not start ourselves, was left by a process that is dead. It belongs to nobody else: those who live keep theirs.

Only a program of ours adopts orphans (`adopt_orphans`), never a process that merely uses this package: that may have
children that we know nothing of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nimbusd.supervisor import proc
from nimbusd.supervisor.prctl import become_subreaper

PATIENCE_S = 5.0
"""Orphans that live on for so long after SIGKILL wait in the kernel; the next look finds them again."""

_adopting = False
_ours: set[int] = set()
"""Children in sessions of their own that we have started and not waited for."""
_starting: set[asyncio.Future[None]] = set()


def adopt_orphans() -> None:
    """From now on what our processes leave behind comes to us, and `end_orphans` ends it. Once, by a program's main."""
    global _adopting
    become_subreaper()
    _adopting = True


async def start_child(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, fds: Sequence[int] = (), **streams: Any
) -> asyncio.subprocess.Process:
    """Start a process in a session of its own; it counts as ours until `child_ended`. fds: of ours, that it inherits.

    Raises OSError if it cannot be started.
    """
    begun = asyncio.get_running_loop().create_future()
    _starting.add(begun)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=None if env is None else dict(env),
            pass_fds=tuple(fds),
            start_new_session=True,
            **streams,
        )
        _ours.add(process.pid)
        return process
    finally:
        _starting.discard(begun)
        begun.set_result(None)


def child_ended(pid: int) -> None:
    """A child that `start_child` started has been waited for: its pid may be another's from now on."""
    _ours.discard(pid)


async def end_orphans() -> int:
    """Kill what dead processes left to us, and wait for it, PATIENCE_S at most. Returns how many there were.

    Does nothing in a process that adopts no orphans.
    """
    ended: set[int] = set()
    ends = time.monotonic() + PATIENCE_S
    while _adopting and time.monotonic() < ends:
        while _starting:  # a child without a pid yet cannot be told from an orphan
            await asyncio.wait(set(_starting))
        orphans = _orphans()
        if not orphans:
            break
        ended |= orphans.keys()
        for pidfd in orphans.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await asyncio.to_thread(_reap, list(orphans.values()), ends)
    return len(ended)


def _orphans() -> dict[int, int]:
    """The pidfd of each, by pid."""
    session = os.getsid(0)
    strangers = [
        found for found, its_session in proc.children(os.getpid()) if its_session != session and found.pid not in _ours
    ]
    pidfds = {}
    for found in strangers:  # they are our children, so their pids stay theirs until we wait for them
        with contextlib.suppress(ProcessLookupError):
            pidfds[found.pid] = os.pidfd_open(found.pid)
    return pidfds


def _reap(pidfds: list[int], ends: float) -> None:
    for pidfd in pidfds:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if poller.poll(max(0.0, ends - time.monotonic()) * 1000):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
