"""Memory, file descriptors and threads of every process of a node and its master over many short episodes.

    python -m tests.benchmarks.soak [--episodes 10000] [--embedded] [--workers 1] [--every 1.0] [--bound 100] [--json]

A job of toy components runs on a master and a node, which are processes of their own (`--embedded`: on one
`nimbusctl run`, which is both). Resident memory, open file descriptors and threads are sampled every second. From the
samples after the first 1,000 episodes follows each process's slope in KiB per 1,000 episodes: the median of the slopes
between all pairs of samples (Theil and Sen), which a single step, as the allocator makes them, does not bend. A
compute worker that is replaced on the way is measured from there on as a new one.

Exits with 1 unless every slope is below `--bound` KiB per 1,000 episodes, nobody has more descriptors or threads at
the end than after the first 1,000 episodes (by more than a few), and every episode was made.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from nimbusd.client import ENDED
from nimbusd.job import read_job
from nimbusd.stages.types import Piece
from tests.support.cluster import REPOSITORY, Cluster
from tests.support.toy import ToyWriter
from tests.support.toy_jobs import scenes, write_toy_job

WARM_UP = 1_000
SCENES = 10
SPARE_FDS = 4
"""Descriptors and threads that may be open at the moment of a sample and not at that of another."""
FEWEST_SAMPLES = 10
WATCHDOG, WORKER = "nimbusd.supervisor.watchdog", "nimbusd.compute.worker"


class SoakWriter(ToyWriter):
    """Publishes how many there are: what a dataset takes to write is no part of this."""

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        path = output / "dataset.txt"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(f"{len(pieces)} episodes\n")
        temporary.replace(path)
        return path


class Sample(NamedTuple):
    """A process at one moment, when so many episodes were committed."""

    episodes: int
    rss_kib: int
    fds: int
    threads: int


class System(ABC):
    """The processes that run the job."""

    @abstractmethod
    def committed(self) -> int:
        """Episodes so far."""

    @abstractmethod
    def over(self) -> bool:
        """True once the job has ended, or never will."""

    @abstractmethod
    def daemons(self) -> dict[str, int]:
        """Name → pid of the long-lived processes."""


class Distributed(System):
    """A master and a node."""

    def __init__(self, cluster: Cluster, job: Path, workers: int) -> None:
        self._node, self._master = cluster.start_node("w1", workers=workers), cluster.master
        self._client = cluster.client()
        self._job = read_job(job)
        self._client.submit(self._job)

    def committed(self) -> int:
        return self._client.job(self._job.name).summary.committed

    def over(self) -> bool:
        return self._client.job(self._job.name).summary.state in ENDED

    def daemons(self) -> dict[str, int]:
        return {"master": self._master.pid, "node daemon": self._node.pid}


class Embedded(System):
    """One `nimbusctl run`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._committed = 0
        self._ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)["event"]
            self._committed += event == "episode_committed"
            if event == "job_ended":
                self._ended.set()
        self._ended.set()

    def committed(self) -> int:
        return self._committed

    def over(self) -> bool:
        return self._ended.is_set()

    def daemons(self) -> dict[str, int]:
        return {"nimbusctl run": self._process.pid}


@contextmanager
def distributed(folder: Path, job: Path, workers: int) -> Iterator[System]:
    with Cluster(folder, heartbeat_s=1.0, dead_after_s=30.0, env={"TMPDIR": str(folder)}) as cluster:
        yield Distributed(cluster, job, workers)


@contextmanager
def embedded(folder: Path, job: Path, workers: int) -> Iterator[System]:
    command = [sys.executable, "-m", "nimbusd.cli", "run", str(job), "--json", "--workers", str(workers)]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        yield Embedded(process)
    finally:
        process.kill()
        process.wait()


