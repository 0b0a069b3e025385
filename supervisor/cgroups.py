"""A control group (v2) for each place of a compute worker, where we may make them: below our own group, as systemd's
`Delegate=yes`, a user's service manager or root's rights allow.

A process cannot leave its group by changing its session, environment or parent, and the kernel kills a whole group at
once. Where there are no groups, what workers leave behind is found as orphans (see `orphans`) while their daemon lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

_PREFIX = "nimbusd-node-"


class WorkerGroups:
    """The groups of a node's workers, by number, in one folder. They hold nothing until a worker joins its own.

    lock: a descriptor of the folder, by which its owner holds it; -1 for others who know of it.
    """

    def __init__(self, folder: str, lock: int = -1) -> None:
        self.folder = folder
        self._lock = lock

    @classmethod
    def make(cls) -> WorkerGroups | None:
        """New ones; None where they cannot be had. Empty folders of nodes that are gone are removed."""
        own = own_group()
        if own is None:
            return None
        try:
            for name in os.listdir(own):
                if name.startswith(_PREFIX):
                    _remove_unless_held(os.path.join(own, name))
            groups = cls(*_made_and_held(own))
        except OSError:
            return None
        if not os.path.exists(os.path.join(groups.folder, "cgroup.kill")):  # before Linux 5.14
            groups.close()
            return None
        return groups

    def group(self, number: int) -> str:
        """The group of a place, made if it is not there; empty if it cannot be made."""
        path = os.path.join(self.folder, str(number))
        try:
            os.makedirs(path, exist_ok=True)
        except OSError:
            return ""
        return path

    def close(self) -> None:
        """Kill whoever is in any of them, and remove them; those whose processes do not die at once stay, empty."""
        kill_group_at(self.folder)
        _remove(self.folder)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def own_group() -> str | None:
    """The folder of our own control group; None where version 2 is not mounted, or our group lies outside of it."""
    path = next((line[3:].strip() for line in _lines("/proc/self/cgroup") if line.startswith("0::")), None)
    for line in _lines("/proc/self/mountinfo"):
        fields, _, kind = line.partition(" - ")
        root, mount = fields.split()[3:5]
        if path is not None and kind.startswith("cgroup2 ") and os.path.commonpath([root, path]) == root:
            own = os.path.normpath(os.path.join(mount, os.path.relpath(path, root)))
            return own if os.path.isdir(own) else None
    return None


def join_group(path: str) -> None:
    """Put this process into a group. Raises OSError."""
    with open(os.path.join(path, "cgroup.procs"), "w", encoding="ascii") as file:
        file.write("0")


def kill_group_at(path: str) -> None:
    """SIGKILL every process of a group and of those below it."""
    with contextlib.suppress(OSError), open(os.path.join(path, "cgroup.kill"), "w", encoding="ascii") as file:
        file.write("1")


def _made_and_held(own: str) -> tuple[str, int]:
    """A new folder and a lock on it, which tells other nodes that its owner lives. Raises OSError.

    A node that starts removes folders that are empty and not held, as a new one is for a moment.
    """
    while True:
        folder = os.path.join(own, f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}")
        os.mkdir(folder)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.path.exists(folder):
                return folder, lock
            os.close(lock)


def _remove_unless_held(folder: str) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        finally:
            os.close(lock)


def _remove(folder: str) -> None:
    """Remove a group with those below it, as far as nobody is in them."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir():
                with contextlib.suppress(OSError):
                    os.rmdir(entry.path)
        os.rmdir(folder)


def _lines(path: str) -> Iterator[str]:
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        yield from file
