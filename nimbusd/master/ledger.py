"""The ledger: one SQLite file (WAL) that is the only truth about which episode has been committed.

Every call blocks; daemons call it from one thread of their own. A batch of records is one transaction, durable
when `apply` returns (synchronous = FULL).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nimbusd.core.episodes import EpisodeKey, OpenEpisode, Record, SceneCount, SceneHistory, State
from nimbusd.stages.errors import NimbusError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE episode (
    scene TEXT NOT NULL, number INTEGER NOT NULL, state TEXT NOT NULL,
    attempt INTEGER NOT NULL, losses INTEGER NOT NULL, worker TEXT NOT NULL,
    stage TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, evidence TEXT NOT NULL,
    folder TEXT NOT NULL, frames INTEGER NOT NULL, size_bytes INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (scene, number)
) WITHOUT ROWID;
CREATE INDEX episode_state ON episode (state);
"""
_COLUMNS = (
    "scene, number, state, attempt, losses, worker, stage, reason, detail, evidence, folder, frames, size_bytes, digest"
)
_UPSERT = (
    f"INSERT INTO episode ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?) "
    "ON CONFLICT (scene, number) DO UPDATE SET state = excluded.state, attempt = excluded.attempt, "
    "losses = excluded.losses, worker = excluded.worker, stage = excluded.stage, reason = excluded.reason, "
    "detail = excluded.detail, evidence = excluded.evidence, folder = excluded.folder, frames = excluded.frames, "
    "size_bytes = excluded.size_bytes, digest = excluded.digest WHERE episode.state <> 'committed'"
)


class LedgerError(NimbusError):
    """The ledger cannot be used: another job's, another version's, or damaged."""


@dataclass(frozen=True, slots=True)
class CommittedPiece:
    """A committed episode: where its piece is and what it must contain."""

    key: EpisodeKey
    attempt: int
    folder: str
    frames: int
    size_bytes: int
    digest: str


