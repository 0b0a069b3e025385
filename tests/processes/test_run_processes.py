"""Whole runs with real processes: hangs, crashes, interruptions and SIGKILL of anything at any moment."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.job import read_job
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.output.folder import ledger_path
from tests.support.slow import quick_first
from tests.support.toy_jobs import write_toy_job

pytestmark = pytest.mark.processes

SCENES, EPISODES = 3, 4
JOB = JobId("toy")


def write_job(folder: Path, pipeline: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A job of toy components: 3 scenes of 4 episodes, a third of the plans fail."""
    pipeline = {
        "plan": {"component": "tests.support.toy:ToyPlanner", "args": {"fail_share": 0.3}},
        **(pipeline or {}),
    }
    return write_toy_job(folder / "job.yaml", pipeline, **{"limits": {"beat_timeout_s": 1.0}, **changes})


def start(job: Path, *args: str) -> subprocess.Popen[str]:
    """`nimbusctl run` in a process of its own, telling JSON events."""
    repository = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-m", "nimbusd.cli", "run", str(job), "--json", "--spares", "0", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )


def run(job: Path, *args: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and events of a whole run."""
    process = start(job, *args)
    out, err = process.communicate(timeout=120)
    assert process.returncode in (0, 1, 130), err
    return process.returncode, [json.loads(line) for line in out.splitlines()]


def committed(folder: Path) -> set[EpisodeKey]:
    ledger = Ledger.read(ledger_path(folder / "out"))
    try:
        return {piece.key for piece in ledger.committed(JOB)}
    finally:
        ledger.close()


def dataset(folder: Path) -> str:
    return (folder / "out" / "dataset.txt").read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dataset of a run that nothing disturbs, with one worker."""
    folder = tmp_path_factory.mktemp("undisturbed")
    status, events = run(write_job(folder), "--workers", "1")
    assert status == 0
    assert events[-1]["status"] == "complete"
    assert events[-1]["committed"] == SCENES * EPISODES
    return dataset(folder)


def test_two_workers_publish_what_one_publishes(tmp_path: Path, undisturbed: str) -> None:
    status, _ = run(write_job(tmp_path), "--workers", "2")
    assert status == 0
    assert dataset(tmp_path) == undisturbed


def test_a_second_run_makes_nothing_again(tmp_path: Path, undisturbed: str) -> None:
    job = write_job(tmp_path)
    run(job)
    status, events = run(job)
    assert status == 0
    assert [e["event"] for e in events] == ["job_started", "published", "job_ended"]
    assert dataset(tmp_path) == undisturbed


@pytest.mark.parametrize("kind", quick_first(["hang", "segfault", "exit", "raise"], 2))
def test_a_renderer_that_fails_loses_nothing_and_doubles_nothing(tmp_path: Path, undisturbed: str, kind: str) -> None:
    job = write_job(tmp_path)
    faulty = [f"pipeline.render.args.kind={kind}", f"pipeline.render.args.marks={tmp_path / 'marks'}"]
    changes = ["pipeline.render.component=tests.support.toy:FaultyRenderer", *faulty]
    args = [part for change in changes for part in ("--set", change)]
    status, events = run(job, "--workers", "2", *args)
    assert status == 0
    assert any(e["event"] == "attempt_lost" for e in events), "the fault was not injected"
    commits = [(e["scene"], e["index"]) for e in events if e["event"] == "episode_committed"]
    assert len(commits) == len(set(commits)) == SCENES * EPISODES
    assert dataset(tmp_path) == undisturbed


def test_a_worker_killed_for_a_hang_leaves_a_reason_and_its_stderr(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    changes = ["pipeline.render.component=tests.support.toy:FaultyRenderer", "pipeline.render.args.kind=segfault"]
    changes += [f"pipeline.render.args.marks={tmp_path / 'marks'}"]
    _, events = run(job, "--workers", "1", *[part for change in changes for part in ("--set", change)])
    (down,) = [e for e in events if e["event"] == "worker_down"]
    assert down["reason"] == "crash"
    assert "Segmentation fault" in down["evidence"]


def test_a_renderer_that_always_fails_ends_in_quarantine_and_status_1(tmp_path: Path) -> None:
    job = write_job(tmp_path, scenes=[{"name": "a"}], episodes_per_scene=1, exact=False)
    changes = ["pipeline.render.component=tests.support.toy:FaultyRenderer", "pipeline.render.args.kind=segfault"]
    changes += [f"pipeline.render.args.marks={tmp_path / 'marks'}", "pipeline.render.args.always=true"]
    changes += ["pipeline.plan.args.fail_share=0"]
    status, events = run(job, "--workers", "1", *[part for change in changes for part in ("--set", change)])
    assert status == 1
    assert events[-1]["status"] == "incomplete"
    assert events[-1]["quarantined"] == 1
    assert [e["quarantined"] for e in events if e["event"] == "attempt_lost"] == [False, False, True]


def test_an_output_in_use_is_refused(tmp_path: Path) -> None:
    job = write_job(tmp_path, episodes_per_scene=50)
    first = start(job)
    try:
        wait_for_event(first, "episode_committed")
        second = start(job)
        _, err = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"pid {first.pid}" in err
    finally:
        first.kill()
        first.communicate()


def test_an_interrupted_run_finishes_what_it_began_and_goes_on_later(tmp_path: Path, undisturbed: str) -> None:
    job = write_job(tmp_path)
    process = start(job, "--workers", "1")
    wait_for_event(process, "episode_committed")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    events = [json.loads(line) for line in out.splitlines()]
    assert process.returncode in (0, 130), err  # 0 if the last episode had begun when the signal came
    assert not any(e["event"] == "worker_down" for e in events)
    status, _ = run(job)
    assert status == 0
    assert dataset(tmp_path) == undisturbed


@pytest.mark.parametrize("seed", quick_first(range(4)))
def test_sigkill_of_any_process_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, undisturbed: str, seed: int
) -> None:
    """Kill the daemon or one of its workers after a random number of events, then run the same command again."""
    job = write_job(tmp_path)
    rng = random.Random(seed)
    process = start(job, "--workers", "2")
    for _ in zip(range(rng.randrange(1, 60)), lines(process), strict=False):
        pass
    parent = psutil.Process(process.pid)
    workers = parent.children() if parent.is_running() else []
    victims = [parent] if seed % 2 else [rng.choice(workers)] if workers else []
    for victim in victims:
        victim.kill()
    process.communicate(timeout=60)
    psutil.wait_procs(workers, timeout=60)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    before = committed(tmp_path) if ledger_path(tmp_path / "out").exists() else set()
    status, events = run(job)
    assert status == 0
    again = {EpisodeKey(JOB, e["scene"], e["index"]) for e in events if e["event"] == "episode_committed"}
    assert not before & again, "a committed episode was made again"
    assert len(committed(tmp_path)) == SCENES * EPISODES
    assert dataset(tmp_path) == undisturbed
    folders = {path.name for path in (tmp_path / "out" / ".pieces").iterdir()}
    assert len(folders) == SCENES * EPISODES, "garbage was left behind"


def lines(process: subprocess.Popen[str], timeout_s: float = 60.0) -> Iterator[str]:
    """The process's lines as they come; ends with the stream, fails after timeout_s without one."""
    assert process.stdout is not None
    while True:
        ready, _, _ = select.select([process.stdout], [], [], timeout_s)
        assert ready, "the run fell silent"
        line = process.stdout.readline()
        if not line:
            return
        yield line


def wait_for_event(process: subprocess.Popen[str], name: str) -> None:
    """Read events up to the first one called `name`."""
    deadline = time.monotonic() + 60
    for line in lines(process):
        if json.loads(line)["event"] == name:
            return
        assert time.monotonic() < deadline
    pytest.fail(f"the run ended without {name}")


def test_an_episode_is_stored_with_the_fingerprint_of_its_job(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    _, events = run(job, "--workers", "1", "--set", "pipeline.store.component=tests.support.toy:ContextWriter")
    assert events[-1]["status"] == "complete"
    whole = read_job(job, overrides=["pipeline.store.component=tests.support.toy:ContextWriter"])
    told = {json.loads(line)["fingerprint"] for line in dataset(tmp_path).split("\n\n")}
    assert told == {whole.fingerprint()}
