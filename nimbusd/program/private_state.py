"""A daemon's state folder: closed to all other users, and so is every file in it, whatever the umask.

Outputs are another matter: they are made to be shared, the ledger that `nimbusctl run` keeps in them included, and
have the modes that their user's umask gives.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from nimbusd.config import ConfigError
from nimbusd.core.words import os_error_words
from nimbusd.transport.security.ownership import user_name

log = logging.getLogger(__name__)

_OURS = ("ledger.sqlite*", "*.key", "*.pub", "authorized", "tokens.json", "joined.json*")
_CLOSED = 0o077
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def keep_private(folder: Path, files: Sequence[str] = ()) -> None:
    """Make the state folder, or close it to other users as it is found, and all files in it.

    files: names of files to make, empty, where they are missing: what makes them later leaves their mode to the umask.
    Raises ConfigError if the folder cannot be used, or if others may change what lies in it (trying again does not
    help); OSError if the storage is full or fails.
    """
    try:
        for missing in reversed([parent for parent in folder.absolute().parents if not parent.exists()]):
            missing.mkdir(mode=0o755, exist_ok=True)  # not 0777 less the umask, as `parents=True` does
        folder.mkdir(mode=0o700, exist_ok=True)
        _close_folder(folder)
        for name in files:
            os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for pattern in _OURS:
            for path in folder.glob(pattern):
                _close(path)
    except OSError as error:
        if error.errno in _PASSING:
            raise
        raise ConfigError(
            f"cannot use the state folder {folder}: {os_error_words(error)}. Name another by --state, or change "
            "its owner"
        ) from error


def _close_folder(folder: Path) -> None:
    """One that holds other things is not ours to close."""
    if not any(folder.iterdir()) or any(path for pattern in _OURS for path in folder.glob(pattern)):
        _close(folder)
    found = folder.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"the state folder {folder} belongs to {user_name(found.st_uid)} and has mode "
            f"{stat.S_IMODE(found.st_mode):04o}, so that others could replace the ledger and the keys in it. Name a "
            "folder of your own by --state, or close this one by `chmod go-w`"
        )


def _close(path: Path) -> None:
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if not mode & _CLOSED or path.suffix == ".pub" or stat.S_ISLNK(found.st_mode):
        return
    if found.st_uid != os.geteuid():
        log.warning("%s has mode %04o and belongs to %s: others may read it", path, mode, user_name(found.st_uid))
        return
    os.chmod(path, mode & ~_CLOSED)
    log.warning("%s had mode %04o: it is closed to other users now", path, mode)
