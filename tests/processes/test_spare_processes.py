"""Warm spares as real processes: a worker that is killed is replaced by a process that was there before."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nimbusd.client import Client
from nimbusd.compute.spare import import_components
from nimbusd.stages.types import Observation, Sequence
from tests.support.cluster import Cluster, Daemon, comes_to, gate_of, toy_job
from tests.support.slow import slow
from tests.support.toy import GatedRenderer
from tests.support.toy_jobs import TOYS

pytestmark = pytest.mark.processes


class HeavyRenderer(GatedRenderer):
    """Its backend is one that nothing else imports, and another that is not installed."""

    requires = ("wave", "no_such_backend")


class ExitingRenderer(GatedRenderer):
    """Its backend ends the process where it cannot start, as Isaac Sim does."""

    requires = ("exiting_backend",)


class StuckRenderer(GatedRenderer):
    """Its backend never ends importing. It renders without."""

    requires = ("tests.support.deadlocked_import",)


class LeakingRenderer(GatedRenderer):
    """Never gives back what it has rendered."""

    _leak: ClassVar[list[bytes]] = []

    def gen_obs(self, seq: Sequence) -> Observation:
        self._leak.append(os.urandom(8 << 20))
        return super().gen_obs(seq)


def rendered_by(component: str, folder: Path) -> dict[str, Any]:
    """A toy job's pipeline with another renderer of this module."""
    args = {"gate": str(gate_of(folder, "toy")), "scenes": ["c"]}
    return {**TOYS, "render": {"component": f"tests.processes.test_spare_processes:{component}", "args": args}}


def warm_spare(node: Daemon, after: int = 0) -> int:
    """Wait for a warm spare; returns its pid."""
    return int(node.wait_for(r"spare#\d+ is warm, pid \d+", after).rpartition(" ")[2])


def let_it_complete(client: Client, folder: Path) -> None:
    """Open the gate of the toy job, which makes all of its episodes."""
    gate_of(folder, "toy").touch()
    ended = client.wait("toy")
    assert (ended.state, ended.quarantined) == ("complete", 0)


