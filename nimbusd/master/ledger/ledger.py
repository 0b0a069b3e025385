"""The ledger: one SQLite file (WAL) that is the only truth about jobs, their episodes and open leases.

Every call blocks; daemons call it from a thread of its own (`LedgerThread`). The entries of a call of `apply` are
one transaction, durable when it returns (synchronous = FULL).
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nimbusd.core.ids import EpisodeKey, JobId, NodeId
from nimbusd.core.records import (
    JobRecorded,
    JobRow,
    JobState,
    LeaseClosed,
    LeaseOpened,
    LedgerEntry,
    LostPiece,
    Record,
    State,
    Tried,
)
from nimbusd.master.ledger import schema as schema
from nimbusd.master.ledger.copy import copy_ledger
from nimbusd.master.ledger.errors import LedgerBusy, LedgerError, LedgerFull, LedgerOutdated, write_error
from nimbusd.master.ledger.reads import ATTEMPTS_APART, CommittedPiece, FailureCount, LedgerReads
from nimbusd.master.ledger.rows import (
    JOB_COLUMNS,
    Value,
    episode_row,
    failure_row,
    job_row,
    json_text,
    shortened,
    spans_text,
)
from nimbusd.transport.messages.bounds import MOST_REASON

__all__ = [
    "CommittedPiece",
    "FailureCount",
    "Ledger",
    "LedgerBusy",
    "LedgerError",
    "LedgerFull",
    "LedgerOutdated",
    "fingerprints",
]

_BUSY_TIMEOUT_MS = 5_000
_CACHE_KIB = 256
"""Of a connection. Small: the system keeps the file's pages anyway, and a copy of our own grows with the history."""

_SCENES = "INSERT INTO scene VALUES (?,?,?)"
_EPISODES = (
    "INSERT INTO episode VALUES (?,?,?,?,?,?,?,?,?,?) "
    "ON CONFLICT DO UPDATE SET state = excluded.state, attempt = excluded.attempt, "
    "losses = excluded.losses, worker = excluded.worker, folder = excluded.folder, frames = excluded.frames, "
    f"size_bytes = excluded.size_bytes, digest = excluded.digest WHERE episode.state <> {schema.COMMITTED}"
)
_FAILURES = "INSERT OR REPLACE INTO failure VALUES (?,?,?,?,?,?)"
_LEASES = "INSERT OR REPLACE INTO lease VALUES (?,?,?,?,?)"
_CLOSED = "DELETE FROM lease WHERE id = ?"
_JOB_STATE = "UPDATE job SET state = ?, why = ? WHERE id = ?"
_ENVIRONMENT = (
    "UPDATE job SET began_with = iif(environment = '', ?, began_with), environment = ?, packages = ? WHERE id = ?"
)
"""The packages that a job began with are recorded once."""
_REASONS = "INSERT INTO reason VALUES (?,?,?) ON CONFLICT DO UPDATE SET attempts = attempts + excluded.attempts"


@dataclass(slots=True)
class _Known:
    """A job's number and those of its scenes. Kept while entries of the job come."""

    id: int
    scenes: dict[str, int]


