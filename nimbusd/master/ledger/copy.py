"""A ledger copied as of one moment, for who may read it where nothing can be written.

SQLite keeps an index beside the log of a ledger, which whoever reads must be able to make. Where that cannot be, the
database and its log are copied, while their writer may go on: the log is only appended to, until it is begun anew with
other salts in its header. So a database that was copied before its log is whole with it, whatever was moved from the
log into the database meanwhile, as long as the log has not been begun anew; then the copy is made again.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

_HEADER_BYTES = 32
_MOST_TRIES = 20


def copy_ledger(path: Path, folder: Path) -> Path:
    """Copy the ledger at `path` into `folder`; returns the copy's path. Raises OSError if it cannot be read."""
    copy, log = folder / path.name, path.with_name(path.name + "-wal")
    for _ in range(_MOST_TRIES):
        begun = _header(log)
        shutil.copyfile(path, copy)
        copied_log = copy.with_name(log.name)
        copied_log.unlink(missing_ok=True)
        if begun:
            try:
                shutil.copyfile(log, copied_log)
            except FileNotFoundError:  # its last writer left, and took the log along
                continue
        if begun == _header(copied_log) == _header(log):
            return copy
    raise OSError(errno.EBUSY, "it changes too fast to be copied", str(path))


def _header(log: Path) -> bytes:
    """Of a log; empty if there is none, or nothing in it."""
    try:
        with log.open("rb") as file:
            return file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return b""