def test_a_killed_workers_slot_is_taken_by_the_spare_and_the_job_completes(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    with Cluster(tmp_path) as cluster, cluster.client() as client:
        node = cluster.start_node("n", workers=1, spares=1)
        client.submit(job)
        comes_to(gate_of(tmp_path, "toy"))
        spare = warm_spare(node)
        (worker,) = [process.pid for process in node.compute_workers() if process.pid != spare]
        mark = node.mark()
        os.kill(worker, signal.SIGKILL)
        node.wait_for(f"worker cpu:0#2 said hello from pid {spare},", mark)
        assert warm_spare(node, mark) != spare  # the next one
        let_it_complete(client, tmp_path)
        assert [line for line in node.said("WorkerUp") if f"pid={spare}," in line]
        assert not node.said("cpu:0#3")
        cluster.stop_nodes()


@slow
def test_a_spare_that_is_killed_is_replaced_and_costs_no_episode(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    with Cluster(tmp_path) as cluster, cluster.client() as client:
        node = cluster.start_node("n", workers=1, spares=1)
        client.submit(job)
        comes_to(gate_of(tmp_path, "toy"))
        spare, mark = warm_spare(node), node.mark()
        os.kill(spare, signal.SIGKILL)
        node.wait_for("spare#1 is gone, status -9", mark)
        assert warm_spare(node, mark) != spare
        let_it_complete(client, tmp_path)
        assert not node.said("WorkerDown")
        cluster.stop_nodes()


@slow
def test_a_spare_that_falls_silent_is_killed_by_the_watchdog_and_costs_no_episode(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    with Cluster(tmp_path) as cluster, cluster.client() as client:
        node = cluster.start_node("n", workers=1, spares=1)
        client.submit(job)
        comes_to(gate_of(tmp_path, "toy"))
        os.kill(warm_spare(node), signal.SIGSTOP)
        node.wait_for("killing worker spare#1: no progress in stage wait for 5 s")
        node.wait_for("spare#1 is gone, status -")
        let_it_complete(client, tmp_path)
        assert not node.said("WorkerDown")
        cluster.stop_nodes()


@slow
def test_a_spare_that_hangs_in_an_import_is_in_nobodys_way(tmp_path: Path) -> None:
    job = toy_job(tmp_path, pipeline=rendered_by("StuckRenderer", tmp_path))
    with Cluster(tmp_path) as cluster, cluster.client() as client:
        node = cluster.start_node("n", workers=1, spares=1)
        client.submit(job)
        comes_to(gate_of(tmp_path, "toy"))
        spare = int(node.wait_for(r"spare#1 said hello from pid \d+").split("from pid ")[1].partition(",")[0])
        (worker,) = [process.pid for process in node.compute_workers() if process.pid != spare]
        mark = node.mark()
        os.kill(worker, signal.SIGKILL)
        node.wait_for("worker cpu:0#2 said hello", mark)
        let_it_complete(client, tmp_path)
        assert spare in [process.pid for process in node.compute_workers()]
        assert not node.said("is warm")
        cluster.stop_nodes()


@slow
def test_a_spare_that_is_warm_for_one_job_never_works_on_another(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster, cluster.client() as client:
        node = cluster.start_node("n", workers=1, spares=1)
        client.submit(toy_job(tmp_path, "one"))
        comes_to(gate_of(tmp_path, "one"))
        spare = warm_spare(node)
        gate_of(tmp_path, "one").touch()
        assert client.wait("one").state == "complete"
        gate_of(tmp_path, "two").touch()
        client.submit(toy_job(tmp_path, "two"))  # for which the slot is cleared, and the spare is at hand
        ended = client.wait("two")
        assert (ended.state, ended.quarantined) == ("complete", 0)
        assert not [line for line in node.said("WorkerUp") if f"pid={spare}," in line]
        assert not node.said("WorkerDown")
        cluster.stop_nodes()


@slow
def test_a_worker_that_leaks_makes_room_between_episodes_and_nothing_is_lost(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "pipeline": rendered_by("LeakingRenderer", tmp_path),
        "scenes": [{"name": "a"}],
        "episodes_per_scene": 30,
        "limits": {"recycle_growth_mb": 24, "attempts": 1},
    }
    with Cluster(tmp_path) as cluster, cluster.client() as client:
        node = cluster.start_node("n", workers=1)
        client.submit(toy_job(tmp_path, **changes))
        ended = client.wait("toy")
        assert (ended.state, ended.committed, ended.quarantined) == ("complete", 30, 0)
        assert len(node.said("makes room for a new one: memory: grown by")) >= 2
        assert not node.said("WorkerDown")
        cluster.stop_nodes()


def test_what_the_components_require_is_imported_and_what_fails_is_left_to_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sys.modules.pop("wave", None)
    with caplog.at_level(logging.WARNING):
        import_components(toy_job(tmp_path, pipeline=rendered_by("HeavyRenderer", tmp_path)))
    assert "wave" in sys.modules
    assert "No module named 'no_such_backend'" in caplog.text


def test_a_module_that_ends_the_process_does_not_end_the_spare(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exiting_backend.py").write_text("import sys\nsys.exit('Unable to bootstrap')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        import_components(toy_job(tmp_path, pipeline=rendered_by("ExitingRenderer", tmp_path)))
    assert "ExitingRenderer is not warm: Unable to bootstrap" in caplog.text


MOVES = """
import ctypes, json, os, resource
import numpy  # whose linear algebra starts threads now
from nimbusd.transport.messages.worker import TakePlace
from nimbusd.compute import spare
threads = lambda: [int(thread) for thread in os.listdir("/proc/self/task")]
everywhere = lambda ask: sorted({ask(thread) for thread in threads()})
priority = spare.Priority()
priority.lower()
lowered = everywhere(lambda thread: os.getpriority(os.PRIO_PROCESS, thread))
priority.restore()
core = max(os.sched_getaffinity(0))
spare.move_to(TakePlace("gpu:0.0#2", "cuda:0", (core,), {"CUDA_VISIBLE_DEVICES": "GPU-aaaa"}))
def blas_threads():
    for path in spare._loaded(["openblas"]):
        library = ctypes.CDLL(path)
        for name in ("openblas_get_num_threads", "openblas_get_num_threads64_", "scipy_openblas_get_num_threads64_"):
            if hasattr(library, name):
                return getattr(library, name)()
print(json.dumps({
    "lowered": lowered,
    "raised": everywhere(lambda thread: os.getpriority(os.PRIO_PROCESS, thread)),
    "cores": everywhere(lambda thread: tuple(os.sched_getaffinity(thread))),
    "core": core,
    "threads": len(threads()),
    "blas": blas_threads(),
    "gpu": os.environ["CUDA_VISIBLE_DEVICES"],
}))
"""


def test_a_spare_moves_to_its_slot_with_all_its_threads() -> None:
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", MOVES], env=env, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert found["raised"] == [own]
    assert found["lowered"] in ([min(19, own + 10)], [own])  # not where it could not be raised again
    assert found["cores"] == [[found["core"]]]
    assert found["blas"] == 1
    assert found["gpu"] == "GPU-aaaa"
