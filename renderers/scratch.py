"""A private folder for a renderer's temporary files that never outlives its process for long."""

from __future__ import annotations

import atexit
import os
import tempfile
from pathlib import Path

from nimbusd.locked_folder import LockedFolder, sweep

_PREFIX = "nimbusd-render-"


def default_parent() -> Path:
    """Memory-backed /dev/shm where it can be written to, else the system's temporary folder."""
    shm = Path("/dev/shm")
    return shm if shm.is_dir() and os.access(shm, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class Scratch:
    """A folder that is removed by close(), at interpreter exit, or by the next Scratch after a kill."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or default_parent()
        parent.mkdir(parents=True, exist_ok=True)
        sweep(parent, _PREFIX)
        self._folder = LockedFolder(parent, _PREFIX)
        self.path = self._folder.path
        atexit.register(self.close)

    def close(self) -> None:
        """Remove the folder; further calls do nothing."""
        atexit.unregister(self.close)
        self._folder.close()
