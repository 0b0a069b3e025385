"""A node's own folders: for sockets and stacks, and for planned sequences, in memory and on disk.

None of them outlives its process: what a killed one left, the next one removes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from nimbusd.config import ConfigError

log = logging.getLogger(__name__)

_PREFIX = "nimbusd-node-"
_SHARED_MEMORY = Path("/dev/shm")
_SHORT_PATHS = (Path("/tmp"), _SHARED_MEMORY)
_LONGEST_SOCKET_PATH = 107
MOST_IN_MEMORY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class NodeFolders:
    """sockets: short enough a path for them. memory, disk: for plans."""

    sockets: Path
    memory: Path
    disk: Path


@dataclass(frozen=True, slots=True)
class FolderPlaces:
    """Where a node's folders are made: the parent of each. memory_bytes: how much the one in `memory` may hold."""

    sockets: Path
    memory: Path
    disk: Path
    memory_bytes: int

    @classmethod
    def choose(cls) -> FolderPlaces:
        """Choose them, and remove what killed processes left there.

        A service has RUNTIME_DIRECTORY in memory and CACHE_DIRECTORY on disk; otherwise plans go to shared memory and
        to the folder for temporary files, where the sockets are, unless its path is too long for them.
        Raises ConfigError if sockets can be nowhere.
        """
        temporary = Path(tempfile.gettempdir())
        runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        sockets = _for_sockets(Path(runtime) if runtime else temporary)
        memory = Path(runtime) if runtime else _SHARED_MEMORY
        if not os.access(memory, os.W_OK):
            memory = temporary
        disk = Path(os.environ.get("CACHE_DIRECTORY", "").partition(":")[0] or temporary)
        for parent in {sockets, memory, disk}:
            _sweep(parent)
        memory_bytes = min(MOST_IN_MEMORY_BYTES, shutil.disk_usage(memory).free // 2)
        return cls(sockets, memory, disk, memory_bytes)

    @contextlib.contextmanager
    def folders(self) -> Iterator[NodeFolders]:
        """New folders. At the end they are removed, with all that is in them."""
        with contextlib.ExitStack() as stack:

            def made(parent: Path) -> Path:
                folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                return folder

            yield NodeFolders(made(self.sockets), made(self.memory), made(self.disk))


def _for_sockets(wanted: Path) -> Path:
    """`wanted`, or another folder where its path is too long: the kernel allows that of a socket 107 bytes."""
    for parent in (wanted, *_SHORT_PATHS):
        longest = parent / f"{_PREFIX}{os.getpid()}-12345678" / "node"
        if len(os.fsencode(longest)) <= _LONGEST_SOCKET_PATH and os.access(parent, os.W_OK):
            return parent
    short = " and ".join(map(str, _SHORT_PATHS))
    raise ConfigError(
        f"the sockets of this node cannot lie in {wanted}, whose path is too long for them, nor in {short}, which "
        "cannot be written. Set RUNTIME_DIRECTORY or TMPDIR to a folder with a shorter path."
    )


def _sweep(parent: Path) -> None:
    """Remove the folders of processes that are no more."""
    for folder in parent.glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        try:
            ours = folder.stat().st_uid == os.geteuid()
        except FileNotFoundError:
            continue  # somebody else sweeps, too
        if ours and pid.isdigit() and not psutil.pid_exists(int(pid)):
            log.info("removing %s, which a killed process left", folder)
            shutil.rmtree(folder, ignore_errors=True)
