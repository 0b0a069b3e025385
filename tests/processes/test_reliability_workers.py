"""Compute workers that fail in every way, as real processes in whole nodes: nothing is lost, doubled or left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import PATIENCE_S, Cluster, come_to_their_end, toy_job
from tests.support.slow import quick_first
from tests.support.toy_jobs import TOYS, write_toy_job

pytestmark = pytest.mark.processes

SCENES, EPISODES = "abc", 4


def run(folder: Path, *, workers: int = 2, limits: dict[str, Any] | None = None, **stages: Any) -> Run:
    """A whole `nimbusctl run` of toy components, but for some stages."""
    path = write_toy_job(folder / "job.yaml", stages, limits={"beat_timeout_s": 1.0, **(limits or {})})
    done = subprocess.run(
        [sys.executable, "-m", "nimbusd.cli", "run", str(path), "--json", "--spares", "0", "--workers", str(workers)],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_S,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode in (0, 1), done.stderr
    return Run(folder, done.returncode, [json.loads(line) for line in done.stdout.splitlines()])


class Run:
    """The result of a run: its exit status and events."""

    def __init__(self, folder: Path, status: int, events: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.status = status
        self._events = events

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self._events if event["event"] == name]

    @property
    def commits(self) -> list[tuple[str, int]]:
        return sorted((event["scene"], event["index"]) for event in self.events("episode_committed"))

    @property
    def dataset(self) -> str:
        return (self.folder / "out" / "dataset.txt").read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run(tmp_path_factory.mktemp("undisturbed"), workers=1).dataset


REASONS = {
    "children": "exit",
    "oom_kill": "crash",
    "stop": "hang",
    "spin": "hang",
    "import": "hang",
    "memory": "memory_error",
    "orphans": "exit",
}


@pytest.mark.parametrize("kind", quick_first(REASONS, 2))
def test_an_episode_whose_worker_fails_in_any_way_is_made_by_the_next_one(
    tmp_path: Path, undisturbed: str, kind: str
) -> None:
    marks = tmp_path / "marks"
    renderer = {
        "component": "tests.support.faulty_components:WorseRenderer",
        "args": {"kind": kind, "marks": str(marks)},
    }
    ended = run(tmp_path, render=renderer)
    assert ended.status == 0
    assert REASONS[kind] in {event["reason"] for event in ended.events("attempt_lost")}
    assert len(ended.commits) == len(set(ended.commits)) == len(SCENES) * EPISODES
    assert ended.dataset == undisturbed
    assert len(list((tmp_path / "out" / ".pieces").iterdir())) == len(SCENES) * EPISODES, "garbage was left behind"
    if kind in ("children", "orphans"):
        come_to_their_end(int(pid) for pid in (marks / "children").read_text().split())
    if kind in ("spin", "import"):
        (down,) = ended.events("worker_down")
        assert {"spin": "in _fail", "import": "deadlocked_import.py"}[kind] in down["evidence"]


def test_a_worker_that_stops_while_it_opens_is_replaced_within_the_limit_of_its_job(
    tmp_path: Path, undisturbed: str
) -> None:
    args = {"kind": "stop", "marks": str(tmp_path / "marks"), "states": []}
    renderer = {"component": "tests.support.faulty_components:StoppedRenderer", "args": args}
    ended = run(tmp_path, workers=1, render=renderer, limits={"open_timeout_s": 3.0})
    assert ended.dataset == undisturbed
    assert "in stage open for 3 s" in ended.events("worker_down")[0]["detail"]
    assert not ended.events("attempt_lost")


def test_a_poison_scene_is_set_aside_and_the_rest_of_the_job_is_made(tmp_path: Path) -> None:
    loader = {"component": "tests.support.faulty_components:PoisonedLoader", "args": {"scene": "b"}}
    ended = run(tmp_path, load=loader, limits={"attempts": 2})
    assert ended.status == 1
    assert ended.commits == [(scene, index) for scene in "ac" for index in range(EPISODES)]
    (end,) = ended.events("job_ended")
    assert (end["status"], end["quarantined"]) == ("incomplete", EPISODES)
    lost = Counter((event["scene"], event["index"]) for event in ended.events("attempt_lost"))
    assert [lost["b", index] for index in range(EPISODES)] == [2] * EPISODES
    assert all(times == 1 for (scene, _), times in lost.items() if scene != "b"), "an innocent was blamed twice"


def test_a_wall_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    """In every process, half a day back or forth at every reading."""
    clock = tmp_path / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(
        "import itertools, os, time\n"
        "_real, _jumps = time.time, itertools.cycle((-43200.0, 43200.0))\n"
        "time.time = lambda: _real() + next(_jumps)\n"
        "time.time_ns = lambda: int(time.time() * 1e9)\n"
        f"open({str(clock)!r} + '/' + str(os.getpid()), 'w').close()\n"
    )
    job = toy_job(tmp_path, pipeline=TOYS)
    with Cluster(tmp_path, env={"PYTHONPATH": str(clock)}) as cluster:
        node = cluster.start_node("w1", workers=2)
        client = cluster.client()
        client.submit(job)
        summary = client.wait(job.name, PATIENCE_S)
        assert (summary.state, summary.committed) == ("complete", len(SCENES) * EPISODES)
        assert not list(client.failures(job.name))
        pids = {node.pid, cluster.master.pid, *(worker.pid for worker in node.compute_workers())}
        assert pids <= {int(path.name) for path in clock.iterdir() if path.name.isdigit()}, "their clocks did not jump"
        assert not node.said("killing worker")
        assert not cluster.master.said("pending again")
        cluster.stop_nodes()