class Ledger(LedgerReads):
    """The ledger of a master, or of the one job of an embedded run."""

    def __init__(self, connection: sqlite3.Connection, path: Path, epoch: int, lock: int | None = None) -> None:
        super().__init__(connection, path, epoch)
        self._lock = lock
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        """Of the copy that is read."""
        self._jobs: dict[JobId, _Known] = {}
        self._next_scene = 0
        self._new_scenes: list[Sequence[Value]] = []
        self._failed: Counter[tuple[int, str]] = Counter()

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Open a ledger to write, or create it; an older one is converted. `epoch` grows by one each time.

        Raises LedgerBusy while another process has it open to write, or LedgerError.
        """
        lock = _claim(path)
        try:
            db = _connect(path, "rwc")
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                schema.bring_up_to_date(db, path)
                return cls(db, path, schema.begin_generation(db), lock)
            except BaseException:
                db.close()
                raise
        except BaseException as error:
            os.close(lock)
            if isinstance(error, sqlite3.OperationalError):
                raise write_error(path, error) from error
            if isinstance(error, sqlite3.DatabaseError):
                raise LedgerError(f"{path} is not a usable ledger: {error}. Choose another folder.", path) from error
            raise

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Open an existing ledger to read it, also while another process writes to it.

        Where nothing can be written beside it, a copy is read. Raises LedgerOutdated for one that has to be opened to
        write once, or LedgerError.
        """
        if not path.is_file():
            raise LedgerError(f"{path} does not exist: no job has run with it.", path, errno.ENOENT)
        try:
            try:
                return cls._reading(path, path)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                    raise
            return cls.read_copy(path, convert=False)
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{path} is not a usable ledger: {error}", path) from error

    @classmethod
    def read_copy(cls, path: Path, *, convert: bool = True) -> Ledger:
        """Read a copy of the ledger. convert: if it is an older one. Raises LedgerError."""
        folder = tempfile.TemporaryDirectory(prefix="nimbusd-ledger-")
        try:
            copy = copy_ledger(path, Path(folder.name))
            if convert:
                cls.open(copy).close()
            ledger = cls._reading(copy, path)
        except OSError as error:
            folder.cleanup()
            raise LedgerError(f"cannot read the ledger {path}: {error.strerror}", path, error.errno or 0) from error
        except BaseException:
            folder.cleanup()
            raise
        ledger._folder = folder
        return ledger

    @classmethod
    def _reading(cls, place: Path, path: Path) -> Ledger:
        """Open the file at `place` to read it, as the ledger at `path`. Raises sqlite3.Error as well."""
        db = _connect(place, "ro")
        try:
            version = schema.schema_of(db)
            if version > schema.SCHEMA_VERSION:
                raise schema.newer(path, version)
            if version < schema.SCHEMA_VERSION:
                raise LedgerOutdated(
                    f"{path} was made by an older nimbusd (schema {version}). "
                    "`nimbusctl run` or `nimbusctl publish` converts it.",
                    path,
                )
            ((epoch,),) = db.execute("SELECT value FROM about WHERE key = 'epoch'").fetchall()
            return cls(db, path, int(epoch))
        except BaseException:
            db.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        super().close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._folder is not None:
            self._folder.cleanup()

    def put_job(self, row: JobRow) -> None:
        """Add a job, or replace what is known of it but for its episodes. Durable on return.

        Raises LedgerError if the job of that name has another fingerprint.
        """
        known = self.job(row.job)
        if known is not None and known.fingerprint != row.fingerprint:
            raise LedgerError(
                f"{self.path} has another job {row.job!r}, with other scenes, seed or pipeline. Rename one of them.",
                self.path,
            )
        names = JOB_COLUMNS.split(", ")
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        marks = ",".join("?" * len(names))
        query = f"INSERT INTO job ({JOB_COLUMNS}) VALUES ({marks}) ON CONFLICT (name) DO UPDATE SET "
        with self._transaction():
            self._db.execute(query + changes, job_row(row))

    def apply(self, entries: Iterable[LedgerEntry]) -> None:
        """Write the entries in one transaction, durable on return. A committed episode never changes again.

        Raises LedgerFull or LedgerError; then nothing of it was written.
        """
        with self._transaction():
            self._apply(entries)

    def _apply(self, entries: Iterable[LedgerEntry]) -> None:
        episodes: list[Sequence[Value]] = []
        failures: list[Sequence[Value]] = []
        reasons: Counter[tuple[int, str]] = Counter()
        opened: dict[int, Sequence[Value]] = {}
        closed: list[Sequence[Value]] = []
        ended: set[JobId] = set()
        for entry in entries:
            match entry:
                case Record():
                    scene = self._scene(entry.key.job, entry.key.scene)
                    episodes.append(episode_row(scene, entry))
                    if entry.failure is not None or entry.state is State.FAILED or entry.state is State.QUARANTINED:
                        reason = entry.failure.reason if entry.failure is not None else ""
                        place = (self._job(entry.key.job).id, shortened(reason, MOST_REASON))
                        failures.append(failure_row(scene, entry, self._failed_before(place) + reasons[place]))
                        reasons[place] += 1
                case LeaseOpened(lease, job, scene_name, attempt, node, spans):
                    scene = self._scene(job, scene_name)
                    opened[lease] = (lease, scene, attempt, node, spans_text(spans))
                case LeaseClosed(lease):
                    opened.pop(lease, None)
                    closed.append((lease,))
                case JobRecorded(job, job_state, why, environment, packages):
                    number = self._job(job).id
                    self._db.execute(_JOB_STATE, (job_state.value, why, number))
                    if environment:
                        text = json_text(packages)
                        self._db.execute(_ENVIRONMENT, (text, environment, text, number))
                    if job_state not in (JobState.RUNNING, JobState.PAUSED):
                        ended.add(job)
        new_scenes, self._new_scenes = self._new_scenes, []
        self._db.executemany(_SCENES, new_scenes)
        self._db.executemany(_CLOSED, closed)
        self._db.executemany(_LEASES, opened.values())
        self._db.executemany(_EPISODES, episodes)
        self._db.executemany(_FAILURES, failures)
        self._db.executemany(_REASONS, ((*place, count) for place, count in reasons.items() if place[1]))
        self._failed.update(reasons)
        for job in ended:
            self._jobs.pop(job)

    def set_drained(self, node: NodeId, on: bool) -> None:
        """Remember that a node gets no more work, or forget it. Durable on return."""
        query = "INSERT OR IGNORE INTO drained VALUES (?)" if on else "DELETE FROM drained WHERE node = ?"
        with self._transaction():
            self._db.execute(query, (node,))

    def release_quarantined(self, job: JobId) -> list[tuple[str, int, Tried]]:
        """Make a job's quarantined episodes pending again, with a clean record of losses. Durable on return.

        Returns (scene, index, what is known of it) of each.
        """
        with self._transaction():
            number = self._job(job).id
            query = (
                f"UPDATE episode SET state = {schema.PENDING}, losses = 0 WHERE state = {schema.QUARANTINED} "
                "AND scene IN (SELECT id FROM scene WHERE job = ?) RETURNING scene, number, attempt"
            )
            rows = self._db.execute(query, (number,)).fetchall()
            query = "SELECT id, name FROM scene WHERE job = ?"
            names = dict(self._db.execute(query, (number,)).fetchall())
        return sorted(
            ((names[scene], index, Tried(attempt, 0)) for scene, index, attempt in rows), key=lambda row: row[:2]
        )

    def put_back(self, job: JobId, episodes: Iterable[EpisodeKey]) -> list[tuple[EpisodeKey, LostPiece]]:
        """Make committed episodes pending again, whose pieces are damaged or gone. Durable on return.

        Their attempts go on from the highest. Returns those that were committed.
        """
        place = f"WHERE scene = ? AND number = ? AND state = {schema.COMMITTED}"
        empty = "losses = 0, folder = '', frames = 0, size_bytes = 0, digest = ''"
        put_back = []
        with self._transaction():
            scenes = self._job(job).scenes
            for key in episodes:
                at = (scenes.get(key.scene, 0), key.index)
                row = self._db.execute(f"SELECT attempt, frames, size_bytes FROM episode {place}", at).fetchone()
                if row is not None:
                    self._db.execute(f"UPDATE episode SET state = {schema.PENDING}, {empty} {place}", at)
                    put_back.append((key, LostPiece(Tried(row[0], 0), row[1], row[2])))
        return put_back

    def note_restored(self) -> None:
        """Note that this is a restored copy, which may go on where a newer state of it has been. Durable on return.

        Its epochs go on far from those that the newer state may have used, so that no lease has a number of one of its.
        It forgets its openings: what was done under the latest one may have gone on after the copy was made.
        """
        with self._transaction():
            self._db.execute("DELETE FROM generation")
            self._db.execute("UPDATE about SET value = value + 1000 WHERE key = 'epoch'")
            self._db.execute("INSERT OR REPLACE INTO about VALUES ('restored', '1')")

    def forget(self, job: JobId) -> None:
        """Remove all that is known of a job. Durable on return."""
        with self._transaction():
            number = self._job(job).id
            scenes = "scene IN (SELECT id FROM scene WHERE job = ?)"
            for table in ("episode", "failure", "lease"):
                self._db.execute(f"DELETE FROM {table} WHERE {scenes}", (number,))
            for table, column in (("reason", "job"), ("scene", "job"), ("job", "id")):
                self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))
            beyond = self.first_attempt() + ATTEMPTS_APART  # nodes that are away may still hold leases of it
            self._db.execute("INSERT OR REPLACE INTO about VALUES ('first_attempt', ?)", (str(beyond),))
        self._forget()

    # --- how ---

    def _job(self, name: JobId) -> _Known:
        """A job that entries are about, with the numbers of its scenes."""
        if (known := self._jobs.get(name)) is not None:
            return known
        row = self._db.execute("SELECT id FROM job WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise LedgerError(f"{self.path} has no job {name!r}: nothing can be recorded of it.", self.path)
        query = "SELECT json_group_array(json_array(name, id)) FROM scene WHERE job = ?"
        self._jobs[name] = known = _Known(int(row[0]), dict(self._gathered(query, row)))
        return known

    def _scene(self, job: JobId, name: str) -> int:
        """The number of a scene, which is stored when it is first mentioned."""
        known = self._job(job)
        number = known.scenes.get(name)
        if number is None:
            if not self._next_scene:
                ((last,),) = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM scene").fetchall()
                self._next_scene = last + 1
            number = known.scenes[name] = self._next_scene
            self._next_scene += 1
            self._new_scenes.append((number, known.id, name))
        return number

    def _failed_before(self, place: tuple[int, str]) -> int:
        if place not in self._failed:
            query = "SELECT attempts FROM reason WHERE job = ? AND reason = ?"
            (self._failed[place],) = self._db.execute(query, place).fetchone() or (0,)
        return self._failed[place]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block or nothing of it; durable after it."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._forget()
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OverflowError, UnicodeError, TypeError) as error:
            raise write_error(self.path, error) from error

    def _forget(self) -> None:
        """Forget what was learned in a transaction that came to nothing."""
        self._jobs.clear()
        self._new_scenes.clear()
        self._next_scene = 0
        self._failed.clear()


def fingerprints(path: Path) -> dict[JobId, str]:
    """The jobs of a ledger of any version, by name. Raises LedgerError."""
    try:
        with Ledger.read(path) as ledger:
            return {row.job: row.fingerprint for row in ledger.jobs()}
    except LedgerOutdated:
        with closing(_connect(path, "ro")) as db:
            return {JobId(name): fingerprint for name, fingerprint in schema.fingerprints_of_older(db).items()}


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    db.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return db


def _claim(path: Path) -> int:
    """A descriptor that holds the lock of who writes to the ledger. Raises LedgerBusy or LedgerError."""
    place = path.with_name(path.name + "-writer")
    try:
        lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        number = error.errno or 0
        raise LedgerError(f"cannot open the ledger {path}: {error.strerror} ({place})", path, number) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise LedgerBusy(f"{path} is in use by another master or run. Stop it first.", path, errno.EBUSY) from error
    return lock
