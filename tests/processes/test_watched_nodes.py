"""Whole nodes under their watchdog: episodes, slots and workers when a worker, the watchdog or the daemon fails."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nimbusd.job import Job
from nimbusd.stages.types import Episode, Observation, Piece, Sequence
from nimbusd.supervisor.page import FIRST_WORKER
from nimbusd.supervisor.watchdog import stack_path
from tests.support.cluster import Cluster, gate_of, toy_job
from tests.support.slow import slow
from tests.support.toy import ToyWriter
from tests.support.toy_jobs import TOYS, scenes
from tests.support.watched_workers import PATIENCE_S, gone

pytestmark = pytest.mark.processes

SHORT_S = 1.0


class SlowWriter(ToyWriter):
    """Takes twice the job's beat timeout for an episode, and beats."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        ends = time.monotonic() + 2 * SHORT_S
        while time.monotonic() < ends:
            self.beat()
            time.sleep(0.01)
        return super().save_data(seq, obs, episode)


def small_job(folder: Path, attempts: int = 3, **replaced: dict[str, Any]) -> Job:
    """Three episodes of one scene, with a short beat timeout. replaced: stages other than the toys."""
    limits = {"beat_timeout_s": SHORT_S, "attempts": attempts}
    return toy_job(folder, pipeline={**TOYS, **replaced}, scenes=scenes("a"), episodes_per_scene=3, limits=limits)


def test_the_failure_of_a_hung_episode_carries_the_stack_to_the_master(tmp_path: Path) -> None:
    faults = {"kind": "hang", "marks": str(tmp_path / "marks"), "states": [0]}
    job = small_job(tmp_path, 1, render={"component": "tests.support.toy:FaultyRenderer", "args": faults})
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1")
        client = cluster.client()
        client.submit(job)
        client.wait(job.name, PATIENCE_S)
        (failure,) = client.failures(job.name)
        assert (failure.state, failure.failure.stage, failure.failure.reason) == ("quarantined", "render", "hang")
        assert failure.failure.detail == "killed: no progress in stage render for 1 s"
        assert "in _fail" in failure.failure.evidence
        assert node.said("killing worker cpu:0#1: no progress in stage render for 1 s")
        cluster.stop_nodes()


@slow
def test_a_slow_writer_that_beats_lives_and_so_do_those_who_wait_for_it(tmp_path: Path) -> None:
    job = small_job(tmp_path, store={"component": "tests.processes.test_watched_nodes:SlowWriter"})
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1")
        client = cluster.client()
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        assert not node.said("killing worker")
        cluster.stop_nodes()


@slow
def test_a_worker_that_is_stopped_while_it_waits_for_work_is_replaced(tmp_path: Path) -> None:
    job = small_job(tmp_path)
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1")
        client = cluster.client()
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        node.compute_workers()[0].suspend()
        node.wait_for("killing worker cpu:0#1: no progress in stage wait for 1 s")
        node.wait_for("worker cpu:0#2 said hello")
        cluster.stop_nodes()


def test_a_node_whose_watchdog_is_killed_loses_no_worker_and_no_episode(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1", workers=2)
        client = cluster.client()
        client.submit(job)
        node.wait_for(r"scene='c', index=\d+, attempt=1, stage='render'")  # the first of them waits at the gate
        workers = {worker.pid for worker in node.compute_workers()}
        (watchdog,) = node.watchdogs()
        mark = node.mark()
        watchdog.kill()
        node.wait_for("the watchdog runs as pid", after=mark)
        assert {worker.pid for worker in node.compute_workers()} == workers
        gate_of(tmp_path, job.name).touch()
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        assert not node.said("WorkerDown")
        cluster.stop_nodes()


def test_a_node_that_is_killed_leaves_neither_workers_nor_a_watchdog_nor_what_workers_started(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, sys
from pathlib import Path
from tests.support.watched_workers import SPAWN, start
from nimbusd.supervisor.watch import WorkerWatch
async def main():
    watch = WorkerWatch(Path({str(tmp_path)!r}), 1, lambda *_: None, lambda pid: print(pid, flush=True))
    running = asyncio.create_task(watch.run())
    _, process = await start(watch, SPAWN + "line.work.rest()\\nprint('spawned', flush=True)\\ntime.sleep(1000)")
    reading = asyncio.create_task(process.wait())
    print(process.pid, flush=True)
    while "spawned" not in process.output():
        await asyncio.sleep(0.01)
    print("spawned", flush=True)
    await asyncio.gather(running, reading)
asyncio.run(main())
"""
    node = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    said = [node.stdout.readline().strip() for _ in range(3)]
    watched = [int(line) for line in said if line != "spawned"]
    children = Path(stack_path(str(tmp_path), FIRST_WORKER) + ".children")
    node.kill()
    node.communicate()
    for pid in [*watched, *map(int, children.read_text().split())]:
        gone(pid)
