"""Both manipulation examples from end to end: one process that does everything in turn, against our way of working.

    python -m tests.benchmarks.manipulation_jobs [--episodes 4] [--job genmanip|simbox] [--json]

Runs each example job (same seeds, same layouts, same settings) in one compute worker that has all cores, then in mode
`auto` with one worker per core; the second also plans, renders and encodes at the same time. Seconds are from the start
of the first process until the dataset is published. The datasets' state columns must be equal.

Software rendering already uses every core in one process, so on a machine without a GPU the ratio says what overlapping
planning, encoding and start-up brings, not what several renderers on a GPU would. Exits with 1 if the datasets differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nimbusd import events
from nimbusd.chaos.inspection import equal_columns, published_columns
from nimbusd.embedded import JobRun
from nimbusd.job import read_job
from nimbusd.node.slots import Slot, cpu_slots

EXAMPLES = Path(__file__).parents[2] / "examples"
JOBS = {"genmanip": "genmanip_pick_place.yaml", "simbox": "simbox_sort_trash.yaml"}


@dataclass(frozen=True, slots=True)
class Result:
    """One run. stages_s: seconds per episode by stage, summed over its processes."""

    job: str
    way: str
    episodes: int
    frames: int
    seconds: float
    stages_s: dict[str, float]


class Spent:
    """The time of the committed episodes."""

    def __init__(self) -> None:
        self.frames = 0
        self.stages_s: dict[str, float] = {}

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.EpisodeCommitted):
            self.frames += event.frames
            for stage, spent_s in event.timings_s.items():
                self.stages_s[stage] = self.stages_s.get(stage, 0.0) + spent_s


def run(name: str, way: str, episodes: int, output: Path) -> Result:
    """Run an example job in one of the ways."""
    mode = "fused" if way == "sequential" else "auto"
    cores = tuple(sorted(os.sched_getaffinity(0)))
    slots = (Slot("cpu:0", cores),) if way == "sequential" else cpu_slots(None)
    job = read_job(EXAMPLES / JOBS[name], output=output, overrides=[f"episodes_per_scene={episodes}", f"mode={mode}"])
    spent, began = Spent(), time.monotonic()
    ended = asyncio.run(JobRun(job, slots, spent).run())
    assert ended.status == "complete", ended
    stages_s = {stage: round(total / episodes, 2) for stage, total in spent.stages_s.items()}
    return Result(name, way, episodes, spent.frames, time.monotonic() - began, stages_s)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.benchmarks.manipulation_jobs", description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--job", choices=JOBS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.getLogger("nimbusd").setLevel(logging.ERROR)
    results, same = [], True
    for name in [args.job] if args.job else JOBS:
        with tempfile.TemporaryDirectory(prefix="manipulation-") as folder:
            pair = [run(name, way, args.episodes, Path(folder) / way) for way in ("sequential", "auto")]
            first, second = (published_columns(Path(folder) / way) for way in ("sequential", "auto"))
            same &= equal_columns(first, second)
        results += pair
        if not args.json:
            show(pair)
    if args.json:
        print(json.dumps({"results": [asdict(result) for result in results], "same": same}))
    elif not same:
        print("the state columns DIFFER")
    sys.exit(0 if same else 1)


def show(pair: list[Result]) -> None:
    for result in pair:
        stages = ", ".join(f"{stage} {spent_s:.1f}" for stage, spent_s in result.stages_s.items())
        print(
            f"{result.job:<10}{result.way:<12}{result.seconds:>8.1f} s {pair[0].seconds / result.seconds:>6.2f}x "
            f"{result.frames:>6} frames; seconds per episode: {stages}",
            flush=True,
        )


if __name__ == "__main__":
    main()
