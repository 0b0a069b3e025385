"""Chaos: the plan of faults, how workers act them out, the bookkeeping, and whole runs with real processes."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.chaos.inspection import Inspection, inspect_job, published_columns, torn_pieces, unreadable
from nimbusd.chaos.lies import BARE_LIES
from nimbusd.chaos.plan import IN_COMPONENTS, FaultsUnknown, Kind, parse_kinds, plan_faults
from nimbusd.chaos.recovery import Hit, Recoveries, WorkDone
from nimbusd.chaos.troubles import Foreign
from nimbusd.chaos.verdict import JobFigures
from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.job import Job, read_job
from nimbusd.makers import faults
from nimbusd.master.intake.adoption import look_at_pieces
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.output.folder import ledger_path
from nimbusd.stages import EpisodeRequest
from tests.benchmarks.chaos import write_job
from tests.benchmarks.peer_faults import CASES, run_case
from tests.support.cluster import REPOSITORY
from tests.support.slow import quick_first, slow

PATIENCE_S = 400.0


# --- the plan ---


@given(st.integers(0, 2**32), st.sets(st.sampled_from(Kind), min_size=1), st.integers(1, 60))
def test_a_plan_is_a_function_of_its_seed_and_has_every_kind_as_often(seed: int, kinds: set[Kind], count: int) -> None:
    among = tuple(kinds)
    plan = list(itertools.islice(plan_faults(seed, among, pause_s=2.0, dead_after_s=3.0), count))
    assert plan == list(itertools.islice(plan_faults(seed, among, pause_s=2.0, dead_after_s=3.0), count))
    assert [fault.number for fault in plan] == list(range(count))
    often = Counter(fault.kind for fault in plan)
    assert max(often.values()) - min(often[kind] for kind in among) <= 1
    for fault in plan:
        assert 0 <= fault.delay_s <= 2.0
        assert 0 <= fault.choice < 1
        assert 0.6 <= fault.length_s <= 6.0
        assert fault.kind not in (Kind.DISK_FULL, Kind.WRITER) or fault.stage == "store"
        assert (fault.stage == "publish") == (fault.kind is Kind.PUBLISHER)


def test_plans_of_other_seeds_differ_and_partitions_are_longer_and_shorter_than_a_node_may_be_silent() -> None:
    one, other = (
        list(itertools.islice(plan_faults(s, tuple(Kind), pause_s=1.0, dead_after_s=3.0), 200)) for s in (1, 2)
    )
    assert one != other
    lengths = [fault.length_s for fault in one if fault.kind is Kind.PARTITION]
    assert min(lengths) < 3.0 < max(lengths)
    assert {fault.cut for fault in one} == {True, False}
    assert {fault.stage for fault in one} == {"load", "plan", "render", "store", "publish"}


def test_kinds_are_named_in_a_list_and_a_wrong_one_is_told_with_the_nearest() -> None:
    assert parse_kinds("crash, hang,crash") == (Kind.CRASH, Kind.HANG)
    assert parse_kinds("all") == tuple(Kind)
    with pytest.raises(FaultsUnknown, match="did you mean partition"):
        parse_kinds("partitoin")
    with pytest.raises(FaultsUnknown, match="name at least one"):
        parse_kinds(",")


# --- how workers act them out ---

ACTOR = """
import sys
from pathlib import Path
from types import SimpleNamespace
from nimbusd.stages.types import Episode, EpisodeRequest
from nimbusd.stages.store.piece import draft_piece
from nimbusd.makers import faults

output = Path(sys.argv[1])
output.mkdir()
episode = Episode(EpisodeRequest("job", "kitchen", 3), output)

def save_data(episode):
    with draft_piece(output, episode.request) as draft:
        for number in range(3):
            draft.add(f"{number}.bin", b"x" * 100)
        return draft.commit(1)

