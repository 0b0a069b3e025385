"""A node's own folders: for sockets and stacks, for planned sequences in memory and on disk, and for the temporary
files of its compute workers.

None of them outlives its process: the next node removes what a killed one left. Locks tell who lives, not process
ids: nodes in containers may share /tmp and /dev/shm with others whose processes they do not see.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nimbusd.config import ConfigError
from nimbusd.locked_folder import LockedFolder, sweep

log = logging.getLogger(__name__)

_PREFIX = "nimbusd-node-"
_SHARED_MEMORY = Path("/dev/shm")
_SHORT_PATHS = (Path("/tmp"), _SHARED_MEMORY)
_LONGEST_SOCKET_PATH = 107
_RANDOM = "12345678"
_LONGEST_BELOW = len(f"/{_PREFIX}{_RANDOM}/12345/pymp-12345678/listener-12345678")
"""The path of a socket of multiprocessing in a compute worker, below the folder for temporary files."""
MOST_IN_MEMORY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class NodeFolders:
    """The folders of a running node."""

    sockets: Path
    """With a path that is short enough for them."""
    memory: Path
    """For plans."""
    disk: Path
    """For plans that have no place in memory."""
    temporary: Path
    """With a folder for each compute worker."""


@dataclass(frozen=True, slots=True)
class FolderPlaces:
    """The parents of a node's folders."""

    sockets: Path
    memory: Path
    disk: Path
    temporary: Path
    memory_bytes: int
    """The most that the folder in `memory` may hold."""

    @classmethod
    def choose(cls, temporary_files: Path | None = None) -> FolderPlaces:
        """Choose them, and remove what killed processes left there.

        A service has RUNTIME_DIRECTORY in memory and CACHE_DIRECTORY on disk; otherwise plans go to shared memory and
        to the folder for temporary files, where the sockets are, unless its path is too long for them.
        temporary_files: for those of compute workers, which may be large; None: on disk, where the plans are, as long
        as sockets in there can have a path. Raises ConfigError if sockets can be nowhere, or there is no such folder.
        """
        temporary = Path(tempfile.gettempdir())
        runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        sockets = _for_sockets(Path(runtime) if runtime else temporary)
        memory = Path(runtime) if runtime else _SHARED_MEMORY
        if not os.access(memory, os.W_OK):
            memory = temporary
        disk = Path(os.environ.get("CACHE_DIRECTORY", "").partition(":")[0] or temporary)
        chosen = _usable(temporary_files) if temporary_files is not None else _for_temporary_files(disk)
        for parent in {sockets, memory, disk, chosen}:
            for folder in sweep(parent, _PREFIX):
                log.info("removed %s, which a killed process left", folder)
        memory_bytes = min(MOST_IN_MEMORY_BYTES, shutil.disk_usage(memory).free // 2)
        return cls(sockets, memory, disk, chosen, memory_bytes)

    @contextlib.contextmanager
    def folders(self) -> Iterator[NodeFolders]:
        """New folders. At the end they are removed, with all that is in them."""
        with contextlib.ExitStack() as stack:

            def made(parent: Path) -> Path:
                folder = LockedFolder(parent, _PREFIX)
                stack.callback(folder.close)
                return folder.path

            yield NodeFolders(made(self.sockets), made(self.memory), made(self.disk), made(self.temporary))


def environment_of_temporary_files(folder: Path) -> Mapping[str, str]:
    """Environment variables that send a process's temporary files into `folder`."""
    return dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(folder))


def _for_sockets(wanted: Path) -> Path:
    """`wanted`, or another folder where its path is too long: the kernel allows that of a socket 107 bytes."""
    for parent in (wanted, *_SHORT_PATHS):
        longest = parent / f"{_PREFIX}{_RANDOM}" / "node"
        if len(os.fsencode(longest)) <= _LONGEST_SOCKET_PATH and os.access(parent, os.W_OK):
            return parent
    short = " and ".join(map(str, _SHORT_PATHS))
    raise ConfigError(
        f"the sockets of this node cannot lie in {wanted}, whose path is too long for them, nor in {short}, which "
        "cannot be written. Set RUNTIME_DIRECTORY or TMPDIR to a folder with a shorter path."
    )


def _for_temporary_files(disk: Path) -> Path:
    """`disk`, or /tmp where sockets below it would have too long a path."""
    for parent in (disk, _SHORT_PATHS[0]):
        longest = len(os.fsencode(parent)) + _LONGEST_BELOW
        if longest <= _LONGEST_SOCKET_PATH and os.access(parent, os.W_OK):
            return parent
    return disk


def _usable(folder: Path) -> Path:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"`temporary` is {folder}, no folder that can be written to. Make it, or name another.")
    return folder.absolute()
