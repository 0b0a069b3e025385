"""Tasks a second through the master, against Ray and Dask, and what a task costs the master with more nodes.

    python -m tests.benchmarks.dispatch [--tasks 20000] [--workers 2 4 8] [--rounds 3] [--task-ms 0] [--json]

A task does nothing (or keeps a core busy for `--task-ms`). Two lines are ours, and both have a real master in a
process of its own, which looks at every piece and has every completion in the ledger (SQLite, synced) before it
counts:

- `nimbusd`: a real node with a real compute worker for each of Ray's worker processes. A task is an episode: loaded,
  planned, rendered and stored as a piece on disk, synced. Counted is the part of the job after the first tenth, when
  the compute workers have opened it.
- `nimbusd's master`: as many nodes of one slot as there are workers, played by one scripted process, which speaks the
  protocol and stores empty pieces. This is the line to compare with other schedulers' dispatch, and the one that says
  whether a task costs the master more with more nodes. It is measured for tasks that do nothing.

Ray runs the tasks as remote functions and in a pool of actors, Dask as futures; both keep results in memory alone.
Time is from the submission (ours: from the first completion) to the last completion; processes are started before. All
systems take turns in every round, in another order each time; the table has medians, and in brackets the slowest and
the fastest round. `master µs` is processor time of the master's process for a task, which other load on the machine
changes little, and `growth` its ratio to that with the fewest nodes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from nimbusd.client import Client
from nimbusd.core.ids import JobId
from nimbusd.master.ledger.ledger import Ledger
from tests.benchmarks.dispatch_components import spin

NODE, MASTER = "nimbusd", "nimbusd's master"
SCENES = 8
FEWER = 10
"""Systems that do less a second get this part of the tasks: one in ten."""
POLL_S = 0.01


@dataclass(frozen=True)
class Sample:
    """One system in one round. master_us: processor time of the master for a task, in microseconds."""

    tasks_per_s: float
    master_us: float | None = None


Measure: TypeAlias = Callable[[], Sample]


@dataclass(frozen=True)
class Row:
    """Medians over the rounds. slowest, fastest: tasks a second in those rounds."""

    system: str
    workers: int
    task_ms: float
    tasks_per_s: float
    slowest: float
    fastest: float
    master_us: float | None = None


class TookTooLong(RuntimeError):
    """A system did not come to its end within the limit."""


# --- ours ---


class Nimbus:
    """A master and nodes as processes, made anew for each measurement: our jobs leave a ledger behind."""

    def __init__(self, folder: Path, workers: int, task_s: float, limit_s: float) -> None:
        self._folder = folder
        self._workers = workers
        self._task_s = task_s
        self._limit_s = limit_s

    def real_node(self, tasks: int) -> Sample:
        """One node with a compute worker in each of its slots."""
        options = ["--name", "n0", "--workers", str(self._workers), "--spares", "0"]
        command = [sys.executable, "-m", "nimbusd", "worker", *options]
        return self._measure(
            tasks, 1, tasks // 10, lambda address, folder: [*command, "--state", folder, "--master", address]
        )

    def scripted_nodes(self, tasks: int) -> Sample:
        """Scripted nodes of one slot, one for each worker, which make nothing."""
        command = [sys.executable, "-m", "tests.benchmarks.dispatch_peers"]
        return self._measure(tasks, self._workers, 1, lambda address, _: [*command, address, str(self._workers)])

    def _measure(self, tasks: int, nodes: int, warm: int, command: Callable[[str, str], Sequence[str]]) -> Sample:
        """Have a job made by what `command` starts for an address and a state folder.

        warm: tasks that are committed before the measurement begins.
        """
        # Kept until all is measured: removing thousands of pieces keeps the disk busy beneath the next measurement.
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        with contextlib.ExitStack() as stack:
            address, pid = stack.enter_context(master_process(folder))
            log = stack.enter_context((folder / "node.log").open("w"))
            node = subprocess.Popen(
                command(address, str(folder / "n0")),
                stdin=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            )
            stack.callback(_end, node)
            with Client.connect(address, timeout_s=self._limit_s) as client:
                self._wait(lambda: len(client.nodes()) == nodes, f"{nodes} nodes to come")
                client.submit(toy_job("job", folder / "out", tasks, task_s=self._task_s))
            master = psutil.Process(pid)
            # Asking the master would cost it as much as some tasks do, and its ledger is what counts.
            ledger = stack.enter_context(Ledger.read(folder / "ledger.sqlite"))
            self._wait(lambda: self._committed(ledger) >= warm, f"the first {warm} of {tasks} tasks")
            first = self._committed(ledger)
            began, before = time.perf_counter(), master.cpu_times()
            self._wait(lambda: self._committed(ledger) == tasks, f"{tasks} tasks")
            seconds, after = time.perf_counter() - began, master.cpu_times()
        spent_s = after.user + after.system - before.user - before.system
        return Sample((tasks - first) / seconds, 1e6 * spent_s / (tasks - first))

    @staticmethod
    def _committed(ledger: Ledger) -> int:
        return ledger.totals(JobId("job")).committed

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + self._limit_s
        while not done():
            if time.monotonic() > ends:
                raise TookTooLong(f"waited {self._limit_s:g} s for {what}; give more by --limit-s, or fewer --tasks")
            time.sleep(POLL_S)


@contextlib.contextmanager
def master_process(folder: Path) -> Iterator[tuple[str, int]]:
    """A master process; its address and pid."""
    log = folder / "master.log"
    with log.open("w") as stderr:
        master = subprocess.Popen(
            [sys.executable, "-m", "nimbusd", "master", "--state", str(folder), "--bind", f"ipc://{folder}/socket"],
            stderr=stderr,
        )
    try:
        while "listening on" not in (said := log.read_text()) or not said.endswith("\n"):
            if master.poll() is not None:
                raise RuntimeError(f"the master did not start: {said}")
            time.sleep(0.02)
        yield said.split("listening on ")[1].split(";")[0].strip(), master.pid
    finally:
        master.kill()
        master.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    """A node's compute workers die with it."""
    process.kill()
    process.communicate()


