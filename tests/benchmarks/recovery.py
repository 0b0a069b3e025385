"""The time until a hung worker is dead, its slot is at work again, and a dead watchdog is back.

    python -m tests.benchmarks.recovery [--trials 100] [--limit 0.5] [--backend toy --backend bpy] [--json]

Hangs: a real node with one slot runs a job whose renderer, every second time, beats, notes the time, and then hangs
in C code with the GIL held. "Hang to kill" is from the deadline that this beat set (its time + the job's
beat_timeout_s) until the process is dead; "kill to work" from there until another process renders in that slot,
which is, cold, the start of an interpreter, the imports, the opening of the renderer, and the load of the scene. With a
warm spare (each hang waits until there is one) it is the last two. Backends: `toy` imports nothing, `bpy` is Blender,
whose import is what a simulator's is like; it is left out where it is not installed.

Watchdog: one that watches an idle page is killed; "death to return" is until another one has looked at the page.

Exits with 1 unless every kill came within 0.5 s of the deadline and every watchdog was back within 1 s.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import importlib
import importlib.util
import itertools
import json
import logging
import os
import select
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from nimbusd import events
from nimbusd.embedded import JobRun
from nimbusd.job import read_job
from nimbusd.node.slots import cpu_slots
from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.types import Observation, Sequence
from nimbusd.supervisor.page import WATCHDOG
from nimbusd.supervisor.watch import WorkerWatch
from tests.support.toy import ToyRenderer
from tests.support.toy_jobs import TOYS

MOST_LATE_S = 0.5
MOST_AWAY_S = 1.0
RENDER_S = 0.2


class HangArgs(ComponentArgs):
    """log: where each rendering and each hang is noted, with pid and CLOCK_MONOTONIC ns.

    warm: a file with a line for every spare that has become warm; no hang before there is one for it. None: at once.
    """

    log: Path
    warm: Path | None = None


class HangingRenderer(ToyRenderer):
    """Hangs in every second sequence that any worker renders."""

    args_model = HangArgs
    args: Any

    def gen_obs(self, seq: Sequence) -> Observation:
        rendered = self._note("render")
        time.sleep(RENDER_S)  # with the GIL free, so that the writer thread gets the episode before this one done
        if rendered % 2:
            self._wait_for_spare()
            self.beat()
            self._note("hang")
            ctypes.PyDLL(None).pause()
        return super().gen_obs(seq)

    def _note(self, what: str) -> int:
        with self.args.log.open("a") as file:
            file.write(f"{what} {os.getpid()} {time.monotonic_ns()}\n")
        return str(self.args.log.read_text()).count("render")

    def _wait_for_spare(self) -> None:
        hangs = self.args.log.read_text().count("hang")
        while self.args.warm is not None and self.args.warm.read_text().count("warm") <= hangs:
            self.beat()
            time.sleep(0.02)


class BlenderRenderer(HangingRenderer):
    """The same, in a process that has Blender in it."""

    requires = ("bpy",)

    def open(self, device: str) -> None:
        importlib.import_module("bpy")
        super().open(device)


BACKENDS = {"toy": HangingRenderer, "bpy": BlenderRenderer}


class WarmSpares(logging.Handler):
    """Notes in a file when the node says that a spare is warm."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        path.touch()

    def emit(self, record: logging.LogRecord) -> None:
        if "is warm" in record.getMessage():
            with self._path.open("a") as file:
                file.write("warm\n")


