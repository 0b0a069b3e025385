"""What can be asked of a ledger, by its writer and, meanwhile, by others.

What may be long is computed and gathered within SQLite, which does not hold the interpreter's lock meanwhile, and
comes as one row: handing over a million rows would keep an event loop in the same process waiting.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nimbusd.core.episodes import (
    EpisodeKey,
    JobId,
    JobRow,
    JobState,
    LeaseId,
    LeaseOpened,
    NodeId,
    SceneCount,
    SceneHistory,
    Span,
    State,
    Tried,
)
from nimbusd.master import ledger_schema as schema
from nimbusd.master.ledger_rows import JOB_COLUMNS, STATES, to_job, to_spans

_PIECES_AT_ONCE = 5_000

_JOB = "(SELECT id FROM job WHERE name = ?)"
_SETTLED = f"state <> {schema.PENDING}"
_COUNTS = ", ".join(
    [f"COUNT(*) FILTER (WHERE state = {code})" for code in (schema.COMMITTED, schema.FAILED, schema.QUARANTINED)]
    + [f"COALESCE(SUM({what}) FILTER (WHERE state = {schema.COMMITTED}), 0)" for what in ("frames", "size_bytes")]
)
_TOTALS = f"SELECT {_COUNTS} FROM scene CROSS JOIN episode ON episode.scene = scene.id WHERE job = {_JOB}"
_SCENES = f"""
SELECT scene.name, scene.id, {_COUNTS}, COUNT(*) FILTER (WHERE state = {schema.PENDING}),
    MIN(number) FILTER (WHERE {_SETTLED}), MAX(number) FILTER (WHERE {_SETTLED})
FROM scene CROSS JOIN episode ON episode.scene = scene.id WHERE job = {_JOB} GROUP BY scene.name
"""
_RUNS = f"""
SELECT json_group_array(number) FILTER (WHERE before IS NOT number - 1),
    json_group_array(number + 1) FILTER (WHERE after IS NOT number + 1)
FROM (
    SELECT number, LAG(number) OVER in_order AS before, LEAD(number) OVER in_order AS after
    FROM episode WHERE scene = ? AND {_SETTLED} WINDOW in_order AS (ORDER BY number)
)
"""
"""Where runs of settled episodes of a scene begin, and where they end."""
_TRIED = f"""
SELECT json_group_array(json_array(number, attempt, losses)) FROM episode WHERE scene = ? AND state = {schema.PENDING}
"""
_COMMITTED = f"""
SELECT json_group_array(json_array(number, attempt, folder, frames, size_bytes, digest, worker)) FROM (
    SELECT * FROM episode WHERE scene = ? AND state = {schema.COMMITTED} AND number > ? ORDER BY number LIMIT ?
)
"""
_FAILURES = f"""
FROM scene CROSS JOIN failure ON failure.scene = scene.id
CROSS JOIN episode ON episode.scene = failure.scene AND episode.number = failure.number
WHERE job = {_JOB} AND state IN ({schema.FAILED}, {schema.QUARANTINED})
"""


@dataclass(frozen=True, slots=True)
class CommittedPiece:
    """A committed episode: where its piece is and what it must contain. worker: the node that made it."""

    key: EpisodeKey
    attempt: int
    folder: str
    frames: int
    size_bytes: int
    digest: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A failed or quarantined episode, and what is known about why."""

    key: EpisodeKey
    attempt: int
    state: State
    stage: str
    reason: str
    detail: str
    evidence: str
    worker: str


@dataclass(frozen=True, slots=True)
class FailureCount:
    """So many episodes of a job ended in `state` for `reason`."""

    state: State
    reason: str
    episodes: int