def toy_job(name: str, output: Path, tasks: int, *, task_s: float = 0.0) -> dict[str, Any]:
    """A job as a client submits it, of components that do nothing, or keep a core busy for `task_s`.

    tasks: a multiple of SCENES.
    """
    components = {"load": "EmptyLoader", "plan": "StillPlanner", "render": "BlindRenderer", "store": "BareWriter"}
    args: dict[str, dict[str, Any]] = {"plan": {"spin_s": task_s}}
    return {
        "name": name,
        "seed": 0,
        "output": str(output),
        "scenes_root": "/",
        "scenes": [[f"s{i}", {"name": f"s{i}"}] for i in range(SCENES)],
        "episodes_per_scene": tasks // SCENES,
        "exact": False,
        "max_tries_per_episode": 1,
        "randomize_every": 0,
        "workers": None,
        "mode": "fused",
        "stages": {
            stage: {
                "component": f"tests.benchmarks.dispatch_components:{component}",
                "version": "1",
                "args": args.get(stage, {}),
            }
            for stage, component in components.items()
        },
        "limits": {},
    }


# --- the others ---


@contextlib.contextmanager
def ray_systems(workers: int, task_s: float, tasks: int) -> Iterator[dict[str, Measure]]:
    """Ray's remote functions, and a pool of its actors."""
    ray: Any = importlib.import_module("ray")
    pool_of: Any = importlib.import_module("ray.util").ActorPool
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    task = ray.remote(spin)

    @ray.remote
    class Actor:
        def run(self, seconds: float) -> None:
            spin(seconds)

    actor_of: Any = Actor
    actors = [actor_of.remote() for _ in range(workers)]
    ray.get([task.remote(0.0) for _ in range(100)] + [actor.run.remote(0.0) for actor in actors])

    def in_tasks() -> None:
        ray.get([task.remote(task_s) for _ in range(tasks)])

    def in_pool() -> None:
        for _ in pool_of(actors).map_unordered(lambda actor, s: actor.run.remote(s), [task_s] * tasks):
            pass

    try:
        yield {"Ray tasks": lambda: _timed(in_tasks, tasks), "Ray actor pool": lambda: _timed(in_pool, tasks)}
    finally:
        ray.shutdown()


