"""A copy of a ledger and of what lies beside it, in one file, and back: for a master's state folder, or an output.

A tar archive: `backup.json` (what and when), `ledger.sqlite` (copied by SQLite's own backup, whole also while a master
writes to it), and in a state folder its other files: keys, allow-list and the like. Episodes are not in it: a restored
ledger adopts the pieces that were stored after the copy was made.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import sqlite3
import tarfile
import tempfile
import time
import zlib
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from nimbusd.core.words import os_error_words
from nimbusd.master.ledger.ledger import Ledger, LedgerBusy, LedgerError
from nimbusd.master.output.folder import ledger_path
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.store.durable import sync_file

log = logging.getLogger(__name__)

_FORMAT = 1
_ABOUT = "backup.json"
_LEDGER = "ledger.sqlite"
_MOST_BYTES = 1 << 20
"""Of a file beside the ledger; keys and settings are small."""


class BackupError(NimbusError):
    """A backup cannot be made or used."""


@dataclass(frozen=True, slots=True)
class Backup:
    """The contents of a backup. place: the folder that it is of. files: beside the ledger."""

    place: str
    host: str
    made_unix_s: float
    jobs: tuple[str, ...]
    files: tuple[str, ...]


def ledger_in(place: Path) -> Path:
    """The ledger of a state folder or an output. Raises BackupError."""
    for path in (place / _LEDGER, ledger_path(place)):
        if path.is_file():
            return path
    raise BackupError(
        f"{place} has no ledger: it is neither a master's state folder ({_LEDGER}) nor the output of a run "
        f"({ledger_path(Path('.'))}). A job of a cluster has its ledger at its master."
    )


def make_backup(place: Path, file: Path) -> Backup:
    """Copy the ledger of a place, and what lies beside it, into a new file that only its owner may read.

    Raises BackupError, also if the file exists.
    """
    ledger = ledger_in(place)
    beside = _beside(place) if ledger.parent == place else []
    draft = file.with_name(file.name + ".tmp")
    try:
        with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=".backup-") as folder:
            copy = Path(folder) / _LEDGER
            _copy(ledger, copy)
            with Ledger.read(copy) as read:
                jobs = tuple(str(row.job) for row in read.jobs())
            made_of = str(place.absolute())
            backup = Backup(made_of, socket.gethostname(), time.time(), jobs, tuple(path.name for path in beside))
            if file.exists():
                raise BackupError(f"{file} exists already. Name another file.")
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                with tarfile.open(fileobj=out, mode="w:gz") as archive:
                    _add(archive, _ABOUT, orjson.dumps({"format": _FORMAT, **asdict(backup)}))
                    for path in (copy, *beside):
                        archive.add(path, path.name, recursive=False)
                out.flush()
                os.fsync(out.fileno())
            draft.rename(file)
            sync_file(file.absolute().parent)
    except OSError as error:
        raise BackupError(f"cannot write the backup {file}: {os_error_words(error)}") from error
    except sqlite3.Error as error:
        raise BackupError(f"cannot copy the ledger {ledger}: {error}") from error
    return backup


def restore(file: Path, place: Path, *, replace: bool = False) -> Backup:
    """Put a backup's ledger, and what lay beside it, into a state folder, or its ledger into an output.

    What is there already is only replaced if asked, and then kept beside under another name. Raises BackupError, also
    while a master or a run works there.
    """
    is_output = (place / ".pieces").exists() or ledger_path(place).parent.is_dir()
    target = ledger_path(place) if is_output else place / _LEDGER
    try:
        with tarfile.open(file, "r:gz") as archive:
            backup = _about(archive, file)
            if target.exists() and not replace:
                raise BackupError(f"{target} exists. Say --replace to put the backup in its place.")
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = [place / name for name in (() if is_output else backup.files)]
            wanted = [target, *(path for path in beside if replace or not path.exists())]
            drafts = {path: _extract(archive, _LEDGER if path == target else path.name, path) for path in wanted}
        if target.exists():  # only now, when all of the backup is known to be whole
            _close_ledger(target)
        ending = f".replaced-{int(time.time())}"
        for path, draft in drafts.items():
            for old in (path, *(path.with_name(path.name + log) for log in ("-wal", "-shm"))):
                if old.exists():
                    old.rename(old.with_name(old.name + ending))
            draft.replace(path)
        sync_file(target.parent)
    except OSError as error:
        raise BackupError(f"cannot restore {file} to {place}: {os_error_words(error)}") from error
    except (tarfile.TarError, EOFError, KeyError, zlib.error) as error:
        raise BackupError(f"cannot restore {file} to {place}: {error}") from error
    with Ledger.open(target) as ledger:
        ledger.note_restored()
    return backup


def _copy(ledger: Path, copy: Path) -> None:
    with (
        closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    os.chmod(copy, 0o600)


def _close_ledger(ledger: Path) -> None:
    """See that nobody works with a ledger, and bring its log into it. Raises BackupError while somebody does."""
    try:
        Ledger.open(ledger).close()
    except LedgerBusy as error:
        raise BackupError(str(error)) from error
    except LedgerError as error:
        log.warning("%s is put aside as it is: %s", ledger, error)


def _beside(place: Path) -> list[Path]:
    """The small files of a state folder that are not the ledger's."""
    return [
        entry
        for entry in sorted(place.iterdir())
        if entry.is_file()
        and not entry.is_symlink()
        and not entry.name.startswith(_LEDGER)
        and entry.stat().st_size <= _MOST_BYTES
    ]


def _about(archive: tarfile.TarFile, file: Path) -> Backup:
    try:
        stated = orjson.loads(_content(archive, _ABOUT))
        if stated["format"] != _FORMAT:
            raise BackupError(f"{file} is a backup of format {stated['format']}, which a newer nimbusd has made.")
        files = tuple(str(name) for name in stated["files"])
        if any("/" in name or name in ("", ".", "..") for name in files):
            raise BackupError(f"{file} names files outside its own folder.")
        jobs = tuple(str(job) for job in stated["jobs"])
        return Backup(str(stated["place"]), str(stated["host"]), float(stated["made_unix_s"]), jobs, files)
    except (KeyError, TypeError, ValueError) as error:
        raise BackupError(f"{file} is no backup that `nimbusctl backup` made: {error}") from error


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise BackupError(f"{name} in the backup is not a file")
    return member.read()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
    archive.addfile(member, io.BytesIO(content))


def _extract(archive: tarfile.TarFile, name: str, target: Path) -> Path:
    """Write a member beside `target`, whole and readable by its owner alone. Returns where."""
    source = archive.extractfile(name)
    if source is None:
        raise BackupError(f"{name} in the backup is not a file")
    draft = target.with_name(target.name + ".restoring")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        while chunk := source.read(1 << 20):
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return draft
