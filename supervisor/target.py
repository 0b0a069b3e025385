"""A process that may have to die: named by its pidfd, asked for its stack, killed with all that it started."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Mapping

from nimbusd.supervisor import proc
from nimbusd.supervisor.page import Occupant

STACK_SIGNAL = signal.SIGRTMIN + 7
"""Asks a compute worker for the stacks of its threads. Not one of those that libraries take for themselves."""
_TO_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
_MOST_STACK_BYTES = 11_000
"""The end of the stacks is kept, where the main thread is: less than the ledger keeps of the end of an evidence."""
_KILL_S = 5.0


def dump_stacks_when_asked(path: str) -> None:
    """Have this process write the stacks of its threads to `path`, and die, when STACK_SIGNAL comes."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.set_inheritable(fd, False)
    dump_stacks_to(fd)


def dump_stacks_to(fd: int) -> None:
    """The same to an open file.

    faulthandler's handler is plain C: it runs while a thread holds the GIL and never gives it back. It then hands
    on to the signal's default, which is to die. That is wanted: a system call that the signal interrupts would
    return, and the condemned worker go on.
    """
    faulthandler.register(STACK_SIGNAL, fd, all_threads=True, chain=True)


class Target:
    """A process and all that descends from it. Its pidfd means this process for ever, whatever its pid becomes."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._below: list[int] = []

    @classmethod
    def open(cls, occupant: Occupant) -> Target | None:
        """Take hold of a child of our parent; None if it is gone, and its pid free or another process's by now."""
        try:
            pidfd = os.pidfd_open(occupant.pid)
        except (OSError, OverflowError):
            return None
        # In this order: what the pidfd holds cannot be replaced between the two.
        if proc.parent_and_start(occupant.pid) != (os.getppid(), occupant.start_ticks):
            os.close(pidfd)
            return None
        return cls(occupant.pid, pidfd)

    def alive(self) -> bool:
        """True while it runs."""
        return not _readable(self.pidfd, 0)

    def ask_stack(self) -> bool:
        """Ask for the stacks of its threads, after which it dies. False if it cannot answer: it has no handler yet.

        What it has started is remembered before: orphans would be hard to find.
        """
        self._remember_descendants()
        if not proc.catches(self.pid, STACK_SIGNAL):
            return False
        stopped = proc.state(self.pid) in ("T", "t")
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, STACK_SIGNAL)
            if stopped:  # the signal that waits comes before anything else that it does
                signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)
        return True

    def kill(self) -> None:
        """SIGKILL it, its process group, and all that descends from it."""
        self._remember_descendants()
        kill_group(self.pid, self.pidfd)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        for pidfd in self._below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _remember_descendants(self) -> None:
        found = proc.descendants(self.pid)
        if self.alive():  # so the pid has been its own all the while
            self._below += _pidfds_of(found)

    def close(self) -> None:
        """Let go of it."""
        for pidfd in (self.pidfd, *self._below):
            os.close(pidfd)
        self._below = []


def kill_group(pid: int, pidfd: int) -> None:
    """SIGKILL the process group that `pid` leads; nothing if it leads none.

    Through the pidfd, which no other group can take the place of. Kernels before 6.9 cannot do that: there the
    group is killed by number, which is safe as long as its leader has not been reaped, so while we see it live.
    """
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL, None, _TO_GROUP)
    except (ProcessLookupError, PermissionError):
        return
    except OSError:
        if not _readable(pidfd, 0):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)


def kill_marked(page_id: int, over: Mapping[int, int] | None = None) -> int:
    """SIGKILL every process that is marked as a descendant of a page's compute workers, until there is none.

    over: line → its last generation that counts; None: all of them. Done in a child process, whose pidfd is
    returned and who goes on for at most 5 s by its own doing: looking at the environment of a process that is
    stuck in the kernel may block whoever looks.
    """
    child = os.fork()
    if child:
        return os.pidfd_open(child)
    status = 1
    try:
        _kill_marked(page_id, over, time.monotonic() + _KILL_S)
        status = 0
    finally:
        if status:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


def _kill_marked(page_id: int, over: Mapping[int, int] | None, ends: float) -> None:
    while time.monotonic() < ends and (pidfds := _pidfds_of(proc.marked(page_id, over))):
        for pidfd in pidfds:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in pidfds:
            _readable(pidfd, 100)
            os.close(pidfd)


def read_stack(path: str) -> str:
    """The stacks that a worker wrote when it was asked; empty if it could not."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_STACK_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _pidfds_of(found: Iterable[proc.SeenProcess]) -> list[int]:
    """The pidfds of processes that were found, without those that are gone and whose pid is another's by now."""
    pidfds = []
    for pid, ticks in found:
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            if proc.start_ticks(pid) == ticks:
                pidfds.append(pidfd)
            else:
                os.close(pidfd)
    return pidfds


def _readable(pidfd: int, timeout_ms: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout_ms))
