"""A virtual ledger: what a database would hold after a crash, and a judge of everything that is written to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from nimbusd.core.ids import JobId, LeaseId, indexes_of, spans_of
from nimbusd.core.master.facts import JobPlan
from nimbusd.core.records import (
    JobRecorded,
    JobState,
    LeaseClosed,
    LeaseOpened,
    LedgerEntry,
    Record,
    SceneCount,
    SceneHistory,
    State,
    Tried,
)
from nimbusd.simulate.violation import Violation

Place = tuple[str, int]
"""A scene and an index in it."""


@dataclass(slots=True)
class JobPages:
    """The records of a job. leased: the highest number ever leased of an episode, which a ledger need not keep."""

    plan: JobPlan
    state: JobState = JobState.RUNNING
    why: str = ""
    rows: dict[Place, Record] = field(default_factory=dict)
    leases: dict[LeaseId, LeaseOpened] = field(default_factory=dict)
    leased: dict[Place, int] = field(default_factory=dict)


class VirtualLedger:
    """All jobs. `apply` is one durable transaction."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, JobPages] = {}
        self.epoch = 0

    def add(self, plan: JobPlan) -> None:
        """Take a job on, or open it again."""
        pages = self.jobs.setdefault(plan.job, JobPages(plan))
        pages.state, pages.why = JobState.RUNNING, ""

    def apply(self, entries: Iterable[LedgerEntry]) -> None:
        """Write entries. Raises Violation for any that a correct master never writes."""
        for entry in entries:
            match entry:
                case Record():
                    self._record(entry)
                case LeaseOpened():
                    self._opened(entry)
                case LeaseClosed(lease):
                    closed = [pages for pages in self.jobs.values() if pages.leases.pop(lease, None) is not None]
                    if len(closed) != 1:
                        raise Violation("I4", f"lease {lease} is closed, but was not open")
                case JobRecorded():
                    self._job(entry)

    def _record(self, new: Record) -> None:
        pages = self.jobs[new.key.job]
        place = new.key.scene, new.key.index
        old = pages.rows.get(place)
        if old is not None:
            if old.state is State.COMMITTED:
                raise Violation("I1", f"{new} overwrites the committed {old}")
            if old.state is not State.PENDING:
                raise Violation("I2", f"{new} overwrites the settled {old}")
            if new.state is State.PENDING and new.attempt < old.attempt:
                raise Violation("I1", f"{new} forgets attempts of {old}")
        if not 1 <= new.attempt <= pages.leased.get(place, 0):
            raise Violation("I1", f"{new} has a number that was never leased")
        if new.state is State.COMMITTED:
            if new.piece is None or not new.piece.folder:
                raise Violation("I3", f"{new} names no piece")
        elif new.state is not State.PENDING and not (new.failure and new.failure.reason):
            raise Violation("I2", f"{new} is settled without a reason")
        pages.rows[place] = new

    def _opened(self, lease: LeaseOpened) -> None:
        pages = self.jobs[lease.job]
        if lease.lease in pages.leases:
            raise Violation("I1", f"{lease} was opened before")
        for index in indexes_of(lease.spans):
            place = lease.scene, index
            number = pages.leased.get(place, 0)
            if lease.attempt <= number:
                raise Violation("I1", f"{place} is leased as {lease.attempt}, after {number}")
            row = pages.rows.get(place)
            if row is not None and row.state is not State.PENDING:
                raise Violation("I1", f"{place} is leased, but is {row}")
            pages.leased[place] = lease.attempt
        pages.leases[lease.lease] = lease

    def _job(self, entry: JobRecorded) -> None:
        pages = self.jobs[entry.job]
        pages.state, pages.why = entry.state, entry.why
        if entry.environment:
            pages.plan = replace(pages.plan, environment=entry.environment, packages=entry.packages)
        if entry.state not in (JobState.RUNNING, JobState.PAUSED) and pages.leases:
            raise Violation("I4", f"{entry} leaves the leases {list(pages.leases)} open")

    def is_committed(self, job: JobId, scene: str, index: int, folder: str) -> bool:
        """True where this piece is the one that counts."""
        row = self.jobs[job].rows.get((scene, index))
        return row is not None and row.piece is not None and row.piece.folder == folder

    def release_quarantined(self, job: JobId) -> dict[str, dict[int, Tried]]:
        """Make quarantined episodes pending again; their losses are forgiven."""
        released: defaultdict[str, dict[int, Tried]] = defaultdict(dict)
        pages = self.jobs[job]
        for (scene, index), row in pages.rows.items():
            if row.state is State.QUARANTINED:
                # The record keeps the number that was quarantined; a copy of it may have had a higher one.
                released[scene][index] = Tried(row.attempt, 0)
        for scene, tried in released.items():
            for index in tried:
                pages.rows[scene, index] = replace(pages.rows[scene, index], state=State.PENDING, losses=0)
        return dict(released)

    def history(self, job: JobId) -> dict[str, SceneHistory]:
        """A job's past, as a master needs it."""
        counts: defaultdict[str, SceneCount] = defaultdict(SceneCount)
        settled: defaultdict[str, list[int]] = defaultdict(list)
        tried: defaultdict[str, dict[int, Tried]] = defaultdict(dict)
        for (scene, index), row in self.jobs[job].rows.items():
            count = counts[scene]
            match row.state:
                case State.PENDING:
                    tried[scene][index] = Tried(row.attempt, row.losses)
                    continue
                case State.COMMITTED:
                    assert row.piece is not None
                    count.committed += 1
                    count.frames += row.piece.frames
                    count.size_bytes += row.piece.size_bytes
                case State.FAILED:
                    count.failed += 1
                case State.QUARANTINED:
                    count.quarantined += 1
            settled[scene].append(index)
        return {
            scene: SceneHistory(counts[scene], spans_of(settled[scene]), tried[scene])
            for scene in dict.fromkeys([*counts, *tried])
        }
