"""Planners and renderers as real processes of their own: the same dataset as fused, whatever hangs or is killed."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from nimbusd.config import ConfigError
from nimbusd.node.folders import FolderPlaces
from tests.processes.test_run_processes import EPISODES, SCENES, dataset, lines, run, start, write_job
from tests.support.slow import quick_first

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dataset that is made where one process plans and renders."""
    folder = tmp_path_factory.mktemp("fused")
    status, _ = run(write_job(folder, mode="fused"), "--workers", "1")
    assert status == 0
    return dataset(folder)


@pytest.mark.parametrize(("mode", "workers"), quick_first([("decoupled", "3"), ("auto", "2"), ("decoupled", "1")], 2))
def test_every_mode_publishes_the_same(tmp_path: Path, fused: str, mode: str, workers: str) -> None:
    status, events = run(write_job(tmp_path, mode=mode), "--workers", workers)
    assert status == 0
    assert dataset(tmp_path) == fused
    timings = [event["timings_s"] for event in events if event["event"] == "episode_committed"]
    assert all({"load", "plan", "render", "store"} <= set(spent) for spent in timings)


@pytest.mark.parametrize("mode", quick_first(["decoupled", "fused"]))
def test_several_writer_threads_store_at_once_and_one_that_hangs_is_seen_beside_the_others(
    tmp_path: Path, fused: str, mode: str
) -> None:
    job = write_job(tmp_path, mode=mode, writers=3)
    changes = ["pipeline.store.component=tests.support.faulty_components:CrowdedWriter"]
    changes += [f"pipeline.store.args.folder={tmp_path / 'crowd'}"]
    status, events = run(job, "--workers", "2", *[part for change in changes for part in ("--set", change)])
    assert status == 0
    assert {event["reason"] for event in events if event["event"] == "attempt_lost"} == {"hang"}
    assert dataset(tmp_path) == fused
    assert (tmp_path / "crowd" / "met").exists(), "two threads of a process stored at the same time"


@pytest.mark.parametrize("kind", quick_first(["segfault", "hang", "exit", "raise"]))
def test_a_renderer_that_fails_loses_nothing_and_plans_nothing_twice(tmp_path: Path, fused: str, kind: str) -> None:
    faulty = {"component": "tests.support.toy:FaultyRenderer", "args": {"kind": kind, "marks": str(tmp_path / "marks")}}
    job = write_job(tmp_path, mode="decoupled")
    job.write_text(
        job.read_text().replace("tests.support.toy:ToyPlanner", "tests.support.faulty_components:CountingPlanner")
    )
    changes = [f"pipeline.render.component={faulty['component']}", f"pipeline.render.args.kind={kind}"]
    changes += [f"pipeline.render.args.marks={tmp_path / 'marks'}", f"pipeline.plan.args.log={tmp_path / 'plans'}"]
    status, events = run(job, "--workers", "3", *[part for change in changes for part in ("--set", change)])
    assert status == 0
    lost = [(event["scene"], event["index"]) for event in events if event["event"] == "attempt_lost"]
    assert lost, "the fault was not injected"
    commits = [(event["scene"], event["index"]) for event in events if event["event"] == "episode_committed"]
    assert len(commits) == len(set(commits)) == SCENES * EPISODES
    assert dataset(tmp_path) == fused
    planned = (tmp_path / "plans").read_text().split()
    assert len(planned) == len(set(planned)), "the plan of a lost attempt was still there"


def test_a_planner_that_hangs_in_c_is_killed_and_its_episode_planned_by_another(tmp_path: Path, fused: str) -> None:
    job = write_job(tmp_path, mode="decoupled")
    changes = ["pipeline.plan.component=tests.support.faulty_components:HangingPlanner"]
    changes += [f"pipeline.plan.args.log={tmp_path / 'plans'}"]
    status, events = run(job, "--workers", "2", *[part for change in changes for part in ("--set", change)])
    assert status == 0
    (lost,) = [event for event in events if event["event"] == "attempt_lost"]
    assert lost["reason"] == "hang"
    assert dataset(tmp_path) == fused


@pytest.mark.parametrize("events_before", quick_first([12, 3, 25]))
def test_a_killed_daemon_takes_planners_and_renderers_along_and_the_next_run_goes_on(
    tmp_path: Path, fused: str, events_before: int
) -> None:
    job = write_job(tmp_path, mode="decoupled")
    process = start(job, "--workers", "3")
    for _ in zip(range(events_before), lines(process), strict=False):
        pass
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not [worker for worker in alive if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    status, _ = run(job, "--workers", "3")
    assert status == 0
    assert dataset(tmp_path) == fused


def test_what_a_killed_process_left_is_removed_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="n") as folder:  # a short path, as sockets need
        _leave_and_remove(Path(folder), monkeypatch)


def _leave_and_remove(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, cache = folder / "runtime", folder / "cache"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime))
    monkeypatch.setenv("CACHE_DIRECTORY", str(cache))
    for parent in (runtime, cache):
        parent.mkdir()
    code = """
import os
from nimbusd.node.folders import FolderPlaces
with FolderPlaces.choose().folders():
    os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -9
    assert len([*runtime.iterdir()]) == 2
    assert len([*cache.iterdir()]) == 2
    with FolderPlaces.choose().folders() as folders:
        ours = {folders.sockets, folders.memory, folders.disk, folders.temporary}
        assert {*runtime.iterdir(), *cache.iterdir()} == ours
    assert not [*runtime.iterdir(), *cache.iterdir()]


def test_a_folder_whose_path_is_too_long_for_sockets_has_the_plans_and_another_has_the_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    with FolderPlaces.choose().folders() as folders:
        assert folders.disk.parent == long
        with socket.socket(socket.AF_UNIX) as ours:
            ours.bind(str(folders.sockets / "node"))
    assert not folders.sockets.exists()


def test_a_node_whose_sockets_can_be_nowhere_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nimbusd.node.folders._SHORT_PATHS", (tmp_path / "missing",))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / ("long" * 25)))
    with pytest.raises(ConfigError, match="Set RUNTIME_DIRECTORY or TMPDIR to a folder with a shorter path"):
        FolderPlaces.choose()
