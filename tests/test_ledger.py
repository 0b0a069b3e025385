"""The ledger: durable, exact, and closed to other jobs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbusd.core.episodes import EpisodeKey, OpenEpisode, Record, SceneCount, State
from nimbusd.master.ledger import Ledger, LedgerError


def record(index: int, state: State, attempt: int = 1, scene: str = "a", **more: object) -> Record:
    return Record(EpisodeKey(scene, index), state, attempt, 0, **more)  # type: ignore[arg-type]


def opened(path: Path) -> Ledger:
    return Ledger.open(path / "ledger.sqlite", "job", "f1")


def test_what_was_applied_is_there_after_reopening(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.apply([record(0, State.COMMITTED, folder="p0", frames=7), record(1, State.LEASED, 3)])
    ledger.apply([record(2, State.FAILED, reason="unreachable")])
    ledger.close()
    past = opened(tmp_path).history()["a"]
    assert past.count == SceneCount(committed=1, failed=1)
    assert past.open == {1: OpenEpisode(3, 0)}
    assert past.next_index == 3


def test_an_index_that_was_opened_but_never_recorded_is_still_open(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.apply([record(0, State.COMMITTED), record(3, State.LEASED)])
    assert sorted(ledger.history()["a"].open) == [1, 2, 3]


def test_a_committed_row_never_changes(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.apply([record(0, State.COMMITTED, 1, folder="first")])
    ledger.apply([record(0, State.COMMITTED, 2, folder="second")])
    ledger.apply([record(0, State.PENDING, 3)])
    (piece,) = ledger.committed()
    assert (piece.folder, piece.attempt) == ("first", 1)


def test_a_batch_is_applied_whole_or_not_at_all(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    broken = record(1, State.COMMITTED, digest=object())
    with pytest.raises(LedgerError):
        ledger.apply([record(0, State.COMMITTED), broken])
    assert list(ledger.committed()) == []
    ledger.apply([record(0, State.COMMITTED)])
    assert len(list(ledger.committed())) == 1


def test_the_ledger_of_another_job_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(LedgerError, match="belongs to job 'job'"):
        Ledger.open(tmp_path / "ledger.sqlite", "other", "f2")


def test_a_file_that_is_no_ledger_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(LedgerError, match=str(path)):
        Ledger.open(path, "job", "f1")
    with pytest.raises(LedgerError, match="does not exist"):
        Ledger.read(tmp_path / "nothing.sqlite")


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    db = sqlite3.connect(tmp_path / "ledger.sqlite")
    db.execute("UPDATE about SET value = '99' WHERE key = 'schema'")
    db.commit()
    db.close()
    with pytest.raises(LedgerError, match="schema 99"):
        opened(tmp_path)


def test_a_reader_sees_commits_while_the_writer_works(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    reader = Ledger.read(writer.path)
    writer.apply([record(0, State.COMMITTED, folder="p")])
    assert reader.committed_folder(EpisodeKey("a", 0)) == "p"
    with pytest.raises(LedgerError):
        reader.apply([record(1, State.COMMITTED)])


def test_quarantined_episodes_get_another_chance_when_asked(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.apply([record(0, State.QUARANTINED, 3, reason="crash", evidence="stack")])
    assert ledger.quarantined() == [(EpisodeKey("a", 0), "", "crash", "", "stack")]
    assert ledger.failures() == [("quarantined", "crash", 1)]
    assert ledger.release_quarantined() == 1
    assert ledger.history()["a"].open == {0: OpenEpisode(3, 0)}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(list(State)), st.integers(1, 9)), max_size=30))
def test_counts_and_open_episodes_are_those_of_the_last_records(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, State, int]]
) -> None:
    ledger = opened(tmp_path_factory.mktemp("ledger"))
    last: dict[int, State] = {}
    for index, state, attempt in rows:
        ledger.apply([record(index, state, attempt)])
        if last.get(index) is not State.COMMITTED:
            last[index] = state
    past = ledger.history().get("a")
    if past is None:
        assert not rows
        return
    states = list(last.values())
    assert past.count.committed == states.count(State.COMMITTED)
    assert past.count.failed == states.count(State.FAILED)
    assert past.count.quarantined == states.count(State.QUARANTINED)
    settled = (State.COMMITTED, State.FAILED, State.QUARANTINED)
    assert set(past.open) == {i for i in range(past.next_index) if last.get(i) not in settled}
    ledger.close()