writer = SimpleNamespace(save_data=save_data, beat=lambda: None)
faults.arm({"store": writer}, "cpu:0#1")
print("at work", flush=True)
for _ in range(2):
    try:
        writer.save_data(episode)
        print("stored", flush=True)
    except OSError as error:
        print(error.errno, error.filename, flush=True)
"""


def act(folder: Path, kind: str, after: int = 1) -> subprocess.Popen[str]:
    """A process with one component, and one order for it."""
    faults.place_order(folder, faults.Order(7, kind, "store", after))
    return subprocess.Popen(
        [sys.executable, "-c", ACTOR, str(folder / "output")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), faults.ENVIRON: str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / faults.JOURNAL).read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "status"),
    [("crash", -signal.SIGSEGV), ("oom", -signal.SIGKILL), ("exit", 0), ("writer", -signal.SIGKILL)],
    ids=["crash", "oom", "exit", "writer"],
)
def test_a_worker_dies_in_the_middle_of_its_piece_as_ordered(tmp_path: Path, kind: str, status: int) -> None:
    process = act(tmp_path, kind)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status
    assert out == "at work\n"
    (torn,) = (tmp_path / "output/.pieces").iterdir()
    assert torn.name.endswith(".tmp")
    assert [path.name for path in torn.iterdir() if path.stat().st_size] == ["0.bin"]
    begun, line = journal(tmp_path)
    assert begun["begun"] == ["store"]
    assert (line["fault"], line["kind"], line["pid"], line["worker"]) == (7, kind, process.pid, "cpu:0#1")
    assert faults.orders_waiting(tmp_path) == 0


@pytest.mark.parametrize(("kind", "busy"), [("hang", False), ("spin", True)])
def test_a_worker_hangs_as_ordered_until_it_is_killed(tmp_path: Path, kind: str, busy: bool) -> None:
    with act(tmp_path, kind) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        ends = threading.Event()
        while not (tmp_path / faults.JOURNAL).exists() or len(journal(tmp_path)) < 2:
            assert not ends.wait(0.01)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        assert (psutil.Process(process.pid).status() == psutil.STATUS_RUNNING) == busy
        process.kill()
        assert process.stdout.read() == ""


@pytest.mark.parametrize("after", [0, 2, 99])
def test_a_full_disk_is_the_kernels_error_with_the_files_path_and_leaves_no_draft(tmp_path: Path, after: int) -> None:
    process = act(tmp_path, "disk_full", after)
    out, _ = process.communicate(timeout=PATIENCE_S)
    file = "/dev/full" if after == 99 else str(tmp_path / f"output/.pieces/job__kitchen__000003.1.tmp/{after}.bin")
    assert out.splitlines() == ["at work", f"{errno.ENOSPC} {file}", "stored"]
    assert process.returncode == 0
    assert not any(path.suffix == ".tmp" for path in (tmp_path / "output/.pieces").iterdir())
    _, fault, done = journal(tmp_path)
    assert fault["kind"] == "disk_full"
    assert (done["job"], done["scene"], done["index"]) == ("job", "kitchen", 3)


def test_an_order_is_met_once_however_many_come_for_it(tmp_path: Path) -> None:
    for number in range(20):
        faults.place_order(tmp_path, faults.Order(number, "exit", "plan", 0))
    armed = faults._Armed(tmp_path, "cpu:0#1", ["plan"])
    taken: list[int] = []

    def take() -> None:
        while (order := armed._take("plan")) is not None:
            taken.append(order.number)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(20))


def test_nothing_is_armed_where_no_chaos_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(faults.ENVIRON, raising=False)
    write = os.write
    faults.arm({"plan": object()}, "cpu:0#1")  # which it could not wrap
    assert os.write is write


def test_kinds_that_workers_act_out_are_those_that_the_plan_orders_from_them() -> None:
    assert {kind.value for kind in IN_COMPONENTS} == set(faults.KINDS)


# --- when it was over ---


def episode(scene: str, index: int) -> EpisodeKey:
    return EpisodeKey(JobId("job"), scene, index)


def test_a_fault_is_over_when_a_new_process_of_its_slot_has_stored_what_is_committed_then() -> None:
    recoveries, third = Recoveries(), episode("kitchen", 3)
    recoveries.hit(Hit(0, Kind.HANG, 10.0, "node1", "cpu:0", pid=5))
    recoveries.done(WorkDone("node1", "cpu:0", 5, 10.5, episode("kitchen", 1)))  # by its writer thread, before it died
    recoveries.settled(episode("kitchen", 1), 10.6)
    recoveries.done(WorkDone("node2", "cpu:0", 8, 11.0, episode("kitchen", 2)))
    recoveries.settled(episode("kitchen", 2), 11.1)
    assert recoveries.unfinished == 1
    recoveries.done(WorkDone("node1", "cpu:0", 9, 12.0, third))
    assert recoveries.unfinished == 1
    recoveries.settled(third, 12.5)
    assert recoveries.unfinished == 0
    assert recoveries.took_s == {Kind.HANG: [2.5]}


def test_a_commit_may_be_told_before_the_journal_is_read() -> None:
    recoveries = Recoveries()
    recoveries.hit(Hit(0, Kind.DISK_FULL, 10.0, "node1", "cpu:0"))
    recoveries.settled(episode("a", 0), 11.0)
    recoveries.done(WorkDone("node1", "cpu:0", 5, 10.9, episode("a", 0)))
    assert recoveries.took_s == {Kind.DISK_FULL: [1.0]}


def test_a_planners_fault_is_over_with_the_next_plan_a_masters_with_the_next_commit_a_watchdogs_when_it_is_back() -> (
    None
):
    recoveries = Recoveries()
    recoveries.hit(Hit(0, Kind.CRASH, 10.0, "node1", "cpu:0", pid=5))
    recoveries.done(WorkDone("node1", "cpu:0", 6, 11.0, None))
    recoveries.hit(Hit(1, Kind.MASTER, 20.0))
    recoveries.settled(episode("a", 0), 21.5)
    recoveries.hit(Hit(2, Kind.WATCHDOG, 30.0, "node1"))
    recoveries.done(WorkDone("node1", "cpu:0", 6, 31.0, None))
    assert recoveries.unfinished == 1
    recoveries.back(2, 30.25)
    assert recoveries.took_s == {Kind.CRASH: [1.0], Kind.MASTER: [1.5], Kind.WATCHDOG: [0.25]}
    assert recoveries.hits == {Kind.CRASH: 1, Kind.MASTER: 1, Kind.WATCHDOG: 1}


def test_a_publishers_fault_is_over_when_another_process_has_published() -> None:
    recoveries = Recoveries()
    recoveries.hit(Hit(0, Kind.PUBLISHER, 10.0, slot="publisher", pid=5))
    recoveries.done(WorkDone("", "publisher", 5, 10.5, None))
    recoveries.done(WorkDone("node1", "cpu:0", 6, 10.5, None))
    assert recoveries.unfinished == 1
    recoveries.done(WorkDone("", "publisher", 7, 12.0, None))
    assert recoveries.took_s == {Kind.PUBLISHER: [2.0]}


def test_a_liars_fault_is_over_when_others_made_what_it_lied_about_also_while_it_was_there() -> None:
    recoveries = Recoveries()
    recoveries.settled(episode("a", 1), 9.0)
    recoveries.settled(episode("a", 2), 11.0)
    recoveries.hit(Hit(0, Kind.LIAR, 10.0, episodes=(episode("a", 1), episode("a", 2))))
    recoveries.hit(Hit(1, Kind.LIAR, 10.0, episodes=(episode("a", 3),)))
    recoveries.settled(episode("a", 4), 12.0)
    assert [hit.number for hit in recoveries.open] == [1]
    recoveries.settled(episode("a", 3), 13.0)
    assert recoveries.took_s == {Kind.LIAR: [1.0, 3.0]}


def test_what_a_master_committed_and_told_nobody_before_it_was_killed_is_found_at_the_jobs_end() -> None:
    recoveries = Recoveries()
    recoveries.hit(Hit(0, Kind.HANG, 10.0, "node1", "cpu:0", pid=5))
    recoveries.done(WorkDone("node1", "cpu:0", 6, 11.0, episode("a", 1)))
    recoveries.ended({episode("a", 2)}, 20.0)
    assert [str(hit) for hit in recoveries.open] == ["fault 0, hang of node1 cpu:0"]
    recoveries.ended({episode("a", 1), episode("a", 2)}, 20.0)
    assert recoveries.unfinished == 0


# --- what became of a job ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that is complete, with a dataset."""
    folder = tmp_path_factory.mktemp("finished")
    path = write_job(folder / "job.yaml", episodes=6, scenes=2, seconds=0.0)
    command = [sys.executable, "-m", "nimbusd.cli", "run", str(path), "--workers", "1", "--spares", "0"]
    subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL, timeout=PATIENCE_S)
    return read_job(path)


