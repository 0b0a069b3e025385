"""Tasks a second through the master, against Ray and Dask, in alternating order in one run.

    python -m tests.benchmarks.dispatch [--tasks 20000] [--workers 2 4 8] [--rounds 3] [--json]

A task is a function call that does nothing, or that keeps a core busy for 1 ms. Ours are episodes of a job: leased
by a real master over TCP, executed by nodes of one slot, and every completion durable in the ledger (SQLite, synced)
before it counts. Ray runs them as remote functions and in a pool of actors, Dask as futures; both keep results in
memory alone. Time is from the submission to the last completion; processes are started before. `gap` is how long
a slot of ours waits between two tasks (the dispatch latency, while there is work).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from nimbusd.client import Client

Measure: TypeAlias = Callable[[int, float], float]
"""(tasks, seconds of each) → seconds from submission to the last completion."""
NODE = "tests.benchmarks.dispatch_node"


@dataclass(frozen=True)
class Row:
    """Medians over the rounds."""

    system: str
    workers: int
    task_ms: float
    tasks_per_s: float
    p50_gap_ms: float | None = None
    p99_gap_ms: float | None = None


def spin(seconds: float) -> None:
    """Keep a core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


# --- ours ---


class Nimbus:
    """A master and nodes as processes, made anew for each measurement: our jobs leave a ledger behind."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder = folder
        self._workers = workers
        self.gaps_s: list[float] = []
        """How long slots waited between two tasks, over all measurements."""

    def measure(self, tasks: int, task_s: float) -> float:
        """Submit a job of so many tasks and wait for the last commit."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            address, _ = stack.enter_context(master_process(folder))
            waits = [folder / f"waits{i}.json" for i in range(self._workers)]
            nodes = [_node(address, f"n{i}", task_s, wait) for i, wait in enumerate(waits)]
            with Client.connect(address) as client:
                while len(client.nodes()) < self._workers:
                    time.sleep(0.02)
                began = time.perf_counter()
                client.submit(toy_job("job", folder / "out", tasks))
                while client.jobs()[0].committed < tasks:
                    time.sleep(0.02)
                seconds = time.perf_counter() - began
            for node in nodes:
                node.communicate()
            self.gaps_s += [gap for wait in waits for gap in json.loads(wait.read_text())]
        return seconds


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
        while "listening on" not in (said := log.read_text()):
            if master.poll() is not None:
                raise RuntimeError(f"the master did not start: {said}")
            time.sleep(0.02)
        yield said.split("listening on ")[1].split(";")[0].strip(), master.pid
    finally:
        master.kill()
        master.wait()


def _node(address: str, name: str, task_s: float, waits: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", NODE, address, name, str(task_s), str(waits)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def toy_job(name: str, output: Path, tasks: int, scenes: int = 8) -> dict[str, Any]:
    """A job as a client submits it. Nothing of it is made: the nodes of this benchmark only say so."""
    stage = {"version": "1", "args": {}}
    return {
        "name": name,
        "seed": 0,
        "output": str(output),
        "scenes_root": "/",
        "scenes": [[f"s{i}", {"name": f"s{i}"}] for i in range(scenes)],
        "episodes_per_scene": tasks // scenes,
        "exact": False,
        "max_tries_per_episode": 1,
        "randomize_every": 0,
        "workers": None,
        "stages": {
            "load": {"component": "tests.support.toy:ToyLoader", **stage},
            "plan": {"component": "tests.support.toy:ToyPlanner", **stage},
            "render": {"component": "tests.support.toy:ToyRenderer", **stage},
            "store": {"component": "tests.support.toy:ToyWriter", **stage},
        },
        "limits": {},
    }


# --- the others ---


@contextlib.contextmanager
def ray_systems(workers: int) -> Iterator[dict[str, Measure]]:
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

    def tasks(number: int, seconds: float) -> float:
        began = time.perf_counter()
        ray.get([task.remote(seconds) for _ in range(number)])
        return time.perf_counter() - began

    def pool(number: int, seconds: float) -> float:
        began = time.perf_counter()
        for _ in pool_of(actors).map_unordered(lambda actor, s: actor.run.remote(s), [seconds] * number):
            pass
        return time.perf_counter() - began

    try:
        yield {"Ray tasks": tasks, "Ray actor pool": pool}
    finally:
        ray.shutdown()


@contextlib.contextmanager
def dask_systems(workers: int) -> Iterator[dict[str, Measure]]:
    """Dask's futures."""
    distributed: Any = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
    client = distributed.Client(cluster)
    client.gather(client.map(spin, [0.0] * 100, pure=False))

    def futures(number: int, seconds: float) -> float:
        began = time.perf_counter()
        distributed.wait(client.map(spin, [seconds] * number, pure=False))
        return time.perf_counter() - began

    try:
        yield {"Dask futures": futures}
    finally:
        client.close()
        cluster.close()


# --- the run ---


def measure_all(workers: int, task_s: float, tasks: int, rounds: int) -> list[Row]:
    """Every system in turn, in another order each round. The slower ones get a tenth of the tasks."""
    with tempfile.TemporaryDirectory(prefix="dispatch-") as folder, contextlib.ExitStack() as stack:
        systems: dict[str, Measure] = {}
        for others in (ray_systems, dask_systems):
            try:
                systems |= stack.enter_context(others(workers))
            except ImportError as error:
                print(f"left out: {error.name} is not installed (pip install 'nimbusd[bench]')", file=sys.stderr)
        nimbus = Nimbus(Path(folder), workers)
        systems = {"nimbusd": nimbus.measure, **systems}
        rates: dict[str, list[float]] = {name: [] for name in systems}
        names = list(systems)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                count = tasks if name == "nimbusd" else max(tasks // 10, 8)
                rates[name].append(count / systems[name](count, task_s))
        gaps = sorted(nimbus.gaps_s)
    quantiles = (1e3 * gaps[len(gaps) // 2], 1e3 * gaps[int(len(gaps) * 0.99)]) if gaps else (None, None)
    return [
        Row(name, workers, task_s * 1e3, statistics.median(rate), *(quantiles if name == "nimbusd" else ()))
        for name, rate in rates.items()
    ]


def table(rows: list[Row]) -> str:
    """The rows as text, with our ratio to each."""
    lines = [
        f"{'system':<16}{'workers':>8}{'task ms':>9}{'tasks/s':>10}{'ours is':>9}{'p50 gap ms':>12}{'p99 gap ms':>12}"
    ]
    ours = {(row.workers, row.task_ms): row.tasks_per_s for row in rows if row.system == "nimbusd"}
    for row in rows:
        ratio = ours[row.workers, row.task_ms] / row.tasks_per_s
        gaps = "".join(f"{'' if gap is None else f'{gap:.3f}':>12}" for gap in (row.p50_gap_ms, row.p99_gap_ms))
        lines.append(f"{row.system:<16}{row.workers:>8}{row.task_ms:>9g}{row.tasks_per_s:>10.0f}{ratio:>8.1f}x{gaps}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows: list[Row] = []
    for workers in args.workers:
        for task_s in (0.0, 0.001):
            rows += measure_all(workers, task_s, args.tasks, args.rounds)
    print(json.dumps([asdict(row) for row in rows], indent=1) if args.json else table(rows))


if __name__ == "__main__":
    main()
