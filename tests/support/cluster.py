"""A cluster of real processes for tests, and toy jobs for it. The cluster itself is that of `nimbusctl chaos`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from nimbusd.chaos.cluster import ProcessCluster
from nimbusd.chaos.processes import PATIENCE_S, Daemon
from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.job import Job, read_job
from nimbusd.master.ledger.ledger import Ledger
from tests.support.toy_jobs import write_toy_job

__all__ = [
    "PATIENCE_S",
    "REPOSITORY",
    "Cluster",
    "Daemon",
    "come_to_their_end",
    "comes_to",
    "gate_of",
    "pieces_of",
    "toy_job",
]

REPOSITORY = Path(__file__).parents[2]


class Cluster(ProcessCluster):
    """A master and nodes; leaving the context kills all of them."""

    def join_node(self, name: str, token: str, state: Path | None = None) -> Daemon:
        """Start a node by a token. state: its folder, if that is not the one of its name."""
        options = ["--state", str(state or self.folder / name), "--name", name, "--workers", "1", "--join", token]
        self.nodes[name] = self._start("worker", options, {}, name)
        return self.nodes[name]

    def nimbusctl(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `nimbusctl` against the master."""
        return subprocess.run(
            [sys.executable, "-m", "nimbusd.cli", *args, "--master", self.address, "--timeout", str(PATIENCE_S)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"},
            timeout=2 * PATIENCE_S,
        )

    def committed(self, job: str) -> list[EpisodeKey]:
        """Committed episodes as the ledger has them."""
        with Ledger.read(self.state / "ledger.sqlite") as ledger:
            return [piece.key for piece in ledger.committed(JobId(job))]


def pieces_of(output: Path) -> list[str]:
    """The contents of the folder of pieces, drafts included."""
    return sorted(path.name for path in (output / ".pieces").iterdir())


def toy_job(folder: Path, name: str = "toy", pipeline: dict[str, Any] | None = None, **changes: Any) -> Job:
    """A job of toy components: 3 scenes of 4 episodes, a third of the plans fail. One of scene c waits at a gate.

    The gate is the file `<folder>/<name>.gate`: see `tests.support.toy.GatedRenderer`.
    """
    gate = {"gate": str(gate_of(folder, name)), "scenes": ["c"]}
    pipeline = {
        "plan": {"component": "tests.support.toy:ToyPlanner", "args": {"fail_share": 0.3}},
        "render": {"component": "tests.support.toy:GatedRenderer", "args": gate},
        **(pipeline or {}),
    }
    values = {"name": name, "output": str(folder / name), "limits": {"beat_timeout_s": 20.0}, **changes}
    return read_job(write_toy_job(folder / f"{name}.yaml", pipeline, **values))


def gate_of(folder: Path, name: str) -> Path:
    """The file that opens the gate of a toy job."""
    return folder / f"{name}.gate"


def come_to_their_end(pids: Iterable[int]) -> None:
    """Wait until none of these processes is alive: one that was killed goes on until its signal reaches it."""
    for pid in pids:
        ends = time.monotonic() + PATIENCE_S
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                assert time.monotonic() < ends, f"{psutil.Process(pid)} was left running"
                time.sleep(0.01)


def comes_to(gate: Path) -> int:
    """Wait for the first compute worker at a gate; returns the pid of its node's daemon."""
    ends = time.monotonic() + PATIENCE_S
    while not (taken := gate.with_suffix(".taken")).exists():
        assert time.monotonic() < ends, f"nobody comes to {gate}"
        time.sleep(0.01)
    return int(taken.read_text().split()[0])