@pytest.fixture
def job(finished: Job, tmp_path: Path) -> Job:
    """A copy of it that a test may damage."""
    shutil.copytree(finished.output, tmp_path / "out", symlinks=True)
    return read_job(finished.scenes_root / "job.yaml", output=tmp_path / "out")


def inspect(job: Job, commits: dict[EpisodeKey, int] | None = None, **changes: Any) -> Inspection:
    return inspect_job(job, ledger_path(job.output), commits or {}, **changes)


def test_a_job_that_is_complete_is_clean(job: Job) -> None:
    found = inspect(job, {EpisodeKey(JobId(job.name), "scene0", 0): 1}, expected=published_columns(job.output))
    assert found.clean
    assert (found.wanted, found.committed, found.lost) == (6, 6, 0)
    assert torn_pieces(job, ledger_path(job.output), job.output) == unreadable(job.output) == []
    figures = JobFigures()
    figures.add(found, complete=True)
    assert figures.wrong() == {}


def test_episodes_that_are_missing_are_lost(job: Job) -> None:
    import sqlite3

    with sqlite3.connect(ledger_path(job.output)) as ledger:
        ledger.execute(
            "DELETE FROM episode WHERE state = 1 AND scene = 1 AND number = (SELECT MIN(number) FROM episode)"
        )
    found = inspect(job)
    assert (found.lost, found.leftover_pieces, found.clean) == (1, 1, False)
    assert "is not committed" in found.faults[0]  # the dataset has it still
    figures = JobFigures()
    figures.add(found, complete=False)
    assert figures.wrong() == {"lost": 1, "leftover_pieces": 1, "not_complete": 1}


