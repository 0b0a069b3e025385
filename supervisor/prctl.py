"""prctl(2): what the kernel does to this process when its parent dies."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


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


def _set_death_signal(number: signal.Signals) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