def write_job(folder: Path, episodes: int) -> Path:
    pipeline = {
        "plan": {"component": "tests.support.toy:ToyPlanner", "args": {"fail_share": 0.1}},
        "store": {"component": "tests.benchmarks.soak:SoakWriter"},
    }
    names = scenes(*(f"s{number}" for number in range(SCENES)))
    values = {"name": "soak", "seed": 1, "scenes": names, "episodes_per_scene": -(-episodes // SCENES)}
    return write_toy_job(folder / "job.yaml", pipeline, **values)


class Samples:
    """Of every process, by name."""

    def __init__(self) -> None:
        self.of: dict[str, list[Sample]] = {}
        self._worker_names: dict[int, str] = {}

    def take(self, system: System) -> None:
        """Look at every process once."""
        episodes = system.committed()
        for name, pid in system.daemons().items():
            self._add(name, psutil.Process(pid), episodes)
            for child in psutil.Process(pid).children():
                with suppress(psutil.NoSuchProcess):
                    command = child.cmdline()
                    if WATCHDOG in command:
                        self._add("watchdog", child, episodes)
                    elif WORKER in command:
                        self._add(self._name_of(child.pid), child, episodes)

    def _name_of(self, pid: int) -> str:
        return self._worker_names.setdefault(pid, f"compute worker {len(self._worker_names) + 1}")

    def _add(self, name: str, process: psutil.Process, episodes: int) -> None:
        with suppress(psutil.NoSuchProcess):
            sample = Sample(episodes, process.memory_info().rss // 1024, process.num_fds(), process.num_threads())
            self.of.setdefault(name, []).append(sample)


@dataclass(frozen=True)
class Course:
    """The growth of a process after the warm-up. first, last: of those samples."""

    process: str
    samples: int
    first_rss_mib: float
    last_rss_mib: float
    slope_kib: float
    fds: tuple[int, int]
    threads: tuple[int, int]
    flat: bool


def course(process: str, samples: list[Sample], bound_kib: float) -> Course | None:
    """None for a process that was not there for long enough."""
    late = [sample for sample in samples if sample.episodes >= WARM_UP]
    if len(late) < FEWEST_SAMPLES:
        return None
    slope = slope_kib(late)
    fds, threads = _ends(late, lambda s: s.fds), _ends(late, lambda s: s.threads)
    flat = slope < bound_kib and fds[1] <= fds[0] + SPARE_FDS and threads[1] <= threads[0] + SPARE_FDS
    first, last = late[0].rss_kib / 1024, late[-1].rss_kib / 1024
    return Course(process, len(late), round(first, 1), round(last, 1), round(slope, 1), fds, threads, flat)


def slope_kib(samples: list[Sample]) -> float:
    """Median of the slopes between all pairs, in KiB per 1,000 episodes."""
    slopes = [
        1000 * (b.rss_kib - a.rss_kib) / (b.episodes - a.episodes)
        for a, b in itertools.combinations(samples, 2)
        if b.episodes > a.episodes
    ]
    return statistics.median(slopes) if slopes else 0.0


def _ends(samples: list[Sample], value: Callable[[Sample], int]) -> tuple[int, int]:
    """The median of the first and of the last few samples."""
    first, last = samples[:FEWEST_SAMPLES], samples[-FEWEST_SAMPLES:]
    return int(statistics.median(map(value, first))), int(statistics.median(map(value, last)))


def measure(episodes: int, every_s: float, system: System) -> tuple[Samples, int, float]:
    """Samples until the job is over, episodes committed, and seconds."""
    samples, began = Samples(), time.monotonic()
    told = 0
    while not system.over():
        with suppress(psutil.NoSuchProcess):
            samples.take(system)
        done = system.committed()
        if done >= told + episodes // 10:
            told = done
            print(f"{done:>7} episodes, {time.monotonic() - began:6.0f} s", file=sys.stderr, flush=True)
        time.sleep(every_s)
    return samples, system.committed(), time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.benchmarks.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--embedded", action="store_true", help="one `nimbusctl run` instead of a master and a node")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between samples")
    parser.add_argument("--bound", type=float, default=100.0, help="KiB per 1,000 episodes that count as flat")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        job = write_job(folder, args.episodes)
        with (embedded if args.embedded else distributed)(folder, job, args.workers) as system:
            samples, committed, took_s = measure(args.episodes, args.every, system)
    found = [course(process, taken, args.bound) for process, taken in samples.of.items()]
    courses = [each for each in found if each is not None]
    whole = committed >= args.episodes
    ok = whole and bool(courses) and all(each.flat for each in courses)
    if args.json:
        rows = [asdict(each) for each in courses]
        print(json.dumps({"episodes": committed, "seconds": round(took_s, 1), "processes": rows, "ok": ok}))
    else:
        print(f"{committed} episodes in {took_s:.0f} s; slopes after the first {WARM_UP}")
        print(f"{'process':<20}{'samples':>8}{'RSS MiB':>16}{'KiB/1,000':>11}{'fds':>11}{'threads':>11}")
        for each in courses:
            rss = f"{each.first_rss_mib:.1f} → {each.last_rss_mib:.1f}"
            fds, threads = "{} → {}".format(*each.fds), "{} → {}".format(*each.threads)
            verdict = "flat" if each.flat else "GROWS"
            print(
                f"{each.process:<20}{each.samples:>8}{rss:>16}{each.slope_kib:>11.1f}{fds:>11}{threads:>11}  {verdict}"
            )
        print("flat" if ok else f"NOT flat, or not all made ({committed} of {args.episodes})")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
