"""Errors of a ledger, told apart by what a person or a daemon must do about them."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from pathlib import Path

from nimbusd.stages.errors import NimbusError

_PROBE_BYTES = 1 << 16


class LedgerError(NimbusError):
    """The ledger cannot be used: another job's, another version's, damaged, or its disk fails.

    path: of the ledger. errno: of the operating system's error; 0 where there was none.
    """

    def __init__(self, text: str, path: Path | None = None, number: int = 0) -> None:
        super().__init__(text)
        self.path = path
        self.errno = number


class LedgerFull(LedgerError):
    """There is no room left where the ledger lies. Nothing is lost: the same entries can be applied again."""


class LedgerBusy(LedgerError):
    """Another process writes to this ledger."""


class LedgerOutdated(LedgerError):
    """The ledger is of an older nimbusd, and was opened only to be read. Opening it to write converts it."""


def write_error(path: Path, error: Exception) -> LedgerError:
    """Translate an error of SQLite, or of a value that it cannot hold, for who tried to write to `path`."""
    number = _errno(path, error) if isinstance(error, sqlite3.Error) else 0
    cause = os.strerror(number) if number else str(error)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return LedgerFull(
            f"cannot write to {path}: {cause}. Nothing was acknowledged; make room on its disk.", path, number
        )
    return LedgerError(f"cannot write to {path}: {cause}. Nothing was acknowledged; run again.", path, number)


def _errno(path: Path, error: sqlite3.Error) -> int:
    """The operating system's error number. SQLite keeps it to itself, but the same write fails again."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return errno.ENOSPC
    if code == sqlite3.SQLITE_READONLY:
        return errno.EROFS
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return 0
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as cause:
        return cause.errno or errno.EIO
    return errno.EIO
