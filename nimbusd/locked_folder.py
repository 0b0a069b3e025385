"""A private folder that goes with its owner: a lock on it says whether the owner still lives.

For the folders of nodes and renderers, and for the control groups of a node, which are folders as well.

Process ids say nothing of that. They come again, and where namespaces share a folder such as /tmp or /dev/shm, the id
of a living owner names nobody here. A lock is the kernel's word on it, whoever asks. It is one on the folder itself, as
systemd-tmpfiles looks for before it removes what is old.

How owner and sweeper cannot miss each other: both take the lock before anything else. A sweeper that has it removes
the folder; an owner that gets it only then sees that its folder is gone, and makes another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_RANDOM = "?" * 8
"""The part of a name that tempfile adds to a prefix."""


def _remove_tree(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


class LockedFolder:
    """A new folder in `parent` that is its owner's until close(), or the end of the owner's process.

    prefix: of its name; the same for all folders that a `sweep` shall find. remove: how to remove it with all that is
    in it. Raises OSError if none can be made.
    """

    def __init__(self, parent: Path, prefix: str, remove: Callable[[Path], object] = _remove_tree) -> None:
        self._remove = remove
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            with contextlib.suppress(FileNotFoundError):  # swept before we could lock it
                self._lock = _opened(self.path)
                # Shared, which a file opened to read can have on any file system. Children do not inherit it.
                fcntl.flock(self._lock, fcntl.LOCK_SH)
                if _is(self._lock, self.path):
                    break
                os.close(self._lock)

    def close(self) -> None:
        """Remove the folder with all that is in it; further calls do nothing."""
        if self._lock >= 0:
            self._remove(self.path)
            os.close(self._lock)
            self._lock = -1


def sweep(parent: Path, prefix: str, remove: Callable[[Path], object] = _remove_tree) -> list[Path]:
    """Remove the folders of this user in `parent` whose owners are gone. Returns them."""
    return [folder for folder in parent.glob(prefix + _RANDOM) if _swept(folder, remove)]


def _swept(folder: Path, remove: Callable[[Path], object]) -> bool:
    """Remove a folder unless its owner lives, or it is another user's, or no folder."""
    try:
        lock = _opened(folder)
    except OSError:
        return False
    try:
        if os.fstat(lock).st_uid != os.geteuid():
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is held, or this file system has no locks and nobody knows
        return False
    else:
        remove(folder)
        return True
    finally:
        os.close(lock)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
