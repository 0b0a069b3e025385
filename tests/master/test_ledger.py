"""The ledger: durable, exact, of many jobs, and what it was after every reopening."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span
from nimbusd.core.records import (
    JobRecorded,
    JobRow,
    JobState,
    LeaseClosed,
    LeaseOpened,
    Record,
    SceneCount,
    SceneHistory,
    State,
    Tried,
)
from nimbusd.master.ledger import rows as ledger_rows
from nimbusd.master.ledger.ledger import CommittedPiece, FailureCount, Ledger, LedgerBusy, LedgerError, LedgerFull
from nimbusd.transport.messages import bounds
from tests.support.ledger_writer import job_row, kill_once
from tests.support.records import record_of

HOUSES, SHOPS = JobId("houses"), JobId("shops")


def record(index: int, state: State, attempt: int = 1, scene: str = "a", job: JobId = HOUSES, **more: object) -> Record:
    return record_of(EpisodeKey(job, scene, index), state, attempt, 0, **more)  # type: ignore[arg-type]


def leased(number: int, *spans: Span, scene: str = "a", job: JobId = HOUSES) -> LeaseOpened:
    return LeaseOpened(LeaseId(number), job, scene, 1, NodeId("n1"), spans)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path) as opened:
        opened.put_job(job_row(HOUSES))
        yield opened


# --- jobs ---


def test_jobs_come_back_as_they_were_submitted_in_that_order(path: Path) -> None:
    first = JobRow(SHOPS, "f2", {"scenes": [["b", {"n": 1}], ["a", {}]]}, "ada", 5, 3, False, "e" * 8, 12.25)
    second = JobRow(HOUSES, "f1", {"name": "Häuser"}, "bob", -1, 0, True, "", 13.0, JobState.PAUSED, "disk full")
    with Ledger.open(path) as ledger:
        ledger.put_job(first)
        ledger.put_job(second)
    with Ledger.read(path) as reader:
        assert reader.jobs() == [first, second]
        assert reader.jobs(JobState.PAUSED) == [second]
        assert reader.job(HOUSES) == second
        assert reader.job(JobId("none")) is None
        assert reader.find("f2") == first
        assert reader.find("f9") is None


def test_a_job_submitted_again_keeps_its_place_and_its_episodes(ledger: Ledger) -> None:
    ledger.put_job(job_row(SHOPS))
    ledger.apply([record(0, State.COMMITTED)])
    ledger.put_job(replace(job_row(HOUSES), priority=9))
    assert [(row.job, row.priority) for row in ledger.jobs()] == [(HOUSES, 9), (SHOPS, 0)]
    assert ledger.totals(HOUSES).committed == 1


def test_a_job_with_a_known_name_and_another_fingerprint_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="has another job 'houses'"):
        ledger.put_job(job_row(HOUSES, "f2"))


def test_a_jobs_state_is_the_last_recorded_and_its_environment_stays_once_known(ledger: Ledger) -> None:
    ledger.apply([JobRecorded(HOUSES, JobState.PAUSED, "disk full", "e1")])
    ledger.apply([JobRecorded(HOUSES, JobState.RUNNING)])
    row = ledger.job(HOUSES)
    assert row is not None
    assert (row.state, row.why, row.environment) == (JobState.RUNNING, "", "e1")


def test_what_a_job_began_with_is_recorded_once_and_what_it_has_now_each_time(ledger: Ledger) -> None:
    for environment, packages in (("e1", {"numpy": "1"}), ("e2", {"numpy": "2"}), ("e3", {})):
        ledger.apply([JobRecorded(HOUSES, JobState.RUNNING, environment=environment, packages=packages)])
        row = ledger.job(HOUSES)
        assert row is not None
        assert (row.environment, row.packages, row.began_with) == (environment, packages, {"numpy": "1"})


def test_drained_nodes_are_remembered_until_they_are_not(path: Path) -> None:
    with Ledger.open(path) as ledger:
        for node in ("b", "a", "a"):
            ledger.set_drained(NodeId(node), True)
        ledger.set_drained(NodeId("b"), False)
        ledger.set_drained(NodeId("c"), False)
    with Ledger.read(path) as ledger:
        assert ledger.drained() == ["a"]


def test_entries_of_a_job_that_ends_and_goes_on_within_a_batch_are_all_kept(ledger: Ledger) -> None:
    ended, again = JobRecorded(HOUSES, JobState.COMPLETE), JobRecorded(HOUSES, JobState.RUNNING)
    ledger.apply([record(0, State.COMMITTED, scene="new"), ended, again, record(1, State.COMMITTED, scene="new")])
    ledger.apply([record(2, State.COMMITTED, scene="new")])
    assert ledger.history(HOUSES)["new"].settled == (Span(0, 3),)


def test_entries_of_an_unknown_job_are_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no job 'shops'"):
        ledger.apply([record(0, State.COMMITTED), record(0, State.COMMITTED, job=SHOPS)])
    assert ledger.totals(HOUSES).committed == 0


# --- episodes ---


def test_what_was_applied_is_there_after_reopening(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.put_job(job_row(HOUSES))
        ledger.apply([record(0, State.COMMITTED, folder="p0", frames=7, size_bytes=9), record(1, State.PENDING, 3)])
        ledger.apply([record(2, State.FAILED, reason="unreachable"), record(5, State.QUARANTINED)])
    with Ledger.open(path) as ledger:
        past = ledger.history(HOUSES)["a"]
    assert past == SceneHistory(SceneCount(1, 1, 1, 7, 9), (Span(0, 1), Span(2, 3), Span(5, 6)), {1: Tried(3, 0)})


def test_a_committed_row_never_changes(ledger: Ledger) -> None:
    ledger.apply([record(0, State.COMMITTED, 1, folder="first"), record(0, State.COMMITTED, 2, folder="second")])
    ledger.apply([record(0, State.PENDING, 3)])
    ledger.apply([record(0, State.QUARANTINED, 3, reason="crash")])
    (piece,) = ledger.committed(HOUSES)
    assert (piece.folder, piece.attempt) == ("first", 1)
    assert ledger.failures(HOUSES) == []


def test_a_batch_is_applied_whole_or_not_at_all(ledger: Ledger) -> None:
    broken = record(1, State.COMMITTED, digest=object(), scene="b")
    for bad in (broken, record(1, State.COMMITTED, size_bytes=1 << 70, scene="b")):
        with pytest.raises(LedgerError):
            ledger.apply([leased(7, Span(0, 1)), record(0, State.COMMITTED, scene="b"), bad])
    assert list(ledger.committed(HOUSES)) == []
    assert ledger.open_leases() == []
    ledger.apply([record(0, State.COMMITTED, scene="b")])
    assert ledger.history(HOUSES)["b"].settled == (Span(0, 1),)


def test_jobs_with_scenes_of_the_same_name_do_not_meet(ledger: Ledger) -> None:
    ledger.put_job(job_row(SHOPS))
    ledger.apply([record(0, State.COMMITTED), record(1, State.FAILED, job=SHOPS), leased(1, Span(1, 2), job=SHOPS)])
    assert ledger.totals(HOUSES) == SceneCount(committed=1)
    assert ledger.totals(SHOPS) == SceneCount(failed=1)
    assert ledger.open_leases(HOUSES) == []
    assert [lease.lease for lease in ledger.open_leases()] == [1]


def test_committed_pieces_come_by_scene_and_index_however_many(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nimbusd.master.ledger.reads._PIECES_AT_ONCE", 3)
    wanted = [(scene, index) for scene in "abc" for index in range(7)]
    shuffled = random.Random(1).sample(wanted, len(wanted))
    ledger.apply(record(index, State.COMMITTED, scene=scene) for scene, index in shuffled)
    assert [(piece.key.scene, piece.key.index) for piece in ledger.committed(HOUSES)] == wanted


def test_a_committed_piece_is_found_by_its_episode(ledger: Ledger) -> None:
    ledger.apply([record(0, State.COMMITTED, 2, folder="p", frames=3, size_bytes=4, digest="d", node="n1")])
    ledger.apply([record(1, State.FAILED)])
    key = EpisodeKey(HOUSES, "a", 0)
    assert ledger.committed_piece(key) == CommittedPiece(key, 2, "p", 3, 4, "d", "n1")
    assert ledger.committed_piece(replace(key, index=1)) is None
    assert ledger.committed_piece(replace(key, scene="b")) is None


# --- leases ---


def test_leases_are_open_until_they_are_closed(path: Path) -> None:
    lease = leased(1 << 40, Span(0, 3), Span(7, 8))
    with Ledger.open(path) as ledger:
        ledger.put_job(job_row(HOUSES))
        ledger.apply([lease, leased(2, Span(3, 4)), leased(3, Span(4, 5)), LeaseClosed(LeaseId(3))])
        ledger.apply([LeaseClosed(LeaseId(2)), LeaseClosed(LeaseId(99))])
    with Ledger.open(path) as ledger:
        assert ledger.open_leases() == ledger.open_leases(HOUSES) == [lease]


def test_the_epoch_grows_by_one_whenever_the_ledger_is_opened_to_write(path: Path) -> None:
    epochs = []
    for _ in range(3):
        with Ledger.open(path) as ledger, Ledger.read(path) as reader:
            epochs.append((ledger.epoch, reader.epoch))
    first = epochs[0][0]
    assert epochs == [(first, first), (first + 1, first + 1), (first + 2, first + 2)]


def test_a_new_ledger_has_no_epoch_of_a_lost_one_so_that_lease_numbers_and_cursors_do_not_come_again(
    tmp_path: Path,
) -> None:
    epochs = set()
    for number in range(3):
        with Ledger.open(tmp_path / f"{number}.sqlite") as ledger:
            epochs.add(ledger.epoch)
    assert len(epochs) == 3


# --- failures ---


def test_failures_are_counted_and_listed_with_their_evidence(ledger: Ledger) -> None:
    crash = record(2, State.QUARANTINED, 3, "b", stage="render", reason="crash", detail="died", evidence="stack")
    ledger.apply([replace(crash, node="n1"), record(0, State.PENDING, 2, reason="hang"), record(9, State.COMMITTED)])
    ledger.apply(record(index, State.FAILED, reason="unreachable") for index in range(3, 6))
    assert ledger.failures(HOUSES) == [
        FailureCount(State.FAILED, "unreachable", 3),
        FailureCount(State.QUARANTINED, "crash", 1),
    ]
    rows = ledger.failure_reports(HOUSES)
    assert [(row.scene, row.index) for row in rows] == [("a", 3), ("a", 4), ("a", 5), ("b", 2)]
    last = rows[-1]
    assert (last.attempt, last.state, last.failure.stage, last.failure.reason) == (3, "quarantined", "render", "crash")
    assert (last.failure.detail, last.failure.evidence, last.node) == ("died", "stack", "n1")
    assert ledger.failure_reports(HOUSES, offset=1, limit=2) == rows[1:3]


def test_reasons_count_attempts_also_those_that_were_made_good(ledger: Ledger) -> None:
    ledger.apply([record(0, State.PENDING, 1, reason="crash"), record(0, State.PENDING, 2, reason="crash")])
    ledger.apply([record(0, State.COMMITTED, 3), record(1, State.FAILED, reason="unreachable")])
    assert ledger.reasons(HOUSES) == {"crash": 2, "unreachable": 1}


def test_long_evidence_is_kept_with_its_beginning_and_end_and_a_note(ledger: Ledger) -> None:
    evidence = "first line\n" + "x" * 100_000 + "\nlast line"
    ledger.apply([record(0, State.QUARANTINED, reason="crash", evidence=evidence, detail="y" * 9_999)])
    (row,) = ledger.failure_reports(HOUSES)
    assert row.failure.evidence.startswith("first line\n")
    assert row.failure.evidence.endswith("\nlast line")
    assert "84021 characters were left out" in row.failure.evidence
    assert len(row.failure.evidence) < bounds.MOST_EVIDENCE + 100
    assert len(row.failure.detail) < bounds.MOST_DETAIL + 100


def test_after_many_failures_for_one_reason_less_evidence_is_kept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_rows, "FULL_EVIDENCE", 3)
    many = [record(index, State.QUARANTINED, reason="crash", evidence="x" * 15_000) for index in range(5)]
    ledger.apply(many[:2])
    ledger.apply(many[2:])
    lengths = [len(row.failure.evidence) for row in ledger.failure_reports(HOUSES)]
    assert lengths[:3] == [15_000] * 3
    assert max(lengths[3:]) < bounds.MOST_DETAIL + 100


def test_evidence_of_bytes_that_are_no_text_is_kept(ledger: Ledger) -> None:
    evidence = b"core \xff\xfe dumped".decode("utf-8", "surrogateescape")
    ledger.apply([record(0, State.QUARANTINED, reason="crash", evidence=evidence)])
    assert ledger.failure_reports(HOUSES)[0].failure.evidence == "core ?? dumped"


def test_quarantined_episodes_get_another_chance_when_asked(ledger: Ledger) -> None:
    ledger.put_job(job_row(SHOPS))
    ledger.apply([record(i, State.QUARANTINED, 3, s, reason="crash") for s, i in (("b", 1), ("a", 4), ("a", 2))])
    ledger.apply([record(0, State.QUARANTINED, 1, job=SHOPS), record(0, State.FAILED)])
    released = ledger.release_quarantined(HOUSES)
    assert released == [("a", 2, Tried(3, 0)), ("a", 4, Tried(3, 0)), ("b", 1, Tried(3, 0))]
    assert ledger.release_quarantined(HOUSES) == []
    assert ledger.totals(HOUSES) == SceneCount(failed=1)
    assert ledger.history(HOUSES)["a"].tried == {2: Tried(3, 0), 4: Tried(3, 0)}
    assert ledger.totals(SHOPS).quarantined == 1


# --- who may open what ---


def test_a_file_that_is_no_ledger_is_refused_with_its_path(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)
    for opening in (Ledger.open, Ledger.read):
        with pytest.raises(LedgerError, match=str(path)):
            opening(path)
    with pytest.raises(LedgerError, match="does not exist"):
        Ledger.read(path.with_name("nothing.sqlite"))
    with pytest.raises(LedgerError, match="No such file or directory"):
        Ledger.open(path.parent / "nowhere" / "ledger.sqlite")


def test_a_newer_schema_is_refused(path: Path) -> None:
    Ledger.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE about SET value = '99' WHERE key = 'schema'")
    db.close()
    for opening in (Ledger.open, Ledger.read):
        with pytest.raises(LedgerError, match=r"schema 99.*newer nimbusd"):
            opening(path)


def test_a_second_writer_is_refused_until_the_first_closes(path: Path) -> None:
    with Ledger.open(path), pytest.raises(LedgerBusy, match="in use by another"):
        Ledger.open(path)
    Ledger.open(path).close()


def test_a_reader_sees_commits_while_the_writer_works_and_cannot_write(ledger: Ledger, path: Path) -> None:
    with Ledger.read(path) as reader:
        ledger.apply([record(0, State.COMMITTED, folder="p")])
        assert reader.totals(HOUSES).committed == 1
        pieces = reader.committed(HOUSES)
        assert next(pieces).folder == "p"
        ledger.apply([record(1, State.COMMITTED)])
        assert reader.totals(HOUSES).committed == 2
        with pytest.raises(LedgerError) as caught:
            reader.apply([record(2, State.COMMITTED)])
    assert caught.value.errno == errno.EROFS


# --- faults of the machine ---


@contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    """A file system of 512 KiB, if this process may mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_until_it_fails(ledger: Ledger) -> tuple[int, LedgerError]:
    """(batches that were acknowledged, the error of the next)."""
    for batch in range(10_000):
        try:
            ledger.apply(record(batch * 50 + i, State.COMMITTED, folder="f" * 80) for i in range(50))
        except LedgerError as error:
            return batch, error
    raise AssertionError("the disk never filled")