class Deaths:
    """The moment of each death, seen from threads that wait for nothing else."""

    def __init__(self) -> None:
        self.at_ns: dict[int, int] = {}
        self._threads: list[threading.Thread] = []

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.WorkerUp):
            thread = threading.Thread(target=self._wait, args=(event.pid, os.pidfd_open(event.pid)), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _wait(self, pid: int, pidfd: int) -> None:
        select.select([pidfd], [], [])
        self.at_ns[pid] = time.monotonic_ns()
        os.close(pidfd)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def job_of(folder: Path, trials: int, limit_s: float, backend: str, spares: int) -> dict[str, Any]:
    render = {
        "component": f"tests.benchmarks.recovery:{BACKENDS[backend].__name__}",
        "args": {"log": str(folder / "log"), "warm": str(folder / "warm") if spares else None},
    }
    return {
        "name": "recovery",
        "output": str(folder / "out"),
        "scenes": [{"name": "a"}],
        "episodes_per_scene": trials,
        "pipeline": {**TOYS, "render": render},
        # A hang takes along what the writer thread had not finished: the same episode may be hit again and again.
        "limits": {"beat_timeout_s": limit_s, "attempts": 1000},
    }


async def hangs(
    trials: int, limit_s: float, folder: Path, backend: str, spares: int
) -> tuple[list[float], list[float]]:
    """Seconds from deadline to death, and from death to work, of each hang."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job_of(folder, trials, limit_s, backend, spares)))
    deaths, warm, log = Deaths(), WarmSpares(folder / "warm"), logging.getLogger("nimbusd.node.node")
    log.addHandler(warm)
    log.setLevel(logging.INFO)
    try:
        ended = await JobRun(read_job(path), cpu_slots(1), deaths, spares=spares).run()
    finally:
        log.removeHandler(warm)
    assert ended.status == "complete", ended
    deaths.join()
    notes = [line.split() for line in (folder / "log").read_text().splitlines()]
    late, idle = [], []
    for (what, pid, at_ns), (_, _, next_ns) in itertools.pairwise(notes):
        if what == "hang":
            died_ns = deaths.at_ns[int(pid)]
            late.append((died_ns - int(at_ns)) / 1e9 - limit_s)
            idle.append((int(next_ns) - died_ns) / 1e9)
    return late, idle


async def returns(trials: int, folder: Path) -> list[float]:
    """Seconds from the death of a watchdog until another one has looked at the page."""
    return [await _one_return(folder) for _ in range(trials)]


async def _one_return(folder: Path) -> float:
    pids: asyncio.Queue[int] = asyncio.Queue()
    watch = WorkerWatch(folder, 1, lambda *_: None, pids.put_nowait)
    running = asyncio.create_task(watch.run())
    try:
        first = await pids.get()
        pidfd = os.pidfd_open(first)
        os.kill(first, signal.SIGKILL)
        select.select([pidfd], [], [])
        died_ns = time.monotonic_ns()
        os.close(pidfd)
        return (await _looked(watch, died_ns) - died_ns) / 1e9
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _looked(watch: WorkerWatch, since_ns: int) -> int:
    """The time when the watchdog is first seen to have looked at the page after `since_ns`."""
    line = watch.page.line(WATCHDOG)
    while line.working().deadline_ns - int(line.working().allowance_s * 1e9) < since_ns:  # noqa: ASYNC110 - page only
        await asyncio.sleep(0.001)
    return time.monotonic_ns()


def summary(values: list[float]) -> dict[str, float]:
    return {
        "trials": len(values),
        "min_s": round(min(values), 3),
        "median_s": round(statistics.median(values), 3),
        "max_s": round(max(values), 3),
    }


def _is_installed(backend: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in BACKENDS[backend].requires)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.benchmarks.recovery", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--limit", type=float, default=0.5, help="the job's beat_timeout_s")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="default: all that are installed")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    late: list[float] = []
    table = {}
    with tempfile.TemporaryDirectory(prefix="recovery-") as name:
        for backend in args.backend or [name for name in BACKENDS if _is_installed(name)]:
            for spares, how in ((0, "cold"), (1, "warm spare")):
                folder = Path(name) / f"{backend}{spares}"
                folder.mkdir()
                these, idle = asyncio.run(hangs(args.trials, args.limit, folder, backend, spares))
                late += these
                table[f"kill to work in the slot, {backend}, {how}"] = summary(idle)
        away = asyncio.run(returns(args.trials, Path(name)))
    table = {"hang to kill, beyond the deadline": summary(late), **table, "watchdog: death to return": summary(away)}
    ok = max(late) <= MOST_LATE_S and max(away) <= MOST_AWAY_S
    if args.json:
        print(json.dumps({**table, "ok": ok}))
    else:
        print(f"{'':<44}{'trials':>8}{'min s':>9}{'median s':>10}{'max s':>9}")
        for what, row in table.items():
            print(f"{what:<44}{row['trials']:>8}{row['min_s']:>9.3f}{row['median_s']:>10.3f}{row['max_s']:>9.3f}")
        print(
            "all kills and returns in time" if ok else f"NOT in time: {MOST_LATE_S} s and {MOST_AWAY_S} s are allowed"
        )
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