def test_what_was_made_or_told_twice_is_counted(job: Job) -> None:
    piece = min((job.output / ".pieces").iterdir())
    shutil.copytree(piece, piece.with_name(piece.name.rpartition(".")[0] + ".9"))
    found = inspect(job, {EpisodeKey(JobId(job.name), "scene0", 0): 3})
    assert (found.duplicated_on_disk, found.duplicated_in_events, found.leftover_pieces) == (1, 2, 1)
    assert found.duplicated == 3


def test_a_torn_piece_and_a_damaged_dataset_are_found(job: Job) -> None:
    table = next((job.output / "dataset").resolve().rglob("data/*/*.parquet"))
    piece = next((job.output / ".pieces").rglob("*.mp4"))
    piece.unlink()
    found = inspect(job)
    assert found.torn == 1
    assert "is missing" in found.faults[0]
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.unlink()
    table.write_bytes(content)
    assert "differs from its SHA-256" in " ".join(unreadable(job.output))


def test_other_state_columns_than_expected_are_found(job: Job) -> None:
    columns = published_columns(job.output)
    assert not isinstance(columns, dict)
    assert inspect(job, expected=columns.slice(1)).other_state_columns == 1  # type: ignore[union-attr]
    assert inspect(job, expected={"dataset.txt": b""}).other_state_columns == 1