class LedgerReads:
    """An open ledger, to be asked. Used from one thread at a time; what it says is of one moment per call."""

    def __init__(self, connection: sqlite3.Connection, path: Path, epoch: int) -> None:
        self._db = connection
        self.path = path
        self.epoch = epoch
        """How many times the ledger had been opened to write, with this time."""

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- jobs ---

    def jobs(self, *states: JobState) -> list[JobRow]:
        """The jobs in these states (none named: all), in order of submission."""
        marks = ",".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        rows = self._db.execute(
            f"SELECT {JOB_COLUMNS} FROM job {where} ORDER BY id", [state.value for state in states]
        ).fetchall()
        return [to_job(row) for row in rows]

    def job(self, name: JobId) -> JobRow | None:
        """A job by its name."""
        row = self._db.execute(f"SELECT {JOB_COLUMNS} FROM job WHERE name = ?", (name,)).fetchone()
        return None if row is None else to_job(row)

    def find(self, fingerprint: str) -> JobRow | None:
        """The job with this fingerprint: the first, if one was submitted under several names."""
        query = f"SELECT {JOB_COLUMNS} FROM job WHERE fingerprint = ? ORDER BY id LIMIT 1"
        row = self._db.execute(query, (fingerprint,)).fetchone()
        return None if row is None else to_job(row)

    # --- what a restart must know ---

    def history(self, job: JobId) -> dict[str, SceneHistory]:
        """What is known of each scene of a job; of those that are not named, nothing."""
        found = {}
        with self._snapshot():
            for name, scene, *sums in self._db.execute(_SCENES, (job,)).fetchall():
                *counts, pending, first, last = sums
                count = SceneCount(*counts)
                settled = count.committed + count.failed + count.quarantined
                if settled and last - first + 1 == settled:
                    runs: tuple[Span, ...] = (Span(first, last + 1),)
                else:
                    runs = self._runs(scene) if settled else ()
                found[str(name)] = SceneHistory(count, runs, self._tried(scene) if pending else {})
        return found

    def totals(self, job: JobId) -> SceneCount:
        """Settled episodes of a job over all its scenes."""
        return SceneCount(*self._db.execute(_TOTALS, (job,)).fetchone())

    def open_leases(self, job: JobId | None = None) -> list[LeaseOpened]:
        """Leases that were never closed, of one job or all, in order of their numbers."""
        where = "WHERE job.name = ?" if job is not None else ""
        query = (
            "SELECT lease.id, job.name, scene.name, attempt, node, spans FROM lease "
            f"JOIN scene ON scene.id = lease.scene JOIN job ON job.id = scene.job {where} ORDER BY lease.id"
        )
        rows = self._db.execute(query, () if job is None else (job,)).fetchall()
        return [
            LeaseOpened(LeaseId(number), JobId(name), scene, attempt, NodeId(node), to_spans(spans))
            for number, name, scene, attempt, node, spans in rows
        ]

    # --- pieces ---

    def committed(self, job: JobId) -> Iterator[CommittedPiece]:
        """Every committed piece by scene name and index; also those committed meanwhile, in scenes yet to come.

        Read in parts, so that a slow consumer does not keep the ledger's log from being emptied.
        """
        query = f"SELECT name, id FROM scene WHERE job = {_JOB} ORDER BY name"
        for name, scene in self._db.execute(query, (job,)).fetchall():
            last = -1
            while True:
                rows = self._gathered(_COMMITTED, (scene, last, _PIECES_AT_ONCE))
                for index, attempt, folder, frames, size_bytes, digest, worker in rows:
                    key = EpisodeKey(job, name, index)
                    yield CommittedPiece(key, attempt, folder, frames, size_bytes, digest, worker)
                if len(rows) < _PIECES_AT_ONCE:
                    break
                last = rows[-1][0]

    def committed_piece(self, key: EpisodeKey) -> CommittedPiece | None:
        """The committed piece of an episode, if there is one."""
        row = self._db.execute(
            "SELECT attempt, folder, frames, size_bytes, digest, worker FROM episode "
            f"WHERE scene = (SELECT id FROM scene WHERE job = {_JOB} AND name = ?) "
            f"AND number = ? AND state = {schema.COMMITTED}",
            (key.job, key.scene, key.index),
        ).fetchone()
        return None if row is None else CommittedPiece(key, *row)

    # --- what went wrong ---

    def reasons(self, job: JobId) -> dict[str, int]:
        """Attempts that came to nothing, by reason, the most frequent first; also those that a later one made good."""
        query = f"SELECT reason, attempts FROM reason WHERE job = {_JOB} ORDER BY attempts DESC, reason"
        return {str(reason): int(attempts) for reason, attempts in self._db.execute(query, (job,)).fetchall()}

    def failures(self, job: JobId) -> list[FailureCount]:
        """Failed and quarantined episodes, counted, the most frequent first."""
        query = f"SELECT state, reason, COUNT(*) {_FAILURES} GROUP BY state, reason ORDER BY 3 DESC, 1, 2"
        rows = self._db.execute(query, (job,)).fetchall()
        return [FailureCount(STATES[state], str(reason), int(number)) for state, reason, number in rows]

    def failure_rows(self, job: JobId, offset: int = 0, limit: int = 100) -> list[FailureRow]:
        """Failed and quarantined episodes by scene name and index, at most `limit`, without the first `offset`."""
        query = (
            f"SELECT scene.name, episode.number, attempt, state, stage, reason, detail, evidence, worker {_FAILURES} "
            "ORDER BY scene.name, failure.number LIMIT ? OFFSET ?"
        )
        rows = self._db.execute(query, (job, limit, offset)).fetchall()
        return [
            FailureRow(EpisodeKey(job, scene, index), attempt, STATES[state], stage, reason, detail, evidence, worker)
            for scene, index, attempt, state, stage, reason, detail, evidence, worker in rows
        ]

    # --- how ---

    def _runs(self, scene: int) -> tuple[Span, ...]:
        starts, stops = self._db.execute(_RUNS, (scene,)).fetchone()
        return tuple(map(Span, json.loads(starts), json.loads(stops)))

    def _tried(self, scene: int) -> dict[int, Tried]:
        return {index: Tried(attempt, losses) for index, attempt, losses in self._gathered(_TRIED, (scene,))}

    def _gathered(self, query: str, values: Sequence[int]) -> list[list[Any]]:
        """The rows of a query that gathers them into one JSON array."""
        (text,) = self._db.execute(query, values).fetchone()
        rows: list[list[Any]] = json.loads(text)
        return rows

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Everything in the block is read as of one moment."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")
