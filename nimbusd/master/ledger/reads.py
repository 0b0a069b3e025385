"""Questions to a ledger, by its writer and, meanwhile, by others.

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

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span
from nimbusd.core.records import JobRow, JobState, LeaseOpened, SceneCount, SceneHistory, State, Tried
from nimbusd.master.ledger import schema as schema
from nimbusd.master.ledger.rows import JOB_COLUMNS, STATES, to_job, to_spans
from nimbusd.transport.messages.client import FailureReport
from nimbusd.transport.messages.failures import Failure, kind_of

ATTEMPTS_APART = 1_000
"""More than any ledger makes at one episode."""
_PIECES_AT_ONCE = 5_000

_JOB = "(SELECT id FROM job WHERE name = ?)"
_SETTLED = f"state <> {schema.PENDING}"
_COUNTS = ", ".join(
    [f"COUNT(*) FILTER (WHERE state = {code})" for code in (schema.COMMITTED, schema.FAILED, schema.QUARANTINED)]
    + [
        f"COALESCE(SUM({part}) FILTER (WHERE state = {schema.COMMITTED}), 0)"
        for what in ("frames", "size_bytes")
        for part in (f"{what} >> 32", f"{what} & 0xFFFFFFFF")
    ]
)
"""Sums come in two halves: SQLite refuses a sum beyond 64 bits, and a row that is wrong must not stop a master."""
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
"""The beginnings and the ends of runs of settled episodes of a scene."""
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
class LedgerIdentity:
    """A ledger, whatever its path. epoch and token: of its latest opening to write; copies have other tokens."""

    ledger: str
    epoch: int
    token: str


@dataclass(frozen=True, slots=True)
class CommittedPiece:
    """A committed episode: where its piece is and what it must contain. node: who made it."""

    key: EpisodeKey
    attempt: int
    folder: str
    frames: int
    size_bytes: int
    digest: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class EpisodeStanding:
    """The standing of an episode. attempt: the highest that was ever leased. losses: workers it has cost."""

    state: State
    attempt: int
    losses: int


@dataclass(frozen=True, slots=True)
class FailureCount:
    """The number of a job's episodes that ended in `state` for `reason`."""

    state: State
    reason: str
    episodes: int


class LedgerReads:
    """An open ledger, to be asked. Used from one thread at a time; what it says is of one moment per call."""

    def __init__(self, connection: sqlite3.Connection, path: Path, epoch: int) -> None:
        self._db = connection
        self.path = path
        self.epoch = epoch
        """The number of times that the ledger had been opened to write, with this time."""

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- the ledger itself ---

    def identity(self) -> LedgerIdentity:
        """The identity of this ledger, and of its latest opening."""
        ((identity,),) = self._db.execute("SELECT value FROM about WHERE key = 'identity'").fetchall()
        query = "SELECT epoch, token FROM generation ORDER BY epoch DESC LIMIT 1"
        epoch, token = self._db.execute(query).fetchone() or (0, "")
        return LedgerIdentity(str(identity), int(epoch), str(token))

    def has_generation(self, token: str) -> bool:
        """True where this ledger was once opened under `token`: one that was copied before does not know it."""
        return self._db.execute("SELECT 1 FROM generation WHERE token = ?", (token,)).fetchone() is not None

    def is_restored(self) -> bool:
        """True where `nimbusctl restore` put this ledger here, to go on where a newer state of it has been."""
        return self._db.execute("SELECT 1 FROM about WHERE key = 'restored'").fetchone() is not None

    def first_attempt(self) -> int:
        """At least the number of the first attempt at an episode: beyond those of jobs that were forgotten."""
        (value,) = self._db.execute("SELECT value FROM about WHERE key = 'first_attempt'").fetchone() or (1,)
        return int(value)

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

    def drained(self) -> list[NodeId]:
        """Nodes that get no more work, by name."""
        return [NodeId(name) for (name,) in self._db.execute("SELECT node FROM drained ORDER BY node").fetchall()]

    def history(self, job: JobId) -> dict[str, SceneHistory]:
        """The history of each scene of a job; scenes that are not named have none."""
        found = {}
        with self._snapshot():
            for name, scene, *sums in self._db.execute(_SCENES, (job,)).fetchall():
                *counts, pending, first, last = sums
                count = _count(counts)
                settled = count.committed + count.failed + count.quarantined
                if settled and last - first + 1 == settled:
                    runs: tuple[Span, ...] = (Span(first, last + 1),)
                else:
                    runs = self._runs(scene) if settled else ()
                found[str(name)] = SceneHistory(count, runs, self._tried(scene) if pending else {})
        return found

    def totals(self, job: JobId) -> SceneCount:
        """Settled episodes of a job over all its scenes."""
        return _count(self._db.execute(_TOTALS, (job,)).fetchone())

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
                for index, attempt, folder, frames, size_bytes, digest, node in rows:
                    key = EpisodeKey(job, name, index)
                    yield CommittedPiece(key, attempt, folder, frames, size_bytes, digest, node)
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

    def standing(self, key: EpisodeKey) -> EpisodeStanding | None:
        """The standing of an episode; None for one that was never leased."""
        place = f"scene = (SELECT id FROM scene WHERE job = {_JOB} AND name = ?)"
        row = self._db.execute(
            f"SELECT state, attempt, losses FROM episode WHERE {place} AND number = ?", (key.job, key.scene, key.index)
        ).fetchone()
        leases = self._db.execute(f"SELECT attempt, spans FROM lease WHERE {place}", (key.job, key.scene)).fetchall()
        leased = [attempt for attempt, spans in leases if any(s.start <= key.index < s.stop for s in to_spans(spans))]
        if row is None and not leased:
            return None
        state, attempt, losses = row or (schema.PENDING, 0, 0)
        return EpisodeStanding(STATES[state], max([int(attempt), *leased]), int(losses))

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

    def failure_reports(self, job: JobId, offset: int = 0, limit: int = 100) -> list[FailureReport]:
        """Failed and quarantined episodes by scene name and index, at most `limit`, without the first `offset`."""
        query = (
            f"SELECT scene.name, episode.number, attempt, state, stage, reason, detail, evidence, worker {_FAILURES} "
            "ORDER BY scene.name, failure.number LIMIT ? OFFSET ?"
        )
        return [_failure_report(row) for row in self._db.execute(query, (job, limit, offset)).fetchall()]

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


def _count(row: Sequence[int]) -> SceneCount:
    """The columns of _COUNTS."""
    committed, failed, quarantined, frames_high, frames, bytes_high, size_bytes = row
    return SceneCount(committed, failed, quarantined, (frames_high << 32) + frames, (bytes_high << 32) + size_bytes)


def _failure_report(row: Sequence[Any]) -> FailureReport:
    scene, index, attempt, code, stage, reason, detail, evidence, node = row
    state = STATES[code]
    failure = Failure(stage, reason, detail, evidence, kind_of(reason, planning=state is State.FAILED))
    return FailureReport(scene, index, attempt, state.value, failure, node)