# --- what happens to a job ---


def test_a_foreign_piece_that_was_not_left_alone_is_told(job: Job) -> None:
    kept, lost, changed = (Foreign(job, number) for number in range(3))
    for foreign in (kept, lost, changed):
        foreign.put()
    shutil.rmtree(job.output / ".pieces" / lost.name)
    (job.output / ".pieces" / changed.name / "state.txt").write_text("ours")
    assert kept.take() == []
    assert "was not left alone" in lost.take()[0]
    assert "was changed" in changed.take()[0]
    assert inspect(job).leftover_pieces == 0


@pytest.mark.parametrize("lie", BARE_LIES)
def test_no_lie_of_a_hostile_node_is_taken_for_a_piece_by_a_look_at_what_lies_there(lie: str, job: Job) -> None:
    (job.output.parent / "secret").write_bytes(b"secret")
    request = EpisodeRequest(job.name, "scene0", 99)
    BARE_LIES[lie](job.output, request)
    with Ledger.read(ledger_path(job.output)) as ledger:
        adoption = look_at_pieces(job, job.output, ledger, anyway=False)
    assert adoption.adopted == 0


# --- whole runs ---


def chaos(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nimbusd.cli", "chaos", *map(str, args)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@slow
@pytest.mark.processes
def test_faults_of_every_kind_lose_nothing_and_make_nothing_twice(tmp_path: Path) -> None:
    job = write_job(tmp_path / "storm.yaml", episodes=120)
    options = ["--count", len(Kind), "--seed", "5", "--nodes", "2", "--pause", "0.5", "--compare", "--json"]
    process = chaos(job, *options, "--output", tmp_path / "run")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    verdict = json.loads(out)
    assert verdict["ok"]
    assert verdict["kinds"].keys() == {kind.value for kind in Kind}
    assert all(row["injected"] == 1 for row in verdict["kinds"].values())
    assert verdict["injected"] == verdict["looks"] == verdict["recovered"] == len(Kind)
    assert verdict["not_over"] == []
    assert verdict["episodes_committed"] == verdict["episodes_wanted"] == 120 * verdict["jobs"]
    assert verdict["state_columns_compared"]
    assert verdict["orphaned_compute_workers"] == 0
    assert not (tmp_path / "run").exists(), "what is clean is not kept"


@pytest.mark.processes
def test_an_interrupted_run_leaves_no_process_behind(tmp_path: Path) -> None:
    job = write_job(tmp_path / "storm.yaml", episodes=600)
    process = chaos(job, "--faults", "watchdog", "--nodes", "1", "--output", tmp_path / "run")
    assert process.stderr is not None
    try:
        line = ""
        while not re.search("watchdog of node0: SIGKILL", line):
            line = process.stderr.readline()
            assert line, "it ended before the first fault"
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert "interrupted: the last job is not counted" in out
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    _, left = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert left == []


@pytest.mark.processes
def test_what_cannot_be_run_is_told_before_anything_starts(tmp_path: Path) -> None:
    job = write_job(tmp_path / "storm.yaml", episodes=6)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for args, text in (
        ([job, "--faults", "hang,tornado"], "there is no fault 'tornado'"),
        ([job, "--set", "pipeline.plan.component=Nothing"], "Nothing"),
        ([job, "--output", tmp_path / "full"], "is not empty"),
    ):
        process = chaos(*args)
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2
        assert text in err


@pytest.mark.processes
@pytest.mark.parametrize("case", quick_first(CASES[2:]), ids=lambda case: case.name.replace(" ", "_"))
def test_the_faults_that_cost_the_peer_episodes_cost_none(case: Any, tmp_path: Path) -> None:
    row = run_case(case, tmp_path / "case", 2, [])
    assert row["ok"], row
