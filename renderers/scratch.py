"""A private folder for a renderer's temporary files that never outlives its process for long."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "nimbusd-render-"
_LOCK = ".lock"


def default_parent() -> Path:
    """Memory-backed /dev/shm where it can be written to, else the system's temporary folder."""
    shm = Path("/dev/shm")
    return shm if shm.is_dir() and os.access(shm, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class Scratch:
    """A folder that is removed by close(), at interpreter exit, or by the next Scratch after a kill.

    Its owner holds a lock on a file inside, so that a sweep takes only folders of dead owners, also when
    their pid was given to another process or belongs to another container.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or default_parent()
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._closed = False
        atexit.register(self.close)

    def close(self) -> None:
        """Remove the folder; further calls do nothing."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        # A living owner may stand between making its folder and locking it.
        if not pid.isdigit() or Path(f"/proc/{pid}").exists():
            continue
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        except PermissionError:  # another user's folder is theirs to sweep
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
