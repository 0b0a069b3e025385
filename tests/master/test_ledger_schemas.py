"""Ledgers of older schemas go on as those of today."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nimbusd.core.ids import EpisodeKey, JobId, Span
from nimbusd.core.records import JobRow, JobState, SceneCount, SceneHistory, Tried
from nimbusd.master.ledger.ledger import CommittedPiece, Ledger, LedgerError, fingerprints

HOUSES = JobId("houses")

_SCHEMA_1 = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE episode (
    scene TEXT NOT NULL, number INTEGER NOT NULL, state TEXT NOT NULL,
    attempt INTEGER NOT NULL, losses INTEGER NOT NULL, worker TEXT NOT NULL,
    stage TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, evidence TEXT NOT NULL,
    folder TEXT NOT NULL, frames INTEGER NOT NULL, size_bytes INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (scene, number)
) WITHOUT ROWID;
CREATE INDEX episode_state ON episode (state);
INSERT INTO about VALUES ('schema', '1'), ('job', 'houses'), ('fingerprint', 'f1');
INSERT INTO episode VALUES
    ('a', 0, 'committed', 1, 0, 'cpu:0', '', '', '', '', 'houses__a__000000.1', 7, 70, 'd0'),
    ('a', 1, 'leased', 2, 1, '', '', '', '', '', '', 0, 0, ''),
    ('a', 2, 'failed', 1, 0, 'cpu:0', 'plan', 'unreachable', 'no way', '', '', 0, 0, ''),
    ('b', 3, 'quarantined', 3, 3, 'cpu:1', 'render', 'crash', 'died', 'stack', '', 0, 0, ''),
    ('b', 0, 'pending', 1, 1, 'cpu:1', 'render', 'hang', 'slow', '', '', 0, 0, '');
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def old(path: Path) -> Path:
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(_SCHEMA_1)
    db.close()
    return path


def test_a_ledger_of_schema_1_goes_on_as_one_of_today(old: Path) -> None:
    old.with_name("job.json").write_text('{"name": "houses", "seed": 1}')
    assert fingerprints(old) == {HOUSES: "f1"}
    with pytest.raises(LedgerError, match="older nimbusd"):
        Ledger.read(old)
    for _ in range(2):
        with Ledger.open(old) as ledger:
            assert ledger.history(HOUSES) == {
                "a": SceneHistory(SceneCount(1, 1, 0, 7, 70), (Span(0, 1), Span(2, 3)), {1: Tried(2, 1)}),
                "b": SceneHistory(SceneCount(quarantined=1), (Span(3, 4),), {0: Tried(1, 1)}),
            }
            (piece,) = ledger.committed(HOUSES)
            key = EpisodeKey(HOUSES, "a", 0)
            assert piece == CommittedPiece(key, 1, "houses__a__000000.1", 7, 70, "d0", "cpu:0")
            assert [(row.failure.reason, row.failure.evidence) for row in ledger.failure_reports(HOUSES)] == [
                ("unreachable", ""),
                ("crash", "stack"),
            ]
            assert ledger.reasons(HOUSES) == {"crash": 1, "hang": 1, "unreachable": 1}
            row = ledger.job(HOUSES)
            assert row is not None
            assert (row.fingerprint, row.spec, row.state) == ("f1", {"name": "houses", "seed": 1}, JobState.RUNNING)
    assert ledger.epoch > 0
    assert fingerprints(old) == {HOUSES: "f1"}


def test_a_copy_of_a_converted_ledger_lies_beside_it(old: Path) -> None:
    Ledger.open(old).close()
    db = sqlite3.connect(old.with_name("ledger.sqlite.schema1"))
    assert db.execute("SELECT value FROM about WHERE key = 'schema'").fetchone() == ("1",)
    assert db.execute("SELECT COUNT(*) FROM episode").fetchone() == (5,)
    db.close()


def test_a_conversion_that_is_cut_short_leaves_the_old_ledger_as_it_was(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("nimbusd.master.ledger.schema._FROM_1", "INSERT INTO scene VALUES (1, 1, 'a');\nINSERT nonsense;")
        with pytest.raises(LedgerError):
            Ledger.open(old)
    assert fingerprints(old) == {HOUSES: "f1"}
    with Ledger.open(old) as ledger:
        assert ledger.totals(HOUSES).committed == 1
        assert ledger.job(HOUSES) is not None


def test_a_ledger_of_schema_2_goes_on_with_its_jobs_and_what_was_bound(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.put_job(JobRow(HOUSES, "f1", {"name": "houses"}, "ada", 1, 0, True, "e1", 1.5))
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "DROP TABLE drained; DROP TABLE generation; DELETE FROM about WHERE key = 'identity';"
            "ALTER TABLE job DROP COLUMN packages; ALTER TABLE job DROP COLUMN began_with;"
            "UPDATE about SET value = '2' WHERE key = 'schema';"
        )
    assert fingerprints(path) == {HOUSES: "f1"}
    with pytest.raises(LedgerError, match="older nimbusd"):
        Ledger.read(path)
    for _ in range(2):
        with Ledger.open(path) as ledger:
            assert ledger.drained() == []
            row = ledger.job(HOUSES)
            assert row == JobRow(HOUSES, "f1", {"name": "houses"}, "ada", 1, 0, True, "e1", 1.5)
    with closing(sqlite3.connect(path.with_name("ledger.sqlite.schema2"))) as db:
        assert db.execute("SELECT value FROM about WHERE key = 'schema'").fetchall() == [("2",)]
