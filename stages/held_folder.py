"""A private folder that goes with its owner: a lock on it says whether the owner still lives.

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
from pathlib import Path

_RANDOM = "?" * 8
"""The letters that tempfile adds to a prefix."""


class HeldFolder:
    """A new folder in `parent` that is its owner's until close(), or the end of the owner's process.

    prefix: of its name; the same for all folders that a `sweep` shall find. Raises OSError if none can be made.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
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
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def sweep(parent: Path, prefix: str) -> list[Path]:
    """Remove the folders of this user in `parent` whose owners are gone. Returns them."""
    return [folder for folder in parent.glob(prefix + _RANDOM) if _swept(folder)]


def _swept(folder: Path) -> bool:
    """Remove a folder unless somebody holds it, or it is another user's, or none."""
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
        shutil.rmtree(folder, ignore_errors=True)
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