class Ledger:
    """One job's ledger. A job is known by its fingerprint; a ledger never serves another."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    @classmethod
    def open(cls, path: Path, job: str, fingerprint: str) -> Ledger:
        """Open or create the ledger of a job. Raises LedgerError for one of another job or version."""
        try:
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA busy_timeout = 5000")
            ledger = cls(db, path)
            ledger._create(job, fingerprint)
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{path} is not a usable ledger: {error}. Choose another output folder.") from error
        ledger._check(job, fingerprint)
        return ledger

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Open an existing ledger to read it, also while a daemon writes to it."""
        if not path.is_file():
            raise LedgerError(f"{path} does not exist: no job has run with this output folder.")
        try:
            db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
            db.execute("SELECT 1 FROM episode LIMIT 1")
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{path} is not a usable ledger: {error}") from error
        return cls(db, path)

    def close(self) -> None:
        self._db.close()

    def about(self, key: str) -> str | None:
        """A fact about the ledger: `schema`, `job`, `fingerprint`."""
        row = self._db.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def apply(self, records: Iterable[Record]) -> None:
        """Write the records in one transaction; durable on return. A committed episode never changes again."""
        rows = [_row(record) for record in records]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(_UPSERT, rows)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise LedgerError(f"cannot write to {self.path}: {error}. Nothing was acknowledged; run again.") from error

    def history(self) -> dict[str, SceneHistory]:
        """What a restart must know of each scene. Leases of a dead run are open episodes."""
        counts: dict[str, SceneCount] = {}
        opened: dict[str, dict[int, OpenEpisode]] = {}
        first_unknown: dict[str, int] = {}
        for scene, last in self._db.execute("SELECT scene, MAX(number) FROM episode GROUP BY scene"):
            counts[scene], opened[scene], first_unknown[scene] = SceneCount(), {}, last + 1
        settled = (State.COMMITTED.value, State.FAILED.value, State.QUARANTINED.value)
        query = f"SELECT scene, state, COUNT(*) FROM episode WHERE state IN {settled!r} GROUP BY scene, state"
        for scene, state, number in self._db.execute(query):
            setattr(counts[scene], state, number)
        query = f"SELECT scene, number, attempt, losses FROM episode WHERE state NOT IN {settled!r}"
        for scene, index, attempt, losses in self._db.execute(query):
            opened[scene][index] = OpenEpisode(attempt, losses)
        for scene, last in first_unknown.items():
            # Records of one batch are written together, but an index may have been opened and never recorded.
            known = {row[0] for row in self._db.execute("SELECT number FROM episode WHERE scene = ?", (scene,))}
            for index in range(last):
                if index not in known:
                    opened[scene][index] = OpenEpisode(0, 0)
        return {scene: SceneHistory(counts[scene], opened[scene], first_unknown[scene]) for scene in counts}

    def committed(self) -> Iterator[CommittedPiece]:
        """Every committed piece, by scene name and index."""
        query = (
            "SELECT scene, number, attempt, folder, frames, size_bytes, digest FROM episode "
            "WHERE state = 'committed' ORDER BY scene, number"
        )
        for scene, index, attempt, folder, frames, size_bytes, digest in self._db.execute(query):
            yield CommittedPiece(EpisodeKey(scene, index), attempt, folder, frames, size_bytes, digest)

    def committed_folder(self, key: EpisodeKey) -> str | None:
        """The folder of the committed piece of an episode, if there is one."""
        row = self._db.execute(
            "SELECT folder FROM episode WHERE scene = ? AND number = ? AND state = 'committed'", (key.scene, key.index)
        ).fetchone()
        return None if row is None else str(row[0])

    def failures(self) -> list[tuple[str, str, int]]:
        """(state, reason, count) of episodes that failed or are quarantined, most frequent first."""
        query = (
            "SELECT state, reason, COUNT(*) FROM episode WHERE state IN ('failed', 'quarantined') "
            "GROUP BY state, reason ORDER BY COUNT(*) DESC, state, reason"
        )
        return [(str(state), str(reason), int(number)) for state, reason, number in self._db.execute(query)]

    def quarantined(self) -> list[tuple[EpisodeKey, str, str, str, str]]:
        """(episode, stage, reason, detail, evidence) of every quarantined episode."""
        query = (
            "SELECT scene, number, stage, reason, detail, evidence FROM episode "
            "WHERE state = 'quarantined' ORDER BY scene, number"
        )
        return [(EpisodeKey(row[0], row[1]), row[2], row[3], row[4], row[5]) for row in self._db.execute(query)]

    def release_quarantined(self) -> int:
        """Make quarantined episodes pending again, with a clean record of losses. Returns how many."""
        cursor = self._db.execute("UPDATE episode SET state = 'pending', losses = 0 WHERE state = 'quarantined'")
        return cursor.rowcount

    def _create(self, job: str, fingerprint: str) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            known = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone()
            if known is None:
                for statement in _SCHEMA.split(";")[:-1]:
                    self._db.execute(statement)
                facts = {"schema": str(SCHEMA_VERSION), "job": job, "fingerprint": fingerprint}
                self._db.executemany("INSERT INTO about VALUES (?, ?)", facts.items())
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _check(self, job: str, fingerprint: str) -> None:
        if (schema := self.about("schema")) != str(SCHEMA_VERSION):
            raise LedgerError(f"{self.path} has schema {schema}, this nimbusd reads {SCHEMA_VERSION}.")
        if self.about("fingerprint") != fingerprint:
            raise LedgerError(
                f"{self.path} belongs to job {self.about('job')!r} with other scenes, seed or pipeline than "
                f"{job!r} has now. Choose another --output, or restore the job file to resume."
            )


def _row(r: Record) -> tuple[str | int, ...]:
    """A record's values in the order of _COLUMNS."""
    where = (r.key.scene, r.key.index, r.state.value, r.attempt, r.losses, r.worker)
    why = (r.stage, r.reason, r.detail, r.evidence)
    return (*where, *why, r.folder, r.frames, r.size_bytes, r.digest)
