"""SIGKILL at random moments: what a job loses (nothing), makes twice (nothing), and whether its data is the same.

    python -m tests.benchmarks.kills [JOB] [--kills 30] [--seed 0] [--set KEY=VALUE] [--json]

Runs the job once undisturbed, with one worker, then again with two workers and kills: the daemon and its workers
in turn, each a random time after the last (re)start. Killing a worker leaves the run going; killing the daemon ends
it, and the same command is started again, as a user would. At the end the published state columns of both are
compared. By default the job is the demo, with frames of 64x48 pixels so that it takes minutes.

`tests.benchmarks.cluster_kills` does the same to a cluster.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from nimbusd.chaos.inspection import Columns, inspect_job, published_columns
from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.job import Job, read_job
from nimbusd.master.output.folder import ledger_path

DEMO = Path("examples/nav_mesh.yaml")
SMALL = ("pipeline.plan.args.cameras.0.width=64", "pipeline.plan.args.cameras.0.height=48")
CHECKS = ("lost", "duplicated", "leftover_pieces", "other_state_columns", "verify_failed")
"""Figures that must be 0."""


def start(job: Path, output: Path, workers: int, overrides: list[str]) -> subprocess.Popen[bytes]:
    """`nimbusctl run`, its events added to `<output>.events`."""
    command = [sys.executable, "-m", "nimbusd.cli", "run", str(job), "--output", str(output), "--json"]
    command += ["--workers", str(workers), *[part for change in overrides for part in ("--set", change)]]
    with output.with_suffix(".events").open("ab") as events:
        return subprocess.Popen(command, stdout=events)


def run_with_kills(
    job: Path, output: Path, overrides: list[str], kills: int, pause_s: float, rng: random.Random
) -> Counter[str]:
    """Run the job to its end through at most `kills` kills (it may end before).

    Returns how many of each kind of process were killed. Raises RuntimeError if a run fails by itself.
    """
    killed: Counter[str] = Counter()
    process = start(job, output, 2, overrides)
    while killed.total() < kills:
        try:
            status = process.wait(rng.uniform(0.0, pause_s))
        except subprocess.TimeoutExpired:
            victims = psutil.Process(process.pid).children()
            if killed["daemon"] <= killed["worker"] or not victims:
                process.kill()
                process.wait()
                psutil.wait_procs(victims, timeout=10)
                killed["daemon"] += 1
                process = start(job, output, 2, overrides)
            else:
                rng.choice(victims).kill()
                killed["worker"] += 1
            continue
        if status != 0:
            raise RuntimeError(f"the run ended with status {status}")
        break
    if process.wait() != 0:
        raise RuntimeError(f"the last run ended with status {process.returncode}")
    return killed


def commits_of(output: Path, job: JobId) -> Counter[EpisodeKey]:
    """Commit events of each episode, over all runs. A killed daemon may not have said it."""
    commits: Counter[EpisodeKey] = Counter()
    for line in output.with_suffix(".events").read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a daemon died in the middle of this line
        if event["event"] == "episode_committed":
            commits[EpisodeKey(job, event["scene"], event["index"])] += 1
    return commits


def undisturbed(job: Path, overrides: list[str], output: Path) -> tuple[Job, Columns, float]:
    """Run a job by itself: the job, its state columns, and how many seconds it took."""
    began = time.monotonic()
    if start(job, output, 1, overrides).wait() != 0:
        raise RuntimeError("the undisturbed run failed")
    took_s = time.monotonic() - began
    return read_job(job, output=output, overrides=overrides), published_columns(output), took_s


def inspect(job: Job, ledger: Path, commits: Mapping[EpisodeKey, int], expected: Columns) -> Counter[str]:
    """CHECKS of a job that has ended. commits: commit events by episode."""
    found = inspect_job(job, ledger, commits, expected)
    return Counter(
        lost=found.lost,
        duplicated=found.duplicated,
        leftover_pieces=found.leftover_pieces,
        other_state_columns=found.other_state_columns,
        verify_failed=int(bool(found.faults)),
    )


def measure(job: Path, overrides: list[str], kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """The figures of the table."""
    calm, expected, calm_s = undisturbed(job, overrides, folder / "calm")
    rng = random.Random(seed)
    figures: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    while killed.total() < kills:
        output = folder / f"stormy{figures['jobs']}"
        killed += run_with_kills(job, output, overrides, kills - killed.total(), calm_s / 2, rng)
        figures["jobs"] += 1
        stormy = read_job(job, output=output, overrides=overrides)
        figures.update(inspect(stormy, ledger_path(output), commits_of(output, JobId(stormy.name)), expected))
    return {
        "kills_of_daemon": killed["daemon"],
        "kills_of_workers": killed["worker"],
        "jobs": figures["jobs"],
        "episodes_per_job": calm.total_episodes,
        **{name: figures[name] for name in CHECKS},
        "ok": not any(figures[name] for name in CHECKS),
    }


def options(doc: str | None, kills: int) -> argparse.ArgumentParser:
    """The options of both benchmarks."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    return parser


def overrides_of(args: argparse.Namespace) -> list[str]:
    """Changes to the job: the demo is made small unless something else is said."""
    small = list(SMALL) if args.job == DEMO else []
    return small if args.overrides is None else args.overrides


def report(figures: dict[str, Any], as_json: bool) -> None:
    """Print the figures, and exit with 1 if a check failed."""
    if as_json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name.replace('_', ' '):<28}{value!s:>12}" for name, value in figures.items()))
    sys.exit(0 if figures["ok"] else 1)


def main() -> None:
    args = options(__doc__, 30).parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        figures = measure(args.job, overrides_of(args), args.kills, args.seed, Path(folder))
    report(figures, args.json)


if __name__ == "__main__":
    main()
