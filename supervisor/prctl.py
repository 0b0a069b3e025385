"""prctl(2): what the kernel does to this process when its parent dies, and to orphans among its descendants."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

from nimbusd.supervisor import proc

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MOST_ZOMBIES = 64


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel SIGKILL this process when its parent dies. Exits at once if that has already happened.

    Call it first thing in a compute worker. parent_pid: who started us, told on the command line, because a
    parent that died before this call would go unnoticed otherwise.
    """
    _set_death_signal(signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def wake_when_parent_dies() -> None:
    """Have the kernel send SIGCONT when the parent dies: the watchdog then has something to do, even if stopped."""
    _set_death_signal(signal.SIGCONT)


def become_subreaper() -> None:
    """Have the kernel give descendants of ours whose parent dies to us, not to the machine's first process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "PR_SET_CHILD_SUBREAPER")


def reap_zombies(most: int = _MOST_ZOMBIES) -> None:
    """Wait for the oldest dead children of this process, so that no more than `most` are kept.

    For a subreaper that runs others' code: nobody else waits for orphans that have died. Who starts children itself
    waits for them long before.
    """
    dead = [found for found, _ in proc.children(os.getpid()) if proc.state(found.pid) == "Z"]
    for found in sorted(dead, key=lambda found: found.start_ticks)[: max(0, len(dead) - most)]:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.pid, os.WNOHANG)


def _set_death_signal(number: signal.Signals) -> None:
    _prctl(_PR_SET_PDEATHSIG, number, "PR_SET_PDEATHSIG")


def _prctl(option: int, value: int, name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({name}) failed")
