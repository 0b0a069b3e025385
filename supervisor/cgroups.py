"""A control group (v2) for each place of a compute worker, where we may make them: below our own group, as systemd's
`Delegate=yes`, a user's service manager or root's rights allow.

A process cannot leave its group by changing its session, environment or parent, and the kernel kills a whole group at
once. Where there are no groups, what workers leave behind is found as orphans (see `orphans`) while their daemon lives.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

_PREFIX = "nimbusd-node-"


class WorkerGroups:
    """The groups of a node's workers, by number, in one folder. They are empty until a worker joins its own.

    let_go: gives up the lock on the folder, which is its owner's alone; the watchdog has none.
    """

    def __init__(self, folder: str, let_go: Callable[[], object] = lambda: None) -> None:
        self.folder = folder
        self._let_go = let_go

    @classmethod
    def make(cls) -> WorkerGroups | None:
        """New ones; None where they cannot be had. Empty folders of nodes that are gone are removed."""
        from pathlib import Path  # neither is for the watchdog, which imports little

        from nimbusd.locked_folder import LockedFolder, sweep

        if (own := own_group()) is None:
            return None
        try:
            sweep(Path(own), _PREFIX, _remove)
            folder = LockedFolder(Path(own), _PREFIX, _remove)
        except OSError:
            return None
        groups = cls(str(folder.path), folder.close)
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
        self._let_go()


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


def _remove(folder: str | os.PathLike[str]) -> None:
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