@contextlib.contextmanager
def dask_systems(workers: int, task_s: float, tasks: int) -> Iterator[dict[str, Measure]]:
    """Dask's futures."""
    distributed: Any = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
    client = distributed.Client(cluster)
    client.gather(client.map(spin, [0.0] * 100, pure=False))

    def futures() -> None:
        distributed.wait(client.map(spin, [task_s] * tasks, pure=False))

    try:
        yield {"Dask futures": lambda: _timed(futures, tasks)}
    finally:
        client.close()
        cluster.close()


def _timed(run: Callable[[], None], tasks: int) -> Sample:
    began = time.perf_counter()
    run()
    return Sample(tasks / (time.perf_counter() - began))


# --- the run ---


def measure_all(folder: Path, workers: int, task_s: float, tasks: int, rounds: int, limit_s: float) -> list[Row]:
    """Measure every system in turn, in another order each round. What is made stays in `folder`."""
    fewer = SCENES * max(tasks // FEWER // SCENES, 10)
    tasks = SCENES * max(tasks // SCENES, 10)
    with contextlib.ExitStack() as stack:
        nimbus = Nimbus(folder, workers, task_s, limit_s)
        systems: dict[str, Measure] = {NODE: lambda: nimbus.real_node(fewer)}
        if not task_s:
            systems[MASTER] = lambda: nimbus.scripted_nodes(tasks)
        for others in (ray_systems, dask_systems):
            try:
                systems |= stack.enter_context(others(workers, task_s, fewer))
            except ImportError as error:
                print(f"left out: {error.name} is not installed (pip install 'nimbusd[bench]')", file=sys.stderr)
        samples: dict[str, list[Sample]] = {name: [] for name in systems}
        names = list(systems)
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                samples[name].append(systems[name]())
    return [_row(name, workers, task_s, of_system) for name, of_system in samples.items()]


def _row(system: str, workers: int, task_s: float, samples: list[Sample]) -> Row:
    rates = [sample.tasks_per_s for sample in samples]
    spent = [sample.master_us for sample in samples if sample.master_us is not None]
    master_us = statistics.median(spent) if spent else None
    return Row(system, workers, task_s * 1e3, statistics.median(rates), min(rates), max(rates), master_us)


def table(rows: list[Row]) -> str:
    """The rows as text, with the ratio to Ray's tasks, and of the master's cost to that with the fewest nodes."""
    lines = [
        f"{'system':<18}{'workers':>8}{'task ms':>9}{'tasks/s':>9}{'':>16}{'of Ray':>8}{'master µs':>11}{'growth':>8}"
    ]
    ray = {(row.workers, row.task_ms): row.tasks_per_s for row in rows if row.system == "Ray tasks"}
    fewest = {(row.system, row.task_ms): row for row in sorted(rows, key=lambda row: -row.workers)}
    for row in rows:
        of_ray = ray.get((row.workers, row.task_ms))
        cost = growth = ""
        if row.master_us is not None:
            least = fewest[row.system, row.task_ms].master_us
            cost = f"{row.master_us:.0f}"
            growth = f"{row.master_us / least:.2f}x" if least and row.system == MASTER else ""
        lines.append(
            f"{row.system:<18}{row.workers:>8}{row.task_ms:>9g}{row.tasks_per_s:>9.0f}"
            f"{f'[{row.slowest:.0f}-{row.fastest:.0f}]':>16}"
            f"{'' if of_ray is None else f'{row.tasks_per_s / of_ray:.1f}x':>8}{cost:>11}{growth:>8}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000, help="of the fastest system; the others get a tenth")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--task-ms", type=float, nargs="+", default=[0.0])
    parser.add_argument("--limit-s", type=float, default=600.0, help="the longest that a measurement may wait")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dispatch-") as folder:
        for workers in args.workers:
            for task_ms in args.task_ms:
                rows += measure_all(Path(folder), workers, task_ms / 1e3, args.tasks, args.rounds, args.limit_s)
    print(json.dumps([asdict(row) for row in rows], indent=1) if args.json else table(rows))


if __name__ == "__main__":
    main()
