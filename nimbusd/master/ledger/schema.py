"""Tables of the ledger, and how a ledger of an older nimbusd becomes one of today's.

A scene's name is stored once; an episode is (scene, number). What a failed attempt left is apart from the episodes,
so that reading a million of those stays quick.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from nimbusd.master.ledger.errors import LedgerError
from nimbusd.stages.store.durable import sync_file

log = logging.getLogger(__name__)

SCHEMA_VERSION = 3
PENDING, COMMITTED, FAILED, QUARANTINED = range(4)
"""`episode.state`. Episodes of which nothing is known have no row."""

_EPOCHS = 1 << 22
"""A new ledger begins at any of these: nodes and clients may remember lease numbers and cursors of one that is lost."""

_TABLES = f"""
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO about VALUES
    ('schema', '{SCHEMA_VERSION}'), ('epoch', abs(random() % {_EPOCHS})), ('identity', lower(hex(randomblob(16))));
CREATE TABLE generation (epoch INTEGER PRIMARY KEY, token TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE job (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL, spec TEXT NOT NULL,
    user TEXT NOT NULL, priority INTEGER NOT NULL, max_nodes INTEGER NOT NULL, dynload INTEGER NOT NULL,
    environment TEXT NOT NULL, submitted_unix_s REAL NOT NULL, state TEXT NOT NULL, why TEXT NOT NULL,
    packages TEXT NOT NULL DEFAULT '{{}}', began_with TEXT NOT NULL DEFAULT '{{}}'
);
CREATE TABLE scene (
    id INTEGER PRIMARY KEY, job INTEGER NOT NULL REFERENCES job, name TEXT NOT NULL, UNIQUE (job, name)
);
CREATE TABLE episode (
    scene INTEGER NOT NULL, number INTEGER NOT NULL, state INTEGER NOT NULL,
    attempt INTEGER NOT NULL, losses INTEGER NOT NULL, worker TEXT NOT NULL,
    folder TEXT NOT NULL, frames INTEGER NOT NULL, size_bytes INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (scene, number)
) WITHOUT ROWID;
CREATE TABLE failure (
    scene INTEGER NOT NULL, number INTEGER NOT NULL,
    stage TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, evidence TEXT NOT NULL,
    PRIMARY KEY (scene, number)
) WITHOUT ROWID;
CREATE TABLE reason (
    job INTEGER NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL, PRIMARY KEY (job, reason)
) WITHOUT ROWID;
CREATE TABLE lease (
    id INTEGER PRIMARY KEY, scene INTEGER NOT NULL, attempt INTEGER NOT NULL, node TEXT NOT NULL, spans TEXT NOT NULL
);
CREATE TABLE drained (node TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_FROM_2 = f"""
ALTER TABLE job ADD COLUMN packages TEXT NOT NULL DEFAULT '{{}}';
ALTER TABLE job ADD COLUMN began_with TEXT NOT NULL DEFAULT '{{}}';
CREATE TABLE drained (node TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO about VALUES ('identity', lower(hex(randomblob(16))));
CREATE TABLE generation (epoch INTEGER PRIMARY KEY, token TEXT NOT NULL) WITHOUT ROWID;
UPDATE about SET value = '{SCHEMA_VERSION}' WHERE key = 'schema';
"""

_FROM_1 = f"""
INSERT INTO scene (job, name) SELECT 1, scene FROM episode_1 GROUP BY scene ORDER BY scene;
INSERT INTO episode SELECT scene.id, number,
    CASE state WHEN 'committed' THEN {COMMITTED} WHEN 'failed' THEN {FAILED} WHEN 'quarantined' THEN {QUARANTINED}
        ELSE {PENDING} END,
    attempt, losses, worker, folder, frames, size_bytes, digest
    FROM episode_1 JOIN scene ON scene.name = episode_1.scene ORDER BY scene.id, number;
INSERT INTO failure SELECT scene.id, number, stage, reason, detail, evidence
    FROM episode_1 JOIN scene ON scene.name = episode_1.scene
    WHERE state IN ('failed', 'quarantined') OR reason <> '' ORDER BY scene.id, number;
INSERT INTO reason SELECT 1, reason, COUNT(*) FROM episode_1 WHERE reason <> '' GROUP BY reason;
DROP TABLE episode_1;
DROP TABLE about_1;
"""


def schema_of(db: sqlite3.Connection) -> int:
    """The schema's version; 0 for an empty file. Raises sqlite3.DatabaseError for what is no ledger."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone() is None:
        return 0
    (value,) = db.execute("SELECT value FROM about WHERE key = 'schema'").fetchone() or ("0",)
    return int(value)


def bring_up_to_date(db: sqlite3.Connection, path: Path) -> None:
    """Give a new file its tables, or convert an older ledger, each in one transaction.

    An older one is copied to `<path>.schema<its version>` before. Raises LedgerError for one that is newer than this
    nimbusd.
    """
    version = schema_of(db)
    if version == SCHEMA_VERSION:
        return
    if version > SCHEMA_VERSION:
        raise newer(path, version)
    if version:
        _back_up(db, path.with_name(f"{path.name}.schema{version}"))
    db.execute("BEGIN IMMEDIATE")
    try:
        if version == 2:
            _run(db, _FROM_2)
        else:
            _make_tables(db, path, version)
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
    if version:
        log.warning(
            "%s was converted from schema %d to %d; a copy of it as it was lies beside", path, version, SCHEMA_VERSION
        )


def _make_tables(db: sqlite3.Connection, path: Path, version: int) -> None:
    """The tables of today: empty ones (version 0), or with what schema 1 had."""
    if version:
        db.execute("ALTER TABLE about RENAME TO about_1")
        db.execute("DROP INDEX IF EXISTS episode_state")
        db.execute("ALTER TABLE episode RENAME TO episode_1")
    _run(db, _TABLES)
    if version:
        _insert_job_of_1(db, path)
        _run(db, _FROM_1)


def begin_generation(db: sqlite3.Connection) -> int:
    """Note that the ledger is opened to write once more. Returns the epoch, which grows by one each time.

    A copy that is opened on its own has the same epochs as the original, but other tokens.
    """
    db.execute("BEGIN IMMEDIATE")
    ((epoch,),) = db.execute("UPDATE about SET value = value + 1 WHERE key = 'epoch' RETURNING value").fetchall()
    db.execute("INSERT INTO generation VALUES (?, lower(hex(randomblob(16))))", (int(epoch),))
    db.execute("COMMIT")
    return int(epoch)


def newer(path: Path, version: int) -> LedgerError:
    """The error for a ledger that a newer nimbusd has written."""
    return LedgerError(
        f"{path} has schema {version}, this nimbusd reads up to {SCHEMA_VERSION}. Use the newer nimbusd that wrote it.",
        path,
    )


def fingerprints_of_older(db: sqlite3.Connection) -> dict[str, str]:
    """Name → fingerprint of the jobs of a ledger of an older schema; that of schema 1 has one."""
    if schema_of(db) > 1:
        return {str(name): str(mark) for name, mark in db.execute("SELECT name, fingerprint FROM job")}
    facts = dict(db.execute("SELECT key, value FROM about"))
    return {str(facts["job"]): str(facts["fingerprint"])}


def _insert_job_of_1(db: sqlite3.Connection, path: Path) -> None:
    """The one job of schema 1; its description is in job.json beside the ledger.

    Where that is missing or damaged, the description stays empty until the job is run again.
    """
    facts = dict(db.execute("SELECT key, value FROM about_1"))
    spec = "{}"
    described = path.with_name("job.json")
    try:
        text = described.read_text()
        if isinstance(json.loads(text), dict):
            spec = text
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read (%s): the job's description comes with its next run", described, error)
    db.execute(
        "INSERT INTO job VALUES (1, ?, ?, ?, '', 0, 0, 1, '', 0.0, 'running', '', '{}', '{}')",
        (facts["job"], facts["fingerprint"], spec),
    )


def _back_up(db: sqlite3.Connection, copy: Path) -> None:
    """A durable copy of the ledger, whole at any time."""
    draft = copy.with_name(copy.name + ".tmp")
    draft.unlink(missing_ok=True)
    with closing(sqlite3.connect(draft)) as target:
        db.backup(target)
    sync_file(draft)
    draft.replace(copy)
    sync_file(copy.parent)


def _run(db: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)
