"""The speed of the ledger, and the time in which a master is back with a full one.

    python -m tests.benchmarks.ledger [--episodes 1000000] [--kills 200] [--folder FOLDER] [--json]

1. Records a second by size of a transaction, each transaction durable (fsync), filling a ledger.
2. Entries a second through `LedgerThread`, each submitted by itself from the event loop: with an idle loop, with a
   loop that is busy all the time (what the interpreter's lock costs), and awaited one after the other.
3. A restart with all these episodes: open, history, open leases, in a fresh process; also with the file out of the
   page cache. Peak memory of that process.
4. With --kills: SIGKILL at random moments of a writing process; whatever was acknowledged must be there, whole.

Run it in a folder on the disk that is meant: --folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span
from nimbusd.core.records import JobRow, LeaseOpened, Record, State
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.transport.messages.failures import Failure
from nimbusd.transport.messages.node import Stored
from tests.support.ledger_writer import kill_once

_JOB = JobId("houses")
_SCENES = 2_560
_ACTIVE = 64
"""Scenes that are worked on at the same time."""
_SIZES = (1, 8, 64, 512, 4096)
_SECONDS_PER_SIZE = 2.0
_SUBMITS = 40_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1_000_000, help="episodes in the ledger at the restart")
    parser.add_argument("--kills", type=int, default=0, help="times that a writing process is killed")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--restart", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.restart:
        print(json.dumps(restart(args.restart)))
        return
    with tempfile.TemporaryDirectory(prefix="nimbusd-ledger-", dir=args.folder) as name:
        folder = Path(name)
        results: dict[str, Any] = {"sqlite": __import__("sqlite3").sqlite_version, "episodes": args.episodes}
        results["apply"] = fill(folder / "full.sqlite", args.episodes)
        results["file_bytes"] = (folder / "full.sqlite").stat().st_size
        results["restart"] = in_fresh_process(folder / "full.sqlite")
        drop_from_cache(folder / "full.sqlite")
        results["restart_cold"] = in_fresh_process(folder / "full.sqlite")
        results["thread"] = uvloop.run(submits(folder / "thread.sqlite"))
        if args.kills:
            results["kills"] = kills(folder / "killed.sqlite", args.kills, args.seed)
    if args.json:
        print(json.dumps(results))
    else:
        show(results)


def job_row() -> JobRow:
    spec = {"name": _JOB, "scenes": [[f"house_{i:05d}", {"path": f"houses/{i}.glb"}] for i in range(_SCENES)]}
    return JobRow(_JOB, "f" * 64, spec, "ada", 0, 0, True, "", time.time())


def records(number: int) -> Iterator[Record]:
    """Episodes as a cluster settles them: many scenes at once, some fail, a few are tried and pending."""
    per_scene = -(-number // _SCENES)
    rng = random.Random(1)
    for first in range(0, _SCENES, _ACTIVE):
        for index in range(per_scene):
            for scene in range(first, min(first + _ACTIVE, _SCENES)):
                key = EpisodeKey(_JOB, f"house_{scene:05d}", index)
                chance = rng.random()
                if chance < 0.002:
                    crash = Failure("render", "crash", "died", "stack\n" * 40)
                    yield Record(key, State.PENDING, 1, 1, "node-17", failure=crash)
                elif chance < 0.05:
                    unreachable = Failure("plan", "unreachable", "no way to the goal")
                    yield Record(key, State.FAILED, 1, 0, "node-17", failure=unreachable)
                else:
                    folder = f"houses__house_{scene:05d}__{index:06d}.1"
                    digest = f"{rng.getrandbits(256):064x}"
                    piece = Stored(index, folder, 150, 3 << 20, digest, 1.0)
                    yield Record(key, State.COMMITTED, 1, 0, "node-17", piece)


def fill(path: Path, number: int) -> list[dict[str, float]]:
    """Fill a ledger; rates by size of a transaction, the largest size for what is left."""
    source = records(number)
    rows = []
    with Ledger.open(path) as ledger:
        ledger.put_job(job_row())
        ledger.apply(
            LeaseOpened(LeaseId(i + 1), _JOB, f"house_{i:05d}", 2, NodeId("node-17"), (Span(1 << 20, (1 << 20) + 8),))
            for i in range(_ACTIVE)
        )
        for size in _SIZES:
            written, spent, latencies = 0, 0.0, []
            while size == _SIZES[-1] or spent < _SECONDS_PER_SIZE:
                batch = [record for record, _ in zip(source, range(size), strict=False)]
                if not batch:
                    break
                began = time.perf_counter()
                ledger.apply(batch)
                latencies.append(time.perf_counter() - began)
                spent += latencies[-1]
                written += len(batch)
            if written:
                latencies.sort()
                row = {"batch": size, "records": written, "per_s": written / spent}
                rows.append({**row, "median_ms": 1e3 * latencies[len(latencies) // 2], "worst_ms": 1e3 * latencies[-1]})
    return rows


def restart(path: Path) -> dict[str, float]:
    """The start of a master, as far as its ledger goes."""
    began = time.perf_counter()
    with Ledger.open(path) as ledger:
        opened = time.perf_counter()
        jobs = ledger.jobs()
        histories = [ledger.history(row.job) for row in jobs]
        read = time.perf_counter()
        leases = ledger.open_leases()
        ended = time.perf_counter()
        totals = ledger.totals(_JOB)
        counted = time.perf_counter()
    return {
        "open_s": opened - began,
        "history_s": read - opened,
        "leases_s": ended - read,
        "total_s": ended - began,
        "totals_s": counted - ended,
        "settled": totals.committed + totals.failed + totals.quarantined,
        "spans": sum(len(past.settled) for history in histories for past in history.values()),
        "tried": sum(len(past.tried) for history in histories for past in history.values()),
        "leases": len(leases),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def in_fresh_process(path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.ledger", "--restart", str(path)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result


def drop_from_cache(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


async def submits(path: Path) -> dict[str, float]:
    """Entries a second, submitted one by one."""
    source = records(10 * _SUBMITS)
    found = {}
    async with LedgerThread.opened(path) as ledger:
        await ledger.call_writing(lambda held: held.put_job(job_row()))
        for name, busy_s in (
            ("nowait_per_s", 0.0),
            ("nowait_busy_loop_per_s", 200e-6),
            ("nowait_very_busy_loop_per_s", 3e-3),
        ):
            found[name] = await _submit_all(ledger, [next(source) for _ in range(_SUBMITS)], busy_s)
        batch = [next(source) for _ in range(_SUBMITS)]
        began = time.perf_counter()
        for at in range(0, len(batch), 1_000):
            await asyncio.gather(*(ledger.submit([record]) for record in batch[at : at + 1_000]))
        found["awaited_by_1000_tasks_per_s"] = len(batch) / (time.perf_counter() - began)
        began = time.perf_counter()
        for _ in range(2_000):
            await ledger.submit([next(source)])
        found["awaited_one_by_one_per_s"] = 2_000 / (time.perf_counter() - began)
    return found


async def _submit_all(ledger: LedgerThread, batch: list[Record], busy_s: float) -> float:
    """Submit in turns of 20 entries. busy_s: what a turn of the event loop computes besides."""
    durable = asyncio.Event()
    left = len(batch)

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            durable.set()

    began = time.perf_counter()
    for number, record in enumerate(batch):
        ledger.submit_nowait([record], done)
        if number % 20 == 19:
            until = time.perf_counter() + busy_s
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0)
    while busy_s and left:
        until = time.perf_counter() + busy_s
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)
    await durable.wait()
    return len(batch) / (time.perf_counter() - began)


def kills(path: Path, number: int, seed: int) -> dict[str, int]:
    """Kill a writer so many times. Raises AssertionError at the first thing that is lost or torn."""
    rng = random.Random(seed)
    batches = unacknowledged = 0
    for _ in range(number):
        acknowledged, batches = kill_once(path, rng)
        unacknowledged += batches - acknowledged - 1 if acknowledged >= 0 else 0
    return {"kills": number, "batches": batches, "written_but_unacknowledged": unacknowledged, "lost": 0, "torn": 0}


def show(results: dict[str, Any]) -> None:
    print(f"SQLite {results['sqlite']}, WAL, synchronous=FULL\n")
    print(f"{'batch':>6} {'records/s':>10} {'median ms':>10} {'worst ms':>10}")
    for row in results["apply"]:
        print(f"{row['batch']:>6} {row['per_s']:>10,.0f} {row['median_ms']:>10.2f} {row['worst_ms']:>10.1f}")
    print(f"\n{'through LedgerThread':<34} entries/s")
    for name, rate in results["thread"].items():
        print(f"{name.removesuffix('_per_s').replace('_', ' '):<34} {rate:>9,.0f}")
    print(f"\nrestart with {results['restart']['settled']:,} settled episodes, {results['file_bytes'] / 1e6:,.0f} MB")
    for name in ("restart", "restart_cold"):
        row = results[name]
        print(
            f"{name:<14} open {row['open_s']:.2f} s, history {row['history_s']:.2f} s ({row['spans']:,} spans, "
            f"{row['tried']:,} tried), leases {row['leases_s']:.3f} s, in all {row['total_s']:.2f} s; "
            f"totals {row['totals_s']:.2f} s; peak RSS {row['peak_rss_bytes'] / 1e6:.0f} MB"
        )
    if "kills" in results:
        print(f"\nkills: {results['kills']}")


if __name__ == "__main__":
    main()