def test_a_full_disk_is_told_apart_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        with Ledger.open(disk / "ledger.sqlite") as ledger:
            ledger.put_job(job_row(HOUSES))
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(100_000))
            batches, error = fill_until_it_fails(ledger)
            assert isinstance(error, LedgerFull)
            assert error.errno == errno.ENOSPC
            assert str(error.path) in str(error)
            assert batches > 0
            assert ledger.totals(HOUSES).committed == 50 * batches
            ballast.unlink()
            ledger.apply(record(batches * 50 + i, State.COMMITTED) for i in range(50))
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        with Ledger.open(disk / "ledger.sqlite") as ledger:
            assert ledger.history(HOUSES)["a"].settled == (Span(0, 50 * (batches + 1)),)


_LIMITED = """
import resource, sys
from pathlib import Path
from nimbusd.master.ledger.ledger import Ledger
from tests.support.ledger_writer import job_row
from tests.master.test_ledger import HOUSES, fill_until_it_fails
with Ledger.open(Path(sys.argv[1])) as ledger:
    ledger.put_job(job_row(HOUSES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    batches, error = fill_until_it_fails(ledger)
    assert ledger.totals(HOUSES).committed == 50 * batches
    print(batches, type(error).__name__)
"""


def test_a_file_that_may_not_grow_loses_nothing_that_was_acknowledged(path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", _LIMITED, path], check=True, capture_output=True, text=True)
    batches, error = run.stdout.split()
    assert error in ("LedgerFull", "LedgerError")
    with Ledger.open(path) as ledger:
        assert ledger.history(HOUSES)["a"].settled == (Span(0, 50 * int(batches)),)


@pytest.mark.processes
def test_after_sigkill_at_any_moment_all_that_was_acknowledged_is_there_whole(path: Path) -> None:
    rng = random.Random(os.environ.get("NIMBUSD_TEST_SEED", "1"))
    seen = [kill_once(path, rng) for _ in range(6)]
    assert seen[-1][1] > 0
