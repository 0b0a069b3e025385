"""The ledger against a model of dicts, whatever is written to it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span, spans_of
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
from nimbusd.master.ledger.ledger import Ledger
from tests.support.ledger_writer import job_row
from tests.support.records import record_of

HOUSES, SHOPS = JobId("houses"), JobId("shops")


@dataclass
class Model:
    """The contents of a ledger, kept in dicts."""

    rows: dict[EpisodeKey, Record] = field(default_factory=dict)
    leases: dict[LeaseId, LeaseOpened] = field(default_factory=dict)
    states: dict[JobId, JobState] = field(default_factory=lambda: dict.fromkeys((HOUSES, SHOPS), JobState.RUNNING))
    reasons: Counter[tuple[JobId, str]] = field(default_factory=Counter)

    def apply(self, entry: LedgerEntry) -> None:
        match entry:
            case Record(key):
                if (known := self.rows.get(key)) is None or known.state is not State.COMMITTED:
                    self.rows[key] = entry
                if (failure := entry.failure) is not None:
                    self.reasons[key.job, failure.reason] += bool(failure.reason)
            case LeaseOpened(lease):
                self.leases[lease] = entry
            case LeaseClosed(lease):
                self.leases.pop(lease, None)
            case JobRecorded(job, state):
                self.states[job] = state

    def history(self, job: JobId) -> dict[str, SceneHistory]:
        found = {}
        for scene in {key.scene for key in self.rows if key.job == job}:
            rows = {key.index: row for key, row in self.rows.items() if (key.job, key.scene) == (job, scene)}
            made = [row.piece for row in rows.values() if row.piece is not None]
            states = Counter(row.state for row in rows.values())
            frames, size_bytes = sum(piece.frames for piece in made), sum(piece.size_bytes for piece in made)
            counted = states[State.COMMITTED], states[State.FAILED], states[State.QUARANTINED]
            pending = {i: Tried(row.attempt, row.losses) for i, row in rows.items() if row.state is State.PENDING}
            count = SceneCount(*counted, frames, size_bytes)
            found[scene] = SceneHistory(count, spans_of(rows.keys() - pending), pending)
        return found

    def failed(self, job: JobId) -> dict[tuple[State, str], int]:
        ended = (State.FAILED, State.QUARANTINED)
        return Counter(
            (row.state, row.failure.reason if row.failure else "")
            for key, row in self.rows.items()
            if key.job == job and row.state in ended
        )


JOBS = st.sampled_from([HOUSES, SHOPS])
SCENES = st.sampled_from(["a", "b", "ünter/_ \U0001f3e0"])
SMALL = st.integers(0, 12)
RECORDS = st.builds(
    record_of,
    st.builds(EpisodeKey, JOBS, SCENES, SMALL),
    st.sampled_from(State),
    SMALL,
    SMALL,
    reason=st.sampled_from(["", "crash", "hang"]),
    evidence=st.text(max_size=5),
    folder=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
    frames=st.integers(0, 1 << 40),
)
LEASES = st.builds(
    LeaseOpened,
    st.builds(LeaseId, SMALL),
    JOBS,
    SCENES,
    SMALL,
    st.just(NodeId("n")),
    st.lists(st.builds(Span, SMALL, st.integers(13, 20)), min_size=1, max_size=3).map(tuple),
)
ENTRIES = st.one_of(
    RECORDS,
    LEASES,
    st.builds(LeaseClosed, st.builds(LeaseId, SMALL)),
    st.builds(JobRecorded, JOBS, st.sampled_from(JobState)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.lists(ENTRIES, max_size=25), st.booleans()), max_size=8))
def test_the_ledger_says_what_a_dict_would_also_after_reopening(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[list[LedgerEntry], bool]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    model = Model()
    ledger = Ledger.open(path)
    for job in (HOUSES, SHOPS):
        ledger.put_job(job_row(job, f"of {job}"))
    for entries, reopen in batches:
        ledger.apply(entries)
        for entry in entries:
            model.apply(entry)
        if reopen:
            ledger.close()
            ledger = Ledger.open(path)
    with ledger:
        assert ledger.open_leases() == [model.leases[lease] for lease in sorted(model.leases)]
        assert {row.job: row.state for row in ledger.jobs()} == model.states
        for job in (HOUSES, SHOPS):
            assert ledger.history(job) == model.history(job)
            assert {(c.state, c.reason): c.episodes for c in ledger.failures(job)} == model.failed(job)
            assert ledger.reasons(job) == {r: n for (of, r), n in model.reasons.items() if of == job and n}
            made = {key: row.piece.folder for key, row in model.rows.items() if key.job == job and row.piece}
            assert {piece.key: piece.folder for piece in ledger.committed(job)} == made
